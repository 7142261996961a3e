"""Text to token ids, the same that `tokenizers` gives.

Byte-level BPE with a known pattern runs through the kernels, built when the first text comes; every other kind, and
texts that hold an added token, run through `tokenizers` itself.

Train a byte-level BPE with `tokenizers`. The same texts in the same order give the same tokenizer.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from common.errors import PipelineError
from pipeline.kernels.bpe.patterns import DEFAULT_DIGITS, Pattern, byte_letters, known_patterns

if TYPE_CHECKING:
    from pipeline.kernels.bpe.batch import Kernels

EOS = "<|endoftext|>"
END_NAMES = (EOS, "</s>", "<|end_of_text|>", "<eos>")
Ids = np.ndarray[Any, np.dtype[Any]]


class Encoder:
    """Text to token ids, without special tokens: one spelt out in a text is text.

    >>> Encoder("tokenizer.json").encode_batch(["Hello"])  # doctest: +SKIP
    [array([15496], dtype=uint16)]
    """

    def __init__(self, tokenizer: str | Path | Tokenizer) -> None:
        """Raises PipelineError where the file is absent or no tokenizer."""
        self.tokenizer = copy.deepcopy(tokenizer) if isinstance(tokenizer, Tokenizer) else load(Path(tokenizer))
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self._description: dict[str, Any] = json.loads(self.tokenizer.to_str())
        vocabulary = self.tokenizer.get_vocab()
        self.vocab_size: int = max(vocabulary.values(), default=-1) + 1
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 65_536 else np.uint32)
        self.pattern = _pattern(self._description)  # None: `tokenizers` encodes
        added = [token["content"] for token in self._description["added_tokens"] if not token["special"]]
        self._added = re.compile("|".join(map(re.escape, added))) if added else None

    @property
    def eos_id(self) -> int:
        """Id of the token that ends documents. Raises PipelineError where the tokenizer has none."""
        for name in END_NAMES:
            found = self.tokenizer.token_to_id(name)
            if found is not None:
                return int(found)
        raise PipelineError(f"the tokenizer has no end-of-text token; expected one of {', '.join(END_NAMES)}")

    def encode_batch(self, texts: list[str]) -> list[Ids]:
        """One array of ids per text, uint16 (vocabulary up to 65,536) or uint32.

        Raises UnicodeEncodeError for a text with lone surrogates, which is no Unicode text.
        """
        kernels = self._kernels
        if kernels is None:
            return self._reference(texts)
        try:
            return self._encode(kernels, texts)
        except UnicodeEncodeError:
            raise
        except ValueError as error:
            raise PipelineError(str(error)) from error

    def _encode(self, kernels: Kernels, texts: list[str]) -> list[Ids]:
        if self._added and (special := [i for i, text in enumerate(texts) if self._added.search(text)]):
            found = kernels.encode(["" if self._added.search(text) else text for text in texts], self.dtype)
            for i, ids in zip(special, self._reference([texts[i] for i in special]), strict=True):
                found[i] = ids
            return found
        return kernels.encode(texts, self.dtype)

    @cached_property
    def _kernels(self) -> Kernels | None:
        if self.pattern is None:
            return None
        from pipeline.kernels.bpe.batch import Kernels

        return Kernels.build(self._description["model"], self.pattern)

    def token_bytes(self) -> np.ndarray[Any, np.dtype[np.uint16]]:
        """UTF-8 bytes that each token stands for, uint16 (vocab_size,); 0 for special tokens."""
        added = self.tokenizer.get_added_tokens_decoder()
        byte_level = _byte_level(self._description["decoder"])
        sizes = np.zeros(self.vocab_size, np.uint16)
        for token, index in self.tokenizer.get_vocab().items():
            if index in added:
                sizes[index] = 0 if added[index].special else len(token.encode())
            elif byte_level:  # spelt with one printable character per byte
                sizes[index] = len(token)
            elif re.fullmatch("<0x[0-9A-F]{2}>", token):
                sizes[index] = 1
            else:
                sizes[index] = len(token.replace("\u2581", " ").removeprefix("##").encode())
        return sizes

    def _reference(self, texts: list[str]) -> list[Ids]:
        encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(item.ids, self.dtype) for item in encoded]


def load(path: Path) -> Tokenizer:
    """Read a tokenizer.json. Raises PipelineError where the file is absent or of another kind."""
    if not path.is_file():
        raise PipelineError(f"tokenize.tokenizer.path: no file at {path}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for every fault of a file
        raise PipelineError(f"{path}: not a tokenizer.json that `tokenizers` can read: {error}") from error


def _byte_level(decoder: dict[str, Any] | None) -> bool:
    return decoder is not None and decoder["type"] == "ByteLevel"


def _pattern(description: dict[str, Any]) -> Pattern | None:
    """The pattern that the kernels can stand in for, or None: then `tokenizers` encodes."""
    model = description["model"]
    plain = (
        model["type"] == "BPE"
        and not any(model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        and not model.get("byte_fallback")
        and description["normalizer"] is None
        and byte_letters().keys() <= model["vocab"].keys()
        and all(set(token) <= byte_letters().keys() for token in _mergeable(model))
    )
    steps = description["pre_tokenizer"]
    if not plain or steps is None:
        return None
    steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    if steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    if len(steps) == 1 and steps[0]["use_regex"]:
        return Pattern("gpt2", 0)
    first = steps[0]
    isolated = first["type"] == "Split" and first["behavior"] == "Isolated" and not first["invert"]
    if len(steps) != 2 or not isolated or steps[-1]["use_regex"]:
        return None
    return known_patterns().get(first["pattern"].get("Regex", ""))


def _mergeable(model: dict[str, Any]) -> set[str]:
    return {part for pair in model["merges"] for part in pair}


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
