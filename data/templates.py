"""Five page templates: the chrome around a text as sites of different decades write it.

`render` returns the page and the chrome's sentences that extraction must not keep. The words come from the head of
prose/<language>.txt, so navigation, banner and footer are in the page's language.
"""

from __future__ import annotations

import textwrap
from html import escape

from data.prose import Page

SCRIPT = """<script>
  window.settings = window.settings || {"theme": "paper", "track": false};
  document.addEventListener("DOMContentLoaded", function () { document.body.className += " ready"; });
</script>"""
STYLE = "<style>body { font: 17px/1.5 serif; } .menu li { display: inline; } .hidden { display: none; }</style>"


def render(page: Page, words: dict[str, str], template: int, related: list[Page], meta: str) -> tuple[str, list[str]]:
    """(HTML, chrome snippets). `template` is 0 to 4; `meta` is the charset declaration or nothing."""
    safe = {key: escape(value) for key, value in words.items()}
    links = "\n".join(
        f'<li><a href="/{other.language}/{other.slug}">{escape(other.title)}</a></li>' for other in related
    )
    html = TEMPLATES[template](page, safe, links, meta, _body(page))
    chrome = [words[key] for key in ("cookies", "newsletter", "related", "rights") if safe[key] in html]
    return html, chrome


def _body(page: Page) -> str:
    return "\n".join(_block(block, wrap=page.language not in ("ja", "zh")) for block in page.blocks)


def _block(block: str, *, wrap: bool) -> str:
    lines = [escape(line, quote=False) for line in block.split("\n")]
    if block.startswith("## "):
        return f"<h2>{lines[0][3:]}</h2>"
    if block.startswith("@ "):
        return f"<h3>{lines[0][2:]}</h3>"
    if block.startswith("- "):
        return "<ul>\n" + "\n".join(f"<li>{line[2:]}</li>" for line in lines) + "\n</ul>"
    if " :: " in block:
        rows = (line.split(" :: ") for line in lines)
        return "<table>\n" + "\n".join(f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in rows) + "\n</table>"
    if block.startswith("```"):
        return "<pre><code>" + "\n".join(lines[1:-1]) + "\n</code></pre>"
    if len(lines) > 1:
        return "<p>" + "<br>\n".join(lines) + "</p>"
    # Source lines end anywhere in HTML; an extractor must fold them.
    line = textwrap.fill(lines[0], 96, break_long_words=False, break_on_hyphens=False) if wrap else lines[0]
    return f"<p>{line}</p>"


def _article(page: Page, words: dict[str, str], links: str, meta: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="{page.language}">
<head>
{meta}
<title>{escape(page.title)} | {words["site"]}</title>
<meta name="viewport" content="width=device-width">
{STYLE}
</head>
<body>
<header><a href="/">{words["site"]}</a>
<nav><ul><li><a href="/">{words["home"]}</a></li><li><a href="/about">{words["about"]}</a></li>
<li><a href="/contact">{words["contact"]}</a></li><li><a href="/login">{words["login"]}</a></li></ul></nav></header>
<main><article>
<h1>{escape(page.title)}</h1>
{body}
</article></main>
<aside><h4>{words["related"]}</h4><ul>
{links}
</ul></aside>
<footer><p>{words["newsletter"]}</p><p>{words["rights"]}</p></footer>
<div class="cookie-banner" role="dialog"><p>{words["cookies"]}</p><button>{words["accept"]}</button></div>
{SCRIPT}
</body>
</html>
"""


def _divs(page: Page, words: dict[str, str], links: str, meta: str, body: str) -> str:
    return f"""<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html lang="{page.language}">
<head>{meta}<title>{escape(page.title)}</title>{STYLE}{SCRIPT}</head>
<body>
<div id="cookie-notice">{words["cookies"]} <a href="#">{words["accept"]}</a></div>
<div id="header"><div class="logo">{words["site"]}</div>
<form action="/search"><input name="q" placeholder="{words["search"]}"></form></div>
<div id="navigation" class="menu"><ul><li><a href="/">{words["home"]}</a></li>
<li><a href="/about">{words["about"]}</a></li><li><a href="/contact">{words["contact"]}</a></li></ul></div>
<div id="wrapper"><div id="sidebar"><h3>{words["related"]}</h3><ul>
{links}
</ul></div>
<div id="content" class="post-content"><h1>{escape(page.title)}</h1>
{body}
</div></div>
<div id="footer" class="footer">{words["rights"]}</div>
</body>
</html>
"""


def _tables(page: Page, words: dict[str, str], links: str, meta: str, body: str) -> str:
    """A layout table, as around 1999; paragraphs and list items are never closed."""
    loose = body.replace("</p>", "").replace("</li>", "")
    return f"""<HTML>
<HEAD>
{meta}
<TITLE>{escape(page.title)}</TITLE>
</HEAD>
<BODY BGCOLOR="#FFFFF0" TEXT="#202020">
<TABLE WIDTH="100%" CELLPADDING="6"><TR><TD COLSPAN="2" CLASS="header" BGCOLOR="#D0D8E0">
<FONT SIZE="5">{words["site"]}</FONT><BR>
<A HREF="/">{words["home"]}</A> | <A HREF="/about">{words["about"]}</A> |
<A HREF="/contact">{words["contact"]}</A></TD></TR>
<TR VALIGN="top"><TD WIDTH="160" CLASS="menu"><B>{words["related"]}</B><UL>
{links}
</UL></TD><TD CLASS="content">
<H1>{escape(page.title)}</H1>
{loose}
</TD></TR>
<TR><TD COLSPAN="2" ALIGN="center" CLASS="footer"><FONT SIZE="1">{words["rights"]}</FONT></TD></TR></TABLE>
</BODY>
</HTML>
"""


def _blog(page: Page, words: dict[str, str], links: str, meta: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="{page.language}"><head>{meta}<title>{words["site"]}: {escape(page.title)}</title>{STYLE}</head>
<body class="single">
<div class="topbar nav"><a href="/">{words["home"]}</a> <a href="/about">{words["about"]}</a>
<a href="/login">{words["login"]}</a></div>
<div class="container">
<div class="entry"><h1 class="entry-title">{escape(page.title)}</h1>
<div class="entry-content">
{body}
</div>
<div class="share-buttons"><a href="#share">{words["share"]}</a></div></div>
<div class="related-posts"><h2>{words["related"]}</h2><ul>
{links}
</ul></div>
<div class="newsletter-signup"><p>{words["newsletter"]}</p><input type="email"><button>{words["accept"]}</button></div>
</div>
<footer class="site-footer"><small>{words["rights"]}</small></footer>
{SCRIPT}
<div class="modal cookie-consent" style="display:none"><p>{words["cookies"]}</p></div>
</body></html>
"""


def _portal(page: Page, words: dict[str, str], links: str, meta: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="{page.language}">
<head>{meta}<title>{escape(page.title)}</title><link rel="stylesheet" href="/portal.css">{SCRIPT}</head>
<body>
<div role="banner" class="masthead"><a href="/">{words["site"]}</a><span>{words["search"]}</span></div>
<div role="navigation" class="breadcrumb"><a href="/">{words["home"]}</a> &rsaquo;
<a href="/{page.kind}">{page.kind}</a></div>
<div class="columns">
<section role="main" class="main-column"><h1>{escape(page.title)}</h1>
{body}
</section>
<aside class="rail"><h2>{words["related"]}</h2><ul>
{links}
</ul><p>{words["newsletter"]}</p></aside>
</div>
<div role="contentinfo" class="footer"><a href="/about">{words["about"]}</a> <a href="/contact">{words["contact"]}</a>
<p>{words["rights"]}</p></div>
<noscript><img src="/pixel.png" alt=""></noscript>
</body>
</html>
"""


TEMPLATES = (_article, _divs, _tables, _blog, _portal)
