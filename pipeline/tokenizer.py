"""Byte-level BPE: train one, load any `tokenizer.json`, encode batches to numpy arrays.

Encoding goes through `tokenizers` (about 3.4 MB/s a core). Token 0 of a tokenizer trained here is
`<|endoftext|>`, which ends documents.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.errors import PipelineError

EOS = "<|endoftext|>"
# OpenAI's published patterns (tiktoken, r50k_base and cl100k_base).
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": r"(?i:'(?:[sdmt]|ll|ve|re))|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}
_END_NAMES = (EOS, "</s>", "<|end_of_text|>", "<eos>")


class Encoder:
    """Text to token ids, without special tokens.

    >>> Encoder("tokenizer.json").encode_batch(["Hello"])  # doctest: +SKIP
    [array([15496], dtype=uint16)]
    """

    def __init__(self, tokenizer: str | Path | Tokenizer) -> None:
        self.tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else load(Path(tokenizer))
        # A special token spelt out in a document is text, not an end of a document.
        self.tokenizer.encode_special_tokens = True
        self.vocab_size: int = self.tokenizer.get_vocab_size()
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 65_536 else np.uint32)

    @property
    def eos_id(self) -> int:
        """Id of the token that ends documents. Raises PipelineError where the tokenizer has none."""
        for name in _END_NAMES:
            found = self.tokenizer.token_to_id(name)
            if found is not None:
                return int(found)
        raise PipelineError(f"the tokenizer has no end-of-text token; expected one of {', '.join(_END_NAMES)}")

    def encode_batch(self, texts: list[str]) -> list[np.ndarray[Any, Any]]:
        """One array of ids per text, uint16 (vocabulary up to 65,536) or uint32."""
        encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(item.ids, self.dtype) for item in encoded]

    def token_bytes(self) -> np.ndarray[Any, np.dtype[np.uint16]]:
        """UTF-8 bytes that each token stands for, uint16 (vocab_size,); 0 for special tokens."""
        special = set(self.tokenizer.get_added_tokens_decoder())
        sizes = np.zeros(self.vocab_size, np.uint16)
        for token, index in self.tokenizer.get_vocab().items():
            # A byte-level token is spelt with one printable character per byte.
            sizes[index] = 0 if index in special else len(token)
        return sizes


def load(path: Path) -> Tokenizer:
    """Read a tokenizer.json. Raises PipelineError where the file is absent or of another kind."""
    if not path.is_file():
        raise PipelineError(f"tokenize.tokenizer.path: no file at {path}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for every fault of a file
        raise PipelineError(f"{path}: not a tokenizer.json that `tokenizers` can read: {error}") from error


def train(texts: Iterable[str], vocab_size: int, pattern: str) -> Tokenizer:
    """Train a byte-level BPE. The same texts in the same order give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pattern]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
