"""Connected components by stars equal those of union-find, whatever the graph and the number of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PipelineError
from pipeline.config import DedupConfig
from pipeline.dedup.components import components, distinct, large_star, small_star
from pipeline.dedup.joins import forest, link_file, read_links, save_links
from pipeline.dedup.table import Table
from pipeline.kernels.minhash import I64
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport

NODES = 200


class Edges(Pass):
    """Given edges, as a join leaves them: a part each task."""

    def __init__(self, build: Build[Any], pairs: I64, links: int) -> None:
        super().__init__("edges", build.workdir, 3)
        self.pairs, self.links = pairs, links

    def process(self, rank: int, task: Task) -> TaskReport:
        path = link_file(self.workdir, self.name, rank)
        return TaskReport(files=[save_links(path, forest(self.pairs[rank::3]), self.links)])


def stars(folder: Path, pairs: I64, partition_bytes: int) -> tuple[I64, int, int]:
    """(node and centre of each node that is not a centre, number of tasks, number of passes)."""
    build = Build(DedupConfig(partition_bytes=partition_bytes), (), 1, folder, (), folder / "work", "mark")
    table = Table(build.workdir, [NODES], 112)
    steps = components(build, table, [edges := Edges(build, pairs, -(-NODES * 4 * 48 // partition_bytes))])
    for rank in range(3):
        edges.run(rank=rank)
    passes = 0
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            found = [end.value.star(rank) for rank in range(end.value.tasks)]
            return np.concatenate(found), end.value.tasks, passes
        passes += 1
        for rank in reversed(range(step.tasks)):
            step.run(rank=rank)


@pytest.mark.parametrize("shape", ["chain", "stars", "random", "none", "all"])
@pytest.mark.parametrize("partition_bytes", [10**6, 10_000])
def test_components_equal_union_find(tmp_path: Path, shape: str, partition_bytes: int) -> None:
    draw = np.random.default_rng(1)
    order = draw.permutation(NODES)
    pairs = {
        "chain": np.column_stack([order[:-1], order[1:]]),
        "stars": np.column_stack([order, order // 7 * 7]),
        "random": draw.integers(0, NODES, (NODES // 2, 2)),
        "none": np.empty((0, 2), np.int64),
        "all": draw.integers(0, NODES, (20 * NODES, 2)),
    }[shape]
    found, tasks, passes = stars(tmp_path, pairs, partition_bytes)
    assert tasks == -(-NODES * 192 // partition_bytes)
    assert found[np.argsort(found[:, 0])].tolist() == forest(pairs).tolist()
    assert passes == 1 if tasks == 1 else passes < 20


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_stars_alternate_until_they_are_settled(edges: list[tuple[int, int]]) -> None:
    pairs = np.array([edge for edge in edges if edge[0] != edge[1]], np.int64).reshape(-1, 2)
    links, settled = distinct(np.concatenate([pairs, pairs[:, ::-1]])), False
    for _ in range(20):
        links, unsettled = large_star(links)
        if settled := not unsettled:
            break
        links = small_star(distinct(links))
        links = distinct(np.concatenate([links, links[:, ::-1]]))
    assert settled
    assert sorted(map(tuple, links.tolist())) == sorted(map(tuple, forest(pairs).tolist()))


def test_a_damaged_file_of_links_is_named(tmp_path: Path) -> None:
    path = save_links(tmp_path / "links.bin", np.array([[5, 1], [7, 2]]), 3)
    assert sum(len(read_links(path, rank, 3)) for rank in range(3)) == 4
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(PipelineError, match=r"links\.bin: damaged intermediate file"):
        read_links(path, 0, 3)
