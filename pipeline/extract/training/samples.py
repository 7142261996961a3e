"""Pages ready for training: what the model sees of each block, and what share of the block is main text.

Labels. Of a reviewed page (WCXB), the share of a block's words that the best alignment of page and reviewed text has in
common, so a word of the navigation that the text happens to hold too does not count; what the text has in another
order is found by runs of three words. Of a page of trafilatura's evaluation, the blocks that hold a snippet, and no
others. Of made pages the part that a block's text begins in.
Weights. Pages count nearly alike, however long, and of a long page MOST_BLOCKS blocks are drawn. A reviewed page counts
as much as the F1 that the best labels give it: where its text is not in the page, every label is wrong.
"""

from __future__ import annotations

import hashlib

import numpy as np

from pipeline.extract.decoding import decode, tidy
from pipeline.extract.training import Gold, Reviewed, fold_of, fold_space, word_f1, words
from pipeline.extract.training.made_pages import Part
from pipeline.kernels.compiled import Array
from pipeline.kernels.html.alignment import align
from pipeline.kernels.html.fast import choose, describe_page, read
from pipeline.kernels.html.rendering import render

MOST_BLOCKS = 150
PAGE_POWER = 0.7  # a page's weight is the sum of its blocks' to the power of one less this
SNIPPET_PAGES, MADE_PAGES = 1.0, 0.15  # weight of a page, a reviewed one having 1


class Sample:
    """A page: blocks' rows, labels and weights; `picked` are the blocks to train on, `fold` the group it is in."""

    gold: Gold | None = None
    kind = ""
    weight = 1.0

    def __init__(self, name: str, page: str, group: str = "") -> None:
        self.name, self.fold = name, fold_of(group or name)
        data, tree, blocks = read(page)
        self.page = describe_page(data, tree, blocks)
        self.blocks = blocks
        self.count = len(blocks.first)
        self.labels = np.zeros(self.count)
        self.weights = 0.2 + np.minimum(blocks.bytes, 600) / 200.0

    def finish(self) -> None:
        """Draw the blocks to train on, and bring the weights to the page's."""
        self.weights[~self.blocks.seen] = 0.0
        self.weights *= self.weight / max(float(self.weights.sum()), 1.0) ** PAGE_POWER
        self.picked = np.flatnonzero(self.weights > 0)
        if len(self.picked) > MOST_BLOCKS:
            seed = int.from_bytes(hashlib.blake2b(self.name.encode(), digest_size=4).digest(), "big")
            self.weights *= len(self.picked) / MOST_BLOCKS
            drawn = np.random.Generator(np.random.PCG64(seed)).permutation(len(self.picked))[:MOST_BLOCKS]
            self.picked = self.picked[np.sort(drawn)]

    def render(self, chosen: Array) -> str:
        return tidy(render(self.page.data, self.page.tree, self.blocks, chosen))

    def texts(self) -> list[str]:
        """The text of each block."""
        return [self.render(np.arange(self.count) == i) for i in range(self.count)]

    def extracted(self, scores: Array) -> tuple[str, float]:
        """(text, expected F1) of the choice that scores lead to."""
        chosen, expected = choose(self.blocks, scores)
        return self.render(chosen), expected


class ReviewedSample(Sample):
    def __init__(self, name: str, page: Reviewed) -> None:
        super().__init__(name, decode(page.body)[0], page.domain)
        self.kind, self.truth = page.kind, page.text
        self.labels = shares([words(text) for text in self.texts()], words(page.text))
        self.weight = word_f1(self.render(self.labels > 0.5), page.text)
        self.finish()


class MadeSample(Sample):
    """A made page: a block has the label of the part in which its text begins."""

    weight = MADE_PAGES

    def __init__(self, name: str, parts: list[Part]) -> None:
        super().__init__(name, "".join(html for html, _ in parts), name.rpartition("-")[0])
        self.parts = parts
        ends = np.cumsum([len(html.encode()) for html, _ in parts])
        first = self.page.tree.run_start[self.blocks.first]
        labels = [parts[i][1] for i in np.searchsorted(ends, first, side="right")]
        self.labels = np.array([label or 0.0 for label in labels])
        self.weights *= np.array([label is not None for label in labels])
        self.finish()


class SnippetSample(Sample):
    """A page labelled where it holds snippets."""

    weight = SNIPPET_PAGES

    def __init__(self, name: str, body: bytes, gold: Gold) -> None:
        super().__init__(name, decode(body)[0])
        self.gold = gold
        for number, text in enumerate(map(fold_space, self.texts())):
            wanted = any(fold_space(snippet) in text for snippet in gold["with"])
            unwanted = any(fold_space(snippet) in text for snippet in gold["without"])
            self.labels[number] = float(wanted)
            self.weights[number] = max(self.weights[number], 1.0) if wanted != unwanted else 0.0
        self.finish()


def shares(blocks: list[list[str]], truth: list[str]) -> Array:
    """Share of each block's words that the reviewed text holds."""
    numbers: dict[str, int] = {}
    page = np.array([numbers.setdefault(word, len(numbers)) for block in blocks for word in block], np.int32)
    text = np.array([numbers.setdefault(word, len(numbers)) for word in truth], np.int32)
    sizes = np.array([len(block) for block in blocks], np.int64)
    in_page, in_text = align(page, text)
    rest = text[~in_text].tolist()
    runs = set(zip(rest, rest[1:], rest[2:], strict=False))
    found = np.bincount(np.repeat(np.arange(len(blocks)), sizes), in_page, len(blocks))
    for block, end in enumerate(np.cumsum(sizes).tolist()):
        if sizes[block] >= 3 and found[block] * 2 < sizes[block]:
            within = page[end - sizes[block] : end].tolist()
            hits = np.zeros(len(within), bool)
            for at, run in enumerate(zip(within, within[1:], within[2:], strict=False)):
                hits[at : at + 3] |= run in runs
            found[block] = max(found[block], hits.sum())
    return found / np.maximum(sizes, 1)
