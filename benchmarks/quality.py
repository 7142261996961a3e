"""Quality signals and presets against datatrove's filters: speed on the same texts, and the same decisions.

    python benchmarks/quality.py [--quick] [--differences FILE]

Input: English documents (lid.176, score >= 0.65) of ../shared/data/text: a third of python-peps, halves of react-docs,
learnxinyminutes and tldr, free-programming-books, and a ninth of gutenberg's books cut at blank lines into pieces of
about 8,000 characters. datatrove cuts words with spaCy's blank English tokenizer and sentences with its
sentencizer, which need no model. Timed on one thread over all documents: ours computes every signal; the peer runs
GopherRepetitionFilter, GopherQualityFilter and C4QualityFilter on each document, one after another, as its pipeline
would (so that its cache of cut words serves). Loading, imports and compilation are not timed.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bars import DATA, at_least, finish, options, show_machine, table

TEXTS = DATA / "text"
PIECE = 8000  # characters
EVERY = {"python-peps": 3, "react-docs": 2, "learnxinyminutes": 2, "tldr": 2}  # take each n-th: the peer is slow


class Sample(NamedTuple):
    source: str
    id: str
    text: str


def main() -> int:
    parser = options(__doc__, "a tenth of the documents, ends within a minute")
    parser.add_argument("--differences", type=Path, help="write the documents decided differently to this file")
    arguments = parser.parse_args()
    if not TEXTS.is_dir():
        print(f"no data at {TEXTS}", file=sys.stderr)
        return 2
    show_machine("datatrove", "spacy", "numba")
    samples = english(list(documents()))
    if arguments.quick:
        samples = samples[::10]
    ours, ours_rate = measure_ours([sample.text for sample in samples])
    peers, peer_rate = measure_peers(samples)
    differences = agreement(samples, ours, peers)
    if arguments.differences:
        arguments.differences.write_text("".join(json.dumps(row) + "\n" for row in differences), "utf-8")
    kept_by_source(samples)
    print(f"\nspeed on one thread, {megabytes(samples):.1f} MB in {len(samples):,} documents")
    row = table("", {"MB/s": ".2f"}, 40)
    row("all signals, ours", ours_rate)
    row("Gopher repetition + quality + C4, peer", peer_rate)
    shares = {preset: 1 - sum(row["preset"] == preset for row in differences) / len(samples) for preset in PRESETS}
    bars = {
        "signals_mb_per_s": at_least(ours_rate, 40),
        "times_datatrove": at_least(ours_rate / peer_rate, 60),
        **{f"agreement_{preset}": at_least(share, 0.99) for preset, share in shares.items()},
    }
    return finish("quality", bars, documents=len(samples))


def documents() -> Iterator[Sample]:
    for source in ("python-peps", "react-docs", "learnxinyminutes", "free-programming-books", "gutenberg", "tldr"):
        with gzip.open(TEXTS / f"{source}.jsonl.gz", "rt", encoding="utf-8") as file:
            for number, row in enumerate(map(json.loads, file)):
                if source == "gutenberg":
                    for k, text in enumerate(pieces(row["text"])):
                        if k % 9 == 0:
                            yield Sample(source, f"{row['id']}#{k}", text)
                elif number % EVERY.get(source, 1) == 0 and row.get("lang", "en") == "en":
                    yield Sample(source, row["id"], row["text"])


def pieces(text: str) -> Iterator[str]:
    """The text cut at blank lines into pieces of at least PIECE characters; CRLF becomes LF."""
    part = ""
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        part += paragraph + "\n\n"
        if len(part) >= PIECE:
            yield part
            part = ""
    if part.strip():
        yield part


def english(samples: list[Sample]) -> list[Sample]:
    from pipeline.language import LanguageIdentifier

    languages = LanguageIdentifier().identify([sample.text for sample in samples])
    pairs = zip(samples, languages, strict=True)
    return [sample for sample, (language, score) in pairs if language == "en" and score >= 0.65 and sample.text.strip()]


def megabytes(samples: list[Sample]) -> float:
    return sum(len(sample.text.encode()) for sample in samples) / 1e6


def measure_ours(texts: list[str]) -> tuple[dict[str, Any], float]:
    """All signals, and MB/s of the best of three runs."""
    from pipeline.kernels.signals.measure import signals

    signals(texts[:10])
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        values = signals(texts)
        seconds.append(time.perf_counter() - began)
    return values, sum(len(text.encode()) for text in texts) / 1e6 / min(seconds)


# Presets and their peers. The optional rules of `c4` are C4's as published, with the terminal-punctuation rule.
C4_TERMINAL = {
    "c4_sentences": False,
    "c4_curly_brackets": False,
    "c4_lorem_ipsum": False,
    "c4_terminal_sentences": True,
    "c4_terminal_curly_brackets": True,
    "c4_terminal_lorem_ipsum": True,
}
PRESETS: dict[str, dict[str, Any]] = {
    "gopher": {"presets": ["gopher"]},
    "c4": {"presets": ["c4"]},
    "c4_terminal": {"presets": ["c4"], "rules": C4_TERMINAL},
    "fineweb": {"presets": ["fineweb"]},
    "fineweb_code": {"presets": ["fineweb"], "rules": {"fineweb_duplicate_characters": 0.01}},
}


def measure_peers(samples: list[Sample]) -> tuple[dict[str, list[str | None]], float]:
    """datatrove's reason to drop each document by preset, and the MB/s of its three filters together."""
    from datatrove.data import Document
    from datatrove.pipeline import filters

    peers = {
        "repetition": filters.GopherRepetitionFilter(),
        "quality": filters.GopherQualityFilter(),
        "c4": filters.C4QualityFilter(filter_no_terminal_punct=False),
        "c4_terminal": filters.C4QualityFilter(),
        "fineweb": filters.FineWebQualityFilter(char_duplicates_ratio=0.1),
        "fineweb_code": filters.FineWebQualityFilter(),
    }
    seconds = dict.fromkeys(peers, 0.0)

    def reason(name: str, sample: Sample) -> str | None:
        document = Document(text=sample.text, id=sample.id)
        began = time.perf_counter()
        verdict = peers[name].filter(document)
        seconds[name] += time.perf_counter() - began
        return None if verdict is True else str(verdict[1])

    for name in peers:
        reason(name, samples[0])
    seconds.update(dict.fromkeys(peers, 0.0))
    rows = [{name: reason(name, sample) for name in peers} for sample in samples]
    reasons = {preset: [row[preset] for row in rows] for preset in PRESETS if preset != "gopher"}
    reasons["gopher"] = [row["repetition"] or row["quality"] for row in rows]
    return reasons, megabytes(samples) / (seconds["repetition"] + seconds["quality"] + seconds["c4"])


def agreement(
    samples: list[Sample], values: dict[str, Any], peers: dict[str, list[str | None]]
) -> list[dict[str, Any]]:
    """Print the table of agreement; return the documents decided differently."""
    from pipeline.config import QualityConfig
    from pipeline.quality.rules import failures

    differences = []
    columns = {"documents": ",d", "peer keeps": ",d", "ours keeps": ",d", "differ": "d", "agree": ".2%"}
    row = table("preset", columns)
    for preset, settings in PRESETS.items():
        failed = failures(QualityConfig.model_validate(settings), values, ["en"] * len(samples))
        different = [
            {
                "preset": preset,
                "source": sample.source,
                "id": sample.id,
                "ours": str(ours[0]) if ours else None,
                "peer": peer,
            }
            for sample, ours, peer in zip(samples, failed, peers[preset], strict=True)
            if (not ours) != (peer is None)
        ]
        differences += different
        kept, total = sum(not names for names in failed), len(samples)
        theirs = sum(reason is None for reason in peers[preset])
        row(preset, total, theirs, kept, len(different), 1 - len(different) / total)
    for (preset, ours, peer), count in Counter((d["preset"], d["ours"], d["peer"]) for d in differences).most_common():
        ids = [d["id"] for d in differences if (d["preset"], d["ours"], d["peer"]) == (preset, ours, peer)]
        print(f"  {preset}: ours {ours}, peer {peer}: {count} ({', '.join(ids[:3])})")
    return differences


def kept_by_source(samples: list[Sample]) -> None:
    """Print the share that presets keep of link lists, technical prose and fiction.

    Gopher's rule on letters is applied as the peer reads it, and (`strict`) over words alone.
    """
    from pipeline.config import QualityConfig
    from pipeline.kernels.signals.measure import signals
    from pipeline.language import LanguageIdentifier
    from pipeline.quality.rules import failures

    with gzip.open(TEXTS / "free-programming-books.jsonl.gz", "rt", encoding="utf-8") as file:
        lists = [Sample("free-programming-books", row["id"], row["text"]) for row in map(json.loads, file)]
    strict: dict[str, Any] = {"gopher_alpha_words": False, "gopher_alpha_only_words": True}
    recipes = {
        "gopher": QualityConfig(presets=["gopher"]),
        "gopher strict": QualityConfig(presets=["gopher"], rules=strict),
        "strict + fineweb": QualityConfig(presets=["gopher", "fineweb"], rules=strict),
        "strict + fineweb + c4": QualityConfig(rules=strict),
    }
    print()
    row = table("kept", {"documents": ",d"} | dict.fromkeys(recipes, ".1%"), 24)
    for source in ("free-programming-books", "python-peps", "gutenberg"):
        chosen = lists if source == "free-programming-books" else [item for item in samples if item.source == source]
        texts = [sample.text for sample in chosen]
        languages = [language for language, _ in LanguageIdentifier().identify(texts)]
        values = signals(texts, language=languages)
        failed = [failures(settings, values, languages) for settings in recipes.values()]
        shares = [sum(not names for names in rows) / max(len(chosen), 1) for rows in failed]
        row(source, len(chosen), *shares)


if __name__ == "__main__":
    sys.exit(main())
