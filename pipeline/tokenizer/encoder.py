"""Text to token ids, the same that `tokenizers` gives.

Byte-level BPE with a known pattern runs through the kernels (`split`, `merge`); every other kind, and texts that
hold an added token, run through `tokenizers` itself. Cost on the fast path: benchmarks/tokenizer.py; about 65 MB a
process for cache and tables, and half a second to build the tables of a vocabulary of 100,000.
"""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from pipeline.errors import PipelineError
from pipeline.tokenizer import merge
from pipeline.tokenizer.patterns import FAMILIES, Pattern, character_classes, known_patterns
from pipeline.tokenizer.split import split

EOS = "<|endoftext|>"
END_NAMES = (EOS, "</s>", "<|end_of_text|>", "<eos>")
Ids = np.ndarray[Any, np.dtype[Any]]
_GROUP = 1 << 17  # bytes of text encoded together


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
        description = json.loads(self.tokenizer.to_str())
        vocabulary = self.tokenizer.get_vocab()
        self.vocab_size: int = max(vocabulary.values(), default=-1) + 1
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 65_536 else np.uint32)
        pattern = _pattern(description)
        rules = _rules(description["model"]) if pattern else None
        self.pattern = pattern if rules else None  # None: `tokenizers` encodes
        if pattern and rules:
            self._splitter = FAMILIES.index(pattern.family), pattern.digits
            self._rules = rules
            self._cache = merge.new_cache()
            self._learn(list(description["model"]["vocab"]))
            added = [token["content"] for token in description["added_tokens"] if not token["special"]]
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
        if not self.pattern:
            return self._reference(texts)
        if self._added and (special := [i for i, text in enumerate(texts) if self._added.search(text)]):
            found = self._kernel(["" if self._added.search(text) else text for text in texts])
            for i, ids in zip(special, self._reference([texts[i] for i in special]), strict=True):
                found[i] = ids
            return found
        return self._kernel(texts)

    def token_bytes(self) -> np.ndarray[Any, np.dtype[np.uint16]]:
        """UTF-8 bytes that each token stands for, uint16 (vocab_size,); 0 for special tokens."""
        added = self.tokenizer.get_added_tokens_decoder()
        byte_level = _byte_level(json.loads(self.tokenizer.to_str())["decoder"])
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

    def _kernel(self, texts: list[str]) -> list[Ids]:
        """Texts through the compiled kernels, about _GROUP bytes at a time."""
        found: list[Ids] = []
        group: list[bytes] = []
        size = 0
        for text in texts:
            group.append(text.encode())
            size += len(group[-1])
            if size >= _GROUP:
                found += self._encode(group)
                group, size = [], 0
        return found + self._encode(group) if group else found

    def _learn(self, tokens: list[str]) -> None:
        """Enter the vocabulary itself into the cache: most words of any text are one token."""
        letters = byte_letters()
        words = [bytes(map(letters.__getitem__, token)) for token in tokens if token and set(token) <= letters.keys()]
        data = np.frombuffer(b"".join([*words, bytes(merge.PADDING)]), np.uint8)
        ends, numbers = np.cumsum([len(word) for word in words]), np.arange(1, len(words) + 1)
        out, out_ends = np.empty(len(data), np.uint32), np.empty(len(words), np.int64)
        merge.encode(data, ends, numbers, self._rules, self._cache, out, out_ends)

    def _encode(self, group: list[bytes]) -> list[Ids]:
        ends = np.cumsum([len(text) for text in group], dtype=np.int64)
        size = int(ends[-1])
        data = np.frombuffer(b"".join([*group, bytes(merge.PADDING)]), np.uint8)
        pieces, piece_ends = np.empty(size, np.int64), np.empty(len(group), np.int64)
        split(data, ends, character_classes(), *self._splitter, pieces, piece_ends)
        out, out_ends = np.empty(size + 2, np.uint32), np.empty(len(group), np.int64)
        total = merge.encode(data, pieces, piece_ends, self._rules, self._cache, out, out_ends)
        ids = out[:total].astype(self.dtype)
        return [ids[start:end] for start, end in zip([0, *out_ends[:-1].tolist()], out_ends.tolist(), strict=True)]


def load(path: Path) -> Tokenizer:
    """Read a tokenizer.json. Raises PipelineError where the file is absent or of another kind."""
    if not path.is_file():
        raise PipelineError(f"tokenize.tokenizer.path: no file at {path}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for every fault of a file
        raise PipelineError(f"{path}: not a tokenizer.json that `tokenizers` can read: {error}") from error


@cache
def byte_letters() -> dict[str, int]:
    """The printable character that byte-level tokenizers write for each byte (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    assert set(letters) == set(ByteLevel.alphabet())
    return letters


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


def _rules(model: dict[str, Any]) -> merge.Rules | None:
    """The kernels' tables of a BPE model, None where they cannot hold it."""
    letters, vocabulary = byte_letters(), model["vocab"]
    byte_ids = np.zeros(256, np.int32)
    for letter, byte in letters.items():
        byte_ids[byte] = vocabulary[letter]
    # A pair listed twice has the rank of its last place, as in `tokenizers`.
    ranks = {
        vocabulary[left] << 32 | vocabulary[right]: rank << 32 | vocabulary[left + right]
        for rank, (left, right) in enumerate(model["merges"])
    }
    table = merge.merge_table(
        np.fromiter(ranks.keys(), np.uint64, len(ranks)), np.fromiter(ranks.values(), np.uint64, len(ranks))
    )
    spelt = {token: bytes(map(letters.__getitem__, token)) for token in vocabulary if set(token) <= letters.keys()}
    pairs, boundaries = merge.byte_pair_table(byte_ids, table), merge.boundary_set(list(spelt.values()))
    rules = merge.Rules(byte_ids, pairs, table, boundaries, merge.new_cache(1 << 10))
    if not model.get("ignore_merges"):
        return rules
    whole = {text: vocabulary[token] for token, text in spelt.items() if token}
    return merge.with_whole_words(rules, whole)
