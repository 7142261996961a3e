"""Quality presets in other languages: the share of good prose that each keeps, with and without thresholds by language.

usage: python benchmarks/presets.py [--quick] [--data ../shared/data]
Prose: the Universal Declaration of Human Rights, 20 paragraphs a document, and UD PUD (news and Wikipedia), 8 sentences
a document, one a line. Not one of these documents is bad, so what a preset drops here is lost. `as published`: the same
rules with the thresholds made for English. The declaration repeats its phrases, and a document of 8 lines is short.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from unittest.mock import patch

from bars import DATA, at_least, finish, options, show_machine, table

from pipeline.language.identify import normalize_label
from pipeline.quality import keep, presets

LANGUAGES = (
    "eng deu fra spa por ita nld swe pol ces rus ukr bul ell fin hun tur arb heb pes hin ben tam mal"
    " cmn jpn kor vie tha lao khm mya bod dzo amh tir"
)
KEPT = 0.9  # of each language's documents, by each preset


def documents(data: Path) -> dict[str, list[str]]:
    """{ISO 639-3 code: documents}; of a language with several translations the first."""
    texts: dict[str, list[str]] = {}
    for name, size in (("udhr-paragraphs", 20), ("ud-pud", 8)):
        rows: dict[str, list[str]] = {}
        with gzip.open(data / f"eval/lid/{name}.tsv.gz", "rt", encoding="utf-8") as file:
            for line in file:
                code, text = line.rstrip("\n").split("\t", 1)
                rows.setdefault({"zho": "cmn", "ara": "arb"}.get(code, code), []).append(text)
        for code, parts in rows.items():
            parts = parts[: 60 if size == 20 else 1000]
            ends = range(size, len(parts) + 1, size)
            texts.setdefault(code, []).extend("\n\n".join(parts[end - size : end]) for end in ends)
    return texts


def shares(texts: list[str], language: str) -> list[float]:
    """Share kept by each preset."""
    return [
        sum(rule is None for rule in keep(texts, preset=preset, language=language)) / len(texts)
        for preset in presets.PRESETS
    ]


def main() -> int:
    parser = options(__doc__, "a quarter of the documents")
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    show_machine("numba")
    texts = documents(arguments.data)
    names = [*presets.PRESETS, *(f"{name}, as published" for name in presets.PRESETS)]
    row = table("language", {"documents": "d"} | dict.fromkeys(names, ".0%"), 10)
    least = 1.0
    for code in LANGUAGES.split():
        chosen, language = texts[code][:: 4 if arguments.quick else 1], normalize_label(code)[0]
        ours = shares(chosen, language)
        with patch.object(presets, "LANGUAGES", {}), patch("pipeline.quality.rules.LANGUAGES", {}):
            published = shares(chosen, language)
        row(f"{code} ({language})", len(chosen), *ours, *published)
        least = min(least, *ours)
    return finish("presets", {"least_kept": at_least(least, KEPT)}, languages=len(LANGUAGES.split()))


if __name__ == "__main__":
    sys.exit(main())
