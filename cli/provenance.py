"""`trace`: from a training step to its documents, from a document to its fate, from a text to where it was learnt."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.export import train_folder
from cli.recipe import RunFolder
from common.errors import RecipeError

if TYPE_CHECKING:
    from trainer.trace import History

_SHOWN = 10
_DROPPED = ["id", "url", "source", "stage", "rule", "value", "threshold", "detail"]
Row = dict[str, Any]


def trace(
    run: RunFolder,
    step: Annotated[int | None, typer.Option(help="List the documents of this training step.")] = None,
    doc: Annotated[str | None, typer.Option(help="Say what became of the document with this id.")] = None,
    url: Annotated[str | None, typer.Option(help="Say what became of the documents with this address.")] = None,
    text: Annotated[str | None, typer.Option(help="Find the training documents that share most of this text.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents shown (--text).")] = _SHOWN,
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Lead a training step back to its documents, or a document or text to the steps that trained on it.

    Example: pretrain trace runs/demo --step 100

    Example: pretrain trace runs/demo --text "The library is a place" --json
    """
    from cli.terminal import print_json

    given = [name for name, value in {"step": step, "doc": doc, "url": url, "text": text}.items() if value is not None]
    if len(given) != 1:
        raise RecipeError(f"trace takes one of --step, --doc, --url, --text; got {', '.join(given) or 'none'}")
    if not (run / "shards" / "manifest.json").is_file() and (step is not None or text is not None):
        raise RecipeError(f"{run}: no finished shards; `pretrain corpus RECIPE` makes them")
    if step is not None:
        found = _step(run, step)
    elif text is not None:
        found = _overlaps(run, text, limit)
    else:
        found = _fates(run, "id" if doc is not None else "url", str(doc if doc is not None else url))
    if json_output:
        print_json(found)
        return
    for line in _lines(found):
        typer.echo(line)


def _step(run: Path, number: int) -> list[Row]:
    """Every piece of the step's batch: document, url, source, where its tokens stand, share of the batch's tokens."""
    pieces = _history(run).step(number)
    known = {row["id"]: row for row in _placed(run, {piece.document for piece in pieces})}
    total = sum(piece.tokens for piece in pieces)
    return [
        {
            "id": piece.document,
            "url": known.get(piece.document, {}).get("url"),
            "source": known.get(piece.document, {}).get("source"),
            "stream": piece.stream,
            "sample": piece.sample,
            "span": [piece.offset, piece.offset + piece.tokens],
            "share": piece.tokens / total,
        }
        for piece in pieces
    ]


def _fates(run: Path, column: str, value: str) -> list[Row]:
    """What became of each document with this id or address: dropped, held out, or trained on and when."""
    found: list[Row] = []
    for path in [
        *sorted((run / "corpus").glob("[0-9][0-9]-*/dropped/*.parquet")),
        *run.glob("shards/dropped/*.parquet"),
    ]:
        found += [{"fate": "dropped", **row} for row in _read(path, column, {value}, _DROPPED)]
    documents = run / "shards" / "documents.parquet"
    pieces = _read(documents, column, {value}) if documents.is_file() else []
    if pieces:
        found += _trained(run, pieces)
    if not found:
        raise RecipeError(f"{run}: no document whose {column} is {value!r} was dropped or came into the shards")
    return found


def _overlaps(run: Path, text: str, limit: int) -> list[Row]:
    """The training documents that share the longest stretches with `text`, longest first, and their fates."""
    from pipeline.documents import read_batches
    from pipeline.kernels.overlap import Overlap

    try:
        query = Overlap(text)
    except ValueError as error:
        raise RecipeError(f"--text: {error}") from None
    folders = sorted((run / "corpus").glob("[0-9][0-9]-*"))
    trained = _training_ids(run)
    best: list[tuple[int, str, str]] = []  # a heap: bytes, id, what is shared
    for path in sorted(folders[-1].glob("data/*.parquet")) if folders else []:
        for table in read_batches(path, ["id", "text"]):
            for name, body in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True):
                shared = query.longest(body) if name in trained else ""
                if shared:
                    heapq.heappush(best, (len(shared.encode()), name, shared))
                    if len(best) > limit:
                        heapq.heappop(best)
    best.sort(key=lambda entry: (-entry[0], entry[1]))
    fates = {row["id"]: row for row in _trained(run, _placed(run, {name for _, name, _ in best}))}
    return [{"overlap": size, "shared": shared, **fates[name]} for size, name, shared in best]


def _trained(run: Path, pieces: list[Row]) -> list[Row]:
    """One row a document from its rows in documents.parquet: held out, or the steps that took its samples."""
    taken: dict[tuple[str, int], list[int]] = {}
    samples = {(row["stream"], row["sample"]) for row in pieces if row["split"] == "train"}
    history = _history(run) if samples and (train_folder(run) / "checkpoints").is_dir() else None
    if history:
        taken = history.steps_of(samples)
    found: dict[str, Row] = {}
    for row in pieces:
        entry = found.setdefault(
            row["id"],
            {
                "fate": "trained" if row["split"] == "train" else "held out",
                **{name: row[name] for name in ("id", "url", "source", "language", "stream")},
                "pieces": [],
                "steps": [],
                "trained_until": history.steps if history else 0,
            },
        )
        steps = taken.get((row["stream"], row["sample"]), []) if row["split"] == "train" else []
        span = [row["offset"], row["offset"] + row["tokens"]]
        entry["pieces"].append({"sample": row["sample"], "span": span, "steps": steps})
        entry["steps"] = sorted({*entry["steps"], *steps})
    for entry in found.values():
        if entry["fate"] == "trained" and not entry["steps"]:
            entry["fate"] = "in the shards, not trained on yet"
    return list(found.values())


def _history(run: Path) -> History:
    from trainer.trace import History

    return History(train_folder(run), run / "shards")


def _placed(run: Path, ids: set[Any]) -> list[Row]:
    """Rows of documents.parquet for these ids."""
    return _read(run / "shards" / "documents.parquet", "id", ids - {None})


def _training_ids(run: Path) -> set[str]:
    return {row["id"] for row in _read(run / "shards" / "documents.parquet", "split", {"train"}, ["id"])}


def _read(path: Path, column: str, values: set[Any], columns: list[str] | None = None) -> list[Row]:
    """Rows of a parquet file whose `column` is one of `values`."""
    import pyarrow.parquet as pq

    from common.errors import PipelineError

    if not path.is_file():
        raise PipelineError(f"{path} is missing; build the corpus again")
    if not values:
        return []
    rows: list[Row] = pq.read_table(path, columns=columns, filters=[(column, "in", values)]).to_pylist()
    return rows


def _lines(found: list[Row]) -> Iterator[str]:
    """For people: a line or two a document."""
    from cli.terminal import clean

    for row in found:
        place = f"{row['id']}  {clean(row['url'] or row['source'] or '', 100)}"
        if "share" in row:
            first, last = row["span"]
            yield f"{row['share']:6.2%}  {place}  ({row['source']}; {row['stream']}/{row['sample']}, {first}-{last})"
            continue
        if "overlap" in row:
            yield f"{row['overlap']:,} bytes: {clean(row['shared'], 200)}"
        yield f"{place}\n  {_fate(row)}"


def _fate(row: Row) -> str:
    from cli.terminal import clean

    if row["fate"] == "dropped":
        parts = [f"{name} {row[name]:g}" for name in ("value", "threshold") if row[name] is not None]
        parts += [clean(row["detail"], 200)] if row["detail"] else []
        return f"dropped by stage {row['stage']}, rule {row['rule']}: {', '.join(parts) or 'no further detail'}"
    if row["fate"] != "trained":
        return str(row["fate"])
    steps = row["steps"]
    shown = ", ".join(f"{step:,}" for step in steps[:_SHOWN]) + (", ..." if len(steps) > _SHOWN else "")
    return f"trained on in {len(steps):,} of {row['trained_until']:,} steps: {shown}"
