"""Extractor `fast`: main text by a trained model over blocks, in numba from the page's bytes to the text's.

tree.py reads the page, blocks.py cuts it, features.py describes the blocks, model.py scores them, render.py writes the
chosen ones. Where the model leaves nearly nothing of a page that has text, or is unsure of more text than it is sure
of (cards of a listing, parts of a landing page), a wider choice is made (`wide`); a page with more elements than
MAX_ELEMENTS is decided by link density alone (`budget`). No time-out, no state: the same page always gives the same
text. Figures: docs/benchmarks.md, benchmarks/extraction.py.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from pipeline.kernels.html.blocks import Blocks, cut_blocks
from pipeline.kernels.html.features import describe
from pipeline.kernels.html.forest import load, score
from pipeline.kernels.html.render import render
from pipeline.kernels.html.tree import parse

Array = np.ndarray[Any, Any]
MAX_ELEMENTS = 300_000
FEW_BYTES = 200  # below this, less than WIDE_SHARE of the page's text is too little to be its main text
WIDE_SHARE = 0.3
WIDE_SCORE = 0.15
SURE_SHARE = 0.5  # of the text with WIDE_SCORE and more; below this share of it the model's choice is unsure
MUCH_BYTES = 1000  # of such text; a page with less is a notice among navigation rather than a listing
PROSE_BYTES = 40  # shortest block that counts where nothing but link density decides

Path = Literal["model", "wide", "budget"]


class Extraction(NamedTuple):
    """Text, and by which way it was found."""

    text: str
    path: Path


def extract(page: str) -> Extraction:
    """Main text of a decoded HTML page; "" where the page has no text."""
    data = np.frombuffer(page.encode("utf-8", "replace"), np.uint8)
    tree = parse(data)
    blocks = cut_blocks(data, tree)
    if len(tree.tag) > MAX_ELEMENTS:
        return Extraction(render(data, tree, blocks, _prose(blocks)), "budget")
    scores = score(tree, blocks, describe(data, tree, blocks))
    chosen, path = choose(blocks, scores, load()[2])
    return Extraction(render(data, tree, blocks, chosen), path)


def choose(blocks: Blocks, scores: Array, threshold: float) -> tuple[Array, Path]:
    """Blocks scored as main text, or a wider choice where they are too little of the page."""
    chosen = scores >= threshold
    wide = chosen | (scores >= WIDE_SCORE)
    size, plausible, total = (int(blocks.bytes[which].sum()) for which in (chosen, wide, slice(None)))
    sure = size >= SURE_SHARE * plausible or plausible < MUCH_BYTES
    if sure and (size >= FEW_BYTES or size >= WIDE_SHARE * total):
        return chosen, "model"
    if plausible < FEW_BYTES:
        wide |= _prose(blocks)
    return wide, "wide"


def _prose(blocks: Blocks) -> Array:
    """Blocks of some length that are not mostly links."""
    return (blocks.bytes >= PROSE_BYTES) & (blocks.links * 2 < blocks.bytes)
