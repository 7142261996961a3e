"""Inputs, run folder and shards in object storage: moto's S3 server behind a proxy that cuts connections."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.files import sha256
from tests.pipeline.test_build import build, hashes, inputs, recipe
from tests.scale.proxy import FaultProxy
from tests.trainer.conftest import small_run
from tests.trainer.corpus import prose_shards
from tests.trainer.test_parallel import ROOT

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed; uv pip install -e '.[s3]'")
server = pytest.importorskip("moto.server", reason="moto is not installed; make install")


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    # What a server holds outlives it in its process.
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
    faulty = FaultProxy(host, port)
    yield faulty
    faulty.stop()
    running.stop()


@pytest.fixture
def bucket(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A file system with a bucket named `bucket`, found by what is started from here on."""
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    files.mkdir("bucket")
    return files


def call(folder: Path, *command: str) -> str:
    """Run a command in `folder`; what it said."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.long
def test_run_in_object_storage_gives_the_local_bytes(tmp_path: Path, proxy: FaultProxy, bucket: Any) -> None:
    inputs(tmp_path)
    build(tmp_path, recipe())
    for path in [*(tmp_path / "web").iterdir(), tmp_path / "rows.jsonl"]:
        bucket.put_file(str(path), f"bucket/{path.relative_to(tmp_path)}")
    settings = json.loads(recipe().model_dump_json())
    for source in settings["sources"]:
        source["paths"] = [f"s3://bucket/{path}" for path in source["paths"]]
    model = {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "head_dim": 32, "ffn": 32}
    train = {"steps": 2, "global_batch_tokens": 128, "micro_batch": 1, "model": model, "compile": False}
    (tmp_path / "recipe.yaml").write_text(
        json.dumps(settings | {"runs": "s3://bucket/runs", "name": "remote", "train": train})
    )
    for _ in range(2):  # the second time there is nothing to do
        said = call(tmp_path, "cli.main", "run", "recipe.yaml")
    assert "nothing changed" in said
    bucket.invalidate_cache()
    (tmp_path / "fetched").mkdir()
    bucket.get("bucket/runs/remote/", str(tmp_path / "fetched"), recursive=True)
    assert hashes(tmp_path, "fetched") == hashes(tmp_path)
    assert list((tmp_path / "fetched/train/checkpoints").glob("*/manifest.json"))
    assert proxy.cuts
    assert proxy.refusals


@pytest.mark.long
def test_a_sharded_run_goes_on_from_object_storage_on_another_machine(
    tmp_path: Path, proxy: FaultProxy, bucket: Any
) -> None:
    """Two processes under FSDP2; the local copy is deleted after half of the steps."""
    shards = prose_shards(tmp_path / "shards")
    config = small_run(parallel="fsdp", schedule={"warmup": 2, "decay": 0.0}).model_dump(mode="json")
    source = {"name": "web", "type": "jsonl", "paths": ["absent.jsonl"]}
    for name, runs in (("here", str(tmp_path)), ("there", "s3://bucket/runs")):
        text = json.dumps({"name": name, "runs": runs, "sources": [source], "train": config})
        (tmp_path / f"{name}.yaml").write_text(text)
    shutil.copytree(shards, tmp_path / "here/shards")
    bucket.put(str(shards), "bucket/runs/there/shards", recursive=True)
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "cli.main", "train"]
    call(tmp_path, *launch, "here.yaml")
    call(tmp_path, *launch, "there.yaml", "--set", "train.steps=8")
    shutil.rmtree(tmp_path / "runs/.mirror")
    assert "resumes after step 8" in call(tmp_path, *launch, "there.yaml")
    bucket.invalidate_cache()
    parts = [f"step-00000012/{kind}.{rank}-of-2.safetensors" for kind in ("model", "optimizer") for rank in (0, 1)]
    for part in parts:
        bucket.get_file(f"bucket/runs/there/train/checkpoints/{part}", str(tmp_path / "fetched"))
        assert sha256(tmp_path / "fetched") == sha256(tmp_path / "here/train/checkpoints" / part)
