"""One training run over prepared shards, from the first step or from the newest checkpoint.

    output/
      tokenizer.json           copy of the shards', so that the folder can be used alone
      metrics.jsonl            rows {"kind": "train" | "eval" | "warning", "step": ...}
      checkpoints/step-*/      see trainer.checkpoint
      shards-cache/            decompressed shards (may be deleted)
      result.json              the TrainResult, last

Everything that a step does follows from (config, shards, step) and the checkpointed tensors: the order of samples
and the learning rate are functions of the step, and the forward pass draws no random numbers. So the same call
continues where any crash left it, bit for bit on the same machine. A step's gradient is that of the mean loss over
all its target tokens, however many micro-batches it is cut into.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import checkpoint, identity
from trainer.config import TrainConfig
from trainer.errors import Interrupted, TrainerError
from trainer.evaluate import evaluate
from trainer.files import to_json, write_atomically
from trainer.generate import Sampling, generate
from trainer.metrics import Metrics
from trainer.model import Transformer
from trainer.optimizer import Optimizer
from trainer.presets import learning_rates, resolve_model
from trainer.progress import Observer, Silent, TrainResult
from trainer.runtime import StopSignals, compile_blocks, deterministic, environment, find_device
from trainer.sampler import Sampler
from trainer.schedule import rate
from trainer.shards import Shards, open_shards

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def train(config: TrainConfig, shards: Path, output: Path, observer: Observer | None = None) -> TrainResult:
    """Train, or go on training, in the folder `output` on the shards folder `shards`.

    A finished run is returned as it is. Raises TrainerError where the run cannot start, resume or go on, and
    Interrupted after SIGTERM or SIGINT once a checkpoint is written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with deterministic():
            run = _Run(config, open_shards(shards, output / "shards-cache"), output, observer or Silent())
            try:
                return run.result() if run.step >= config.steps else run.train()
            finally:
                run.metrics.close()
    except OSError as error:
        raise TrainerError(
            f"{error.filename or output}: {error.strerror or error}. Once that is mended, the same command goes on "
            "from the last checkpoint"
        ) from error


class _Run:
    """The state of a run between steps, and what is done with it."""

    def __init__(self, config: TrainConfig, shards: Shards, output: Path, observer: Observer) -> None:
        self.config, self.shards, self.output, self.observer = config, shards, output, observer
        self.device = find_device(config.device)
        self.shape = resolve_model(config, shards.vocab_size, shards.sequence_length)
        self.identity = identity.identity(config, shards, self.shape)
        self.settings = identity.settings(config, environment(self.device))
        self.sequences = config.global_batch_tokens // shards.sequence_length
        if not self.sequences:
            raise TrainerError(
                f"global_batch_tokens is {config.global_batch_tokens}, less than one sequence of "
                f"{shards.sequence_length} tokens; a step needs at least one"
            )
        self.masked = config.document_mask and shards.has_documents
        self.sampler = Sampler(
            [stream.data.shard_sizes for stream in shards.train],
            shards.phases(config.steps),
            self.sequences,
            config.seed,
            config.data.shuffle_block,
        )
        self.model = Transformer(self.shape, seed=config.seed, compute_dtype=DTYPES[config.precision]).to(self.device)
        self.optimizer = Optimizer(self.model, config.optimizer, *learning_rates(config))
        self.step = 0
        self.window: list[Tensor] = []  # losses since the last logged row
        self.gradient_norm = torch.zeros((), device=self.device)
        self.loss = math.nan
        self.validation: dict[str, Any] | None = None
        self.seconds, self.data_wait, self.timed = 0.0, 0.0, 0
        self._restore()

    def train(self) -> TrainResult:
        """Run the remaining steps."""
        if self.shards.tokenizer is not None:
            write_atomically(self.output / "tokenizer.json", self.shards.tokenizer.read_bytes())
        if self.config.document_mask and not self.masked:
            self._warn("document_mask: the shards have no doc_lengths column, so attention crosses documents")
        if self.config.compile and (problem := compile_blocks(self.model)):
            self._warn(problem)
        self.observer.training_started(self._info())
        if self.step:
            self.observer.resumed(self.step)
        with StopSignals() as stop:
            while self.step < self.config.steps:
                self._update()
                last = self.step == self.config.steps
                if last or self.step % self.config.log_every == 0:
                    self._log()
                if last or self.step % self.config.evaluation.every == 0:
                    self._evaluate()
                if last or self.step % self.config.checkpoint.every == 0 or stop.received is not None:
                    path = self._checkpoint()
                    if stop.received is not None and not last:
                        raise Interrupted(stop.received, self.step, path)
        return self.result()

    def result(self) -> TrainResult:
        """The result of a run that has come to its end; written when first asked for."""
        path = self.output / "result.json"
        newest = self.output / "checkpoints" / f"step-{self.step:08d}"
        if path.is_file() and (saved := json.loads(path.read_bytes()))["step"] == self.step:
            return TrainResult(**saved | {"checkpoint": newest})
        sampling = Sampling(max_tokens=64, top_k=50, seed=self.config.seed)
        prompts = self.config.prompts if self.shards.tokenizer is not None else []
        if len(prompts) < len(self.config.prompts):
            self._warn("prompts: the shards have no tokenizer.json, so nothing was generated")
        completions = generate(self.output, prompts, sampling, device=self.device.type) if prompts else []
        samples = [{"prompt": each.prompt, "text": each.text} for each in completions]
        result = TrainResult(self.step, self._tokens(), self.loss, self.validation, newest, samples)
        write_atomically(path, to_json(dataclasses.asdict(result) | {"checkpoint": newest.name}))
        self.observer.finished(result)
        return result

    def _update(self) -> None:
        """One optimizer step."""
        begun = time.perf_counter()
        batch = self.shards.read(self.shards.train, self.sampler.batch(self.step))
        self.data_wait += time.perf_counter() - begun
        targets = int((batch.targets >= 0).sum())
        loss = torch.zeros((), device=self.device)
        for start in range(0, self.sequences, self.config.micro_batch):
            part = batch[start : start + self.config.micro_batch].tensors(self.device, self.masked)
            objective, losses = self.model.losses(*part, scale=1.0 / max(1, targets), z_loss=self.config.z_loss)
            objective.backward()  # type: ignore[no-untyped-call]
            loss += losses.sum()
        parameters = list(self.model.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        self.gradient_norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.optimizer.clip:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.optimizer.clip, self.gradient_norm)
        self.optimizer.step(rate(self.config.schedule, self.step, self.config.steps))
        self.window.append(loss / max(1, targets))
        self.step += 1
        self.timed += 1
        self.seconds += time.perf_counter() - begun

    def _log(self) -> None:
        """Write the row of the steps since the last one."""
        losses = self._finite_losses()
        self.loss = math.fsum(losses) / len(losses)
        row = {
            "kind": "train",
            "step": self.step,
            "tokens": self._tokens(),
            "loss": self.loss,
            "lr": learning_rates(self.config)[0] * rate(self.config.schedule, self.step - 1, self.config.steps),
            "gradient_norm": float(self.gradient_norm),
            "tokens_per_second": self.timed * self._step_tokens() / self.seconds,
            "data_wait": self.data_wait / self.seconds,
        }
        self.window, self.seconds, self.data_wait, self.timed = [], 0.0, 0.0, 0
        self.metrics.write(row)
        self.observer.step(row)

    def _evaluate(self) -> None:
        """Write the row of an evaluation, where anything is held out."""
        self.validation = evaluate(
            self.model,
            self.shards,
            micro_batch=self.config.micro_batch,
            batches=self.config.evaluation.batches,
            document_mask=self.masked,
        )
        if self.validation is not None:
            row = {"kind": "eval", "step": self.step, "tokens_trained": self._tokens()} | self.validation
            self.metrics.write(row)
            self.observer.evaluated(row)

    def _checkpoint(self) -> Path:
        state = {
            "step": self.step,
            "tokens": self._tokens(),
            "window": self._finite_losses(),
            "loss": self.loss,
            "validation": self.validation,
            "metrics_bytes": self.metrics.sync(),
            "identity": self.identity,
            "settings": self.settings,
            "model": self.shape.model_dump(),
            "eos_id": self.shards.eos_id,
        }
        folder = self.output / "checkpoints"
        folder.mkdir(exist_ok=True)
        weights = dict(self.model.named_parameters())
        path = checkpoint.save(
            folder, self.step, weights, self.optimizer.state(), state, self.config.checkpoint.keep_last
        )
        self.observer.checkpointed(self.step, path)
        return path

    def _restore(self) -> None:
        """Take over the newest whole checkpoint, if there is one, and cut metrics.jsonl back to it."""
        found, warnings = checkpoint.load_newest(self.output / "checkpoints")
        if found is not None:
            state = found.state
            identity.check_identity(state["identity"], self.identity, str(found.path))
            if (change := identity.changed_settings(state["settings"], self.settings)) is not None:
                warnings.append(change)
            self.model.load_weights(found.model)
            self.optimizer.load(found.optimizer)
            self.step, self.loss, self.validation = found.step, state["loss"], state["validation"]
            self.window = [torch.tensor(loss, device=self.device) for loss in state["window"]]
        path = self.output / "metrics.jsonl"
        finished = self.step >= self.config.steps
        self.metrics = Metrics(path, path.stat().st_size if finished else found.state["metrics_bytes"] if found else 0)
        for warning in warnings:
            self._warn(warning)

    def _finite_losses(self) -> list[float]:
        """The losses since the last logged row. Raises TrainerError where they or the gradients are not finite."""
        losses = [float(loss) for loss in self.window]
        norm = float(self.gradient_norm)
        if not all(map(math.isfinite, [*losses, norm])):
            raise TrainerError(
                f"training diverged at or before step {self.step}: losses {losses[-3:]}, gradient norm {norm}. "
                "The last checkpoint is from before that; lower the learning rate or lengthen the warm-up"
            )
        return losses

    def _warn(self, message: str) -> None:
        self.metrics.write({"kind": "warning", "step": self.step, "message": message})
        self.observer.warning(message)

    def _step_tokens(self) -> int:
        return self.sequences * self.shards.sequence_length

    def _tokens(self) -> int:
        return self.step * self._step_tokens()

    def _info(self) -> dict[str, Any]:
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "model": self.shape.model_dump(),
            "steps": self.config.steps,
            "step": self.step,
            "step_tokens": self._step_tokens(),
            "tokens": self.config.steps * self._step_tokens(),
            "streams": {s.name: {"samples": len(s.data), "weight": s.weight} for s in self.shards.train},
            "precision": self.config.precision,
            "optimizer": self.config.optimizer.name,
            **environment(self.device),
        }
