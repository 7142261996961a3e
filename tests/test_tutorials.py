"""The tutorials that need only the checkout, run to their end: each one's recipe, then its commands, in order."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.test_cli import pretrain

ROOT = Path(__file__).parent.parent


def follow(name: str, folder: Path) -> dict[str, str]:
    """What the commands of a tutorial print, by command, in a folder that looks like the checkout."""
    for part in ("data", "docs"):
        (folder / part).symlink_to(ROOT / part)
    text = (ROOT / f"docs/tutorials/{name}.md").read_text("utf-8").replace("\\\n", " ")
    path = re.search(r"Write a recipe\*\*, `([\w.]+)`", text)
    assert path is not None
    recipe = next(block for block in re.findall(r"(?m)(?:^    .*\n)+", text) if block.startswith("    name:"))
    (folder / path[1]).write_text(re.sub(r"(?m)^    ", "", recipe))
    commands = re.findall(r"(?m)^    pretrain (.+)$", text)
    return {command: "".join(pretrain(*shlex.split(command))) for command in commands}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_blame(folder: Path) -> None:
    printed = follow("blame", folder)
    trained = folder / "runs/blame/train"
    ledger = json.loads((trained / "ledger.json").read_bytes())
    assert ledger
    for entry in ledger:
        told = json.loads((trained / f"blame/step-{entry['last']:08d}.json").read_bytes())
        assert [row["id"] for row in told["documents"][:10]] == entry["documents"]
    rows = [row for path in sorted(trained.glob("losses/*.parquet")) for row in pq.read_table(path).to_pylist()]
    skipped = {entry["last"] for entry in ledger}
    assert {row["step"] for row in rows} == set(range(1, 121)) - skipped
    page = (folder / "runs/blame/report.html").read_text("utf-8")
    for title in ("Loss by stream and epoch", "Never learnt", "Learnt by heart"):
        assert title in page
    assert all(f"Documents of step {entry['last']:,}" in page for entry in ledger)
    assert "http" in printed["blame runs/blame --step 90"]
    assert "step 90: mean loss" in printed["blame runs/blame --step 90"]
    recorded = json.loads(pretrain("blame", "runs/blame", "--step", "90", "--json")[0])
    shutil.rmtree(trained / "losses")
    repeated = json.loads(pretrain("blame", "runs/blame", "--step", "90", "--json")[0])
    assert [row["id"] for row in repeated["documents"]] == [row["id"] for row in recorded["documents"]]
    assert repeated["loss"] == pytest.approx(recorded["loss"], rel=1e-6)


def test_ablate(folder: Path) -> None:
    printed = list(follow("ablate", folder).values())
    found = json.loads((folder / "runs/filters-ablation/ablation.json").read_bytes())
    rounds = {len(row["bits_per_byte"]) for row in found["variants"]}
    assert len(rounds) == 1
    settled = all(verdict["settled"] for verdict in found["verdicts"])
    assert settled or rounds == {4}
    assert {part["part"] for part in found["parts"]} == {"determinism", "glossary"}
    assert "known after the second seed" in printed[0]
    assert re.search(r"0\.02 (needs \d+ seeds, \d+ runs|would need more)", printed[1])


def test_mix(folder: Path) -> None:
    printed = follow("mix", folder)
    found = json.loads((folder / "runs/mix-mix/mix.json").read_bytes())
    assert len(found["runs"]) == 8
    assert found["fit"]["explains"] > 0
    proposal = found["proposal"]
    assert proposal["shares"][0] > found["runs"][0]["shares"][0]  # more of the documentation than naturally
    assert max(proposal["epochs"]) <= 4.001
    assert set(found["confirmation"]) == {"natural", "uniform", "proposal"}
    last = "mix mix.yaml --proxies 8 --target docs"
    assert "- {start: 0, weights: {docs: " in printed[last]
    page = (folder / "runs/mix-mix/report.html").read_text("utf-8")
    assert "Natural, uniform and proposal" in page
    assert "Predicted and measured" in page
    again = pretrain(*last.split(), "--json")[0]  # nothing is trained again
    assert json.loads(again)["confirmation"] == found["confirmation"]
    weights = ", ".join(f"{name}: {weight}" for name, weight in proposal["weights"].items())
    out = pretrain("corpus", "mix.yaml", "--set", f"tokenize.phases=[{{start: 0, weights: {{{weights}}}}}]", "--json")
    manifest = json.loads((folder / "runs/mix/shards/manifest.json").read_bytes())
    mixed = {f"train/{name}": weight for name, weight in proposal["weights"].items()}
    assert manifest["phases"][-1] == {"start": 0.0, "weights": mixed}
    assert json.loads(out[0])["stages"]["tokenize"]["documents_kept"] > 0


def test_forget(folder: Path) -> None:
    page = "https://www.notebook-de.example/de/kachelofen"
    printed = follow("forget", folder)
    assert "duplicate of" in printed[f"forget runs/withdrawn --url {page}"]
    assert "rebuild: at most" in printed[f"forget runs/withdrawn --url {page} --plan"]
    assert "training starts over" in printed[f"forget runs/withdrawn --url {page} --apply"]
    assert "forgotten: 2" in printed["inspect runs/withdrawn --stage extract --dropped"]
    result = json.loads(Path("runs/withdrawn/train/result.json").read_bytes())
    assert result["step"] == 40
    for path in Path("runs/withdrawn").glob("corpus/*/*/*.parquet"):
        assert page not in pq.read_table(path)["url"].to_pylist()


def test_publish(folder: Path) -> None:
    printed = follow("publish", folder)
    assert "reproduced" in printed["verify shared-corpus --recipe shared.yaml --set name=stranger"]
    assert "the same bytes" in printed["verify shared-corpus --recipe shared.yaml --set name=stranger"]
    assert "license: cc0-1.0" in Path("shared-corpus/README.md").read_text("utf-8")
