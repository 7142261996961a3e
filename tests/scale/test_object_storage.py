"""Inputs, run folder and shards in object storage: moto's S3 server behind a proxy that cuts connections."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.test_runner import build, hashes, inputs, recipe
from tests.scale.proxy import FaultProxy

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed; uv pip install -e '.[s3]'")
server = pytest.importorskip("moto.server", reason="moto is not installed; make install")


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    faulty = FaultProxy(*running.get_host_and_port())
    yield faulty
    faulty.stop()
    running.stop()


@pytest.mark.long
def test_run_in_object_storage_gives_the_local_bytes(
    tmp_path: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs(tmp_path)
    build(tmp_path, recipe())
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    files.mkdir("bucket")
    for path in [*(tmp_path / "web").iterdir(), tmp_path / "rows.jsonl"]:
        files.put_file(str(path), f"bucket/{path.relative_to(tmp_path)}")
    settings = json.loads(recipe().model_dump_json())
    for source in settings["sources"]:
        source["paths"] = [f"s3://bucket/{path}" for path in source["paths"]]
    model = {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "head_dim": 32, "ffn": 32}
    train = {"steps": 2, "global_batch_tokens": 128, "micro_batch": 1, "model": model, "compile": False}
    (tmp_path / "recipe.yaml").write_text(
        json.dumps(settings | {"runs": "s3://bucket/runs", "name": "remote", "train": train})
    )
    command = [sys.executable, "-m", "recipes.cli", "run", str(tmp_path / "recipe.yaml")]
    checkout = str(Path(__file__).parents[2])
    for _ in range(2):  # the second time there is nothing to do
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": checkout},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "nothing changed" in done.stderr
    files.invalidate_cache()
    (tmp_path / "fetched").mkdir()
    files.get("bucket/runs/remote/", str(tmp_path / "fetched"), recursive=True)
    assert hashes(tmp_path, "fetched") == hashes(tmp_path)
    assert list((tmp_path / "fetched/train/checkpoints").glob("*/manifest.json"))
    assert proxy.cuts
    assert proxy.refusals
