"""A tokenizer.json in llama.cpp's terms.

Byte-level BPE is llama.cpp's `gpt2`. It has the pre-tokenizers' patterns compiled in and picks one by name
(`tokenizer.ggml.pre`); a wrong name gives other token ids without any warning. So the name is derived from
tokenizer.json.

BPE with byte fallback, as of Llama 1 and 2, TinyLlama or Mistral, is llama.cpp's `llama`. It has no list of merges: any
two neighbours whose text together is a token may merge, the token with the highest score first. Equal to a list of
merges only if that has every such pair, in the order of the tokens; SentencePiece's own models do, converted.

Everything else is refused. tests/trainer/export/test_tokenizers.py compares ids and greedy texts with llama.cpp's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

import gguf

from common.errors import TrainerError
from trainer.trained import Trained
from trainer.vocabulary import added as added_by

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
)
# llama.cpp's name of published patterns, in the spelling of `_canonical`. cl100k's has two names: `llama-bpe`
# takes a word that is a token without merging (`ignore_merges`), `smaug-bpe` always merges.
PATTERNS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt-2",
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}": "smaug-bpe",
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}": "qwen2",
    rf"{_CASED}\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "gpt-4o",
}
IGNORING_MERGES = {"smaug-bpe": "llama-bpe"}
BYTE = re.compile("<0x[0-9A-F]{2}>")
NO_MERGING = "ignore_merges", "dropout", "continuing_subword_prefix", "end_of_word_suffix"  # not in llama.cpp
PREFIX = {"type": "Prepend", "prepend": "\u2581"}
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


class Vocabulary(NamedTuple):
    """model, pre: llama.cpp's names; merges of `gpt2`, scores by token of `llama`; space: put before each text."""

    model: str
    pre: str
    merges: list[tuple[str, str]]
    scores: dict[str, float]
    space: bool = False


def vocabulary_of(spec: dict[str, Any]) -> Vocabulary:
    """What llama.cpp needs of a parsed tokenizer.json. Raises TrainerError where it would give other ids."""
    model = spec["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        return Vocabulary("gpt2", pre_tokenizer(spec), _merges(model), {})
    normalizer = spec.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    space = steps[0] == PREFIX
    if steps[space:] != [SPACES] or spec.get("pre_tokenizer") is not None:
        raise _refused(
            "BPE with byte fallback; a normalizer that writes spaces as \u2581, and no pre-tokenizer, was expected"
        )
    if missing := [name for byte in range(256) if (name := f"<0x{byte:02X}>") not in model["vocab"]]:
        raise _refused(f"BPE with byte fallback, but without a token {missing[0]}")
    if changed := [name for name in NO_MERGING if model.get(name)]:
        raise _refused(f"BPE with `{changed[0]}`")
    control = {added["content"] for added in spec.get("added_tokens", [])}
    return Vocabulary("llama", "default", [], _scores(model, model["vocab"].keys() - control), space)


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges", []))
    return [(left, right) for left, right in pairs]


def _scores(model: dict[str, Any], tokens: Iterable[str]) -> dict[str, float]:
    """Scores with which merging by score is merging by the list. Raises TrainerError where there are none."""
    merges = _merges(model)
    order = [token for token, _ in groupby(left + right for left, right in merges)]
    scores = {token: -float(rank) for rank, token in enumerate(order)}
    known, made = set(merges), {token for token in model["vocab"] if len(token) == 1} | scores.keys()
    for token in sorted(tokens):
        for cut in range(1, len(token)):
            pair = token[:cut], token[cut:]
            if pair not in known and made.issuperset(pair):
                raise _refused(f"its merges lack {pair}, which llama.cpp would merge to {token!r}")
    if len(scores) < len(order):
        raise _refused("its merges are not sorted by the token that they make")
    return scores


def pre_tokenizer(spec: dict[str, Any]) -> str:
    """llama.cpp's name for the pre-tokenizer of a parsed tokenizer.json.

    Raises TrainerError where it is no byte-level BPE, or llama.cpp does not know its pattern.
    """
    model, normalizer = spec["model"], spec.get("normalizer")
    if model.get("type") != "BPE" or model.get("byte_fallback") or normalizer is not None:
        kind = model.get("type") if normalizer is None else f"normalizer {normalizer.get('type')}"
        raise _refused(f"{kind}; a byte-level BPE without normalizer was expected")
    parts = spec.get("pre_tokenizer") or {}
    steps = parts["pretokenizers"] if parts.get("type") == "Sequence" else [parts]
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space"):
        raise _refused(f"pre_tokenizer {parts.get('type')}; ByteLevel without prefix space was expected at its end")
    patterns = [step["pattern"].get("Regex") for step in steps[:-1] if step.get("type") == "Split"]
    if steps[-1].get("use_regex"):
        patterns.append(next(iter(PATTERNS)))  # ByteLevel's own pattern is GPT-2's
    isolated = all(step.get("behavior") == "Isolated" and not step.get("invert") for step in steps[:-1])
    if len(patterns) != 1 or len(patterns) != len(steps) - 1 + bool(steps[-1].get("use_regex")) or not isolated:
        raise _refused(f"{len(steps)} pre-tokenizers; one pattern that splits was expected")
    name = PATTERNS.get(_canonical(str(patterns[0])))
    if name is None:
        raise _refused(f"the pattern {patterns[0]}; known are those of {', '.join(sorted(PATTERNS.values()))}")
    return IGNORING_MERGES.get(name, name) if model.get("ignore_merges") else name


def _canonical(pattern: str) -> str:
    """One spelling for contractions, which tiktoken and Hugging Face write differently."""
    for spelt in ("(?:[sdmt]|ll|ve|re)", "(?:[sdmtSDMT]|ll|ve|re)"):
        pattern = pattern.replace(f"(?i:'{spelt})", _CONTRACTIONS)
        pattern = pattern.replace(f"'(?i:{spelt[3:]}", _CONTRACTIONS)
        pattern = pattern.replace(f"'{spelt}", "'s|'t|'re|'ve|'m|'ll|'d")
    return pattern


def _refused(reason: str) -> TrainerError:
    return TrainerError(
        f"tokenizer.json: llama.cpp has no such tokenizer: {reason}. It would give other token ids without a warning; "
        "export with `--format hf` instead"
    )


def add_tokenizer(writer: gguf.GGUFWriter, trained: Trained, vocabulary: Vocabulary) -> None:
    """Write tokens, their types, what `vocabulary` says, and the special tokens."""
    tokens = [f"[PAD{index}]" for index in range(trained.shape.vocab_size)]  # rows that no token uses
    types = [gguf.TokenType.UNUSED] * len(tokens)
    for token, index in trained.tokenizer.get_vocab(with_added_tokens=True).items():
        tokens[index], types[index] = token, gguf.TokenType.NORMAL
    for index, added in trained.tokenizer.get_added_tokens_decoder().items():
        types[index] = gguf.TokenType.CONTROL if added.special else gguf.TokenType.USER_DEFINED
    if vocabulary.model == "llama":
        unknown = trained.tokenizer.model.unk_token
        for index, token in enumerate(tokens):
            if token == unknown:
                types[index] = gguf.TokenType.UNKNOWN
            elif BYTE.fullmatch(token):
                types[index] = gguf.TokenType.BYTE
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if vocabulary.model == "llama":
        writer.add_token_scores([vocabulary.scores.get(token, 0.0) for token in tokens])
        writer.add_add_space_prefix(vocabulary.space)
    else:
        writer.add_token_merges([" ".join(merge) for merge in vocabulary.merges])
    special = trained.special
    writer.add_add_bos_token(bool(special.prefix))  # without it, llama-bpe would add one
    writer.add_add_eos_token(bool(added_by(trained.tokenizer)[1]))
    writer.add_bos_token_id(special.eos[0] if special.bos is None else special.bos)
    writer.add_eos_token_id(special.eos[0])
    if len(special.eos) > 1:
        writer.add_eot_token_id(special.eos[1])
    if len(special.eos) > 2:
        writer.add_eom_token_id(special.eos[2])
    if special.pad is not None:
        writer.add_pad_token_id(special.pad)
    if template := chat_template(trained):
        writer.add_chat_template(template)


def chat_template(trained: Trained) -> Any:
    """The chat template of an imported folder, or None."""
    return trained.special.files.get("tokenizer_config", {}).get("chat_template")
