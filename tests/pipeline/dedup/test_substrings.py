"""`dedup.substrings` on files: equal to brute force, whatever the tasks, and every cut byte kept where it says."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.dedup.winnowed
from pipeline.dedup.substrings import Cutter, PassageJoinPass
from pipeline.dedup.table import Table, save
from pipeline.dedup.winnowed import PassagePass
from pipeline.documents import document_id, read_rows
from tests.pipeline.dedup.test_dedup_stage import Row, make_build, run, write

LETTERS = ["ab", "é", "aé", "日本", "🦊", "x"]


def rows_of(texts: list[str]) -> list[Row]:
    names = [{"path": "web/a", "offset": i, "id": document_id("web/a", i)} for i in range(len(texts))]
    return [{"text": text, "source": "web", "url": ""} | name for text, name in zip(texts, names, strict=True)]


def brute_force(texts: list[str], keep: str, length: int) -> list[str]:
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
    st.lists(st.sampled_from([*LETTERS, "abababab", "xy日本é 🦊aé", "0123456789abcdef", "x" * 30]), max_size=25).map(
        "".join
    ),
    max_size=6,
)
KEEP = st.sampled_from(["one", "none"])


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: a thousand corpora are some 50,000 files."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.dedup.winnowed, "SEGMENT_BYTES", 200)
        yield Path(folder)


def cut_alone(folder: Path, texts: list[str], keep: str, files: int, length: int) -> tuple[list[str], list[Row]]:
    """(what is left of the texts, recorded cuts) by the passes of `substrings` alone: nothing is a duplicate."""
    rows = rows_of(texts)
    chosen = {"min_bytes": length, "keep": keep}
    build = make_build(folder, write(folder / "in", rows, files), substrings=chosen, partition_bytes=6000)
    table = Table(build.workdir, [read_rows(path) for path in build.inputs], 0)
    ids = np.array([list(bytes.fromhex(row["id"])) for row in rows], np.uint8).reshape(-1, 16).view(np.uint64)
    rest_of_row = sum(width * np.dtype(kind).itemsize for kind, width in table.columns.values()) - 16
    for rank, (low, high) in enumerate(pairwise(table.starts.tolist())):
        save(table.segment(rank, 0) / "columns.bin", ids[low:high], np.zeros((high - low) * rest_of_row, np.uint8))
    passages = PassagePass(build, table, 0)
    for rank in range(files):
        passages.run(rank=rank)
    join = PassageJoinPass(build, passages)
    for rank in range(join.tasks):
        join.run(rank=rank)
    left = dict(enumerate(texts))
    cuts: list[Row] = []
    for rank, first in enumerate(table.starts[:-1].tolist()):
        cutter = Cutter(build, table, join, rank)
        rest = cutter.cut(first, pq.read_table(build.inputs[rank]))
        left |= {first + i: text for i, text in rest.items()}
        cuts += pq.read_table(cutter.close()).to_pylist()
    return list(left.values()), cuts


def check(memory: Path, texts: list[str], keep: str, files: int, length: int) -> None:
    with TemporaryDirectory(dir=memory) as folder:
        left, cuts = cut_alone(Path(folder), texts, keep, min(files, max(len(texts), 1)), length)
    assert left == brute_force(texts, keep, length)
    by_id = {row["id"]: text for row, text in zip(rows_of(texts), texts, strict=True)}
    order = list(by_id)
    for cut in cuts:
        data, kept_by, start = by_id[cut["id"]].encode(), cut["kept_by"], cut["kept_start"]
        assert cut["text"].encode() == data[cut["start"] : cut["end"]]
        assert (kept_by is None) == (keep == "none")
        if kept_by:
            assert by_id[kept_by].encode()[start:].startswith(cut["text"].encode())
            assert (order.index(kept_by), start) < (order.index(cut["id"]), cut["start"])


@pytest.mark.parametrize("corpora", [200, pytest.param(1000, marks=pytest.mark.long)])
def test_equal_to_brute_force(memory: Path, corpora: int) -> None:
    @settings(max_examples=corpora, deadline=None)
    @given(texts=TEXTS, keep=KEEP, files=st.integers(1, 2), length=st.sampled_from([8, 9, 13]))
    def compare(texts: list[str], keep: str, files: int, length: int) -> None:
        check(memory, texts, keep, files, length)

    compare()


def passage(number: int) -> str:
    """700 characters that are unlike those of any other number."""
    return "".join(random.Random(number).choices("abcdefgh äöü日本", k=700)).strip()


def stage_rows() -> list[Row]:
    """An article, its copy, one with a passage of it, one that is nothing but such a passage, and others around."""
    article = f"{passage(1)}. {passage(2)}. {passage(3)}"
    texts = [
        passage(0), article, article.upper().lower(), f"Quoted: {passage(2)} (end)", f" {passage(2)[20:440]}\n",
        f"{passage(4)}\nmenu\n{passage(3)}", f"{passage(5)}\nmenu\n", f"{passage(6)}\nmenu {passage(5)} {passage(6)}",
    ]  # fmt: skip
    return [row | {"url": "https://a.example/"} for row in rows_of(texts)]


def test_in_the_stage(tmp_path: Path) -> None:
    """Duplicates and recurring lines go first, and every cut names a document that has the passage."""
    rows = stage_rows()
    build = make_build(tmp_path, write(tmp_path / "in", rows, 2), substrings={}, line_documents=2)
    found = run(build)
    texts = {row["id"]: row["text"] for row in rows}
    order = list(texts)
    assert found[order[1]]["text"] == texts[order[1]]
    assert found[order[3]]["text"] == "Quoted: (end)"
    assert found[order[4]]["text"] == texts[order[4]]
    rules = [found[name].get("rule") for name in order]
    assert rules == [None, None, "exact_duplicate", None, "repeated_passages", None, None, None]
    cuts = [cut for file in sorted(build.workdir.glob("cuts/*")) for cut in pq.read_table(file).to_pylist()]
    kept_by = [(order.index(cut["id"]), order.index(cut["kept_by"])) for cut in cuts]
    assert kept_by == [(3, 1), (4, 1), (5, 1), (7, 5 + 1), (7, 7)]
    for cut in cuts[:3]:
        assert texts[cut["kept_by"]].encode()[cut["kept_start"] :].startswith(cut["text"].encode())


def test_the_same_for_any_number_of_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    rows = stage_rows()
    for number, (files, partition_bytes, segment) in enumerate([(1, 64_000_000, 1 << 20), (3, 1500, 800)]):
        monkeypatch.setattr(pipeline.dedup.winnowed, "SEGMENT_BYTES", segment)
        folder = tmp_path / str(number)
        build = make_build(folder, write(folder / "in", rows, files), substrings={}, partition_bytes=partition_bytes)
        found = run(build, lambda tasks: reversed(range(tasks)))
        cuts = [cut for file in sorted(build.workdir.glob("cuts/*")) for cut in pq.read_table(file).to_pylist()]
        results.append(([(name, found[name]["text"], found[name].get("rule")) for name in sorted(found)], cuts))
    assert results[0] == results[1]
    assert len(results[0][1]) > 3
