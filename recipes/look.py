"""The commands around a run: `check`, `schema`, `harvest`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from recipes.build import Json, Overrides, RecipeFile
from recipes.errors import RecipeError
from recipes.terminal import print_json

RunFolder = Annotated[Path, typer.Argument(help="Run folder, e.g. runs/demo.", show_default=False)]


def check(recipe: RecipeFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Validate a recipe and say everything that is wrong with it, without running anything.

    Example: pretrain check recipes/demo.yaml --set train.steps=100
    """
    from recipes.load import check_paths, load_recipe

    loaded = load_recipe(recipe, overrides or ())
    check_paths(loaded)
    if as_json:
        print_json({"recipe": str(recipe), "run": str(loaded.run), "resolved": loaded.recipe.model_dump(mode="json")})
        return
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
    as_json: Json = False,
) -> None:
    """Render the documentation installed on this machine as web pages in WARC files, to try recipes on.

    Example: pretrain harvest data/harvest --limit-mb 30
    """
    from pipeline.harvest import harvest as write_pages

    if output.is_file():
        raise RecipeError(f"{output}: this is a file; give a folder for the WARC files")
    report = write_pages(output, limit_bytes=None if limit_mb is None else limit_mb * 1_000_000)
    if as_json:
        print_json({"output": str(output), **asdict(report)})
        return
    typer.echo(
        f"{output}: {report.pages:,} pages of {report.packages:,} packages in {report.files:,} WARC files"
        f" ({report.html_bytes / 1e6:.1f} MB of HTML)"
    )
