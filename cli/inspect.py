"""`inspect`: what a stage kept and dropped, and why; for `quality` also what other thresholds would do.

Reads documents in file order and stops once it has enough; thresholds are tried on the stored columns, nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cli.options import Result, Run
from cli.terminal import clean, describe_drop, make_table
from common.errors import RecipeError
from common.runfolder import Row, RunFolder, Stage

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from pipeline.config import QualityConfig

_CHARACTERS = 200  # of a text or detail that is shown
_CONTEXT = 60  # characters before and after a marked span
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
    """Show what a stage kept, or dropped and why.

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
        order = sorted(stats["dropped"].items(), key=lambda item: (-item[1], item[0]))
        examples = _dropped(published.dropped, stats["dropped"], limit)
        value["rules"] = [{"rule": name, "dropped": count, "documents": examples[name]} for name, count in order]
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
        yield f"    {describe_drop(document)}"
    if text and document["text"]:
        yield f"    {clean(document['text'], _CHARACTERS)}"


def _marked(text: str, start: int, end: int) -> str:
    before, after = clean(text[max(start - _CONTEXT, 0) : start]), clean(text[end : end + _CONTEXT])
    return f"    {before} >>>{clean(text[start:end], _CHARACTERS)}<<< {after}"
