"""A corpus built on a real local Ray cluster, one of its worker processes killed on the way."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import write_warc
from tests.pipeline.test_build import build, hashes, inputs, recipe
from tests.pipeline.test_crashes import HUNGRY, RESILIPARSE

ray = pytest.importorskip("ray", reason="ray is not installed; uv pip install -e '.[ray]'")
psutil = pytest.importorskip("psutil")


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # ray's own deprecations
def test_ray_builds_the_same_bytes_although_a_worker_is_killed(tmp_path: Path) -> None:
    inputs(tmp_path)
    # A page that wants more memory than a task may have is left out here as there.
    limits = {"memory_gb": 1, "max_failures": 1, "retries": 1}
    write_warc(tmp_path / "web/e.warc.gz", {"https://e.example/hungry": HUNGRY * 9})
    build(tmp_path, recipe(executor=limits | {"workers": 2}, **RESILIPARSE))
    checkout = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}}
    ray.init(num_cpus=2, runtime_env=checkout, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    killed: list[int] = []
    killer = threading.Thread(target=_kill_a_worker, args=(killed,), daemon=True)
    killer.start()
    try:
        build(tmp_path, recipe(executor=limits | {"type": "ray", "ray": {"memory_gb": 0.5}}, **RESILIPARSE), run="ray")
    finally:
        ray.shutdown()
        killer.join()
    assert killed
    assert hashes(tmp_path, "ray") == hashes(tmp_path)
    dropped = json.loads((tmp_path / "ray/corpus/01-extract/stats.json").read_text())["dropped"]
    assert dropped["crashed"] == 1


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
