"""The tutorials on a corpus, run to their end: each one's recipe, then its commands, in order."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.test_cli import pretrain

ROOT = Path(__file__).parent.parent
PAGE = "https://www.notebook-de.example/de/kachelofen"


def follow(name: str) -> dict[str, str]:
    """What the commands of a tutorial print, by command, in a folder with the sample corpus."""
    Path("data").symlink_to(ROOT / "data")
    text = (ROOT / f"docs/tutorials/{name}.md").read_text("utf-8")
    path = re.search(r"Write a recipe\*\*, `([\w.]+)`", text)
    assert path is not None
    recipe = next(block for block in re.findall(r"(?m)(?:^    .*\n)+", text) if block.startswith("    name:"))
    Path(path[1]).write_text(re.sub(r"(?m)^    ", "", recipe))
    commands = re.findall(r"(?m)^    pretrain (.+)$", text)
    return {command: "".join(pretrain(*shlex.split(command))) for command in commands}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_forget() -> None:
    printed = follow("forget")
    assert "duplicate of" in printed[f"forget runs/withdrawn --url {PAGE}"]
    assert "rebuild: at most" in printed[f"forget runs/withdrawn --url {PAGE} --plan"]
    assert "training starts over" in printed[f"forget runs/withdrawn --url {PAGE} --apply"]
    assert "forgotten: 2" in printed["inspect runs/withdrawn --stage extract --dropped"]
    result = json.loads(Path("runs/withdrawn/train/result.json").read_bytes())
    assert result["step"] == 40
    for path in Path("runs/withdrawn").glob("corpus/*/*/*.parquet"):
        assert PAGE not in pq.read_table(path)["url"].to_pylist()


def test_publish() -> None:
    printed = follow("publish")
    assert "reproduced" in printed["verify shared-corpus --recipe shared.yaml --set name=stranger"]
    assert "the same bytes" in printed["verify shared-corpus --recipe shared.yaml --set name=stranger"]
    assert "license: cc0-1.0" in Path("shared-corpus/README.md").read_text("utf-8")
