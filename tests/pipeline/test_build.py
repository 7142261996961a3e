"""The stage runner on real files: what is skipped, what is rebuilt, what is refused, what is recorded."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from common.errors import PipelineError, PretrainError
from common.files import locked
from common.observe import Progress
from pipeline.build import build_corpus
from pipeline.config import CorpusConfig
from pipeline.documents import document_id
from tests.conftest import PROSE, page, write_warc

SPAM = "buy cheap shoes online now and save big money today " * 40


class Recorder:
    """Which stages ran and which were skipped."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.skipped: list[str] = []
        self.last: Progress | None = None

    def stage_started(self, stage: str, tasks: int) -> None: ...

    def stage_progress(self, stage: str, progress: Progress) -> None:
        self.last = progress

    def stage_finished(self, stage: str, stats: dict[str, Any], seconds: float) -> None:
        self.ran.append(stage)

    def stage_skipped(self, stage: str, stats: dict[str, Any]) -> None:
        self.skipped.append(stage)


def inputs(folder: Path) -> None:
    """Two archives and a JSON-lines file with a duplicate, spam, an image, a 404 and a broken line."""
    pages = {f"https://a.example/{name}": page(text) for name, text in PROSE.items()}
    write_warc(folder / "web/a.warc.gz", pages | {"https://a.example/spam": page(SPAM)})
    write_warc(folder / "web/b.warc.gz", {"https://b.example/copy": page(PROSE["river"], "Copied")})
    write_warc(folder / "web/c.warc.gz", {"https://b.example/gone": page("Gone")}, status="404 Not Found")
    write_warc(folder / "web/d.warc.gz", {"https://b.example/i.png": b"\x89PNG"}, media="image/png")
    rows = [
        json.dumps({"text": text + " And so on it goes, year after year.", "id": name}) for name, text in PROSE.items()
    ]
    (folder / "rows.jsonl").write_text("\n".join([*rows, "{broken", '{"id": "no text"}']) + "\n", "utf-8")


def recipe(workers: int = 1, **changes: Any) -> CorpusConfig:
    base: dict[str, Any] = {
        "name": "test",
        "sources": [
            {"name": "web", "type": "warc", "paths": ["web/*.warc.gz"]},
            {"name": "rows", "type": "jsonl", "paths": ["rows.jsonl"], "id_key": "id"},
        ],
        "extract": {"task_bytes": 1},
        "dedup": {"verify": 0.9},
        "tokenize": {"tokenizer": {"vocab_size": 400}, "sequence_length": 64, "validation": 0.2},
        "executor": {"workers": workers},
    }
    return CorpusConfig.model_validate(base | changes)


def build(folder: Path, config: CorpusConfig, run: str = "run", **options: Any) -> Recorder:
    recorder = Recorder()
    build_corpus(config, folder / run, folder, observer=recorder, **options)
    return recorder


def hashes(folder: Path, run: str = "run") -> dict[str, dict[str, Any]]:
    paths = [*sorted((folder / run).glob("corpus/*/manifest.json")), folder / run / "shards/manifest.json"]
    return {str(path.relative_to(folder / run)): json.loads(path.read_text())["files"] for path in paths}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    inputs(folder)
    build(folder, recipe())
    return folder


def rows(folder: Path, stage: str, side: str) -> list[dict[str, Any]]:
    (published,) = (folder / "run/corpus").glob(f"[0-9]*-{stage}")
    return [row for path in sorted((published / side).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_document_is_kept_or_dropped_for_a_reason(built: Path) -> None:
    dropped = {row["rule"]: row for stage in ("extract", "dedup", "quality") for row in rows(built, stage, "dropped")}
    assert {"http_status", "media_type", "unreadable", "near_duplicate"} <= set(dropped) or "exact_duplicate" in dropped
    assert dropped["http_status"]["value"] == 404
    assert dropped["media_type"]["detail"] == "image/png"
    reads = [row["detail"] for row in rows(built, "extract", "dropped") if row["rule"] == "unreadable"]
    assert len(reads) == 2
    assert "line 4" in reads[0]
    spam = next(row for row in rows(built, "quality", "dropped") if row["url"].endswith("spam"))
    assert spam["rule"].startswith("gopher_")
    assert spam["value"] is not None


def test_ids_lead_back_to_their_records(built: Path) -> None:
    kept = rows(built, "quality", "data")
    assert kept
    assert all(row["id"] == document_id(row["path"], row["offset"]) for row in kept)
    table = pq.read_table(built / "run/shards/documents.parquet")
    assert set(table["id"].to_pylist()) == {row["id"] for row in kept}


def test_same_files_under_other_paths_rebuild_nothing(built: Path) -> None:
    web = {"name": "web", "type": "warc", "paths": [str(built / "web/*.warc.gz")]}
    rows = {"name": "rows", "type": "jsonl", "paths": [str(built / "rows.jsonl")], "id_key": "id"}
    assert build(built, recipe(sources=[web, rows])).ran == []


def test_second_run_does_nothing(built: Path) -> None:
    recorder = build(built, recipe())
    assert recorder.ran == []
    assert recorder.skipped == ["extract", "language", "dedup", "quality", "tokenize"]


def test_workers_do_not_change_a_byte(built: Path) -> None:
    build(built, recipe(workers=2), run="parallel")
    assert hashes(built, "parallel") == hashes(built)


@pytest.mark.parametrize(
    ("change", "ran"),
    [
        ({"quality": {"rules": {"gopher_min_words": 40}}}, ["quality", "tokenize"]),
        ({"language": {"threshold": 0.5}}, ["language", "dedup", "quality", "tokenize"]),
        ({"executor": {"workers": 3}}, []),
    ],
)
def test_a_change_rebuilds_its_stage_and_what_follows(tmp_path: Path, change: dict[str, Any], ran: list[str]) -> None:
    inputs(tmp_path)
    stages = ["extract", "language", "dedup", "quality", "tokenize"]
    build(tmp_path, recipe())
    recorder = build(tmp_path, recipe(**change))
    assert recorder.ran == ran
    assert recorder.skipped == [stage for stage in stages if stage not in ran]


def test_changed_input_rebuilds_everything(tmp_path: Path) -> None:
    inputs(tmp_path)
    build(tmp_path, recipe(), last="language")
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"text": PROSE["fox"] * 2}) + "\n")
    assert build(tmp_path, recipe(), last="language").ran == ["extract", "language"]


def test_forced_stage_gives_the_same_bytes(built: Path) -> None:
    before = hashes(built)
    assert build(built, recipe(), first="quality").ran == ["quality", "tokenize"]
    assert hashes(built) == before


def test_damaged_stage_is_named(tmp_path: Path) -> None:
    inputs(tmp_path)
    build(tmp_path, recipe(), last="language")
    victim = tmp_path / "run/corpus/02-language/data/00000.parquet"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    with pytest.raises(PipelineError, match=r"02-language/data/00000\.parquet"):
        build(tmp_path, recipe())


def test_missing_path_empty_source_and_unknown_stage_are_refused(tmp_path: Path) -> None:
    inputs(tmp_path)
    absent = [{"name": "web", "type": "warc", "paths": ["nowhere/*.gz"]}]
    with pytest.raises(PipelineError, match="matches no file"):
        build(tmp_path, recipe(sources=absent))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(PipelineError, match="source `none` gave no documents"):
        build(tmp_path, recipe(sources=[{"name": "none", "type": "jsonl", "paths": ["empty.jsonl"]}]))
    with pytest.raises(PipelineError, match="not among this recipe's stages"):
        build(tmp_path, recipe(), first="bogus")


def test_stage_that_keeps_nothing_says_which_rule(tmp_path: Path) -> None:
    inputs(tmp_path)
    with pytest.raises(PipelineError, match=r"dropped all .* `gopher_min_words`"):
        build(tmp_path, recipe(quality={"rules": {"gopher_min_words": 99999}}))


def test_unreadable_archive_is_a_recorded_drop(tmp_path: Path) -> None:
    inputs(tmp_path)
    (tmp_path / "web/e.warc.gz").write_bytes(b"\x1f\x8bthis is no gzip")
    build(tmp_path, recipe(), last="extract")
    reads = [row for row in rows(tmp_path, "extract", "dropped") if row["path"] == "web/e.warc.gz"]
    assert [row["rule"] for row in reads] == ["unreadable"]


def test_one_run_folder_one_process(tmp_path: Path) -> None:
    with locked(tmp_path, "x"), pytest.raises(PretrainError, match="another process"), locked(tmp_path, "x"):
        raise AssertionError("locked twice")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_full_disk_publishes_nothing_and_the_next_run_goes_on(tmp_path: Path) -> None:
    inputs(tmp_path)
    small = tmp_path / "run"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        with pytest.raises(OSError, match="No space left") as caught:
            build(tmp_path, recipe())
        assert caught.value.errno == errno.ENOSPC
        assert not (small / "shards").exists()
        for manifest in small.glob("corpus/[0-9]*/manifest.json"):
            json.loads(manifest.read_text())  # what is published is whole
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        build(tmp_path, recipe())
        build(tmp_path, recipe(), run="undisturbed")
        assert hashes(tmp_path) == hashes(tmp_path, "undisturbed")
    finally:
        subprocess.run(["umount", str(small)], check=True)
