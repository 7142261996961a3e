"""What each package may import, tried in fresh interpreters: a convention that nobody checks does not hold."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
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


def modules_of(package):
    """Every module of a package, found by its files."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return [name.removesuffix(".__init__") for name in names]


def load(modules, banned):
    """Import modules in a fresh interpreter in which importing anything banned ends it. Returns what it said."""
    command = [sys.executable, "-c", PROGRAM, " ".join(modules), " ".join(banned)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def test_the_ban_is_real():
    assert load(["trainer.config"], ["pydantic"]) == "pydantic was imported while loading trainer.config"


def test_trainer_stands_alone():
    modules = modules_of("trainer")
    assert "trainer.loop" in modules
    assert load(modules, ["pipeline", "recipes", "cli", "data", "streaming", "torchvision", "pyarrow"]) == ""


def test_pipeline_stands_alone_without_torch():
    modules = modules_of("pipeline")
    assert "pipeline.build" in modules
    assert load(modules, ["trainer", "recipes", "cli", "data", "torch", "streaming"]) == ""


def test_the_command_starts_without_a_heavy_library():
    assert load(["cli.main", "recipes.schema", "recipes.load"], HEAVY) == ""


@pytest.mark.parametrize("package", ["pipeline", "trainer"])
def test_configuration_loads_no_heavy_library(package):
    assert load([f"{package}.config", "common.errors", "common.observe"], HEAVY) == ""
