"""The commands `pretrain shards verify | show | from-jsonl`.

The commands `quality-model ...`: classifiers that the quality stage scores documents with.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.run import Json

Folder = Annotated[Path, typer.Argument(help="Shards folder, e.g. runs/demo/shards.", show_default=False)]

app = typer.Typer(name="shards", no_args_is_help=True, help="Check shards, look into them, or make them of your text.")


@app.command()
def verify(folder: Folder, as_json: Json = False) -> None:
    """Check every hash, decode every sample, and compare all counts.

    Example: pretrain shards verify runs/demo/shards
    """
    from cli.terminal import errors, megabytes, print_json
    from common.errors import PipelineError
    from pipeline.tokenize.verify import verify as check

    report = check(folder)
    if as_json:
        print_json({"shards": str(folder), **asdict(report)})
    for problem in report.problems:
        errors().print(problem, style="red", soft_wrap=True)
    if report.problems:
        count = len(report.problems)
        raise PipelineError(f"{folder}: {count} problem{'s' if count > 1 else ''}; build or copy the shards again")
    if not as_json:
        typer.echo(
            f"{folder}: {report.files:,} files ({megabytes(report.bytes)}), {report.samples:,} samples,"
            f" {report.tokens:,} tokens: all as written"
        )


@app.command()
def show(
    folder: Folder,
    sample: Annotated[int, typer.Option(min=0, help="Number of the sample within its stream.")] = 0,
    stream: Annotated[str | None, typer.Option(help="Stream, e.g. train/web; default: the first one.")] = None,
    as_json: Json = False,
) -> None:
    """Print a sample as text, with the boundaries and addresses of its documents.

    Example: pretrain shards show runs/demo/shards --sample 12
    """
    from cli.terminal import clean, print_json, printable, results
    from pipeline.tokenize.verify import show as read

    name, parts, padding = read(folder, stream, sample)
    if as_json:
        documents = [asdict(part) for part in parts]
        print_json({"stream": name, "sample": sample, "documents": documents, "padding": padding})
        return
    console = results()
    console.print(f"{name}, sample {sample}: {len(parts)} documents, {padding} places of padding", style="bold")
    for part in parts:
        place = clean(part.url or part.source, 120)
        extent = "whole" if part.whole else "a piece"
        console.print(
            f"\n[{part.offset}, {part.offset + part.tokens}) {part.id} {part.language} {extent}  {place}",
            style="cyan",
            soft_wrap=True,
        )
        console.print(printable(part.text), soft_wrap=True)


@app.command("from-jsonl")
def from_jsonl(
    inputs: Annotated[list[str], typer.Argument(help="JSON-lines files or globs (.gz and .zst too).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the result; shards lie in OUTPUT/shards.")],
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer.json; default: one is trained.")] = None,
    vocab_size: Annotated[int, typer.Option(help="Vocabulary of the tokenizer that is trained.")] = 32_000,
    sequence_length: Annotated[int, typer.Option(help="Tokens that a training sequence predicts.")] = 1024,
    packing: Annotated[str, typer.Option(help="concat or best_fit.")] = "concat",
    validation: Annotated[float, typer.Option(help="Share of documents held out.")] = 0.01,
    text_key: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    workers: Annotated[int | None, typer.Option(help="Processes; default: the machine's cores.")] = None,
    as_json: Json = False,
) -> None:
    """Make shards of a clean corpus: no filters, only tokenization and packing.

    Example: pretrain shards from-jsonl 'corpus/*.jsonl.gz' --output my-corpus --vocab-size 32000
    """
    from pydantic import ValidationError

    from cli.terminal import CorpusView, funnel_table, messages, print_json, tables
    from common.errors import RecipeError
    from pipeline.build import build_corpus
    from pipeline.config import CorpusConfig

    source = {"name": "text", "type": "jsonl", "paths": inputs, "text_key": text_key}
    choice = {"path": str(tokenizer.absolute())} if tokenizer else {"vocab_size": vocab_size}
    tokenize = {"tokenizer": choice, "sequence_length": sequence_length, "packing": packing, "validation": validation}
    try:
        config = CorpusConfig.model_validate(
            {
                "name": "text",
                "sources": [source],
                "stages": ["extract", "tokenize"],
                "extract": {"extractor": "none"},
                "tokenize": tokenize,
                "executor": {"workers": workers},
            }
        )
    except ValidationError as error:
        raise RecipeError([f"--{e['loc'][-1]}: {e['msg']}, got {e['input']!r}" for e in error.errors()]) from error
    with CorpusView(messages()) as view:
        build_corpus(config, output, Path(), observer=view)
    if as_json:
        print_json({"shards": str(output / "shards"), "stages": view.stats})
        return
    tables().print(funnel_table(view.stats, view.seconds))
    typer.echo(f"{output / 'shards'}: pretrain train --shards {output / 'shards'}")


app_quality_model = typer.Typer(no_args_is_help=True, help="Train classifiers for the quality stage.")
Files = list[Path]


@app_quality_model.callback()
def group() -> None:
    """Train classifiers for the quality stage."""


@app_quality_model.command()
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
    from cli.terminal import make_table, print_json, results
    from pipeline.quality.classifier import train as train_model

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
