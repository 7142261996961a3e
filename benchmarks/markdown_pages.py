"""Pages with known markdown for benchmarks/extraction.py: tables, code, formulas and lists, each made from what the
markdown must say, within an article with navigation and footer. Also the code of real pages, read by lxml."""

from __future__ import annotations

import random
import re
from difflib import SequenceMatcher
from html import escape
from pathlib import Path
from textwrap import indent

from bars import ROOT
from lxml import html

from pipeline.extract import extract_text
from pipeline.extract.decoding import decode
from pipeline.kernels.html.fast import Form
from pipeline.read.archives import read_records

PARTS = ("tables", "code", "formulas", "lists")
_CODE = {
    "python": 'def area(r):\n    if r < 0:\n\n\n        raise ValueError(f"{r} < 0")\n    return 3 * r ** 2  # about',
    "bash": "for f in *.txt; do\n\tgrep -c 'a & b' \"$f\" | tee -a out.log\ndone",
    "html": '<ul class="x">\n  <li>One &amp; two</li>\n</ul>',
    "sql": "SELECT name, count(*)\nFROM   pages\nWHERE  size > 1000 AND host <> ''\nGROUP  BY name;",
}
_TEX = (r"a^2 + b^2 = c^2", r"\frac{1}{n} \sum_{i=1}^{n} x_i", r"x < y \leq z", r"\int_0^1 f(t)\,dt", r"\alpha_{k+1}")


class _Page:
    """A page and its markdown, written side by side."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        text = (ROOT / "data/prose/en.txt").read_text("utf-8").partition("\n\n#")[2]
        lines = " ".join(line for line in text.split("\n")[1:] if not line.startswith("#"))
        self.sentences = [s.strip() for s in re.split(r"(?<=[.!?]) ", " ".join(lines.split())) if len(s) > 30]
        self.body, self.truth = "", []

    def prose(self) -> str:
        return " ".join(self.draw.sample(self.sentences, self.draw.randint(2, 4)))

    def phrase(self) -> str:
        return " ".join(self.draw.choice(self.sentences).rstrip(".!?,;:").split()[: self.draw.randint(1, 4)])

    def add(self, body: str, truth: str) -> None:
        self.body += body
        self.truth.append(truth)

    def paragraph(self) -> None:
        text = self.prose()
        self.add(f"<p>{escape(text)}</p>", text)

    def tables(self) -> None:
        columns, rows = self.draw.randint(2, 5), self.draw.randint(2, 6)
        head = [self.phrase() for _ in range(columns)]
        cells = [
            [self.draw.choice([self.phrase(), "", str(self.draw.randint(1, 999))]) for _ in head] for _ in range(rows)
        ]
        cells[0][0] = cells[-1][-1] = "both | or"
        body = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = f"<table><thead><tr>{body}</tr></thead><tbody>"
        for row in cells:
            body += "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        wide = self.phrase()
        body += f"<tr><td colspan='{columns}'>{escape(wide)}</td></tr></tbody></table>"
        lines = [head, ["---"] * columns, *cells, [wide] * columns]
        self.add(body, "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines))

    def code(self) -> None:
        language = self.draw.choice(sorted(_CODE))
        code = _CODE[language]
        shown = re.sub(r"\b(def|return|for|do|FROM|li)\b", r"<span class=k>\1</span>", escape(code, quote=False))
        self.add(f"<pre><code class='language-{language}'>{shown}\n</code></pre>", f"```{language}\n{code}\n```")

    def formulas(self) -> None:
        before, tex, after = self.prose(), self.draw.choice(_TEX), self.prose()
        annotation = f"<annotation encoding='application/x-tex'>{escape(tex)}</annotation>"
        shown = f"<math><semantics><mi>x</mi>{annotation}</semantics></math>"
        hidden = "<span aria-hidden='true'><b>x</b></span>"
        body = f"{escape(before)} <span class='katex'><span>{shown}</span>{hidden}</span> {escape(after)}"
        self.add(f"<p>{body}</p>", f"{before} ${tex}$ {after}")

    def lists(self) -> None:
        body, lines = "<ol>", []
        for number in range(1, self.draw.randint(3, 5)):
            text, inner = self.prose(), [self.phrase() for _ in range(self.draw.randint(0, 3))]
            body += f"<li>{escape(text)}" + "<ul>" * bool(inner)
            body += "".join(f"<li>{escape(item)}</li>" for item in inner) + "</ul>" * bool(inner) + "</li>"
            lines += [f"{number}. {text}", *(f"   - {item}" for item in inner)]
        self.add(f"{body}</ol>", "\n".join(lines))
        quote = self.prose()
        self.add(f"<blockquote><p>{escape(quote)}</p></blockquote>", f"> {quote}")


def made_markdown(part: str, seed: int) -> tuple[bytes, str]:
    """(page, markdown of its main text) with several pieces of one of PARTS."""
    page = _Page(seed)
    title = page.phrase()
    page.add(f"<h1>{escape(title)}</h1>", f"# {title}")
    for _ in range(3):
        page.paragraph()
        heading = page.phrase()
        page.add(f"<h2>{escape(heading)}</h2>", f"## {heading}")
        getattr(page, part)()
    page.paragraph()
    links = "".join(f"<li><a href='/{i}'>{name}</a></li>" for i, name in enumerate(("Home", "About", "Contact")))
    text = (
        f"<!DOCTYPE html><html><head><title>{escape(title)}</title></head><body><nav><ul>{links}</ul></nav>"
        f"<main><article>{page.body}</article></main>"
        "<footer><p>© 2026 Example. All rights reserved.</p></footer></body></html>"
    )
    return text.encode(), "\n\n".join(page.truth)


def similarity(text: str, truth: str) -> float:
    """Share of characters that two texts have in common in order (difflib's ratio)."""
    return SequenceMatcher(None, text, truth, autojunk=False).ratio()


def code_verbatim(data: Path, step: int) -> tuple[int, int]:
    """(Code blocks of data/web that lie in the main text, those of them that are there byte for byte).

    A block lies in the main text if the plain text holds its words; its bytes are those that lxml reads, with a line's
    end for each <br>. Within a list item its lines stand below the item's text, all by the same number of blanks.
    """
    found = exact = 0
    for path in sorted((data / "web").glob("[hk]*.warc.gz")):
        for number, record in enumerate(read_records(str(path))):
            if record.media_type != "text/html" or number % (4 * step) or b"<pre" not in record.body:
                continue
            plain = " ".join(extract_text(record.body, charset=record.charset).split())
            marked = extract_text(record.body, charset=record.charset, form=Form(markdown=True))
            for block in html.fromstring(
                decode(record.body, record.charset)[0].encode(), parser=html.HTMLParser(encoding="utf-8")
            ).iter("pre"):
                for end in block.iter("br"):
                    end.tail = "\n" + (end.tail or "")
                code = (block.text_content() or "").replace("\r\n", "\n").removeprefix("\n").removesuffix("\n")
                if code.strip() and " ".join(code.split()) in plain:
                    found += 1
                    exact += any(indent(code, " " * width) in marked for width in range(13))
    return found, exact
