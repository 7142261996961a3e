"""Small Hugging Face models with random weights and a tokenizer trained on prose in 21 languages, and their imports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from pipeline.tokenize.tokenizer import train as train_tokenizer
from trainer.export.hf import import_hf
from trainer.trained import Trained, load_trained

PROSE = sorted((Path(__file__).parents[3] / "data" / "prose").glob("*.txt"))
LANGUAGES = {path.stem: path.read_text("utf-8") for path in PROSE}
# What tokenizers disagree about: spaces, newlines, digits, contractions, emoji, combining marks, control characters.
ODD = (
    "I'll go, she's here; WE'VE 'D it\t\tin 1999 or 12345678.\r\n\r\n   def f(x):\n        return x**2  # ok   \n"
    "naïve café e\u0301 — “quotes” 👩🏽‍🔬🇩🇪 ﬁ ½ Ⅷ \u00a0nbsp \u200bzero\u3000wide ١٢٣٤ १२३\n\n\n  end <|not a token|> "
)
SHAPE = {
    "vocab_size": 1500,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "initializer_range": 0.15,  # logits of several units, so that 1e-4 means something
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def hf_model(kind: str, **fields: Any) -> torch.nn.Module:
    """A model of a kind with random weights, norms among them."""
    torch.manual_seed(3)
    config = {"llama": LlamaConfig, "qwen3": Qwen3Config}[kind](**SHAPE | fields)
    model = {"llama": LlamaForCausalLM, "qwen3": Qwen3ForCausalLM}[kind](config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model.eval()


def write_hf(folder: Path, kind: str, pattern: str = "cl100k", dtype: Any = torch.float32, **fields: Any) -> Path:
    """A Hugging Face folder: a random model and a tokenizer trained on the prose."""
    hf_model(kind, **fields).to(dtype).save_pretrained(folder)
    train_tokenizer(LANGUAGES.values(), SHAPE["vocab_size"] - 20, pattern).save(str(folder / "tokenizer.json"))
    return folder


KINDS = {
    "llama": {"kind": "llama", "pattern": "gpt2", "tie_word_embeddings": False, "rope_theta": 500_000.0},
    "qwen3": {"kind": "qwen3", "pattern": "cl100k", "tie_word_embeddings": True, "num_key_value_heads": 4},
}


@pytest.fixture(scope="session", params=list(KINDS))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder, written by `transformers`."""
    return write_hf(tmp_path_factory.mktemp("source") / request.param, **KINDS[request.param])


@pytest.fixture(scope="session")
def train_dir(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source, imported."""
    folder = tmp_path_factory.mktemp("imported") / "train"
    import_hf(source, folder)
    return folder


@pytest.fixture(scope="session")
def trained(train_dir: Path) -> Trained:
    return load_trained(train_dir)
