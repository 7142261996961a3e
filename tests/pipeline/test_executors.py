"""The local executor: a worker killed from outside costs its task another try; one that always dies is named."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from datatrove.executor import LocalPipelineExecutor

from common.errors import PipelineError
from pipeline.config import ExecutorConfig
from pipeline.executors import Executor, LocalPool
from pipeline.task import Pass, Task, TaskReport


class Deadly(Pass):
    """Task 1 kills its own process, `deaths` times; the others write a file."""

    def __init__(self, workdir: Path, deaths: int) -> None:
        super().__init__("deadly", workdir, 4)
        self.deaths = deaths

    def process(self, rank: int, task: Task) -> TaskReport:
        if rank == 1:
            died = len(list(self.workdir.glob("death-*")))
            if died < self.deaths:
                (self.workdir / f"death-{died}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        (self.workdir / str(rank)).write_text(str(rank))
        return TaskReport({"documents_in": 1}, [self.workdir / str(rank)])


def test_a_killed_worker_costs_its_task_another_try(tmp_path: Path) -> None:
    deadly = Deadly(tmp_path, 1)
    with LocalPool(2) as pool:
        assert Executor(ExecutorConfig(), pool).run(deadly, deadly.unfinished(), tmp_path / "logs") == {}
    assert deadly.unfinished() == []
    assert [(tmp_path / str(rank)).read_text() for rank in range(4)] == ["0", "1", "2", "3"]


def test_a_task_that_always_dies_is_named_and_the_same_call_goes_on(tmp_path: Path) -> None:
    deadly = Deadly(tmp_path, 4)
    with LocalPool(2) as pool:
        with pytest.raises(PipelineError, match=r"task 1 of pass `deadly`.*its process died.*3 of 4 tasks are fini"):
            Executor(ExecutorConfig(retries=0), pool).run(deadly, deadly.unfinished(), tmp_path / "logs")
        assert deadly.unfinished() == [1]
        assert Executor(ExecutorConfig(), pool).run(deadly, [1], tmp_path / "logs") == {}
    assert (tmp_path / "1").read_text() == "1"


def test_datatroves_own_executor_runs_a_pass(tmp_path: Path) -> None:
    deadly = Deadly(tmp_path, 0)
    LocalPipelineExecutor([deadly], tasks=4, workers=1, logging_dir=str(tmp_path / "logs")).run()
    assert deadly.unfinished() == []
    assert deadly.total("counts") == {"documents_in": 4}


def test_a_failed_task_leaves_its_traceback_in_the_logs(tmp_path: Path) -> None:
    class Failing(Deadly):
        def process(self, rank: int, task: Task) -> TaskReport:
            raise ValueError(f"no use {rank}")

    with LocalPool(1) as pool, pytest.raises(PipelineError, match=r"ValueError: no use 0 \(in test_executors\.py"):
        Executor(ExecutorConfig(retries=0), pool).run(Failing(tmp_path, 0), [0], tmp_path / "logs")
    assert "Traceback" in (tmp_path / "logs/attempt-0/task-00000.txt").read_text()
