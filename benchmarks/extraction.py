"""Extraction: quality on pages that were not trained on, structure, and pages a second, side by side.

usage: python benchmarks/extraction.py [--quick] [--folds FOLDER] [--magic-html PYTHON] [--data ../shared/data]
1. The half of trafilatura's evaluation that is held out: snippets, and CPU seconds of one process, decoding included,
   after one page to warm up.
2. WCXB's development pages, word F1 by kind of page. `fast` reads each page with the weights of the fold that its
   domain is not in: FOLDER, which `python -m pipeline.extract.training --folds FOLDER` writes. Without it the table is
   left out, since the weights in the repository know these pages. Pages without reviewed text are left out; bars count
   those too whose text is not in the HTML at all. magic-html wants Python 3.12 and runs in a process of its own:
   PYTHON is an interpreter that has it.
3. Made pages of five kinds, in layouts that were held out of training, word F1.
4. Markdown of made pages (tables, code, formulas, lists): similarity of characters with what the page was made from;
   code blocks of data/web that lie in the main text: share that is verbatim.
--quick takes a fifth of the pages.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean

from bars import DATA, Bar, at_least, finish, options, show_machine, table
from markdown_pages import PARTS, code_verbatim, made_markdown, similarity

from pipeline.extract import extract_text
from pipeline.extract.decoding import decode, tidy
from pipeline.extract.training import evaluation_pages, fold_of, reviewed_pages, snippet_f1, trained_on, word_f1
from pipeline.extract.training.made_pages import KINDS, held_out_pages, part_f1
from pipeline.kernels.html import fast
from pipeline.kernels.html.fast import Form

EXTRACTORS = ("fast", "resiliparse", "trafilatura")
F1, RATE, FACTOR = 0.935, 340.0, 12.0
WORD_F1 = {"all": 0.88, "collection": 0.72, "listing": 0.72, "product": 0.70, "forum": 0.84}
MARKDOWN, VERBATIM = 0.97, 0.99
MADE_PAGES, MARKDOWN_PAGES = 100, 10


def snippets(data: Path, step: int) -> dict[str, Bar]:
    """The half of trafilatura's evaluation that is held out, and speed."""
    pages = {name: pair for name, pair in sorted(evaluation_pages(data).items()) if not trained_on(name)}
    pages = dict(list(pages.items())[::step])
    golds = {name: gold for name, (_, gold) in pages.items()}
    size = sum(len(body) for body, _ in pages.values())
    print(f"{len(pages)} pages, {size / 1e6:.1f} MB")
    row = table("extractor", {"pages/s": ".0f", "MB/s": ".1f", "precision": ".4f", "recall": ".4f", "F1": ".4f"})
    rates, scores = {}, {}
    for extractor in EXTRACTORS:
        extract_text(next(iter(pages.values()))[0], extractor=extractor)
        began = time.process_time()
        texts = {name: extract_text(body, extractor=extractor) for name, (body, _) in pages.items()}
        seconds = time.process_time() - began
        score = snippet_f1(texts, golds)
        rates[extractor], scores[extractor] = len(pages) / seconds, score["f1"]
        row(extractor, rates[extractor], size / seconds / 1e6, score["precision"], score["recall"], score["f1"])
    return {
        "f1": at_least(scores["fast"], F1),
        "pages_per_second": at_least(rates["fast"], RATE),
        "times_trafilatura": at_least(rates["fast"] / rates["trafilatura"], FACTOR),
    }


def readability(body: bytes) -> str:
    """Main text by readability-lxml, "" where it fails."""
    import logging

    from lxml import html
    from readability import Document

    logging.getLogger("readability").setLevel(logging.CRITICAL)
    try:
        return str(html.fromstring(Document(decode(body)[0]).summary()).text_content())
    except Exception as error:  # noqa: BLE001  # a page that it cannot read has no text
        print(f"readability-lxml reads nothing of a page: {error!r}", file=sys.stderr)
        return ""


class MagicHtml:
    """magic-html in a child process of another interpreter: a page and its text as JSON, a line each."""

    PROGRAM = """
import json, sys
from lxml import html
from magic_html import GeneralExtractor
extractor = GeneralExtractor()
for line in sys.stdin:
    try:
        text = html.fromstring(extractor.extract(json.loads(line), base_url="")["html"]).text_content()
    except Exception as error:
        print(f"magic-html reads nothing of a page: {error!r}", file=sys.stderr)
        text = ""
    print(json.dumps(text), flush=True)
"""

    def __init__(self, python: Path) -> None:
        command = [python, "-W", "ignore", "-c", self.PROGRAM]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, body: bytes) -> str:
        assert self.child.stdin
        assert self.child.stdout
        print(json.dumps(decode(body)[0]), file=self.child.stdin, flush=True)
        return str(json.loads(self.child.stdout.readline()))


def reviewed(data: Path, step: int, folds: Path, magic_html: Path | None) -> dict[str, Bar]:
    """WCXB's pages by kind, each read by the weights that have not seen its domain."""
    models = [fast.load(path) for path in sorted(folds.glob("*.npz"))]
    peers: dict[str, Callable[[bytes], str]] = {
        "resiliparse": lambda body: extract_text(body, extractor="resiliparse"),
        "trafilatura": lambda body: extract_text(body, extractor="trafilatura"),
        "readability": readability,
    }
    peers |= {"magic-html": MagicHtml(magic_html)} if magic_html else {}
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for page in list(reviewed_pages(data).values())[::step]:
        if not page.text:
            continue
        texts = {"fast": tidy(fast.extract(decode(page.body)[0], model=models[fold_of(page.domain)]).text)}
        texts |= {name: extract(page.body) for name, extract in peers.items()}
        for name, text in texts.items():
            f1 = word_f1(text, page.text)
            figures[page.kind][name].append(f1)
            figures["all"][name].append(f1)
    print()
    row = table("WCXB dev", {"pages": ".0f"} | dict.fromkeys(("fast", *peers), ".3f"))
    for kind in sorted(figures):
        of = figures[kind]
        row(kind, len(of["fast"]), *(mean(of[name]) for name in ("fast", *peers)))
    return {f"wcxb_{kind}": at_least(mean(figures[kind]["fast"]), bar) for kind, bar in WORD_F1.items()}


def made(count: int) -> None:
    """Mean word F1 of made pages by kind."""
    figures: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in EXTRACTORS} for kind in KINDS}
    for _, kind, parts in held_out_pages(count):
        page = "".join(html for html, _ in parts).encode()
        for extractor in EXTRACTORS:
            figures[kind][extractor].append(part_f1(extract_text(page, extractor=extractor), parts))
    print()
    row = table("made pages", dict.fromkeys(EXTRACTORS, ".3f"))
    for kind, of in figures.items():
        row(kind, *(mean(of[name]) for name in EXTRACTORS))


def structure(data: Path, step: int) -> dict[str, Bar]:
    """Markdown of made pages, and code of real ones."""
    bars = {}
    print()
    row = table("markdown", dict.fromkeys(EXTRACTORS, ".3f"))
    for part in PARTS:
        figures: dict[str, list[float]] = {name: [] for name in EXTRACTORS}
        for seed in range(MARKDOWN_PAGES // step):
            page, truth = made_markdown(part, seed)
            for name in EXTRACTORS:
                text = extract_text(page, extractor=name, form=Form(markdown=True))
                figures[name].append(similarity(text, truth))
        row(part, *(mean(figures[name]) for name in EXTRACTORS))
        bars[f"markdown_{part}"] = at_least(mean(figures["fast"]), MARKDOWN)
    found, exact = code_verbatim(data, step)
    print(f"\n{found} code blocks in the main text of data/web, {exact} verbatim")
    return bars | {"code_verbatim": at_least(exact / max(found, 1), VERBATIM)}


def main() -> int:
    parser = options(__doc__, "a fifth of the pages")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folds", type=Path, help="folder with the folds' weights")
    parser.add_argument("--magic-html", type=Path, help="a Python interpreter that has magic-html")
    arguments = parser.parse_args()
    step = 5 if arguments.quick else 1
    show_machine("trafilatura", "resiliparse", "readability-lxml")
    bars = snippets(arguments.data, step)
    if arguments.folds:
        bars |= reviewed(arguments.data, step, arguments.folds, arguments.magic_html)
    made(MADE_PAGES // step)
    bars |= structure(arguments.data, step)
    return finish("extraction", bars)


if __name__ == "__main__":
    sys.exit(main())
