"""One training run over prepared shards: prepare, feed, step, log, evaluate, checkpoint.

    output/
      tokenizer.json           copy of the shards', so that the folder can be used without them
      metrics.jsonl            rows {"kind": "train" | "eval" | "samples" | "skipped", "step": ...} (docs/format.md):
                               the same bytes in every run
      log.jsonl                rows {"kind": "speed" | "warning", ...}: what depends on a clock or an interruption
      ledger.json              steps to skip (trainer.anomalies), once there are any
      blame/, losses/          losses of documents (trainer.recorder)
      checkpoints/step-*/      see trainer.checkpoint
      shards-cache/            decompressed shards (may be deleted)
      result.json              the TrainResult, last

Everything that a step does follows from (config, shards, step) and the checkpointed tensors: the order of samples
and the learning rate are functions of the step, and the forward pass draws no random numbers. So the same call
resumes after any crash, bit for bit on the same machine (docs/determinism.md).

`trainer.feed` reads the next step's samples while this one computes; `trainer.stepper` turns its micro-batches into an
update. Under torchrun the same code runs in every process (trainer.parallel); only the main one writes and reports,
except that each process writes its part of a sharded checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import Interrupted, TrainerError
from common.files import to_json, write_atomically
from common.observe import Observer, TrainResult
from trainer import resume
from trainer.anomalies import Entry, Ledger, RolledBack, Watch, parse_steps
from trainer.attention import choose
from trainer.checkpoint import Retention, checkpoint_path
from trainer.config import TrainConfig, flops_per_token, learning_rates, resolve_model
from trainer.feed import Feed
from trainer.generate import Sampling, complete, encode_prompts
from trainer.journal import Clock, Journal
from trainer.machine import (
    DTYPES,
    compile_model,
    deterministic,
    environment,
    find_device,
    find_precision,
    keep_memory,
    memory_in_use,
    peak_flops,
    stop_signals,
    uncompiled,
)
from trainer.model import Transformer
from trainer.optimizer import Average, Optimizer
from trainer.parallel import World, distribute, own_folder
from trainer.profile import STEPS, WARMUP, Profile
from trainer.recorder import Recorder
from trainer.score import evaluate
from trainer.shards import Shards, open_shards
from trainer.stepper import NO_LOSS, Stepper
from trainer.trained import load_initial
from trainer.vocabulary import load_codec

SAMPLE_TOKENS, SAMPLE_TOP_K = 64, 50  # of the continuations of the recipe's prompts


def train(
    config: TrainConfig,
    shards: Path | str,
    output: Path,
    observer: Observer | None = None,
    skip_steps: str | None = None,
    profile: bool = False,
    blame: int | None = None,
) -> TrainResult:
    """Train on the shards folder (or the address of a remote one), in `output`, from the start or the last checkpoint.

    skip_steps: `FIRST:LAST`, steps to skip, as metrics.jsonl numbers them; for steps of the past, training returns to
    before them. profile: write profile.json and profile.txt (trainer.profile) of a few steps of this call. blame: stop
    before this step's update, with the account of its documents, by trainer.recorder.Reached. A finished run returns
    its result again. Raises TrainerError where the run cannot start, resume or continue, and Interrupted
    after SIGTERM or SIGINT, once a checkpoint is written.
    """
    try:
        check_output(output, shards)
        output.mkdir(parents=True, exist_ok=True)
        device = find_device(config.device)
        world = World.join(device)
        keep_memory()
        with own_folder(world, output) as own, deterministic(config.deterministic), torch.random.fork_rng(devices=[]):
            if skip_steps is not None:
                Ledger(own / "ledger.json").add(parse_steps(skip_steps))
            opened = open_shards(shards, output / "shards-cache", config.data, config.model.vocab_size)
            observer = observer if observer is not None and world.main else Observer()
            while True:
                run = _Run(config, opened, own, output / "checkpoints", observer, device, world)
                run.recorder.until = blame
                if profile and world.main:
                    run.profile = Profile(own, device)
                try:
                    done = run.step >= config.steps and not run.unfinished
                    result = run.result() if done else run.train()
                    world.leave()
                    return result
                except RolledBack:  # resume from the newest checkpoint that the ledger accepts
                    continue
                finally:
                    run.close()
    except OSError as error:
        raise TrainerError(
            f"{error.filename or output}: {error.strerror or error}. Once this is repaired, the same command resumes "
            "from the last checkpoint"
        ) from error


def check_output(output: Path, shards: Path | str) -> None:
    """Raise TrainerError where a run's files would lie among shards."""
    folder = output.resolve()
    if "://" not in str(shards) and folder.is_relative_to(Path(shards).resolve()):
        raise TrainerError(f"{output} lies in the shards folder {shards}; name another folder with `--output`")
    if any(folder.glob("*.mds*")) or any((each / "index.json").exists() for each in (folder, *folder.glob("*/"))):
        raise TrainerError(f"{output} holds MDS shards; name another folder with `--output`")


class _Run:
    """The state of a run between steps, and the actions on it."""

    def __init__(
        self, config: TrainConfig, shards: Shards, output: Path, checkpoints: Path, observer: Observer,
        device: torch.device, world: World,
    ) -> None:  # fmt: skip
        """output: this process's own folder; checkpoints: the folder that all processes share."""
        config = config.model_copy(update={"precision": find_precision(config.precision, device)})
        self.config, self.shards, self.output, self.device, self.world = config, shards, output, device, world
        self.checkpoints = checkpoints
        self.special, self.hints, given = shards.special, list(shards.warnings), None
        if config.initial is None:
            self.shape = resolve_model(config, shards.vocab_size, shards.sequence_length)
        else:
            given = load_initial(config, shards.tokenizer, shards.sequence_length, shards.special)
            self.shape, self.special = given.shape, given.special
            self.hints += given.warnings
        initial = given.weights_sha256 if given else None
        self.identity = resume.identity(
            config, self.shape, shards=shards.fingerprint, tokenizer=shards.tokenizer_sha256, initial=initial
        )
        attention = choose(device, DTYPES[config.precision], self.shape.context) if config.compile else "sdpa"
        self.settings = resume.settings(config, environment(device) | {"attention": attention})
        self.feed = Feed(config, shards, world, device)
        self.model = Transformer(self.shape, seed=config.seed, compute_dtype=DTYPES[config.precision]).to(device)
        if given is not None:
            self.model.load_weights(given.weights)
        self.model.recompute = config.recompute
        losses = distribute(self.model, world, config.parallel)
        self.optimizer = Optimizer(self.model, config.optimizer, learning_rates(config), world)
        self.stepper = Stepper(self.model, self.optimizer, world=world, losses=losses)
        self.average = Average(self.model, config.optimizer.ema) if config.optimizer.ema is not None else None
        span = config.anomalies.span if config.anomalies.policy == "rollback" else 0
        retention = Retention(config.checkpoint.keep_last, config.checkpoint.keep_every, span)
        sharded = config.parallel == "fsdp"
        self.keeper = resume.Keeper(checkpoints, retention, world, sharded, self.model, self.optimizer, self.average)
        self.ledger = Ledger(output / "ledger.json")
        self.recorder = Recorder(output, shards, self.feed.sampler, world, config.record_losses)
        self.watch = Watch(config.anomalies, [])
        self.step = 0
        self.window: list[Tensor] = []  # losses since the last logged row
        self.gradient_norm = torch.zeros((), device=device)
        self.loss = math.nan
        self.validation: dict[str, Any] | None = None
        self.saved = self.evaluated = 0  # the steps of the last checkpoint and of the last evaluation
        self.shards_since = 0  # the last step that was trained on other shards, which a resumed run accepted
        self.unfinished = False  # whether the evaluation of this step failed
        self.samples: list[dict[str, str]] = []
        self.clock = Clock()
        self.profile: Profile | None = None
        self.journal = self._restore(observer)

    def close(self) -> None:
        if self.profile is not None:
            self.profile.close()
        self.feed.close()
        self.recorder.close()
        self.keeper.writer.close()
        self.journal.close()

    def train(self) -> TrainResult:
        """Run the remaining steps."""
        (self.output / "result.json").unlink(missing_ok=True)  # of a shorter run, or from before a rollback
        self._prepare()
        if self.unfinished:
            self._evaluate()
            self._checkpoint()
            self._collect(wait=True, needed=True)
        with stop_signals() as received:
            while self.step < self.config.steps:
                if self.profile is not None:
                    self._profiled(self.profile)
                else:
                    self._update()
                last = self.step == self.config.steps
                if last or self.step % self.config.log_every == 0:
                    self._log()
                if last or self.step % self.config.evaluation.every == 0:
                    with self._rescue(evaluating=True):
                        self._evaluate()
                stopped = bool(received)
                if self.world.size > 1:  # a signal reaches the processes at different steps; they stop together
                    stopped = self.step % self.config.log_every == 0 and self.world.agree(stopped)
                if last or stopped or self.step % self.config.checkpoint.every == 0:
                    self._checkpoint()
                self._collect(wait=last or stopped, needed=last or stopped)
                if stopped and not last:
                    newest = checkpoint_path(self.checkpoints, self.step)
                    raise Interrupted(received[0] if received else signal.SIGTERM, self.step, newest)
        if self.profile is not None:
            self._warn(f"profile: not written, since this call took fewer than {WARMUP + STEPS} steps")
        return self.result()

    def result(self) -> TrainResult:
        """The result of a finished run; the first call writes it."""
        path, newest = self.output / "result.json", checkpoint_path(self.checkpoints, self.step)
        if path.is_file() and (saved := json.loads(path.read_bytes()))["step"] == self.step:
            return TrainResult(**saved | {"checkpoint": newest})
        tokens = self.feed.tokens_before(self.step)
        result = TrainResult(self.step, tokens, self.loss, self.validation, newest, self.samples)
        write_atomically(path, to_json(dataclasses.asdict(result) | {"checkpoint": newest.name}))
        self.journal.observer.finished(result)
        return result

    def _restore(self, observer: Observer) -> Journal:
        """Resume from the newest accepted checkpoint, if there is one, and cut metrics.jsonl back to it."""
        torch.manual_seed(self.config.seed)
        saved, warnings = self.keeper.find(self.ledger.knows)
        if saved is not None:
            self.settings = resume.keep_attention(saved, self.settings)
            warnings += resume.check(saved, self.identity, self.settings, self.config.checkpoint.accept)
        self.keeper.restore(saved)
        self.recorder.resume(0 if saved is None else saved.step)
        kept: int | None = 0
        if saved is not None:
            state = saved.state
            self.step, self.loss = saved.step, state["loss"]
            changed = state["identity"]["shards"] != self.identity["shards"]
            self.shards_since = self.step if changed else state.get("shards_since", 0)
            self.validation, self.samples = state["validation"], state["samples"]
            self.saved = self.step
            self.evaluated, self.unfinished = state.get("evaluated", 0), state.get("unfinished", False)
            self.gradient_norm = torch.tensor(state["gradient_norm"], device=self.device)
            self.window = [torch.tensor(loss, device=self.device) for loss in state["window"]]
            self.watch = Watch(self.config.anomalies, state["history"])
            for entry in state["ledger"]:
                self.ledger.add(Entry(**entry))
            kept = None if self.step >= self.config.steps and not self.unfinished else state["metrics_bytes"]
        journal = Journal(self.output, observer, kept)
        for warning in [*self.hints, *warnings]:
            journal.warn(self.step, warning)
        return journal

    def _prepare(self) -> None:
        """Get ready for the first step of this call: tokenizer, prompts, compilation, trackers, reading ahead."""
        if self.shards.tokenizer is not None:
            write_atomically(self.output / "tokenizer.json", self.shards.tokenizer.read_bytes())
        if self.config.document_mask and not self.feed.masked:
            self._warn("document_mask: the shards have no doc_lengths column, so attention crosses documents")
        prompts = self.config.prompts
        self.codec = load_codec(self.shards.tokenizer) if prompts and self.shards.tokenizer else None
        if self.codec is not None:  # a prompt that is too long fails here rather than at the first evaluation
            encode_prompts(prompts, self.codec, self.special, self.shape.context)
        elif prompts:
            self._warn("prompts: the shards have no tokenizer.json, so nothing is generated")
        if self.config.compile and (problem := compile_model(self.model, self.settings[resume.ATTENTION])):
            self._warn(problem)
        self.peak = peak_flops(self.device, DTYPES[self.config.precision]) * self.world.size
        self.journal.track(self.config.track if self.world.main else [], self.config.model_dump(mode="json"), self.step)
        self.journal.observer.training_started(self._info())
        if self.step:
            self.journal.observer.resumed(self.step)
        self.feed.start(self.step)

    def _update(self) -> None:
        """Take one optimizer step, or skip it where the ledger or the anomaly policy says so."""
        self.optimizer.schedule(self.config.schedule, self.step, self.config.steps)
        if (entry := self.ledger.covering(self.step + 1)) is not None:
            self._skip(entry)
            return
        begun = time.perf_counter()
        with self._rescue():
            parts = self.feed.parts(self.step)
        self.clock.data_wait += time.perf_counter() - begun
        loss, norm = self.stepper.gradients(parts, self.config.z_loss)
        judged = self.watch.each_step and float(loss) != NO_LOSS
        if judged and (reason := self.watch.judge(float(loss), float(norm))):
            named = self.recorder.accuse(self.step + 1, reason, self.stepper.token_losses)
            self.watch.enter(self.step + 1, reason, self.ledger, named)
            self.optimizer.discard()
            self._skip(self.ledger.entries[-1])
            return
        self.recorder.add(self.step + 1, self.stepper.token_losses)
        self.stepper.apply(norm)
        if self.average is not None:
            self.average.update()
        self.window.append(loss)
        self.gradient_norm = norm
        self.step += 1
        self.clock.tokens += self.feed.tokens_before(self.step) - self.feed.tokens_before(self.step - 1)
        self.clock.seconds += time.perf_counter() - begun

    def _profiled(self, profile: Profile) -> None:
        """An update, of which the profile is told."""
        before = self.feed.tokens_before(self.step), self.clock.data_wait
        with profile.step():
            self._update()
        tokens = self.feed.tokens_before(self.step) - before[0]
        flops = flops_per_token(self.shape) * tokens / self.world.size
        if profile.add(flops, self.clock.data_wait - before[1], self.peak / self.world.size):
            self.profile = None

    def _skip(self, entry: Entry) -> None:
        self.step += 1
        self.journal.skipped(self.step, entry.policy, entry.reason)

    def _log(self) -> None:
        """Write a row about the steps since the last one, unless none of them has a loss."""
        losses = self._finite_losses()
        if not losses:
            return
        self.loss = math.fsum(losses) / len(losses)
        row = {
            "step": self.step,
            "tokens": self.feed.tokens_before(self.step),
            "loss": self.loss,
            "lr": self.optimizer.learning_rate,
            "gradient_norm": float(self.gradient_norm),
        }
        speed = self.clock.rates(flops_per_token(self.shape), self.peak) | {"memory": memory_in_use(self.device)}
        self.journal.trained(row, speed)
        self.window, self.clock = [], Clock()
        self.recorder.collect()

    def _evaluate(self) -> None:
        """Write held-out scores, if the shards hold anything out, and samples, if there are prompts."""
        self._finite_losses()  # the device's work up to here is training's
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
                    texts = complete(self.model, self.codec, self.special, self.config.prompts, sampling)
                self.samples = [{"prompt": each.prompt, "text": each.text} for each in texts]
        if self.validation is not None:
            trained = {"step": self.step, "tokens_trained": self.feed.tokens_before(self.step)}
            self.journal.evaluated(trained | self.validation)
        if self.samples:
            self.journal.sampled(self.step, self.samples)
        self.evaluated, self.unfinished = self.step, False

    @contextmanager
    def _rescue(self, evaluating: bool = False) -> Iterator[None]:
        """Where reading or evaluating fails, write a checkpoint of the last step before the error goes on.

        A run that resumes from it evaluates first. Not under FSDP2, whose processes would have to fail together.
        """
        try:
            yield
        except Exception as error:
            if self.step != self.saved and (self.world.size == 1 or self.config.parallel != "fsdp"):
                self.unfinished = evaluating
                try:
                    self._checkpoint()
                    self._collect(wait=True, needed=True)
                    error.add_note(f"The checkpoint of step {self.step} is written; the same command resumes from it.")
                except (TrainerError, OSError) as second:
                    error.add_note(f"No checkpoint of step {self.step} could be written: {second}")
            raise

    def _checkpoint(self) -> None:
        """Start writing a checkpoint, once the one before is written."""
        window = self._finite_losses()
        begun = time.perf_counter()
        self._collect(wait=True)
        self.recorder.write()
        state = {
            "step": self.step,
            "tokens": self.feed.tokens_before(self.step),
            "window": window,
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
            "special": self.special.dump(),
            "data": self.config.data.model_dump(),
            "config": self.config.model_dump(mode="json"),
            "evaluated": self.evaluated,
            "unfinished": self.unfinished,
            "shards_since": self.shards_since,
        }
        self.keeper.save(self.step, state)
        self.saved = self.step
        waited = time.perf_counter() - begun
        self.clock.checkpoint_wait += waited
        self.clock.seconds += waited

    def _collect(self, *, wait: bool, needed: bool = False) -> None:
        """Report a finished checkpoint; a failed one is fatal only if `needed`."""
        try:
            if (done := self.keeper.writer.collect(wait=wait)) is not None:
                self.journal.observer.checkpointed(*done)
        except TrainerError as error:
            if needed:
                raise TrainerError(f"{error}. Free some space and start the same command again") from error
            self._warn(f"{error}; training continues without it")

    def _finite_losses(self) -> list[float]:
        """The losses since the last logged row, of steps that have one; waits for the device, which counts as training.

        Raises TrainerError where these or the gradients are not finite.
        """
        begun = time.perf_counter()
        losses = [value for loss in self.window if (value := float(loss)) != NO_LOSS]
        norm = float(self.gradient_norm)
        self.clock.seconds += time.perf_counter() - begun
        if not all(map(math.isfinite, [*losses, norm])):
            reason = f"training diverged at or before step {self.step}: losses {losses[-3:]}, gradient norm {norm}"
            self.recorder.accuse_first(reason)
            raise TrainerError(
                f"{reason}. The last checkpoint is from before that; lower the learning rate or lengthen the warm-up"
            )
        return losses

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
            "streams": {
                split: {
                    stream.name: {"samples": len(stream.data), "tokens": stream.tokens, "weight": stream.weight}
                    for stream in streams
                }
                for split, streams in (("train", self.shards.train), ("validation", self.shards.validation))
            },
            "precision": self.config.precision,
            "optimizer": self.config.optimizer.name,
            **environment(self.device),
        }
