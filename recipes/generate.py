"""`generate`: continue prompts with a run's model. And `chat`, which says why it is not there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recipes.errors import RecipeError
from recipes.export import train_folder
from recipes.look import RunFolder

if TYPE_CHECKING:
    from trainer.generate import Sampling


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

    from recipes.terminal import print_json, printable
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
    from recipes.terminal import printable
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
