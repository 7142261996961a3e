"""One training run over prepared shards, from the first step or from the newest checkpoint.

    output/
      tokenizer.json           copy of the shards', so that the folder can be used alone
      metrics.jsonl            rows {"kind": "train" | "eval" | "skipped", "step": ...}: the same bytes in every run
      log.jsonl                rows {"kind": "speed" | "warning" | ...}: what a clock or an interruption makes differ
      ledger.json              steps that are left out (trainer.anomalies), once there are any
      checkpoints/step-*/      see trainer.checkpoint
      shards-cache/            decompressed shards (may be deleted)
      result.json              the TrainResult, last

Everything that a step does follows from (config, shards, step) and the checkpointed tensors: the order of samples
and the learning rate are functions of the step, and the forward pass draws no random numbers. So the same call
continues where any crash left it, bit for bit on the same machine (docs/determinism.md). A step's gradient is that
of the mean loss over all its target tokens, however many micro-batches it is cut into. Under torchrun the same code
runs in every process (trainer.parallel); only the first one writes and speaks.
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import checkpoint, identity
from trainer.ahead import ReadAhead
from trainer.anomalies import Entry, Ledger, RolledBack, Watch, parse_steps
from trainer.average import PREFIX, Average, training_weights
from trainer.checkpoint import Retention, Writer
from trainer.config import TrainConfig
from trainer.errors import Interrupted, TrainerError
from trainer.evaluate import evaluate
from trainer.files import to_json, write_atomically
from trainer.generate import Sampling, generate
from trainer.initial import load_initial
from trainer.metrics import Metrics
from trainer.model import Transformer
from trainer.optimizer import Optimizer
from trainer.parallel import World, distribute, own_folder
from trainer.presets import flops_per_token, learning_rates, resolve_model
from trainer.progress import Observer, Silent, TrainResult
from trainer.runtime import (
    StopSignals,
    compile_model,
    deterministic,
    environment,
    find_device,
    find_precision,
    keep_memory,
    memory_in_use,
    peak_flops,
    random_state,
    set_random_state,
)
from trainer.sampler import Sampler
from trainer.schedule import ramped_sizes, rate
from trainer.sharding import whole
from trainer.shards import Samples, Shards, open_shards
from trainer.step import Stepper
from trainer.track import Trackers

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def train(
    config: TrainConfig,
    shards: Path | str,
    output: Path,
    observer: Observer | None = None,
    skip_steps: str | None = None,
) -> TrainResult:
    """Train, or go on training, in the folder `output` on the shards folder `shards` (or a remote one's address).

    skip_steps: `FIRST:LAST`, steps to leave out, as metrics.jsonl numbers them; where they lie in the past, the run
    goes back to before them. A finished run is returned as it is. Raises TrainerError where the run cannot start,
    resume or go on, and Interrupted after SIGTERM or SIGINT once a checkpoint is written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        device = find_device(config.device)
        world = World.join(device)
        keep_memory()
        with own_folder(world, output) as place, deterministic(config.deterministic), torch.random.fork_rng(devices=[]):
            if skip_steps is not None:
                Ledger(place / "ledger.json").add(parse_steps(skip_steps))
            opened = open_shards(shards, output / "shards-cache", int(config.data.cache_gb * 1e9))
            observer = observer if observer is not None and world.main else Silent()
            while True:
                run = _Run(config, opened, place, observer, device, world, output)
                try:
                    result = run.result() if run.step >= config.steps else run.train()
                    world.leave()
                    return result
                except RolledBack:  # from the newest checkpoint that the ledger allows
                    continue
                finally:
                    run.close()
    except OSError as error:
        raise TrainerError(
            f"{error.filename or output}: {error.strerror or error}. Once that is mended, the same command goes on "
            "from the last checkpoint"
        ) from error


class _Run:
    """The state of a run between steps, and what is done with it."""

    def __init__(
        self,
        config: TrainConfig,
        shards: Shards,
        output: Path,
        observer: Observer,
        device: torch.device,
        world: World,
        resumed: Path,
    ) -> None:
        """resumed: the folder with the checkpoints, where `output` is another (in all processes but the main one)."""
        config = config.model_copy(update={"precision": find_precision(config.precision, device)})
        self.config, self.shards, self.output, self.observer = config, shards, output, observer
        self.device, self.world, self.resumed = device, world, resumed
        initial: dict[str, Tensor] | None = None
        started_from: str | None = None
        self.shape = resolve_model(config, shards.vocab_size, shards.sequence_length)
        if config.initial is not None:
            self.shape, initial, started_from = load_initial(Path(config.initial), shards)
        self.identity = identity.identity(config, shards, self.shape, started_from)
        self.settings = identity.settings(config, environment(self.device))
        self.sequences = config.global_batch_tokens // shards.sequence_length
        if not self.sequences:
            raise TrainerError(
                f"global_batch_tokens is {config.global_batch_tokens}, less than one sequence of "
                f"{shards.sequence_length} tokens; a step needs at least one"
            )
        ramp = ramped_sizes(config.batch_ramp, self.sequences)
        for sequences in {*ramp, self.sequences}:
            if sequences % world.size:
                raise TrainerError(
                    f"a step's {sequences} sequences of {shards.sequence_length} tokens cannot be shared evenly by "
                    f"{world.size} processes; change global_batch_tokens ({config.global_batch_tokens})"
                )
        self.masked = config.document_mask and shards.has_documents
        self.sampler = Sampler(
            [stream.data.shard_sizes for stream in shards.train],
            shards.phases(config.steps),
            self.sequences,
            config.seed,
            config.data.shuffle_block,
            ramp,
        )
        self.ahead = ReadAhead(self._read, config.steps)
        self.model = Transformer(self.shape, seed=config.seed, compute_dtype=DTYPES[config.precision]).to(self.device)
        if initial is not None:
            self.model.load_weights(initial)  # a checkpoint of this run takes their place
        self.model.recompute = config.recompute
        losses = distribute(self.model, world, config.parallel)
        self.optimizer = Optimizer(self.model, config.optimizer, *learning_rates(config), world)
        self.stepper = Stepper(self.model, self.optimizer, world=world, losses=losses)
        self.average = Average(self.model, config.optimizer.ema) if config.optimizer.ema is not None else None
        self.step = 0
        self.window: list[Tensor] = []  # losses since the last logged row
        self.gradient_norm = torch.zeros((), device=self.device)
        self.loss = math.nan
        self.validation: dict[str, Any] | None = None
        self.seconds, self.data_wait, self.checkpoint_wait, self.timed = 0.0, 0.0, 0.0, 0
        self.trackers = Trackers([], output, {})
        self.ledger = Ledger(output / "ledger.json")
        self.watch = Watch(config.anomalies, [])
        rollback = config.anomalies.span if config.anomalies.policy == "rollback" else 0
        retention = Retention(config.checkpoint.keep_last, config.checkpoint.keep_every, rollback)
        self.writer = Writer(output / "checkpoints", retention)
        self.prefetcher = shards.prefetcher(self.sampler) if shards.remote else None
        self._restore()

    def close(self) -> None:
        """Let a checkpoint under way come to its end, and close the files."""
        if self.prefetcher is not None:
            self.prefetcher.close()
        self.ahead.close()
        self.writer.close()
        self.trackers.close()
        self.metrics.close()
        self.log.close()

    def train(self) -> TrainResult:
        """Run the remaining steps."""
        (self.output / "result.json").unlink(missing_ok=True)  # of a shorter run, or of one that went back
        if self.shards.tokenizer is not None:
            write_atomically(self.output / "tokenizer.json", self.shards.tokenizer.read_bytes())
        if self.config.document_mask and not self.masked:
            self._warn("document_mask: the shards have no doc_lengths column, so attention crosses documents")
        if self.config.compile and (problem := compile_model(self.model)):
            self._warn(problem)
        self.peak = peak_flops(self.device, DTYPES[self.config.precision])
        names = self.config.track if self.world.main else []
        self.trackers = Trackers(names, self.output, self.config.model_dump(mode="json"))
        self.observer.training_started(self._info())
        if self.step:
            self.observer.resumed(self.step)
        if self.prefetcher is not None:
            self.prefetcher.start(self.step)
        with StopSignals() as stop:
            while self.step < self.config.steps:
                self._update()
                last = self.step == self.config.steps
                if last or self.step % self.config.log_every == 0:
                    self._log()
                if last or self.step % self.config.evaluation.every == 0:
                    self._evaluate()
                stopped = stop.received is not None
                if self.world.size > 1:  # a signal reaches the processes at different steps; they stop together
                    stopped = self.step % self.config.log_every == 0 and self.world.agree(stopped)
                if last or stopped or self.step % self.config.checkpoint.every == 0:
                    self._checkpoint()
                self._collect(wait=last or stopped, needed=last or stopped)
                if stopped and not last:
                    raise Interrupted(stop.received or signal.SIGTERM, self.step, self._newest())
        return self.result()

    def result(self) -> TrainResult:
        """The result of a run that has come to its end; written when first asked for."""
        path = self.output / "result.json"
        newest = self._newest()
        if not self.world.main:
            return TrainResult(self.step, self._tokens(), self.loss, self.validation, newest, [])
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
        """One optimizer step, or none where the ledger or the anomaly policy leaves it out."""
        if (entry := self.ledger.covering(self.step + 1)) is not None:
            self._skip(entry)
            return
        begun = time.perf_counter()
        if self.prefetcher is not None:
            self.prefetcher.advance(self.step)
        batch = self.ahead.batch(self.step)
        self.data_wait += time.perf_counter() - begun
        micro_batches = range(0, len(batch.tokens), self.config.micro_batch)
        parts = [batch[at : at + self.config.micro_batch].tensors(self.device, self.masked) for at in micro_batches]
        loss, norm = self.stepper.gradients(parts, self.config.z_loss)
        if self.watch.each_step and (reason := self.watch.judge(float(loss), float(norm))):
            self.watch.enter(self.step + 1, reason, self.ledger)
            self.stepper.discard()
            self._skip(self.ledger.entries[-1])
            return
        factor = rate(self.config.schedule, self.step, self.config.steps)
        self.stepper.apply(factor, self.config.optimizer.clip, norm)
        if self.average is not None:
            self.average.update()
        self.window.append(loss)
        self.gradient_norm = norm
        self.step += 1
        self.timed += batch.tokens.size * self.world.size
        self.seconds += time.perf_counter() - begun

    def _read(self, step: int) -> Samples:
        """This process's share of a step's samples."""
        drawn = self.sampler.batch(step)
        return self.shards.read(self.shards.train, drawn[self.world.rows(len(drawn))])

    def _skip(self, entry: Entry) -> None:
        """Pass over a step."""
        self.step += 1
        self.metrics.write({"kind": "skipped", "step": self.step, "policy": entry.policy, "reason": entry.reason})
        self.observer.warning(f"step {self.step} is left out ({entry.policy}): {entry.reason}")

    def _log(self) -> None:
        """Write the row of the steps since the last one; none where all of them were left out."""
        losses = self._finite_losses()
        if not losses:
            return
        self.loss = math.fsum(losses) / len(losses)
        row = {
            "kind": "train",
            "step": self.step,
            "tokens": self._tokens(),
            "loss": self.loss,
            "lr": learning_rates(self.config)[0] * rate(self.config.schedule, self.step - 1, self.config.steps),
            "gradient_norm": float(self.gradient_norm),
        }
        speed = {"tokens_per_second": 0.0, "utilisation": 0.0, "data_wait": 0.0, "checkpoint_wait": 0.0}
        if self.timed:  # not where all steps came from a checkpoint's open window
            per_second = self.timed / self.seconds
            speed = {
                "tokens_per_second": per_second,
                "utilisation": per_second * flops_per_token(self.shape) / (self.peak * self.world.size),
                "data_wait": self.data_wait / self.seconds,
                "checkpoint_wait": self.checkpoint_wait / self.seconds,
            }
        self.window, self.seconds, self.data_wait, self.checkpoint_wait, self.timed = [], 0.0, 0.0, 0.0, 0
        self.metrics.write(row)
        speed["memory"] = memory_in_use(self.device)
        self.log.write({"kind": "speed", "step": self.step} | speed)
        self.trackers.log(row | speed)
        self.observer.step(row | speed)

    def _evaluate(self) -> None:
        """Write the row of an evaluation, where anything is held out."""
        with nullcontext() if self.average is None else self.average.in_place():
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
            self.trackers.log(row)
            self.observer.evaluated(row)

    def _checkpoint(self) -> None:
        """Start writing a checkpoint, once the one before is written."""
        begun = time.perf_counter()
        self._collect(wait=True)
        state = {
            "step": self.step,
            "tokens": self._tokens(),
            "window": self._finite_losses(),
            "loss": self.loss,
            "gradient_norm": float(self.gradient_norm),
            "validation": self.validation,
            "history": list(self.watch.history),
            "ledger": self.ledger.dump(),
            "metrics_bytes": self.metrics.sync(),
            "identity": self.identity,
            "settings": self.settings,
            "model": self.shape.model_dump(),
            "eos_id": self.shards.eos_id,
        }
        optimizer = self.optimizer.state() | random_state(self.device)
        weights = {name: whole(parameter) for name, parameter in self.model.named_parameters()}
        if self.average is not None:
            optimizer |= {PREFIX + name: tensor for name, tensor in weights.items()}
            weights = self.average.whole()
        if self.world.main:
            self.writer.save(self.step, weights, optimizer, state)
        waited = time.perf_counter() - begun
        self.checkpoint_wait += waited
        self.seconds += waited

    def _collect(self, *, wait: bool, needed: bool = False) -> None:
        """Tell of the checkpoint that was under way; one that failed ends the run only where it is `needed`."""
        try:
            done = self.writer.collect(wait=wait)
        except TrainerError as error:
            if needed:
                raise TrainerError(f"{error}. Make room and start the same command again") from error
            self._warn(f"{error}; training goes on to the next one")
            return
        if done is not None:
            self.observer.checkpointed(*done)

    def _newest(self) -> Path:
        return self.output / "checkpoints" / f"step-{self.step:08d}"

    def _restore(self) -> None:
        """Take over the newest whole checkpoint, if there is one, and cut metrics.jsonl back to it."""
        torch.manual_seed(self.config.seed)
        folder = self.resumed / "checkpoints"
        self.world.barrier()  # what the main process was writing is written
        found, warnings = checkpoint.load_newest(folder, accept=self.ledger.knows)
        if found is not None:
            state = found.state
            accepted = self.config.checkpoint.accept
            warnings += identity.check_identity(state["identity"], self.identity, str(found.path), accepted)
            if (change := identity.changed_settings(state["settings"], self.settings)) is not None:
                warnings.append(change)
            set_random_state(found.optimizer, self.device)
            self.model.load_weights(training_weights(found.model, found.optimizer))
            if self.average is not None:
                self.average.load(found.model)
            self.optimizer.load(found.optimizer)
            self.step, self.loss, self.validation = found.step, state["loss"], state["validation"]
            self.gradient_norm = torch.tensor(state["gradient_norm"], device=self.device)
            self.window = [torch.tensor(loss, device=self.device) for loss in state["window"]]
            self.watch = Watch(self.config.anomalies, state["history"])
            for entry in state["ledger"]:
                self.ledger.add(Entry(**entry))
        self.world.barrier()
        if self.world.main:
            checkpoint.set_aside(folder, self.step)
        path = self.output / "metrics.jsonl"
        finished = self.step >= self.config.steps
        self.metrics = Metrics(path, path.stat().st_size if finished else found.state["metrics_bytes"] if found else 0)
        self.log = Metrics(self.output / "log.jsonl")
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
        self.log.write({"kind": "warning", "step": self.step, "message": message})
        self.observer.warning(message)

    def _step_tokens(self) -> int:
        return self.sequences * self.shards.sequence_length

    def _tokens(self) -> int:
        return self.sampler.before(self.step) * self.shards.sequence_length

    def _info(self) -> dict[str, Any]:
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "model": self.shape.model_dump(),
            "steps": self.config.steps,
            "step": self.step,
            "step_tokens": self._step_tokens(),
            "tokens": self.sampler.before(self.config.steps) * self.shards.sequence_length,
            "streams": {s.name: {"samples": len(s.data), "weight": s.weight} for s in self.shards.train},
            "precision": self.config.precision,
            "optimizer": self.config.optimizer.name,
            **environment(self.device),
        }
