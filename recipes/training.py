"""A training run on the terminal: a bar with loss, rate and time left; the scores and samples at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.progress import MofNCompleteColumn
from rich.table import Table
from rich.text import Text

from recipes.terminal import View, clean, duration, make_table, verbose

if TYPE_CHECKING:
    from trainer.progress import TrainResult


class TrainingView(View):
    """Observer of `trainer.progress`: a bar on a terminal, a line for each record in a pipe."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.started = False
        self._steps = 0
        self._step_tokens = 0

    def training_started(self, info: dict[str, Any]) -> None:
        self.started = True
        self.stop_bar()  # of before a rollback
        self._steps, self._step_tokens = info["steps"], info["step_tokens"]
        self.say(
            f"train: {info['parameters'] / 1e6:,.1f} M parameters, {self._steps:,} steps of {self._step_tokens:,}"
            f" tokens, {info['optimizer']}, {info['precision']} on {info['device']}"
        )
        self.start_bar("train", self._steps, info["step"], MofNCompleteColumn())

    def resumed(self, step: int) -> None:
        self.say(f"train: goes on after step {step:,}")

    def step(self, record: dict[str, Any]) -> None:
        left = (self._steps - record["step"]) * self._step_tokens / max(record["tokens_per_second"], 1e-9)
        state = (
            f"loss {record['loss']:.3f}  lr {record['lr']:.1e}  {record['tokens_per_second']:,.0f} tokens/s"
            f"  {duration(left)} left"
        )
        if not self.move_bar(record["step"], state):
            self.say(f"train: step {record['step']:,} of {self._steps:,}  {state}")

    def evaluated(self, record: dict[str, Any]) -> None:
        self.say(f"train: step {record['step']:,}  validation {_scores(record)}")

    def checkpointed(self, step: int, path: Any) -> None:
        if not self.console.is_terminal or verbose():
            self.say(f"train: step {step:,}  checkpoint {path}")

    def warning(self, message: str) -> None:
        self.say(f"train: {message}")

    def finished(self, result: TrainResult) -> None:
        self.stop_bar()


def training_summary(result: TrainResult) -> Group:
    """What a run came to: losses, validation by stream, the prompts with what the model makes of them."""
    parts: list[RenderableType] = [
        f"{result.step:,} steps, {result.tokens:,} tokens; training loss {result.loss:.3f}",
        f"checkpoint: {result.checkpoint}",
    ]
    if result.validation:
        parts.append(validation_table(result.validation))
    for sample in result.samples:
        text = Text(clean(sample["prompt"] + sample["text"]) + "\n")
        text.stylize("bold", 0, len(clean(sample["prompt"])))
        parts.append(text)
    return Group(*parts)


def validation_table(validation: dict[str, Any]) -> Table:
    """Loss and bits per byte of each validation stream and over all."""
    table = make_table("validation", "loss", "bits per byte", "tokens")
    for stream, scores in [*validation["streams"].items(), ("all", validation)]:
        bits = f"{scores['bits_per_byte']:.3f}" if "bits_per_byte" in scores else "-"
        table.add_row(stream, f"{scores['loss']:.3f}", bits, f"{scores['tokens']:,}")
    return table


def _scores(record: dict[str, Any]) -> str:
    bits = f", {record['bits_per_byte']:.3f} bits per byte" if "bits_per_byte" in record else ""
    return f"loss {record['loss']:.3f}{bits}"
