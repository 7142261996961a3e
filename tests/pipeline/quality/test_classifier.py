"""A classifier trained on two kinds of text: deterministic, better than chance, used by the stage."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from common.errors import PipelineError
from pipeline.quality.classifier import Classifier, auc, calibration, train
from tests.pipeline.quality.test_quality import run

GOOD = "the theorem follows from a proof by induction where every number is the sum of two smaller ones"
PLAIN = "click here to buy cheap shoes and win big money now with free shipping on every order today"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    pytest.importorskip("fasttext")
    folder, draw = tmp_path_factory.mktemp("classifier"), random.Random(1)
    for name, words in (("good", GOOD), ("plain", PLAIN)):
        rows = [{"text": " ".join(draw.choices([*words.split(), "the"], k=30))} for _ in range(200)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder, folder / "good.jsonl", folder / "plain.jsonl"


def test_training_is_deterministic_and_learns(files: tuple[Path, Path, Path]) -> None:
    folder, good, plain = files
    report = train([good], [plain], folder / "a.bin", buckets=1000, dimension=8)
    again = train([good], [plain], folder / "b.bin", buckets=1000, dimension=8)
    assert (folder / "a.bin").read_bytes() == (folder / "b.bin").read_bytes()
    assert report == again
    assert report.trained + report.tested == 400
    assert report.auc > 0.99
    assert sum(row[2] for row in report.calibration) == report.tested
    scores = Classifier(folder / "a.bin").score([GOOD, PLAIN, "", "\ud800"])
    assert scores[0] > 0.8 > 0.2 > scores[1]
    assert np.isfinite(scores).all()


def test_only_training_needs_fasttext(files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, good, plain = files
    train([good], [plain], folder / "d.bin", buckets=1000, dimension=8)
    monkeypatch.setitem(sys.modules, "fasttext", None)  # makes importing it fail
    assert Classifier(folder / "d.bin").score([GOOD])[0] > 0.8
    with pytest.raises(PipelineError, match=r"needs the library fasttext.*pip install"):
        train([good], [plain], folder / "e.bin")


def test_auc_and_calibration_by_hand() -> None:
    scores, labels = np.array([0.9, 0.4, 0.4, 0.1]), np.array([1, 1, 0, 0])
    assert auc(scores, labels) == (1 + 1 + 0.5 + 1) / 4
    assert calibration(scores, labels) == [
        (0.1, 0.2, 1, 0.1, 0.0),
        (0.4, 0.5, 2, 0.4, 0.5),
        (0.9, 1.0, 1, 0.9, 1.0),
    ]


def test_unusable_input_is_named(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, good, plain = files
    (tmp_path / "bad.jsonl").write_text('{"txt": "no"}\n')
    with pytest.raises(PipelineError, match=r"bad.jsonl: cannot read documents"):
        train([tmp_path / "bad.jsonl"], [plain], tmp_path / "x.bin")
    with pytest.raises(PipelineError, match="too few documents"):
        train([], [plain], tmp_path / "x.bin")
    with pytest.raises(PipelineError, match=r"good.jsonl: no fastText classifier that can be read"):
        Classifier(good)


def test_the_stage_keeps_a_share_and_bins(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    folder, good, plain = files
    train([good], [plain], folder / "c.bin", buckets=1000, dimension=8)
    (tmp_path / "model.bin").write_bytes((folder / "c.bin").read_bytes())
    kept, dropped = run(tmp_path, models={"edu": {"path": "model.bin", "keep": 0.4, "bins": [0.2, 0.6]}})
    passing = [row for row in [*kept.values(), *dropped.values()] if row["failed_rules"] in ("", "edu_score")]
    assert len(kept) == round(0.4 * len(passing))
    cut = min(row["edu_score"] for row in kept.values())
    below = [row for row in dropped.values() if row["failed_rules"] == "edu_score"]
    assert all(row["edu_score"] < cut and (row["rule"], row["threshold"]) == ("edu_score", cut) for row in below)
    assert all(row["edu_bin"] == np.digitize(row["edu_score"], [0.2, 0.6]) for row in passing)
    with pytest.raises(PipelineError, match="has no label `good`; it has:"):
        run(tmp_path, models={"edu": {"path": "model.bin", "label": "good"}})
    assert pq.read_table(tmp_path / "run/corpus/02-quality/data").num_rows == len(kept)
