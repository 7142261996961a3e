"""A corpus built on a real local Ray cluster, one of its worker processes killed on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import write_warc
from tests.pipeline.test_build import build, hashes, inputs, recipe
from tests.pipeline.test_crashes import HUNGRY, RESILIPARSE
from tests.scale import storage
from tests.scale.slurm import free_port, without

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


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_ray_works_on_a_run_folder_in_object_storage_alone(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster's processes see neither the controller's folder nor the inputs."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("node")))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    inputs(tmp_path)
    build(tmp_path, recipe())
    port = free_port()
    with storage.bucket() as files:
        storage.upload_inputs(files, tmp_path)
        program = str(Path(sys.executable).parent / "ray")
        options = ["--head", "--block", "--num-cpus=2", f"--port={port}", "--include-dashboard=false"]
        with subprocess.Popen(without(tmp_path, program, "start", *options), stdout=subprocess.DEVNULL) as cluster:
            try:
                _wait_for(port, cluster)
                address = {"address": f"127.0.0.1:{port}", "memory_gb": 0.5}
                config = recipe(executor={"type": "ray", "ray": address})
                controller = storage.command(storage.write_recipe(tmp_path / "ray.yaml", config))
                _, messages = controller.communicate(timeout=600)
                assert controller.returncode == 0, messages
            finally:
                cluster.terminate()
        assert storage.published(files, "ray", tmp_path / "fetched") == hashes(tmp_path)


def _wait_for(port: int, cluster: subprocess.Popen[bytes]) -> None:
    """Return once the cluster listens."""
    while cluster.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.2)
    raise AssertionError(f"ray ended: {cluster.returncode}")


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
