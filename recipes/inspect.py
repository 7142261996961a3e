"""The command `inspect`: what a stage kept and dropped, and why; for `quality` also what other thresholds would do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recipes.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.config import QualityConfig

RunFolder = Annotated[Path, typer.Argument(help="Run folder, e.g. runs/demo.", show_default=False)]
_CHARACTERS = 200
_CONTEXT = 60


def inspect(
    run: RunFolder,
    stage: Annotated[str, typer.Option(help="Stage to look into, e.g. quality.", show_default=False)],
    dropped: Annotated[bool, typer.Option("--dropped", help="What the stage dropped, by rule.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Documents shown, for each rule.")] = 3,
    what_if: Annotated[
        list[str] | None,
        typer.Option(help="Other settings, e.g. quality.rules.gopher_min_words=20; repeatable.", show_default=False),
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Documents that --rule drops, with the reason.")] = None,
    rule: Annotated[str | None, typer.Option(help="Rule to sample.", show_default=False)] = None,
) -> None:
    """Show what a stage kept, or dropped and why.

    For `quality`: how many documents each rule drops alone (whatever the others do), first (rules have an order) and
    only (no other rule drops them), and what other thresholds would change, from the columns of the finished run.

    Example: pretrain inspect runs/demo --stage quality --dropped --limit 5

    Example: pretrain inspect runs/demo --stage quality --what-if quality.rules.gopher_top_2gram=0.3

    Example: pretrain inspect runs/demo --stage quality --sample 5 --rule c4_curly_brackets
    """
    from pipeline.storage import read_json
    from recipes.terminal import results

    if (what_if or sample or rule) and stage != "quality":
        raise RecipeError(f"--stage: got {stage!r}; --what-if, --sample and --rule are for `quality`")
    folder = _stage_folder(run, stage)
    console = results()
    stats = read_json(folder / "stats.json")
    if sample or rule:
        _samples(console, run, folder, rule, sample or limit)
    elif dropped:
        console.print(f"{stage}: {stats['documents_dropped']:,} of {stats['documents_in']:,} documents dropped")
        examples = _dropped(folder / "dropped", stats["dropped"], limit)
        for name, count in sorted(stats["dropped"].items(), key=lambda item: (-item[1], item[0])):
            console.print(f"\n{name}: {count:,}", style="bold")
            for document in examples[name]:
                _show(console, document)
    else:
        console.print(f"{stage}: {stats['documents_kept']:,} of {stats['documents_in']:,} documents kept")
        if stage == "quality":
            _explore(console, run, folder, what_if or [])
            return
        for number, document in enumerate(_documents(folder / "data")):
            if number == limit:
                break
            _show(console, document)


def _settings(run: Path, overrides: list[str]) -> QualityConfig:
    from recipes.load import load_recipe

    for override in overrides:
        if not override.startswith("quality."):
            raise RecipeError(f"--what-if: got {override!r}, allowed: quality.FIELD=VALUE, e.g. quality.rules.X=0.2")
    return load_recipe(run / "recipe.yaml", overrides).recipe.quality


def _explore(console: Console, run: Path, folder: Path, overrides: list[str]) -> None:
    """The table of rules; with overrides, what they change."""
    from rich import box
    from rich.table import Table

    from pipeline.quality import explore

    columns = explore.load(folder)
    documents = len(columns.languages)
    before = explore.fails(_settings(run, []), columns)
    after = explore.fails(_settings(run, overrides), columns)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    table.add_column("rule")
    for name in ("alone", "first", "only", *(("alone before",) if overrides else ())):
        table.add_column(name, justify="right")
    for row in explore.count(after, documents):
        then = [f"{int(before[row.name].sum()):,}" if row.name in before else "off"] if overrides else []
        if row.alone or then not in ([], ["0"]):
            table.add_row(row.name, f"{row.alone:,}", f"{row.first:,}", f"{row.only:,}", *then)
    console.print(table)
    if overrides:
        was, now = explore.kept(before, documents), explore.kept(after, documents)
        console.print(
            f"{', '.join(overrides)}: {int(now.sum()):,} of {documents:,} kept instead of {int(was.sum()):,}"
            f" ({int((now & ~was).sum()):,} more, {int((was & ~now).sum()):,} fewer); nothing was run",
            soft_wrap=True,
        )


def _samples(console: Console, run: Path, folder: Path, rule: str | None, sample: int) -> None:
    """Dropped documents that fail a rule, with the span that fails it."""
    from pipeline.quality.rules import rules_for
    from recipes.explain import similar

    settings = _settings(run, [])
    shown, seen = 0, set()
    for document in _documents(folder / "dropped"):
        names = document["failed_rules"].split()
        seen |= set(names)
        if rule is None or rule not in names:
            continue
        _show(console, document, text=False)
        rules = rules_for(settings, document.get("language") or "en")
        _show_span(console, document["text"], rules[rule].signal if rule in rules else rule)
        shown += 1
        if shown == sample:
            return
    if not shown:
        raise RecipeError(
            f"--rule: got {rule!r}, which drops nothing here; allowed: {', '.join(sorted(seen))}"
            f"{similar(rule or '', seen)}"
        )


def _show_span(console: Console, text: str, signal: str) -> None:
    from pipeline.quality.spans import offending
    from recipes.terminal import clean

    low, high = offending(text, signal)
    before, span = clean(text[max(low - _CONTEXT, 0) : low]), clean(text[low:high], _CHARACTERS)
    after = clean(text[high : high + _CONTEXT])
    console.print(f"    {before} >>>{span}<<< {after}", soft_wrap=True)


def _stage_folder(run: Path, stage: str) -> Path:
    """Folder of a published stage. Raises RecipeError that names the stages which are there."""
    from recipes.explain import similar

    folders = {folder.name[3:]: folder for folder in sorted((run / "corpus").glob("[0-9][0-9]-*"))}
    if not folders:
        raise RecipeError(f"{run}: not a run folder with a finished stage; `pretrain corpus RECIPE` makes one")
    if stage not in folders:
        raise RecipeError(f"--stage: got {stage!r}, allowed: {', '.join(folders)}{similar(stage, folders)}")
    return folders[stage]


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    from pipeline.documents import read_batches

    for path in sorted(folder.glob("*.parquet")):
        for table in read_batches(path):
            yield from table.to_pylist()


def _dropped(folder: Path, counts: dict[str, int], limit: int) -> dict[str, list[dict[str, Any]]]:
    """The first `limit` documents that each rule dropped; stops reading once all are found."""
    found: dict[str, list[dict[str, Any]]] = {rule: [] for rule in counts}
    wanted = sum(min(count, limit) for count in counts.values())
    for document in _documents(folder):
        if wanted == 0:
            break
        if len(found[document["rule"]]) < limit:
            found[document["rule"]].append(document)
            wanted -= 1
    return found


def _show(console: Console, document: dict[str, Any], *, text: bool = True) -> None:
    from recipes.terminal import clean

    place = clean(document["url"] or document["path"], 120)
    console.print(f"  {document['id']}  {place}", style="cyan", soft_wrap=True)
    if document.get("rule"):
        console.print(f"    {_reason(document)}", soft_wrap=True)
    if text and document["text"]:
        console.print(f"    {clean(document['text'], _CHARACTERS)}", soft_wrap=True)


def _reason(document: dict[str, Any]) -> str:
    """`value 12, threshold 50` and the detail, as far as the rule has them."""
    from recipes.terminal import clean

    parts = [f"{name} {document[name]:g}" for name in ("value", "threshold") if document[name] is not None]
    if document["detail"]:
        parts.append(clean(document["detail"], _CHARACTERS))
    return ", ".join(parts) or "no further detail"
