"""`dedup.substrings` on files: equal to brute force, whatever the tasks, and every cut byte kept where it says."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.dedup.winnowed
from pipeline.config import Substrings
from pipeline.dedup.joins import ClusterPass
from pipeline.dedup.stage import passes
from pipeline.dedup.substrings import Cutter, PassageJoinPass, without
from pipeline.dedup.table import Table
from pipeline.dedup.winnowed import PassagePass
from pipeline.documents import document_id
from tests.pipeline.dedup.test_dedup_stage import Row, make_build, result, run, write

LENGTH = 8
LETTERS = ["ab", "é", "aé", "日本", "🦊", "x"]


def rows_of(texts: list[str]) -> list[Row]:
    names = [{"path": "web/a", "offset": i, "id": document_id("web/a", i)} for i in range(len(texts))]
    return [{"text": text, "source": "web", "url": ""} | name for text, name in zip(texts, names, strict=True)]


def brute_force(texts: list[str], keep: str, length: int = LENGTH) -> list[str]:
    """What is left of the texts by the definition in `pipeline.dedup.substrings`."""
    data = [text.encode() for text in texts]
    places = defaultdict(list)
    for number, text in enumerate(data):
        for i in range(len(text) - length + 1):
            places[text[i : i + length]].append((number, i))
    cut = [[False] * len(text) for text in data]
    for found in places.values():
        first = found[0]
        later = [place for place in found if place[0] != first[0] or place[1] >= first[1] + length]
        for number, i in found if keep == "none" and later else later:
            cut[number][i : i + length] = [True] * length
    rest = []
    for text, marks in zip(texts, cut, strict=True):
        ends = np.cumsum([0, *(len(character.encode()) for character in text)])
        left = [c for c, low, high in zip(text, ends, ends[1:], strict=False) if not all(marks[low:high])]
        rest.append("".join(left).strip())
    return rest


TEXTS = st.lists(
    st.lists(st.sampled_from(LETTERS) | st.sampled_from(["abababab", "xy日本é 🦊aé", "0123456789abcdef"]), max_size=25).map(
        "".join
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def small_segments() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.dedup.winnowed, "SEGMENT_BYTES", 60)
        yield


def cut_texts(folder: Path, texts: list[str], files: int, **settings: Any) -> list[str]:
    build = make_build(folder, write(folder / "in", rows_of(texts), files), exact=False, minhash=False, **settings)
    found = run(build)
    return [found[row["id"]]["text"] for row in rows_of(texts)]


@settings(max_examples=1000, deadline=None)
@given(texts=TEXTS, keep=st.sampled_from(["one", "none"]), files=st.integers(1, 3))
def test_equal_to_brute_force(small_segments: None, texts: list[str], keep: str, files: int) -> None:
    with TemporaryDirectory() as folder:
        expected = brute_force(texts, keep)
        found = cut_texts(Path(folder), texts, files, substrings={"min_bytes": LENGTH, "keep": keep}, partition_bytes=2000)
        assert [rest or text for rest, text in zip(expected, texts, strict=True)] == [
            kept if rest else text for kept, rest, text in zip(found, expected, texts, strict=True)
        ]
