"""The commands `quality-model ...`: classifiers that the quality stage scores documents with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recipes.build import Json

app = typer.Typer(no_args_is_help=True, help="Train classifiers for the quality stage.")
Files = list[Path]


@app.callback()
def group() -> None:
    """Train classifiers for the quality stage."""


@app.command()
def train(
    positive: Annotated[Files, typer.Option(help="Good documents: jsonl, parquet or txt; repeatable.", exists=True)],
    negative: Annotated[Files, typer.Option(help="Ordinary documents; repeatable.", exists=True)],
    output: Annotated[Path, typer.Option(help="Model file to write.")] = Path("quality.bin"),
    seed: Annotated[int, typer.Option(min=0, help="Seed; the same one gives the same model.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the documents.")] = 5,
    ngram: Annotated[int, typer.Option(min=1, help="Longest word n-gram.")] = 2,
    held_out: Annotated[float, typer.Option(min=0.01, max=0.9, help="Share of documents to judge the model by.")] = 0.1,
    as_json: Json = False,
) -> None:
    """Train a fastText model that tells good documents from ordinary ones, and say how well it does.

    Example: pretrain quality-model train --positive good.jsonl.gz --negative web.jsonl.gz --output quality.bin

    Then in a recipe: quality: {models: {edu: {path: quality.bin, keep: 0.1}}}
    """
    from pipeline.quality.classifier import train as train_model
    from recipes.terminal import make_table, print_json, results

    report = train_model(positive, negative, output, seed=seed, epochs=epochs, ngram=ngram, held_out=held_out)
    if as_json:
        names = ("from", "to", "documents", "mean_score", "share_positive")
        calibration = [dict(zip(names, row, strict=True)) for row in report.calibration]
        counts = {"trained": report.trained, "held_out": report.tested, "auc": report.auc}
        print_json({"model": str(output), **counts, "calibration": calibration})
        return
    typer.echo(f"{output}: trained on {report.trained:,} documents, held out {report.tested:,}: AUC {report.auc:.4f}")
    table = make_table("score", "documents", "mean score", "share positive")
    for low, high, documents, mean, share in report.calibration:
        table.add_row(f"{low:.1f} to {high:.1f}", f"{documents:,}", f"{mean:.3f}", f"{share:.3f}")
    results().print(table)
