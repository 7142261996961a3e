"""Typed, frozen configuration of a training run. Imports neither torch nor the pipeline.

`preset` fills in a model shape and its learning rates; any field given beside it wins.
All sizes that decide *what* is learnt are in tokens and steps, so that the same recipe gives the same
batches on any number of processes and any micro-batch.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class Model(BaseModel):
    """Frozen pydantic model in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RopeScaling(Model):
    """Longer contexts for rotary positions: every angle divided by `factor`, or only the slow ones (Llama 3.1)."""

    type: Literal["linear", "llama3"] = "llama3"
    factor: Positive = Field(..., description="what wavelengths are multiplied by")
    low_freq_factor: Positive = Field(1.0, description="llama3: wavelengths over original_context / this are stretched")
    high_freq_factor: Positive = Field(4.0, description="llama3: wavelengths under original_context / this are not")
    original_context: Count = Field(8192, description="llama3: the context before stretching")


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

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"`heads` ({self.heads}) must be a multiple of `kv_heads` ({self.kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"`head_dim` ({self.head_dim}) must be even: rotary embedding turns pairs")
        return self


class ModelOverrides(Model):
    """Fields that replace the preset's; the context comes from the shards, and so does the vocabulary."""

    vocab_size: Count | None = Field(
        None, description="rows of the embedding, at least the shards' vocabulary; default: exactly it"
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
    zero_init: bool | None = Field(None, description="output projections start at zero; default: yes")


class OptimizerConfig(Model):
    """Muon for the blocks' matrices and AdamW for the rest, or AdamW for all."""

    name: Literal["muon", "adamw"] = "muon"
    lr: Positive | None = Field(None, description="peak learning rate of AdamW; default: the preset's")
    muon_lr: Positive | None = Field(
        None, description="peak learning rate of Muon, on AdamW's scale (update RMS 0.2 x lr); default: the preset's"
    )
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    momentum: Decay = Field(0.95, description="Muon's Nesterov momentum")
    weight_decay: NonNegative = 0.1
    ema: Decay | None = Field(
        None, description="decay of an average of the weights, for evaluation and export; default: none is kept"
    )
    clip: NonNegative = Field(1.0, description="largest gradient norm; 0 switches clipping off")


class ScheduleConfig(Model):
    """Learning rate as a pure function of the step."""

    name: Literal["wsd", "cosine"] = "wsd"
    warmup: Annotated[int, Field(ge=0)] = Field(100, description="steps of linear warm-up")
    decay: Annotated[float, Field(ge=0.0, le=1.0)] = Field(0.2, description="share of steps that decay (wsd)")
    floor: Annotated[float, Field(ge=0.0, le=1.0)] = Field(0.1, description="last rate as a share of the peak")


class DataConfig(Model):
    """How shards are read."""

    shuffle_block: Count = Field(65_536, description="samples shuffled together; decides the order of the data")
    cache_gb: Positive = Field(32.0, description="largest local cache of remote or compressed shards, in 10^9 bytes")


class CheckpointConfig(Model):
    """When checkpoints are written and which are kept."""

    every: Count = Field(500, description="steps between checkpoints; the last step always writes one")
    keep_last: Count = Field(2, description="newest checkpoints to keep")
    keep_every: Count | None = Field(None, description="keep those of every so many steps for good, too")
    accept: list[Literal["shards", "tokenizer", "global_batch_tokens", "seed", "data.shuffle_block"]] = Field(
        [], description="fields in which a checkpoint may differ from this run and still be resumed"
    )


class AnomalyConfig(Model):
    """What happens where a loss or gradient norm is not finite, or jumps."""

    policy: Literal["stop", "skip", "rollback"] = Field(
        "stop", description="end the run; leave the step's update out; or go back and leave out the steps before it too"
    )
    sigma: Positive | None = Field(
        None, description="a loss or norm this many standard deviations above its mean counts; default: only non-finite"
    )
    window: Annotated[int, Field(ge=8)] = Field(128, description="steps that mean and deviation are taken over")
    span: Count = Field(8, description="steps that a rollback leaves out, the bad one last")
    limit: Count = Field(10, description="anomalies after which the run stops whatever the policy")


class EvaluationConfig(Model):
    """Held-out loss and bits per byte."""

    every: Count = 250
    batches: Count = Field(20, description="micro-batches of each validation stream, at most")


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
        0, description="steps over which the batch grows from an eighth to global_batch_tokens"
    )
    micro_batch: Count = Field(8, description="sequences per forward pass and process")
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    z_loss: NonNegative = Field(0.0, description="weight of the squared log-partition penalty")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="compute type, by default bf16 where the hardware has it; master weights stay fp32"
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="under torchrun: the whole model in every process, or sharded over them"
    )
    recompute: bool = Field(
        False, description="keep no activations within blocks: less memory, a third more work (gradient checkpointing)"
    )
    compile: bool = Field(True, description="torch.compile; costs a minute at the start")
    document_mask: bool = Field(True, description="tokens attend within their own document only")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = Field(True, description="only kernels that give the same bits each time")
    log_every: Count = 10
    track: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(
        [], description="where losses and rates are also sent; each needs its library"
    )
    data: DataConfig = DataConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    anomalies: AnomalyConfig = AnomalyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    prompts: list[str] = Field([], description="prompts continued at the end of the run and shown in its summary")
