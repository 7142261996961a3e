"""A stage of the user's own code: functions, datatrove's filters and formatters, the ledger, the fingerprint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from common.errors import PipelineError, RecipeError
from common.runfolder import RunFolder
from pipeline.config import CorpusConfig
from recipes.load import check_paths, load_recipe, resolved_yaml
from tests.conftest import PROSE
from tests.pipeline.test_build import build

CODE = """
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters import PIIFormatter


def rivers_only(document):
    if document["source"] != "rows":
        return "strange_source"
    if "river" not in document["text"]:
        return "no_river"
    document["text"] = document["text"].replace("river", "stream")


def by_truth(document):
    return "@" in document["text"], "no_mail"


def wrong(document):
    return 3


class Short(BaseFilter):
    def filter(self, document):
        return (True, None) if len(document.text) < 60 else (False, "too_long")


def lambda_filter():
    return LambdaFilter(lambda document: "@" in document.text)


mask = PIIFormatter()
number = 7
"""
TEXTS = {**PROSE, "mail": "Write to jane.doe@corp.example now", "mails": "ann@corp.example, bob@corp.example"}


def make(folder: Path) -> Path:
    rows = [json.dumps({"text": text, "id": name}) for name, text in TEXTS.items()]
    (folder / "rows.jsonl").write_text("\n".join(rows), "utf-8")
    (folder / "mine.py").write_text(CODE)
    return folder


def recipe(use: str, **changes: Any) -> CorpusConfig:
    settings: dict[str, Any] = {
        "name": "own",
        "sources": [{"name": "rows", "type": "jsonl", "paths": ["rows.jsonl"], "id_key": "id"}],
        "stages": ["extract", {"use": use}],
        "allow_code": True,
        "executor": {"workers": 1},
    }
    return CorpusConfig.model_validate(settings | changes)


def outcome(folder: Path, use: str, **changes: Any) -> tuple[dict[str, str], dict[str, str]]:
    """({name: text} of kept documents, {name: rule} of dropped ones)."""
    build(folder, recipe(use, **changes))
    published = folder / f"run/corpus/02-{use.rpartition(':')[2]}"
    kept, dropped = (pq.read_table(published / side).to_pylist() for side in ("data", "dropped"))
    assert {row["stage"] for row in dropped} <= {use.rpartition(":")[2]}
    return {row["url"]: row["text"] for row in kept}, {row["url"]: row["rule"] for row in dropped}


def test_a_function_drops_by_reason_and_changes_texts(tmp_path: Path) -> None:
    kept, dropped = outcome(make(tmp_path), "mine.py:rivers_only")
    assert kept
    assert all("stream" in text and "river" not in text for text in kept.values())
    assert set(dropped.values()) == {"no_river"}
    assert kept.keys() | dropped.keys() == TEXTS.keys()
    stage = RunFolder(tmp_path / "run").stages["rivers_only"]
    assert stage.stats["dropped"] == {"no_river": len(dropped)}
    assert stage.stats["documents_in"] == len(TEXTS)


def test_a_datatrove_filter_and_its_reason(tmp_path: Path) -> None:
    kept, dropped = outcome(make(tmp_path), "mine.py:Short")
    assert kept.keys() == {"mail", "mails"}
    assert set(dropped.values()) == {"too_long"}
    assert outcome(tmp_path, "mine.py:by_truth")[1]["fox"] == "no_mail"
    kept, dropped = outcome(tmp_path, "mine.py:lambda_filter")
    assert kept.keys() == {"mail", "mails"}
    assert set(dropped.values()) == {"lambda_filter"}


def test_a_datatrove_formatter_with_state_does_not_depend_on_workers(tmp_path: Path) -> None:
    make(tmp_path)
    for number in range(3):
        (tmp_path / f"more{number}.jsonl").write_text(json.dumps({"text": TEXTS["mails"]}) + "\n")
    sources = [{"name": "rows", "type": "jsonl", "paths": ["*.jsonl"], "id_key": "id"}]
    kept, dropped = outcome(tmp_path, "mine.py:mask", sources=sources, extract={"task_bytes": 1})
    assert not dropped
    assert kept["mails"] == "firstname.lastname@example.org, email@example.com"  # the third and fourth of its file
    other = recipe("mine.py:mask", sources=sources, extract={"task_bytes": 1}, executor={"workers": 2})
    build(tmp_path, other, run="other")
    manifests = [
        json.loads((tmp_path / name / "corpus/02-mask/manifest.json").read_text()) for name in ("run", "other")
    ]
    assert manifests[0]["files"] == manifests[1]["files"]


def test_the_files_content_decides_what_is_rebuilt(tmp_path: Path) -> None:
    make(tmp_path)
    assert build(tmp_path, recipe("mine.py:rivers_only")).ran == ["extract", "rivers_only"]
    assert build(tmp_path, recipe("mine.py:rivers_only")).ran == []
    (tmp_path / "mine.py").write_text(CODE.replace('"stream"', '"brook"'))
    assert build(tmp_path, recipe("mine.py:rivers_only")).ran == ["rivers_only"]
    assert build(tmp_path, recipe("mine.py:rivers_only"), first="rivers_only").ran == ["rivers_only"]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("mine.py:wrong", r"stage `wrong`: returned 3 for document .*; allowed: None or True"),
        ("mine.py:number", r"mine\.py: `number` is int, allowed: a function or"),
        ("mine.py:nothing", r"mine\.py: `nothing` is absent, allowed: a function or"),
        ("absent.py:keep", r"stages: absent\.py:keep: no file at"),
        ("broken.py:keep", r"broken\.py: cannot be loaded: ZeroDivisionError"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, use: str, message: str) -> None:
    make(tmp_path)
    (tmp_path / "broken.py").write_text("keep = 1 / 0")
    with pytest.raises(PipelineError, match=message):
        build(tmp_path, recipe(use))


def test_an_error_in_the_code_names_the_document(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "bug.py").write_text(
        'def keep(document):\n    return len(document["text"]) // ("@" not in document["text"]) > 0'
    )
    with pytest.raises(PipelineError, match=r"rows/rows\.jsonl at offset \d.*ZeroDivisionError.*bug\.py, line 2"):
        build(tmp_path, recipe("bug.py:keep", executor={"workers": 1, "retries": 0}))


def test_nothing_is_loaded_unless_the_recipe_allows_it(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ValidationError, match=r"mine\.py:mask.*set `allow_code: true`"):
        recipe("mine.py:mask", allow_code=False)
    with pytest.raises(ValidationError, match="is the name of another stage"):
        recipe("mine.py:quality")
    text = (
        "name: own\nsources: [{name: rows, type: jsonl, paths: [rows.jsonl]}]\nstages: [extract, {use: 'mine.py:mask'}]"
    )
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"own\.yaml:3: stages: .*allow_code: true"):
        load_recipe(tmp_path / "own.yaml")
    loaded = load_recipe(tmp_path / "own.yaml", ["allow_code=true"])
    check_paths(loaded)
    assert "use: ../mine.py:mask" in resolved_yaml(loaded, tmp_path / "run")
    absent = load_recipe(tmp_path / "own.yaml", ["allow_code=true", "stages.1.use=gone.py:mask"])
    with pytest.raises(RecipeError, match=r"stages\.1\.use: got .*gone\.py"):
        check_paths(absent)
