"""Commands around recipes: `harvest`, `shards verify | show | from-jsonl`, `quality-model train`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.options import Result
from cli.terminal import CorpusView, clean, funnel_table, make_table, megabytes, printable
from common.errors import PipelineError, RecipeError
from common.runfolder import RunFolder

Shards = Annotated[Path, typer.Argument(help="Shards folder, e.g. runs/demo/shards.", show_default=False)]


def harvest(
    output: Annotated[Path, typer.Argument(help="Folder for the WARC files.", show_default=False)],
    limit_mb: Annotated[int | None, typer.Option(min=1, help="Stop after this many MB of HTML.")] = None,
) -> Result:
    """Render the documentation installed on this machine as web pages in WARC files, to try recipes on.

    Example: pretrain harvest data/harvest --limit-mb 30
    """
    from data.harvest import harvest as write_pages

    if output.is_file():
        raise RecipeError(f"{output}: this is a file; give a folder for the WARC files")
    report = write_pages(output, limit_bytes=None if limit_mb is None else limit_mb * 1_000_000)
    line = (
        f"{output}: {report.pages:,} pages of {report.packages:,} packages in {report.files:,} WARC files"
        f" ({report.html_bytes / 1e6:.1f} MB of HTML)"
    )
    return Result({"output": str(output), **asdict(report)}, line)


def verify_shards(folder: Shards) -> Result:
    """Check every hash, decode every sample, and compare all counts.

    Example: pretrain shards verify runs/demo/shards
    """
    from pipeline.tokenize.verify import verify

    report = verify(folder)
    value = {"shards": str(folder), **asdict(report)}
    if count := len(report.problems):
        summary = f"{folder}: {count} problem{'s' if count > 1 else ''}; build or copy the shards again"
        return Result(value, error=PipelineError("\n".join([*report.problems, summary])))
    line = (
        f"{folder}: {report.files:,} files ({megabytes(report.bytes)}), {report.samples:,} samples,"
        f" {report.tokens:,} tokens: all as written"
    )
    return Result(value, line)


def show_sample(
    folder: Shards,
    sample: Annotated[int, typer.Option(min=0, help="Number of the sample within its stream.")] = 0,
    stream: Annotated[str | None, typer.Option(help="Stream, e.g. train/web; default: the first one.")] = None,
) -> Result:
    """Print a sample as text, with the boundaries and addresses of its documents.

    Example: pretrain shards show runs/demo/shards --sample 12
    """
    from rich.text import Text

    from pipeline.tokenize.verify import show

    name, parts, padding = show(folder, stream, sample)
    lines = [Text(f"{name}, sample {sample}: {len(parts)} documents, {padding} padding tokens", "bold")]
    for part in parts:
        extent = "complete" if part.whole else "in part"
        span = f"[{part.offset}, {part.offset + part.tokens})"
        address = clean(part.url or part.source, 120)
        lines += [Text(f"\n{span} {part.id} {part.language} {extent}  {address}", "cyan"), Text(printable(part.text))]
    documents = [asdict(part) for part in parts]
    return Result({"stream": name, "sample": sample, "documents": documents, "padding": padding}, *lines)


def make_shards(
    inputs: Annotated[list[str], typer.Argument(help="JSON-lines files or globs, also .gz and .zst.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder to write; the shards are OUTPUT/shards.")],
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer.json; default: train one on the texts.")] = None,
    vocab_size: Annotated[int, typer.Option(help="Vocabulary size of the tokenizer that is trained.")] = 32_000,
    sequence_length: Annotated[int, typer.Option(help="Tokens that a training sequence predicts.")] = 1024,
    packing: Annotated[str, typer.Option(help="How documents fill sequences: concat or best_fit.")] = "concat",
    validation: Annotated[float, typer.Option(help="Share of documents held out for validation.")] = 0.01,
    text_key: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    workers: Annotated[int | None, typer.Option(help="Number of processes; default: the machine's cores.")] = None,
) -> Result:
    """Make shards of a clean corpus: no filters, only tokenization and packing.

    Example: pretrain shards from-jsonl 'corpus/*.jsonl.gz' --output my-corpus --vocab-size 32000
    """
    from pydantic import ValidationError

    from pipeline.build import build_corpus
    from pipeline.config import CorpusConfig

    settings = {
        "name": "text",
        "sources": [{"name": "text", "type": "jsonl", "paths": inputs, "text_key": text_key}],
        "stages": ["extract", "tokenize"],
        "extract": {"extractor": "none"},
        "tokenize": {"sequence_length": sequence_length, "packing": packing, "validation": validation}
        | {"tokenizer": {"path": str(tokenizer.absolute())} if tokenizer else {"vocab_size": vocab_size}},
        "executor": {"workers": workers},
    }
    try:
        config = CorpusConfig.model_validate(settings)
    except ValidationError as error:
        raise RecipeError([f"--{e['loc'][-1]}: {e['msg']}, got {e['input']!r}" for e in error.errors()]) from error
    with CorpusView() as view:
        build_corpus(config, output, Path(), observer=view)
    shards = RunFolder(output).shards
    value = {"shards": str(shards), "stages": view.stats}
    return Result(value, funnel_table(view.stats, view.seconds), f"{shards}: pretrain train --shards {shards}")


def train_quality_model(
    positive: Annotated[
        list[Path], typer.Option(help="Good documents: jsonl, parquet or txt; repeatable.", exists=True)
    ],
    negative: Annotated[list[Path], typer.Option(help="Ordinary documents; repeatable.", exists=True)],
    output: Annotated[Path, typer.Option(help="Model file to write.")] = Path("quality.bin"),
    seed: Annotated[int, typer.Option(min=0, help="Seed; the same seed gives the same model.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the documents.")] = 5,
    ngram: Annotated[int, typer.Option(min=1, help="Longest word n-gram.")] = 2,
    held_out: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of documents held out to measure the model.")
    ] = 0.1,
) -> Result:
    """Train a fastText model that tells good documents from ordinary ones, and measure it.

    Example: pretrain quality-model train --positive good.jsonl.gz --negative web.jsonl.gz --output quality.bin

    Then in a recipe: quality: {models: {edu: {path: quality.bin, keep: 0.1}}}
    """
    from pipeline.quality.classifier import train

    report = train(positive, negative, output, seed=seed, epochs=epochs, ngram=ngram, held_out=held_out)
    names = ("from", "to", "documents", "mean_score", "share_positive")
    calibration = [dict(zip(names, row, strict=True)) for row in report.calibration]
    counts = {"trained": report.trained, "held_out": report.tested, "auc": report.auc}
    table = make_table("score", "documents", "mean score", "share positive")
    for low, high, documents, mean, share in report.calibration:
        table.add_row(f"{low:.1f} to {high:.1f}", f"{documents:,}", f"{mean:.3f}", f"{share:.3f}")
    line = f"{output}: trained on {report.trained:,} documents, held out {report.tested:,}: AUC {report.auc:.4f}"
    return Result({"model": str(output), **counts, "calibration": calibration}, line, table)
