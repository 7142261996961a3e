"""Connected components of all edges, in memory that `partition_bytes` bounds: passes `stars-0`, `stars-1`, ...

The alternating algorithm of Kiveris et al. 2014 ("Connected Components in MapReduce and Beyond"). A link is an edge as
one of its ends, the owner, has it; a task has all links of its owners, a share of the nodes by hash. In even passes
each owner connects its greater neighbours to the least node that it knows (large star), in odd ones its lesser
neighbours and itself (small star). When every node is either the centre of greater ones or has one link, to such a
centre, the components are complete: each a star around its least node. A corpus of one task needs one pass, as
union-find does it at once; a large one some three to seven. What must fit into a task is one star with all its nodes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from pipeline.config import DedupConfig
from pipeline.dedup.joins import forest, link_file, link_tasks, read_links, save_links
from pipeline.dedup.table import Table
from pipeline.kernels.clusters import NO_PAIRS
from pipeline.kernels.minhash import I64
from pipeline.stage import Build
from pipeline.task import Pass, Task, TaskReport


class StarPass(Pass):
    """One pass: a large star where its number is even, a small one where it is odd."""

    def __init__(self, build: Build[DedupConfig], table: Table, number: int, sources: Sequence[Pass]) -> None:
        super().__init__(f"stars-{number}", build.workdir, link_tasks(table, build.settings))
        self.large, self.sources = number % 2 == 0, sources

    def reads(self, rank: int) -> Sequence[Path]:
        return [self.workdir / f".scratch/{each.name}/*" for each in self.sources]

    def process(self, rank: int, task: Task) -> TaskReport:
        files = [link_file(self.workdir, each.name, part) for each in self.sources for part in range(each.tasks)]
        links = np.concatenate([NO_PAIRS, *(read_links(path, rank, self.tasks) for path in files)])
        unsettled = 0
        if self.tasks == 1:
            links = forest(links)
        elif self.large:
            links, unsettled = large_star(distinct(links))
        else:
            links = small_star(distinct(links))
        path = save_links(link_file(self.workdir, self.name, rank), links, self.tasks, both=not self.large)
        return TaskReport(files=[path], notes={"unsettled": unsettled})

    def star(self, rank: int) -> I64:
        """After the last pass: int64 (n, 2), (node, centre) of the components whose centre is an owner of the task."""
        links = [read_links(link_file(self.workdir, self.name, rank), part, self.tasks) for part in range(self.tasks)]
        return np.concatenate(links)


def components(build: Build[DedupConfig], table: Table, sources: Sequence[Pass]) -> Generator[Pass, None, StarPass]:
    """The passes, until the components are complete; returns the last one."""
    for number in count():
        step = StarPass(build, table, number, sources)
        yield step
        if step.large and not step.total("notes")["unsettled"]:
            return step
        sources = [step]
    raise AssertionError


def distinct(links: I64) -> I64:
    """Different links, sorted by owner, then by the other end."""
    links = links[np.lexsort((links[:, 1], links[:, 0]))]
    first: I64 = links[np.concatenate([[True], (links[1:] != links[:-1]).any(axis=1)])[: len(links)]]
    return first


def large_star(links: I64) -> tuple[I64, int]:
    """(links from each greater neighbour to the least node that its owner knows, owners not settled before that)."""
    owner, other = links.T
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    lesser = other < owner
    if not len(starts):
        return NO_PAIRS, 0
    sizes = np.diff(starts, append=len(owner))
    unsettled = (np.add.reduceat(lesser, starts, dtype=np.int64) > 0) & (sizes > 1)
    least = np.repeat(np.minimum(owner[starts], other[starts]), sizes)
    return np.column_stack([other, least])[~lesser], int(unsettled.sum())


def small_star(links: I64) -> I64:
    """Links from each owner and its lesser neighbours to the least of these."""
    owner, other = links.T
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    least = np.repeat(other[starts], np.diff(starts, append=len(owner)))
    rest = other != least
    return np.concatenate([links[starts], np.column_stack([other, least])[rest]])
