"""Hand the unfinished tasks of a pass to datatrove's executor that the recipe names: local, Slurm or Ray.

A task is finished when it has left a receipt (`pipeline.step`), whoever ran it; so one rule serves all three:
submit what has no receipt, wait until none of it runs any more, and submit the rest again, `retries` times. Tasks
are named by their rank in the pass, never by the machine that ran them: the same recipe gives the same bytes.

Slurm and Ray need a run folder and a checkout that every node sees under the same path. The process that runs
`pretrain corpus` stays as the controller (a login node, or a small job of its own: docs/slurm/corpus.sbatch): it
submits each pass once the one before it is complete.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from datatrove.executor import RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from pipeline.config import ExecutorConfig, RayConfig, SlurmConfig
from pipeline.errors import PipelineError
from pipeline.local import LocalPool, LocalTasks
from pipeline.step import CorpusStep

_POLL_SECONDS = 2.0
_CHECKOUT = Path(__file__).resolve().parent.parent


class Unfinished(PipelineStep):  # type: ignore[misc]  # datatrove is untyped
    """The tasks of a pass that have no receipt yet, numbered anew from 0."""

    type = "corpus"

    def __init__(self, step: CorpusStep, ranks: list[int]) -> None:
        self.name = step.name
        super().__init__()
        self.step = step
        self.ranks = ranks

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Run the task that stands at place `rank`."""
        self.step.run(data, self.ranks[rank], self.step.tasks)


class ArrayJob(SlurmPipelineExecutor):  # type: ignore[misc]  # datatrove is untyped
    """datatrove's array job without its closing job, which would wait for ever where a task was cancelled."""

    def launch_merge_stats(self) -> None:
        """Nothing: counts are in the receipts."""


class RayTasks(RayPipelineExecutor):  # type: ignore[misc]  # datatrove is untyped
    """datatrove's Ray executor with plain Ray tasks in place of its actors.

    datatrove starts an actor per task and asks it for its address first; an actor that dies before it answers is
    waited for without end. A plain task that loses its worker ends with an error, and is submitted again.
    """

    def run(self) -> None:
        """Run every rank, `workers` at a time. Raises what a task raises; a lost worker only leaves no receipt."""
        import ray

        executor = ray.put(self)
        memory = int(self.mem_per_cpu_gb * self.cpus_per_task * 2**30)
        run_rank = ray.remote(num_cpus=self.cpus_per_task, memory=memory, max_retries=0)(_run_rank)
        waiting = list(range(self.tasks))
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < self.workers:
                running.append(run_rank.remote(executor, waiting.pop(0)))
            ended, running = ray.wait(running)
            with suppress(ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
                ray.get(ended)


def _run_rank(executor: RayTasks, rank: int) -> None:
    executor._run_for_rank(rank)


def unfinished(step: CorpusStep) -> list[int]:
    """Ranks of the tasks without a receipt."""
    return [rank for rank in range(step.tasks) if step.receipt(rank) is None]


def run_tasks(step: CorpusStep, ranks: list[int], config: ExecutorConfig, pool: LocalPool, logs: Path) -> None:
    """Run the tasks `ranks` of `step` to their end.

    pool: the local executor's processes. Raises what a task raises (local), or PipelineError naming the first
    task that ended without a result in every attempt, and its log (Slurm, Ray).
    """
    if config.type == "local":
        LocalTasks(pool, pipeline=[Unfinished(step, ranks)], tasks=len(ranks), logging_dir=str(logs)).run()
        return
    for attempt in range(config.retries + 1):
        tasks = Unfinished(step, ranks)
        if config.slurm and config.type == "slurm":
            _run_on_slurm(tasks, config.slurm, config.workers, logs / f"attempt-{attempt}")
        else:
            _run_on_ray(tasks, config.ray, config.workers, logs / f"attempt-{attempt}")
        ranks = unfinished(step)
        if not ranks:
            return
    raise PipelineError(
        f"task {ranks[0]} of pass `{step.name}` ended without a result {config.retries + 1} times"
        f" ({len(ranks)} of {step.tasks} tasks did); see {logs}; the same command tries again"
    )


def _run_on_ray(step: Unfinished, config: RayConfig, workers: int | None, logs: Path) -> None:
    """Run on the cluster at `ray.address`, or on one started for this process. Returns when all tasks ended."""
    import ray

    if not ray.is_initialized():
        ray.init(
            address=config.address,
            runtime_env={"env_vars": {"PYTHONPATH": str(_CHECKOUT)}},
            log_to_driver=False,
            logging_level="ERROR",
            include_dashboard=False,
        )
    RayTasks(
        pipeline=[step],
        tasks=len(step.ranks),
        workers=workers or -1,
        cpus_per_task=config.cpus,
        mem_per_cpu_gb=config.memory_gb / config.cpus,
        logging_dir=str(logs),
        skip_completed=False,
    ).run()


def _run_on_slurm(step: Unfinished, config: SlurmConfig, workers: int | None, logs: Path) -> None:
    """Submit one array job and wait until Slurm holds none of it any more."""
    executor = ArrayJob(
        pipeline=[step],
        tasks=len(step.ranks),
        time=config.time,
        partition=config.partition,
        cpus_per_task=config.cpus,
        mem_per_cpu_gb=max(1, round(config.memory_gb / config.cpus)),
        workers=workers or -1,
        job_name=f"pretrain-{step.name}",
        qos=config.qos or "",
        env_command="; ".join(f"export {name}={shlex.quote(value)}" for name, value in _environment(config).items()),
        sbatch_args={"account": config.account} if config.account else None,
        max_array_size=config.array_size,
        # Absolute: jobs start in their own folder.
        logging_dir=str(logs.resolve()),
        skip_completed=False,
    )
    try:
        executor.run()
    except FileNotFoundError as error:
        raise PipelineError("executor.type is slurm, but there is no `sbatch` here; run on a submit node") from error
    except subprocess.CalledProcessError as error:
        raise PipelineError(f"sbatch refused pass `{step.name}` (see its message above): {error}") from error
    _wait_for_slurm(executor.job_id)


def _environment(config: SlurmConfig) -> dict[str, str]:
    """Variables of a Slurm job: this interpreter's programs and this checkout first, then the recipe's."""
    here = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(_CHECKOUT)}
    return here | config.env


def _wait_for_slurm(job: str) -> None:
    """Return once Slurm holds no task of the job; a cancelled or failed task simply leaves no receipt."""
    query = ["squeue", "--noheader", "--format=%T", "--jobs", job]
    while True:
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        # Slurm forgets a job some minutes after its end; any other error (a controller that restarts) passes.
        if "Invalid job id" in answer.stderr or (answer.returncode == 0 and not answer.stdout.strip()):
            return
        time.sleep(_POLL_SECONDS)
