"""One variant of an ablation: build it, train the same small model on it with each seed, score all on the same text."""

from __future__ import annotations

import re
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.ablating.variants import Variant

if TYPE_CHECKING:
    from recipes.evaluate import Text


def measure(
    variant: Variant, place: Path, earlier: Sequence[Variant], texts: Sequence[Text], seeds: int
) -> dict[str, Any]:
    """Build a variant, train it with each seed, score it."""
    from pipeline.runner import build_corpus
    from pipeline.storage import read_json
    from recipes.funnel import CorpusView
    from recipes.load import resolved_yaml, training_config
    from recipes.terminal import messages
    from recipes.training import TrainingView
    from trainer.train import train

    recipe, run = variant.loaded.recipe, place / folder_name(variant.name)
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(resolved_yaml(variant.loaded, run), "utf-8")
    _link_stages(variant, run, [(other, place / folder_name(other.name)) for other in earlier])
    with CorpusView(messages()) as view:
        build_corpus(recipe, run, variant.loaded.base, observer=view)
    stats = read_json(run / "shards" / "stats.json")
    scores = []
    for seed in range(1, seeds + 1):
        config = training_config(variant.loaded).model_copy(update={"seed": seed, "prompts": []})
        with TrainingView(messages()) as training:
            outcome = train(config, run / "shards", run / f"seed-{seed}", training)
        scores.append(bits_per_byte(run / f"seed-{seed}", texts))
        messages().print(f"ablate: {variant.name}, seed {seed}: {scores[-1]:.4f} bits per byte", soft_wrap=True)
    tokens = sum(entry["tokens"] for name, entry in stats["streams"].items() if name.startswith("train/"))
    return {
        "variant": variant.name,
        "documents": stats["documents_kept"],
        "tokens": tokens,
        "epochs": outcome.tokens / tokens,
        "bits_per_byte": scores,
        "mean": statistics.fmean(scores),
        "spread": statistics.stdev(scores) if seeds > 1 else None,
    }


def bits_per_byte(train_dir: Path, texts: Sequence[Text]) -> float:
    """Bits that the newest checkpoint needs per UTF-8 byte of the texts."""
    from trainer.generate import load_model, load_tokenizer
    from trainer.score import score, text_batches

    model, meta = load_model(train_dir, "auto")
    codec, masked = load_tokenizer(train_dir, meta), bool(meta["settings"].get("document_mask", True))
    pairs = ((each.name, each.text) for each in texts)
    tally = score(model, text_batches(pairs, codec, meta["eos_id"], model.config.context, masked=masked))
    return float(tally.scores()["bits_per_byte"])


def folder_name(name: str) -> str:
    """A variant's folder: its name without what a path or a glob would misread."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", name).strip("-")


def _link_stages(variant: Variant, run: Path, earlier: Sequence[tuple[Variant, Path]]) -> None:
    """Hard-link the stages whose settings and predecessors an earlier variant shares; the fingerprints decide.

    Published files are never written again, so a link is as good as a copy; what does not fit is rebuilt.
    """
    stages = variant.loaded.recipe.stages
    for number, stage in enumerate(stages):
        name = "shards" if stage == "tokenize" else f"corpus/{number + 1:02d}-{stage}"
        for other, folder in earlier:
            shared = _prefix(variant, number) == _prefix(other, number)
            if shared and (folder / name).is_dir() and not (run / name).exists():
                shutil.copytree(folder / name, run / name, copy_function=_link)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _prefix(variant: Variant, number: int) -> list[Any]:
    """Everything of a recipe that stages up to `number` depend on."""
    recipe = variant.loaded.recipe
    return [recipe.seed, recipe.sources, *((stage, getattr(recipe, stage)) for stage in recipe.stages[: number + 1])]
