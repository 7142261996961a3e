"""How the machine was used while the corpus was built: busy workers over time, and texts read and written by stage."""

from __future__ import annotations

from typing import Any

from cli.report.page import Block, Figure, Table, axis
from common.runfolder import RunFolder


def busy_workers(run: RunFolder) -> list[Block]:
    """Busy workers over the time of the stages, one after another; idle ones wait for the last tasks of a pass."""
    traces, rows = [], []
    begin = 0.0
    for name, entry in run.built.items():
        busy = entry.get("busy")
        if not busy:
            continue
        width = entry["seconds"] / len(busy)
        edges = [begin + width * number for number in range(len(busy) + 1)]
        traces.append({"type": "scatter", "mode": "lines", "line": {"shape": "hv"}, "fill": "tozeroy", "name": name})
        traces[-1] |= {"x": [round(edge, 3) for edge in edges], "y": [*busy, busy[-1]]}
        mean = sum(busy) / len(busy)
        rows.append([name, begin, entry["seconds"], entry["workers"], mean, 100 * mean / entry["workers"]])
        begin = edges[-1]
    if not rows:
        return []
    table = Table(
        "Workers by stage", ["stage", "from (s)", "seconds", "workers", "busy workers, mean", "utilisation %"], rows
    )
    layout = {"xaxis": axis("seconds"), "yaxis": axis("busy workers")}
    note = "tasks of a stage may run inside those of the stage before it, where they count"
    return [Figure("Busy workers", traces, table, layout, note=note)]


def text_volumes(run: RunFolder) -> list[Block]:
    """Bytes of text that each stage read and wrote, and their multiples of the text that extraction gave."""
    entries = {name: entry for name, entry in run.built.items() if "text_read" in entry}
    first = next(iter(run.stages.values()), None)
    size = first.stats.get("bytes_in") if first else 0
    if not entries or not size:
        return []
    rows: list[list[Any]] = []
    for name, entry in [*entries.items(), ("all", _sum(list(entries.values())))]:
        read, written = entry["text_read"], entry["text_written"]
        rows.append([name, read / 1e6, read / size, written / 1e6, written / size])
    columns = ["stage", "read (MB)", "times the text", "written (MB)", "times the text"]
    note = f"the text: the {size / 1e6:,.1f} MB that the first stage read or extracted; uncompressed, without columns"
    return [Table("Text read and written", columns, rows, note)]


def _sum(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: sum(entry[name] for entry in entries) for name in ("text_read", "text_written")}
