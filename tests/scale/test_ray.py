"""A corpus built on a real local Ray cluster, one of its worker processes killed on the way."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.pipeline.test_runner import build, hashes, inputs, recipe

ray = pytest.importorskip("ray", reason="ray is not installed; uv pip install -e '.[ray]'")
psutil = pytest.importorskip("psutil")


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # ray's own deprecations
def test_ray_builds_the_same_bytes_although_a_worker_is_killed(tmp_path: Path) -> None:
    inputs(tmp_path)
    build(tmp_path, recipe())
    checkout = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}}
    ray.init(num_cpus=2, runtime_env=checkout, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    killed: list[int] = []
    killer = threading.Thread(target=_kill_a_worker, args=(killed,), daemon=True)
    killer.start()
    try:
        build(tmp_path, recipe(executor={"type": "ray", "ray": {"memory_gb": 0.5}}), run="ray")
    finally:
        ray.shutdown()
        killer.join()
    assert killed
    assert hashes(tmp_path, "ray") == hashes(tmp_path)


def _kill_a_worker(killed: list[int]) -> None:
    """SIGKILL the first process found running one of our tasks."""
    deadline = time.monotonic() + 60
    while not killed and time.monotonic() < deadline:
        for process in psutil.Process().children(recursive=True):
            if process.name().startswith("ray::_run_rank"):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
                return
        time.sleep(0.05)
