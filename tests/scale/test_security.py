"""Documents that try to leave the run folder, and keys in the environment that must not enter it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.config import ExecutorConfig
from tests.conftest import PROSE, page, write_warc

KEYS = {
    "AWS_SECRET_ACCESS_KEY": "FAKE-aws-secret-0123456789",
    "HF_TOKEN": "hf_FAKE0123456789",
    "WANDB_API_KEY": "FAKE-wandb-0123456789",
}


def test_nothing_escapes_and_no_key_is_kept(tmp_path: Path) -> None:
    pages = {f"https://a.example/../../../outside-{name}": page(text, "../../t") for name, text in PROSE.items()}
    write_warc(tmp_path / "in/web.warc.gz", pages)
    rows = [
        json.dumps({"text": text * 2, "id": "../../outside", "url": "file:///etc/passwd", "language": "../../outside"})
        for text in PROSE.values()
    ]
    (tmp_path / "in/rows.jsonl").write_text("\n".join(rows), "utf-8")
    recipe = {
        "name": "safe",
        "runs": str(tmp_path / "runs"),
        "sources": [
            {"name": "web", "type": "warc", "paths": ["in/web.warc.gz"]},
            {"name": "rows", "type": "jsonl", "paths": ["in/rows.jsonl"], "id_key": "id"},
        ],
        "stages": ["extract", "quality", "tokenize"],
        "quality": {"label_only": True},
        "tokenize": {
            "tokenizer": {"vocab_size": 300},
            "sequence_length": 32,
            "validation": 0.0,
            "stream_by": "source-language",
        },
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    before = {path for path in tmp_path.rglob("*") if "runs" not in path.parts}
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "corpus", str(tmp_path / "recipe.yaml")],
        env=os.environ | KEYS | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path for path in tmp_path.rglob("*") if "runs" not in path.parts} == before
    assert not list(tmp_path.parent.rglob("*outside*"))
    written = [path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(written) > 10
    for key in KEYS.values():
        assert not any(key.encode() in content for content in [*written, done.stdout, done.stderr])


@pytest.mark.parametrize(
    "field",
    [
        {"partition": "main; touch owned"},
        {"partition": "$(touch owned)"},
        {"partition": "main", "time": "1:00`touch owned`"},
        {"partition": "main", "qos": "--wrap=touch"},
        {"partition": "main", "account": "a\nb"},
        {"partition": "main", "env": {"A=b; touch owned; C": "d"}},
    ],
)
def test_nothing_of_a_recipe_reaches_a_shell(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ExecutorConfig.model_validate({"type": "slurm", "slurm": field})
