"""Settings of a training run, and the presets and sizes that follow from them. Does not import torch.

`preset` fills in a model shape and its learning rates; a field given in the recipe overrides the preset's.
Sizes that decide what is learnt are in tokens and steps, so that a recipe gives the same batches on any number of
processes and with any micro-batch.

Presets: `124m` has GPT-2's sizes with Llama's blocks, `1b` and `3b` are Llama 3.2's shapes, `8b` is Llama 3's. The
names count parameters at the vocabulary of the model that each follows; another vocabulary changes the embedding.
The learning rates of `tiny` were measured; those of the larger presets lie between published runs (SmolLM2 135M: 3e-3;
OLMo 2 7B and Llama 3 8B: 3e-4). Another width scales them, and those of `tiny` another batch (`_factor`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.errors import TrainerError

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class Model(BaseModel):
    """Frozen pydantic model in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RopeScaling(Model):
    """Rotary positions for longer contexts: `linear` divides every angle by `factor`, `llama3` only the slow ones."""

    type: Literal["linear", "llama3"] = "llama3"
    factor: Positive = Field(..., description="factor by which wavelengths are multiplied")
    low_freq_factor: Positive = Field(
        1.0, description="llama3: wavelengths above original_context / low_freq_factor are multiplied by `factor`"
    )
    high_freq_factor: Positive = Field(
        4.0, description="llama3: wavelengths below original_context / high_freq_factor are kept"
    )
    original_context: Count = Field(8192, description="llama3: the context that the model was trained with first")


class ModelConfig(Model):
    """Shape of a decoder-only Transformer: a Llama, or with `qk_norm` a Qwen3."""

    vocab_size: Count = 32_000
    layers: Count = 12
    width: Count = 768
    heads: Count = 12
    kv_heads: Count = 12
    head_dim: Count = 64
    ffn: Count = 2048
    context: Count = 1024
    rope_base: Positive = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: Positive = 1e-5
    qk_norm: bool = True
    tied: bool = False
    zero_init: bool = True
    embedding_deviation: Positive | None = None
    head_deviation: NonNegative | None = None
    matrices_deviation: Positive | None = None

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"`heads` ({self.heads}) must be a multiple of `kv_heads` ({self.kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"`head_dim` ({self.head_dim}) must be even: rotary embedding turns pairs")
        return self


class ModelOverrides(Model):
    """Fields that replace the preset's. Context and, by default, vocabulary are those of the shards."""

    vocab_size: Count | None = Field(
        None, description="rows of the embedding, at least the shards' vocabulary; default: the shards' vocabulary"
    )
    layers: Count | None = None
    width: Count | None = None
    heads: Count | None = None
    kv_heads: Count | None = None
    head_dim: Count | None = None
    ffn: Count | None = None
    rope_base: Positive | None = None
    rope_scaling: RopeScaling | None = None
    norm_eps: Positive | None = None
    qk_norm: bool | None = None
    tied: bool | None = None
    zero_init: bool | None = Field(None, description="start output projections at zero; default: true")
    embedding_deviation: Positive | None = Field(
        None, description="initial deviation of the input embedding; default: the preset's, width^-0.5 where tied"
    )
    head_deviation: NonNegative | None = Field(
        None, description="that of an untied head; default: 0 with `zero_init`, else width^-0.5"
    )
    matrices_deviation: Positive | None = Field(
        None, description="that of the blocks' matrices which `zero_init` leaves; default: width^-0.5"
    )


class GroupConfig(Model):
    """Settings of one group of AdamW's parameters; what is not given is that of all groups."""

    lr: Positive | None = Field(None, description="peak learning rate; default: `optimizer.lr`, else the preset's")
    betas: tuple[Decay, Decay] | None = Field(None, description="default: `optimizer.betas`")
    weight_decay: NonNegative | None = Field(
        None, description="default: `optimizer.weight_decay` for the head, 0 for embedding and norms"
    )


class OptimizerConfig(Model):
    """Muon for the blocks' matrices and AdamW for the rest, or AdamW for all."""

    name: Literal["muon", "adamw"] = "muon"
    lr: Positive | None = Field(
        None,
        description="peak learning rate of every AdamW group without its own; default: the preset's of each, which"
        " follow from the width, and with `tiny` from the batch",
    )
    muon_lr: Positive | None = Field(
        None, description="peak learning rate of Muon, on AdamW's scale (update RMS 0.2 x lr); default: the preset's"
    )
    embedding: GroupConfig = Field(GroupConfig(), description="the input embedding (with `tied`, also the head)")
    head: GroupConfig = GroupConfig()
    norms: GroupConfig = GroupConfig()
    betas: tuple[Decay, Decay] | None = Field(
        None,
        description="AdamW's, of every group without its own; default: 0.9, 0.95, and beside Muon 0.8, 0.995 for the"
        " embedding and 0.8, 0.96 for the head",
    )
    momentum: Decay = Field(
        0.95, description="Muon's Nesterov momentum; rises to it from 0.85, if that is less, over the first 300 steps"
    )
    weight_decay: NonNegative = 0.1
    ema: Decay | None = Field(
        None,
        description="decay of the moving average of the weights that is evaluated and exported; default: no average",
    )
    clip: NonNegative = Field(1.0, description="largest gradient norm; 0: no clipping")


class ScheduleConfig(Model):
    """Learning rate as a pure function of the step."""

    name: Literal["wsd", "cosine"] = "wsd"
    warmup: Annotated[int, Field(ge=0)] | None = Field(
        None, description="steps of linear warm-up; default: 40, at most a tenth of the run"
    )
    decay: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.65, description="wsd: share of the steps, at the end, in which the rate decays"
    )
    floor: Annotated[float, Field(ge=0.0, le=1.0)] = Field(0.0, description="last rate, as a share of the peak")


class DataConfig(Model):
    """Reading of the shards."""

    shuffle_block: Count = Field(
        65_536, description="number of samples that are shuffled together; part of the order of the data"
    )
    cache_gb: Positive = Field(32.0, description="largest local cache of remote or compressed shards, in 10^9 bytes")
    validation: list[str] | None = Field(
        None,
        description="MDS folders without a manifest: data sets to hold out, by name or pattern (`books/val*`), all"
        " others being trained on; default: those whose path has a word such as val, dev or test",
    )
    sequence_length: Count | None = Field(
        None,
        description="MDS folders without a manifest: tokens that a sample predicts; shorter samples are padded;"
        " default: the longest training sample's, less one",
    )
    bos: str | None = Field(
        None, description="MDS folders without a manifest: token before each document; default: the tokenizer's own"
    )
    eos: str | None = Field(
        None, description="MDS folders without a manifest: token that ends documents; default: the tokenizer's own"
    )


class CheckpointConfig(Model):
    """Writing and keeping of checkpoints."""

    every: Count = Field(500, description="steps between checkpoints; the last step writes one too")
    keep_last: Count = Field(2, description="number of newest checkpoints to keep")
    keep_every: Count | None = Field(None, description="also keep every checkpoint whose step is a multiple of this")
    accept: list[Literal["shards", "tokenizer", "global_batch_tokens", "seed", "data.shuffle_block"]] = Field(
        [], description="fields that may differ between a checkpoint and the run that resumes it"
    )


class AnomalyConfig(Model):
    """Handling of steps whose loss or gradient norm is not finite or jumps."""

    policy: Literal["stop", "skip", "rollback"] = Field(
        "stop",
        description="stop: end the run; skip: drop this step's update; rollback: return to an earlier checkpoint and"
        " skip the last `span` steps",
    )
    sigma: Positive | None = Field(
        None,
        description="a loss or norm this many standard deviations above its mean is an anomaly; default: only"
        " non-finite ones are",
    )
    window: Annotated[int, Field(ge=8)] = Field(128, description="number of past steps for mean and deviation")
    span: Count = Field(8, description="number of steps that a rollback skips, up to and including the bad one")
    limit: Count = Field(10, description="number of anomalies at which the run stops, whatever the policy")


class EvaluationConfig(Model):
    """Held-out loss and bits per byte."""

    every: Count = 250
    batches: Count = Field(20, description="largest number of micro-batches of each validation stream")


class TrainConfig(Model):
    """One training run over prepared shards."""

    preset: Literal["tiny", "124m", "350m", "1b", "3b", "8b"] = "tiny"
    model: ModelOverrides = ModelOverrides()
    initial: str | None = Field(
        None,
        description="folder of `pretrain import` (relative to the recipe) whose weights, shape and tokenizer training"
        " starts from; default: random weights of the preset's shape",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    steps: Count = 1000
    global_batch_tokens: Count = Field(16_384, description="tokens per optimizer step over all processes")
    batch_ramp: Annotated[int, Field(ge=0)] = Field(
        0, description="number of steps in which the batch grows from an eighth of global_batch_tokens to all of it"
    )
    micro_batch: Count = Field(8, description="sequences in a forward pass of one process")
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    z_loss: NonNegative = Field(0.0, description="weight of the squared log-partition penalty")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="type of activations; auto: bf16 where the hardware multiplies it. Master weights are fp32"
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="under torchrun: ddp: a full model in every process; fsdp: one model sharded over the processes",
    )
    recompute: bool = Field(
        False, description="gradient checkpointing: recompute the activations of blocks; less memory, a third more work"
    )
    compile: bool = Field(True, description="use torch.compile, which takes a minute at the start")
    document_mask: bool = Field(True, description="restrict attention to the token's own document")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = Field(True, description="use only kernels that give the same bits each time")
    log_every: Count = 10
    record_losses: bool = Field(
        False, description="keep the loss of each document and epoch in `losses/*.parquet`, which the report reads"
    )
    track: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(
        [], description="services that also receive losses and rates; each needs its library"
    )
    data: DataConfig = DataConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    anomalies: AnomalyConfig = AnomalyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    prompts: list[str] = Field([], description="prompts that the model continues at each evaluation")

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if self.initial is not None and "preset" in self.model_fields_set:
            raise ValueError(
                "`preset` and `initial` exclude each other: the given model has its own shape; set the learning rates "
                "by `optimizer.lr` and `optimizer.muon_lr`"
            )
        return self


class Rates(NamedTuple):
    """Peak learning rates of the groups of parameters; those of `matrices` are Muon's unless AdamW updates them too."""

    embedding: float
    head: float
    norms: float
    matrices: float


@dataclass(frozen=True)
class Preset:
    """A shape, without vocabulary and context, its peak learning rates, and that of AdamW alone.

    batch: tokens a step for which the rates were measured; None where no other batch was tried.
    """

    shape: ModelConfig
    rates: Rates
    adamw: float
    batch: int | None


def _preset(muon: float, adamw: float, batch: int | None = None, **shape: Any) -> Preset:
    """Rates of a shape: head and norms as the matrices; an untied embedding, whose rows are seen seldom, far more.

    The ratios were found at width 256 (docs/log.md, 2026-11-26): 0.1 for an embedding of deviation 0.8, 6e-3 for the
    rest, and fall with the square root of the width, as nanochat's do. A tied embedding is a head as well: its rate and
    deviation are a head's.
    """
    shape = {"embedding_deviation": None if shape.get("tied") else 0.8} | shape
    embedding = adamw if shape.get("tied") else 0.1 * (256 / shape["width"]) ** 0.5
    return Preset(ModelConfig(**shape), Rates(embedding, muon, muon, muon), adamw, batch)


PRESETS = {
    "tiny": _preset(6e-3, 3e-3, batch=2048, layers=4, width=256, heads=4, kv_heads=2, head_dim=64, ffn=768),
    "124m": _preset(3e-3, 2e-3, layers=12, width=768, heads=12, kv_heads=12, head_dim=64, ffn=2048),
    "350m": _preset(2.5e-3, 1.5e-3, layers=24, width=1024, heads=16, kv_heads=16, head_dim=64, ffn=2816),
    "1b": _preset(
        1.5e-3, 8e-4, layers=16, width=2048, heads=32, kv_heads=8, head_dim=64, ffn=8192, rope_base=5e5, tied=True
    ),
    "3b": _preset(
        1e-3, 5e-4, layers=28, width=3072, heads=24, kv_heads=8, head_dim=128, ffn=8192, rope_base=5e5, tied=True
    ),
    "8b": _preset(6e-4, 3e-4, layers=32, width=4096, heads=32, kv_heads=8, head_dim=128, ffn=14336, rope_base=5e5),
}


CONTINUABLE = {"rope_base", "rope_scaling", "norm_eps"}  # fields of a given model that need no other weights


def resolve_model(config: TrainConfig, vocab_size: int, context: int) -> ModelConfig:
    """The preset's shape with the fields of `model:`, for this vocabulary and context (in tokens).

    Raises TrainerError where `model.vocab_size` is smaller than the vocabulary or the fields contradict each other.
    """
    given = config.model.model_dump(exclude_none=True)
    if given.get("vocab_size", vocab_size) < vocab_size:
        raise TrainerError(
            f"model.vocab_size is {given['vocab_size']}, but the shards use {vocab_size} tokens; "
            f"remove the field or set it to at least {vocab_size}"
        )
    shape = PRESETS[config.preset].shape.model_dump() | {"vocab_size": vocab_size, "context": context} | given
    try:
        return ModelConfig(**shape)
    except ValueError as error:
        raise TrainerError(f"model: these fields do not fit preset `{config.preset}`: {error}") from None


def learning_rates(config: TrainConfig) -> Rates:
    """Peak learning rates: the recipe's where given, else the preset's, for this width and batch (`_factor`); one rate
    for all, the preset's own, where AdamW is alone or weights are given."""
    preset, given = PRESETS[config.preset], config.optimizer
    uniform = preset.adamw if given.name == "adamw" or config.initial is not None else None
    lr, usual = given.lr or uniform, Rates(*(rate * _factor(config) for rate in preset.rates))
    return Rates(
        given.embedding.lr or lr or usual.embedding,
        given.head.lr or lr or usual.head,
        given.norms.lr or lr or usual.norms,
        (lr if given.name == "adamw" else given.muon_lr or uniform) or usual.matrices,
    )


def _factor(config: TrainConfig) -> float:
    """What a preset's rates are multiplied by: the square roots of its width by this width and this batch by its batch.

    So nanochat scales its rates. The first held for widths 128 and 256, the second at width 128 for 256 to 4,096 tokens
    a step (docs/log.md, 2026-11-27); other batches were not measured and count as the nearest of these.
    """
    preset = PRESETS[config.preset]
    by_width = preset.shape.width / (config.model.width or preset.shape.width)
    by_batch = 1.0 if preset.batch is None else min(2.0, max(0.125, config.global_batch_tokens / preset.batch))
    return math.sqrt(by_width * by_batch)


def continued_shape(config: TrainConfig, given: ModelConfig, context: int) -> ModelConfig:
    """The shape of a given model (`train.initial`) in training: with this context and the fields of `model:`.

    Raises TrainerError for a field that would need other weights.
    """
    wanted = {name: getattr(config.model, name) for name in type(config.model).model_fields}
    changed = {name: value for name, value in wanted.items() if value not in (None, getattr(given, name))}
    if fixed := changed.keys() - CONTINUABLE:
        raise TrainerError(
            "train.initial: "
            + ", ".join(f"model.{name} is {changed[name]}, the given model's {getattr(given, name)}" for name in fixed)
            + f"; its weights decide that. Remove the field; {', '.join(sorted(CONTINUABLE))} can be changed"
        )
    return given.model_copy(update=changed | {"context": context})


def parameter_count(shape: ModelConfig) -> int:
    """Number of trainable parameters, tied ones counted once."""
    norms = shape.layers * (2 * shape.width + 2 * shape.head_dim * shape.qk_norm) + shape.width
    return matrix_parameters(shape) + shape.vocab_size * shape.width * (not shape.tied) + norms


def matrix_parameters(shape: ModelConfig) -> int:
    """Number of parameters in the matrix products of a token: blocks and head, not the input embedding."""
    attention = 2 * shape.width * shape.head_dim * (shape.heads + shape.kv_heads)
    return shape.layers * (attention + 3 * shape.width * shape.ffn) + shape.vocab_size * shape.width


def flops_per_token(shape: ModelConfig) -> int:
    """FLOPs of one token's forward and backward pass: 6 for each matrix parameter, and those of attention.

    Attention counts all pairs of positions, masked or not (PaLM, arXiv:2204.02311, appendix B), as published
    utilisations do.
    """
    return 6 * matrix_parameters(shape) + 12 * shape.layers * shape.heads * shape.head_dim * shape.context
