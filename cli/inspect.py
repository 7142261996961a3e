"""The command `inspect`: what a stage kept and dropped, and why; for `quality` also what other thresholds would do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.run import Json
from cli.terminal import clean
from common.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.config import QualityConfig

RunFolder = Annotated[Path, typer.Argument(help="Run folder, e.g. runs/demo.", show_default=False)]
_CHARACTERS = 200
_CONTEXT = 60
_FIELDS = (
    *("id", "url", "path", "source", "language", "language_score", "text"),
    *("rule", "value", "threshold", "detail", "failed_rules"),
)


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
    as_json: Json = False,
) -> None:
    """Show what a stage kept, or dropped and why.

    For `quality`: how many documents each rule drops alone (whatever the others do), first (rules have an order) and
    only (no other rule drops them), and what other thresholds would change, from the columns of the finished run.

    Example: pretrain inspect runs/demo --stage quality --dropped --limit 5

    Example: pretrain inspect runs/demo --stage quality --what-if quality.rules.gopher_top_2gram=0.3

    Example: pretrain inspect runs/demo --stage quality --sample 5 --rule c4_curly_brackets
    """
    from cli.terminal import print_json, results
    from common.files import read_json

    if (what_if or sample or rule) and stage != "quality":
        raise RecipeError(f"--stage: got {stage!r}; --what-if, --sample and --rule are for `quality`")
    folder = _stage_folder(run, stage)
    stats = read_json(folder / "stats.json")
    found: dict[str, Any] = {"stage": stage}
    found |= {name: stats[name] for name in ("documents_in", "documents_kept", "documents_dropped")}
    if sample or rule:
        found["samples"] = list(_samples(run, folder, rule, sample or limit))
    elif dropped:
        order = sorted(stats["dropped"].items(), key=lambda item: (-item[1], item[0]))
        examples = _dropped(folder / "dropped", stats["dropped"], limit)
        found["rules"] = [{"rule": name, "dropped": count, "documents": examples[name]} for name, count in order]
    elif stage == "quality":
        found |= _explore(run, folder, what_if or [])
    else:
        found["documents"] = list(islice(_documents(folder / "data"), limit))
    if as_json:
        print_json(found)
    else:
        _print(results(), found)


def _print(console: Console, found: dict[str, Any]) -> None:
    """What `inspect` found, for people."""
    kind = "dropped" if "rules" in found and "kept" not in found else "kept"
    if "samples" not in found:
        count = found[f"documents_{kind}"]
        console.print(f"{found['stage']}: {count:,} of {found['documents_in']:,} documents {kind}")
    for document in found.get("samples", []):
        _show(console, document, text=False)
        low, high = document["span"]
        text = document["text"]
        before, span = clean(text[max(low - _CONTEXT, 0) : low]), clean(text[low:high], _CHARACTERS)
        after = clean(text[high : high + _CONTEXT])
        console.print(f"    {before} >>>{span}<<< {after}", soft_wrap=True)
    for document in found.get("documents", []):
        _show(console, document)
    if "kept" in found:
        _print_rules(console, found)
        return
    for rule in found.get("rules", []):
        console.print(f"\n{rule['rule']}: {rule['dropped']:,}", style="bold")
        for document in rule["documents"]:
            _show(console, document)


def _print_rules(console: Console, found: dict[str, Any]) -> None:
    from cli.terminal import make_table

    changed = found["what_if"]
    columns = ("rule", "alone", "first", "only", *(("alone before",) if changed else ()))
    table = make_table(*columns)
    for row in found["rules"]:
        before = row.get("alone_before")
        if row["alone"] or before:
            counts = [f"{row[name]:,}" for name in ("alone", "first", "only")]
            table.add_row(row["rule"], *counts, *(["off" if before is None else f"{before:,}"] if changed else []))
    console.print(table)
    if changed:
        console.print(
            f"{', '.join(changed)}: {found['kept']:,} of {found['documents_in']:,} kept instead of"
            f" {found['kept_before']:,} ({found['more']:,} more, {found['fewer']:,} fewer); nothing was run",
            soft_wrap=True,
        )


def _settings(run: Path, overrides: list[str]) -> QualityConfig:
    from recipes.load import load_recipe

    for override in overrides:
        if not override.startswith("quality."):
            raise RecipeError(f"--what-if: got {override!r}, allowed: quality.FIELD=VALUE, e.g. quality.rules.X=0.2")
    return load_recipe(run / "recipe.yaml", overrides).recipe.quality


def _explore(run: Path, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Drops by rule, and what the overrides change: {rules, what_if, kept, kept_before, more, fewer}."""
    from pipeline.quality import rules

    columns = rules.load(folder)
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


def _samples(run: Path, folder: Path, rule: str | None, sample: int) -> Iterator[dict[str, Any]]:
    """Dropped documents that fail a rule, with the `span` that fails it."""
    from pipeline.quality.rules import rules_for
    from pipeline.quality.spans import offending
    from recipes.explain import similar

    settings = _settings(run, [])
    shown, seen = 0, set()
    for document in _documents(folder / "dropped"):
        names = (document["failed_rules"] or "").split()
        seen |= set(names)
        if rule is None or rule not in names:
            continue
        rules = rules_for(settings, document.get("language") or "en")
        signal = rules[rule].signal if rule in rules else rule
        yield document | {"span": list(offending(document["text"], signal))}
        shown += 1
        if shown == sample:
            return
    if not shown:
        raise RecipeError(
            f"--rule: got {rule!r}, which drops nothing here; allowed: {', '.join(sorted(seen))}"
            f"{similar(rule or '', seen)}"
        )


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
            for row in table.to_pylist():
                yield {name: row[name] for name in _FIELDS if name in row}


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
    place = clean(document["url"] or document["path"], 120)
    console.print(f"  {document['id']}  {place}", style="cyan", soft_wrap=True)
    if document.get("rule"):
        console.print(f"    {_reason(document)}", soft_wrap=True)
    if text and document["text"]:
        console.print(f"    {clean(document['text'], _CHARACTERS)}", soft_wrap=True)


def _reason(document: dict[str, Any]) -> str:
    """`value 12, threshold 50` and the detail, as far as the rule has them."""
    parts = [f"{name} {document[name]:g}" for name in ("value", "threshold") if document[name] is not None]
    if document["detail"]:
        parts.append(clean(document["detail"], _CHARACTERS))
    return ", ".join(parts) or "no further detail"
