"""Precision and recall of a small run whose errors are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.truth import score


def write_stage(run: Path, name: str, kept: list[dict[str, Any]], dropped: list[dict[str, Any]]) -> None:
    for folder, rows in (("data", kept), ("dropped", dropped)):
        path = run / "corpus" / name / folder / "0.parquet"
        path.parent.mkdir(parents=True)
        columns = {"url": [row["url"] for row in rows], "text": [row.get("text", "") for row in rows]}
        columns |= {key: [row.get(key) for row in rows] for key in ("language", "cluster")}
        pq.write_table(pa.table({key: pa.array(values, pa.string()) for key, values in columns.items()}), path)


def test_each_stage_is_scored_by_its_own_labels(tmp_path: Path) -> None:
    def label(url: str, stage: str | None = None, **more: Any) -> dict[str, Any]:
        return {"url": url, "language": "en", "stage": stage, "of": None, "main": [], "chrome": []} | more

    labels = [
        label("a", main=["the river", "the  mill"], chrome=["Imprint"]),
        label("b"),
        label("copy", "dedup", of="a"),
        label("far", "dedup", of="b"),
        label("spam", "quality"),
        label("lorem", "quality"),
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    pages = [{"url": "a", "text": "By the river. Imprint"}, {"url": "unlabelled", "text": "the mill"}]
    write_stage(tmp_path, "01-extract", pages, [])
    write_stage(tmp_path, "02-language", [{"url": "a", "language": "en"}], [{"url": "b", "language": "de"}])
    clusters = [{"url": "a", "cluster": "1"}, {"url": "b", "cluster": "2"}, {"url": "far", "cluster": "3"}]
    write_stage(tmp_path, "03-dedup", clusters, [{"url": "copy", "cluster": "1"}])
    write_stage(tmp_path, "04-quality", [{"url": "a"}, {"url": "lorem"}], [{"url": "spam"}, {"url": "b"}])
    half = {"precision": 0.5, "recall": 0.5, "cases": 2.0}
    assert score(tmp_path, tmp_path / "labels.jsonl") == {
        "extract": half,
        "language": {"precision": 1.0, "recall": 0.5, "cases": 2.0},
        "dedup": {"precision": 1.0, "recall": 0.5, "cases": 2.0},
        "quality": half,
    }
