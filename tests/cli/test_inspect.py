"""`inspect` of a real quality stage: counts by rule, other thresholds, samples; and `quality-model train`."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_cli import pretrain
from tests.conftest import PROSE

RECIPE = """\
name: small
sources:
  - {name: web, type: jsonl, paths: ["rows.jsonl"], id_key: id}
stages: [extract, quality]
quality: {presets: [gopher, c4]}
executor: {workers: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    rows = {**PROSE, "code": PROSE["fox"] + " { x }", "stub": "far too short", "menu": "one menu item\n" * 40}
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"text": t, "id": n}) for n, t in rows.items()))
    (folder / "small.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pretrain("corpus", "small.yaml")
    return str(folder / "runs/small")


def row(out, rule):
    return next(line.split()[1:] for line in out.splitlines() if line.split()[:1] == [rule])


def test_rules_are_counted_alone_first_and_only(run):
    out, _ = pretrain("inspect", run, "--stage", "quality")
    assert "quality: 3 of 6 documents kept" in out
    assert row(out, "gopher_min_words") == ["1", "1", "0"]
    assert row(out, "c4_curly_brackets") == ["1", "1", "1"]
    assert "gopher_hashes" not in out


def test_what_if_answers_from_the_columns(run):
    out, _ = pretrain("inspect", run, "--stage", "quality", "--what-if", "quality.rules.c4_curly_brackets=1")
    assert "4 of 6 kept instead of 3 (1 more, 0 fewer); nothing was run" in out
    assert row(out, "c4_curly_brackets") == ["0", "0", "0", "1"]
    out, _ = pretrain("inspect", run, "--stage", "quality", "--what-if", "quality.presets=[c4]")
    assert "quality.presets=[c4]: 4 of 6 kept instead of 3 (1 more, 0 fewer)" in out
    message = pretrain("inspect", run, "--stage", "quality", "--what-if", "language.threshold=1", code=2)[1]
    assert "--what-if: got 'language.threshold=1', allowed: quality.FIELD=VALUE" in message
    message = pretrain("inspect", run, "--stage", "quality", "--what-if", "quality.rules.c4_curly=1", code=2)[1]
    assert "did you mean `c4_curly_brackets`?" in message


def test_samples_show_the_offending_span(run):
    out, _ = pretrain("inspect", run, "--stage", "quality", "--sample", "5", "--rule", "c4_curly_brackets")
    assert ">>>{<<< x }" in out
    assert "value 1, threshold 0, c4_curly_brackets 1 > 0" in out
    out, _ = pretrain("inspect", run, "--stage", "quality", "--sample", "1", "--rule", "gopher_duplicate_lines")
    assert ">>>one menu item<<<" in out
    message = pretrain("inspect", run, "--stage", "quality", "--rule", "gopher_min_word", code=2)[1]
    assert "did you mean `gopher_min_words`?" in message
    message = pretrain("inspect", run, "--stage", "extract", "--rule", "x", code=2)[1]
    assert "--what-if, --sample and --rule are for `quality`" in message


def test_quality_model_train(folder, tmp_path):
    for name, text in (("good", PROSE["bread"]), ("bad", "buy cheap shoes online now and save money today " * 12)):
        words = text.split()
        rows = [{"text": " ".join(words[i : i + 20])} for i in range(60)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row | {"n": i}) for i, row in enumerate(rows)))
    files = ["--positive", str(tmp_path / "good.jsonl"), "--negative", str(tmp_path / "bad.jsonl")]
    out, _ = pretrain("quality-model", "train", *files, "--output", str(tmp_path / "m.bin"), "--held-out", "0.3")
    assert "AUC 1.0000" in out
    assert (tmp_path / "m.bin").stat().st_size > 1000
    assert "Example: pretrain quality-model train" in pretrain("quality-model", "train", "--help")[0]
    pretrain("quality-model", "train", *files[:2], "--negative", "gone.jsonl", code=2)
