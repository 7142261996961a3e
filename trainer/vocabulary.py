"""A tokenizer.json and its special tokens: which begin and end a text, pad it, and stop a generation.

Shards of the pipeline say in their manifest what was put around documents. Elsewhere the files that Hugging Face keeps
beside a tokenizer.json say it (generation_config.json, config.json, tokenizer_config.json, special_tokens_map.json,
chat_template.jinja), then the tokens that the tokenizer itself adds to a text, then the usual names. A checkpoint
records the answer, and generation, scores and exports follow it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from common.errors import TrainerError

Json = dict[str, Any]
BESIDE = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip
END_NAMES = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "[EOS]", "<EOS>")
# Classes that add their `bos_token` themselves, whatever tokenizer.json says; for all others tokenizer.json decides.
ADDING_BOS = ("LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast")
# Fields of tokenizer_config.json that repeat tokenizer.json or name code that an export does not have.
LEFT_OUT = ("added_tokens_decoder", "auto_map", "tokenizer_class", "add_bos_token", "add_eos_token", "tokenizer_file")


@dataclass(frozen=True)
class Special:
    """Special tokens by id.

    bos: begins a text, where there is one; eos: the first ends documents, all end a generation; prefix: put before
    every text, in training and in prompts; files: what an imported folder's JSON files say, by file name.
    """

    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None
    prefix: tuple[int, ...] = ()
    files: Mapping[str, Json] = field(default_factory=dict)

    @property
    def end(self) -> int | None:
        """The token that ends documents."""
        return self.eos[0] if self.eos else None

    @property
    def start(self) -> tuple[int, ...]:
        """What a new text is continued from. Raises TrainerError where there is no such token."""
        if not self.prefix and not self.eos:
            raise TrainerError(
                "a text begins after an end-of-document token, but none is known; name it with `--eos TOKEN` (in a "
                "recipe `train.data.eos`)"
            )
        return self.prefix or self.eos[:1]

    def dump(self) -> Json:
        """As a checkpoint's state.json holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, state: Json, codec: Tokenizer, file: Path, eos: str | None = None) -> Special:
        """Those of a checkpoint's state.json. Where it has no end token: `eos`, else what `file` says (`find`)."""
        saved = state.get("special") or {"eos": [] if state.get("eos_id") is None else [state["eos_id"]]}
        special = cls(**saved | {name: tuple(saved.get(name, ())) for name in ("eos", "prefix")})
        if eos is not None:
            return dataclasses.replace(special, eos=tuple(dict.fromkeys([token_id(codec, eos, "--eos"), *special.eos])))
        if special.eos:
            return special
        return dataclasses.replace(special, eos=find(file, codec).eos) if "special" in state else find(file, codec)


def load_codec(path: Path) -> Tokenizer:
    """A tokenizer.json that neither cuts nor pads texts, whatever the file asks for. Raises TrainerError."""
    if not path.is_file():
        raise TrainerError(f"{path} does not exist; name the tokenizer.json that the shards were made with")
    try:
        codec = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises nothing more precise
        raise TrainerError(f"{path} is no tokenizer.json: {error}") from None
    codec.no_truncation()
    codec.no_padding()
    return codec


def vocabulary_size(codec: Tokenizer) -> int:
    """The largest id plus one: ids may have holes."""
    return max(codec.get_vocab().values(), default=-1) + 1


def drawable(codec: Tokenizer, rows: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows of the embedding belong to a token: (rows,) bool."""
    known = np.zeros(rows, bool)
    known[list(codec.get_vocab().values())] = True
    return known


def token_id(codec: Tokenizer, name: str, option: str) -> int:
    """The id of a token. Raises TrainerError, naming the option, where there is none of this name."""
    if (number := codec.token_to_id(name)) is None:
        raise TrainerError(f"{option}: the tokenizer has no token {name!r}")
    return int(number)


def added(codec: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer itself puts before and after a text."""
    ids, mask = (encoded := codec.encode("a")).ids, encoded.special_tokens_mask
    inner = [place for place, special in enumerate(mask) if not special] or [len(ids)]
    return tuple(ids[: inner[0]]), tuple(ids[inner[-1] + 1 :])


def find(file: Path, codec: Tokenizer, *, bos: str | None = None, eos: str | None = None) -> Special:
    """The special tokens of a tokenizer.json; `bos` and `eos` name tokens that go before any other answer."""
    files = {name: read_object(file.with_name(name)) for name in BESIDE if name.endswith(".json")}
    tokenizer = files["special_tokens_map.json"] | files["tokenizer_config.json"]
    if (template := file.with_name("chat_template.jinja")).is_file():
        tokenizer["chat_template"] = template.read_text("utf-8")

    def ids(kind: str) -> list[int]:
        """By the first file that names any."""
        for source in (files["generation_config.json"], files["config.json"]):
            value = source.get(f"{kind}_token_id")
            if found := [each for each in (value if isinstance(value, list) else [value]) if each is not None]:
                return found
        name = tokenizer.get(f"{kind}_token")
        number = codec.token_to_id(name["content"] if isinstance(name, dict) else name) if name else None
        return [] if number is None else [number]

    before, after = added(codec)
    start, ends = next(iter([*ids("bos"), *before[:1]]), None), ids("eos") or list(after)
    if not ends:
        ends = [number for name in END_NAMES if (number := codec.token_to_id(name)) is not None][:1]
    if tokenizer.get("tokenizer_class") in ADDING_BOS and start is not None:
        before = (start,) if tokenizer.get("add_bos_token", True) else ()
    if bos is not None:
        start = token_id(codec, bos, "train.data.bos")
        before = (start,)
    if eos is not None:
        ends = [token_id(codec, eos, "train.data.eos"), *ends]
    kept = {
        "config": {key: value for key, value in files["config.json"].items() if key.endswith("_token_id")},
        "generation_config": files["generation_config.json"],
        "tokenizer_config": {key: value for key, value in tokenizer.items() if key not in LEFT_OUT},
    }
    pad = next(iter(ids("pad")), None)
    return Special(start, tuple(dict.fromkeys(ends)), pad, before, {name: each for name, each in kept.items() if each})


def read_object(path: Path) -> Json:
    """A JSON object; empty where there is no such file. Raises TrainerError where it is not one."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise TrainerError(f"{path} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise TrainerError(f"{path} holds a {type(value).__name__}; a JSON object was expected")
    return value
