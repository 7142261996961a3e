"""`eval`, scores of a run's model on text, and `generate`, continuations of prompts.

`eval` measures bits per byte and loss by source and language, on the held-out shards and on files of the user's, at one
or several checkpoints; how much the model gains from its context; which of the files' documents are in the corpus; and
lm-eval tasks on the exported model. Costs a forward pass over each text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.contents import Text, read_texts
from cli.options import End, Result, Run, Step, TokenizerFile
from cli.terminal import bits_per_byte, choices, make_table, messages, printable, score_cells
from common.errors import RecipeError

if TYPE_CHECKING:
    from rich.table import Table

    from trainer.score import Tally
    from trainer.shards import Shards


def evaluate(
    run: Run,
    text: Annotated[list[Path] | None, typer.Option(help="A jsonl(.gz) or txt file to score; repeatable.")] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(metavar="N|best|last", help="Checkpoint to score; repeatable; default: the last."),
    ] = None,
    all_steps: Annotated[bool, typer.Option("--all-steps", help="Score every checkpoint that is kept.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score at most this many samples of each stream, file and task.")
    ] = None,
    lm_eval: Annotated[
        str | None, typer.Option(metavar="TASKS", help="lm-eval tasks or their YAML files, comma-separated.")
    ] = None,
    tokenizer: TokenizerFile = None,
    eos: End = None,
) -> Result:
    """Score a run's model: loss, bits per byte, in-context learning, contamination, lm-eval tasks.

    Fields `source` and `language` (or `lang`) of a jsonl file group its documents.

    Example: pretrain eval runs/demo --text mine.jsonl --all-steps --json
    """
    from trainer.checkpoint import list_checkpoints
    from trainer.shards import open_as_trained

    folder = run.trained
    texts = [document for file in text or () for document in read_texts(file, limit)]
    shards = open_as_trained(run.shards, folder / "shards-cache", run.state) if run.shards.is_dir() else None
    if not (texts or shards or lm_eval):
        raise RecipeError(f"{run.path} has no shards; give --text FILE or --lm-eval TASKS")
    steps: list[Any] = list(dict.fromkeys(step or ())) or [None]
    if all_steps:
        steps = [number for number, _ in list_checkpoints(folder / "checkpoints")]
    scored = [_score(folder, number, shards, texts, limit, tokenizer, eos) for number in steps]
    checkpoints = sorted({each["step"]: each for each in scored}.values(), key=lambda each: int(each["step"]))
    report: dict[str, Any] = {"checkpoints": checkpoints}
    if shards and texts:
        report["contamination"] = _contamination(tokenizer or folder / "tokenizer.json", shards, texts)
    if lm_eval:
        from trainer.export.harness import run_tasks
        from trainer.trained import load_trained

        report["lm_eval"] = run_tasks(load_trained(folder, tokenizer, steps[-1], eos), lm_eval.split(","), limit=limit)
    for warning in checkpoints[-1]["warnings"]:
        messages().print(warning, soft_wrap=True)
    return Result(report, *_tables(report))


def _score(
    folder: Path, step: int | str | None, shards: Shards | None, texts: list[Text], limit: int | None,
    tokenizer: Path | None, eos: str | None,
) -> dict[str, Any]:  # fmt: skip
    """Scores of one checkpoint: {step, tokens, warnings, sets: {held-out or file: scores}}."""
    from trainer.score import score, shard_batches, text_batches
    from trainer.trained import load_model, load_tokenizer

    model, meta = load_model(folder, "auto", step)
    masked = bool(meta["settings"].get("document_mask", True))
    sets: dict[str, Any] = {}
    if shards and shards.validation:
        tally = score(model, shard_batches(shards, masked=masked and shards.has_documents, limit=limit))
        rows = shards.documents(["id", "source", "language"], "split", {"validation"})
        sets["held-out"] = grouped(tally, {row["id"]: (row["source"], row["language"] or "und") for row in rows})
    if texts:
        codec, special = load_tokenizer(folder, meta, tokenizer, eos)
        for file in dict.fromkeys(document.name.rpartition(":")[0] for document in texts):
            mine = [document for document in texts if document.name.rpartition(":")[0] == file]
            pairs = ((document.name, document.text) for document in mine)
            tally = score(model, text_batches(pairs, codec, special, model.config.context, masked=masked))
            sets[file] = grouped(tally, {each.name: (each.source, each.language) for each in mine})
    return {"step": meta["step"], "tokens": meta["tokens"], "warnings": meta["warnings"], "sets": sets}


def grouped(tally: Tally, groups: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """A tally's scores over all documents, by source and by language."""
    from trainer.score import Sums

    sums: dict[str, dict[str, Sums]] = {"sources": {}, "languages": {}}
    for key, each in tally.documents.items():
        for kind, name in zip(sums, groups.get(key, (key, "und")), strict=True):
            total = sums[kind].setdefault(name, Sums())
            total += each
    scores = tally.scores()
    return scores | {
        kind: {name: total.scores() for name, total in sorted(named.items())} for kind, named in sums.items()
    }


def _contamination(tokenizer: Path, shards: Shards, texts: list[Text]) -> dict[str, Any]:
    """Texts that share NGRAM tokens in a row with a training sample, by share of their tokens, largest first."""
    import numpy as np

    from trainer.score import NGRAM, find_overlaps
    from trainer.vocabulary import load_codec

    codec = load_codec(tokenizer)
    codec.encode_special_tokens = True
    encoded = codec.encode_batch_fast([document.text for document in texts], add_special_tokens=False)
    named = zip([document.name for document in texts], (np.array(each.ids, np.int64) for each in encoded), strict=True)
    overlaps = find_overlaps(shards, named)
    seen = sorted((each for each in overlaps if each.seen), key=lambda each: (-each.seen / each.tokens, each.name))
    return {
        "ngram": NGRAM,
        "documents": len(overlaps),
        "documents_seen": len(seen),
        "documents_too_short": sum(each.tokens < NGRAM for each in overlaps),
        "tokens_seen": sum(each.seen for each in seen) / max(1, sum(each.tokens for each in overlaps)),
        "worst": [
            {"document": each.name, "share": each.seen / each.tokens, "sample": list(each.sample or ())}
            for each in seen[:10]
        ],
    }


def _tables(report: dict[str, Any]) -> Iterator[Table]:
    """The newest checkpoint in detail, and one line a checkpoint where there are several."""
    checkpoints = report["checkpoints"]
    if len(checkpoints) > 1:
        curve = make_table("step", "tokens", *(f"{name}: bits per byte" for name in checkpoints[0]["sets"]))
        for entry in checkpoints:
            bits = [bits_per_byte(scores) for scores in entry["sets"].values()]
            curve.add_row(f"{entry['step']:,}", f"{entry['tokens']:,}", *bits)
        yield curve
    last = checkpoints[-1]
    for name, scores in last["sets"].items():
        detail = make_table(f"{name}, step {last['step']:,}", "loss", "bits per byte", "tokens")
        for kind in ("sources", "languages"):
            for group, each in scores[kind].items():
                detail.add_row(group, *score_cells(each))
            detail.add_section()
        detail.add_row("all", *score_cells(scores))
        context = scores["in_context"]
        if context["score"] is not None:
            detail.add_row(f"in-context learning ({context['documents']:,} long documents)", f"{context['score']:+.3f}")
        yield detail
    if overlap := report.get("contamination"):
        contamination = make_table(f"in the corpus ({overlap['ngram']} tokens in a row)", "share of tokens", "sample")
        for each in overlap["worst"]:
            contamination.add_row(each["document"], f"{each['share']:.1%}", "/".join(map(str, each["sample"])))
        total = f"{overlap['documents_seen']:,} of {overlap['documents']:,} documents"
        contamination.add_row(total, f"{overlap['tokens_seen']:.1%}")
        yield contamination
    if "lm_eval" in report:
        tasks = make_table("task", "metric", "value")
        for task, metrics in report["lm_eval"].items():
            for metric, value in metrics.items():
                tasks.add_row(task, metric, f"{value:.4f}")
        yield tasks


def generate(
    run: Run,
    prompt: Annotated[list[str], typer.Option(help="Text to continue; repeatable.", show_default=False)],
    tokens: Annotated[int, typer.Option(min=1, help="Number of tokens to add, at most.")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="Randomness; 0 always takes the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Choose among this many likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Choose among the likeliest tokens whose probabilities add up to this.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Choose among tokens at least this probable relative to the likeliest.")
    ] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: avoid tokens that occurred before.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random choices.")] = 1,
    step: Step = None,
    tokenizer: TokenizerFile = None,
    eos: End = None,
) -> Result:
    """Continue prompts with a run's model. The text of a single prompt is printed as it is written.

    Example: pretrain generate runs/demo --prompt "This function returns" --tokens 50
    """
    from trainer.generate import Sampling
    from trainer.generate import generate as continue_prompts

    sampling = Sampling(tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed)
    unwritten = list(prompt)  # until the first token: nothing is written where loading the model fails

    def write(row: int, text: str) -> None:
        sys.stdout.write(printable((unwritten.pop() if unwritten else "") + text))
        sys.stdout.flush()

    on_text = write if len(prompt) == 1 and not choices().json else None
    completions = continue_prompts(
        run.trained, prompt, sampling, step=step, tokenizer=tokenizer, eos=eos, device="auto", on_text=on_text
    )
    if on_text:
        on_text(0, "\n")
    texts = [] if on_text else [printable(each.prompt + each.text) + "\n" for each in completions]
    return Result([asdict(completion) for completion in completions], *texts)
