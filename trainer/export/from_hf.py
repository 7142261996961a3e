"""A Llama- or Qwen3-shaped Hugging Face folder as a training folder: to generate from, score, export, or train on.

The weights become a checkpoint of step 0 in fp32, which holds every f16 and bf16 value exactly; exporting it again
in the type it came in gives the same bits. A feature that `trainer.model` does not compute (scaled rotary positions,
biases, sliding windows, another activation) is refused by name: ignoring it would give another model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from common.errors import TrainerError
from common.files import sha256, write_atomically
from trainer.checkpoint import Retention, Writer
from trainer.config import ModelConfig, RopeScaling
from trainer.model import Transformer

# Values under which each field means nothing to the model; absent counts as the first.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (None, 1.0),
    "use_sliding_window": (False,),
    "hidden_act": ("silu", "swish"),
}
DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


def import_hf(folder: Path, train_dir: Path) -> ModelConfig:
    """Write the checkpoint of step 0 and the tokenizer of `folder` into `train_dir`. Returns the model's shape.

    Raises TrainerError where the folder is incomplete, of another architecture, or `train_dir` holds a run already.
    """
    if (train_dir / "checkpoints").exists():
        raise TrainerError(f"{train_dir} holds checkpoints already; name another folder")
    config = _read_config(folder / "config.json")
    shape = model_config(config, folder / "config.json")
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise TrainerError(f"{tokenizer} does not exist; a tokenizer in the `tokenizers` format is needed")
    if (size := Tokenizer.from_file(str(tokenizer)).get_vocab_size()) > shape.vocab_size:
        raise TrainerError(f"{tokenizer} has {size} tokens, but config.json says vocab_size {shape.vocab_size}")
    stored = _read_weights(folder)
    if shape.tied:
        stored.pop("lm_head.weight", None)  # some writers repeat the embedding
    model = Transformer(shape)
    try:
        model.load_weights({_our_name(name): tensor for name, tensor in stored.items()})
    except (KeyError, RuntimeError) as error:
        raise TrainerError(f"{folder}: the weights do not fit config.json: {error}") from None
    types = {tensor.dtype for tensor in stored.values()}
    train_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(train_dir / "tokenizer.json", tokenizer.read_bytes())
    state = {
        "step": 0,
        "tokens": 0,
        "identity": {"tokenizer": sha256(tokenizer)},
        "settings": {"precision": "fp32", "document_mask": True},
        "model": shape.model_dump(),
        "eos_id": _eos_id(config),
        "validation": None,
        "imported": {
            "architecture": config["architectures"][0],
            "dtype": DTYPES[types.pop()] if len(types) == 1 else "f32",
        },
    }
    (train_dir / "checkpoints").mkdir()
    writer = Writer(train_dir / "checkpoints", Retention(last=1))
    writer.save(0, dict(model.named_parameters()), {}, state)
    writer.collect()
    return shape


def model_config(config: dict[str, Any], path: Path) -> ModelConfig:
    """The shape that a config.json describes. Raises TrainerError for what `trainer.model` does not compute."""
    kind = config.get("model_type")
    if kind not in ("llama", "qwen3"):
        raise TrainerError(f"{path}: model_type is {kind!r}; this imports llama and qwen3")
    config = _flatten_rope(config)
    for name, allowed in NEUTRAL.items():
        if (found := config.get(name, allowed[0])) not in allowed:
            raise TrainerError(
                f"{path}: {name} is {found!r}, which this model does not compute; expected {allowed[0]!r}"
            )
    try:
        heads = config["num_attention_heads"]
        return ModelConfig(
            vocab_size=config["vocab_size"],
            layers=config["num_hidden_layers"],
            width=config["hidden_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            ffn=config["intermediate_size"],
            context=config["max_position_embeddings"],
            rope_base=config.get("rope_theta", 10_000.0),
            rope_scaling=_rope_scaling(config.get("rope_scaling"), path),
            norm_eps=config["rms_norm_eps"],
            qk_norm=kind == "qwen3",
            tied=config.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise TrainerError(f"{path}: the field {error} is missing") from None
    except ValueError as error:
        raise TrainerError(f"{path}: not a shape that can be built: {error}") from None


def _flatten_rope(config: dict[str, Any]) -> dict[str, Any]:
    """Newer files keep rope_theta in `rope_parameters`; `default` there means no scaling."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return config
    scaling = None if rope.get("rope_type", "default") == "default" else rope
    return config | {"rope_theta": rope.get("rope_theta", 10_000.0), "rope_scaling": scaling}


def _rope_scaling(scaling: dict[str, Any] | None, path: Path) -> RopeScaling | None:
    """The kinds of longer contexts that `trainer.model` computes. Raises TrainerError for another."""
    if scaling is None:
        return None
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind == "linear":
        return RopeScaling(type="linear", factor=scaling["factor"])
    if kind == "llama3":
        return RopeScaling(
            type="llama3",
            factor=scaling["factor"],
            low_freq_factor=scaling["low_freq_factor"],
            high_freq_factor=scaling["high_freq_factor"],
            original_context=scaling["original_max_position_embeddings"],
        )
    raise TrainerError(f"{path}: rope_scaling is of type {kind!r}, which this model cannot compute")


def _eos_id(config: dict[str, Any]) -> int | None:
    """The first of the end tokens, where there are several."""
    found = config.get("eos_token_id")
    return found[0] if isinstance(found, list) else found


def _our_name(name: str) -> str:
    return name.removeprefix("model.")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise TrainerError(f"{path} does not exist; expected a Hugging Face model folder") from None
    except ValueError as error:
        raise TrainerError(f"{path} is not JSON ({error})") from None
    return config


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the folder's safetensors files, in the types they are stored in."""
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = [folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    if not files:
        raise TrainerError(f"{folder} has no *.safetensors; pickled weights are not read: convert them first")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise TrainerError(f"{file} cannot be read: {error}") from None
    odd = {str(tensor.dtype) for tensor in tensors.values()} - {str(dtype) for dtype in DTYPES}
    if odd:
        raise TrainerError(f"{folder}: weights of type {', '.join(sorted(odd))}; expected float32, float16 or bfloat16")
    return tensors
