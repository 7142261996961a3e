"""Score a corpus run against labelled documents: precision and recall of every stage.

Labels are JSON lines (data/README.md): url, language, the stage that must drop the document (or null), the original of
a duplicate, snippets that extraction must keep and must drop. Duplicates are scored by cluster: keeping either copy is
right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from common.runfolder import RunFolder

Score = dict[str, float]
Rows = dict[str, dict[str, Any]]  # by URL


def score(run: Path, labels: Path) -> dict[str, Score]:
    """{stage: {precision, recall, cases}} of the published stages in the run folder `run`, on the labelled URLs."""
    truth = {row["url"]: row for row in map(json.loads, labels.read_text("utf-8").splitlines())}
    scores: dict[str, Score] = {}
    for name, stage in RunFolder(run).stages.items():
        kept, dropped = _read(stage.folder / "data", truth), _read(stage.folder / "dropped", truth)
        judge = {"extract": _snippets, "language": _languages, "dedup": _duplicates}.get(name, _drops)
        result = judge(kept, dropped, truth)
        if result["cases"]:
            scores[name] = result
    return scores


def _read(folder: Path, truth: Rows) -> Rows:
    columns = ["url", "text", "language", "cluster"]
    rows: Rows = {}
    for path in sorted(folder.glob("*.parquet")):
        present = [name for name in columns if name in pq.read_schema(path).names]
        table = pq.read_table(path, columns=present, filters=[("url", "in", list(truth))])
        rows |= {row["url"]: row for row in table.to_pylist()}
    return rows


def _ratio(right: int, wrong: int, missed: int) -> Score:
    precision, recall = right / max(right + wrong, 1), right / max(right + missed, 1)
    return {"precision": precision, "recall": recall, "cases": float(right + missed)}


def _snippets(kept: Rows, dropped: Rows, truth: Rows) -> Score:
    """Right: snippets of the main text that were kept; wrong: snippets of navigation and footers that were kept."""
    right = wrong = missed = 0
    for url, row in kept.items():
        text = " ".join(row["text"].split())
        have = sum(" ".join(snippet.split()) in text for snippet in truth[url]["main"])
        right, missed = right + have, missed + len(truth[url]["main"]) - have
        wrong += sum(" ".join(snippet.split()) in text for snippet in truth[url]["chrome"])
    return _ratio(right, wrong, missed)


def _languages(kept: Rows, dropped: Rows, truth: Rows) -> Score:
    """Right: kept with the right language; wrong: kept with another; missed: dropped although the language is clear."""
    clear = {url for url, row in truth.items() if row["language"] and row["stage"] is None}
    right = sum(kept[url]["language"] == truth[url]["language"] for url in clear & kept.keys())
    return _ratio(right, len(clear & kept.keys()) - right, len(clear & dropped.keys()))


def _duplicates(kept: Rows, dropped: Rows, truth: Rows) -> Score:
    """Right: labelled pairs (copy, original) in one cluster; missed: in two; wrong: dropped without a labelled pair."""
    rows = kept | dropped
    pairs = [(url, row["of"]) for url, row in truth.items() if row["stage"] == "dedup"]
    pairs = [(copy, original) for copy, original in pairs if copy in rows and original in rows]
    right = sum(rows[copy]["cluster"] == rows[original]["cluster"] for copy, original in pairs)
    labelled = {url for pair in pairs for url in pair}
    return _ratio(right, len(dropped.keys() - labelled), len(pairs) - right)


def _drops(kept: Rows, dropped: Rows, truth: Rows) -> Score:
    """Right: planted documents dropped; missed: planted ones kept; wrong: clean documents dropped."""
    bad = {url for url, row in truth.items() if row["stage"] == "quality"}
    return _ratio(len(bad & dropped.keys()), len(dropped.keys() - bad), len(bad & kept.keys()))
