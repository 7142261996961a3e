"""Training: what `tokenizers` itself learns, with the recipe's pattern, digits and special tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel

from pipeline.kernels.bpe.learn import add_up, count_pieces
from pipeline.tokenize.tokenizer import EOS, Encoder, pattern_of, train
from tests.conftest import PROSE

TEXTS = [
    *PROSE.values(),
    *(
        "aaaa aaaaaaa bbbb abab ababab " + 70 * "=" + "\r\n\n ",
        9 * f"{EOS} it's 1951 ",
        "",
        "中文 한국어 \u0301é 😀 " * 4,
    ),
]


def test_pieces_counted_in_parts_add_up_in_the_same_order() -> None:
    cut = pattern_of("cl100k", None)
    whole = count_pieces(TEXTS * 2, cut)
    parts = add_up(count_pieces(part, cut) for part in (TEXTS[:2], [], TEXTS[2:], TEXTS))
    assert all(np.array_equal(getattr(whole, name), getattr(parts, name)) for name in ("data", "bounds", "counts"))


@pytest.mark.parametrize(
    ("size", "pattern", "digits", "special"),
    [(600, "gpt2", None, [EOS]), (900, "cl100k", 1, ["a", EOS, "<pad>", "a"]), (9000, "cl100k", None, [EOS])],
)
def test_training_equals_that_of_tokenizers(
    size: int, pattern: str, digits: int | None, special: Sequence[str]
) -> None:
    """The last size is more than the texts have merges for."""
    found = train(iter(TEXTS), size, pattern, digits, special)
    expected = Tokenizer(models.BPE())
    expected.pre_tokenizer, expected.decoder = found.pre_tokenizer, found.decoder
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    expected.train_from_iterator(TEXTS, trainer)
    assert found.to_str() == expected.to_str()


def test_special_tokens_come_first_and_digits_stay_apart() -> None:
    texts = ["1951 1951 1951 1988 1988 1988"] * 9
    whole = Encoder(train(texts, 300, "gpt2", special_tokens=[EOS, "<pad>"]))
    single = Encoder(train(texts, 300, "gpt2", digits=1))
    assert whole.tokenizer.token_to_id(EOS) == 0
    assert whole.tokenizer.token_to_id("<pad>") == 1
    assert len(whole.encode_batch(["1951"])[0]) < 4
    assert len(single.encode_batch(["1951"])[0]) == 4
