"""`pretrain ablate`: does a choice make the corpus better? Build each variant, train the same small model, compare.

    runs/<name>-ablation/
      <variant>/corpus, shards     a run folder; stages that an earlier variant built are linked, not rebuilt
      <variant>/seed-<n>/          a training run for each seed; all see the same number of tokens
      ablation.json  report.html   results: bits per byte on one held-out text, mean, spread, verdicts

The held-out text is the user's own and never passes through a variant's stages, so no variant's rules chose it; bits
per byte compare models whatever their tokenizers. Costs variants x seeds training runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recipes.build import Json, Overrides, RecipeFile
from recipes.errors import RecipeError


def ablate(
    recipe: RecipeFile,
    vary: Annotated[
        list[str],
        typer.Option(metavar="FIELD=A,B,...", help="Field and its values; repeatable: all combinations are built."),
    ],
    held_out: Annotated[
        list[Path], typer.Option(help="Text file, or JSON lines with `text`, to score every model on; repeatable.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Training runs of each variant; a verdict needs two or more.")] = 2,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Build variants of a corpus, train the same small model on each, and compare them on the same held-out text.

    Example: pretrain ablate recipes/ablation.yaml --vary quality.presets=gopher,c4,fineweb --held-out clean.jsonl
    """
    from pipeline.storage import write_json
    from recipes.ablating.measure import measure
    from recipes.ablating.page import sections, terminal_table
    from recipes.ablating.variants import list_variants
    from recipes.ablating.verdicts import verdicts
    from recipes.evaluate import read_texts
    from recipes.load import check_paths
    from recipes.report.page import render
    from recipes.terminal import messages, print_json, results

    texts = [text for path in held_out for text in read_texts(path, option="--held-out")]
    variants = list_variants(recipe, overrides or [], vary)
    for variant in variants:
        check_paths(variant.loaded)
        if variant.loaded.recipe.train is None:
            raise RecipeError(f"{recipe}: train: missing; an ablation trains a small model on each variant")
    place = variants[0].loaded.run.with_name(f"{variants[0].loaded.run.name}-ablation")
    rows = []
    for number, variant in enumerate(variants):
        messages().print(f"ablate: {variant.name} ({number + 1} of {len(variants)})", soft_wrap=True)
        rows.append(measure(variant, place, variants[:number], texts, seeds))
    size = sum(len(each.text.encode()) for each in texts)
    found: dict[str, Any] = {"held_out_bytes": size, "variants": rows, "verdicts": verdicts(rows)}
    write_json(place / "ablation.json", found)
    (place / "report.html").write_text(render(f"{place.name}: variants compared", [], sections(found)), "utf-8")
    if as_json:
        print_json(found)
        return
    results().print(terminal_table(found))
    for verdict in found["verdicts"]:
        results().print(verdict["says"], soft_wrap=True)
    results().print(f"report: {place / 'report.html'}", soft_wrap=True)
