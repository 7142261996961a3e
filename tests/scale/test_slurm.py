"""A corpus built through sbatch on a real one-node Slurm, one of its jobs cancelled on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import write_warc
from tests.pipeline.test_crashes import HUNGRY, RESILIPARSE
from tests.pipeline.test_runner import build, hashes, inputs, recipe
from tests.scale.slurm import Slurm, missing

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    # Not below pytest's folder: munged wants every parent to be closed to other users' writing.
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    cluster = Slurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


def test_slurm_builds_the_same_bytes_although_a_job_is_cancelled(tmp_path: Path, slurm: Slurm) -> None:
    inputs(tmp_path)
    # A page that wants more memory than a task may have is left out here as there.
    limits = {"memory_gb": 1, "max_failures": 1, "retries": 1}
    write_warc(tmp_path / "web/e.warc.gz", {"https://e.example/hungry": HUNGRY * 9})
    build(tmp_path, recipe(executor=limits | {"workers": 2}, **RESILIPARSE))
    env = {"WORDS": f"a'b\"; touch {tmp_path}/owned; $(touch {tmp_path}/owned)"}
    slurm_settings = {"partition": "main", "memory_gb": 1, "env": env}
    executor = limits | {"type": "slurm", "slurm": slurm_settings}
    settings = recipe(executor=executor, **RESILIPARSE).model_dump_json()
    (tmp_path / "recipe.yaml").write_text(json.dumps(json.loads(settings) | {"runs": str(tmp_path), "name": "slurm"}))
    command = [sys.executable, "-m", "recipes.cli", "corpus", str(tmp_path / "recipe.yaml")]
    environment = os.environ | slurm.environment
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as controller:
        cancelled = _cancel_first(slurm, controller)
        _, messages = controller.communicate(timeout=600)
    assert controller.returncode == 0, messages
    assert cancelled
    assert hashes(tmp_path, "slurm") == hashes(tmp_path)
    dropped = json.loads((tmp_path / "slurm/corpus/01-extract/stats.json").read_text())["dropped"]
    assert dropped["crashed"] == 1
    assert not (tmp_path / "owned").exists()
    assert (tmp_path / "slurm/logs/01-extract/extract/attempt-1").is_dir()


def _cancel_first(slurm: Slurm, controller: subprocess.Popen[str]) -> bool:
    """Cancel the first job that appears. False where the controller ended before."""
    while controller.poll() is None:
        if jobs := slurm.call("squeue", "--noheader", "--format=%A").split():
            slurm.call("scancel", jobs[0])
            return True
        time.sleep(0.1)
    return False
