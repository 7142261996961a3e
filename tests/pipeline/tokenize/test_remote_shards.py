"""Shards in an object store: uploaded as they are, read by StreamingDataset from an S3 server."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.pipeline.tokenize.test_pack import build, stream_samples


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "S3_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    yield f"http://{host}:{port}"
    server.stop()


def test_streaming_reads_shards_from_s3(tmp_path: Path, endpoint: str) -> None:
    folder = build(tmp_path) / "train/web"
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="corpus")
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "corpus", f"shards/{path.relative_to(folder)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("streaming", exc_type=ImportError)
        from streaming import StreamingDataset

        dataset = StreamingDataset(
            remote="s3://corpus/shards",
            local=str(tmp_path / "cache"),
            shuffle=False,
            batch_size=1,
            validate_hash="xxh64",
        )
        remote = [sample["tokens"].tolist() for sample in dataset]
    assert remote == [sample["tokens"].tolist() for sample in stream_samples(folder)]
