"""The sample corpus: it rebuilds to the same bytes, and its planted cases are what the labels say."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import zlib
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from warcio.archiveiterator import ArchiveIterator

DATA = Path(__file__).parents[2] / "data"
FILES = ("sample.warc.gz", "labels.jsonl")
CASES = {
    "clean": None,
    "variant": None,
    "pii": None,
    "mixed": None,
    "encoding": None,
    "exact_duplicate": "dedup",
    "near_duplicate": "dedup",
    "spam": "quality",
    "gibberish": "quality",
    "short": "quality",
    "links": "quality",
    "lorem": "quality",
    "code": "quality",
    "media_type": "extract",
    "not_found": "extract",
}
Shingles = frozenset[tuple[str, ...]]


def _labels() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / "labels.jsonl").read_text("utf-8").splitlines()]


def _responses() -> dict[str, tuple[str, str, bytes]]:
    """{url: (status, content type, payload)} of the committed WARC."""
    responses = {}
    with (DATA / "sample.warc.gz").open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type == "response":
                http, body = record.http_headers, record.content_stream().read()
                url = record.rec_headers.get_header("WARC-Target-URI")
                responses[url] = (http.get_statuscode(), http.get_header("Content-Type"), body)
    return responses


def _rebuild(folder: Path, hash_seed: str) -> dict[str, bytes]:
    folder.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    command = [sys.executable, str(DATA / "build.py"), str(folder)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def shingles() -> dict[str, Shingles]:
    """{url: word 5-grams of the planted text} from the builder itself, so that no extractor is in between."""
    script = "import json, planted; print(json.dumps({case.url: case.page.text() for case in planted.cases()}))"
    run = subprocess.run([sys.executable, "-c", script], check=True, cwd=DATA, capture_output=True)
    return {url: _shingles(text) for url, text in json.loads(run.stdout).items()}


def _shingles(text: str) -> Shingles:
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(*(words[start:] for start in range(5)), strict=False))


def _jaccard(left: Shingles, right: Shingles) -> float:
    return len(left & right) / len(left | right)


def test_rebuild_gives_the_committed_bytes(tmp_path: Path) -> None:
    one, other = _rebuild(tmp_path / "one", "1"), _rebuild(tmp_path / "other", "4242")
    assert one == other
    assert one["labels.jsonl"] == (DATA / "labels.jsonl").read_bytes()
    committed = (DATA / "sample.warc.gz").read_bytes()
    assert gzip.decompress(one["sample.warc.gz"]) == gzip.decompress(committed)
    if "ng" not in zlib.ZLIB_RUNTIME_VERSION:  # zlib-ng packs the same records into other bytes
        assert one["sample.warc.gz"] == committed


def test_labels_and_records_name_the_same_urls() -> None:
    urls = [label["url"] for label in _labels()]
    assert len(set(urls)) == len(urls)
    assert set(urls) == set(_responses())
    assert 250 <= len(urls) <= 350


def test_every_case_and_twenty_languages() -> None:
    labels = _labels()
    counts = Counter(label["case"] for label in labels)
    assert set(counts) == set(CASES)
    assert min(counts.values()) >= 5
    assert all(label["stage"] == CASES[label["case"]] for label in labels)
    assert len({label["language"] for label in labels if label["stage"] is None}) >= 20


def test_duplicates_name_a_kept_original() -> None:
    by_url = {label["url"]: label for label in _labels()}
    for label in by_url.values():
        assert (label["of"] is not None) == (label["stage"] == "dedup")
        if label["of"]:
            assert by_url[label["of"]]["stage"] is None


def test_originals_come_before_their_copies() -> None:
    position = {url: number for number, url in enumerate(_responses())}
    assert all(position[label["of"]] < position[label["url"]] for label in _labels() if label["of"])


def test_snippets_are_in_the_page_and_apart() -> None:
    """Both kinds stand in the decoded page, and no chrome snippet is part of a main one."""
    codecs = {"ru": "windows-1251", "uk": "windows-1251", "ja": "shift_jis", "ko": "euc-kr", "tr": "iso-8859-9"}
    codecs |= {"zh": "utf-16", "de": "utf-16"}
    responses = _responses()
    for label in _labels():
        codec = codecs[label["language"]] if label["case"] == "encoding" else "utf-8"
        page = " ".join(responses[label["url"]][2].decode(codec).split()) if label["stage"] != "extract" else ""
        page = page.replace("&#x27;", "'").replace("&quot;", '"').replace("&amp;", "&")
        assert all(snippet in page for snippet in (*label["main"], *label["chrome"])), label["url"]
        assert not {c for c in label["chrome"] for m in label["main"] if c in m or m in c}
        if label["stage"] in (None, "dedup"):
            assert len(label["main"]) >= 2, label["url"]
            assert len(label["chrome"]) >= 2, label["url"]


def test_exact_duplicates_differ_in_chrome_only(shingles: dict[str, Shingles]) -> None:
    responses = _responses()
    copies = [label for label in _labels() if label["case"] == "exact_duplicate"]
    assert all(shingles[label["url"]] == shingles[label["of"]] for label in copies)
    assert sum(responses[label["url"]][2] != responses[label["of"]][2] for label in copies) >= len(copies) * 0.9


def test_near_duplicates_are_near(shingles: dict[str, Shingles]) -> None:
    for label in _labels():
        if label["case"] == "near_duplicate":
            assert 0.85 <= _jaccard(shingles[label["url"]], shingles[label["of"]]) < 1, label["url"]


def test_kept_pages_are_far_from_each_other(shingles: dict[str, Shingles]) -> None:
    kept = [label["url"] for label in _labels() if label["stage"] is None]
    assert max(_jaccard(shingles[a], shingles[b]) for a, b in combinations(kept, 2)) < 0.5


def test_variants_share_text_with_a_kept_page(shingles: dict[str, Shingles]) -> None:
    labels = _labels()
    clean = [shingles[label["url"]] for label in labels if label["case"] == "clean"]
    for label in labels:
        if label["case"] == "variant":
            assert max(_jaccard(shingles[label["url"]], other) for other in clean) > 0.15, label["url"]


def test_responses_that_are_no_pages() -> None:
    responses = _responses()
    for label in _labels():
        status, content_type, body = responses[label["url"]]
        assert (label["case"] == "not_found") == (status in ("404", "410"))
        assert (label["case"] == "media_type") == (not content_type.startswith("text/html"))
        assert body.startswith(b"\x89PNG") == (content_type == "image/png")


def test_declared_charsets_are_right_wrong_and_missing() -> None:
    responses = _responses()
    headers = [responses[label["url"]][1] for label in _labels() if label["case"] == "encoding"]
    assert {header.rpartition("charset=")[2].lower() for header in headers} >= {
        "windows-1251",
        "shift_jis",
        "euc-kr",
        "iso-8859-9",
        "utf-8",
        "text/html",
    }
