"""The shape of the code: names, sizes, and what may import what.

The arrows between our packages are a contract in pyproject.toml (`lint-imports`, part of `make check`). The tests on
heavy libraries import modules in fresh interpreters; the others read the source.
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SLOW, TESTS

ROOT = Path(__file__).parent.parent
PACKAGES = ("common", "pipeline", "trainer", "recipes", "cli", "data")
HEAVY = ("torch", "torchvision", "streaming", "datatrove", "numba", "pyarrow", "tokenizers", "trafilatura", "fasttext")

PROGRAM = """
import importlib, sys, warnings
warnings.simplefilter("ignore")  # other libraries' own deprecations
modules, banned = sys.argv[1].split(), set(sys.argv[2].split())
class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in banned:
            raise SystemExit(f"{name} was imported while loading {current}")
sys.meta_path.insert(0, Ban())
for current in modules:
    importlib.import_module(current)
"""


def sources(package: str) -> list[Path]:
    """Every module of a package, as a path below the root."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))


def imports(path: Path, *, at_load: bool = False) -> Iterator[str]:
    """Dotted names that a module imports; `at_load`: only those that loading it imports, not its functions."""
    pending: list[ast.AST] = [ast.parse((ROOT / path).read_text("utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        is_type_checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not (at_load and (is_type_checking or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))):
            pending += ast.iter_child_nodes(node)


def load(modules: list[str], banned: tuple[str, ...]) -> str:
    """Import modules in a fresh interpreter that ends at anything banned. Returns its error message."""
    command = [sys.executable, "-c", PROGRAM, " ".join(modules), " ".join(banned)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def test_no_two_modules_share_a_name():
    shared = {"__init__.py", "__main__.py", "config.py", "stage.py"}
    names = Counter(path.name for package in PACKAGES if package != "data" for path in sources(package))
    assert sorted(name for name, count in names.items() if count > 1 and name not in shared) == []


def test_common_is_small():
    assert sum(len((ROOT / path).read_text("utf-8").splitlines()) for path in sources("common")) <= 930


def test_common_loads_few_libraries():
    allowed = {"common", "numpy", "xxhash", "fsspec"} | sys.stdlib_module_names
    loaded = {(str(path), name) for path in sources("common") for name in imports(path, at_load=True)}
    assert sorted(pair for pair in loaded if pair[1].partition(".")[0] not in allowed) == []


def test_only_the_training_loop_imports_many_of_its_siblings():
    modules = {path.stem for path in sources("trainer") if len(path.parts) == 2}
    crowded = {}
    for path in sources("trainer"):
        parts = (name.split(".") for name in imports(path))
        siblings = {part[1] for part in parts if part[0] == "trainer" and part[1] in modules}
        if len(siblings) > 6 and path.name != "loop.py":
            crowded[str(path)] = sorted(siblings)
    assert crowded == {}


def test_compiled_code_is_in_the_kernels_alone():
    wall = ROOT / "pipeline/kernels"
    outside = [path for package in PACKAGES for path in sources(package) if not (ROOT / path).is_relative_to(wall)]
    compiled = {str(path) for path in outside for name in imports(path) if name.split(".")[0] in ("numba", "llvmlite")}
    assert sorted(compiled) == []


def test_slow_tests_are_where_the_list_says():
    assert [name for name in SLOW if not (TESTS / name).exists()] == []


def test_the_ban_is_real():
    assert load(["trainer.config"], ("pydantic",)) == "pydantic was imported while loading trainer.config"


def test_a_trainer_loads_no_streaming():
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in sources("trainer")]
    assert "trainer.loop" in modules
    assert load(modules, ("streaming", "torchvision", "pyarrow")) == ""


def test_a_pipeline_loads_no_torch():
    # The trees of the extractor are trained with libraries of the extra `bench`.
    paths = [path for path in sources("pipeline") if "training" not in path.parts]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    assert "pipeline.build" in modules
    assert load(modules, ("torch", "streaming")) == ""


@pytest.mark.parametrize(
    "modules", ["cli.main cli.commands recipes.load", "pipeline.config", "trainer.config", "common.files"]
)
def test_a_command_and_its_settings_load_no_heavy_library(modules):
    assert load(modules.split(), HEAVY) == ""


def test_a_report_loads_no_kernel():
    modules = ["cli.report.write", "pipeline.read", "pipeline.extract.decoding", "pipeline.quality.rules"]
    assert load(modules, ("numba", "plotly", "warcio", "fsspec")) == ""
