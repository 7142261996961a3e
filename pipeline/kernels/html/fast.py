"""Extractor `fast`: main text by a trained model of the page, in numba from the page's bytes to the text's.

tree.py reads the page and cuts it into blocks, features.py and whole.py describe them, with what declared.py finds the
page to say of itself. Two ensembles of regression trees decide: one tells the kind of page (KINDS) from the page's own
row, the other scores each block from its row and the kinds. Trained by the package `training`, which records data and
split; `weights.npz` beside this file holds the trees.

Of the blocks in order of their scores, as many are chosen as give the best F1 that the scores let expect: where the
model is sure, those with about one half and more; where it is not, a wider choice. The F1 expected, brought to the
scale of the F1 that pages of the training data have, is the confidence; a page below UNSURE counts as `wide`. A page
with more elements than MAX_ELEMENTS is decided by link density alone (`budget`). A heading that is a link or a button
is kept with the text that it heads. A page whose text is nearly all hidden, or within <noscript>, is read with it. No
time-out, no state: the same page always gives the same text. Figures: docs/benchmarks.md, benchmarks/extraction.py.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, kernel
from pipeline.kernels.html.attributes import TAGS
from pipeline.kernels.html.declared import read_declared
from pipeline.kernels.html.features import Elements, describe
from pipeline.kernels.html.markdown import render_markdown
from pipeline.kernels.html.rendering import render
from pipeline.kernels.html.threads import find_author_lines, find_comments, keep_lines
from pipeline.kernels.html.tree import UNSEEN, Blocks, Tree, cut_blocks, parse
from pipeline.kernels.html.trees import Nodes, Trees, by_feature, run_trees, walk_trees
from pipeline.kernels.html.whole import describe_whole, page_row

MAX_ELEMENTS = 300_000
FEW_BYTES, LITTLE_BYTES = 200, 1000
SHOWN_TIMES = 4  # a page that hides more than this times what it shows is read with what it hides
UNSURE = 0.6  # confidence below which a choice counts as wide
PROSE_BYTES = 40  # shortest block that counts where nothing but link density decides

KINDS = ("article", "collection", "documentation", "forum", "listing", "product", "service")
_ARTICLE = KINDS.index("article")
WEIGHTS = Path(__file__).with_name("weights.npz")
# The trees' sums times this, in articles and elsewhere: out of fold they are surer than right where a page has many
# parts, and less sure where one text fills it (docs/log.md, 2026-11-26).
SURENESS_IN_ARTICLES, SURENESS = 1.2, 0.8
EVEN, LEAST_ALIKE = 0.4, 3  # share of the mean in the scores of that many blocks with the same path, but in articles
TRUTHS = 32  # levels at which main text may begin
_BUTTON = TAGS["button"]
_LEVELS = np.zeros(256, np.int64)  # of headings
_LEVELS[[TAGS[name] for name in ("h1", "h2", "h3", "h4", "h5", "h6", "summary")]] = np.arange(1, 8)

Choice = Literal["model", "wide", "budget"]
Authors = Literal["auto", "drop", "keep"]


class Form(NamedTuple):
    """How a page is written: as markdown, with targets of links, with images, with its comments; and with the lines
    that name a post's author and time (`auto`: those that the model chooses)."""

    markdown: bool = False
    links: bool = False
    images: bool = False
    comments: bool = False
    authors: Authors = "auto"


TEXT = Form()


class Extraction(NamedTuple):
    """Text, the path by which its blocks were chosen, kind of page, and the F1 to expect ("" and 0 by `budget`)."""

    text: str
    path: Choice
    kind: str = ""
    confidence: float = 0.0


class Page(NamedTuple):
    """A page read and described. rows: float32 (blocks, columns of FEATURES and WHOLE); row: page_row's."""

    data: Array
    tree: Tree
    blocks: Blocks
    rows: Array
    elements: Elements
    row: Array


class Model(NamedTuple):
    """kind: trees of the kind of page. block: of the blocks. expected, actual: expected F1, and the F1 that pages have
    with it."""

    kind: Nodes
    block: Trees
    expected: Array
    actual: Array


def extract(page: str, form: Form = TEXT, model: Model | None = None) -> Extraction:
    """Main text of a decoded HTML page; "" where the page has no text. model: other trees than `load`'s."""
    data, tree, blocks = read(page)
    if len(tree.tag) > MAX_ELEMENTS or len(blocks.first) == 0:
        return Extraction(_write(data, tree, blocks, _prose(blocks), form), "budget")
    model = model or load()
    described = describe_page(data, tree, blocks)
    kinds = walk_trees(model.kind, described.row[0], len(KINDS))
    scores = score(model.block, described, kinds)
    chosen, expected = choose(blocks, scores)
    _keep_headings(tree, blocks, chosen)
    kind = KINDS[int(np.argmax(kinds))]
    confidence = float(np.interp(expected, model.expected, model.actual))
    if form.comments:
        chosen |= find_comments(tree, blocks)
    if form.authors != "auto":
        lines = find_author_lines(tree, blocks, described.elements, kind == "forum")
        if form.authors == "drop":
            chosen &= ~lines
        else:
            keep_lines(lines, chosen)
    path: Choice = "wide" if confidence < UNSURE else "model"
    return Extraction(_write(data, tree, blocks, chosen, form), path, kind, confidence)


def read(page: str) -> tuple[Array, Tree, Blocks]:
    """(bytes, tree, blocks) of a decoded page, its hidden text shown where it is nearly all of the page, and what it
    says without scripts where it says little else (Discourse, for one)."""
    data, tree, blocks = _read(page)
    if _seen(blocks) < LITTLE_BYTES and "<noscript" in page:
        other = _read(page.replace("<noscript", "<div").replace("</noscript", "</div"))
        if _seen(other[2]) > SHOWN_TIMES * max(_seen(blocks), FEW_BYTES // 2):
            data, tree, blocks = other
    every = int(blocks.bytes.sum())
    if every >= FEW_BYTES and every > SHOWN_TIMES * _seen(blocks):
        tree.run_flags[:] &= ~np.uint8(UNSEEN)
        blocks.seen[:] = True
    return data, tree, blocks


def _read(page: str) -> tuple[Array, Tree, Blocks]:
    data = np.frombuffer(page.encode("utf-8", "replace"), np.uint8)
    tree = parse(data)
    return data, tree, cut_blocks(data, tree)


def _seen(blocks: Blocks) -> int:
    return int(blocks.bytes[blocks.seen].sum())


def describe_page(data: Array, tree: Tree, blocks: Blocks) -> Page:
    """What the model looks at, but for the kind of page."""
    declared = read_declared(data, tree)
    features, elements = describe(data, tree, blocks, declared.pairs, declared.texts)
    rows = np.hstack([features, describe_whole(data, tree, blocks, features, elements)])
    return Page(data, tree, blocks, rows, elements, page_row(tree, blocks, rows, declared.kinds))


def all_text(page: str) -> str:
    """All text of a decoded HTML page, or of a part of one."""
    data, tree, blocks = _read(page)
    return render(data, tree, blocks, np.ones(len(blocks.first), bool))


def _write(data: Array, tree: Tree, blocks: Blocks, chosen: Array, form: Form) -> str:
    if form.markdown:
        return render_markdown(data, tree, blocks, chosen, links=form.links, images=form.images)
    return render(data, tree, blocks, chosen)


def choose(blocks: Blocks, scores: Array) -> tuple[Array, float]:
    """(Blocks, F1 by bytes) of the choice that has the best F1 if scores are probabilities."""
    seen = np.where(blocks.seen, scores, np.float32(0))
    cut, best = best_cut(blocks.bytes, seen, np.argsort(-seen, kind="stable"))
    return (seen >= cut) & blocks.seen, best


def _prose(blocks: Blocks) -> Array:
    """Blocks of some length that are not mostly links."""
    return blocks.seen & (blocks.bytes >= PROSE_BYTES) & (blocks.links * 2 < blocks.bytes)


@cache
def load(weights: Path = WEIGHTS) -> Model:
    """The trained trees."""
    with np.load(weights) as arrays:
        kind, block = (Nodes(*(arrays[f"{of}_{name}"] for name in Nodes._fields)) for of in ("kind", "block"))
        return Model(kind, by_feature(block), arrays["expected"], arrays["actual"])


def score(trees: Trees, page: Page, kinds: Array) -> Array:
    """float32 (blocks,): probability that a block is main text. kinds: that of each kind of page."""
    article = kinds[_ARTICLE] >= 0.5
    scores = run_trees(trees, with_kinds(page, kinds), SURENESS_IN_ARTICLES if article else SURENESS)
    if not article:
        paths = page.elements.path[page.blocks.element]
        _even_out(page.blocks.bytes, paths, np.argsort(paths, kind="stable"), scores)
    return scores


def with_kinds(page: Page, kinds: Array) -> Array:
    """Rows of a page's blocks with the probabilities of its kinds."""
    return np.hstack([page.rows, np.repeat(kinds[None].astype(np.float32), len(page.rows), 0)])


@kernel(**UNCOUNTED)
def _even_out(sizes: Array, paths: Array, order: Array, scores: Array) -> None:
    """Bring the scores of blocks with the same path closer together: cells of cards, lines of posts. order: by path."""
    start = 0
    for i in range(1, len(order) + 1):
        if i == len(order) or paths[order[i]] != paths[order[start]]:
            good = total = 0.0
            for j in range(start, i):
                good += max(sizes[order[j]], 1) * scores[order[j]]
                total += max(sizes[order[j]], 1)
            if i - start >= LEAST_ALIKE:
                for j in range(start, i):
                    scores[order[j]] += np.float32(EVEN * (good / total - scores[order[j]]))
            start = i


@kernel()
def best_cut(sizes: Array, scores: Array, order: Array) -> tuple[float, float]:
    """(Lowest score chosen, F1) of the choice with the best expected F1. order: of the scores, from the highest.

    Half of the expectation takes each block for itself. The other half takes main text to be all blocks above some
    level, any one as likely as another: what is alike in a page (its reviews, its cards) is in or out together.
    """
    total, truths = 0.0, np.zeros(TRUTHS)
    for i in range(len(scores)):
        total += sizes[i] * scores[i]
        for level in range(int(TRUTHS * scores[i] + 0.5)):
            truths[level] += sizes[i]
    good = size = best = 0.0
    cut = 2.0
    for k in range(len(order)):
        i = order[k]
        good += sizes[i] * scores[i]
        size += sizes[i]
        if size == 0 or (k + 1 < len(order) and scores[order[k + 1]] == scores[i]):
            continue
        f1 = good / (size + total)
        for level in range(TRUTHS):
            f1 += min(size, truths[level]) / (size + truths[level]) / TRUTHS
        if f1 > best:
            best, cut = f1, scores[i]
    return cut, best


@kernel()
def _keep_headings(tree: Tree, blocks: Blocks, chosen: Array) -> None:
    """Choose headings that are links or buttons, right before chosen text of the same part of the page."""
    below = 0  # level of the heading after the block if it was chosen here, 99 for other chosen text, 0 for none
    for block in range(len(chosen) - 1, -1, -1):
        at, following, below = blocks.element[block], below, 0
        if chosen[block]:
            below = 99
            continue
        button = False
        for _ in range(4):
            if at == 0 or _LEVELS[tree.tag[at]]:
                break
            button |= tree.tag[at] == _BUTTON
            at = tree.parent[at]
        level = _LEVELS[tree.tag[at]]
        if level == 0 or level >= following or not (button or blocks.links[block] * 10 >= blocks.bytes[block] * 9):
            continue
        for _ in range(3):  # up to the part that holds more than the heading
            at = tree.parent[at]
            if blocks.element[block + 1] < tree.end[at]:
                chosen[block] = True
                below = level
            if at == 0 or below or (block > 0 and blocks.element[block - 1] >= at):
                break
