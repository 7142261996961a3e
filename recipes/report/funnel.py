"""From records to tokens: documents and text by stage, and where those of each source and language went.

Counts by stage are exact (stats.json); those by source and language come from the bounded sample, scaled up.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from recipes.report.blocks import Block, Figure, Section, Table
from recipes.report.charts import bars, sampled
from recipes.report.runfolder import RunFolder

LANGUAGES = 8  # in the diagram; the rest are one


def section(run: RunFolder) -> Section:
    """The funnel."""
    lead = "What came in, what each stage kept."
    return Section("funnel", "From records to tokens", lead, [*stages(run), *flows(run)])


def stages(run: RunFolder) -> list[Block]:
    """Documents, text and tokens by stage."""
    if not run.stages:
        return []
    rows: list[list[Any]] = []
    for name, stage in run.stages.items():
        stats = stage.stats
        read, kept = stats["documents_in"], stats["documents_kept"]
        share = 100 * kept / read if read else None
        rows.append([name, read, kept, read - kept, share, stats["bytes_kept"] / 1e6, stats.get("tokens")])
    columns = ["stage", "documents in", "kept", "dropped", "kept %", "text kept (MB)", "tokens"]
    names = [row[0] for row in rows]
    documents = Figure(
        "Documents by stage",
        [bars("kept", [row[2] for row in rows], names), bars("dropped", [row[3] for row in rows], names)],
        Table("Documents, text and tokens by stage", columns, rows),
        {"barmode": "stack", "yaxis": {"autorange": "reversed"}, "xaxis": {"title": {"text": "documents"}}},
        height=80 + 44 * len(rows),
    )
    return [documents]


def flows(run: RunFolder) -> list[Block]:
    """Documents from source through language to the stage that dropped them, or into the corpus."""
    found: Counter[tuple[str, str, str]] = Counter()
    whole = True
    shown = [stage for name, stage in run.stages.items() if name != "tokenize"]
    for stage in shown:
        ends = [(f"✕ {stage.name}", stage.dropped(["source", "language"]))]
        if stage is shown[-1]:
            ends.append(("corpus", stage.kept(["source", "language"])))
        for end, sample in ends:
            whole = whole and sample.whole
            for source, language in zip(sample.column("source"), sample.column("language"), strict=True):
                found[source, language or "unknown", end] += 1
            if not sample.whole:
                for key in [key for key in found if key[2] == end]:
                    found[key] = round(found[key] * sample.scale)
    if not found:
        return []
    common = Counter[str]()
    for (_, language, _), count in found.items():
        common[language] += count
    named = {language for language, _ in common.most_common(LANGUAGES)}
    links: Counter[tuple[str, str]] = Counter()
    for (source, language, end), count in found.items():
        middle = f"language: {language if language in named else 'others'}"
        links[f"source: {source}", middle] += count
        links[middle, end] += count
    nodes = list(dict.fromkeys(node for link in links for node in link))
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "node": {
            "label": [node.partition(": ")[2] if _inner(node) else node for node in nodes],
            "color": [_shade(node, 1.0) for node in nodes],
            "pad": 14,
            "line": {"width": 0},
        },
        "link": {
            "source": [nodes.index(start) for start, _ in links],
            "target": [nodes.index(end) for _, end in links],
            "value": list(links.values()),
            "color": [_shade(end, 0.45) for _, end in links],
        },
    }
    table = Table(
        "Documents by source, language and end",
        ["source", "language", "end", "documents"],
        [[*key, count] for key, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))][:100],
        note="the 100 largest of them" if len(found) > 100 else "",
    )
    return [
        Figure(
            "Documents by source and language",
            [trace],
            table,
            note=f"✕: dropped by that stage. {sampled(whole)}".strip(),
            height=460,
        )
    ]


def _inner(node: str) -> bool:
    return node.startswith(("source: ", "language: "))


def _shade(node: str, opacity: float) -> str:
    """What is kept blue, what is dropped vermilion, what is neither yet grey."""
    color = "128,128,128" if _inner(node) else "213,94,0" if node.startswith("✕") else "0,114,178"
    return f"rgba({color},{opacity})"
