"""A GGUF file that llama.cpp and Ollama load, and a Modelfile beside it.

Layout: metadata (shape, tokenizer), then the tensors. Matrices are f32, f16, bf16 or q8_0 (blocks of 32 bytes with
one f16 scale: 8.5 bits a weight); norms stay f32, and a matrix whose row length is no multiple of 32 is f16 in a q8_0
file. Architecture `llama` rotates neighbouring pairs of a head where Hugging Face rotates its two halves, so the rows
of its query and key matrices are reordered; `qwen3` keeps the halves.

The tokenizer is `trainer.export.gguf_tokenizer`'s. Costs: one pass over the weights, and memory of one matrix more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from common.errors import TrainerError
from common.files import replacing, write_atomically
from trainer.config import ModelConfig
from trainer.export.gguf_tokenizer import add_tokenizer, chat_template, vocabulary_of
from trainer.export.hf import hf_name
from trainer.model import stretched
from trainer.trained import Trained

TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
BLOCK = 32  # weights of a row that share a scale in q8_0


def export_gguf(trained: Trained, path: Path, *, dtype: str = "f16", name: str = "model") -> Path:
    """Write the file `path` and a Modelfile in its folder; earlier ones are replaced.

    dtype: f32, f16, bf16 or q8_0, of the matrices. Raises TrainerError for another one, and for a tokenizer that
    llama.cpp has no name for.
    """
    if dtype not in TYPES:
        raise TrainerError(f"dtype is {dtype!r}; GGUF takes {', '.join(TYPES)}")
    scaling = trained.shape.rope_scaling
    if scaling is not None and scaling.type == "llama3" and trained.shape.qk_norm:
        raise TrainerError("llama.cpp's qwen3 has no `llama3` rope_scaling; export with `--format hf` instead")
    special = trained.special
    if special.end is None:  # llama.cpp would take token 11
        raise TrainerError("the tokenizer has no end-of-document token that is known; name it with `--eos TOKEN`")
    if special.prefix not in ((), (special.bos,)):
        raise TrainerError(f"the tokenizer puts {len(special.prefix)} tokens before a text; llama.cpp puts one at most")
    vocabulary = vocabulary_of(json.loads(trained.tokenizer_file.read_bytes()))  # refuses before anything is written
    tensors = list(_tensors(trained, dtype))
    with replacing(path) as file:
        writer = gguf.GGUFWriter(file, "qwen3" if trained.shape.qk_norm else "llama")
        _add_shape(writer, trained.shape, name, dtype)
        add_tokenizer(writer, trained, vocabulary)
        for tensor_name, tensor, kind in tensors:
            size = int(np.prod(gguf.quant_shape_to_byte_shape(tuple(tensor.shape), kind)))
            writer.add_tensor_info(tensor_name, tuple(tensor.shape), np.dtype(np.float32), size, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, tensor, kind in tensors:
            writer.write_tensor_data(gguf.quants.quantize(tensor.float().numpy(), kind))
        writer.close()
    write_atomically(path.with_name("Modelfile"), modelfile(trained, path.name).encode())
    return path


def modelfile(trained: Trained, file: str) -> str:
    """Ollama's recipe: without a chat template the prompt is passed on unchanged; a base model continues text."""
    given = trained.special.files.get("generation_config", {})
    lines = [f"FROM ./{file}", f"PARAMETER num_ctx {trained.shape.context}"]
    if not chat_template(trained):  # else Ollama follows the one in the file
        lines.insert(1, 'TEMPLATE "{{ .Prompt }}"')
    for name in ("temperature", "top_p", "top_k", "min_p"):
        if (value := given.get(name, 0.8 if name == "temperature" and not given else None)) is not None:
            lines.append(f"PARAMETER {name} {value}")
    lines += [f'PARAMETER stop "{trained.text_of(end)}"' for end in trained.special.eos]
    return "\n".join(lines) + "\n"


def _add_shape(writer: gguf.GGUFWriter, shape: ModelConfig, name: str, dtype: str) -> None:
    writer.add_name(name)
    writer.add_file_type(TYPES[dtype][1])
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    if shape.rope_scaling is not None and shape.rope_scaling.type == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_scaling.factor)


def _tensors(trained: Trained, dtype: str) -> Iterator[tuple[str, Tensor, Any]]:
    """(name in GGUF, weight, stored type) of every tensor."""
    shape, wanted = trained.shape, TYPES[dtype][0]
    architecture = gguf.MODEL_ARCH.QWEN3 if shape.qk_norm else gguf.MODEL_ARCH.LLAMA
    names = gguf.get_tensor_name_map(architecture, shape.layers)
    if shape.rope_scaling is not None and shape.rope_scaling.type == "llama3":
        frequencies = 1.0 / shape.rope_base ** (torch.arange(0, shape.head_dim, 2) / shape.head_dim)
        factors = frequencies / stretched(frequencies, shape.rope_scaling)
        yield "rope_freqs.weight", factors, gguf.GGMLQuantizationType.F32
    for name, tensor in trained.weights.items():
        if not shape.qk_norm and name.endswith("q_proj.weight"):
            tensor = interleave(tensor, shape.heads)
        elif not shape.qk_norm and name.endswith("k_proj.weight"):
            tensor = interleave(tensor, shape.kv_heads)
        kind = wanted
        if tensor.ndim == 1:
            kind = gguf.GGMLQuantizationType.F32
        elif dtype == "q8_0" and tensor.shape[1] % BLOCK:
            kind = gguf.GGMLQuantizationType.F16
        yield str(names.get_name(hf_name(name), try_suffixes=(".weight",))), tensor, kind


def interleave(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head reordered from halves (0, d/2, 1, ...: rotate-half's pairs) to neighbours.

    weight: (heads * head_dim, width). The pair (i, i + d/2) of a head moves to (2i, 2i + 1).
    """
    rows, width = weight.shape
    halves = weight.view(heads, 2, rows // heads // 2, width)
    return torch.transpose(halves, 1, 2).reshape(rows, width)
