"""The commands that take a model out of a run and bring one in: `export` and `import`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.recipe import RunFolder
from common.errors import RecipeError

if TYPE_CHECKING:
    from trainer.export.card import Corpus


class Format(StrEnum):
    """What other programs read."""

    hf = "hf"
    gguf = "gguf"


class Dtype(StrEnum):
    """Types of the weights in a file."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


def export(
    run: RunFolder,
    format: Annotated[Format, typer.Option(help="Hugging Face folder, or a GGUF file for llama.cpp.")] = Format.hf,
    dtype: Annotated[Dtype | None, typer.Option(help="Type of the weights; default: f32 for hf, f16 for gguf.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where to; default: export/hf or export/model.gguf in the run folder.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a run's newest checkpoint for transformers, vLLM, llama.cpp, Ollama.

    Example: pretrain export runs/demo --format gguf --dtype q8_0
    """
    from cli.terminal import megabytes, messages, print_json
    from trainer.export.card import model_card
    from trainer.trained import load_trained

    trained = load_trained(train_folder(run))
    for warning in trained.warnings:
        messages().print(warning, soft_wrap=True)
    if format is Format.gguf:
        from trainer.export.gguf import export_gguf

        name = dtype or Dtype.f16
        place = export_gguf(trained, output or run / "export" / "model.gguf", dtype=name, name=run_name(run))
        files = [place, place.with_name("Modelfile")]
    else:
        from trainer.export.hf import export_hf

        name = dtype or Dtype(trained.state.get("imported", {}).get("dtype", "f32"))
        card = model_card(trained, run_name(run), read_corpus(run))
        place = export_hf(trained, output or run / "export" / "hf", dtype=name, card=card)
        files = sorted(place.iterdir())
    if json_output:
        written = {str(file): file.stat().st_size for file in files}
        print_json({"format": format.value, "dtype": name.value, "step": trained.step, "files": written})
        return
    size = megabytes(sum(file.stat().st_size for file in files))
    typer.echo(f"{place}: step {trained.step:,} as {name.value}, {size}")


def import_model(
    output: Annotated[Path, typer.Argument(help="Folder for the model.", show_default=False)],
    hf: Annotated[Path, typer.Option(help="Hugging Face folder on disk.", show_default=False)],
    json_output: Annotated[bool, typer.Option("--json", help="Print the model's shape as JSON.")] = False,
) -> None:
    """Take a Llama- or Qwen3-shaped Hugging Face model as a start: to train on, generate from, score, export.

    Train on it with `train.initial: FOLDER` in a recipe whose tokenizer is FOLDER/tokenizer.json.

    Example: pretrain import models/smol --hf downloads/SmolLM2-135M
    """
    from cli.terminal import print_json
    from trainer.export.hf import import_hf

    shape = import_hf(hf, output)
    if json_output:
        print_json(shape.model_dump())
        return
    kind = "Qwen3" if shape.qk_norm else "Llama"
    typer.echo(f"{output}: {kind}, {shape.layers} layers of width {shape.width}, vocabulary {shape.vocab_size:,}")


def train_folder(run: Path) -> Path:
    """The training folder of a run, or the folder itself where it is one. Raises RecipeError where it is none."""
    folder = run / "train" if (run / "train").is_dir() else run
    if not folder.is_dir():
        raise RecipeError(f"{run}: no such folder; give a run folder or a training folder")
    return folder


def run_name(run: Path) -> str:
    """A name for the model: the run's."""
    return run.resolve().name


def read_corpus(run: Path) -> Corpus | None:
    """What the model card says of the corpus, from the run folder's files; None for a bare training folder."""
    import hashlib

    import yaml

    from common.files import read_json, read_manifest
    from trainer.export.card import Corpus

    recipe, manifest = run / "recipe.yaml", read_manifest(run / "shards")
    if not recipe.is_file() or manifest is None:
        return None
    described: dict[str, Any] = yaml.safe_load(recipe.read_bytes())
    folders = [*sorted((run / "corpus").glob("[0-9][0-9]-*")), run / "shards"]
    return Corpus(
        sources=[
            {"name": source["name"], "type": source["type"], "license": source.get("license")}
            for source in described["sources"]
        ],
        funnel=[read_json(folder / "stats.json") for folder in folders],
        streams=manifest["streams"],
        languages=_languages(run / "shards" / "documents.parquet"),
        recipe_sha256=hashlib.sha256(recipe.read_bytes()).hexdigest(),
    )


def _languages(documents: Path) -> list[str]:
    """Languages of at least one document in a hundred, most first."""
    import pyarrow.parquet as pq

    from common.errors import PipelineError

    if not documents.is_file():
        raise PipelineError(f"{documents} is missing; build the shards again")
    counts = pq.read_table(documents, columns=["language"])["language"].value_counts().to_pylist()
    total = sum(entry["counts"] for entry in counts)
    kept = [entry for entry in counts if entry["counts"] * 100 >= total and entry["values"] not in (None, "und")]
    return [entry["values"] for entry in sorted(kept, key=lambda entry: (-entry["counts"], entry["values"]))]
