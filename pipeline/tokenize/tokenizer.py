"""Text to token ids, the same that `tokenizers` gives, and training a byte-level BPE as its trainer does.

Byte-level BPE with a known pattern is encoded by our kernels, which are built for the first text (speed in
docs/benchmarks.md); tokenizers of any other kind, and texts that contain an added token, by `tokenizers` itself.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from common.errors import PipelineError
from pipeline.kernels.bpe.learn import Strings, count_pieces, learn_merges
from pipeline.kernels.bpe.patterns import DEFAULT_DIGITS, Pattern, byte_letters, known_patterns

if TYPE_CHECKING:
    from pipeline.kernels.bpe.batch import Kernels

EOS = "<|endoftext|>"
END_NAMES = (EOS, "</s>", "<|end_of_text|>", "<eos>")
Ids = np.ndarray[Any, np.dtype[Any]]


class Encoder:
    """Text to token ids. Special tokens are never made from text: one spelt out there is encoded as text.

    >>> Encoder("tokenizer.json").encode_batch(["Hello"])  # doctest: +SKIP
    [array([15496], dtype=uint16)]
    """

    def __init__(self, tokenizer: str | Path | Tokenizer) -> None:
        """Raises PipelineError if the file is missing or not a tokenizer."""
        self.tokenizer = copy.deepcopy(tokenizer) if isinstance(tokenizer, Tokenizer) else load(Path(tokenizer))
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self._description: dict[str, Any] = json.loads(self.tokenizer.to_str())
        vocabulary = self.tokenizer.get_vocab()
        self.vocab_size: int = max(vocabulary.values(), default=-1) + 1
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 65_536 else np.uint32)
        self.pattern = _kernel_pattern(self._description)
        added = [token["content"] for token in self._description["added_tokens"] if not token["special"]]
        self._added = re.compile("|".join(map(re.escape, added))) if added else None

    @property
    def eos_id(self) -> int:
        """Id of the token that ends documents. Raises PipelineError if the tokenizer has none of END_NAMES."""
        ids = (self.tokenizer.token_to_id(name) for name in END_NAMES)
        if (end := next((number for number in ids if number is not None), None)) is None:
            raise PipelineError(f"the tokenizer has no end-of-text token; expected one of {', '.join(END_NAMES)}")
        return int(end)

    def encode_batch(self, texts: list[str]) -> list[Ids]:
        """One array of ids per text, uint16 (vocabulary up to 65,536) or uint32.

        Raises UnicodeEncodeError for a text with lone surrogates, which is not valid Unicode.
        """
        if self._kernels is None:
            return self._reference(texts)
        try:
            return self._encode(self._kernels, texts)
        except UnicodeEncodeError:
            raise
        except ValueError as error:
            raise PipelineError(str(error)) from error

    def _encode(self, kernels: Kernels, texts: list[str]) -> list[Ids]:
        special = [i for i, text in enumerate(texts) if self._added.search(text)] if self._added else []
        if not special:
            return kernels.encode(texts, self.dtype)
        plain = list(texts)
        for i in special:
            plain[i] = ""
        encoded = kernels.encode(plain, self.dtype)
        for i, ids in zip(special, self._reference([texts[i] for i in special]), strict=True):
            encoded[i] = ids
        return encoded

    @cached_property
    def _kernels(self) -> Kernels | None:
        if self.pattern is None:
            return None
        from pipeline.kernels.bpe.batch import Kernels

        return Kernels.build(self._description["model"], self.pattern)

    def token_bytes(self) -> np.ndarray[Any, np.dtype[np.uint16]]:
        """Number of UTF-8 bytes of each token, uint16 (vocab_size,); 0 for special tokens."""
        added = self.tokenizer.get_added_tokens_decoder()
        byte_level = (self._description["decoder"] or {}).get("type") == "ByteLevel"
        sizes = np.zeros(self.vocab_size, np.uint16)
        for token, index in self.tokenizer.get_vocab().items():
            if index in added:
                sizes[index] = 0 if added[index].special else len(token.encode())
            elif byte_level:  # spells each byte with one printable character
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
    """Read a tokenizer.json. Raises PipelineError if the file is missing or of another kind."""
    if not path.is_file():
        raise PipelineError(f"tokenize.tokenizer.path: no file at {path}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for every fault of a file
        raise PipelineError(f"{path}: not a tokenizer.json that `tokenizers` can read: {error}") from error


def _kernel_pattern(description: dict[str, Any]) -> Pattern | None:
    """The pattern of a tokenizer that the kernels reproduce; None for any other, which `tokenizers` encodes."""
    model, steps, letters = description["model"], description["pre_tokenizer"], byte_letters().keys()
    unusual = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if model["type"] != "BPE" or description["normalizer"] or any(model.get(key) for key in unusual) or not steps:
        return None
    if not letters <= model["vocab"].keys() or not set("".join(chain.from_iterable(model["merges"]))) <= letters:
        return None
    *before, last = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    if not before:
        return Pattern("gpt2", 0) if last["use_regex"] else None
    split = before[0]
    if len(before) > 1 or split["type"] != "Split" or last["use_regex"]:
        return None
    isolated = split["behavior"] == "Isolated" and not split["invert"]
    return known_patterns().get(split["pattern"].get("Regex", "")) if isolated else None


def train(
    texts: Iterable[str],
    vocab_size: int,
    pattern: str,
    digits: int | None = None,
    special_tokens: Sequence[str] = (EOS,),
) -> Tokenizer:
    """Train a byte-level BPE: the same texts in the same order give the same tokenizer. See `learn`, `pattern_of`."""
    cut = pattern_of(pattern, digits)
    return learn(count_pieces(texts, cut), vocab_size, cut, special_tokens)


def pattern_of(name: str, digits: int | None) -> Pattern:
    """name: `gpt2` or `cl100k`; digits: most digits in a token (None: as the pattern has it; 0: any number)."""
    return Pattern(name, DEFAULT_DIGITS[name] if digits is None else digits)


def learn(pieces: Strings, vocab_size: int, cut: Pattern, special_tokens: Sequence[str] = (EOS,)) -> Tokenizer:
    """A byte-level BPE from the pieces of texts. Special tokens get the first ids, in their order."""
    letters = sorted(byte_letters())
    tokens = list(dict.fromkeys([*special_tokens, *letters]))
    ids = {token: number for number, token in enumerate(tokens)}
    byte_ids = np.zeros(256, np.int64)
    for letter, byte in byte_letters().items():
        byte_ids[byte] = ids[letter]
    merges: dict[tuple[str, str], None] = {}
    for left, right, joined in learn_merges(pieces, tokens, byte_ids, vocab_size).tolist():
        if joined == len(tokens):
            tokens.append(tokens[left] + tokens[right])
        merges.pop((tokens[left], tokens[right]), None)  # one that is listed again has its last rank
        merges[tokens[left], tokens[right]] = None
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.add_special_tokens(list(special_tokens))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(cut.regex), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
