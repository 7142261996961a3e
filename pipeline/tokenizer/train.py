"""Train a byte-level BPE with `tokenizers`. The same texts in the same order give the same tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.tokenizer.encoder import EOS
from pipeline.tokenizer.patterns import DEFAULT_DIGITS, Pattern


def train(
    texts: Iterable[str],
    vocab_size: int,
    pattern: str,
    digits: int | None = None,
    special_tokens: Sequence[str] = (EOS,),
) -> Tokenizer:
    """Train on texts. pattern: `gpt2` or `cl100k`; digits: most digits in a token (None: the pattern's own, 0: any).

    Special tokens get the first ids in their order.
    """
    regex = Pattern(pattern, DEFAULT_DIGITS[pattern] if digits is None else digits).regex
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
