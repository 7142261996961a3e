"""The public functions and classes of the stages' packages: imported from the package, called as documented."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import PROSE, page


def test_extract() -> None:
    from pipeline.extract import extract_text

    html = page(PROSE["river"])
    text = extract_text(html, charset=None, url="https://a.example/", extractor="fast")
    assert PROSE["river"].split(".")[0] in text
    assert extract_text(html) == text


def test_language() -> None:
    from pipeline.language import LanguageIdentifier

    ((language, score),) = LanguageIdentifier(model=None).identify([PROSE["river"]])
    assert language == "en"
    assert 0.5 < score <= 1.0


def test_dedup() -> None:
    from pipeline.dedup import MinHasher, find_duplicates

    signatures = MinHasher(bands=14, rows=8, ngram=5, seed=1).signatures(list(PROSE.values()))
    assert (signatures.dtype, signatures.shape) == (np.uint32, (3, 112))
    labels = find_duplicates([PROSE["river"], PROSE["fox"], PROSE["river"]], threshold=0.8, bands=14, rows=8)
    assert labels.tolist() == [0, 1, 0]


def test_quality() -> None:
    from pipeline.quality import keep, signals

    assert signals(["one two three"], language="en")["words"].tolist() == [3]
    assert keep(["too short", PROSE["river"]], preset="gopher", language="en") == ["gopher_min_words", None]


def test_tokenize() -> None:
    from pipeline.tokenize import Encoder
    from pipeline.tokenize.tokenizer import train

    encoder = Encoder(train(PROSE.values(), 300, "gpt2"))
    ids = encoder.encode_batch([PROSE["fox"], ""])
    assert [part.dtype for part in ids] == [np.uint16] * 2
    assert encoder.tokenizer.decode(ids[0].tolist()) == PROSE["fox"]
    assert len(ids[1]) == 0


@pytest.mark.parametrize("package", ["extract", "language", "dedup", "quality", "tokenize"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    code = f"import sys, pipeline.{package}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numba", "numpy", "pyarrow", "datatrove", "fasttext", "tokenizers"} & set(done.stdout.split())
    module = importlib.import_module(f"pipeline.{package}")
    assert all(callable(getattr(module, name)) for name in module.__all__)
    with pytest.raises(AttributeError, match=f"'pipeline.{package}' has no attribute 'nothing'"):
        _ = module.nothing
