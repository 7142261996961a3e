"""Posts and comments: which blocks are readers' comments, and which lines name the author and time of a post.

Both are told by names of elements alone (class, id, itemprop, role), since software for forums and comments names its
parts. A line is short, lies in a small element of a post or comment that is named after a user, a byline or a date (or
is a <time>, <cite> or <address>). Linear in elements and blocks.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.compiled import Array, kernel
from pipeline.kernels.html.attributes import NAME_GROUPS, TAGS
from pipeline.kernels.html.features import Elements
from pipeline.kernels.html.tree import Blocks, Tree

LINE_BYTES, LINES_BYTES = 120, 400  # longest line; most text of the element that holds a post's lines
AHEAD = 4  # blocks from a line to its post's text
_COMMENT, _POST, _FORUM, _USER, _META = (
    np.uint32(1 << list(NAME_GROUPS).index(name)) for name in ("comment", "post", "forum", "user", "meta")
)
_POSTS, _LINES = _COMMENT | _POST | _FORUM, _USER | _META
_CONTROLS, _LINE_TAGS = np.zeros(256, np.bool_), np.zeros(256, np.bool_)
_CONTROLS[[TAGS[name] for name in ("form", "button", "label", "nav")]] = True
_LINE_TAGS[[TAGS[name] for name in ("time", "cite", "address")]] = True


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
def find_author_lines(tree: Tree, blocks: Blocks, elements: Elements, forum: bool) -> Array:
    """bool (blocks,): lines that name author and time of a post (forum: the page is a thread) or of a comment."""
    size = len(tree.tag)
    posts, lines = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    out = np.zeros(len(blocks.element), np.bool_)
    kinds = _POSTS if forum else _COMMENT
    for at in range(1, size):
        above, names = tree.parent[at], tree.names[at]
        posts[at] = posts[above] or (names & kinds) != 0
        named = (names & _LINES) != 0 or _LINE_TAGS[tree.tag[at]]
        lines[at] = lines[above] or (posts[at] and named and elements.text[at] <= LINES_BYTES)
    for block in range(len(out)):
        # The line's innermost element may be inline: <span class="author">.
        at = tree.run_element[blocks.first[block]]
        out[block] = lines[at] and blocks.bytes[block] <= LINE_BYTES and blocks.seen[block]
    return out


@kernel()
def keep_lines(lines: Array, chosen: Array) -> None:
    """Choose the lines right before chosen text."""
    text = len(chosen) + AHEAD + 1
    for block in range(len(chosen) - 1, -1, -1):
        if lines[block]:
            chosen[block] |= text - block <= AHEAD
        elif chosen[block]:
            text = block
