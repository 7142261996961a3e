"""What an earlier build found out about documents, taken over where it still holds.

A stage's manifest has a `lineage`: the hash of its settings, code, libraries and files, of the input files and of the
stages before it; of all that decides its output but the list of forgotten documents (`pipeline.forgotten`). Where it is
the same, a document that is still there has the same text, so the columns that follow from the text alone are read from
the published stage instead of being computed. A stage that changes texts by what other documents hold ends the lineage.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import changed_files, read_manifest
from pipeline.documents import read_batches


def find_earlier(published: Path, plan: str, lineage: str) -> Path | None:
    """The published stage, if it is of this lineage, of another plan and undamaged."""
    manifest = read_manifest(published)
    if not manifest or manifest.get("lineage") != lineage or manifest.get("plan") == plan:
        return None
    if changed_files(published, manifest):
        return None
    return published


def known(
    earlier: Path | None, rank: int, columns: Sequence[str], parts: Sequence[str] = ("data", "dropped")
) -> dict[str, tuple[Any, ...]]:
    """{document id: values of columns} of the earlier result of task `rank`; empty where there is none."""
    rows: dict[str, tuple[Any, ...]] = {}
    for part in parts:
        path = earlier and earlier / part / f"{rank:05d}.parquet"
        for table in read_batches(path, ["id", *columns]) if path and path.is_file() else ():
            values = (table[name].to_pylist() for name in columns)
            rows |= dict(zip(table["id"].to_pylist(), zip(*values, strict=True), strict=True))
    return rows
