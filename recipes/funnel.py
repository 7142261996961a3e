"""A corpus run on the terminal: one bar per stage while it works, the funnel and the truth table at the end."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.progress import Progress
from recipes.terminal import View, duration, make_table, megabytes, remaining, verbose

_TOP_REASONS = 3


class CorpusView(View):
    """Observer of `pipeline.progress` that shows stages as they run and remembers what they did.

    A stage may read its input in several passes; the bar then starts anew, and rate and time left are those of
    the pass.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.stats: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self._pass_began = 0.0
        self._fraction = 0.0

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
        if verbose():
            for rule, count in sorted(stats["dropped"].items(), key=lambda item: (-item[1], item[0])):
                self.say(f"{stage}:   {rule} dropped {count:,}")

    def stage_skipped(self, stage: str, stats: dict[str, Any]) -> None:
        self.stats[stage] = stats
        self.say(f"{stage}: nothing changed, {_kept(stats)}")


def funnel_table(stats: dict[str, dict[str, Any]], seconds: dict[str, float]) -> Table:
    """Stage by stage: documents in, kept and dropped, text kept, time, and the rules that dropped most.

    stats: stats.json by stage, in order; seconds: time of the stages that ran now (the others are unchanged).
    """
    table = make_table("stage", "in", "kept", "dropped", "kept %", "text", "time")
    table.add_column("most dropped for", overflow="fold")
    for stage, counts in stats.items():
        table.add_row(
            stage,
            *_counts(counts["documents_in"], counts["documents_kept"]),
            megabytes(counts["bytes_kept"]),
            duration(seconds[stage]) if stage in seconds else "unchanged",
            _reasons(counts["dropped"]),
        )
    if len(stats) > 1:
        first, last = next(iter(stats.values())), list(stats.values())[-1]
        table.add_section()
        table.add_row(
            "all",
            *_counts(first["documents_in"], last["documents_kept"]),
            megabytes(last["bytes_kept"]),
            duration(sum(seconds.values())) if seconds else "unchanged",
            f"{last['tokens']:,} tokens" if "tokens" in last else "",
        )
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


def _counts(read: int, kept: int) -> tuple[str, str, str, str]:
    return f"{read:,}", f"{kept:,}", f"{read - kept:,}", _percent(kept, read)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _reasons(dropped: dict[str, int]) -> str:
    most = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{rule} {count:,}" for rule, count in most[:_TOP_REASONS])
