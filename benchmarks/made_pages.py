"""Labelled pages of the kinds that trafilatura's evaluation lacks: forum, product, listing, service, documentation.

Random layouts, and those of page_layouts.py, around the prose in data/prose: what is main text is known by
construction. They keep the fast extractor from learning that every page is an article. The layouts that are held out
of training compare extractors on each kind; real pages of these kinds vary far more.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path

import jinja2
from page_layouts import HELD_OUT, LAYOUTS

KINDS = ("forum", "product", "listing", "service", "documentation")
MAIN, CHROME, EITHER = 1.0, 0.0, None
Part = tuple[str, float | None]  # HTML and whether its text is main text
_MARKS = {"main": MAIN, "chrome": CHROME, "either": EITHER}
_MARK = re.compile("<!--(main|chrome|either)-->")
_TAG = re.compile("<[^>]*>")
_ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined)  # what is put in is escaped
_PROSE = Path(__file__).parents[1] / "data/prose"
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
        """A page of page_layouts.py."""
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
    """(name, kind, parts) of `count` pages to train on, half of them in each manner, always the same ones."""
    layouts = sorted(set(LAYOUTS) - set(HELD_OUT))
    for seed in range(count // 2):
        maker = Maker(seed)
        yield f"made-{maker.kind}-{seed}", maker.kind, maker.page()
        name = layouts[seed % len(layouts)]
        yield f"{name}-{seed}", name.partition("-")[0], Maker(count + seed).layout(name)


def held_out_pages(count: int) -> Iterator[tuple[str, str, list[Part]]]:
    """As made_pages, of the layouts that are not trained on."""
    for seed in range(count):
        name = HELD_OUT[seed % len(HELD_OUT)]
        yield f"{name}-{seed}", name.partition("-")[0], Maker(1_000_000 + seed).layout(name)


def word_f1(text: str, parts: list[Part]) -> float:
    """F1 of a text's words against a made page's main text; words that may be there or not count neither way."""
    wanted, free = (
        Counter(word for html, label in parts if label == which for word in _words(unescape(_TAG.sub(" ", html))))
        for which in (MAIN, EITHER)
    )
    found = Counter(_words(text))
    hits = (found & wanted).total()
    wrong = (found - wanted - free).total()
    return 2 * hits / max(hits + wrong + wanted.total(), 1)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
