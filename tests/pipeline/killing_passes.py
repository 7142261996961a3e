"""Passes that documents can kill. A module of its own: each worker that is started anew has to import it."""

from __future__ import annotations

import os
import signal

import pyarrow as pa

from pipeline.task import DocumentPass, Judge, Pass, Task, TaskReport, Verdicts


class KillPass(DocumentPass):
    """Keeps every document; one that says `kill` ends the process."""

    def open(self, rank: int) -> Judge:
        return KillJudge()


class KillJudge(Judge):
    def judge(self, table: pa.Table) -> tuple[pa.Table, Verdicts]:
        for text in table["text"].to_pylist():
            if text == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if text == "fail":
                raise ValueError("a document that no code can bear")
        return table, [None] * table.num_rows


class NamePass(Pass):
    """A pass before, which has done its work when the other one fails."""

    def process(self, rank: int, task: Task) -> TaskReport:
        return TaskReport({"named": 1})
