"""A run folder in object storage: a real S3 server (moto) on loopback, a real corpus, a cut connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipes.mirror import Mirror, local_copy

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed; uv pip install -e '.[s3]'")
server = pytest.importorskip("moto.server", reason="moto is not installed; make install")


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket/runs/demo"
    running.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def publish(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.txt").write_text(text)
    (folder / "manifest.json").write_text(json.dumps({"files": {"data.txt": len(text)}}))


def test_what_one_machine_pushes_another_pulls(store: str, tmp_path: Path) -> None:
    here, there = Mirror(store, tmp_path / "here"), Mirror(store, tmp_path / "there")
    publish(here.local / "corpus/01-extract", "first")
    (here.local / ".scratch").mkdir()
    (here.local / ".scratch/x").write_text("not part of the run")
    here.push()
    there.pull()
    assert (there.local / "corpus/01-extract/data.txt").read_text() == "first"
    assert not (there.local / ".scratch").exists()

    publish(there.local / "corpus/01-extract", "second version")
    (there.local / "recipe.yaml").write_text("name: demo")
    there.push()
    here.pull()
    assert (here.local / "corpus/01-extract/data.txt").read_text() == "second version"
    assert (here.local / "recipe.yaml").read_text() == "name: demo"


def test_what_was_not_wanted_is_pulled_later(store: str, tmp_path: Path) -> None:
    here, there = Mirror(store + "-part", tmp_path / "here"), Mirror(store + "-part", tmp_path / "there")
    publish(here.local / "shards", "first")
    here.push()
    there.pull()
    publish(here.local / "shards", "second version")
    here.push()
    there.pull(lambda name: "data" not in name)
    assert not (there.local / "shards/data.txt").exists()
    (there.local / "forgotten.json").write_text("{}")
    there.push()
    there.pull()
    assert (there.local / "shards/data.txt").read_text() == "second version"


def test_manifest_goes_first_and_comes_last(store: str, tmp_path: Path) -> None:
    mirror = Mirror(store + "-order", tmp_path / "order")
    publish(mirror.local / "stage", "one")
    mirror.push()
    publish(mirror.local / "stage", "two!")
    (mirror.local / "stage/data.txt").chmod(0o600)
    sent = mirror.files.put_file

    def cut(source: str, target: str) -> None:
        raise ConnectionError("cut in the middle")

    mirror.files.put_file = cut
    try:
        with pytest.raises(ConnectionError):
            mirror.push()
    finally:
        mirror.files.put_file = sent
    mirror.files.invalidate_cache()
    assert not mirror.files.exists(f"{mirror.root}/stage/manifest.json")
    mirror.push()
    other = Mirror(store + "-order", tmp_path / "other")
    other.pull()
    assert (other.local / "stage/data.txt").read_text() == "two!"
    assert (other.local / "stage/manifest.json").is_file()


def test_removed_files_go_and_nothing_is_sent_twice(store: str, tmp_path: Path) -> None:
    mirror = Mirror(store + "-twice", tmp_path / "twice")
    publish(mirror.local / "old", "x")
    (mirror.local / "log.jsonl").write_text("{}\n")
    mirror.push()
    for name in ("data.txt", "manifest.json"):
        (mirror.local / "old" / name).unlink()
    mirror.push()
    assert mirror.files.find(mirror.root) == [f"{mirror.root}/log.jsonl"]
    mirror.files.put_file = None  # a second push must not need it
    mirror.push()


def test_local_copies_of_two_addresses_differ() -> None:
    assert local_copy("s3://a/demo") != local_copy("s3://b/demo")
