"""Anomalous steps: when a loss or gradient norm counts as an anomaly, and the ledger of steps that a run skips.

`Watch` judges each step by the ones before it: non-finite values always count, and with `sigma` set also a value
that many standard deviations above the mean of the last `window` (the rule of OLMo-core's SkipStepOptimizer, which
uses 6 and 128). `Ledger` lists the steps to skip, in `train/ledger.json`: entries of the policies `skip` and
`rollback`, and the user's (`--skip-steps`). A skipped step has no gradient and no update; its samples are not read.

An entry is on the disk before the run acts on it, and a checkpoint is accepted only if it was reached with every
entry that concerns its steps. So a resumed run honours the ledger, a rollback means "enter the steps, then resume",
and skipping steps of the past returns the run to before them.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.errors import TrainerError
from common.files import to_json, write_atomically
from trainer.config import AnomalyConfig

NAMED = 10  # documents in an entry


@dataclass(frozen=True)
class Entry:
    """Steps to skip, `first` to `last` as metrics.jsonl numbers them; policy: `skip`, `rollback` or `user`.

    documents: ids of the most unusual ones in the anomalous step; blame/step-NNNNNNNN.json says more.
    """

    first: int
    last: int
    policy: str
    reason: str
    documents: list[str | None] = field(default_factory=list, compare=False)


class RolledBack(Exception):
    """The ledger has a new entry for steps of the past: resume from the newest checkpoint before them."""


class Ledger:
    def __init__(self, path: Path) -> None:
        """Read the ledger if the file exists. Raises TrainerError where it is damaged."""
        self.path = path
        self.entries: list[Entry] = []
        if path.is_file():
            try:
                self.entries = [Entry(**entry) for entry in json.loads(path.read_bytes())]
            except (ValueError, TypeError) as error:
                raise TrainerError(
                    f"{path} is not a ledger of skipped steps ({error}); without it the run would train on steps that "
                    "it skipped before. Restore it, or delete it together with the checkpoints"
                ) from None

    def add(self, entry: Entry) -> None:
        """Write a new entry to the disk; one that exists already changes nothing."""
        if entry not in self.entries:
            self.entries.append(entry)
            write_atomically(self.path, to_json(self.dump()))

    def covering(self, step: int) -> Entry | None:
        return next((entry for entry in self.entries if entry.first <= step <= entry.last), None)

    def knows(self, state: dict[str, Any]) -> bool:
        """Whether a checkpoint was reached with all entries that concern its steps."""
        known = [Entry(**entry) for entry in state["ledger"]]
        return all(entry in known for entry in self.entries if entry.first <= state["step"])

    def dump(self) -> list[dict[str, Any]]:
        return [asdict(entry) for entry in self.entries]


class Watch:
    """Judges losses and gradient norms by the last `window` good ones; checkpoints save its history."""

    def __init__(self, config: AnomalyConfig, history: list[list[float]]) -> None:
        self.config = config
        self.history = deque(history, maxlen=config.window)

    @property
    def each_step(self) -> bool:
        """Whether to judge every step before its update; otherwise only logged rows are checked for finite values."""
        return self.config.policy != "stop" or self.config.sigma is not None

    def judge(self, loss: float, norm: float) -> str | None:
        """Why the step is an anomaly; or None, after adding the step to the history."""
        for number, (name, value) in enumerate((("loss", loss), ("gradient norm", norm))):
            if not math.isfinite(value):
                return f"{name} {value}"
            if self.config.sigma is not None and len(self.history) == self.config.window:
                values = [row[number] for row in self.history]
                mean = math.fsum(values) / len(values)
                deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in values) / (len(values) - 1))
                if value > mean + self.config.sigma * deviation:
                    return (
                        f"{name} {value:.6g} is more than {self.config.sigma:g} standard deviations ({deviation:.3g}) "
                        f"above the mean of the last {len(values)} steps ({mean:.6g})"
                    )
        self.history.append([loss, norm])
        return None

    def enter(self, step: int, reason: str, ledger: Ledger, named: Sequence[dict[str, Any]] = ()) -> None:
        """Enter the steps to skip because of an anomaly at `step`. named: its documents, the most unusual first.

        Raises TrainerError for the policy `stop` and at the limit, RolledBack for `rollback`.
        """
        earlier = sum(entry.policy != "user" for entry in ledger.entries)
        if self.config.policy == "stop" or earlier >= self.config.limit:
            after = "" if self.config.policy == "stop" else f" after {earlier} anomalies (`anomalies.limit`)"
            raise TrainerError(
                f"training stopped at step {step}{after}: {reason}.{_first(named)} The last checkpoint is from before "
                f"that; lower the learning rate, skip the step with `--skip-steps {step}:{step}`, or set "
                "`anomalies.policy` to `skip` or `rollback`"
            )
        first = step if self.config.policy == "skip" else max(1, step - self.config.span + 1)
        ledger.add(Entry(first, step, self.config.policy, reason, [row["id"] for row in named[:NAMED]]))
        if self.config.policy == "rollback":
            raise RolledBack


def _first(named: Sequence[dict[str, Any]]) -> str:
    """The most unusual document in a sentence, where there is one."""
    if not named:
        return ""
    row = named[0]
    loss = "no number" if row["loss"] is None else f"{row['loss']:.3g}"
    return f" Its most unusual document is {row['url'] or row['id'] or row['stream']} (loss {loss})."


def parse_steps(text: str) -> Entry:
    """The user's entry for `FIRST:LAST`, both included. Raises TrainerError for any other text."""
    first, colon, last = text.partition(":")
    if not colon or not first.isdecimal() or not last.isdecimal() or not 1 <= int(first) <= int(last):
        raise TrainerError(f"--skip-steps: got {text!r}, expected FIRST:LAST with 1 <= FIRST <= LAST, e.g. 1200:1250")
    return Entry(int(first), int(last), "user", "--skip-steps")
