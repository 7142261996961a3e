"""Plan a recipe before it runs: a corpus's yield, time and storage; a model's size, memory, time and likely loss.

The corpus is scaled up from a measured run of the same stages, by bytes of stored input, which is all that a recipe
knows in advance. A larger corpus holds more duplicates, so its planned yield is an upper bound.

Training is arithmetic on the recipe alone. Operations per token are the trainer's own count (PaLM's convention: 6 a
matrix parameter, plus attention), so `utilisation` is the share of peak that papers publish and `metrics.jsonl` logs.
Memory adds up the trainer's tensors; activations are those that eager PyTorch saves, an upper bound under `compile`.
The loss follows Chinchilla's law, E + A / N^a + B / D^b nats a token, in the fits of Hoffmann et al. (2022,
arXiv:2203.15556) and Besiroglu et al. (2024, arXiv:2404.10102): on their data and tokenizer, so an estimate of the
order only, and none below the sizes that the law was fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import read_manifest
from common.runfolder import RunFolder
from pipeline.config import CorpusConfig
from trainer.config import ModelConfig, TrainConfig, flops_per_token, matrix_parameters, parameter_count

# Peak dense bf16 operations per second and memory in bytes, by the vendors' data sheets.
GPUS: dict[str, tuple[float, float]] = {
    "a100": (312e12, 80e9),
    "h100": (989e12, 80e9),
    "h200": (989e12, 141e9),
    "b200": (2250e12, 180e9),
    "l40s": (362e12, 48e9),
    "4090": (165e12, 24e9),
}
LOSS_FITS = (  # E, A, a, B, b
    (1.69, 406.4, 0.34, 410.7, 0.28),  # Hoffmann et al., approach 3
    (1.8172, 482.01, 0.3478, 2085.43, 0.3658),  # Besiroglu et al.
)
FITTED_PARAMETERS, FITTED_TOKENS = 70e6, 5e9  # smallest of Hoffmann et al.'s runs
OPTIMAL_TOKENS_PER_PARAMETER = 20.0  # Hoffmann et al.
OVERHEAD_BYTES = 1.5e9  # CUDA context, kernels' workspaces, fragmentation
LOGIT_ROWS_ELEMENTS = 1 << 22  # trainer.loss.CHUNK_ELEMENTS, which cannot be imported without torch


@dataclass(frozen=True)
class StagePlan:
    """Expected kept documents of a stage, bytes of their text, its core-seconds, bytes of text read and written."""

    stage: str
    documents: float
    bytes: float
    core_seconds: float
    text_read: float
    text_written: float


@dataclass(frozen=True)
class CorpusPlan:
    """Stages in order; tokens and bytes of the shards, 0 where the measured run made none.

    text: bytes of text that the first stage extracts or reads; scale: planned input bytes over measured ones.
    """

    scale: float
    text: float
    stages: list[StagePlan]
    tokens: float
    shard_bytes: float


def plan_corpus(config: CorpusConfig, measured: RunFolder, scale: float) -> CorpusPlan:
    """Plan `config` from a measured run of the same stages, on `scale` times that run's input."""
    seconds, built = core_seconds(measured), measured.built
    stages = [
        StagePlan(
            name,
            documents=stage.stats["documents_kept"] * scale,
            bytes=stage.stats["bytes_kept"] * scale,
            core_seconds=seconds.get(name, 0.0) * scale,
            text_read=built.get(name, {}).get("text_read", 0) * scale,
            text_written=built.get(name, {}).get("text_written", 0) * scale,
        )
        for name, stage in measured.stages.items()
        if name in config.stages
    ]
    text = next(iter(measured.stages.values())).stats["bytes_in"] * scale if measured.stages else 0.0
    shards = measured.stages.get("tokenize")
    if shards is None:
        return CorpusPlan(scale, text, stages, tokens=0, shard_bytes=0)
    size = sum(entry["bytes"] for entry in shards.manifest["files"].values())
    return CorpusPlan(scale, text, stages, tokens=shards.stats.get("tokens", 0) * scale, shard_bytes=size * scale)


def core_seconds(run: RunFolder) -> dict[str, float]:
    """Seconds of work of each stage's tasks the last time it was built."""
    return {name: entry["core_seconds"] for name, entry in run.built.items() if "core_seconds" in entry}


def mixture(shards: Path, tokens: int) -> list[dict[str, Any]]:
    """Tokens and epochs of each training stream in a run of `tokens`, from the shards' manifest.

    A phase lasts from its `start` (a share of the run) to the next phase's; a stream's share of it is its number of
    samples times its weight (docs/format.md).
    """
    manifest = read_manifest(shards)
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


@dataclass(frozen=True)
class TrainingPlan:
    """Memory of one GPU in bytes by part; times in seconds.

    loss: lowest and highest estimate in nats a token; None below the sizes that the law was fitted on.
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
    """Plan a run of `config` on `gpus` GPUs of the kind `gpu` (in GPUS) at the share `utilisation` of their peak."""
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
    """Bytes on one GPU by part. FSDP2 divides the state among the GPUs; under DDP each holds all of it."""
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
    """Bytes per token that autograd saves for the backward pass, at `width` bytes a value.

    A block saves its two inputs and their normalized forms, queries and keys before and after normalization, values,
    attention's result twice (once transposed for the projection), and four feed-forward vectors (gate, its SiLU, up,
    their product). With `recompute` each block saves only its input, and one block at a time all of the above.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    before_norm = (queries + keys) * shape.qk_norm
    block = 4 * shape.width + before_norm + (queries + 2 * keys) + 2 * queries + 4 * shape.ffn
    blocks = block + shape.layers * shape.width if recompute else shape.layers * block
    return float(width * (blocks + 3 * shape.width))
