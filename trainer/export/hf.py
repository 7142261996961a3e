"""A Hugging Face folder: `transformers`, vLLM, litgpt and lm-eval load it as any Llama or Qwen3.

    config.json  generation_config.json  model.safetensors (in pieces above SHARD_BYTES, with an index)
    tokenizer.json  tokenizer_config.json  README.md (the model card)

Our parameters carry Hugging Face's names but for the prefix `model.`; nothing is transposed or merged, so exporting
is renaming and, where another type is asked for, rounding. With `qk_norm` the model is a Qwen3, otherwise a Llama.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from common.errors import TrainerError
from common.files import to_json
from trainer.config import ModelConfig
from trainer.trained import Trained, published

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
SHARD_BYTES = 5_000_000_000


def export_hf(
    trained: Trained, place: Path, *, dtype: str = "f32", card: str = "", shard_bytes: int = SHARD_BYTES
) -> Path:
    """Write the folder `place`; an export that stood there is replaced. `card` is the text of README.md.

    dtype: f32 (exact), f16 or bf16. Raises TrainerError for another one.
    """
    if dtype not in DTYPES:
        raise TrainerError(f"dtype is {dtype!r}; a Hugging Face folder takes {', '.join(DTYPES)}")
    if place.exists() and not (place / "config.json").is_file():
        raise TrainerError(f"{place} exists and is no exported model; name another folder")
    weights = {hf_name(name): tensor.to(DTYPES[dtype]).contiguous() for name, tensor in trained.weights.items()}
    with published(place) as folder:
        folder.mkdir()
        save_torch_state_dict(weights, folder, max_shard_size=shard_bytes, metadata={"format": "pt"})
        for name, value in (
            ("config.json", config(trained.shape, trained.eos_id, DTYPES[dtype])),
            ("generation_config.json", generation_config(trained.eos_id)),
            ("tokenizer_config.json", tokenizer_config(trained)),
        ):
            (folder / name).write_bytes(to_json(value))
        (folder / "tokenizer.json").write_bytes(trained.tokenizer_file.read_bytes())
        (folder / "README.md").write_text(card, encoding="utf-8")
    return place


def hf_name(name: str) -> str:
    """Hugging Face's name of one of our parameters."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def config(shape: ModelConfig, eos_id: int | None, dtype: torch.dtype) -> dict[str, Any]:
    """config.json of a shape."""
    common = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": eos_id,
        "eos_token_id": eos_id,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "initializer_range": 0.02,
        "intermediate_size": shape.ffn,
        "max_position_embeddings": shape.context,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.norm_eps,
        "rope_scaling": rope_scaling(shape),
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }
    if shape.qk_norm:
        return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "use_sliding_window": False} | common
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False} | common


def rope_scaling(shape: ModelConfig) -> dict[str, Any] | None:
    """config.json's `rope_scaling`."""
    scaling = shape.rope_scaling
    if scaling is None:
        return None
    if scaling.type == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_context,
    }


def generation_config(eos_id: int | None) -> dict[str, Any]:
    """generation_config.json: sampling as `pretrain generate` does it."""
    return {"bos_token_id": eos_id, "eos_token_id": eos_id, "do_sample": True, "temperature": 0.8}


def tokenizer_config(trained: Trained) -> dict[str, Any]:
    """tokenizer_config.json: no token is added to a prompt, as in training; the end token also starts a text."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": trained.eos_token,
        "eos_token": trained.eos_token,
        "pad_token": trained.eos_token,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # the default adds one that generate() refuses
        "model_max_length": trained.shape.context,
    }
    return {name: value for name, value in config.items() if value is not None}
