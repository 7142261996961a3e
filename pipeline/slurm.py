"""Run the tasks of a pass as a Slurm array job of datatrove's, and wait for its end.

Imported where the recipe says so: datatrove's executors load a client of the Hugging Face hub, 0.1 s.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from datatrove.executor import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from common.errors import PipelineError
from pipeline.config import SlurmConfig

_POLL_SECONDS = 2.0
_CHECKOUT = Path(__file__).resolve().parent.parent


def run_array(step: PipelineStep, tasks: int, config: SlurmConfig, workers: int | None, logs: str) -> None:
    """Submit one array job of `tasks` tasks, `workers` at a time, and return once Slurm holds none of them any more.

    logs: folder, or address of one; Slurm's own logs are then in each machine's folder for temporary files. Raises
    PipelineError where it cannot be submitted.
    """
    executor = ArrayJob(
        pipeline=[step],
        tasks=tasks,
        time=config.time,
        partition=config.partition,
        cpus_per_task=config.cpus,
        mem_per_cpu_gb=max(1, round(config.memory_gb / config.cpus)),
        workers=workers or -1,
        job_name=f"pretrain-{step.name}",
        qos=config.qos or "",
        env_command="; ".join(f"export {key}={shlex.quote(value)}" for key, value in _environment(config).items()),
        sbatch_args={"account": config.account} if config.account else None,
        max_array_size=config.array_size,
        logging_dir=logs,  # absolute: jobs start in their own folder
        slurm_logs_folder=tempfile.gettempdir() if "://" in logs else None,
        skip_completed=False,
    )
    try:
        executor.run()
    except FileNotFoundError as error:
        raise PipelineError("executor.type is slurm, but `sbatch` is missing; run on a submit node") from error
    except subprocess.CalledProcessError as error:
        raise PipelineError(f"sbatch refused pass `{step.name}` (see its message above): {error}") from error
    _wait_for_slurm(executor.job_id)


class ArrayJob(SlurmPipelineExecutor):  # type: ignore[misc]  # datatrove is untyped
    """datatrove's array job without its closing job, which would wait without end where a task was cancelled."""

    def launch_merge_stats(self) -> None:
        """Nothing: counts are in the receipts."""


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
