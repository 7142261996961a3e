"""moto's S3 server in a process of its own, and corpora whose run folder is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import CorpusConfig
from tests.pipeline.test_build import hashes

_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@contextmanager
def bucket() -> Iterator[Any]:
    """A file system with a bucket named `bucket`, found by what is started in the block."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed; uv pip install -e '.[s3]'")
    pytest.importorskip("moto.server", reason="moto is not installed; make install")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with (
        subprocess.Popen([sys.executable, "-c", _SERVER], text=True, **pipes) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        assert server.stdout is not None
        host, port = server.stdout.readline().split()
        for name, value in {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "a"}.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        files = s3fs.S3FileSystem(use_listings_cache=False)
        files.mkdir("bucket")
        try:
            yield files
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.communicate("")


def upload_inputs(files: Any, folder: Path) -> None:
    """The inputs of `tests.pipeline.test_build.recipe`."""
    for path in [*(folder / "web").iterdir(), folder / "rows.jsonl"]:
        files.put_file(str(path), f"bucket/{path.relative_to(folder)}")


def write_recipe(path: Path, config: CorpusConfig) -> Path:
    """The recipe, its inputs and run folder in the bucket; the run has the file's name."""
    settings = json.loads(config.model_dump_json())
    for source in settings["sources"]:
        source["paths"] = [f"s3://bucket/{name}" for name in source["paths"]]
    path.write_text(json.dumps(settings | {"runs": "s3://bucket/runs", "name": path.stem}))
    return path


def published(files: Any, name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What the manifests of a run list, which lies there, and nothing else."""
    files.get(f"bucket/runs/{name}/", str(folder), recursive=True)
    for manifest in folder.glob("**/manifest.json"):
        listed = set(json.loads(manifest.read_text())["files"])
        found = {str(path.relative_to(manifest.parent)) for path in manifest.parent.rglob("*") if path.is_file()}
        assert found == listed | {"manifest.json"}
    assert not [path for path in folder.rglob(".*") if path.is_file()]
    return hashes(folder.parent, folder.name)


def command(path: Path, *options: str) -> subprocess.Popen[str]:
    """`pretrain corpus`, started in the recipe's folder."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    line = [sys.executable, "-m", "cli.main", "corpus", str(path), *options]
    return subprocess.Popen(line, env=environment, cwd=path.parent, stderr=subprocess.PIPE, text=True)
