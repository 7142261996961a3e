"""The commands `quality-model ...`: classifiers that the quality stage scores documents with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
) -> None:
    """Train a fastText model that tells good documents from ordinary ones, and say how well it does.

    Example: pretrain quality-model train --positive good.jsonl.gz --negative web.jsonl.gz --output quality.bin

    Then in a recipe: quality: {models: {edu: {path: quality.bin, keep: 0.1}}}
    """
    from pipeline.quality.classifier import train as train_model

    report = train_model(positive, negative, output, seed=seed, epochs=epochs, ngram=ngram, held_out=held_out)
    typer.echo(f"{output}: trained on {report.trained:,} documents, held out {report.tested:,}: AUC {report.auc:.4f}")
    typer.echo("\nscore        documents  mean score  share positive")
    for low, high, documents, mean, share in report.calibration:
        typer.echo(f"{low:.1f} to {high:.1f} {documents:>12,} {mean:>11.3f} {share:>15.3f}")
