"""The local executor: a worker killed from outside ends the pass with a message, and the same call goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.config import ExecutorConfig
from pipeline.errors import PipelineError
from pipeline.executors import run_tasks, unfinished
from pipeline.local import LocalPool
from pipeline.step import CorpusStep, Heartbeat, TaskReport


class Deadly(CorpusStep):
    """Task 1 kills its own process the first time; the others write a file."""

    def __init__(self, workdir: Path) -> None:
        super().__init__("deadly", workdir, 4)

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        first = self.workdir / "killed"
        if rank == 1 and not first.exists():
            while not (self.workdir / ".receipts/deadly-00000.json").exists():
                time.sleep(0.01)
            first.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (self.workdir / str(rank)).write_text(str(rank))
        return TaskReport({"documents_in": 1}, [self.workdir / str(rank)])


def test_a_killed_worker_is_noticed_and_the_same_call_goes_on(tmp_path: Path) -> None:
    step = Deadly(tmp_path)
    with LocalPool(2) as pool:
        with pytest.raises(PipelineError, match=r"a worker process died.*The same command goes on"):
            run_tasks(step, unfinished(step), ExecutorConfig(), pool, tmp_path / "logs")
        left = unfinished(step)
        assert 1 in left
        assert 0 not in left
        run_tasks(step, left, ExecutorConfig(), pool, tmp_path / "logs")
    assert unfinished(step) == []
    assert [(tmp_path / str(rank)).read_text() for rank in range(4)] == ["0", "1", "2", "3"]
