"""The commands around a run: `check`, `schema`, `harvest`, `inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recipes.build import Overrides, RecipeFile
from recipes.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

RunFolder = Annotated[Path, typer.Argument(help="Run folder, e.g. runs/demo.", show_default=False)]
_CHARACTERS = 200


def check(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Validate a recipe and say everything that is wrong with it, without running anything.

    Example: pretrain check recipes/demo.yaml --set train.steps=100
    """
    from recipes.load import check_paths, load_recipe

    loaded = load_recipe(recipe, overrides or ())
    check_paths(loaded)
    train = loaded.recipe.train
    training = f"; trains `{train.preset}` for {train.steps:,} steps" if train else "; corpus only"
    typer.echo(f"{recipe}: valid; {' > '.join(loaded.recipe.stages)}{training}; run folder {loaded.run}")


def schema() -> None:
    """Print the JSON Schema of recipes, from which editors complete and check them.

    Example: pretrain schema > recipe.schema.json

    Then put this first in a recipe: # yaml-language-server: $schema=recipe.schema.json
    """
    import json

    from recipes.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def harvest(
    output: Annotated[Path, typer.Argument(help="Folder for the WARC files.", show_default=False)],
    limit_mb: Annotated[int | None, typer.Option(min=1, help="Stop after this many MB of HTML.")] = None,
) -> None:
    """Render the documentation installed on this machine as web pages in WARC files, to try recipes on.

    Example: pretrain harvest data/harvest --limit-mb 30
    """
    from pipeline.harvest import harvest as write_pages

    report = write_pages(output, limit_bytes=None if limit_mb is None else limit_mb * 1_000_000)
    typer.echo(
        f"{output}: {report.pages:,} pages of {report.packages:,} packages in {report.files:,} WARC files"
        f" ({report.html_bytes / 1e6:.1f} MB of HTML)"
    )


def inspect(
    run: RunFolder,
    stage: Annotated[str, typer.Option(help="Stage to look into, e.g. quality.", show_default=False)],
    dropped: Annotated[bool, typer.Option("--dropped", help="What the stage dropped, by rule.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Documents shown, for each rule.")] = 3,
) -> None:
    """Show documents that a stage kept, or dropped and why.

    Example: pretrain inspect runs/demo --stage quality --dropped --limit 5
    """
    from pipeline.storage import read_json
    from recipes.terminal import results

    folder = _stage_folder(run, stage)
    console = results()
    stats = read_json(folder / "stats.json")
    if not dropped:
        console.print(f"{stage}: {stats['documents_kept']:,} of {stats['documents_in']:,} documents kept")
        for number, document in enumerate(_documents(folder / "data")):
            if number == limit:
                break
            _show(console, document)
        return
    console.print(f"{stage}: {stats['documents_dropped']:,} of {stats['documents_in']:,} documents dropped")
    examples = _dropped(folder / "dropped", stats["dropped"], limit)
    for rule, count in sorted(stats["dropped"].items(), key=lambda item: (-item[1], item[0])):
        console.print(f"\n{rule}: {count:,}", style="bold")
        for document in examples[rule]:
            _show(console, document)


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


def _show(console: Console, document: dict[str, Any]) -> None:
    from recipes.terminal import clean

    place = clean(document["url"] or document["path"], 120)
    console.print(f"  {document['id']}  {place}", style="cyan", soft_wrap=True)
    if document.get("rule"):
        console.print(f"    {_reason(document)}", soft_wrap=True)
    if document["text"]:
        console.print(f"    {clean(document['text'], _CHARACTERS)}", soft_wrap=True)


def _reason(document: dict[str, Any]) -> str:
    """`value 12, threshold 50` and the detail, as far as the rule has them."""
    from recipes.terminal import clean

    parts = [f"{name} {document[name]:g}" for name in ("value", "threshold") if document[name] is not None]
    if document["detail"]:
        parts.append(clean(document["detail"], _CHARACTERS))
    return ", ".join(parts) or "no further detail"
