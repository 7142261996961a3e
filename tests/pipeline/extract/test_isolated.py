"""Extraction in a child process: the same text, and a page that hangs or ends the child costs itself alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.build import build_corpus
from pipeline.config import CorpusConfig
from pipeline.extract.isolated import IsolatedExtractor, PageRefusedError
from pipeline.extract.text import extract_decoded
from tests.conftest import PROSE, page, write_warc


def test_child_gives_the_same_text_and_is_replaced() -> None:
    html = page(PROSE["river"]).decode()
    with IsolatedExtractor("trafilatura", 60) as isolated:
        expected = extract_decoded(html, extractor="trafilatura")
        assert isolated.extract(html, None) == expected
        first = isolated._child
        assert first is not None
        assert isolated.extract(html, None) == expected
        assert isolated._child is first
        os.kill(first.pid, signal.SIGSTOP)  # as a page on which the extractor hangs
        isolated.seconds = 0.5
        with pytest.raises(PageRefusedError, match=r"extractor_timeout.*0\.5 s"):
            isolated.extract(html, None)
        isolated.seconds = 60
        assert isolated.extract(html, None) == expected
        os.kill(isolated._child.pid, signal.SIGKILL)  # type: ignore[union-attr]
        with pytest.raises(PageRefusedError, match=r"extractor_crash.*-9"):
            isolated.extract(html, None)
        isolated.extract(html, None)
        last = isolated._child
    assert last is not None
    with pytest.raises(ProcessLookupError):  # leaving ends the child
        os.kill(last.pid, 0)


def test_page_larger_than_the_connection_holds() -> None:
    large = "é" * 3_000_000
    with IsolatedExtractor("none", 60) as isolated:
        assert isolated.extract(large, None).text == large


def test_page_over_the_time_is_a_recorded_drop(tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", {"https://a.example/1": page(PROSE["fox"] * 500)})
    write_warc(tmp_path / "b.warc.gz", {"https://a.example/2": b"Text needs no extractor."}, media="text/plain")
    config = CorpusConfig.model_validate(
        {
            "name": "test",
            "stages": ["extract"],
            "sources": [{"name": "web", "type": "warc", "paths": ["*.warc.gz"]}],
            "extract": {"extractor": "trafilatura", "isolate_seconds": 0.001},
            "executor": {"workers": 1},
        }
    )
    build_corpus(config, tmp_path / "run", tmp_path)
    (dropped,) = [
        row for path in tmp_path.glob("run/corpus/01-extract/dropped/*") for row in pq.read_table(path).to_pylist()
    ]
    found = (dropped["url"], dropped["rule"], dropped["threshold"])
    assert found == ("https://a.example/1", "extractor_timeout", 0.001)
