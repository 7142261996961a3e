"""Archives: generated cases of each kind, and the counts of real files where they are at hand."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.warc import Tally, read_records
from tests.conftest import page, write_warc

PAGES = {f"https://example.org/{i}": page(f"Page number {i}.") for i in range(5)}


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.warc", lambda b: b),
        ("a.warc.gz", gzip.compress),
        ("a.warc.zst", zstandard.compress),
        ("a.warc.lz4", lz4.frame.compress),
    ],
)
def test_every_compression_gives_every_record(tmp_path: Path, name: str, pack) -> None:
    plain = write_warc(tmp_path / "plain.warc", PAGES)
    (tmp_path / name).write_bytes(pack(plain.read_bytes()))
    records = list(read_records(str(tmp_path / name)))
    assert [(record.url, record.body) for record in records] == list(PAGES.items())
    assert {(record.status, record.media_type, record.charset) for record in records} == {(200, "text/html", "utf-8")}


def test_offsets_are_those_of_the_records(tmp_path: Path) -> None:
    path = write_warc(tmp_path / "a.warc.gz", PAGES)
    data = path.read_bytes()
    for record in read_records(str(path)):
        assert record.url.encode() in gzip.decompress(data[record.offset :])
        assert data[record.offset : record.offset + 2] == b"\x1f\x8b"


def test_truncated_file_gives_what_is_whole_and_names_the_damage(tmp_path: Path) -> None:
    path = write_warc(tmp_path / "a.warc.gz", PAGES)
    last = list(read_records(str(path)))[-1].offset
    path.write_bytes(path.read_bytes()[: last + 40])
    tally = Tally()
    urls = [record.url for record in read_records(str(path), tally=tally)]
    assert urls[:4] == list(PAGES)[:4]


def test_file_that_is_no_archive_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a.warc.gz").write_bytes(b"this is no archive\n" * 100)
    tally = Tally()
    assert list(read_records(str(tmp_path / "a.warc.gz"), tally=tally)) == []
    assert tally.damage


def test_body_is_cut_at_the_limit(tmp_path: Path) -> None:
    path = write_warc(tmp_path / "a.warc.gz", {"https://example.org/big": b"x" * 200_000})
    (record,) = read_records(str(path), max_bytes=1000)
    assert (len(record.body), record.truncated) == (1000, True)


@given(st.integers(0, 2**32), st.binary(min_size=1, max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_archives_never_raise(tmp_path: Path, place: int, noise: bytes) -> None:
    path = write_warc(tmp_path / "a.warc.gz", PAGES)
    data = bytearray(path.read_bytes())
    start = place % len(data)
    data[start : start + len(noise)] = noise
    path.write_bytes(bytes(data))
    assert len(list(read_records(str(path)))) <= len(PAGES) + 1


def test_real_archives_give_at_least_the_better_readers_records(shared: Path) -> None:
    rows = csv.DictReader((shared / "eval/warc/manifest.tsv").read_text("utf-8").splitlines(), delimiter="\t")
    short = []
    for row in rows:
        tally = Tally()
        count = len(list(read_records(str(shared / "eval/warc" / row["file"]), tally=tally)))
        total = count + sum(tally.skipped.values())
        if row["class"] in ("good", "arc", "odd") and total < max(
            int(row["warcio_records"] or 0), int(row["fastwarc_records"] or 0)
        ):
            short.append(row["file"])
    assert short == []
