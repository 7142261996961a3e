"""A corpus's yield, time and storage, scaled up from a measured run of the same stages.

Each stage's survivors and its core-seconds are taken per byte of stored input, which is what a recipe knows before
it runs. Deduplication finds more the larger a corpus is, so yields are upper bounds for a larger one.

A training run's size, memory, time and likely loss, from the recipe alone. Pure arithmetic, no torch.

Operations per token are the trainer's own count (6 a matrix parameter, and attention: PaLM's convention), so the
utilisation to give is the one that is published and that `metrics.jsonl` logs. Memory adds up what the trainer holds;
activations are those that eager PyTorch saves for the backward pass, which `compile` undercuts. The loss is
Chinchilla's law, E + A / N^a + B / D^b nats a token, in Hoffmann et al.'s fit (2022, arXiv:2203.15556) and in
Besiroglu et al.'s correction of it (2024, arXiv:2404.10102): their data and tokenizer, so an order, not a promise, and
none at all outside of the sizes that the law was fitted on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import CorpusConfig
from trainer.config import ModelConfig, TrainConfig, flops_per_token, matrix_parameters, parameter_count


@dataclass(frozen=True)
class StagePlan:
    """Expected survivors of a stage, their text in bytes, and its time in core-seconds."""

    stage: str
    documents: float
    bytes: float
    core_seconds: float


@dataclass(frozen=True)
class CorpusPlan:
    """Stages in order; tokens, and bytes of shards on disk, where the measured run made them."""

    scale: float
    stages: list[StagePlan]
    tokens: float
    shard_bytes: float


def stored_bytes(config: CorpusConfig, base: Path) -> int:
    """Stored size of all inputs in bytes. Raises PipelineError where a pattern matches nothing."""
    from pipeline.read import list_inputs

    return sum(item.size for item in list_inputs(list(config.sources), base))


def plan_corpus(config: CorpusConfig, base: Path, measured: CorpusConfig, run: Path, measured_base: Path) -> CorpusPlan:
    """What `config` will give, from what `measured` gave in the run folder `run`."""
    from pipeline.build import stage_stats

    scale = stored_bytes(config, base) / stored_bytes(measured, measured_base)
    stats = stage_stats(measured, run)
    seconds = core_seconds(run)
    stages = [
        StagePlan(name, counts["documents_kept"] * scale, counts["bytes_kept"] * scale, seconds.get(name, 0.0) * scale)
        for name, counts in stats.items()
        if name in config.stages
    ]
    shards = _manifest(run / "shards")
    size = sum(entry["bytes"] for entry in shards["files"].values()) if shards else 0
    return CorpusPlan(scale, stages, stats.get("tokenize", {}).get("tokens", 0) * scale, size * scale)


def core_seconds(run: Path) -> dict[str, float]:
    """Seconds times workers of each stage's last complete building, from the run's log.jsonl."""
    seconds: dict[str, float] = {}
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("event") == "stage":
            seconds[entry["stage"]] = entry["seconds"] * min(entry["workers"], entry["tasks"])
    return seconds


def mixture(shards: Path, tokens: int) -> list[dict[str, Any]]:
    """Tokens and epochs of each training stream in a run of `tokens`, from the shards' manifest.

    A phase holds from its `start` (a share of the run) to the next one's; a stream's share in it is its samples
    times its weight (docs/format.md).
    """
    manifest = _manifest(shards)
    if manifest is None:
        return []
    streams = {name: entry for name, entry in manifest["streams"].items() if name.startswith("train/")}
    default = [{"start": 0.0, "weights": {name: entry["weight"] for name, entry in streams.items()}}]
    phases = manifest.get("phases") or default
    planned = dict.fromkeys(streams, 0.0)
    for phase, end in zip(phases, [*(phase["start"] for phase in phases[1:]), 1.0], strict=True):
        shares = {name: streams[name]["samples"] * phase["weights"].get(name, 0.0) for name in streams}
        for name, share in shares.items():
            planned[name] += tokens * (end - phase["start"]) * share / sum(shares.values())
    length = manifest["sequence_length"]
    return [
        {"stream": name, "tokens": planned[name], "epochs": planned[name] / (streams[name]["samples"] * length)}
        for name in streams
    ]


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


# Peak dense bf16 operations per second and memory in bytes, by the vendors' data sheets.
GPUS: dict[str, tuple[float, float]] = {
    "a100": (312e12, 80e9),
    "h100": (989e12, 80e9),
    "h200": (989e12, 141e9),
    "b200": (2250e12, 180e9),
    "l40s": (362e12, 48e9),
    "4090": (165e12, 24e9),
}
LOSS_FITS = (
    (1.69, 406.4, 0.34, 410.7, 0.28),  # Hoffmann et al., approach 3
    (1.8172, 482.01, 0.3478, 2085.43, 0.3658),  # Besiroglu et al.
)
FITTED_PARAMETERS, FITTED_TOKENS = 70e6, 5e9  # smallest of Hoffmann et al.'s runs
OPTIMAL_TOKENS_PER_PARAMETER = 20.0  # Hoffmann et al.
# The framework's own: context, kernels' workspaces, fragmentation.
OVERHEAD_BYTES = 1.5e9
LOGIT_ROWS_ELEMENTS = 1 << 22  # trainer.loss.CHUNK_ELEMENTS, which cannot be imported without torch


@dataclass(frozen=True)
class TrainingPlan:
    """Sizes in parameters and tokens, memory of one GPU in bytes by part, time in seconds.

    loss: lowest and highest expectation in nats a token, None where the run is smaller than any the law was fitted on.
    """

    parameters: int
    tokens: int
    tokens_per_parameter: float
    flops: float
    loss: tuple[float, float] | None
    memory: dict[str, float]
    fits: bool
    step_seconds: float
    seconds: float
    gpu_hours: float
    checkpoint_bytes: float


def plan_training(config: TrainConfig, shape: ModelConfig, *, gpus: int, gpu: str, utilisation: float) -> TrainingPlan:
    """Plan a run of `config` on `gpus` GPUs of a kind in GPUS at a share `utilisation` of their peak."""
    peak, capacity = GPUS[gpu]
    parameters = parameter_count(shape)
    tokens = config.steps * config.global_batch_tokens
    flops = float(flops_per_token(shape)) * tokens
    seconds = flops / (gpus * peak * utilisation)
    losses = sorted(e + a / parameters**alpha + b / tokens**beta for e, a, alpha, b, beta in LOSS_FITS)
    memory = gpu_memory(config, shape, gpus)
    return TrainingPlan(
        parameters=parameters,
        tokens=tokens,
        tokens_per_parameter=tokens / parameters,
        flops=flops,
        loss=(losses[0], losses[-1]) if parameters >= FITTED_PARAMETERS and tokens >= FITTED_TOKENS else None,
        memory=memory,
        fits=sum(memory.values()) <= capacity,
        step_seconds=seconds / config.steps,
        seconds=seconds,
        gpu_hours=seconds * gpus / 3600,
        checkpoint_bytes=4.0 * parameters + optimizer_bytes(config, shape),
    )


def gpu_memory(config: TrainConfig, shape: ModelConfig, gpus: int) -> dict[str, float]:
    """Bytes on one GPU by part. Under FSDP2 the state is divided by the GPUs; under DDP each holds all of it."""
    parameters = parameter_count(shape)
    width = 4 if config.precision == "fp32" else 2
    shares = gpus if config.parallel == "fsdp" else 1
    rows = config.micro_batch * shape.context
    logits = min(rows, max(256, LOGIT_ROWS_ELEMENTS // shape.vocab_size)) * shape.vocab_size
    return {
        "weights (fp32)": 4.0 * parameters / shares,
        "gradients (fp32)": 4.0 * parameters / shares,
        "optimizer": optimizer_bytes(config, shape) / shares,
        "compute copies": float(width * matrix_parameters(shape)) if width == 2 else 0.0,
        "activations": rows * activation_bytes_per_token(shape, width, recompute=config.recompute),
        "logits": logits * (4.0 + width) + 4.0 * shape.vocab_size * shape.width,
        "framework": OVERHEAD_BYTES,
    }


def optimizer_bytes(config: TrainConfig, shape: ModelConfig) -> float:
    """fp32 state: two moments with AdamW, one momentum for the blocks' matrices with Muon."""
    parameters = parameter_count(shape)
    muon = matrix_parameters(shape) - shape.vocab_size * shape.width if config.optimizer.name == "muon" else 0
    return 4.0 * muon + 8.0 * (parameters - muon)


def activation_bytes_per_token(shape: ModelConfig, width: int, *, recompute: bool = False) -> float:
    """Bytes saved for the backward pass for one token: what the model's operations keep, in `width` bytes a value.

    A block keeps its two inputs and their normalized forms, queries and keys before and after normalization and
    values, attention's result twice (the kernel's and, transposed, the projection's), and four feed-forward
    vectors (gate, its SiLU, up, their product). With `recompute` only one block does at a time, and each its input.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    before_norm = (queries + keys) * shape.qk_norm
    block = 4 * shape.width + before_norm + (queries + 2 * keys) + 2 * queries + 4 * shape.ffn
    blocks = block + shape.layers * shape.width if recompute else shape.layers * block
    return float(width * (blocks + 3 * shape.width))
