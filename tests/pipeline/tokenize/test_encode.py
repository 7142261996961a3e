"""What decides a document's place: languages' shares, copies, split by cluster."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.config import TokenizeConfig, TokenizerConfig
from pipeline.tokenize.encode import copies, sample_rates
from pipeline.tokenize.stage import mixture

FINEWEB2 = {1: 1, 2: 2, 3: 3, 5: 5, 100: 8, 1000: 1}


@pytest.mark.parametrize(
    ("size", "times"), [(None, 1), (1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (99, 5), (100, 8), (999, 8), (1000, 1)]
)
def test_rehydration_by_cluster_size(size: int | None, times: int) -> None:
    assert copies(size, FINEWEB2) == times
    assert copies(size, None) == 1


def test_sample_shares_follow_the_weights_and_fill_up() -> None:
    sizes = Counter({"en": 8000, "de": 1000, "sw": 100})
    even = sample_rates(sizes, TokenizerConfig(sample_bytes=910))
    assert even == pytest.approx({"en": 0.1, "de": 0.1, "sw": 0.1})
    weighted = sample_rates(sizes, TokenizerConfig(sample_bytes=1000, languages={"sw": 1000.0, "de": 2.0, "en": 0.0}))
    assert weighted == pytest.approx({"en": 0.0, "de": 0.9, "sw": 1.0})
    assert sample_rates(sizes, TokenizerConfig(sample_bytes=10**9)) == {"en": 1.0, "de": 1.0, "sw": 1.0}


def test_phases_name_sources_or_streams() -> None:
    settings = TokenizeConfig.model_validate({"phases": [{"start": 0.5, "weights": {"web": 0.0, "web-de": 3.0}}]})
    weights = {"train/web-en": 1.0, "train/web-de": 1.0, "train/books-en": 2.0}
    assert mixture(settings, weights)[1] == {
        "start": 0.5,
        "weights": {"train/web-en": 0.0, "train/web-de": 3.0, "train/books-en": 2.0},
    }
