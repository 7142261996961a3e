"""A real one-node Slurm: a corpus built through sbatch with a job cancelled on the way, a training job requeued."""

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
import torch

from common.files import sha256
from tests.conftest import write_warc
from tests.pipeline.test_build import build, hashes, inputs, recipe
from tests.pipeline.test_crashes import HUNGRY, RESILIPARSE
from tests.scale import storage
from tests.scale.slurm import Slurm, missing
from tests.trainer.conftest import small_run
from tests.trainer.corpus import prose_shards
from tests.trainer.test_parallel import ROOT
from trainer.loop import train

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    yield from _started(None)


@pytest.fixture
def slurm_elsewhere(tmp_path: Path) -> Iterator[Slurm]:
    """Its node does not see the test's folder."""
    yield from _started(tmp_path)


def _started(unseen: Path | None) -> Iterator[Slurm]:
    # Not below pytest's folder: munged wants every parent to be closed to other users' writing.
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    cluster = Slurm(folder)
    cluster.unseen = unseen
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
    command = [sys.executable, "-m", "cli.main", "corpus", str(tmp_path / "recipe.yaml")]
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


def test_slurm_works_on_a_run_folder_in_object_storage_alone(
    tmp_path: Path, slurm_elsewhere: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node sees neither the controller's folder nor the inputs; the first controller is killed.

    A page wants more memory than a task may have.
    """
    inputs(tmp_path)
    limits = {"memory_gb": 1, "max_failures": 1, "retries": 1}
    write_warc(tmp_path / "web/e.warc.gz", {"https://e.example/hungry": HUNGRY * 9})
    build(tmp_path, recipe(executor=limits | {"workers": 2}, **RESILIPARSE))
    executor = limits | {"type": "slurm", "slurm": {"partition": "main", "memory_gb": 1}}
    with storage.bucket() as files:
        storage.upload_inputs(files, tmp_path)
        path = storage.write_recipe(tmp_path / "slurm.yaml", recipe(executor=executor, **RESILIPARSE))
        node = slurm_elsewhere.environment | {"TMPDIR": str(slurm_elsewhere.folder)}
        for name, value in node.items():
            monkeypatch.setenv(name, value)
        first = storage.command(path)
        while not files.glob("bucket/runs/slurm/corpus/.01-extract.*/.receipts/*"):
            assert first.poll() is None, first.communicate()[1]
            time.sleep(0.1)
        first.kill()
        first.communicate()
        second = storage.command(path)
        _, messages = second.communicate(timeout=600)
        assert second.returncode == 0, messages
        assert storage.published(files, "slurm", tmp_path / "fetched") == hashes(tmp_path)
    dropped = json.loads((tmp_path / "fetched/corpus/01-extract/stats.json").read_text())["dropped"]
    assert dropped["crashed"] == 1


def test_a_requeued_training_job_ends_with_the_undisturbed_weights(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/slurm/train.sbatch as it stands, but for the GPUs that this node has not."""
    shards, steps = prose_shards(tmp_path / "shards"), 60
    config = small_run(steps=steps, log_every=1, checkpoint={"every": 5, "keep_last": 2})
    torch.set_num_threads(1)  # as torchrun's processes have it
    train(config, shards, tmp_path / "whole")
    (tmp_path / "recipe.yaml").write_text(json.dumps({"train": config.model_dump(mode="json")}))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    here = ["--gpus-per-node=0", "--cpus-per-task=2", f"--output={tmp_path}/job.log"]
    training = [tmp_path / "recipe.yaml", "--shards", shards, "--output", tmp_path / "train"]
    job = slurm.call("sbatch", "--parsable", *here, "docs/slurm/train.sbatch", *map(str, training)).strip()
    assert job
    _wait_for_lines(tmp_path / "train/metrics.jsonl", 12)
    slurm.call("scontrol", "requeue", job)
    deadline = time.monotonic() + 180
    while "JobState=COMPLETED" not in (state := slurm.call("scontrol", "show", "job", job)):
        assert time.monotonic() < deadline, state + (tmp_path / "job.log").read_text()
        time.sleep(0.5)
    assert "Restarts=1" in state
    last = Path("checkpoints") / f"step-{steps:08d}" / "model.safetensors"
    assert sha256(tmp_path / "train" / last) == sha256(tmp_path / "whole" / last)


def _wait_for_lines(path: Path, count: int) -> None:
    """Return once the file has so many lines."""
    deadline = time.monotonic() + 120
    while not (path.is_file() and len(path.read_text().splitlines()) >= count):
        assert time.monotonic() < deadline, f"{path} stays short"
        time.sleep(0.02)


def _cancel_first(slurm: Slurm, controller: subprocess.Popen[str]) -> bool:
    """Cancel the first job that appears. False where the controller ended before."""
    while controller.poll() is None:
        if jobs := slurm.call("squeue", "--noheader", "--format=%A").split():
            slurm.call("scancel", jobs[0])
            return True
        time.sleep(0.1)
    return False
