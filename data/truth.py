"""Score a corpus run against labelled documents: precision and recall of every stage.

Labels are JSON lines (data/README.md): url, language, the stage that must drop the document (or null), the
original of a duplicate, snippets that extraction must and must not keep. Duplicates are scored by cluster: it
is right to keep either copy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Score = dict[str, float]


def score(run: Path, labels: Path) -> dict[str, Score]:
    """{stage: {precision, recall, cases}} of the run folder's published stages, for the labelled URLs."""
    truth = {row["url"]: row for row in map(json.loads, labels.read_text("utf-8").splitlines())}
    scores: dict[str, Score] = {}
    for folder in sorted((run / "corpus").glob("[0-9][0-9]-*")):
        stage = folder.name[3:]
        kept, dropped = _read(folder / "data", truth), _read(folder / "dropped", truth)
        judge = {"extract": _snippets, "language": _languages, "dedup": _duplicates}.get(stage, _drops)
        found = judge(kept, dropped, truth)
        if found["cases"]:
            scores[stage] = found
    return scores


def _read(folder: Path, truth: dict[str, Any]) -> dict[str, dict[str, Any]]:
    columns = ["url", "text", "language", "cluster"]
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.parquet")):
        present = [name for name in columns if name in pq.read_schema(path).names]
        table = pq.read_table(path, columns=present, filters=[("url", "in", list(truth))])
        rows |= {row["url"]: row for row in table.to_pylist()}
    return rows


def _ratio(right: int, wrong: int, missed: int) -> Score:
    return {
        "precision": right / max(right + wrong, 1),
        "recall": right / max(right + missed, 1),
        "cases": float(right + missed),
    }


def _snippets(kept: dict[str, Any], dropped: dict[str, Any], truth: dict[str, Any]) -> Score:
    """Must-have snippets found against must-not snippets found, white space folded."""
    right = wrong = missed = 0
    for url, row in kept.items():
        text = " ".join(row["text"].split())
        have = sum(" ".join(snippet.split()) in text for snippet in truth[url]["main"])
        right, missed = right + have, missed + len(truth[url]["main"]) - have
        wrong += sum(" ".join(snippet.split()) in text for snippet in truth[url]["chrome"])
    return _ratio(right, wrong, missed)


def _languages(kept: dict[str, Any], dropped: dict[str, Any], truth: dict[str, Any]) -> Score:
    """Kept with the right language, kept with a wrong one, and dropped although its language was clear."""
    clear = {url for url, row in truth.items() if row["language"] and row["stage"] is None}
    right = sum(kept[url]["language"] == truth[url]["language"] for url in clear & kept.keys())
    return _ratio(right, len(clear & kept.keys()) - right, len(clear & dropped.keys()))


def _duplicates(kept: dict[str, Any], dropped: dict[str, Any], truth: dict[str, Any]) -> Score:
    """Pairs (copy, original) in one cluster; a drop that is in no labelled pair is wrong."""
    rows = kept | dropped
    pairs = [(url, row["of"]) for url, row in truth.items() if row["stage"] == "dedup"]
    pairs = [(copy, original) for copy, original in pairs if copy in rows and original in rows]
    right = sum(rows[copy]["cluster"] == rows[original]["cluster"] for copy, original in pairs)
    labelled = {url for pair in pairs for url in pair}
    return _ratio(right, len(dropped.keys() - labelled), len(pairs) - right)


def _drops(kept: dict[str, Any], dropped: dict[str, Any], truth: dict[str, Any]) -> Score:
    """Quality drops that are planted, drops of clean documents, planted ones that were kept."""
    bad = {url for url, row in truth.items() if row["stage"] == "quality"}
    return _ratio(len(bad & dropped.keys()), len(dropped.keys() - bad), len(bad & kept.keys()))
