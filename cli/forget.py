"""`forget`: where documents are in a run, and the run without them.

The index of the run folder (`pipeline.lookup`) finds a document, its duplicates and its tokens; the order of the data
(`trainer.trace`) the steps that read them. With --apply their ids and hashed addresses go onto the list that every
later build honours (`pipeline.forgotten`), the corpus is built again, and checkpoints that saw them are set aside.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import HELP, Result, pulled
from cli.terminal import CorpusView, clean, duration, funnel_table, messages, show
from common.errors import RecipeError
from common.files import hash_file, read_json
from common.runfolder import Row, RunFolder

if TYPE_CHECKING:
    from pipeline.lookup import Lookup
    from recipes.mirror import Mirror
    from trainer.trace import Order

_SHOWN = 10  # steps of a document
_WORKER_BYTES = 50_000_000  # of the first stage's files, for which another worker is started
_FIELDS = ("id", "url", "source", "path", "offset", "cluster")


def forget(
    run: Annotated[str, typer.Argument(help=HELP, show_default=False)],
    url: Annotated[list[str] | None, typer.Option(help="Address of a document; repeatable.")] = None,
    doc: Annotated[list[str] | None, typer.Option(help="Id of a document; repeatable.")] = None,
    listed: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="File with one address or id a line.")
    ] = None,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Take out these documents alone, not their duplicates.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Estimate what --apply takes.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Take them out for good.")] = False,
) -> Result:
    """Find where documents are in a run: stage, duplicates, samples, steps, and the newest checkpoint without them.

    With --apply, build the corpus without them, byte for byte as if from the start, and keep a list of hashes that
    later builds of this run folder honour. The input files are not changed.

    Example: pretrain forget runs/demo --url https://example.org/page

    Example: pretrain forget runs/demo --list requests.txt --apply
    """
    from pipeline.lookup import bring_up_to_date

    ids, urls = list(doc or ()), list(url or ())
    for line in _read_list(listed) if listed else ():
        (ids if re.fullmatch("[0-9a-f]{32}", line) else urls).append(line)
    if not ids and not urls:
        raise RecipeError("forget takes --url, --doc or --list; none names a document")
    if plan and apply:
        raise RecipeError("--plan only estimates and --apply does it; give one of them")
    mirror = pulled(run, shards=False) if "://" in run else None
    folder = RunFolder(mirror.local if mirror else Path(run))
    bring_up_to_date(folder)
    found = _find(folder, _open_order(folder), ids, urls, duplicates=not keep_duplicates)
    found.newest = folder.checkpoints[-1].name if folder.checkpoints else None
    found.checkpoint, found.note = _clean_checkpoint(folder, found)
    value = found.dump()
    parts = list(_lines(found))
    if plan:
        value["plan"] = _price(folder, found)
        parts += _plan_lines(value["plan"])
    if apply:
        value["applied"] = _apply(folder, mirror, found, urls)
        parts += value["applied"]["then"]
    return Result(value, *parts)


@dataclass
class Found:
    """Documents with their fates; asked values that match none, and those of them that were taken out before; the
    newest checkpoint without them, and why none."""

    documents: list[Row]
    unknown: list[str]
    gone: list[str]
    trained: bool
    newest: str | None = None
    checkpoint: str | None = None
    note: str = ""
    steps: list[int] = field(default_factory=list)

    def dump(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "unknown": self.unknown,
            "gone": self.gone,
            "first_step": self.steps[0] if self.steps else None,
            "checkpoint": self.checkpoint,
            "note": self.note,
        }


def _read_list(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise RecipeError(f"--list: no file at {path}")
    lines = (line.strip() for line in path.read_text("utf-8").splitlines())
    return (line for line in lines if line and not line.startswith("#"))


def _open_order(run: RunFolder) -> Order | str | None:
    """The order of the data of the run's training; why it is not known; None where there is no training."""
    from trainer.trace import read_order

    if not run.state:
        return None
    try:
        return read_order(run.shards, run.state, run.ledger)
    except (ValueError, OSError) as error:
        return str(error)


def _find(
    run: RunFolder, order: Order | str | None, ids: Sequence[str], urls: Sequence[str], *, duplicates: bool
) -> Found:
    from pipeline.forgotten import read_forgotten
    from pipeline.lookup import Lookup

    lookup, forgotten = Lookup(run), read_forgotten(run.path)
    rows: dict[str, Row] = {}
    unknown = []
    for key, values in (("id", ids), ("url", urls)):
        found = dict.fromkeys(values, 0)
        for row in lookup.find(key, *filter(None, values)):
            rows[row["id"]] = row | {"because": "asked for"}
            found[row[key]] += 1
        unknown += [value for value, count in found.items() if not count]
    gone = [value for value in unknown if forgotten.covers("", value)]
    if not rows and not gone:
        raise RecipeError(f"{lookup.run}: no document has {'this address or id' if unknown else 'it'}: {unknown[0]}")
    if duplicates:
        asked = {row["cluster"]: row["id"] for row in rows.values() if (row.get("cluster_size") or 1) > 1}
        others = lookup.find("cluster", *asked)
        rows |= {o["id"]: o | {"because": f"duplicate of {asked[o['cluster']]}"} for o in others if o["id"] not in rows}
    documents = [_fate(lookup, order, row) for row in rows.values()]
    steps = sorted({step for row in documents for piece in row["pieces"] for step in piece["steps"]})
    return Found(documents, unknown, gone, order is not None, steps=steps)


def _fate(lookup: Lookup, order: Order | str | None, row: Row) -> Row:
    """What a report tells of a document: where it came from, which rule dropped it or which samples hold it."""
    fate = {name: row.get(name) for name in (*_FIELDS, "because")}
    dropped = row.get("rule")
    pieces: list[Row] = []
    for piece in [] if dropped else lookup.pieces(row["id"]):
        known = order.steps_of(piece.stream, piece.sample) if order and not isinstance(order, str) else []
        shard = _shard(lookup.run / "shards" / piece.stream, piece.sample)
        pieces.append({**piece._asdict(), "shard": shard, "steps": known})
    return fate | {"dropped_by": f"{row['stage']}: {dropped}" if dropped else None, "pieces": pieces}


@lru_cache(maxsize=16)
def _shards_of(stream: Path) -> list[tuple[int, str]]:
    """(first sample after it, file) of each shard of a stream."""
    ends, end = [], 0
    for shard in read_json(stream / "index.json")["shards"]:
        end += shard["samples"]
        ends.append((end, (shard.get("zip_data") or shard["raw_data"])["basename"]))
    return ends


def _shard(stream: Path, sample: int) -> str:
    return next(name for end, name in _shards_of(stream) if sample < end)


def _clean_checkpoint(run: RunFolder, found: Found) -> tuple[str | None, str]:
    """The newest checkpoint that never saw the documents, and why there is none."""
    order = _open_order(run)
    if order is None:
        return None, "nothing was trained on them"
    if isinstance(order, str):
        return None, f"{run.trained}: {order}, so it is unknown what they saw"
    if not any(row["pieces"] for row in found.documents):
        return run.checkpoints[-1].name, ""
    if order.since:
        return None, f"steps 1 to {order.since} were trained on earlier shards, so it is unknown what they saw"
    first = found.steps[0] if found.steps else order.steps + 1
    clean = [path.name for path in run.checkpoints if int(path.name.partition("-")[2]) < first]
    return (clean[-1], "") if clean else (None, f"every checkpoint that is kept saw them, the first at step {first:,}")


def _price(run: RunFolder, found: Found) -> dict[str, Any]:
    """What --apply repeats: the stages, with the seconds that they took in full, and the steps after the checkpoint."""
    seconds = {row["stage"]: row["seconds"] for row in run.log if row.get("event") == "stage"}
    stages = {name: seconds.get(name) for name in run.stages}
    plan: dict[str, Any] = {"documents": len(found.documents), "stages": stages}
    if found.steps or (found.trained and not found.checkpoint):
        first = int(found.checkpoint.partition("-")[2]) if found.checkpoint else 0
        repeated = int(run.state["step"]) - first
        rows = [row for row in run.records("train") if row.get("tokens_per_second")]
        speed = sum(row["tokens_per_second"] for row in rows) / len(rows) if rows else None
        tokens = run.state["tokens"] * repeated / max(run.state["step"], 1)
        plan |= {"steps": repeated, "training_seconds": tokens / speed if speed else None}
    return plan


def _plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    total = sum(seconds or 0.0 for seconds in plan["stages"].values())
    parts = ", ".join(f"{name} {duration(seconds or 0.0)}" for name, seconds in plan["stages"].items())
    yield f"rebuild: at most {duration(total)}, the stages' time in full ({parts})"
    if "steps" in plan:
        time = f", about {duration(plan['training_seconds'])}" if plan["training_seconds"] else ""
        yield f"training: {plan['steps']:,} steps to repeat{time}, unless the tokenizer changes: then all"


def _apply(run: RunFolder, mirror: Mirror | None, found: Found, urls: Sequence[str]) -> dict[str, Any]:
    """Write the list, build the corpus without the documents, and set aside what has seen them.

    mirror: of a run folder in object storage, whose local copy `run` then is.
    """
    from cli.run import depot_of
    from pipeline.build import build_corpus
    from pipeline.forgotten import read_forgotten
    from pipeline.lookup import bring_up_to_date
    from recipes.load import check_paths, load_recipe

    loaded = load_recipe(run.recipe)
    check_paths(loaded)
    if mirror and mirror.address != loaded.address:
        raise RecipeError(f"{mirror.address}: by its recipe this run is at {loaded.address}; give that address")
    before = read_forgotten(run.path)
    forgotten = before.with_more([row["id"] for row in found.documents], urls)
    forgotten.write(run.path)
    if mirror:
        mirror.push()
    recipe = loaded.recipe
    if recipe.executor.type == "local":  # what is left to do takes less time than starting workers
        size = sum(path.stat().st_size for path in next(iter(run.stages.values())).data.glob("*.parquet"))
        most = min(recipe.executor.workers or os.cpu_count() or 1, 1 + size // _WORKER_BYTES)
        recipe = recipe.model_copy(update={"executor": recipe.executor.model_copy(update={"workers": most})})
    with CorpusView() as view:
        depot = depot_of(loaded) if mirror else None
        place, base = (depot.run, loaded.base.absolute()) if depot else (run.path, loaded.base)
        build_corpus(recipe, place, base, last=[*run.stages][-1], observer=view, depot=depot)
    if mirror:
        mirror = pulled(mirror.address, shards=False)
    show(funnel_table(view.stats, view.seconds))
    after = RunFolder(run.path)
    bring_up_to_date(after)
    then = [f"{run.forgotten}: {len(forgotten.documents):,} documents; delete exports and copies made before yourself"]
    then += _set_training_aside(after, found)
    if find_spec("plotly") and find_spec("jinja2"):  # the report shows passages of documents
        from cli.report.write import write_report

        write_report([run.path])
    if mirror:
        mirror.push()
    return {"forgotten": len(forgotten.documents), "then": then}


def _set_training_aside(run: RunFolder, found: Found) -> Iterator[str]:
    """Put away checkpoints that saw the documents. Says how the training goes on."""
    if not found.trained:
        return
    resume = f"pretrain train {run.recipe} --set 'train.checkpoint.accept=[shards]'"
    if found.checkpoint == found.newest and not found.steps:
        yield f"the model never saw them; to train on: {resume}"
        return
    tokenizers = [folder / "tokenizer.json" for folder in (run.shards, run.train)]
    same = all(path.is_file() for path in tokenizers) and len({hash_file(path) for path in tokenizers}) == 1
    if found.checkpoint and same:
        from trainer.checkpoint import set_aside

        set_aside(run.train / "checkpoints", int(found.checkpoint.partition("-")[2]))
        (run.train / "result.json").unlink(missing_ok=True)
        yield f"training goes on from {found.checkpoint}: {resume}; later ones are kept as *.unused: delete them"
        return
    reason = found.note or "the tokenizer, which was trained on the corpus, has changed"
    kept = run.set_training_aside()
    yield f"training starts over, since {reason}: pretrain train {run.recipe}; {kept} holds the old one: delete it"


def _lines(found: Found) -> Iterator[str]:
    """A few lines a document, and what follows for the training."""
    for row in found.documents:
        yield f"{row['id']}  {clean(row['url'] or row['path'] or '', 100)}  ({row['because']})"
        yield f"  {row['path']} at offset {row['offset']}" + (f"; cluster {row['cluster']}" if row["cluster"] else "")
        if row["dropped_by"]:
            yield f"  dropped by {row['dropped_by']}"
        for piece in row["pieces"]:
            steps = ", ".join(f"{step:,}" for step in piece["steps"][:_SHOWN])
            more = ", ..." if len(piece["steps"]) > _SHOWN else ""
            end = piece["offset"] + piece["tokens"]
            where = f"{piece['stream']}/{piece['shard']}, sample {piece['sample']}, tokens {piece['offset']}-{end}"
            yield f"  {where}; " + (f"steps {steps}{more}" if steps else "no step")
    for value in found.unknown:
        yield f"{'taken out before' if value in found.gone else 'not in this run'}: {clean(value, 200)}"
    if found.trained:
        yield f"newest checkpoint that never saw them: {found.checkpoint or f'none: {found.note}'}"
    else:
        messages().print("nothing was trained yet", soft_wrap=True)
