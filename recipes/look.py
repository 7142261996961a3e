"""The commands around a run: `check`, `schema`, `harvest`, `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recipes.build import Overrides, RecipeFile

RunFolder = Annotated[Path, typer.Argument(help="Run folder, e.g. runs/demo.", show_default=False)]


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


def generate(
    run: RunFolder,
    prompt: Annotated[list[str], typer.Option(help="Text to continue; repeatable.", show_default=False)],
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to add, at most.")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Choose among this many tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random choices.")] = 1,
) -> None:
    """Continue prompts with a run's newest checkpoint.

    Example: pretrain generate runs/demo --prompt "This function returns" --tokens 50
    """
    from recipes.terminal import printable, results
    from trainer.generate import Sampling
    from trainer.generate import generate as continue_prompts

    folder = run / "train" if (run / "train").is_dir() else run
    sampling = Sampling(max_tokens=tokens, temperature=temperature, top_k=top_k, seed=seed)
    for completion in continue_prompts(folder, prompt, sampling, device="auto"):
        results().print(printable(completion.prompt + completion.text), soft_wrap=True)
