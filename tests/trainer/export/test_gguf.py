"""GGUF files: the reference reader finds what was written, and llama.cpp (where installed) computes the same."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.errors import TrainerError
from pipeline.tokenize.tokenizer import train as train_tokenizer
from tests.trainer.conftest import continue_tokens
from tests.trainer.export.conftest import LANGUAGES, ODD
from trainer.export.gguf import TYPES, export_gguf
from trainer.export.gguf_tokenizer import pre_tokenizer
from trainer.generate import Sampling
from trainer.model import Transformer
from trainer.trained import Trained, load_model

# Relative error of a stored weight, at most: half a unit of f16's and bf16's last place; of q8_0's 127 steps of a
# scale that is itself rounded to f16.
ERRORS = {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 0.5 / 127 + 2**-11}


@pytest.fixture(scope="module", params=list(TYPES))
def file(trained: Trained, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return export_gguf(trained, tmp_path_factory.mktemp("gguf") / "model.gguf", dtype=request.param)


def test_the_reference_reader_finds_shape_tokenizer_and_weights(trained: Trained, file: Path) -> None:
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = fields["general.architecture"]
    shape = trained.shape
    assert architecture == ("qwen3" if shape.qk_norm else "llama")
    for name, value in {
        "block_count": shape.layers,
        "embedding_length": shape.width,
        "context_length": shape.context,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_dim,
        "rope.freq_base": shape.rope_base,
    }.items():
        assert fields[f"{architecture}.{name}"] == value
    assert fields["tokenizer.ggml.pre"] == ("smaug-bpe" if shape.qk_norm else "gpt-2")
    assert fields["tokenizer.ggml.add_bos_token"] is False
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == shape.vocab_size
    assert tokens[:1480] == [trained.tokenizer.id_to_token(index) for index in range(1480)]
    assert tokens[1480] == "[PAD1480]"
    kinds = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL, gguf.TokenType.UNUSED
    assert (types[0], types[1], types[1480]) == kinds

    kind = TYPES_BY_NUMBER[fields["general.file_type"]]
    stored = {tensor.name: tensor for tensor in reader.tensors}
    assert len(stored) == len(trained.weights)
    for ours, theirs in (
        ("embed_tokens.weight", "token_embd.weight"),
        ("layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight"),
        ("layers.2.self_attn.v_proj.weight", "blk.2.attn_v.weight"),
        ("layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"),
    ):
        weight = trained.weights[ours].numpy()
        tensor = stored[theirs]
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
        bound = ERRORS[kind] * (np.abs(weight).max(-1, keepdims=True) if kind == "q8_0" else np.abs(weight))
        bound = bound if weight.ndim == 2 else 0.0
        assert (np.abs(found - weight) <= bound * 1.01 + 1e-7).all()


def test_ollamas_recipe_passes_the_prompt_through(trained: Trained, file: Path) -> None:
    lines = file.with_name("Modelfile").read_text().splitlines()
    assert lines[:3] == ["FROM ./model.gguf", 'TEMPLATE "{{ .Prompt }}"', "PARAMETER num_ctx 1024"]


@pytest.mark.parametrize(("pattern", "name"), [("gpt2", "gpt-2"), ("cl100k", "smaug-bpe")])
def test_the_pre_tokenizer_follows_from_the_pattern(pattern: str, name: str) -> None:
    spec = json.loads(train_tokenizer(["a b c"], 300, pattern).to_str())
    assert pre_tokenizer(spec) == name
    spec["model"]["ignore_merges"] = True
    assert pre_tokenizer(spec) == {"smaug-bpe": "llama-bpe"}.get(name, name)


def test_published_spellings_are_known() -> None:
    def spec(pattern: str) -> dict[str, Any]:
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
        return {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}}

    # tokenizer.json of Llama 3 and of Qwen 2.5
    llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    llama3 += r"\s*[\r\n]+|\s+(?!\S)|\s+"
    assert pre_tokenizer(spec(llama3)) == "smaug-bpe"
    assert pre_tokenizer(spec(llama3.replace("{1,3}", ""))) == "qwen2"
    gpt2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    assert pre_tokenizer({"model": {"type": "BPE"}, "pre_tokenizer": gpt2}) == "gpt-2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\w+|\W+"), r"the pattern \\w\+"),
        (lambda s: s["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True), "without prefix space"),
        (lambda s: s["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"), "one pattern that splits"),
        (lambda s: s.update(normalizer={"type": "Lowercase"}), "normalizer Lowercase"),
        (lambda s: s["model"].update(type="Unigram"), "Unigram; a byte-level BPE"),
    ],
)
def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(change: Any, message: str) -> None:
    spec = json.loads(train_tokenizer(["a b c"], 300, "cl100k").to_str())
    change(spec)
    with pytest.raises(TrainerError, match=message):
        pre_tokenizer(spec)


def test_an_unknown_type_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="dtype is 'q4_k'; GGUF takes f32, f16, bf16, q8_0"):
        export_gguf(trained, tmp_path / "model.gguf", dtype="q4_k")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def model(train_dir: Path) -> Transformer:
    return load_model(train_dir)[0]


@pytest.fixture(scope="module")
def llama(file: Path) -> Iterator[Any]:
    """The file in llama.cpp; skipped where llama-cpp-python is not installed."""
    llama_cpp = pytest.importorskip(
        "llama_cpp", reason="llama-cpp-python is not installed (docs/run-it-yourself.md says how)"
    )
    exact = TYPES_BY_NUMBER[gguf.GGUFReader(file).fields["general.file_type"].contents()] == "f32"
    cache = llama_cpp.GGML_TYPE_F32 if exact else llama_cpp.GGML_TYPE_F16  # f16 is the default
    loaded = llama_cpp.Llama(
        str(file), n_ctx=1024, n_batch=1024, n_threads=1, logits_all=True, type_k=cache, type_v=cache
    )
    yield loaded
    loaded.close()


def test_llama_cpp_reads_the_same_tokens(trained: Trained, llama: Any) -> None:
    for text in [*LANGUAGES.values(), ODD]:
        ids = trained.tokenizer.encode(text, add_special_tokens=False).ids
        assert llama.tokenize(text.encode(), add_bos=True, special=False) == ids


def test_llama_cpp_gives_the_same_perplexity_and_continuation(
    model: Transformer, trained: Trained, file: Path, llama: Any
) -> None:
    kind = TYPES_BY_NUMBER[gguf.GGUFReader(file).fields["general.file_type"].contents()]
    difference, worst = 0.0, 0.0
    for language in ("en", "ja", "ar"):
        ids = trained.tokenizer.encode(LANGUAGES[language]).ids[:340]
        llama.reset()
        llama.eval(ids)
        theirs = torch.from_numpy(np.array(llama.scores[: len(ids)]))
        with torch.no_grad():
            ours = model(torch.tensor([ids]))[0]
        worst = max(worst, float((theirs - ours).abs().max()))
        targets = torch.tensor(ids[1:])
        difference += float(F.cross_entropy(theirs[:-1], targets) - F.cross_entropy(ours[:-1], targets)) / 3
    assert abs(math.exp(difference) - 1) < (0.005 if kind in ("q8_0", "bf16") else 1e-3)
    if kind == "f32":
        assert worst < 1e-3
    if kind in ("f32", "f16"):
        for prompt in ("The river", "Die Stadt", "その"):
            ids = trained.tokenizer.encode(prompt).ids
            ((tokens, _),) = continue_tokens(model, [ids], Sampling(temperature=0, max_tokens=24), trained.special.end)
            llama.reset()
            found = []
            for token in llama.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
                if token == trained.special.end or len(found) == 24:
                    break
                found.append(token)
            assert found == tokens


TYPES_BY_NUMBER = {number: name for name, (_, number) in TYPES.items()}
