"""Published vocabularies as `tokenizers` objects: GPT-2's two files, and tiktoken's ranks."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from pipeline.kernels.bpe.patterns import Pattern, byte_letters
from pipeline.tokenize.tokenizer import EOS

FOLDER = Path(__file__).parent.parent.parent / "shared/data/eval/tokenizer"


def gpt2() -> Tokenizer:
    """GPT-2's tokenizer from encoder.json and vocab.bpe."""
    vocabulary = json.loads((FOLDER / "gpt2-vocab/encoder.json").read_text(encoding="utf-8"))
    lines = (FOLDER / "gpt2-vocab/vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    merges = [tuple(line.split(" ")) for line in lines if line]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    return tokenizer


def cl100k(*, ignore_merges: bool = False) -> Tokenizer:
    """GPT-4's tokenizer, its merges found again from tiktoken's ranks as in Llama 3's conversion."""
    lines = (FOLDER / "tiktoken-vocab/data/cl100k_base.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(text): int(rank) for text, rank in (line.split() for line in lines)}
    letters = {byte: letter for letter, byte in byte_letters().items()}
    spelt = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in ranks.items():
        if len(token) > 1:
            left, right = _last_merge(token, rank, ranks)
            merges.append((spelt[left], spelt[right]))
    vocabulary = {spelt[token]: rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(Pattern("cl100k", 3).regex), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    return tokenizer


def _last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that byte-pair encoding joins last to make `token`."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        found = min((ranks.get(parts[i] + parts[i + 1], rank), i) for i in range(len(parts) - 1))[1]
        parts[found : found + 2] = [parts[found] + parts[found + 1]]
    return parts[0], parts[1]
