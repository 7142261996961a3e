"""Commands that look up documents of a run: `inspect` by stage, `trace` by training step, id, address or text.

`inspect` reads documents in file order and stops once it has enough; it tries thresholds on the stored columns and runs
nothing. `trace` filters documents.parquet and the tables of drops; with --text it scans the texts of the last stage.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cli.contents import select_rows
from cli.options import Result, Run
from cli.terminal import clean, largest_first, make_table
from common.errors import RecipeError
from common.runfolder import Row, RunFolder, Stage

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from pipeline.config import QualityConfig
    from trainer.trace import History

_CHARACTERS = 200  # of a text or detail that is shown
_CONTEXT = 60  # characters before and after a marked span
_SHOWN = 10  # documents of `trace --text`, steps of a document
_DROPPED = ["id", "url", "source", "stage", "rule", "value", "threshold", "detail"]
_FIELDS = (
    *("id", "url", "path", "source", "language", "language_score", "text"),
    *("rule", "value", "threshold", "detail", "failed_rules"),
)


def inspect(
    run: Run,
    stage: Annotated[str, typer.Option(help="Stage to inspect, e.g. quality.", show_default=False)],
    dropped: Annotated[bool, typer.Option("--dropped", help="Show dropped documents by rule.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Number of documents to show, for each rule.")] = 3,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE",
            help="Try another setting, e.g. quality.rules.gopher_min_words=20; repeatable.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Number of documents to show that --rule drops.")] = None,
    rule: Annotated[str | None, typer.Option(help="Rule whose drops are shown, reason marked.")] = None,
) -> Result:
    """Show documents that a stage kept, or dropped and why.

    For `quality`: how many documents each rule drops alone (whatever the others do), first (rules have an order) and
    only (no other rule drops them), and what other thresholds would change, from the columns of the finished run.

    Example: pretrain inspect runs/demo --stage quality --dropped --limit 5

    Example: pretrain inspect runs/demo --stage quality --what-if quality.rules.gopher_top_2gram=0.3

    Example: pretrain inspect runs/demo --stage quality --sample 5 --rule c4_curly_brackets
    """
    if (what_if or sample or rule) and stage != "quality":
        raise RecipeError(f"--stage: got {stage!r}; --what-if, --sample and --rule are for `quality`")
    published = _find_stage(run, stage)
    stats = published.stats
    names = ("documents_in", "documents_kept", "documents_dropped")
    value: dict[str, Any] = {"stage": stage} | {name: stats[name] for name in names}
    parts: list[RenderableType] = []
    if sample or rule:
        value["samples"] = list(_samples(run, published, rule, sample or limit))
        for document in value["samples"]:
            parts += _lines(document, text=False)
            parts.append(_marked(document["text"], *document["span"]))
        return Result(value, *parts)
    kind = "dropped" if dropped else "kept"
    parts.append(f"{stage}: {stats[f'documents_{kind}']:,} of {stats['documents_in']:,} documents {kind}")
    if dropped:
        examples = _dropped(published.dropped, stats["dropped"], limit)
        value["rules"] = [
            {"rule": name, "dropped": count, "documents": examples[name]}
            for name, count in largest_first(stats["dropped"])
        ]
        for each in value["rules"]:
            parts.append(Text(f"\n{each['rule']}: {each['dropped']:,}", "bold"))
            parts += [line for document in each["documents"] for line in _lines(document)]
    elif stage == "quality":
        value |= _explore(run, published, what_if or [])
        parts.append(_rules_table(value))
        if value["what_if"]:
            parts.append(
                f"{', '.join(value['what_if'])}: {value['kept']:,} of {value['documents_in']:,} kept instead of"
                f" {value['kept_before']:,} ({value['more']:,} more, {value['fewer']:,} fewer); nothing was run"
            )
    else:
        value["documents"] = list(islice(_documents(published.data), limit))
        parts += [line for document in value["documents"] for line in _lines(document)]
    return Result(value, *parts)


def _find_stage(run: RunFolder, name: str) -> Stage:
    """A published stage. Raises RecipeError that lists the published stages."""
    from recipes.explain import similar

    stages = run.text_stages
    if not stages:
        raise RecipeError(f"{run.path}: not a run folder with a finished stage; `pretrain corpus RECIPE` makes one")
    if name not in stages:
        raise RecipeError(f"--stage: got {name!r}, allowed: {', '.join(stages)}{similar(name, stages)}")
    return stages[name]


def _documents(folder: Path) -> Iterator[Row]:
    from pipeline.documents import read_batches

    for path in sorted(folder.glob("*.parquet")):
        for table in read_batches(path):
            for row in table.to_pylist():
                yield {name: row[name] for name in _FIELDS if name in row}


def _dropped(folder: Path, counts: dict[str, int], limit: int) -> dict[str, list[Row]]:
    """The first `limit` documents that each rule dropped; stops reading once it has them all."""
    examples: dict[str, list[Row]] = {rule: [] for rule in counts}
    missing = sum(min(count, limit) for count in counts.values())
    for document in _documents(folder) if missing else ():
        if len(examples[document["rule"]]) < limit:
            examples[document["rule"]].append(document)
            missing -= 1
            if not missing:
                break
    return examples


def _settings(run: RunFolder, overrides: list[str]) -> QualityConfig:
    from recipes.load import load_recipe

    for override in overrides:
        if not override.startswith("quality."):
            raise RecipeError(f"--what-if: got {override!r}, allowed: quality.FIELD=VALUE, e.g. quality.rules.X=0.2")
    return load_recipe(run.recipe, overrides).recipe.quality


def _explore(run: RunFolder, stage: Stage, overrides: list[str]) -> dict[str, Any]:
    """Drops by rule, and the change by the overrides: {rules, what_if, kept, kept_before, more, fewer}."""
    from pipeline.quality import rules

    columns = rules.load(stage.folder)
    documents = len(columns.languages)
    before = rules.fails(_settings(run, []), columns)
    after = rules.fails(_settings(run, overrides), columns)
    counted = []
    for row in rules.count(after, documents):
        counts: dict[str, Any] = {"rule": row.name, "alone": row.alone, "first": row.first, "only": row.only}
        if overrides:
            counts["alone_before"] = int(before[row.name].sum()) if row.name in before else None
        counted.append(counts)
    was, now = rules.kept(before, documents), rules.kept(after, documents)
    return {
        "rules": counted,
        "what_if": overrides,
        "kept": int(now.sum()),
        "kept_before": int(was.sum()),
        "more": int((now & ~was).sum()),
        "fewer": int((was & ~now).sum()),
    }


def _samples(run: RunFolder, stage: Stage, rule: str | None, limit: int) -> Iterator[Row]:
    """Dropped documents that fail a rule, with the `span` (start, end) of their text that fails it."""
    from pipeline.quality.rules import rules_for
    from pipeline.quality.spans import offending
    from recipes.explain import similar

    settings = _settings(run, [])
    shown, seen = 0, set()
    for document in _documents(stage.dropped):
        names = (document["failed_rules"] or "").split()
        seen |= set(names)
        if rule is None or rule not in names:
            continue
        rules = rules_for(settings, document.get("language") or "en")
        signal = rules[rule].signal if rule in rules else rule
        yield document | {"span": list(offending(document["text"], signal))}
        shown += 1
        if shown == limit:
            return
    if not shown:
        raise RecipeError(
            f"--rule: got {rule!r}, which drops nothing here; allowed: {', '.join(sorted(seen))}"
            f"{similar(rule or '', seen)}"
        )


def _rules_table(value: dict[str, Any]) -> Table:
    changed = bool(value["what_if"])
    table = make_table("rule", "alone", "first", "only", *(["alone before"] if changed else []))
    for row in value["rules"]:
        before = row.get("alone_before")
        if row["alone"] or before:
            counts = [f"{row[name]:,}" for name in ("alone", "first", "only")]
            table.add_row(row["rule"], *counts, *(["off" if before is None else f"{before:,}"] if changed else []))
    return table


def _lines(document: Row, *, text: bool = True) -> Iterator[RenderableType]:
    address = clean(document["url"] or document["path"], 120)
    yield Text(f"  {document['id']}  {address}", "cyan")
    if document.get("rule"):
        yield f"    {_reason(document)}"
    if text and document["text"]:
        yield f"    {clean(document['text'], _CHARACTERS)}"


def _marked(text: str, start: int, end: int) -> str:
    before, after = clean(text[max(start - _CONTEXT, 0) : start]), clean(text[end : end + _CONTEXT])
    return f"    {before} >>>{clean(text[start:end], _CHARACTERS)}<<< {after}"


def _reason(drop: Row) -> str:
    """`value 12, threshold 50` and the detail, as far as the rule recorded them."""
    parts = [f"{name} {drop[name]:g}" for name in ("value", "threshold") if drop[name] is not None]
    parts += [clean(drop["detail"], _CHARACTERS)] if drop["detail"] else []
    return ", ".join(parts) or "no further detail"


def trace(
    run: Run,
    step: Annotated[int | None, typer.Option(help="List the documents of this training step.")] = None,
    doc: Annotated[str | None, typer.Option(help="Show what happened to the document with this id.")] = None,
    url: Annotated[str | None, typer.Option(help="Show what happened to the documents with this address.")] = None,
    text: Annotated[str | None, typer.Option(help="Find the training documents that share most of this text.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of documents to show with --text.")] = _SHOWN,
) -> Result:
    """Trace a training step to its documents, or a document or text to the steps that trained on it.

    Example: pretrain trace runs/demo --step 100

    Example: pretrain trace runs/demo --text "The library is a place" --json
    """
    given = [name for name, value in {"step": step, "doc": doc, "url": url, "text": text}.items() if value is not None]
    if len(given) != 1:
        raise RecipeError(f"trace takes one of --step, --doc, --url, --text; got {', '.join(given) or 'none'}")
    if run.fingerprint is None and (step is not None or text is not None):
        raise RecipeError(f"{run.path}: no finished shards; `pretrain corpus RECIPE` makes them")
    if step is not None:
        rows = _step_documents(run, step)
    elif text is not None:
        rows = _overlaps(run, text, limit)
    else:
        rows = _fates(run, "id", doc) if doc is not None else _fates(run, "url", str(url))
    return Result(rows, *_trace_lines(rows))


def _step_documents(run: RunFolder, step: int) -> list[Row]:
    """Each piece of the step's batch: its document, sample, span of tokens, and share of the batch's tokens."""
    pieces = _history(run).step(step)
    documents = {
        row["id"]: row for row in select_rows(run.documents, "id", {piece.document for piece in pieces} - {None})
    }
    total = sum(piece.tokens for piece in pieces)
    return [
        {
            "id": piece.document,
            **{name: documents.get(piece.document, {}).get(name) for name in ("url", "source")},
            "stream": piece.stream,
            "sample": piece.sample,
            "span": [piece.offset, piece.offset + piece.tokens],
            "share": piece.tokens / total,
        }
        for piece in pieces
    ]


def _fates(run: RunFolder, column: str, value: str) -> list[Row]:
    """What happened to each document with this id or address: dropped, held out, or trained on and when."""
    fates: list[Row] = []
    for stage in run.stages.values():
        for path in sorted(stage.dropped.glob("*.parquet")):
            fates += [{"fate": "dropped", **row} for row in select_rows(path, column, {value}, _DROPPED)]
    if run.documents.is_file():
        fates += _trained(run, select_rows(run.documents, column, {value}))
    if not fates:
        raise RecipeError(f"{run.path}: no document whose {column} is {value!r} was dropped or came into the shards")
    return fates


def _overlaps(run: RunFolder, text: str, limit: int) -> list[Row]:
    """The training documents that share the longest substrings with `text`, longest first, and their fates."""
    from pipeline.documents import read_batches
    from pipeline.kernels.overlap import Overlap

    try:
        query = Overlap(text)
    except ValueError as error:
        raise RecipeError(f"--text: {error}") from None
    trained = {row["id"] for row in select_rows(run.documents, "split", {"train"}, ["id"])}
    last = list(run.text_stages.values())[-1:]
    best: list[tuple[int, str, str]] = []  # a heap: bytes, id, the shared substring
    for path in sorted(last[0].data.glob("*.parquet")) if last else []:
        for table in read_batches(path, ["id", "text"]):
            for name, body in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True):
                shared = query.longest(body) if name in trained else ""
                if shared:
                    heapq.heappush(best, (len(shared.encode()), name, shared))
                    if len(best) > limit:
                        heapq.heappop(best)
    best.sort(key=lambda entry: (-entry[0], entry[1]))
    fates = {row["id"]: row for row in _trained(run, select_rows(run.documents, "id", {name for _, name, _ in best}))}
    return [{"overlap": size, "shared": shared, **fates[name]} for size, name, shared in best]


def _trained(run: RunFolder, pieces: list[Row]) -> list[Row]:
    """One row a document from its rows in documents.parquet: held out, or the steps that took its samples."""
    history = _history(run) if run.checkpoints and any(row["split"] == "train" for row in pieces) else None
    documents: dict[str, Row] = {}
    for row in pieces:
        fate = documents.setdefault(
            row["id"],
            {
                "fate": "trained" if row["split"] == "train" else "held out",
                **{name: row[name] for name in ("id", "url", "source", "language", "stream")},
                "pieces": [],
                "steps": [],
                "trained_until": history.steps if history else 0,
            },
        )
        steps = history.steps_of(row["stream"], row["sample"]) if history and row["split"] == "train" else []
        span = [row["offset"], row["offset"] + row["tokens"]]
        fate["pieces"].append({"sample": row["sample"], "span": span, "steps": steps})
        fate["steps"] = sorted({*fate["steps"], *steps})
    for fate in documents.values():
        if fate["fate"] == "trained" and not fate["steps"]:
            fate["fate"] = "in the shards, not trained on yet"
    return list(documents.values())


def _history(run: RunFolder) -> History:
    from trainer.trace import History

    return History(run.trained, run.shards)


def _trace_lines(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        document = f"{row['id']}  {clean(row['url'] or row['source'] or '', 100)}"
        if "share" in row:
            start, end = row["span"]
            yield f"{row['share']:6.2%}  {document}  ({row['source']}; {row['stream']}/{row['sample']}, {start}-{end})"
            continue
        if "overlap" in row:
            yield f"{row['overlap']:,} bytes: {clean(row['shared'], 200)}"
        yield f"{document}\n  {_fate(row)}"


def _fate(row: Row) -> str:
    if row["fate"] == "dropped":
        return f"dropped by stage {row['stage']}, rule {row['rule']}: {_reason(row)}"
    if row["fate"] != "trained":
        return str(row["fate"])
    steps: list[Any] = row["steps"]
    shown = ", ".join(f"{step:,}" for step in steps[:_SHOWN]) + (", ..." if len(steps) > _SHOWN else "")
    return f"trained on in {len(steps):,} of {row['trained_until']:,} steps: {shown}"
