"""Extractor `fast`: main text by a trained model over blocks, in numba from the page's bytes to the text's.

tree.py reads the page and cuts it into blocks, features.py describes them. Here two small ensembles of regression
trees score them: the first scores each block by itself; the second sees the first's scores of the blocks around it,
along its ancestors and of the page, which makes decisions coherent. Trained by the package `training`, which records
data and split; `weights.npz` beside this file holds the trees. The chosen blocks are rendered as plain text
(rendering.py) or markdown (markdown.py).

Where the model leaves nearly nothing of a page that has text, or is unsure of more text than it is sure of (cards of a
listing, parts of a landing page), a wider choice is made (`wide`); a page with more elements than MAX_ELEMENTS is
decided by link density alone (`budget`). A heading that is a link or a button is kept with the text that it heads. A
page whose text is nearly all hidden, or within <noscript>, is read with it. No time-out, no state: the same page always
gives the same text. Figures: docs/benchmarks.md, benchmarks/extraction.py.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pipeline.kernels.compiled import Array, kernel
from pipeline.kernels.html.attributes import NAME_GROUPS, TAGS
from pipeline.kernels.html.features import LEVELS, describe
from pipeline.kernels.html.markdown import render_markdown
from pipeline.kernels.html.rendering import render
from pipeline.kernels.html.tree import UNSEEN, Blocks, Tree, cut_blocks, parse
from pipeline.kernels.html.trees import Nodes, Trees, by_feature, run_trees

MAX_ELEMENTS = 300_000
FEW_BYTES = 200  # below this, less than WIDE_SHARE of the page's text is too little to be its main text
LITTLE_BYTES = 1000
SHOWN_TIMES = 4  # a page that hides more than this times what it shows is read with what it hides
WIDE_SHARE = 0.3
WIDE_SCORE = 0.15
SURE_SHARE = 0.5  # of the text with WIDE_SCORE and more; below this share of it the model's choice is unsure
MUCH_BYTES = 1000  # of such text; a page with less is a notice among navigation rather than a listing
PROSE_BYTES = 40  # shortest block that counts where nothing but link density decides

WEIGHTS = Path(__file__).with_name("weights.npz")
AROUND = (-4, -3, -2, -1, 1, 2, 3, 4)
CONTEXT = 1 + len(AROUND) + LEVELS + 5
_COMMENT = np.uint32(1 << list(NAME_GROUPS).index("comment"))
_CONTROLS = np.zeros(256, np.bool_)
_CONTROLS[[TAGS[name] for name in ("form", "button", "label", "nav")]] = True
_BUTTON = TAGS["button"]
_LEVELS = np.zeros(256, np.int64)  # of headings
_LEVELS[[TAGS[name] for name in ("h1", "h2", "h3", "h4", "h5", "h6", "summary")]] = np.arange(1, 8)
Choice = Literal["model", "wide", "budget"]


class Form(NamedTuple):
    """How a page is written: as markdown, with targets of links, with images, with its comments."""

    markdown: bool = False
    links: bool = False
    images: bool = False
    comments: bool = False


TEXT = Form()


class Extraction(NamedTuple):
    """Text, and the path by which its blocks were chosen."""

    text: str
    path: Choice


def extract(page: str, form: Form = TEXT) -> Extraction:
    """Main text of a decoded HTML page; "" where the page has no text."""
    data, tree, blocks = read(page)
    if len(tree.tag) > MAX_ELEMENTS:
        return Extraction(_write(data, tree, blocks, _prose(blocks), form), "budget")
    scores = score(tree, blocks, describe(data, tree, blocks))
    chosen, path = choose(blocks, scores, load()[2])
    _keep_headings(tree, blocks, chosen)
    if form.comments:
        chosen |= find_comments(tree, blocks)
    return Extraction(_write(data, tree, blocks, chosen, form), path)


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


def all_text(page: str) -> str:
    """All text of a decoded HTML page, or of a part of one."""
    data, tree, blocks = _read(page)
    return render(data, tree, blocks, np.ones(len(blocks.first), bool))


def _write(data: Array, tree: Tree, blocks: Blocks, chosen: Array, form: Form) -> str:
    if form.markdown:
        return render_markdown(data, tree, blocks, chosen, links=form.links, images=form.images)
    return render(data, tree, blocks, chosen)


def choose(blocks: Blocks, scores: Array, threshold: float) -> tuple[Array, Choice]:
    """Blocks scored as main text, or a wider choice where they are too little of the page."""
    chosen = (scores >= threshold) & blocks.seen
    wide = chosen | (scores >= WIDE_SCORE) & blocks.seen
    size, plausible, total = (int(blocks.bytes[which].sum()) for which in (chosen, wide, blocks.seen))
    sure = size >= SURE_SHARE * plausible or plausible < MUCH_BYTES
    if sure and (size >= FEW_BYTES or size >= WIDE_SHARE * total):
        return chosen, "model"
    if plausible < FEW_BYTES:
        wide |= _prose(blocks)
    return wide, "wide"


@kernel()
def find_comments(tree: Tree, blocks: Blocks) -> Array:
    """bool (blocks,): readers' comments, by the names of elements around them, without their buttons and links."""
    inside = np.zeros(len(tree.tag), np.bool_)
    out = np.zeros(len(blocks.element), np.bool_)
    for at in range(1, len(tree.tag)):
        inside[at] = (inside[tree.parent[at]] or (tree.names[at] & _COMMENT) != 0) and not _CONTROLS[tree.tag[at]]
    for block in range(len(out)):
        plain = blocks.links[block] * 2 < blocks.bytes[block]
        out[block] = inside[blocks.element[block]] and plain and blocks.seen[block]
    return out


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


def _prose(blocks: Blocks) -> Array:
    """Blocks of some length that are not mostly links."""
    return blocks.seen & (blocks.bytes >= PROSE_BYTES) & (blocks.links * 2 < blocks.bytes)


@cache
def load() -> tuple[Trees, Trees, float]:
    """(first stage, second stage, score from which a block is main text)."""
    with np.load(WEIGHTS) as arrays:
        stages = [Nodes(*(arrays[f"{stage}_{name}"] for name in Nodes._fields)) for stage in ("first", "second")]
        return by_feature(stages[0]), by_feature(stages[1]), float(arrays["threshold"])


def score(tree: Tree, blocks: Blocks, features: Array) -> Array:
    """float32 (blocks,): probability that a block is main text."""
    first, second, _ = load()
    alone = run_trees(first, features)
    scores: Array = run_trees(second, np.hstack([features, context(tree, blocks, alone)]))
    return scores


def context(tree: Tree, blocks: Blocks, scores: Array) -> Array:
    """float32 (blocks, CONTEXT): first-stage scores around each block."""
    out = np.zeros((len(scores), CONTEXT), np.float32)
    _context(tree.parent, blocks, scores, out)
    return out


@kernel()
def _context(parent: Array, blocks: Blocks, scores: Array, out: Array) -> None:
    count = len(scores)
    total = np.zeros(len(parent), np.float64)
    good = np.zeros(len(parent), np.float64)
    for block in range(count):
        total[blocks.element[block]] += blocks.bytes[block]
        good[blocks.element[block]] += blocks.bytes[block] * scores[block]
    for at in range(len(parent) - 1, 0, -1):
        total[parent[at]] += total[at]
        good[parent[at]] += good[at]
    all_good = max(good[0], 1e-9)
    good_before = 0.0
    since_good = 1000
    for block in range(count):
        row = out[block]
        row[0] = scores[block]
        i = 1
        for step in AROUND:
            other = block + step
            row[i] = scores[other] if 0 <= other < count else -1
            i += 1
        here = blocks.element[block]
        size = blocks.bytes[block] + 0.0
        for _ in range(LEVELS):
            while here > 0 and total[here] <= size:
                here = parent[here]
            size = total[here]
            row[i] = good[here] / max(size, 1.0)
            i += 1
        row[i] = good[0] / max(total[0], 1.0)
        row[i + 1] = np.log1p(good[0])
        row[i + 2] = good_before / all_good
        row[i + 3] = since_good
        good_before += blocks.bytes[block] * scores[block]
        since_good = 0 if scores[block] >= 0.5 else since_good + 1
    since_good = 1000
    for block in range(count - 1, -1, -1):
        out[block, CONTEXT - 1] = since_good
        since_good = 0 if scores[block] >= 0.5 else since_good + 1
