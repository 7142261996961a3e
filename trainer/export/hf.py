"""To and from a Hugging Face folder, which `transformers`, vLLM, litgpt and lm-eval load as any Llama or Qwen3.

    config.json  generation_config.json  model.safetensors (in several files above SHARD_BYTES, with an index)
    tokenizer.json  tokenizer_config.json  README.md (the model card)

Our parameters have Hugging Face's names without the prefix `model.`; nothing is transposed or merged, so exporting
is renaming and, where another type is asked for, rounding. With `qk_norm` the model is a Qwen3, otherwise a Llama.

An imported folder (Llama, Mistral, Qwen2, Qwen3) becomes a checkpoint of step 0 in fp32, which holds every f16 and bf16
value exactly; exporting it again in the type it came in gives the same bits, with the same special tokens, chat
template and generation settings. A feature that `trainer.model` does not compute (biases, sliding windows,
another activation) is refused by name: ignoring it would give another model.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from common.errors import TrainerError
from common.files import replacing, sha256, to_json, write_atomically
from trainer.checkpoint import Retention, Writer
from trainer.config import ModelConfig, RopeScaling
from trainer.model import Transformer
from trainer.trained import Trained
from trainer.vocabulary import added, find, load_codec, read_object, vocabulary_size

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
SHARD_BYTES = 5_000_000_000
# config.json's name of each field of ModelConfig
FIELDS = {
    "vocab_size": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "context": "max_position_embeddings",
    "rope_base": "rope_theta",
    "norm_eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
}
# rope_scaling's name of each field of RopeScaling, by type
ROPE = {
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_context": "original_max_position_embeddings",
    },
}
# Values that a field of config.json may have, because the model then computes as ours does; absent counts as the first.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (None, 1.0),
    "use_sliding_window": (False,),
    "hidden_act": ("silu", "swish"),
    "pretraining_tp": (1,),
    "quantization_config": (None,),
}
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# Tensors of older checkpoints that follow from config.json.
DERIVED = re.compile(r"(.*\.)?rotary_emb\.inv_freq")


def export_hf(
    trained: Trained, path: Path, *, dtype: str = "f32", card: str = "", shard_bytes: int = SHARD_BYTES
) -> Path:
    """Write the folder `path`; an earlier export there is replaced. `card` is the text of README.md.

    dtype: f32 (exact), f16 or bf16. Raises TrainerError for another one.
    """
    if dtype not in DTYPES:
        raise TrainerError(f"dtype is {dtype!r}; a Hugging Face folder takes {', '.join(DTYPES)}")
    if path.exists() and not (path / "config.json").is_file():
        raise TrainerError(f"{path} exists and is no exported model; name another folder")
    weights = {hf_name(name): tensor.to(DTYPES[dtype]).contiguous() for name, tensor in trained.weights.items()}
    with replacing(path) as folder:
        folder.mkdir()
        save_torch_state_dict(weights, folder, max_shard_size=shard_bytes, metadata={"format": "pt"})
        for name, value in (
            ("config.json", config(trained, DTYPES[dtype])),
            ("generation_config.json", generation_config(trained)),
            ("tokenizer_config.json", tokenizer_config(trained)),
        ):
            (folder / name).write_bytes(to_json(value))
        (folder / "tokenizer.json").write_bytes(tokenizer_json(trained))
        (folder / "README.md").write_text(card, encoding="utf-8")
    return path


def hf_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name}"


def config(trained: Trained, dtype: torch.dtype) -> dict[str, Any]:
    shape = trained.shape
    scaling, rope = shape.rope_scaling, None
    if scaling is not None:
        rope = {"rope_type": scaling.type} | {to: getattr(scaling, name) for name, to in ROPE[scaling.type].items()}
    fields = {theirs: getattr(shape, ours) for ours, theirs in FIELDS.items()} | {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rope_scaling": rope,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
    }
    fields = dict(sorted((fields | _token_ids(trained) | _given(trained, "config")).items()))
    if shape.qk_norm:
        return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "use_sliding_window": False} | fields
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False} | fields


def generation_config(trained: Trained) -> dict[str, Any]:
    """generation_config.json: the imported one's settings, else those of `pretrain generate`."""
    given = _given(trained, "generation_config")
    return _token_ids(trained) | (given or {"do_sample": True, "temperature": 0.8})


def _given(trained: Trained, name: str) -> dict[str, Any]:
    """What an imported file says, with the end tokens that the training added."""
    given = dict(trained.special.files.get(name, {}))
    if given.get("bos_token_id") not in (None, trained.special.bos):
        del given["bos_token_id"]
    ends = given.get("eos_token_id")
    if ends is not None and trained.special.end not in (ends if isinstance(ends, list) else [ends]):
        given["eos_token_id"] = list(trained.special.eos)
    return given


def _token_ids(trained: Trained) -> dict[str, Any]:
    """Ids of special tokens; without a BOS a text begins after the end token."""
    special = trained.special
    ends = special.eos[0] if len(special.eos) == 1 else list(special.eos) or None
    ids = {"bos_token_id": special.end if special.bos is None else special.bos, "eos_token_id": ends}
    return ids | ({} if special.pad is None else {"pad_token_id": special.pad})


def tokenizer_config(trained: Trained) -> dict[str, Any]:
    """tokenizer_config.json: the tokens before a text are those of the training (`tokenizer_json`)."""
    special, given = trained.special, dict(trained.special.files.get("tokenizer_config", {}))
    begin = given.get("bos_token")
    if (begin["content"] if isinstance(begin, dict) else begin) != trained.text_of(special.bos):
        given.pop("bos_token", None)  # the recipe's
    end = trained.text_of(special.end)
    named = {
        "bos_token": end if special.bos is None else trained.text_of(special.bos),
        "eos_token": end,
        "pad_token": (None if given else end) if special.pad is None else trained.text_of(special.pad),
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # the default adds one that generate() refuses
    }
    fixed = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": bool(special.prefix),
        "add_eos_token": bool(added(trained.tokenizer)[1]),
        "model_max_length": trained.shape.context,
    }
    return {name: value for name, value in (named | given | fixed).items() if value is not None}


def tokenizer_json(trained: Trained) -> bytes:
    """tokenizer.json, made to put the training's tokens before a text where it does not."""
    data, prefix = trained.tokenizer_file.read_bytes(), trained.special.prefix
    before, after = added(trained.tokenizer)
    if before == prefix:
        return data
    spec = json.loads(data)
    names = {number: str(trained.text_of(number)) for number in (*prefix, *after)}
    pieces = [{"SpecialToken": {"id": names[number], "type_id": 0}} for number in (*prefix, *after)]
    pieces.insert(len(prefix), {"Sequence": {"id": "A", "type_id": 0}})
    second = [{next(iter(piece)): next(iter(piece.values())) | {"type_id": 1}} for piece in pieces]
    second[len(prefix)]["Sequence"]["id"] = "B"
    template = {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [*pieces, *second],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]} for number, name in names.items()},
    }
    old = spec.get("post_processor") or {}
    steps = [step for step in old.get("processors", [old]) if step.get("type") == "ByteLevel"]
    spec["post_processor"] = {"type": "Sequence", "processors": [*steps, template]} if steps else template
    return json.dumps(spec, ensure_ascii=False, indent=2).encode()


def import_hf(folder: Path, train_dir: Path) -> ModelConfig:
    """Write the checkpoint of step 0 and the tokenizer of `folder` into `train_dir`. Returns the model's shape.

    Raises TrainerError where the folder is incomplete, of another architecture, or `train_dir` holds a run already.
    """
    if (train_dir / "checkpoints").exists():
        raise TrainerError(f"{train_dir} holds checkpoints already; name another folder")
    described = folder / "config.json"
    if not described.is_file():
        raise TrainerError(f"{described} does not exist; expected a Hugging Face model folder")
    config = read_object(described)
    shape = model_config(config, described)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise TrainerError(f"{tokenizer} does not exist; a tokenizer in the `tokenizers` format is needed")
    codec = load_codec(tokenizer)
    if (size := vocabulary_size(codec)) > shape.vocab_size:
        raise TrainerError(f"{tokenizer} has ids up to {size - 1}, but config.json says vocab_size {shape.vocab_size}")
    stored = _read_weights(folder)
    if kinds := [name for name, tensor in stored.items() if name.endswith("_proj.bias") and tensor.any()]:
        raise TrainerError(f"{folder}: the weights have biases ({kinds[0]}, ...), which this model does not compute")
    stored = {name: tensor for name, tensor in stored.items() if not name.endswith("_proj.bias")}
    if shape.tied:
        stored.pop("lm_head.weight", None)  # some writers repeat the embedding
    model = Transformer(shape)
    try:
        model.load_weights({name.removeprefix("model."): tensor for name, tensor in stored.items()})
    except (KeyError, RuntimeError) as error:
        raise TrainerError(f"{folder}: the weights do not fit config.json: {error}") from None
    types = {tensor.dtype for tensor in stored.values()}
    dtype = next(name for name, each in DTYPES.items() if len(types) > 1 or each in types)
    state = {
        "step": 0,
        "tokens": 0,
        "identity": {"tokenizer": sha256(tokenizer)},
        "settings": {"precision": "fp32", "document_mask": True},
        "model": shape.model_dump(),
        "special": find(tokenizer, codec).dump(),
        "validation": None,
        "imported": {"architecture": config["model_type"], "dtype": dtype},
    }
    existed = train_dir.is_dir()
    try:
        write_atomically(train_dir / "tokenizer.json", tokenizer.read_bytes())
        (train_dir / "checkpoints").mkdir()
        writer = Writer(train_dir / "checkpoints", Retention(last=1))
        writer.save(0, dict(model.named_parameters()), {}, state)
        writer.collect()
    except BaseException:
        shutil.rmtree(train_dir / "checkpoints" if existed else train_dir, ignore_errors=True)
        raise
    return shape


def model_config(config: dict[str, Any], path: Path) -> ModelConfig:
    """The shape that a config.json describes. Raises TrainerError for one that `trainer.model` does not compute."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise TrainerError(f"{path}: model_type is {kind!r}; this imports {', '.join(FAMILIES)}")
    for name, allowed in NEUTRAL.items():
        if (value := config.get(name, allowed[0])) not in allowed:
            raise TrainerError(
                f"{path}: {name} is {value!r}, which this model does not compute; expected {allowed[0]!r}"
            )
    config = {"rope_theta": 10_000.0, "tie_word_embeddings": False, "rms_norm_eps": 1e-6} | config
    window, context = config.get("sliding_window"), config.get("max_position_embeddings", 0)
    if kind == "mistral" and window is not None and window < context:
        raise TrainerError(f"{path}: sliding_window is {window}, less than the context of {context}; expected null")
    if sliding := set(config.get("layer_types") or ()) - {"full_attention"}:
        raise TrainerError(f"{path}: layer_types has {sliding.pop()!r}; this model computes 'full_attention' only")
    if isinstance(rope := config.get("rope_parameters"), dict):  # newer files; type `default` is no scaling
        config |= {"rope_theta": rope.get("rope_theta", 10_000.0)}
        config |= {"rope_scaling": None if rope.get("rope_type", "default") == "default" else rope}
    try:
        heads = config["num_attention_heads"]
        config["num_key_value_heads"] = config.get("num_key_value_heads") or heads
        config["head_dim"] = config.get("head_dim") or config["hidden_size"] // heads
        fields = {ours: config[theirs] for ours, theirs in FIELDS.items()}
        scaling = _rope_scaling(config.get("rope_scaling"), path)
        return ModelConfig(**fields, rope_scaling=scaling, qk_norm=kind == "qwen3")
    except KeyError as error:
        raise TrainerError(f"{path}: the field {error} is missing") from None
    except ValueError as error:
        raise TrainerError(f"{path}: not a shape that can be built: {error}") from None


def _rope_scaling(scaling: dict[str, Any] | None, path: Path) -> RopeScaling | None:
    kind = (scaling or {}).get("rope_type") or (scaling or {}).get("type")
    if scaling is None or kind == "default":
        return None
    if kind not in ROPE:
        raise TrainerError(f"{path}: rope_scaling is of type {kind!r}, which this model cannot compute")
    return RopeScaling(type=kind, **{ours: scaling[theirs] for ours, theirs in ROPE[kind].items()})


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
            tensors |= {name: tensor for name, tensor in load_file(file).items() if not DERIVED.fullmatch(name)}
        except (SafetensorError, OSError) as error:
            raise TrainerError(f"{file} cannot be read: {error}") from None
    odd = {str(tensor.dtype) for tensor in tensors.values()} - {str(dtype) for dtype in DTYPES.values()}
    if odd:
        raise TrainerError(f"{folder}: weights of type {', '.join(sorted(odd))}; expected float32, float16 or bfloat16")
    return tensors
