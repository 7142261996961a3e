"""Block lists, allow lists and words decide by address; a limit per domain does not depend on tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.build import build_corpus
from pipeline.config import CorpusConfig
from pipeline.extract.urls import domain_of, list_files, matching_entry, read_rules
from tests.conftest import PROSE, page, write_warc


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_entries_cover_hosts_parents_and_paths() -> None:
    entries = frozenset({"bad.example", "mixed.example/ads"})
    assert matching_entry("https://www.bad.example/x", entries) == "bad.example"
    assert matching_entry("https://mixed.example/ads/1.html", entries) == "mixed.example/ads"
    assert matching_entry("https://mixed.example/adsorption", entries) is None
    assert matching_entry("https://notbad.example/", entries) is None


def test_lists_in_every_form(tmp_path: Path) -> None:
    write(tmp_path / "lists/adult/domains", "bad.example\n")
    write(tmp_path / "lists/adult/urls", "mixed.example/x\n")
    write(tmp_path / "lists/adult/usage", "no list\n")
    write(tmp_path / "own.txt", "# comment\nhttps://www.Own.example/ # mine\n\n")
    blocked = list_files(["lists", "own.txt"], tmp_path)
    assert [path.name for path in blocked] == ["domains", "urls", "own.txt"]
    words = [write(tmp_path / "words", "casino\n")]
    rules = read_rules(blocked, [write(tmp_path / "allow", "a.example\nc.example\n")], words)
    assert rules.refusal("http://own.example/page") == ("blocked_url", "own.example")
    assert rules.refusal("http://mixed.example/x/y") == ("blocked_url", "mixed.example/x")
    assert rules.refusal("http://a.example/best-Casino_online") == ("blocked_url_word", "casino")
    assert rules.refusal("http://a.example/casinos") is None
    assert rules.refusal("http://b.example/") == ("url_not_allowed", "b.example")


@pytest.mark.parametrize("url", ["", "http://[::bad", "no scheme", "file:x/y", "http://例え.jp/ü"])
def test_odd_addresses_have_a_verdict(url: str) -> None:
    assert isinstance(domain_of(url), str)
    assert matching_entry(url, frozenset({"bad.example"})) is None


@pytest.mark.parametrize("task_bytes", [1, 10_000_000])
def test_limit_per_domain(tmp_path: Path, task_bytes: int) -> None:
    texts = list(PROSE.values())
    for number in range(3):
        pages: dict[str, Any] = {f"https://a.example/{number}{i}": page(text) for i, text in enumerate(texts)}
        write_warc(tmp_path / f"{number}.warc.gz", pages | {f"https://b.example/{number}": page(texts[0])})
    config = CorpusConfig.model_validate(
        {
            "name": "test",
            "stages": ["extract"],
            "sources": [{"name": "web", "type": "warc", "paths": ["*.warc.gz"]}],
            "extract": {"task_bytes": task_bytes, "domain_limit": 4},
            "executor": {"workers": 1},
        }
    )
    build_corpus(config, tmp_path / "run", tmp_path)
    place = tmp_path / "run/corpus/01-extract"
    kept = [url for path in sorted(place.glob("data/*.parquet")) for url in pq.read_table(path)["url"].to_pylist()]
    assert sorted(kept) == sorted(
        [f"https://a.example/{n}" for n in ("00", "01", "02", "10")] + [f"https://b.example/{n}" for n in range(3)]
    )
    dropped = [row for path in sorted(place.glob("dropped/*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert {(row["rule"], row["threshold"], row["detail"]) for row in dropped} == {("domain_limit", 4.0, "a.example")}
