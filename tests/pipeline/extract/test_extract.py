"""Charsets, and the text that the extractors leave of a page."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.extract import decode, extract_text
from pipeline.extract.training import evaluation_pages, snippet_f1, trained_on
from pipeline.kernels.html import fast
from pipeline.kernels.html.attributes import TAGS
from pipeline.kernels.html.fast import render
from pipeline.kernels.html.features import FEATURES, describe
from pipeline.kernels.html.tree import MAX_DEPTH, Tree, cut_blocks, parse
from tests.conftest import PROSE, page

KOREAN = "강물은 마을 위의 늪에서 시작된다. 처음에는 한 걸음보다 넓지 않다."
TAG_NAMES = {number: name for name, number in TAGS.items()}


def whole(html: str) -> str:
    """All text of a page, rendered as the fast extractor renders what it chose."""
    data = np.frombuffer(html.encode(), np.uint8)
    tree = parse(data)
    blocks = cut_blocks(data, tree)
    return render(data, tree, blocks, np.ones(len(blocks.first), bool))


def outline(html: str) -> str:
    """The tree as nested tag names."""
    tree = parse(np.frombuffer(html.encode(), np.uint8))

    def show(at: int) -> str:
        inside = " ".join(show(i) for i in range(1, len(tree.tag)) if tree.parent[i] == at)
        return TAG_NAMES.get(int(tree.tag[at]), "root" if at == 0 else "?") + (f"({inside})" if inside else "")

    return show(0)


@pytest.mark.parametrize("extractor", ["fast", "resiliparse", "trafilatura"])
def test_main_text_without_chrome(extractor: str) -> None:
    text = extract_text(page(PROSE["river"]), extractor=extractor)
    assert "four streams" in text
    assert "Contact" not in text


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>one<p>two<div>three</div>", "root(p p div)"),
        ("<ul><li>a<li>b<ul><li>c</ul><li>d</ul>", "root(ul(li li(ul(li)) li))"),
        ("<dl><dt>a<dd>b<dt>c</dl>", "root(dl(dt dd dt))"),
        ("<table><tr><td>1<td>2<tr><th>3</table>x", "root(table(tr(td td) tr(th)))"),
        ("<div><b>a</div>b</b>", "root(div(b))"),
        ("<table><tr><td></div>a</table>", "root(table(tr(td)))"),
        ("<p>a<br>b<img src=x>c</p>", "root(p)"),
        ("<div><script>if (a<b) '</div>'</script><p>x</div>", "root(div(p))"),
        ("<script type='text/x-handlebars-template'><p>x</p></script>", "root(script-template(p))"),
        ("<!-- <p> --><p title='a > b'>x</p>", "root(p)"),
        ("<p><svg><title/><style/><path d=x/></svg></p><svg/><p>x</p>", "root(p(svg) p)"),
    ],
)
def test_tree(html: str, expected: str) -> None:
    assert outline(html) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>wo<b>r</b>d and <i>an</i>other</p>", "word and another"),
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ("<p>one<br>two<br><br>three</p>", "one\ntwo\n\nthree"),
        ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "- a\n  - b\n- c"),
        ("<table><tr><th>n<th>m<tr><td>1<td>2</table>", "n | m\n1 | 2"),
        ("<pre>\ndef f(x):\n    return x &lt; 2\n\n</pre>", "def f(x):\n    return x < 2\n\n"),
        ("<p>AT&amp;T &eacute;&#233;&nbsp;&#160;x&shy;y &amp;lt;</p>", "AT&T éé xy &lt;"),
        ("<p>a <!-- no --> b<script>no</script><style>no</style> c</p>", "a b c"),
        ("<dl><dt>term<dd>meaning</dl>", "term\nmeaning"),
        ("<p>a < b and c</p>", "a < b and c"),
        ("<div><my-part>one</my-part><my-part>two</my-part></div>", "one\n\ntwo"),
    ],
)
def test_plain_text(html: str, expected: str) -> None:
    assert whole(html) == expected


def test_script_templates_are_content() -> None:
    body = "".join(f"<p>{part}</p>" for part in PROSE.values())
    html = (
        f"<html><body><div id='content'></div><script type='text/x-handlebars-template'>{body}</script></body></html>"
    )
    assert "four streams" in extract_text(html.encode())
    assert "hawthorn" in extract_text(html.encode())


def test_page_with_little_text_keeps_it() -> None:
    assert extract_text(b"<html><body><div>Closed until Monday for repairs, sorry.</div></body></html>") != ""
    assert extract_text(b"") == ""


def test_budget_decides_by_links_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "MAX_ELEMENTS", 3)
    found = fast.extract(page(PROSE["fox"]).decode())
    assert found.path == "budget"
    assert "hawthorn" in found.text
    assert "Contact" not in found.text


def test_any_nesting_ends_soon() -> None:
    """Shapes that cost a quadratic parser minutes; each is 2 MB."""
    began = time.monotonic()
    for part in ("<div>", "<p><b>", "</a>", "<a href=x>", "<li>", "<table><td>", "<!--", "<", "&", "<br>"):
        html = part * (2_000_000 // len(part))
        tree = parse(np.frombuffer(html.encode(), np.uint8))
        assert depth(tree) <= MAX_DEPTH
    assert time.monotonic() - began < 60  # a hang, not a speed


def depth(tree: Tree) -> int:
    depths = np.zeros(len(tree.tag), np.int64)
    for at in range(1, len(tree.tag)):
        depths[at] = depths[tree.parent[at]] + 1
    return int(depths.max())


def test_features_are_finite_and_named() -> None:
    data = np.frombuffer(page(PROSE["bread"]), np.uint8)
    tree = parse(data)
    features = describe(data, tree, cut_blocks(data, tree))
    assert features.shape[1] == len(FEATURES) == len(set(FEATURES))
    assert np.isfinite(features).all()


MARKUP = st.lists(
    st.sampled_from(
        ["<p>", "</p>", "<div class='content'>", "</div>", "<a href=/>", "</a>", "<li>", "<td>", "<table>", "</table>",
         "<script>", "</script>", "<!--", "-->", "text, more text.", "&amp;", "<pre>", "</pre>", "<br>", "é", "<", "\0",
         "<h1>", "<x-y z", "'", "\"", ">", "</", "\ufeff", "\ud800"]
    ),
    max_size=60,
).map("".join)  # fmt: skip


@given(MARKUP)
@settings(deadline=None)
def test_any_markup_gives_text_once(html: str) -> None:
    found = fast.extract(html)
    assert found == fast.extract(html)
    found.text.encode("utf-8")
    assert len(found.text) <= 4 * len(html) + 100


def test_trees_give_what_walking_down_them_gives() -> None:
    with np.load(fast.WEIGHTS) as stored:
        nodes = fast.Nodes(*(stored[f"first_{name}"] for name in fast.Nodes._fields))
    rows = np.random.default_rng(3).choice(nodes.threshold, (70, int(nodes.feature.max()) + 1))
    rows[1, ::2] = np.inf
    expected = []
    for row in rows:
        total = 0.0
        for root in nodes.roots:
            at = root
            while nodes.feature[at] >= 0:
                at = nodes.left[at] if row[nodes.feature[at]] <= nodes.threshold[at] else nodes.right[at]
            total += float(nodes.threshold[at])  # in double precision, as the kernel
        expected.append(1 / (1 + np.exp(-total)))
    found = fast.run_trees(fast.by_feature(nodes), rows)
    assert found.tolist() == np.array(expected, np.float32).tolist()
    assert fast.run_trees(fast.by_feature(nodes), rows[:1]).tolist() == found[:1].tolist()


def test_charset_order() -> None:
    meta = f'<html><head><meta charset="euc-kr"></head><body>{KOREAN}</body></html>'
    assert KOREAN in decode(meta.encode("euc-kr"), "euc-kr")[0]  # header
    assert KOREAN in decode(meta.encode("euc-kr"))[0]  # meta
    assert KOREAN in decode(KOREAN.encode("utf-16"), "latin-1")[0]  # a byte-order mark beats the header
    assert KOREAN in decode((KOREAN * 8).encode("euc-kr"))[0]  # detection
    assert KOREAN in decode(KOREAN.encode(), "no-such-charset")[0]


@given(st.binary(max_size=400), st.sampled_from([None, "utf-8", "euc-kr", "x-unknown"]))
@settings(deadline=None)
def test_any_bytes_give_text(body: bytes, charset: str | None) -> None:
    extract_text(body, charset=charset).encode("utf-8")


def test_real_pages_score_as_trained(shared: Path) -> None:
    """A sample of the half that was not trained on; benchmarks/extraction.py has all of it."""
    held_out = [(n, pair) for n, pair in sorted(evaluation_pages(shared).items()) if not trained_on(n)][::5]
    texts = {name: extract_text(body) for name, (body, _) in held_out}
    assert snippet_f1(texts, {name: gold for name, (_, gold) in held_out})["f1"] >= 0.9
