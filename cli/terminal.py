"""Printing: results on stdout, progress and errors on stderr, in one style of tables, numbers and times.

`pretrain run ... > log` thus keeps the results alone. A terminal gets colours and one bar for the running stage or
training; a pipe gets plain lines. Rich honours NO_COLOR, FORCE_COLOR and COLUMNS.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from common.observe import Observer, Progress

if TYPE_CHECKING:
    from common.observe import TrainResult

_PIPE_WIDTH = 120  # columns
_TOP_REASONS = 3


@dataclass
class Choices:
    """The options that every command has."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False


CHOICES: ContextVar[Choices] = ContextVar("choices")  # of the running command, set by cli/commands.py


def choices() -> Choices:
    """The running command's choices; the defaults outside of a command."""
    return CHOICES.get(Choices())


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the process here


def make_console(*, stderr: bool) -> Console:
    """A console that neither reads markup in its text nor wraps a pipe's lines at a terminal's width."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return _Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def messages() -> Console:
    """Console on stderr for progress and warnings; silent with --quiet."""
    console = make_console(stderr=True)
    console.quiet = choices().quiet
    return console


def show(*parts: RenderableType) -> None:
    """Print parts of a result on stdout, texts unwrapped; nothing with --json."""
    console = make_console(stderr=False)
    for part in () if choices().json else parts:
        console.print(part, soft_wrap=isinstance(part, str | Text))


def make_table(*columns: str, title: str | None = None) -> Table:
    """An empty table; the first column is aligned left, the others right, for numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title=title, title_justify="left", title_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=number > 0)
    return table


class View:
    """Lines on a console and, on a terminal, one bar below them; as a context manager it leaves no bar behind."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or messages()
        self.verbose = choices().verbose
        self._bars: Bars | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_bar()

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(line, soft_wrap=True)

    def start_bar(self, name: str, total: float, completed: int = 0, *columns: ProgressColumn) -> None:
        """Show a bar where the console is a terminal."""
        if self.console.is_terminal and not self.console.quiet:
            shown = TextColumn("{task.description:<9}"), BarColumn(), *columns, TextColumn("{task.fields[state]}")
            self._bars = Bars(*shown, console=self.console, transient=True)
            self._bars.add_task(name, total=total, completed=completed, state="")
            self._bars.start()

    def move_bar(self, completed: float, state: str) -> bool:
        """Move the bar and replace the text after it. Returns whether there is a bar."""
        if self._bars:
            self._bars.update(self._bars.task_ids[0], completed=completed, state=state)
        return self._bars is not None

    def stop_bar(self) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None


def printable(text: str) -> str:
    """Text from documents without control characters (terminal escapes among them); line breaks and tabs stay."""
    unwanted = {character for character in set(text) if not character.isprintable()} - {"\n", "\t"}
    return text.translate({ord(character): None for character in unwanted}) if unwanted else text


def clean(text: str, limit: int | None = None) -> str:
    """Text from documents on one printable line, cut to `limit` characters."""
    line = printable(" ".join(text.split()))
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def largest_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """(name, count) pairs, equal counts by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def megabytes(size: float) -> str:
    """Bytes as MB (10^6), with decimals below 100 MB."""
    value = size / 1e6
    return f"{value:,.0f} MB" if value >= 100 else f"{value:.1f} MB" if value >= 1 else f"{value:.3f} MB"


def duration(seconds: float) -> str:
    """Seconds as `0.4 s`, `12 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def remaining(seconds: float, fraction: float) -> str:
    """Time left when `fraction` of the work took `seconds`; empty at the very start and at the end."""
    return f"{duration(seconds * (1 - fraction) / fraction)} left" if 0.01 < fraction < 1 else ""


class CorpusView(View, Observer):
    """Shows stages as they run, and keeps their `stats` and `seconds`.

    A stage may read its input in several passes; the bar then starts again, and rate and time left are the pass's.
    after_stage: called with the name of each stage that was built.
    """

    def __init__(
        self, console: Console | None = None, after_stage: Callable[[str], object] = lambda stage: None
    ) -> None:
        super().__init__(console)
        self.after_stage = after_stage
        self.stats: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self._pass_began = 0.0
        self._fraction = 0.0

    def warning(self, message: str) -> None:
        self.say(message)

    def stage_started(self, stage: str, tasks: int) -> None:
        self._pass_began = self._fraction = 0.0
        self.start_bar(stage, 1.0)
        if not self.console.is_terminal:
            self.say(f"{stage}: started ({tasks:,} {'task' if tasks == 1 else 'tasks'})")

    def stage_progress(self, stage: str, progress: Progress) -> None:
        if progress.fraction < self._fraction:
            self._pass_began = progress.seconds
        self._fraction = progress.fraction
        seconds = max(progress.seconds - self._pass_began, 1e-3)
        parts = [f"{progress.fraction:4.0%}"]
        if progress.documents:
            parts.append(f"{progress.documents / seconds:,.0f} documents/s")
            parts.append(f"{progress.bytes / 1e6 / seconds:,.1f} MB/s")
        parts.append(remaining(seconds, progress.fraction))
        self.move_bar(progress.fraction, "  ".join(part for part in parts if part))

    def stage_finished(self, stage: str, stats: dict[str, Any], seconds: float) -> None:
        self.stop_bar()
        self.stats[stage], self.seconds[stage] = stats, seconds
        self.say(f"{stage}: {_kept(stats)}, {megabytes(stats['bytes_kept'])}, {duration(seconds)}")
        if self.verbose:
            for rule, count in largest_first(stats["dropped"]):
                self.say(f"{stage}:   {rule} dropped {count:,}")
        self.after_stage(stage)

    def stage_skipped(self, stage: str, stats: dict[str, Any]) -> None:
        self.stats[stage] = stats
        self.say(f"{stage}: nothing changed, {_kept(stats)}")


def funnel_table(stats: dict[str, dict[str, Any]], seconds: dict[str, float]) -> Table:
    """Documents in, kept and dropped, text kept, time, and the rules that dropped most, by stage.

    stats: stats.json by stage, in order; seconds: of the stages that ran now (the others are unchanged).
    """
    table = make_table("stage", "in", "kept", "dropped", "kept %", "text", "time")
    table.add_column("most dropped for", overflow="fold")

    def add(name: str, read: int, counts: dict[str, Any], spent: float | None, note: str) -> None:
        kept, time = counts["documents_kept"], "unchanged" if spent is None else duration(spent)
        numbers = f"{read:,}", f"{kept:,}", f"{read - kept:,}", _percent(kept, read), megabytes(counts["bytes_kept"])
        table.add_row(name, *numbers, time, note)

    for stage, counts in stats.items():
        reasons = ", ".join(f"{rule} {count:,}" for rule, count in largest_first(counts["dropped"])[:_TOP_REASONS])
        add(stage, counts["documents_in"], counts, seconds.get(stage), reasons)
    if len(stats) > 1:
        first, last = next(iter(stats.values())), list(stats.values())[-1]
        table.add_section()
        tokens = f"{last['tokens']:,} tokens" if "tokens" in last else ""
        add("all", first["documents_in"], last, sum(seconds.values()) if seconds else None, tokens)
    return table


def truth_table(scores: dict[str, dict[str, float]]) -> Table:
    """Precision and recall of each stage on labelled documents."""
    table = make_table("stage", "precision", "recall", "cases", title="on the labelled documents")
    for stage, score in scores.items():
        table.add_row(stage, f"{score['precision']:.3f}", f"{score['recall']:.3f}", f"{score['cases']:,.0f}")
    return table


def _kept(stats: dict[str, Any]) -> str:
    read, kept = stats["documents_in"], stats["documents_kept"]
    return f"{kept:,} of {read:,} documents kept ({_percent(kept, read)} %)"


def _percent(part: int, total: int) -> str:
    return f"{100 * part / total:.1f}" if total else "-"


class TrainingView(View, Observer):
    """Shows a training run: a bar on a terminal, a line for each record in a pipe."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self.started = False
        self._steps = 0
        self._step_tokens = 0

    def training_started(self, info: dict[str, Any]) -> None:
        self.started = True
        self.stop_bar()  # a rollback starts training again
        self._steps, self._step_tokens = info["steps"], info["step_tokens"]
        self.say(
            f"train: {info['parameters'] / 1e6:,.1f} M parameters, {self._steps:,} steps of {self._step_tokens:,}"
            f" tokens, {info['optimizer']}, {info['precision']} on {info['device']}"
        )
        for split, verb in (("train", "trains on"), ("validation", "holds out")):
            listed = (
                f"{name} ({each['samples']:,} samples, {each['tokens']:,} tokens)"
                for name, each in info["streams"][split].items()
            )
            self.say(f"train: {verb} {', '.join(listed) or 'nothing'}")
        self.start_bar("train", self._steps, info["step"], MofNCompleteColumn())

    def resumed(self, step: int) -> None:
        self.say(f"train: resumes after step {step:,}")

    def step(self, record: dict[str, Any]) -> None:
        left = (self._steps - record["step"]) * self._step_tokens / max(record["tokens_per_second"], 1e-9)
        state = (
            f"loss {record['loss']:.3f}  lr {record['lr']:.1e}  {record['tokens_per_second']:,.0f} tokens/s"
            f"  {duration(left)} left"
        )
        if not self.move_bar(record["step"], state):
            self.say(f"train: step {record['step']:,} of {self._steps:,}  {state}")

    def evaluated(self, record: dict[str, Any]) -> None:
        bits = f", {bits_per_byte(record)} bits per byte" if "bits_per_byte" in record else ""
        loss = f"{record['loss']:.3f}" if "loss" in record else "none: the held-out samples have nothing to predict"
        self.say(f"train: step {record['step']:,}  validation loss {loss}{bits}")

    def checkpointed(self, step: int, path: Any) -> None:
        if not self.console.is_terminal or self.verbose:
            self.say(f"train: step {step:,}  checkpoint {path}")

    def warning(self, message: str) -> None:
        self.say(f"train: {message}")

    def finished(self, result: TrainResult) -> None:
        self.stop_bar()


def training_summary(result: TrainResult) -> Group:
    """A finished run: training loss, checkpoint, validation by stream, prompts with their continuations."""
    parts: list[RenderableType] = [
        f"{result.step:,} steps, {result.tokens:,} tokens; training loss {result.loss:.3f}",
        f"checkpoint: {result.checkpoint}",
    ]
    if result.validation:
        table = make_table("validation", "loss", "bits per byte", "tokens")
        for stream, scores in [*result.validation["streams"].items(), ("all", result.validation)]:
            table.add_row(stream, *score_cells(scores))
        parts.append(table)
    for sample in result.samples:
        text = Text(clean(sample["prompt"] + sample["text"]) + "\n")
        text.stylize("bold", 0, len(clean(sample["prompt"])))
        parts.append(text)
    return Group(*parts)


def score_cells(scores: dict[str, Any]) -> tuple[str, str, str]:
    """Loss, bits per byte (`-` where unknown) and tokens as a table shows them."""
    return f"{scores['loss']:.3f}" if "loss" in scores else "-", bits_per_byte(scores), f"{scores['tokens']:,}"


def bits_per_byte(scores: dict[str, Any]) -> str:
    return f"{scores['bits_per_byte']:.3f}" if "bits_per_byte" in scores else "-"
