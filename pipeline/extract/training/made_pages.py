"""Labelled pages of the kinds that trafilatura's evaluation lacks: forum, product, listing, service, documentation.

Random layouts, and others in the manner of widespread software (LAYOUTS), around the prose in data/prose: what is main
text is known by construction. They keep the extractor from learning that every page is an article. Of each kind one
layout is held out of training, to compare extractors on; real pages of these kinds vary far more.

LAYOUTS are Jinja templates. A comment `<!--main-->`, `<!--either-->` or `<!--chrome-->` says whether the text behind it
is wanted, may be there or not, or is unwanted.
"""

# ruff: noqa: E501

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path

import jinja2

KINDS = ("forum", "product", "listing", "service", "documentation")
MAIN, CHROME, EITHER = 1.0, 0.0, None
Part = tuple[str, float | None]  # HTML and whether its text is main text
_MARKS = {"main": MAIN, "chrome": CHROME, "either": EITHER}
_MARK = re.compile("<!--(main|chrome|either)-->")
_TAG = re.compile("<[^>]*>")
_ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined)  # what is put in is escaped
_PROSE = Path(__file__).parents[3] / "data/prose"
_LINKS = [
    "Home",
    "News",
    "Shop",
    "Blog",
    "About",
    "Contact",
    "Help",
    "Forum",
    "Pricing",
    "Login",
    "Register",
    "Support",
    "Careers",
    "Press",
    "Events",
    "Jobs",
]
_STYLES: dict[str, list[str]] = {
    "nav": ["nav", "menu", "navbar", "main-navigation", "topnav", "hd", "c12"],
    "side": ["sidebar", "widget-area", "rail", "col-md-4", "secondary", "r2", "filters"],
    "main": ["content", "main", "main-content", "col-md-8", "primary", "wrapper", "page", "m1", "app"],
    "foot": ["footer", "site-footer", "bottom", "ft", "colophon", "f9"],
    "item": ["item", "card", "row", "post", "entry", "result", "tile", "box", "b7"],
    "text": ["text", "body", "content", "message", "description", "details", "copy", "t3", ""],
}

HELD_OUT = ("forum-topic", "product-tabs", "listing-table", "service-columns", "documentation-reference")

_HEAD = """<!DOCTYPE html><html lang="x"><head><meta charset="utf-8"><title>{{ title }} | {{ phrase(1, 2) }}</title>
<style>.a{color:red}</style><script>var a = "<p>no text</p>";</script></head><body class="{{ pick('page', 'home', 'tpl-3', 'no-js') }}">
"""
_TOP = """<header class="site-header"><a class="logo" href="/">{{ phrase(1, 2) }}</a><form class="search"><input><button>Search</button></form>
<nav class="main-nav"><ul>{{ links(number(4, 12)) }}</ul></nav></header>"""
_BAR = """<div id="top"><div class="inner"><a href="/">{{ phrase(1, 2) }}</a> <span>{{ links(number(3, 9), 'span') }}</span>
<span class="phone">Call us: 0800 {{ number(100, 999) }} {{ number(100, 999) }}</span></div></div>"""
_FOOT = """<footer><div class="row"><div class="col"><h4>{{ phrase(1, 2) }}</h4><ul>{{ links(number(4, 8)) }}</ul></div>
<div class="col"><h4>Newsletter</h4><p>{{ prose(1, 1) }}</p><form><input><button>Sign up</button></form></div></div>
<p class="copy">© 2025 {{ phrase(1, 2) }}. All rights reserved. <a href="/p">Privacy</a> <a href="/t">Terms</a></p></footer></body></html>"""
_PLAIN_FOOT = """<div class="bottom">{{ links(number(4, 20), 'span') }}<br>Copyright {{ phrase(1, 3) }} 2024</div></body></html>"""
_COOKIES = """<div id="consent" class="modal"><h2>We value your privacy</h2><p>{{ prose(1, 2) }}</p><button>Accept all</button><button>Reject</button></div>"""
_RELATED = """<section class="recommendations"><h2>{{ pick('You may also like', 'Related', 'Customers also viewed', 'Similar') }}</h2>{% for i in range(number(3, 8)) %}
<div class="card"><a href="/{{ i }}"><img alt=""><h3>{{ phrase(2, 5) }}</h3></a><span class="price">{{ money() }}</span></div>{% endfor %}</section>"""

LAYOUTS = {
    "forum-table": _HEAD + _BAR + """<div class="navbar">{{ links(4, 'span') }}</div><!--main--><h2 class="topic-title"><a href="/t">{{ title }}</a></h2><!--chrome-->
<div class="action-bar"><a href="/r" class="button">Post Reply</a> {{ number(2, 90) }} posts • <a href="?2">1</a> <a href="?3">2</a></div>
{% for i in range(number(2, 9)) %}<table class="tablebg" width="100%"><tr class="row{{ i % 2 }}"><td width="150" class="profile"><!--either--><b class="postauthor">{{ phrase(1, 1) }}</b>
<div class="postdetails">Joined: {{ number(1, 28) }} May 2011<br>Posts: {{ number(1, 9999) }}</div></td><td><div class="gensmall">Post subject: Re: {{ title }} — Posted: {{ number(1, 28) }} Jul 2014</div>
{% if i and chance(0.3) %}<blockquote class="uncited"><div>{{ prose(1, 2) }}</div></blockquote>{% endif %}<!--main--><div class="postbody">{{ prose(1, 4) }}<br><br>{{ prose(1, 3) }}</div><!--chrome-->
{% if chance(0.4) %}<div class="signature">_________<br>{{ phrase(3, 8) }}</div>{% endif %}</td></tr><tr><td><a href="#top">Top</a></td><td><a>Profile</a> <a>PM</a> <a>Quote</a></td></tr></table>{% endfor %}
<div>Users browsing this forum: No registered users and {{ number(1, 9) }} guests</div>""" + _PLAIN_FOOT,
    "forum-answers": _HEAD + _COOKIES + _TOP + """<div class="container"><div class="left-sidebar"><ol>{{ links(6) }}</ol></div><div id="content"><div id="question-header">
<!--main--><h1><a href="/q">{{ title }}?</a></h1><!--chrome--><a href="/ask">Ask Question</a></div><!--either--><div>Asked {{ number(2, 9) }} years ago. Viewed {{ number(1, 90) }}k times</div><!--chrome-->
{% for i in range(number(2, 6)) %}<div class="{{ 'question' if i == 0 else 'answer' }}"><div class="votecell"><button>Up</button><div>{{ number(0, 300) }}</div><button>Down</button></div>
<div class="postcell"><!--main--><div class="s-prose js-post-body" itemprop="text">{% for j in range(number(1, 4)) %}<p>{{ prose(1, 3) }}</p>{% if chance(0.3) %}<pre><code>{{ code() }}</code></pre>{% endif %}{% endfor %}</div><!--chrome-->
<div class="post-menu"><a>Share</a> <a>Edit</a> <a>Follow</a> <a>Flag</a></div><!--either--><div class="user-info">answered May {{ number(1, 30) }} at 10:12 <a href="/u">{{ phrase(1, 1) }}</a></div>
<ul class="comments-list">{% for j in range(number(0, 3)) %}<li><span class="comment-copy">{{ prose(1, 1) }}</span> – <a href="/u">{{ phrase(1, 1) }}</a></li>{% endfor %}</ul><!--chrome--></div></div>{% endfor %}</div>
<div id="sidebar"><h4>Related</h4>{% for i in range(number(4, 9)) %}<div class="spacer"><a href="/q{{ i }}">{{ phrase(4, 8) }}?</a></div>{% endfor %}</div></div>""" + _FOOT,
    "forum-topic": _HEAD + _TOP + """<main id="main-outlet"><div id="topic-title"><!--main--><h1>{{ title }}</h1><!--chrome--><div class="topic-category">{{ links(2, 'span') }}</div></div>
{% for i in range(number(2, 12)) %}<div itemscope class="topic-body crawler-post"><div class="crawler-post-meta"><!--either--><span class="creator"><a href="/u"><span>{{ phrase(1, 1) }}</span></a></span>
<time class="post-time">June {{ number(1, 30) }}, 2021, 9:{{ number(10, 59) }}am</time><span>{{ i + 1 }}</span><!--chrome--></div><!--main--><div class="post" itemprop="text">{% for j in range(number(1, 4)) %}<p>{{ prose(1, 3) }}</p>{% endfor %}
{% if chance(0.2) %}<ul>{% for j in range(3) %}<li>{{ phrase(3, 8) }}</li>{% endfor %}</ul>{% endif %}</div><!--chrome--><div class="post-likes">{{ number(1, 20) }} Likes</div></div>{% endfor %}
<div class="more-topics"><h3>Related topics</h3><table><tr><th>Topic</th><th>Replies</th><th>Activity</th></tr>{% for i in range(5) %}<tr><td><a href="/t">{{ phrase(3, 7) }}</a></td><td>{{ number(0, 40) }}</td><td>May 2020</td></tr>{% endfor %}</table></div></main>""" + _FOOT,
    "product-gallery": _HEAD + _COOKIES + _TOP + """<div class="woocommerce"><nav class="breadcrumb">{{ links(3, 'span') }}</nav><div class="product"><div class="gallery"><img alt="{{ title }}"></div><div class="summary">
<!--main--><h1 class="product_title">{{ title }}</h1><!--either--><p class="price">{{ money() }}</p><div class="rating">4.{{ number(0, 9) }} out of 5</div><!--main--><div class="short-description"><p>{{ prose(1, 3) }}</p></div><!--chrome-->
<form class="cart"><label>Quantity</label><input value=1><button>Add to cart</button></form><!--either--><div class="product_meta">SKU: {{ number(1000, 9999) }} Category: <a>{{ phrase(1, 2) }}</a></div><!--chrome--></div>
<div class="tabs-wrapper"><ul class="tabs"><li><a href="#d">Description</a></li><li><a href="#r">Reviews</a></li></ul><!--main--><div class="panel" id="d"><h2>Description</h2>{% for j in range(number(1, 4)) %}<p>{{ prose(1, 4) }}</p>{% endfor %}
<ul>{% for j in range(number(3, 7)) %}<li>{{ phrase(3, 9) }}</li>{% endfor %}</ul></div><!--either--><div id="r">{% for j in range(number(0, 4)) %}<div class="review"><strong>{{ phrase(1, 2) }}</strong><p>{{ prose(1, 2) }}</p></div>{% endfor %}</div><!--chrome--></div></div></div>""" + _RELATED + _FOOT,
    "product-shop": _HEAD + _BAR + """<div id="page"><div id="left"><div class="box"><h3>Categories</h3><ul>{{ links(number(8, 20)) }}</ul></div></div><div id="middle"><!--main--><h1>{{ title }}</h1><!--chrome-->
<table><tr><td><img alt=""></td><td><!--either--><span>Price: {{ money() }}</span><br>In stock<!--chrome--><br><a href="/cart">Buy now</a></td></tr></table><!--main--><div>{{ prose(2, 6) }}</div>
<h3>{{ pick('Specifications', 'Technical data', 'Details') }}</h3><table class="data">{% for j in range(number(4, 14)) %}<tr><td>{{ phrase(1, 2) }}</td><td>{{ phrase(1, 4) }}</td></tr>{% endfor %}</table>
<p><b>{{ phrase(1, 3) }}:</b> {{ prose(1, 2) }}</p><!--chrome--><div class="share">Share on: <a>Facebook</a> <a>Twitter</a></div></div></div>""" + _RELATED + _PLAIN_FOOT,
    "product-tabs": _HEAD + _TOP + """<div id="dp" class="a-container"><div id="leftCol"><img alt="{{ title }}"></div><div id="centerCol"><!--main--><div id="titleSection"><h1><span id="productTitle">{{ title }}</span></h1></div><!--chrome-->
<div id="byline"><a>Visit the store</a></div><!--either--><div id="averageReviews">4.{{ number(1, 9) }} ({{ number(10, 900) }} ratings)</div><div id="price">{{ money() }}</div><!--main-->
<div id="feature-bullets"><h2>About this item</h2><ul>{% for j in range(number(3, 7)) %}<li><span class="a-list-item">{{ prose(1, 1) }}</span></li>{% endfor %}</ul></div><!--chrome--></div><div id="rightCol"><div>{{ money() }}</div><div>Delivery {{ number(2, 9) }} May</div><button>Add to Basket</button><button>Buy now</button></div>
<!--main--><div id="detailBullets"><h2>Product details</h2><ul>{% for j in range(number(4, 9)) %}<li><span><span>{{ phrase(1, 3) }} : </span><span>{{ phrase(1, 3) }}</span></span></li>{% endfor %}</ul></div>
<div id="aplus"><h2>{{ phrase(2, 4) }}</h2>{% for j in range(number(1, 4)) %}<div class="module"><h3>{{ phrase(1, 4) }}</h3><p>{{ prose(1, 3) }}</p></div>{% endfor %}</div><!--either-->
<div id="reviews"><h2>Customer reviews</h2>{% for j in range(number(1, 5)) %}<div data-hook="review"><span>{{ phrase(1, 2) }}</span><span>Verified Purchase</span><div><span>{{ prose(1, 3) }}</span></div></div>{% endfor %}</div><!--chrome--></div>""" + _RELATED + _FOOT,
    "listing-cards": _HEAD + _COOKIES + _TOP + """<div class="wrapper"><aside class="filters"><h3>Filter</h3>{% for i in range(3) %}<fieldset><legend>{{ phrase(1, 1) }}</legend>{% for j in range(4) %}<label><input type=checkbox>{{ phrase(1, 2) }} ({{ number(1, 90) }})</label>{% endfor %}</fieldset>{% endfor %}</aside>
<main><!--main--><h1>{{ title }}</h1><!--chrome--><div class="sort">Sort by <select><option>Price</option></select> {{ number(10, 400) }} results</div><div class="grid">
{% for i in range(number(8, 24)) %}<article class="card"><!--main--><h3 class="card-title"><a href="/i{{ i }}">{{ phrase(2, 6) }}</a></h3>{% if chance(0.7) %}<p>{{ phrase(5, 12) }}</p>{% endif %}<span class="price">{{ money() }}</span><!--chrome--><button>Add to cart</button></article>{% endfor %}</div>
<nav class="pagination"><a>1</a><a>2</a><a>Next</a></nav></main></div>""" + _FOOT,
    "listing-archive": _HEAD + _BAR + """<div id="content" class="archive">{% if chance(0.6) %}<!--main--><h1 class="page-title">{{ title }}</h1><!--chrome-->{% endif %}{% for i in range(number(4, 12)) %}<div class="post hentry"><!--main--><h2 class="entry-title"><a href="/{{ i }}">{{ phrase(3, 9) }}</a></h2><!--either-->
<div class="entry-meta">Posted on <a>May {{ number(1, 30) }}, 2012</a> by <a>{{ phrase(1, 1) }}</a></div><!--main--><div class="entry-summary"><p>{{ prose(1, 3) }}</p></div><!--chrome--><a class="more-link" href="/{{ i }}">Continue reading →</a><div class="entry-utility">Posted in <a>{{ phrase(1, 1) }}</a> | <a>Leave a comment</a></div></div>{% endfor %}
<div class="navigation"><a>← Older posts</a></div></div><div id="primary" class="widget-area"><ul><li class="widget"><h3>Archives</h3><ul>{{ links(12) }}</ul></li></ul></div>""" + _PLAIN_FOOT,
    "listing-table": _HEAD + _TOP + """<div class="main"><!--main--><h1>{{ title }}</h1>{% if chance(0.5) %}<p class="intro">{{ prose(1, 2) }}</p>{% endif %}<!--chrome--><p>Showing 1–{{ number(10, 30) }} of {{ number(100, 900) }}</p><table class="results"><thead><tr><!--either--><th>Title</th><th>Place</th><th>Date</th><!--chrome--></tr></thead><tbody>
{% for i in range(number(8, 25)) %}<tr><!--main--><td><a href="/job/{{ i }}">{{ phrase(3, 7) }}</a><div class="snippet">{{ prose(1, 1) }}</div></td><td>{{ phrase(1, 2) }}</td><td>{{ number(1, 30) }} May</td><!--chrome--></tr>{% endfor %}</tbody></table><div class="pager"><a>Previous</a> <a>Next</a></div></div>""" + _FOOT,
    "service-hero": _HEAD + _COOKIES + _TOP + """<section class="hero"><div class="container"><!--main--><h1>{{ title }}</h1><p class="lead">{{ prose(1, 2) }}</p><!--either--><a class="btn btn-primary" href="/go">Get started</a> <a class="btn">Learn more</a><!--chrome--></div></section>
{% for i in range(number(2, 5)) %}<!--main--><section class="{{ pick('features', 'bg-light', 'block', 'module-2') }}"><h2>{{ phrase(2, 6) }}</h2><div class="row">{% for j in range(number(2, 6)) %}<div class="col-md-4"><i class="icon"></i><h3>{{ phrase(1, 4) }}</h3><p>{{ prose(1, 2) }}</p></div>{% endfor %}</div></section><!--chrome-->{% endfor %}
<!--main--><section class="testimonials">{% for j in range(number(0, 4)) %}<blockquote>{{ prose(1, 2) }}<footer>{{ phrase(1, 2) }}</footer></blockquote>{% endfor %}</section><section class="cta"><h2>{{ phrase(3, 6) }}</h2><p>{{ prose(1, 1) }}</p></section><!--chrome-->
<form class="contact"><label>Name</label><input><label>E-mail</label><input><button>Send</button></form>""" + _FOOT,
    "service-builder": _HEAD + _BAR + """<div class="elementor">{% for i in range(number(3, 7)) %}<div class="elementor-section"><div class="elementor-container"><!--main-->{% if i == 0 %}<h1 class="elementor-heading-title">{{ title }}</h1>{% else %}<h2 class="elementor-heading-title">{{ phrase(2, 6) }}</h2>{% endif %}
{% if chance(0.6) %}<div class="elementor-text-editor"><p>{{ prose(1, 4) }}</p></div>{% else %}<div class="elementor-icon-list"><ul>{% for j in range(number(3, 7)) %}<li><span class="elementor-icon-list-text">{{ phrase(2, 7) }}</span></li>{% endfor %}</ul></div>{% endif %}<!--either--><a class="elementor-button">{{ phrase(1, 3) }}</a><!--chrome--></div></div>{% endfor %}
<!--main--><div class="faq">{% for j in range(number(0, 5)) %}<div class="accordion-item"><div class="accordion-title">{{ phrase(3, 8) }}?</div><div class="accordion-content" style="display: none"><p>{{ prose(1, 3) }}</p></div></div>{% endfor %}</div><!--chrome--></div>""" + _PLAIN_FOOT,
    "service-columns": _HEAD + _TOP + """<div class="wrap"><div class="w-layout">{% for i in range(number(2, 6)) %}<!--main--><div class="section-{{ i }}"><div class="heading-{{ i }}">{{ title if i == 0 else phrase(2, 6) }}</div><div class="paragraph">{{ prose(1, 3) }}</div>
<div class="columns">{% for j in range(number(2, 5)) %}<div class="column"><div class="h">{{ phrase(1, 4) }}</div><div class="t">{{ phrase(5, 14) }}</div>{% if chance(0.3) %}<div class="amount">{{ money() }} / month</div>{% endif %}</div>{% endfor %}</div></div><!--either--><a class="button w-button">{{ phrase(1, 3) }}</a><!--chrome-->{% endfor %}
<!--main--><div class="stats">{% for j in range(3) %}<div><strong>{{ number(10, 999) }}+</strong> {{ phrase(1, 3) }}</div>{% endfor %}</div><!--chrome--><div class="logos"><img alt="x"></div></div></div>""" + _FOOT,
    "documentation-sphinx": _HEAD + """<div class="related"><ul><li><a>index</a></li><li><a>next</a> |</li><li><a>previous</a></li></ul></div><div class="document"><div class="documentwrapper"><div class="body" role="main"><!--main--><div class="section"><h1>{{ title }}<a class="headerlink">¶</a></h1><p>{{ prose(1, 4) }}</p>
{% for i in range(number(2, 7)) %}<div class="section"><h2>{{ phrase(1, 4) }}<a class="headerlink">¶</a></h2>{% for j in range(number(1, 3)) %}<p>{{ prose(1, 3) }}</p>{% endfor %}{% if chance(0.5) %}<div class="highlight-python"><div class="highlight"><pre>{{ code() }}</pre></div></div>{% endif %}{% if chance(0.3) %}<div class="admonition note"><p class="admonition-title">Note</p><p>{{ prose(1, 2) }}</p></div>{% endif %}
{% if chance(0.4) %}<dl class="function"><dt><code>{{ phrase(1, 1) }}</code>(<em>x</em>)</dt><dd><p>{{ prose(1, 2) }}</p></dd></dl>{% endif %}</div>{% endfor %}</div><!--chrome--></div></div><div class="sphinxsidebar"><h3>Table of Contents</h3><ul>{{ links(number(5, 20)) }}</ul><h4>Previous topic</h4><p><a>{{ phrase(1, 3) }}</a></p></div></div>""" + _PLAIN_FOOT,
    "documentation-site": _HEAD + _TOP + """<div class="md-container"><div class="md-sidebar md-sidebar--primary"><nav><ul>{{ links(number(8, 40)) }}</ul></nav></div><div class="md-content"><article class="md-typeset"><a class="md-edit">Edit this page</a><!--main--><h1>{{ title }}</h1>{% for i in range(number(2, 8)) %}{% if i %}<h2 id="h{{ i }}">{{ phrase(1, 4) }}</h2>{% endif %}<p>{{ prose(1, 3) }}</p>
{% if chance(0.4) %}<pre><code class="language-sh">{{ code() }}</code></pre>{% endif %}{% if chance(0.3) %}<ul>{% for j in range(4) %}<li>{{ phrase(3, 9) }}</li>{% endfor %}</ul>{% endif %}{% if chance(0.2) %}<table><tr><th>{{ phrase(1, 1) }}</th><th>{{ phrase(1, 1) }}</th></tr>{% for j in range(4) %}<tr><td><code>{{ phrase(1, 1) }}</code></td><td>{{ phrase(3, 9) }}</td></tr>{% endfor %}</table>{% endif %}{% endfor %}<!--chrome--></article>
<div class="feedback">Was this page helpful? <button>Yes</button><button>No</button></div><nav class="md-footer-nav"><a>Previous {{ phrase(1, 3) }}</a><a>Next {{ phrase(1, 3) }}</a></nav></div><div class="md-sidebar--secondary"><ul>{{ links(number(3, 9)) }}</ul></div></div>""" + _FOOT,
    "documentation-reference": _HEAD + """<div class="topNav"><ul class="navList">{{ links(8) }}</ul></div><div class="subNav"><div>Summary: Nested | Field | Constr | Method</div></div><main><div class="header"><!--main--><div class="subTitle">org.example.{{ phrase(1, 1) }}</div><h2 class="title">Class {{ title }}</h2></div><div class="contentContainer"><div class="description"><pre>public class {{ phrase(1, 1) }}</pre><div class="block">{{ prose(1, 4) }}</div></div>
<div class="summary"><h3>Method Summary</h3><table class="memberSummary"><tr><th>Modifier and Type</th><th>Method and Description</th></tr>{% for i in range(number(3, 12)) %}<tr><td><code>void</code></td><td><code><a href="#m">{{ phrase(1, 1) }}</a>(int x)</code><div class="block">{{ prose(1, 1) }}</div></td></tr>{% endfor %}</table></div>
<div class="details"><h3>Method Detail</h3>{% for i in range(number(3, 8)) %}<ul class="blockList"><li><h4>{{ phrase(1, 1) }}</h4><pre>public void {{ phrase(1, 1) }}(int x)</pre><div class="block">{{ prose(1, 3) }}</div><dl><dt>Parameters:</dt><dd><code>x</code> - {{ phrase(3, 8) }}</dd></dl></li></ul>{% endfor %}</div></div><!--chrome--></main><div class="bottomNav"><ul class="navList">{{ links(8) }}</ul></div>""" + _PLAIN_FOOT,
}  # fmt: skip


class Maker:
    """One page. `parts` are its pieces in order."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.kind = KINDS[seed % len(KINDS)]
        language = self.draw.choice(["en"] * 8 + sorted(path.stem for path in _PROSE.glob("*.txt")))
        text = (_PROSE / f"{language}.txt").read_text("utf-8").partition("\n\n#")[2]
        lines = [line for line in text.split("\n") if not line.startswith("#")][1:]
        self.sentences = [s for s in re.split(r"(?<=[.!?。।])\s*", " ".join(" ".join(lines).split())) if len(s) > 15]
        self.styles = {part: self.draw.choice(names) for part, names in _STYLES.items()}
        self.semantic = self.draw.random() < 0.5
        self.parts: list[Part] = []

    def prose(self, low: int, high: int) -> str:
        start = self.draw.randrange(len(self.sentences))
        return escape(" ".join(self.sentences[start : start + self.draw.randint(low, high)]))

    def phrase(self, low: int = 2, high: int = 6) -> str:
        words = self.draw.choice(self.sentences).rstrip(".!?").split()
        return escape(" ".join(words[: self.draw.randint(low, high)])[:60]).capitalize()

    def add(self, html: str, label: float | None = CHROME) -> None:
        self.parts.append((html, label))

    def links(self, count: int, tag: str = "li") -> str:
        names = [self.draw.choice(_LINKS) if self.draw.random() < 0.6 else self.phrase(1, 4) for _ in range(count)]
        return "".join(f"<{tag}><a href='/{i}'>{name}</a></{tag}>" for i, name in enumerate(names))

    def page(self) -> list[Part]:
        draw, style = self.draw, self.styles
        self.title = self.phrase(3, 8)
        self.add(f"<!DOCTYPE html><html><head><title>{self.title} - {self.phrase(1, 2)}</title></head><body>")
        if draw.random() < 0.3:
            self.add(f"<div class='cookie-banner'><p>Cookies: {self.prose(1, 1)}</p><button>Accept</button></div>")
        nav = "nav" if self.semantic else "div"
        self.add(f"<{'header' if self.semantic else 'div'} class='header'><a href='/'>{self.phrase(1, 2)}</a>"
                 f"<{nav} class='{style['nav']}'><ul>{self.links(draw.randint(4, 16))}</ul></{nav}>"
                 f"</{'header' if self.semantic else 'div'}>")  # fmt: skip
        side_first = draw.random() < 0.4
        has_side = draw.random() < 0.7
        self.add(f"<div class='{draw.choice(_STYLES['main'])}'>")
        if has_side and side_first:
            self.side()
        main = draw.choice(["main", "div", "section", "article"]) if self.semantic else "div"
        self.add(f"<{main} class='{style['main']}'>")
        if draw.random() < 0.5:
            self.add(f"<div class='breadcrumbs'>{self.links(3, 'span')}</div>")
        getattr(self, self.kind)()
        if draw.random() < 0.4:
            self.add(f"<div class='share'><span>Share</span>{self.links(3, 'a')}</div>")
        if draw.random() < 0.5:
            cards = "".join(f"<div><a href='#'><h4>{self.phrase()}</h4></a><p>{self.prose(1, 1)}</p></div>"
                            for _ in range(draw.randint(2, 5)))  # fmt: skip
            name = draw.choice(["related", "more", "recommended", "x5"])
            self.add(f"<div class='{name}'><h3>You may also like</h3>{cards}</div>")
        self.add(f"</{main}>")
        if has_side and not side_first:
            self.side()
        foot = "footer" if self.semantic else "div"
        rights = f"<p>© 2026 {self.phrase(1, 2)}. All rights reserved.</p>"
        self.add(f"</div><{foot} class='{style['foot']}'><ul>{self.links(draw.randint(4, 20))}</ul>")
        self.add(f"<p>{self.prose(1, 1)}</p>{rights}</{foot}></body></html>")
        return self.parts

    def side(self) -> None:
        tag = "aside" if self.semantic else "div"
        widgets = "".join(f"<h3>{self.phrase(1, 3)}</h3><ul>{self.links(self.draw.randint(3, 8))}</ul>"
                          for _ in range(self.draw.randint(1, 4)))  # fmt: skip
        self.add(f"<{tag} class='{self.styles['side']}'>{widgets}<p>{self.prose(1, 2)}</p></{tag}>")

    def heading(self) -> None:
        self.add(f"<h1>{self.title}</h1>", MAIN)

    def forum(self) -> None:
        draw = self.draw
        self.heading()
        tag = draw.choice(["div", "article", "li", "section", "tr"])
        self.add({"li": "<ol>", "tr": "<table>"}.get(tag, "<div>"))
        for number in range(draw.randint(2, 14)):
            cell = ("<td>", "</td>") if tag == "tr" else ("<div>", "</div>")
            self.add(f"<{tag} class='{self.styles['item']}' id='post-{number}'>{cell[0]}")
            when = f"<time>{draw.randint(1, 28)} May 2024, 10:{draw.randint(10, 59)}</time>"
            author = f"<a href='/u'>{self.phrase(1, 1)}</a><span>Posts: {draw.randint(1, 999)}</span>"
            self.add(f"{author}{when}{cell[1]}{cell[0]}", EITHER)
            self.add(f"<div class='{self.styles['text']}'>")
            if number and draw.random() < 0.2:
                self.add(f"<blockquote>{self.prose(1, 2)}</blockquote>", EITHER)
            for _ in range(draw.choice([1, 1, 1, 2, 3])):
                self.add(f"<p>{self.prose(1, 5)}</p>" if draw.random() < 0.8 else f"{self.prose(1, 3)}<br><br>", MAIN)
            self.add("</div><div><a href='#'>Reply</a> <a href='#'>Quote</a> <a href='#'>Report</a></div>")
            self.add(f"{cell[1]}</{tag}>")
        self.add({"li": "</ol>", "tr": "</table>"}.get(tag, "</div>"))

    def product(self) -> None:
        draw = self.draw
        self.heading()
        self.add(f"<span class='price'>€ {draw.randint(5, 999)}.99</span>", EITHER)
        self.add("<button>Add to cart</button><a href='#'>Add to wishlist</a>")
        name = draw.choice(["description", "product-details", "text", "d4"])
        self.add(f"<div class='{name}'><p>{self.prose(2, 6)}</p>", MAIN)
        if draw.random() < 0.7:
            items = "".join(f"<li>{self.phrase(3, 9)}</li>" for _ in range(draw.randint(3, 8)))
            self.add(f"<h2>{self.phrase(1, 3)}</h2><ul>{items}</ul>", MAIN)
        self.add("</div>")
        if draw.random() < 0.6:
            cells = [(self.phrase(1, 2), self.phrase(1, 4)) for _ in range(draw.randint(3, 12))]
            rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in cells)
            self.add(f"<table class='specs'>{rows}</table>", MAIN)
        if draw.random() < 0.4:
            self.add(f"<div class='shipping'><p>{self.prose(1, 2)}</p></div>", EITHER)
        for _ in range(draw.choice([0, 0, 2, 4])):
            self.add(f"<div class='review'><b>{self.phrase(1, 2)}</b><p>{self.prose(1, 3)}</p></div>", EITHER)

    def listing(self) -> None:
        draw = self.draw
        self.heading()
        if draw.random() < 0.4:
            self.add(f"<p>{self.prose(1, 3)}</p>", MAIN)
        self.add(f"<form class='filters'><label>Sort by</label><ul>{self.links(4)}</ul></form>")
        tag, level = draw.choice(["div", "li", "article"]), draw.choice(["h2", "h3", "div", "strong"])
        excerpt = draw.random() < 0.7
        for _ in range(draw.randint(5, 24)):
            self.add(f"<{tag} class='{self.styles['item']}'>")
            self.add(f"<{level}><a href='/i'>{self.phrase(3, 9)}</a></{level}>", MAIN)
            if excerpt:
                self.add(f"<p>{self.prose(1, 2)}</p>", MAIN)
            self.add(f"<span class='meta'>{draw.randint(1, 28)}.5.2024</span>", EITHER)
            self.add(f"<a href='/i'>Read more</a></{tag}>" if draw.random() < 0.5 else f"</{tag}>")
        numbers = "".join(f"<a href=?p={i}>{i}</a> " for i in range(1, 9))
        self.add(f"<div class='pagination'>{numbers}<a href='#'>Next</a></div>")

    def service(self) -> None:
        draw = self.draw
        self.heading()
        self.add(f"<p>{self.prose(1, 2)}</p>", MAIN)
        self.add("<a class='btn' href='/go'>Get started</a>", EITHER)
        for _ in range(draw.randint(2, 6)):
            name = draw.choice(["features", "block", "section", "s8"])
            self.add(f"<section class='{name}'><h2>{self.phrase(2, 6)}</h2>", MAIN)
            if draw.random() < 0.5:
                self.add(f"<p>{self.prose(1, 4)}</p>", MAIN)
            else:
                for _ in range(draw.randint(2, 6)):
                    card = f"<h3>{self.phrase(1, 4)}</h3><p>{self.prose(1, 1)}</p>"
                    self.add(f"<div class='{self.styles['item']}'>{card}</div>", MAIN)
            self.add("</section>")
        if draw.random() < 0.4:
            for _ in range(draw.randint(2, 5)):
                self.add(f"<details><summary>{self.phrase(3, 8)}?</summary><p>{self.prose(1, 3)}</p></details>", MAIN)
        if draw.random() < 0.4:
            self.add(f"<blockquote>{self.prose(1, 2)}<cite>{self.phrase(1, 2)}</cite></blockquote>", MAIN)
        self.add("<form><label>Name</label><input><label>E-mail</label><input><button>Send message</button></form>")

    def documentation(self) -> None:
        draw = self.draw
        self.add(f"<div class='toc'><ul>{self.links(draw.randint(3, 25))}</ul></div>")
        self.heading()
        for _ in range(draw.randint(2, 8)):
            if draw.random() < 0.7:
                level = draw.choice([2, 3])
                self.add(f"<h{level}>{self.phrase(1, 5)}</h{level}>", MAIN)
            self.add(f"<p>{self.prose(1, 4)}</p>", MAIN)
            if draw.random() < 0.4:
                code = f"$ run --{self.phrase(1, 1)} {draw.randint(1, 9)}\nx = f({draw.randint(1, 9)})\n"
                self.add(f"<div class='highlight'><pre>{code}</pre></div>", MAIN)
            if draw.random() < 0.2:
                cells = [(self.phrase(1, 1), self.prose(1, 1)) for _ in range(4)]
                rows = "".join(f"<tr><td><code>{name}</code></td><td>{value}</td></tr>" for name, value in cells)
                self.add(f"<table>{rows}</table>", MAIN)
            if draw.random() < 0.2:
                self.add(f"<div class='note admonition'><p>{self.prose(1, 2)}</p></div>", MAIN)
        self.add("<p><a href='#'>Edit this page</a></p><div class='prev-next'><a href='#'>Next</a></div>")

    def layout(self, name: str) -> list[Part]:
        """A page of LAYOUTS."""
        draw = self.draw
        values = {
            "title": self.phrase(3, 8), "prose": self.prose, "phrase": self.phrase, "links": self.links,
            "number": draw.randint, "pick": lambda *choices: draw.choice(choices),
            "chance": lambda share: draw.random() < share,
            "money": lambda: draw.choice(["${0}.99", "€ {0},00", "£{0}.50"]).format(draw.randint(3, 900)),
            "code": lambda: f"$ run --{self.phrase(1, 1)} {draw.randint(1, 9)}\nx = f({draw.randint(1, 9)})",
        }  # fmt: skip
        pieces = _MARK.split(_ENVIRONMENT.from_string(LAYOUTS[name]).render(values))
        names = ["chrome", *pieces[1::2]]
        return [(html, _MARKS[mark]) for mark, html in zip(names, pieces[::2], strict=True)]


def made_pages(count: int) -> Iterator[tuple[str, str, list[Part]]]:
    """(name, kind, parts) of `count` pages to train on, half of them of LAYOUTS, the same ones each time."""
    layouts = sorted(set(LAYOUTS) - set(HELD_OUT))
    for seed in range(count // 2):
        maker = Maker(seed)
        yield f"made-{maker.kind}-{seed}", maker.kind, maker.page()
        name = layouts[seed % len(layouts)]
        yield f"{name}-{seed}", name.partition("-")[0], Maker(count + seed).layout(name)


def held_out_pages(count: int) -> Iterator[tuple[str, str, list[Part]]]:
    """Like made_pages, of the layouts that are held out."""
    for seed in range(count):
        name = HELD_OUT[seed % len(HELD_OUT)]
        yield f"{name}-{seed}", name.partition("-")[0], Maker(1_000_000 + seed).layout(name)


def part_f1(text: str, parts: list[Part]) -> float:
    """F1 of a text's words against a made page's main text; words labelled EITHER count neither way."""
    wanted, free = (
        Counter(word for html, label in parts if label == which for word in _words(unescape(_TAG.sub(" ", html))))
        for which in (MAIN, EITHER)
    )
    words = Counter(_words(text))
    hits = (words & wanted).total()
    wrong = (words - wanted - free).total()
    return 2 * hits / max(hits + wrong + wanted.total(), 1)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
