"""`eval`: how well a run's model predicts text, by source and language, at one or several checkpoints.

Bits per byte and loss on the held-out shards and on files of the user's; how much the model uses its context; what
of those files stands in the corpus; tasks of lm-eval on the exported model.

`generate`: continue prompts with a run's model. And `chat`, which says why it is not there.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.export import train_folder
from cli.recipe import RunFolder
from common.errors import RecipeError

if TYPE_CHECKING:
    from rich.table import Table

    from trainer.generate import Sampling
    from trainer.score import Tally
    from trainer.shards import Shards


@dataclass(frozen=True)
class Text:
    """A document to score; `name` is file and line."""

    name: str
    text: str
    source: str
    language: str


def evaluate(
    run: RunFolder,
    text: Annotated[list[Path] | None, typer.Option(help="A jsonl(.gz) or txt file to score; repeatable.")] = None,
    step: Annotated[list[int] | None, typer.Option(help="Score this checkpoint; repeatable. Default: newest.")] = None,
    all_steps: Annotated[bool, typer.Option("--all-steps", help="Score every checkpoint that is kept.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Samples of each stream, documents of each file and task, at most.")
    ] = None,
    lm_eval: Annotated[
        str | None, typer.Option(metavar="TASKS", help="lm-eval tasks or their YAML files, comma-separated.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Score a run's model: loss, bits per byte, in-context learning, contamination, lm-eval tasks.

    Fields `source` and `language` (or `lang`) of a jsonl file group its documents.

    Example: pretrain eval runs/demo --text mine.jsonl --all-steps --json
    """
    from cli.terminal import messages, print_json, results
    from trainer.checkpoint import list_checkpoints
    from trainer.shards import open_shards

    folder = train_folder(run)
    texts = [document for file in text or () for document in read_texts(file, limit)]
    shards = open_shards(run / "shards", folder / "shards-cache") if (run / "shards").is_dir() else None
    if not (texts or shards or lm_eval):
        raise RecipeError(f"{run} has no shards; give --text FILE or --lm-eval TASKS")
    steps = [number for number, _ in list_checkpoints(folder / "checkpoints")] if all_steps else sorted(set(step or ()))
    newest: list[int | None] = [None]
    checkpoints = [_score(folder, number, shards, texts, limit) for number in steps or newest]
    report: dict[str, Any] = {"checkpoints": checkpoints}
    if shards and texts:
        report["contamination"] = _contamination(folder, shards, texts)
    if lm_eval:
        from trainer.export.harness import run_tasks
        from trainer.trained import load_trained

        report["lm_eval"] = run_tasks(load_trained(folder), lm_eval.split(","), limit=limit)
    if json_output:
        print_json(report)
        return
    for warning in report["checkpoints"][-1]["warnings"]:
        messages().print(warning, soft_wrap=True)
    for table in _tables(report):
        results().print(table)


def _score(
    folder: Path, step: int | None, shards: Shards | None, texts: list[Text], limit: int | None
) -> dict[str, Any]:
    """Everything about one checkpoint: {step, tokens, warnings, sets: {held-out or file: scores}}."""
    from trainer.score import score, shard_batches, text_batches
    from trainer.trained import load_model, load_tokenizer

    model, meta = load_model(folder, "auto", step)
    masked = bool(meta["settings"].get("document_mask", True))
    sets: dict[str, Any] = {}
    if shards and shards.validation:
        tally = score(model, shard_batches(shards, masked=masked and shards.has_documents, limit=limit))
        sets["held-out"] = _grouped(tally, _shard_groups(shards.folder))
    if texts:
        codec, eos = load_tokenizer(folder, meta), meta["eos_id"]
        if eos is None:
            raise RecipeError(f"{folder}: the tokenizer has no end-of-document token from which a text could begin")
        for file in dict.fromkeys(document.name.rpartition(":")[0] for document in texts):
            mine = [document for document in texts if document.name.rpartition(":")[0] == file]
            pairs = ((document.name, document.text) for document in mine)
            tally = score(model, text_batches(pairs, codec, eos, model.config.context, masked=masked))
            sets[file] = _grouped(tally, {each.name: (each.source, each.language) for each in mine})
    return {"step": meta["step"], "tokens": meta["tokens"], "warnings": meta["warnings"], "sets": sets}


def _grouped(tally: Tally, groups: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """A tally's scores, with those by source and by language beside them."""
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


def _shard_groups(folder: Path) -> dict[str, tuple[str, str]]:
    """Source and language of every held-out document, by id."""
    import pyarrow.parquet as pq

    path = folder / "documents.parquet"
    if not path.is_file():
        return {}
    columns = ["id", "source", "language"]
    rows = pq.read_table(path, columns=columns, filters=[("split", "=", "validation")]).to_pylist()
    return {row["id"]: (row["source"], row["language"] or "und") for row in rows}


def _contamination(folder: Path, shards: Shards, texts: list[Text]) -> dict[str, Any]:
    """Which of the texts share a run of tokens with the training samples, most first."""
    import numpy as np
    from tokenizers import Tokenizer

    from trainer.score import NGRAM, find_overlaps

    codec = Tokenizer.from_file(str(folder / "tokenizer.json"))
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


def read_texts(path: Path, limit: int | None = None, option: str = "--text") -> Iterator[Text]:
    """Documents of a jsonl or txt file (gzip by its name). Raises RecipeError for a line that holds no text."""
    if not path.is_file():
        raise RecipeError(f"{option}: no file at {path}")
    name = path.name.removesuffix(".gz")
    data = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{option}: {path} is not UTF-8 (byte {error.start})") from None
    if not name.endswith(".jsonl"):
        yield Text(f"{path}:1", content, path.stem, "und")
        return
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    for number, line in lines[:limit]:
        try:
            row = json.loads(line)
            body = row["text"]
        except (ValueError, KeyError, TypeError):
            raise RecipeError(f'{option}: {path}:{number}: expected a JSON object with a field "text"') from None
        language = row.get("language") or row.get("lang") or "und"
        yield Text(f"{path}:{number}", body, row.get("source") or path.stem, language)


def _tables(report: dict[str, Any]) -> Iterator[Table]:
    """What people read: the newest checkpoint in detail, a curve where there are several."""
    from cli.terminal import make_table as table

    checkpoints = report["checkpoints"]
    if len(checkpoints) > 1:
        curve = table("step", "tokens", *(f"{name}: bits per byte" for name in checkpoints[0]["sets"]))
        for entry in checkpoints:
            bits = [_bits(scores) for scores in entry["sets"].values()]
            curve.add_row(f"{entry['step']:,}", f"{entry['tokens']:,}", *bits)
        yield curve
    last = checkpoints[-1]
    for name, scores in last["sets"].items():
        detail = table(f"{name}, step {last['step']:,}", "loss", "bits per byte", "tokens")
        for kind in ("sources", "languages"):
            for group, each in scores[kind].items():
                detail.add_row(group, f"{each['loss']:.3f}", _bits(each), f"{each['tokens']:,}")
            detail.add_section()
        detail.add_row("all", f"{scores['loss']:.3f}", _bits(scores), f"{scores['tokens']:,}")
        context = scores["in_context"]
        if context["score"] is not None:
            detail.add_row(f"in-context learning ({context['documents']:,} long documents)", f"{context['score']:+.3f}")
        yield detail
    if found := report.get("contamination"):
        contamination = table(f"in the corpus ({found['ngram']} tokens in a row)", "share of tokens", "sample")
        for each in found["worst"]:
            contamination.add_row(each["document"], f"{each['share']:.1%}", "/".join(map(str, each["sample"])))
        total = f"{found['documents_seen']:,} of {found['documents']:,} documents"
        contamination.add_row(total, f"{found['tokens_seen']:.1%}")
        yield contamination
    if "lm_eval" in report:
        tasks = table("task", "metric", "value")
        for task, metrics in report["lm_eval"].items():
            for metric, value in metrics.items():
                tasks.add_row(task, metric, f"{value:.4f}")
        yield tasks


def _bits(scores: dict[str, Any]) -> str:
    return f"{scores['bits_per_byte']:.3f}" if "bits_per_byte" in scores else "-"


def generate(
    run: RunFolder,
    prompt: Annotated[list[str], typer.Option(help="Text to continue; repeatable.", show_default=False)],
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to add, at most.")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Choose among this many tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Choose among the likeliest with this much mass.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Choose among those this likely beside the likeliest.")] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: avoid tokens that occurred.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random choices.")] = 1,
    json_output: Annotated[bool, typer.Option("--json", help="Print the texts as JSON, at the end.")] = False,
) -> None:
    """Continue prompts with a run's newest checkpoint. A single prompt's text appears as it is written.

    Example: pretrain generate runs/demo --prompt "This function returns" --tokens 50
    """
    import dataclasses

    from cli.terminal import print_json, printable
    from trainer.generate import Sampling
    from trainer.generate import generate as continue_prompts

    sampling = Sampling(tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed)
    folder = train_folder(run)

    if len(prompt) == 1 and not json_output:
        _stream(folder, prompt[0], sampling)
        return
    completions = continue_prompts(folder, prompt, sampling, device="auto")
    if json_output:
        print_json([dataclasses.asdict(completion) for completion in completions])
        return
    for completion in completions:
        typer.echo(printable(completion.prompt + completion.text) + "\n")


def _stream(folder: Path, prompt: str, sampling: Sampling) -> None:
    """Write the prompt and its continuation as it comes; nothing where loading fails."""
    from cli.terminal import printable
    from trainer.generate import generate as continue_prompts

    begun = False

    def write(text: str) -> None:
        sys.stdout.write(printable(text))
        sys.stdout.flush()

    def on_text(row: int, piece: str) -> None:
        nonlocal begun
        write(piece if begun else prompt + piece)
        begun = True

    continue_prompts(folder, [prompt], sampling, device="auto", on_text=on_text)
    write("\n" if begun else prompt + "\n")


def chat(run: RunFolder) -> None:
    """Not offered, because a base model continues text; this command says what to use instead.

    Example: pretrain chat runs/demo
    """
    raise RecipeError(
        "chat is not offered: a base model continues text and was never trained to answer. Use `pretrain generate "
        f'{run} --prompt "..."` with the beginning of a text, or tune the exported model (`pretrain export {run}`) '
        "on conversations with another program"
    )
