"""`pretrain plan` against what was measured: parameters, operations, saved activations, a corpus twice the size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from cli.commands import app
from recipes.plan import activation_bytes_per_token, gpu_memory, plan_training
from tests.conftest import PROSE, page, write_warc
from trainer.config import ModelConfig, Rates, TrainConfig
from trainer.model import Transformer
from trainer.optimizer import Optimizer

SHAPE = ModelConfig(vocab_size=512, layers=3, width=128, heads=4, kv_heads=2, head_dim=32, ffn=384, context=256)


def saved_bytes(model: Transformer, tokens: torch.Tensor) -> int:
    """Bytes of the distinct tensors that autograd keeps for the backward pass of the blocks."""
    kept: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # so that no address is used twice
        return tensor

    alive: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.hidden(tokens)
    return sum(kept.values())


@pytest.mark.parametrize("qk_norm", [True, False])
def test_activations_are_what_autograd_keeps(qk_norm: bool) -> None:
    # In fp32: bf16 norms on a CPU keep fp32 copies, which a GPU's fused kernel does not.
    shape = SHAPE.model_copy(update={"qk_norm": qk_norm})
    model = Transformer(shape)
    tokens = torch.zeros(4, shape.context, dtype=torch.int64)
    measured = saved_bytes(model, tokens) / tokens.numel()
    assert activation_bytes_per_token(shape, 4) == pytest.approx(measured, rel=0.15)


def test_recomputed_activations_are_the_blocks_inputs_and_one_block() -> None:
    tokens = torch.zeros(4, SHAPE.context, dtype=torch.int64)
    model = Transformer(SHAPE)
    shorter = Transformer(SHAPE.model_copy(update={"layers": SHAPE.layers - 1}))
    block = saved_bytes(model, tokens) - saved_bytes(shorter, tokens)
    model.recompute = True
    measured = (saved_bytes(model, tokens) + block) / tokens.numel()
    assert activation_bytes_per_token(SHAPE, 4, recompute=True) == pytest.approx(measured, rel=0.15)


def test_state_is_what_the_trainer_holds() -> None:
    config = TrainConfig(precision="fp32")
    model = Transformer(SHAPE)
    optimizer = Optimizer(model, config.optimizer, Rates(1e-3, 1e-3, 1e-3, 1e-3))
    model(torch.zeros(1, 8, dtype=torch.int64), torch.zeros(1, 8, dtype=torch.int64)).backward()
    optimizer.step()
    memory = gpu_memory(config, SHAPE, gpus=1)
    assert memory["weights (fp32)"] == sum(p.numel() * 4 for p in model.parameters())
    state = sum(tensor.numel() * tensor.element_size() for tensor in optimizer.state().values())
    assert memory["optimizer"] == pytest.approx(state, rel=0.01)


def test_time_follows_from_operations() -> None:
    config = TrainConfig(steps=100, global_batch_tokens=4096)
    plan = plan_training(config, SHAPE, gpus=2, gpu="h100", utilisation=0.5)
    assert plan.seconds == pytest.approx(plan.flops / 989e12)
    assert plan.tokens == 409_600
    assert plan.loss is None  # smaller than any run that a law was fitted on


def test_gpt2_124m_takes_what_llm_c_took() -> None:
    """90 minutes on 8 A100 at 60 % of their peak (llm.c, discussion 481): 10 G tokens of FineWeb, 124 M parameters."""
    recipe = str(Path(__file__).parents[2] / "recipes/gpt2-124m.yaml")
    options = ["--gpus", "8", "--gpu", "a100", "--utilisation", "0.6", "--json"]
    done = json.loads(CliRunner().invoke(app, ["plan", recipe, *options]).stdout)
    assert done["training"]["seconds"] == pytest.approx(90 * 60, rel=0.15)
    assert 2.5 < done["training"]["loss"][0] < done["training"]["loss"][1] < 3.5


def test_corpus_of_twice_the_input_is_planned_within_15_percent(tmp_path: Path) -> None:
    texts = [text + f" Station {n} noted it in the year {1900 + n}." for n in range(24) for text in PROSE.values()]
    for number, text in enumerate(texts):
        write_warc(
            tmp_path / f"web/{number:03d}.warc.gz", {f"https://a.example/{number}": page(text, f"Page {number}")}
        )
    common: dict[str, Any] = {
        "runs": str(tmp_path / "runs"),
        "stages": ["extract", "quality", "tokenize"],
        "quality": {"label_only": True},
        "tokenize": {"tokenizer": {"vocab_size": 300}, "sequence_length": 64, "validation": 0.0},
    }
    for name, pattern in (("half", "web/*[02468].warc.gz"), ("whole", "web/*.warc.gz")):
        source = {"name": "web", "type": "warc", "paths": [pattern]}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(common | {"name": name, "sources": [source]}))
        assert CliRunner().invoke(app, ["corpus", str(tmp_path / f"{name}.yaml")]).exit_code == 0
    done = CliRunner().invoke(
        app, ["plan", str(tmp_path / "whole.yaml"), "--from-run", str(tmp_path / "runs/half"), "--json"]
    )
    planned = json.loads(done.stdout)["corpus"]
    measured = json.loads((tmp_path / "runs/whole/shards/stats.json").read_text())
    assert planned["tokens"] == pytest.approx(measured["tokens"], rel=0.15)
    assert planned["stages"][0]["documents"] == pytest.approx(len(texts), rel=0.15)


@pytest.mark.parametrize("name", ["ablation", "demo", "gpt2-124m", "llama-1b", "fineweb"])
def test_every_recipe_has_a_plan(name: str) -> None:
    recipe = Path(__file__).parents[2] / f"recipes/{name}.yaml"
    done = CliRunner().invoke(app, ["plan", str(recipe), "--gpus", "8", "--gpu-price", "2"])
    assert done.exit_code == 0, done.output
    assert ("GPU-hours" in done.output) == (name != "fineweb")


def test_unknown_gpu_is_named() -> None:
    done = CliRunner().invoke(app, ["plan", "recipes/llama-1b.yaml", "--gpu", "h1000"])
    assert done.exit_code == 2
    assert "h100" in done.output
