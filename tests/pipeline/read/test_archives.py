"""Archives: generated cases of each kind, and the counts of real files where they are at hand."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.read import archives
from pipeline.read.archives import Tally, read_records
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
    for record in read_records(path):
        assert record.url.encode() in gzip.decompress(data[record.offset :])
        assert data[record.offset : record.offset + 2] == b"\x1f\x8b"


def test_reading_resumes_at_an_offset(tmp_path: Path) -> None:
    for name in ("a.warc.gz", "a.warc"):
        path = write_warc(tmp_path / name, PAGES)
        records = list(read_records(str(path)))
        assert list(read_records(str(path), start=records[3].offset)) == records[3:]


def test_truncated_file_gives_what_is_whole_and_names_the_damage(tmp_path: Path) -> None:
    for name in ("a.warc.gz", "a.warc"):
        path = write_warc(tmp_path / name, PAGES)
        last = list(read_records(str(path)))[-1].offset
        path.write_bytes(path.read_bytes()[: last + 300])
        tally = Tally()
        urls = [record.url for record in read_records(str(path), tally=tally)]
        assert urls[:4] == list(PAGES)[:4]
        assert [offset for offset, _ in tally.damage] == [last]


def test_corrupt_member_costs_itself_alone(tmp_path: Path) -> None:
    path = write_warc(tmp_path / "a.warc.gz", PAGES)
    records = list(read_records(str(path)))
    data = bytearray(path.read_bytes())
    for lost in (1, 3):
        place = records[lost].offset + 60
        data[place : place + 30] = b"\xff" * 30
    path.write_bytes(bytes(data))
    tally = Tally()
    assert list(read_records(str(path), tally=tally)) == [records[0], records[2], records[4]]
    # Named after the last whole record before it, or by its own place.
    assert [offset for offset, _ in tally.damage] in ([records[0].offset, records[2].offset],
                                                      [records[1].offset, records[3].offset])  # fmt: skip


def test_garbage_between_plain_records_is_passed_over(tmp_path: Path) -> None:
    path = write_warc(tmp_path / "a.warc", PAGES)
    records = list(read_records(str(path)))
    data = path.read_bytes()
    place = records[2].offset
    path.write_bytes(data[:place] + b"neither header nor blank line\n" * 9 + b"\n" + data[place:])
    assert [record.url for record in read_records(str(path))] == list(PAGES)


def test_claimed_lengths_cost_no_memory(tmp_path: Path) -> None:
    path = write_warc(tmp_path / "a.warc", PAGES)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Content-Length: ", b"Content-Length: 99999999", 1))
    tally = Tally()
    list(read_records(str(path), tally=tally))
    assert "ends after" in tally.damage[0][1]


def test_bomb_is_not_unfolded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SKIPPED_BYTES", 1_000_000)
    pages = {"https://example.org/bomb": b"0" * 30_000_000} | PAGES
    path = write_warc(tmp_path / "a.warc.gz", pages)
    tally = Tally()
    records = list(read_records(str(path), max_bytes=10_000, tally=tally))
    assert [record.url for record in records] == list(pages)
    assert records[0].truncated
    assert tally.damage[0][0] == records[0].offset


ARC_BODY = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n<p>From an ARC"


@pytest.mark.parametrize("suffix", ["arc", "arc.gz"])
def test_arc(tmp_path: Path, suffix: str) -> None:
    head = b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n"
    records = [b"filedesc://a.arc 0.0.0.0 20080430204825 text/plain %d\n%s\n" % (len(head), head)]
    records += [b"http://a.example/%d 1.2.3.4 20080430204826 text/html %d\n%s\n" % (i, len(ARC_BODY), ARC_BODY)
                for i in range(3)]  # fmt: skip
    data = b"".join(gzip.compress(part) if suffix.endswith("gz") else part for part in records)
    (tmp_path / f"a.{suffix}").write_bytes(data)
    tally = Tally()
    found = list(read_records(str(tmp_path / f"a.{suffix}"), tally=tally))
    assert [(r.url, r.media_type, r.charset, r.body) for r in found] == [
        (f"http://a.example/{i}", "text/html", "iso-8859-1", b"<p>From an ARC") for i in range(3)
    ]
    assert (tally.skipped, tally.damage) == ({"warcinfo": 1}, [])
    assert [next(read_records(str(tmp_path / f"a.{suffix}"), start=r.offset)).url for r in found] == [
        r.url for r in found
    ]


def test_types_that_are_no_page_are_counted(tmp_path: Path) -> None:
    kinds = ("warcinfo", "request", "metadata", "revisit", "conversion", "resource")
    head = "WARC/1.0\r\nWARC-Type: {0}\r\nWARC-Target-URI: https://a.example/\r\nContent-Length: {1}\r\n\r\n"
    bodies = [f"Text of the {kind}" for kind in kinds]
    records = [head.format(kind, len(body)) + body + "\r\n\r\n" for kind, body in zip(kinds, bodies, strict=True)]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(gzip.compress(record.encode()) for record in records))
    tally = Tally()
    found = list(read_records(str(tmp_path / "a.warc.gz"), tally=tally))
    assert [(record.type, record.body) for record in found] == [
        ("conversion", b"Text of the conversion"), ("resource", b"Text of the resource")
    ]  # fmt: skip
    assert tally.skipped == {"warcinfo": 1, "request": 1, "metadata": 1, "revisit": 1}


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


def test_headers_in_any_case(tmp_path: Path) -> None:
    """FastWARC passes over a record that begins with `warc/1.0`, and does not know the type `RESPONSE`."""
    head = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://a.example/\r\nContent-Length: 4\r\n"
    texts = [made + "\r\nBody\r\n\r\n" for made in (head, head.lower(), head.upper(), head)]
    (tmp_path / "a.warc").write_text("".join(texts), newline="")
    tally = Tally()
    records = list(read_records(str(tmp_path / "a.warc"), tally=tally))
    assert [(record.type, record.url.lower(), record.body) for record in records] == [
        ("response", "https://a.example/", b"Body")
    ] * 4
    assert (tally.skipped, tally.damage) == ({}, [])


def claiming(deltas: dict[int, int], kind: str = "response") -> list[bytes]:
    """Six records of a kind whose lengths are wrong by `deltas`; each body names its record."""
    head = "WARC/1.0\r\nWARC-Type: {}\r\nWARC-Target-URI: https://a.example/{}\r\nContent-Length: {}\r\n\r\n"
    http = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>Page {}. {}</p>"
    records = []
    for number in range(6):
        block = http.format(number, "Its own text. " * 9)
        length = len(block) + deltas.get(number, 0)
        records.append(f"{head.format(kind, number, length)}{block}\r\n\r\n".encode())
    return records


PACKS = {
    "a.warc": b"".join,
    "whole.warc.gz": lambda records: gzip.compress(b"".join(records)),
    "whole.warc.zst": lambda records: zstandard.compress(b"".join(records)),
    "whole.warc.lz4": lambda records: lz4.frame.compress(b"".join(records)),
    "each.warc.gz": lambda records: b"".join(map(gzip.compress, records)),
    "each.warc.zst": lambda records: b"".join(map(zstandard.compress, records)),
}


@pytest.mark.parametrize("name", PACKS)
@pytest.mark.parametrize("delta", [-40, -1, 1, 4, 5, 6, 8, 12, 20, 60, 200, 300, 700, 5000, 70_000_000])
def test_wrong_length_never_takes_the_next_record(tmp_path: Path, name: str, delta: int) -> None:
    for wrong in ({0: delta}, {1: delta}, {1: delta, 2: delta, 4: delta}):
        (tmp_path / name).write_bytes(PACKS[name](claiming(wrong)))
        tally = Tally()
        found = list(read_records(str(tmp_path / name), tally=tally))
        assert [record.url[-1] for record in found] == list("012345")
        assert all(record.body.startswith(b"<p>Page %d." % number) for number, record in enumerate(found))
        assert not any(b"WARC" in record.body for record in found)
        assert len({record.offset for record in found}) == 6
        if delta > 4:
            assert [offset for offset, _ in tally.damage] == [found[number].offset for number in wrong]


def test_wrong_length_of_a_record_that_is_no_page(tmp_path: Path) -> None:
    for name, pack in PACKS.items():
        records = claiming({}, "response")
        records[2] = claiming({2: 200}, "request")[2]
        (tmp_path / name).write_bytes(pack(records))
        assert [record.url[-1] for record in read_records(str(tmp_path / name))] == list("01345")


def test_an_archive_within_a_page_belongs_to_the_page(tmp_path: Path) -> None:
    inner = b"<p>An archive:\r\n\r\n" + claiming({})[5] + b"</p>"
    for name, pack in PACKS.items():
        head = b"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: urn:x\r\nContent-Length: %d\r\n\r\n" % len(inner)
        (tmp_path / name).write_bytes(pack([head + inner + b"\r\n\r\n", *claiming({})]))
        tally = Tally()
        found = list(read_records(str(tmp_path / name), tally=tally))
        assert found[0].body == inner
        assert ([record.url[-1] for record in found], tally.damage) == (list("x012345"), [])


def test_what_belongs_to_no_record_is_entered(tmp_path: Path) -> None:
    records = claiming({})
    lost = records[3].replace(b"WARC/1.0", b"XXXX/1.0")
    for behind in (records[4:], []):
        (tmp_path / "a.warc").write_bytes(b"".join([*records[:3], lost, *behind]))
        tally = Tally()
        assert len(list(read_records(str(tmp_path / "a.warc"), tally=tally))) == 3 + len(behind)
        assert ["belong to no record" in message for _, message in tally.damage] == [True]


REAL = {"good": 44, "arc": 3, "hostile": 24, "odd": 7, "disputed": 1}
# What warcio calls a second record here is a line inside the body of the only one, a request.
ONE_RECORD = "netarchivesuite+jwat__invalid-warcfile-fields-invalidformat.warc"


def test_real_archives(shared: Path) -> None:
    """Good files, ARC and the disputed one: warcio's counts. Others: at least what the better reader got."""
    rows = csv.DictReader((shared / "eval/warc/manifest.tsv").read_text("utf-8").splitlines(), delimiter="\t")
    classes = Counter()
    wrong = []
    for row in rows:
        tally = Tally()
        records = list(read_records(str(shared / "eval/warc" / row["file"]), tally=tally))
        total = len(records) + sum(tally.skipped.values())
        pages = sum(record.type == "response" and "html" in record.media_type for record in records)
        warcio, html, fastwarc = (int(row[name] or 0) for name in ("warcio_records", "warcio_html", "fastwarc_records"))
        if row["file"].endswith(ONE_RECORD):
            right = tally.skipped == {"request": 1} and not records
        elif row["class"] in (
            "good",
            "arc",
            "disputed",
        ):  # the disputed file is valid, says its name; warcio reads it all
            right = (total, pages) == (warcio, html)
        else:
            right = total >= max(warcio, fastwarc) and pages >= html
        if not right:
            wrong.append((row["file"], total, pages))
        classes[row["class"]] += 1
    assert wrong == []
    assert {name: classes[name] for name in REAL} == REAL
