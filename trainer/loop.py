"""One training run over prepared shards, from the first step or from the newest checkpoint.

    output/
      tokenizer.json           copy of the shards', so that the folder can be used alone
      metrics.jsonl            rows {"kind": "train" | "eval" | "samples" | "skipped", "step": ...} (docs/format.md):
                               the same bytes in every run
      log.jsonl                rows {"kind": "speed" | "warning", ...}: what a clock or an interruption makes differ
      ledger.json              steps that are left out (trainer.anomalies), once there are any
      checkpoints/step-*/      see trainer.checkpoint
      shards-cache/            decompressed shards (may be deleted)
      result.json              the TrainResult, last

Everything that a step does follows from (config, shards, step) and the checkpointed tensors: the order of samples
and the learning rate are functions of the step, and the forward pass draws no random numbers. So the same call
continues where any crash left it, bit for bit on the same machine (docs/determinism.md). A step's gradient is that
of the mean loss over all its target tokens, however many micro-batches it is cut into. Under torchrun the same code
runs in every process (trainer.parallel); only the first one writes and speaks, but for sharded checkpoints.

Parts: trainer.loop reads the batches, trainer.loop computes, trainer.journal writes and says, trainer.resume keeps.

What a run trains on, step by step: this process's share of each step's samples, read while the step before computes.

The order is the sampler's, a function of (seed, step); nothing of it is saved. Shards of a remote folder are fetched
ahead as far as the cache allows.

The next step's batch, read while this step computes, so that storage is waited for only where it is the slower one.

One thread, one step ahead: a step that is not the one expected (after a skip) is read when it is asked for.

One optimizer step: micro-batches forward and backward, clipping, update. What benchmarks time and runs repeat.

The gradient is that of the mean loss over all the step's targets, however many micro-batches and processes they are
cut into. Nothing here waits for the device: losses and norms come back as tensors for whoever wants to read them later.
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from common.errors import Interrupted, TrainerError
from common.files import to_json, write_atomically
from common.observe import Observer, TrainResult
from trainer import resume
from trainer.anomalies import Entry, Ledger, RolledBack, Watch, parse_steps
from trainer.config import TrainConfig
from trainer.generate import Sampling, complete, encode_prompts
from trainer.initial import load_initial
from trainer.journal import Clock, Journal, Trackers
from trainer.machine import (
    DTYPES,
    StopSignals,
    compile_model,
    deterministic,
    environment,
    find_device,
    find_precision,
    keep_memory,
    memory_in_use,
    peak_flops,
    uncompiled,
)
from trainer.model import Transformer
from trainer.optimizer import Average, Optimizer
from trainer.parallel import ALONE, Losses, World, distribute, own_folder, set_gradient_sync
from trainer.resume import Keeper
from trainer.sampler import Sampler
from trainer.schedule import ramped_sizes, rate
from trainer.score import evaluate
from trainer.shapes import flops_per_token, learning_rates, resolve_model
from trainer.shards import Samples, Shards, open_shards
from trainer.tensors import whole

SAMPLE_TOKENS, SAMPLE_TOP_K = 64, 50  # of what follows the recipe's prompts


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
            observer = observer if observer is not None and world.main else Observer()
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
        shared: Path,
    ) -> None:
        """shared: the folder with the checkpoints, where `output` is another (in all processes but the main one)."""
        config = config.model_copy(update={"precision": find_precision(config.precision, device)})
        self.config, self.shards, self.output, self.device, self.world = config, shards, output, device, world
        initial: Mapping[str, Tensor] | None = None
        started_from: str | None = None
        self.shape = resolve_model(config, shards.vocab_size, shards.sequence_length)
        if config.initial is not None:
            self.shape, initial, started_from = load_initial(Path(config.initial), shards)
        self.identity = resume.identity(config, shards, self.shape, started_from)
        self.settings = resume.settings(config, environment(device))
        self.feed = Feed(config, shards, world, device)
        self.model = Transformer(self.shape, seed=config.seed, compute_dtype=DTYPES[config.precision]).to(device)
        if initial is not None:
            self.model.load_weights(initial)  # a checkpoint of this run takes their place
        self.model.recompute = config.recompute
        losses = distribute(self.model, world, config.parallel)
        optimizer = Optimizer(self.model, config.optimizer, *learning_rates(config), world)
        self.stepper = Stepper(self.model, optimizer, world=world, losses=losses)
        self.average = Average(self.model, config.optimizer.ema) if config.optimizer.ema is not None else None
        self.keeper = Keeper(config, shared / "checkpoints", world, self.model, optimizer, self.average)
        self.ledger = Ledger(output / "ledger.json")
        self.watch = Watch(config.anomalies, [])
        self.step = 0
        self.window: list[Tensor] = []  # losses since the last logged row
        self.gradient_norm = torch.zeros((), device=device)
        self.loss = math.nan
        self.validation: dict[str, Any] | None = None
        self.samples: list[dict[str, str]] = []
        self.clock = Clock()
        self.journal = self._restore(observer)

    def close(self) -> None:
        """Let a checkpoint under way come to its end, and close the files."""
        self.feed.close()
        self.keeper.close()
        self.journal.close()

    def train(self) -> TrainResult:
        """Run the remaining steps."""
        (self.output / "result.json").unlink(missing_ok=True)  # of a shorter run, or of one that went back
        self._prepare()
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
        path, newest = self.output / "result.json", self._newest()
        if path.is_file() and (saved := json.loads(path.read_bytes()))["step"] == self.step:
            return TrainResult(**saved | {"checkpoint": newest})
        tokens = self.feed.tokens_before(self.step)
        result = TrainResult(self.step, tokens, self.loss, self.validation, newest, self.samples)
        write_atomically(path, to_json(dataclasses.asdict(result) | {"checkpoint": newest.name}))
        self.journal.observer.finished(result)
        return result

    def _prepare(self) -> None:
        """What a run needs that still has steps to go."""
        if self.shards.tokenizer is not None:
            write_atomically(self.output / "tokenizer.json", self.shards.tokenizer.read_bytes())
        if self.config.document_mask and not self.feed.masked:
            self._warn("document_mask: the shards have no doc_lengths column, so attention crosses documents")
        self.prompts = self.config.prompts
        if self.prompts and self.shards.tokenizer is None:
            self._warn("prompts: the shards have no tokenizer.json, so nothing is generated")
            self.prompts = []
        self.codec = Tokenizer.from_file(str(self.shards.tokenizer)) if self.prompts else None
        if self.codec is not None:  # a prompt that is too long is told before the training, not at its first sample
            encode_prompts(self.prompts, self.codec, self.shards.eos_id, self.shape.context)
        if self.config.compile and (problem := compile_model(self.model)):
            self._warn(problem)
        self.peak = peak_flops(self.device, DTYPES[self.config.precision]) * self.world.size
        names = self.config.track if self.world.main else []
        self.journal.trackers = Trackers(names, self.output, self.config.model_dump(mode="json"))
        self.journal.observer.training_started(self._info())
        if self.step:
            self.journal.observer.resumed(self.step)
        self.feed.start(self.step)

    def _update(self) -> None:
        """One optimizer step, or none where the ledger or the anomaly policy leaves it out."""
        if (entry := self.ledger.covering(self.step + 1)) is not None:
            self._skip(entry)
            return
        begun = time.perf_counter()
        parts = self.feed.parts(self.step)
        self.clock.data_wait += time.perf_counter() - begun
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
        self.clock.tokens += self.feed.tokens_before(self.step) - self.feed.tokens_before(self.step - 1)
        self.clock.seconds += time.perf_counter() - begun

    def _skip(self, entry: Entry) -> None:
        """Pass over a step."""
        self.step += 1
        self.journal.skipped(self.step, entry.policy, entry.reason)

    def _log(self) -> None:
        """Write the row of the steps since the last one; none where all of them were left out."""
        losses = self._finite_losses()
        if not losses:
            return
        self.loss = math.fsum(losses) / len(losses)
        row = {
            "step": self.step,
            "tokens": self.feed.tokens_before(self.step),
            "loss": self.loss,
            "lr": learning_rates(self.config)[0] * rate(self.config.schedule, self.step - 1, self.config.steps),
            "gradient_norm": float(self.gradient_norm),
        }
        speed = self.clock.rates(flops_per_token(self.shape), self.peak) | {"memory": memory_in_use(self.device)}
        self.journal.trained(row, speed)
        self.window, self.clock = [], Clock()

    def _evaluate(self) -> None:
        """Write the rows of an evaluation: scores where anything is held out, samples where there are prompts."""
        averaged: AbstractContextManager[None] = nullcontext() if self.average is None else self.average.in_place()
        with averaged:
            self.validation = evaluate(
                self.model,
                self.shards,
                micro_batch=self.config.micro_batch,
                batches=self.config.evaluation.batches,
                document_mask=self.feed.masked,
            )
            if self.codec is not None:
                sampling = Sampling(max_tokens=SAMPLE_TOKENS, top_k=SAMPLE_TOP_K, seed=self.config.seed)
                with uncompiled():
                    texts = complete(self.model, self.codec, self.shards.eos_id, self.prompts, sampling)
                self.samples = [{"prompt": each.prompt, "text": each.text} for each in texts]
        if self.validation is not None:
            trained = {"step": self.step, "tokens_trained": self.feed.tokens_before(self.step)}
            self.journal.evaluated(trained | self.validation)
        if self.samples:
            self.journal.sampled(self.step, self.samples)

    def _checkpoint(self) -> None:
        """Start writing a checkpoint, once the one before is written."""
        begun = time.perf_counter()
        self._collect(wait=True)
        state = {
            "step": self.step,
            "tokens": self.feed.tokens_before(self.step),
            "window": self._finite_losses(),
            "loss": self.loss,
            "gradient_norm": float(self.gradient_norm),
            "validation": self.validation,
            "samples": self.samples,
            "history": list(self.watch.history),
            "ledger": self.ledger.dump(),
            "metrics_bytes": self.journal.metrics.sync(),
            "identity": self.identity,
            "settings": self.settings,
            "model": self.shape.model_dump(),
            "eos_id": self.shards.eos_id,
        }
        self.keeper.save(self.step, state)
        waited = time.perf_counter() - begun
        self.clock.checkpoint_wait += waited
        self.clock.seconds += waited

    def _collect(self, *, wait: bool, needed: bool = False) -> None:
        """Tell of the checkpoint that was under way; one that failed ends the run only where it is `needed`."""
        done, warning = self.keeper.collect(wait=wait, needed=needed)
        if warning is not None:
            self._warn(warning)
        if done is not None:
            self.journal.observer.checkpointed(*done)

    def _restore(self, observer: Observer) -> Journal:
        """Go on from the newest whole checkpoint, if there is one, and cut metrics.jsonl back to it."""
        found, warnings = self.keeper.restore(self.ledger, self.identity, self.settings)
        kept: int | None = 0
        if found is not None:
            state = found.state
            self.step, self.loss = found.step, state["loss"]
            self.validation, self.samples = state["validation"], state["samples"]
            self.gradient_norm = torch.tensor(state["gradient_norm"], device=self.device)
            self.window = [torch.tensor(loss, device=self.device) for loss in state["window"]]
            self.watch = Watch(self.config.anomalies, state["history"])
            for entry in state["ledger"]:
                self.ledger.add(Entry(**entry))
            kept = None if self.step >= self.config.steps else state["metrics_bytes"]
        journal = Journal(self.output, observer, kept)
        for warning in warnings:
            journal.warn(self.step, warning)
        return journal

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

    def _newest(self) -> Path:
        return self.output / "checkpoints" / f"step-{self.step:08d}"

    def _warn(self, message: str) -> None:
        self.journal.warn(self.step, message)

    def _info(self) -> dict[str, Any]:
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "model": self.shape.model_dump(),
            "steps": self.config.steps,
            "step": self.step,
            "step_tokens": self.feed.step_tokens,
            "tokens": self.feed.tokens_before(self.config.steps),
            "streams": {s.name: {"samples": len(s.data), "weight": s.weight} for s in self.shards.train},
            "precision": self.config.precision,
            "optimizer": self.config.optimizer.name,
            **environment(self.device),
        }


class Feed:
    """The batches of a run."""

    def __init__(self, config: TrainConfig, shards: Shards, world: World, device: torch.device) -> None:
        """Raises TrainerError where a step's tokens are no sequence, or cannot be shared evenly by the processes."""
        self.shards, self.world, self.device = shards, world, device
        self.micro_batch = config.micro_batch
        self.masked = config.document_mask and shards.has_documents
        sequences = config.global_batch_tokens // shards.sequence_length
        if not sequences:
            raise TrainerError(
                f"global_batch_tokens is {config.global_batch_tokens}, less than one sequence of "
                f"{shards.sequence_length} tokens; a step needs at least one"
            )
        ramp = ramped_sizes(config.batch_ramp, sequences)
        for size in {*ramp, sequences}:
            if size % world.size:
                raise TrainerError(
                    f"a step's {size} sequences of {shards.sequence_length} tokens cannot be shared evenly by "
                    f"{world.size} processes; change global_batch_tokens ({config.global_batch_tokens})"
                )
        self.step_tokens = sequences * shards.sequence_length
        sizes = [stream.data.shard_sizes for stream in shards.train]
        phases = shards.phases(config.steps)
        self.sampler = Sampler(sizes, phases, sequences, config.seed, config.data.shuffle_block, ramp)
        self.ahead = ReadAhead(self._read, config.steps)
        self.prefetcher = shards.prefetcher(self.sampler) if shards.remote else None

    def start(self, step: int) -> None:
        """Begin to fetch remote shards, from those of `step` on."""
        if self.prefetcher is not None:
            self.prefetcher.start(step)

    def parts(self, step: int) -> list[Part]:
        """The micro-batches of a step, on the device, once they are there."""
        if self.prefetcher is not None:
            self.prefetcher.advance(step)
        batch = self.ahead.batch(step)
        starts = range(0, len(batch.tokens), self.micro_batch)
        return [batch[at : at + self.micro_batch].tensors(self.device, self.masked) for at in starts]

    def tokens_before(self, step: int) -> int:
        """Tokens of all steps before this one, over all processes."""
        return self.sampler.before(step) * self.shards.sequence_length

    def close(self) -> None:
        """Stop fetching, and let a read under way come to its end."""
        if self.prefetcher is not None:
            self.prefetcher.close()
        self.ahead.close()

    def _read(self, step: int) -> Samples:
        drawn = self.sampler.batch(step)
        return self.shards.read(self.shards.train, drawn[self.world.rows(len(drawn))])


class ReadAhead:
    """Batches by step number, from `read`."""

    def __init__(self, read: Callable[[int], Samples], steps: int) -> None:
        self.read, self.steps = read, steps
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self.expected: tuple[int, Future[Samples]] | None = None

    def batch(self, step: int) -> Samples:
        """The batch of `step`, once it is there. Raises what `read` raises."""
        expected, self.expected = self.expected, None
        ready = expected[1] if expected and expected[0] == step else self.thread.submit(self.read, step)
        samples = ready.result()
        if step + 1 < self.steps:
            self.expected = step + 1, self.thread.submit(self.read, step + 1)
        return samples

    def close(self) -> None:
        """Let a read under way come to its end."""
        self.thread.shutdown(cancel_futures=True)


Part = tuple[Tensor, Tensor, Tensor | None]  # tokens, targets, documents of a micro-batch


class Stepper:
    """Turns batches into updates of a model."""

    def __init__(
        self, model: Transformer, optimizer: Optimizer, *, world: World = ALONE, losses: Losses | None = None
    ) -> None:
        """losses: what `trainer.parallel.distribute` returned, where there are several processes."""
        self.model, self.optimizer, self.world = model, optimizer, world
        self.losses = losses or model.losses
        self.parameters = list(model.parameters())

    def gradients(self, parts: Sequence[Part], z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """Set the gradients of this process's micro-batches; all processes must have as many of them.

        Returns the mean loss in nats over the targets of all processes, and the gradient's norm.
        """
        device = self.model.norm.weight.device
        loss = torch.zeros((), device=device)
        counts = [(targets >= 0).sum() for _, targets, _ in parts]
        targets = self.world.total(torch.stack(counts).sum().float()).clamp(min=1.0)
        scale = self.world.size / targets  # both kinds of parallelism average gradients
        for number, part in enumerate(parts):
            set_gradient_sync(self.losses, self.model, number == len(parts) - 1)
            objective, losses = self.losses(*part, scale=scale, z_loss=z_loss)
            objective.backward()  # type: ignore[no-untyped-call]
            loss += losses.sum()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return self.world.total(loss) / targets, whole(norm)

    def apply(self, rate: float, clip: float, norm: Tensor) -> None:
        """Update the weights at `rate` times the peak learning rates, the gradient clipped to `clip` (0: not)."""
        if clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, clip, norm)
        self.optimizer.step(rate)

    def discard(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def update(
        self, parts: Sequence[Part], *, rate: float, clip: float = 1.0, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Gradients and update in one; returns loss and norm."""
        loss, norm = self.gradients(parts, z_loss)
        self.apply(rate, clip, norm)
        return loss, norm
