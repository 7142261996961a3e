"""Training: deterministic, with the recipe's pattern, digits and special tokens."""

from __future__ import annotations

from pipeline.tokenize.tokenizer import EOS, Encoder, train
from tests.conftest import PROSE


def test_training_is_deterministic() -> None:
    one, other = (train(PROSE.values(), 350, "gpt2").to_str() for _ in range(2))
    assert one == other


def test_special_tokens_come_first_and_digits_stay_apart() -> None:
    texts = ["1951 1951 1951 1988 1988 1988"] * 9
    whole = Encoder(train(texts, 300, "gpt2", special_tokens=[EOS, "<pad>"]))
    single = Encoder(train(texts, 300, "gpt2", digits=1))
    assert whole.tokenizer.token_to_id(EOS) == 0
    assert whole.tokenizer.token_to_id("<pad>") == 1
    assert len(whole.encode_batch(["1951"])[0]) < 4
    assert len(single.encode_batch(["1951"])[0]) == 4
