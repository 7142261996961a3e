"""`trace`: from a training step to its documents, from a document to the steps that trained on it or the rule that
dropped it, from a text to the training documents that share most of it.

Reads documents.parquet and the dropped tables with a filter; --text also scans the texts of the last stage.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.contents import select_rows
from cli.options import Result, Run
from cli.terminal import clean, describe_drop
from common.errors import RecipeError
from common.runfolder import Row, RunFolder

if TYPE_CHECKING:
    from trainer.trace import History

_SHOWN = 10
_DROPPED = ["id", "url", "source", "stage", "rule", "value", "threshold", "detail"]


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
    return Result(rows, *_lines(rows))


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
            "url": documents.get(piece.document, {}).get("url"),
            "source": documents.get(piece.document, {}).get("source"),
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
    samples = {(row["stream"], row["sample"]) for row in pieces if row["split"] == "train"}
    history = _history(run) if samples and run.checkpoints else None
    steps_of = history.steps_of(samples) if history else {}
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
        steps = steps_of.get((row["stream"], row["sample"]), []) if row["split"] == "train" else []
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


def _lines(rows: list[Row]) -> Iterator[str]:
    """A line or two a document."""
    for row in rows:
        document = f"{row['id']}  {clean(row['url'] or row['source'] or '', 100)}"
        if "share" in row:
            start, end = row["span"]
            yield f"{row['share']:6.2%}  {document}  ({row['source']}; {row['stream']}/{row['sample']}, {start}-{end})"
            continue
        if "overlap" in row:
            yield f"{row['overlap']:,} bytes: {clean(row['shared'], 200)}"
        yield f"{document}\n  {_describe(row)}"


def _describe(row: Row) -> str:
    if row["fate"] == "dropped":
        return f"dropped by stage {row['stage']}, rule {row['rule']}: {describe_drop(row)}"
    if row["fate"] != "trained":
        return str(row["fate"])
    steps: list[Any] = row["steps"]
    shown = ", ".join(f"{step:,}" for step in steps[:_SHOWN]) + (", ..." if len(steps) > _SHOWN else "")
    return f"trained on in {len(steps):,} of {row['trained_until']:,} steps: {shown}"
