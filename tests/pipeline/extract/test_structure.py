"""Markdown: structure, verbatim code, and no word less than plain text has."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from pipeline.extract import extract_text
from pipeline.extract.decoding import decode
from pipeline.extract.training import evaluation_pages
from pipeline.kernels.html.fast import Form, read
from pipeline.kernels.html.markdown import render_markdown
from pipeline.kernels.html.rendering import render
from tests.conftest import PROSE, page
from tests.pipeline.extract.test_extract import MARKUP


def markdown(html: str, *, links: bool = False, images: bool = False) -> str:
    """All of a page as markdown."""
    data, tree, blocks = read(html)
    return render_markdown(data, tree, blocks, np.ones(len(blocks.first), bool), links=links, images=images)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<h1>One</h1><p>a <b>b</b><h3>Two<br>lines</h3>", "# One\n\na b\n\n### Two lines"),
        ("<ul><li>a<ul><li>b</ul><li>c</ul><p>d", "- a\n  - b\n- c\n\nd"),
        ("<ol><li>a<p>more</p><li>b<ul><li>c</ul></ol>", "1. a\n\n   more\n2. b\n   - c"),
        ("<blockquote><p>a<p>b<blockquote>c</blockquote></blockquote>", "> a\n>\n> b\n>\n> > c"),
        ("<ul><li><pre>x\n  y</pre></ul>", "- ```\n  x\n    y\n  ```"),
        ("<p>Call <code>f(x)</code> or wo<code>r</code>d", "Call `f(x)` or word"),
        ("<p>so <math><annotation encoding=application/x-tex>a &lt; b</annotation></math>.", "so $a < b$."),
        ("<table><tr><th>n<th>m<tr><td>1<td>a|b<tr><td><td>2</table>",
         "| n | m |\n| --- | --- |\n| 1 | a\\|b |\n|  | 2 |"),
        ("<table><tr><th>n<th>m<tr><td rowspan=2>1<td>2<tr><td>3<tr><td colspan=2>4</table>",
         "| n | m |\n| --- | --- |\n| 1 | 2 |\n| 1 | 3 |\n| 4 | 4 |"),
        ("<table><tr><td><pre>1</pre><td><pre>a = 1</pre></table>", "```\n1\n```\n\n```\na = 1\n```"),
        ("<p>one<br>two", "one\ntwo"),
    ],
)  # fmt: skip
def test_structure(html: str, expected: str) -> None:
    assert markdown(html) == expected


@pytest.mark.parametrize(
    ("tags", "language"),
    [
        ("<pre><code class='language-c++'>{}</code></pre>", "c++"),
        ("<div class='highlight-python notranslate'><div class=highlight><pre><span></span>{}</pre></div></div>",
         "python"),
        ("<pre class='brush: java;'>{}</pre>", "java"),
        ("<pre class='prettyprint lang-config'>{}</pre>", "config"),
        ("<div class='highlight-default'><pre>{}</pre></div>", ""),
        ("<pre>{}</pre>", ""),
    ],
)  # fmt: skip
def test_code_is_verbatim(tags: str, language: str) -> None:
    code = "  if a &lt; b:\n\n\n\t<b>return</b>  \n    <i>x</i>  # ```\n\xa0end"
    plain = re.sub("<.*?>", "", code).replace("&lt;", "<")
    assert f"\n\n````{language}\n{plain}\n````\n\n" in markdown(f"<p>a</p>{tags.format(code)}<p>b</p>")


def test_links_and_images() -> None:
    html = "<p>See <a href='/x?a=1&amp;b=2'>this <b>page</b></a> <img src=i.png alt='a river'> now</p>"
    assert markdown(html) == "See this page now"
    assert markdown(html, links=True) == "See [this page](/x?a=1&b=2) now"
    assert markdown(html, images=True) == "See this page ![a river](i.png) now"


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text))


def loses_nothing(html: str) -> None:
    data, tree, blocks = read(html)
    everything = np.ones(len(blocks.first), bool)
    missing = words(render(data, tree, blocks, everything)) - words(render_markdown(data, tree, blocks, everything))
    assert not missing


@given(MARKUP)
@settings(deadline=None, max_examples=40)
def test_no_word_is_lost(html: str) -> None:
    loses_nothing(html)


def test_no_word_of_real_pages_is_lost(shared: Path) -> None:
    for _, (body, _) in sorted(evaluation_pages(shared).items())[::40]:
        loses_nothing(decode(body)[0])


def test_format_is_asked_for() -> None:
    body = page(f"<h2>Rivers</h2><p>{PROSE['river']}</p>" * 3)
    assert "## Rivers" in extract_text(body, form=Form(markdown=True))
    assert "##" not in extract_text(body)


@pytest.mark.parametrize("extractor", ["fast", "trafilatura"])
def test_comments_are_kept_on_demand(extractor: str) -> None:
    comment = "<div class='comment'><b>Ann</b><p>I walked along the hedgerow there in the rain last week.</p></div>"
    body = page(f"<p>{PROSE['river']}</p>" * 3 + f"<div id='comments' class='comments'>{comment * 3}</div>")
    assert "hedgerow there" in extract_text(body, extractor=extractor, form=Form(comments=True))


POST = (
    "<article class=post><div class=post-header><span class=author>{name}</span> <time>May {day}, 2024</time></div>"
    "<div class=post-body><p>{text}</p></div></article>"
)


@pytest.mark.parametrize("around", ["<div class='forum topic'>{}</div>", "<p>{text}</p><div id=comments>{}</div>"])
def test_author_lines_are_left_out_or_kept(around: str) -> None:
    names, texts = ["Hedgehog77", "Otterly", "Wagtail9"], list(PROSE.values())
    posts = [POST.format(name=name, day=day, text=texts[day - 1]) for day, name in enumerate(names, 1)]
    body = page(around.format("".join(posts), text=PROSE["river"]))
    for authors, kept in (("keep", True), ("drop", False)):
        text = extract_text(body, form=Form(comments=True, authors=authors))
        assert [name in text and f"May {day}, 2024" in text for day, name in enumerate(names, 1)] == [kept] * 3
        if kept:
            assert text.index(names[0]) < text.index(names[1]) < text.index(names[2])
