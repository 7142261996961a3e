"""Charsets, and the text that the extractors leave of a page."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.extract import decode, extract_text
from pipeline.extract.markup import html_of_xhtml
from pipeline.extract.text import extract_decoded
from pipeline.extract.training import evaluation_pages, snippet_f1, trained_on
from pipeline.kernels.html import fast, trees
from pipeline.kernels.html.attributes import TAGS
from pipeline.kernels.html.declared import read_declared
from pipeline.kernels.html.features import FEATURES, describe
from pipeline.kernels.html.rendering import render
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
        (
            "<p>on <rel-time>1 May</rel-time>, <g-e>☆</g-e> <u-n>Bo</u-n> and <unknown>x</unknown></p>",
            "on 1 May, ☆ Bo and x",
        ),
        ("<h2>The <my-code>f()</my-code> call</h2><td>a <x-y>b</x-y></td>", "The f() call\n\na b"),
        (
            "<div>Return <emu-val>true</emu-val>.</div><ul><li>Use <x-y>f</x-y> first</ul>",
            "Return true.\n\n- Use f first",
        ),
        ("<x-card><h2>a</h2><p>b</p></x-card><x-card><p>c</p></x-card>", "a\n\nb\n\nc"),
        ("<p>a<span hidden>b</span>c<b style='DISPLAY : none'>d</b><i aria-hidden=true>e</i></p>", "ac"),
        ("<div style='color:red;visibility: hidden'><p>a</p></div><p>b</p><template><p>c</p></template>", "b"),
        ("<noscript>a</noscript><p hidden=until-found>b<p aria-hidden=false>c<br hidden>d", "b\n\nc\nd"),
        ("<x-y><template shadowrootmode=open><p>a</p></template></x-y>", "a"),
        ("<pre>a\n&nbsp; b</pre><p><code>if x:<br>&nbsp;&nbsp;y&nbsp;= 1</code>", "a\n  b\n\nif x:\n  y = 1"),
        ("<p>line<br>&nbsp;&nbsp;&#160; verse<br>&nbsp;end a&nbsp;&nbsp;b", "line\n   verse\nend a b"),
    ],
)
def test_plain_text(html: str, expected: str) -> None:
    assert whole(html) == expected


TEX = "<annotation encoding='application/x-tex'>a^2 &lt; b</annotation>"
MATHML = "<msup><mi>a</mi><mn>2</mn></msup><mo>&lt;</mo><mi>b</mi>"
MATH = f"<math><semantics><mrow>{MATHML}</mrow>{TEX}<annotation-xml>a2b</annotation-xml></semantics></math>"


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (MATH, r"\(a^2 < b\)"),
        (f"<span class=katex><span>{MATH}</span><span aria-hidden='true'><b>a</b>2b</span></span>", r"\(a^2 < b\)"),
        (f"<i><span style='display: none;'>{MATH}</span><img alt=a aria-hidden=true></i>", r"\(a^2 < b\)"),
        (f"<math>{MATHML}</math>", "a2<b"),
        ("<mjx-container><mjx-math aria-hidden=true><mjx-mi>a</mjx-mi></mjx-math>"
         f"<mjx-assistive-mml><math>{MATHML}</math>"
         "</mjx-assistive-mml></mjx-container>", "a2<b"),
        (f"<span class=MathJax><nobr aria-hidden=true>a2b</nobr><span><math>{MATHML}</math></span></span>",
         "a2<b"),
        ("<span class=MathJax_Preview>[a2]</span><span class=MathJax><nobr>a2</nobr></span>"
         "<script type='math/tex'>a^2</script>", r"\(a^2\)"),
        ("<script type='math/tex; mode=display'>a^2</script>", r"\(a^2\)"),
        (r"\(a^2\)", r"\(a^2\)"),
    ],
)  # fmt: skip
def test_a_formula_comes_once(html: str, expected: str) -> None:
    assert whole(f"<p>Let {html} be {html}, so</p>") == f"Let {expected} be {expected}, so"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("<tr><th>a<th>b<th>c<tr><td>1<td><td>3<tr><td><td>&nbsp;<td>3<tr><td>1<td><img src=x><td>",
         "a | b | c\n1 |  | 3\n |  | 3\n1 |  | "),
        ("<tr><td>a<td>b<tr><td><td>2<tr><td hidden>x<td>3", "a | b\n | 2\n | 3"),
        ("<tr><th>a<th colspan=2>b<th>c<tr><td>1<td>2<td>3<td>4", "a | b |  | c\n1 | 2 | 3 | 4"),
        ("<tr><th>a<th>b<th>c<tr><td rowspan=2>1<td>2<td>3<tr><td>5<td>6<tr><td>7<td>8<td>9",
         "a | b | c\n1 | 2 | 3\n | 5 | 6\n7 | 8 | 9"),
        ("<tr><td><td>layout<td>", "layout"),
        ("<tr><th>a<td colspan=9999 rowspan=9999>b<tr><td>c", "a | b\nc"),
    ],
)  # fmt: skip
def test_empty_cells_keep_their_column(rows: str, expected: str) -> None:
    assert whole(f"<table>{rows}</table>") == expected


def kept(*parts: str) -> str:
    body = "".join(parts)
    return extract_text(f"<html><body><article><h1>Rivers</h1>{body}</article></body></html>".encode())


def test_hidden_text_is_left_out_where_there_is_other_text() -> None:
    shown, other = f"<p>{PROSE['river']}</p>" * 2, PROSE["fox"]
    for hides in ("hidden", "style='display:none'", "style='visibility:hidden'", "aria-hidden='true'"):
        text = kept(shown, f"<div {hides}><p>{other}</p></div>", shown)
        assert "four streams" in text
        assert "hawthorn" not in text
        assert "hawthorn" in kept(f"<div {hides}><p>{other}</p><p>{other}</p></div>")
    assert "JavaScript" not in kept(shown, "<noscript>You need to enable JavaScript to run this.</noscript>", shown)
    assert kept("<noscript>You need to enable JavaScript to run this app.</noscript>") == "Rivers"


@pytest.mark.parametrize(
    "heading",
    ["<h2><a href='https://x.test/'>{}</a></h2>", "<h3><a href='#q'>{}</a></h3>", "<h3><button>{}</button></h3>",
     "<div><h2><a href=/y>{}</a></h2></div>"],
)  # fmt: skip
def test_headings_that_are_links_or_buttons_are_kept(heading: str) -> None:
    paragraph = f"<p>{PROSE['river']}</p>"
    text = kept(paragraph, heading.format("How long is it?"), paragraph, heading.format("How deep?"), paragraph)
    assert "How long is it?" in text
    assert "How deep?" in text
    summary = "<details><summary><a href='#z'>How wide is it?</a></summary><p>{}</p></details>"
    assert "How wide is it?" in kept(paragraph, summary.format(PROSE["fox"]), paragraph)


@pytest.mark.parametrize(
    "empty",
    ["<script src='a.js'/>", "<style/>", "<iframe src='x>y'/>", "<textarea name=\"t\" />", "<a id='t'/>", "<div/>",
     "<svg/>", "<select/>", "<?php echo '<p>' ?>", "<script>//<![CDATA[\n if (a<b) '</script>' //]]></script>"],
)  # fmt: skip
def test_xhtml(empty: str) -> None:
    head = "<?xml version='1.0' encoding='utf-8'?><html xmlns='http://www.w3.org/1999/xhtml'><head><title/></head>"
    code = "<p><![CDATA[if a < b && c > d then stop]]><br/>now</p>"
    text = extract_text(f"{head}<body>{empty}<p>{PROSE['river']}</p>{code}</body></html>".encode())
    assert "four streams" in text
    assert "if a < b && c > d then stop\nnow" in text
    assert "<!-- <a/> -->" in html_of_xhtml("<!-- <a/> --><b/>")


def test_text_that_is_only_data() -> None:
    river, fox = PROSE["river"], PROSE["fox"]
    ld = json.dumps({"@graph": [{"headline": "x"}, {"@type": "Article", "articleBody": f"{river}\n\n{fox}"}]})
    page = f"<html><body><div id=root></div><script type='application/ld+json'>{ld}</script></body></html>"
    assert extract_decoded(page).method == "embedded"
    assert "four streams" in extract_text(page.encode())
    data = json.dumps({"props": {"id": 7, "body": f"<p>{river}</p><p>{fox}</p>", "slug": "a-b"}})
    page = f"<html><body><div id=__next>Loading</div><script id='__NEXT_DATA__' type='application/json'>{data}</script>"
    assert extract_text(page.encode()).startswith(river.split()[0])
    assert "hawthorn" in extract_text(page.encode())
    assert "hawthorn" not in extract_text(page.replace("Loading", f"<p>{river}</p>" * 3).encode())
    for broken in ("{", "[" * 100_000, '{"articleBody": "\\ud800 ' + "word " * 50 + '"}', "1" * 5000):
        extract_text(f"<script type='application/ld+json'>{broken}</script>".encode()).encode()


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
    declared = read_declared(data, tree)
    features = describe(data, tree, cut_blocks(data, tree), declared.pairs, declared.texts)[0]
    assert features.shape[1] == len(FEATURES) == len(set(FEATURES))
    assert np.isfinite(features).all()


def test_what_a_page_says_of_itself() -> None:
    structured = '{"@type": "Product", "name": "Oak desk", "description": "Cut by hand\\nin caf\\u00e9 style"}'
    head = f"<meta property=og:type content=product><script type='application/ld+json'>{structured}</script>"
    head += "<meta name=description content='A desk of oak'>"
    body = "<h1>Oak desk</h1><p>A desk, cut by hand in café style<p>Oak: desk by A"
    data = np.frombuffer(f"{head}{body}".encode(), np.uint8)
    tree = parse(data)
    declared = read_declared(data, tree)
    features = describe(data, tree, cut_blocks(data, tree), declared.pairs, declared.texts)[0]
    shares = features[:, [FEATURES.index("description"), FEATURES.index("name")]]
    assert shares == pytest.approx(np.array([[0, 1], [6 / 7, 0], [0, 1 / 3]]))
    assert declared.kinds.sum() == 2


MARKUP = st.lists(
    st.sampled_from(
        ["<p>", "</p>", "<div class='content'>", "</div>", "<a href=/>", "</a>", "<li>", "<td>", "<table>", "</table>",
         "<script>", "</script>", "<!--", "-->", "text, more text.", "&amp;", "<pre>", "</pre>", "<br>", "é", "<", "\0",
         "<h1>", "<x-y>", "</x-y>", "<math>", "<annotation encoding=tex>", "<p hidden>", "<tr>",
         "<td colspan=9 rowspan=99>", "<script type=math/tex>", "<span class=mathjax>", "&nbsp;", "<code>",
         "<template>", "<meta name=description content='x y'>", "<script type=application/ld+json>{\"name\": \"a\\",
         "<x-y z", "'", "\"", ">", "</", "\ufeff", "\ud800"]
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
        nodes = trees.Nodes(*(stored[f"block_{name}"] for name in trees.Nodes._fields))
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
    found = trees.run_trees(trees.by_feature(nodes), rows)
    assert found.tolist() == np.array(expected, np.float32).tolist()
    assert trees.run_trees(trees.by_feature(nodes), rows[:1]).tolist() == found[:1].tolist()


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
