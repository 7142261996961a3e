"""The model card (README.md of a Hugging Face folder): the model, its corpus, its scores, its limits.

Every figure comes from the run's own files; sections without figures (a training folder alone has no corpus) are left
out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from huggingface_hub import ModelCardData

from trainer.trained import Trained


@dataclass(frozen=True)
class Corpus:
    """The card's part on the corpus. Rows are dictionaries as in the run's files.

    sources: {name, type, license}; funnel: {stage, documents_in, documents_kept, bytes_kept}; streams: manifest.json's
    entries by `<split>/<stream>`; languages: most documents first; recipe_sha256: of the resolved recipe.
    """

    sources: list[dict[str, Any]]
    funnel: list[dict[str, Any]]
    streams: dict[str, dict[str, Any]]
    languages: list[str]
    recipe_sha256: str


def model_card(trained: Trained, name: str, corpus: Corpus | None = None) -> str:
    """Markdown with the metadata block that the Hub reads."""
    languages = corpus.languages if corpus and corpus.languages else None
    data = ModelCardData(language=languages, library_name="transformers", pipeline_tag="text-generation")
    parts = [f"---\n{data.to_yaml()}\n---", f"# {name}", _summary(trained), _model(trained), _training(trained)]
    parts.append(_evaluation(trained.state.get("validation")))
    if corpus:
        parts += [_corpus(corpus), _sources(corpus)]
    parts.append(LIMITS)
    return "\n\n".join(part for part in parts if part) + "\n"


LIMITS = """## Limits

- A base model: it continues text. It was not trained to answer, to follow instructions or to refuse.
- It repeats what its corpus says, errors and prejudices included, and invents facts fluently.
- Languages and subjects that are rare in the corpus are modelled poorly; text beyond its context is not seen.
- Nothing here was evaluated for safety. Test it for what you mean to use it for."""


def table(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; the cells' own bars are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _summary(trained: Trained) -> str:
    kind = "Qwen3" if trained.shape.qk_norm else "Llama"
    millions = sum(prod(tensor.shape) for tensor in trained.weights.values()) / 1e6
    return (
        f"A base language model of {millions:,.1f} M parameters in {kind}'s architecture, made with `pretrain`. "
        "It continues text; it is not an assistant."
    )


def _model(trained: Trained) -> str:
    shape = trained.shape.model_dump()
    return "## Model\n\n" + table(["field", "value"], shape.items())


def _training(trained: Trained) -> str:
    state = trained.state
    settings = state["settings"]
    rows = [("steps", f"{state['step']:,}"), ("tokens", f"{state['tokens']:,}")]
    for field in ("optimizer.name", "schedule.name", "precision", "environment.device", "environment.torch"):
        value = settings.get(field, state["identity"].get(field))
        if value is not None:
            rows.append((field.removeprefix("environment."), str(value)))
    return "## Training\n\n" + table(["field", "value"], rows)


def _evaluation(validation: dict[str, Any] | None) -> str:
    if not validation:
        return ""
    rows = []
    for stream, scores in [*validation["streams"].items(), ("all", validation)]:
        numbers = (f"{scores.get(name, float('nan')):.3f}" for name in ("loss", "bits_per_byte"))
        rows.append((stream, *numbers, f"{scores['tokens']:,}"))
    header = ["held-out text", "loss (nats a token)", "bits per byte", "tokens"]
    return "## Evaluation\n\nOn documents held out by duplicate cluster:\n\n" + table(header, rows)


def _corpus(corpus: Corpus) -> str:
    rows = [
        (row["stage"], f"{row['documents_in']:,}", f"{row['documents_kept']:,}", f"{row['bytes_kept'] / 1e6:,.1f} MB")
        for row in corpus.funnel
    ]
    return (
        "## Corpus\n\n"
        + table(["stage", "documents in", "kept", "text kept"], rows)
        + f"\n\nSHA-256 of the resolved recipe: `{corpus.recipe_sha256}`."
    )


def _sources(corpus: Corpus) -> str:
    licenses = table(
        ["source", "type", "license"],
        [(source["name"], source["type"], source["license"] or "not stated") for source in corpus.sources],
    )
    tokens = table(
        ["shards", "documents", "tokens", "weight"],
        [
            (name, f"{row['documents']:,}", f"{row['tokens']:,}", f"{row['weight']:g}")
            for name, row in sorted(corpus.streams.items())
        ],
    )
    return f"### Sources and licenses\n\n{licenses}\n\n{tokens}"
