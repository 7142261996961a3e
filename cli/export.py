"""`export`, a run's model or corpus for other programs, and `import`, a Hugging Face model to start from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.contents import read_recipe
from cli.options import End, Result, Run, Step, TokenizerFile
from cli.terminal import megabytes, messages
from common.errors import PipelineError
from common.files import sha256
from common.runfolder import RunFolder

if TYPE_CHECKING:
    from trainer.export.card import Corpus


class Format(StrEnum):
    hf = "hf"
    gguf = "gguf"
    dataset = "dataset"


class Dtype(StrEnum):
    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


def export(
    run: Run,
    format: Annotated[
        Format, typer.Option(help="Hugging Face folder, GGUF file, or the corpus as a data set.")
    ] = Format.hf,
    dtype: Annotated[Dtype | None, typer.Option(help="Type of the weights; default: f32 for hf, f16 for gguf.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where to write; default: export/hf or export/model.gguf in the run folder.")
    ] = None,
    step: Step = None,
    tokenizer: TokenizerFile = None,
    eos: End = None,
) -> Result:
    """Write a run's model for transformers, vLLM, llama.cpp, Ollama; or its corpus as a data set for the Hub.

    Example: pretrain export runs/demo --format gguf --dtype q8_0

    Example: pretrain export runs/demo --format dataset
    """
    if format is Format.dataset:
        return _export_corpus(run, output or run.exported[format.value])
    from trainer.export.card import model_card
    from trainer.trained import load_trained

    trained = load_trained(run.trained, tokenizer, step, eos)
    for warning in trained.warnings:
        messages().print(warning, soft_wrap=True)
    output = output or run.exported[format.value]
    if format is Format.gguf:
        from trainer.export.gguf import export_gguf

        weights = dtype or Dtype.f16
        written = export_gguf(trained, output, dtype=weights, name=run.name)
        files = [written, written.with_name("Modelfile")]
    else:
        from trainer.export.hf import export_hf

        weights = dtype or Dtype(trained.state.get("imported", {}).get("dtype", "f32"))
        written = export_hf(trained, output, dtype=weights, card=model_card(trained, run.name, _read_corpus(run)))
        files = sorted(written.iterdir())
    sizes = {str(file): file.stat().st_size for file in files}
    value = {"format": format.value, "dtype": weights.value, "step": trained.step, "files": sizes}
    return Result(value, f"{written}: step {trained.step:,} as {weights.value}, {megabytes(sum(sizes.values()))}")


def _export_corpus(run: RunFolder, output: Path) -> Result:
    """The documents of the last stage with texts, and how they were made."""
    from pipeline.publish import read_dataset, write_dataset

    manifest = read_dataset(write_dataset(run, output, read_recipe(run).get("sources", [])))
    size = sum(of["bytes"] for of in manifest["files"].values())
    value = {"format": "dataset", "documents": manifest["documents"], "files": manifest["files"]}
    return Result(value, f"{output}: {manifest['documents']:,} documents, {megabytes(size)}")


def import_model(
    output: Annotated[Path, typer.Argument(help="Folder for the model.", show_default=False)],
    hf: Annotated[Path, typer.Option(help="Hugging Face folder on disk.", show_default=False)],
) -> Result:
    """Import a Hugging Face model (Llama, Mistral, Qwen2, Qwen3), to train on, generate from, score or export.

    Train on it with `train.initial: FOLDER` in a recipe whose tokenizer is FOLDER/tokenizer.json.

    Example: pretrain import models/smol --hf downloads/SmolLM2-135M
    """
    from trainer.export.hf import import_hf

    shape = import_hf(hf, output)
    kind = "Qwen3" if shape.qk_norm else "Llama"
    line = f"{output}: {kind}, {shape.layers} layers of width {shape.width}, vocabulary {shape.vocab_size:,}"
    return Result(shape.model_dump(), line)


def _read_corpus(run: RunFolder) -> Corpus | None:
    """The corpus as the model card describes it; None for a training folder alone."""
    from trainer.export.card import Corpus

    if not run.recipe.is_file() or "tokenize" not in run.stages:
        return None
    return Corpus(
        sources=[
            {"name": source["name"], "type": source["type"], "license": source.get("license")}
            for source in read_recipe(run)["sources"]
        ],
        funnel=[stage.stats for stage in run.stages.values()],
        streams=run.stages["tokenize"].manifest["streams"],
        languages=_languages(run.documents),
        recipe_sha256=sha256(run.recipe),
    )


def _languages(documents: Path) -> list[str]:
    """Languages of at least one document in a hundred, most frequent first."""
    import pyarrow.parquet as pq

    if not documents.is_file():
        raise PipelineError(f"{documents} is missing; build the shards again")
    counts = pq.read_table(documents, columns=["language"])["language"].value_counts().to_pylist()
    total = sum(entry["counts"] for entry in counts)
    kept = [entry for entry in counts if entry["counts"] * 100 >= total and entry["values"] not in (None, "und")]
    return [entry["values"] for entry in sorted(kept, key=lambda entry: (-entry["counts"], entry["values"]))]
