"""Who resumes exactly: ours, litgpt, StreamingDataset with a plain loop, HF Trainer, accelerate in the same trials.

    make bench && .venv/bin/uv pip install litdata accelerate
    python benchmarks/resumption.py [--quick] [--only NAME ...]

A small model trains on 256 samples, 8 a step, for 72 steps (two epochs and a quarter) on the CPU; a checkpoint every 8
steps. The trials: SIGKILL at three random instants; two processes, killed, then one; SIGKILL just after the end of an
epoch; and after a SIGKILL in the middle of one the same data with a token of each sample changed, a quarter more data,
one byte of the newest checkpoint's largest file flipped, or that file cut in half. After each SIGKILL the same command
runs again, without any look at what it finds. Each peer is set up as its own documents say (see each `train_*`).

Recorded in every process by hooks of torch: what the embedding of the model under training is given (the first token of
a sample is its number), at which step of the optimizer. Verdicts, against the undisturbed run of as many processes:

    same bytes      of the final weights
    same samples    in every step, and other bytes
    refused         the command ends with an error, whose last line is printed below the table
    WRONG           it went on to the end without an error: with data that the checkpoint had not seen, from step N on
                    with other samples, or with damaged weights or optimizer state
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from bars import at_least, at_most, finish, options, show_machine, table

SAMPLES, LENGTH, VOCABULARY = 256, 33, 1024
BATCH, MICRO, STEPS, EVERY = 8, 4, 72, 8
EPOCH = SAMPLES // BATCH
KINDS = ("plain", "edited", "grown")
PAUSE = 0.03  # seconds a step, so that a SIGKILL finds one


# --- the data, in the format of each peer ---


def samples(kind: str) -> Any:
    """uint16 (samples, LENGTH); the first token is the sample's number. kind: plain, edited, grown."""
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, (SAMPLES * 5 // 4, LENGTH), np.uint16)
    tokens[:, 0] = np.arange(len(tokens))
    if kind == "edited":
        tokens[:, 5] = (tokens[:, 5] + 1) % VOCABULARY
    return tokens if kind == "grown" else tokens[:SAMPLES]


def write_data(folder: Path, kind: str, *, litdata: bool) -> None:
    """The samples as an array, as MDS, and as litdata's chunks, which take half a minute."""
    from streaming import MDSWriter

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    np.save(folder / "tokens.npy", samples(kind))
    with MDSWriter(out=str(folder / "mds"), columns={"tokens": "ndarray:uint16"}) as writer:
        for row in samples(kind):
            writer.write({"tokens": row})
    if litdata:
        from litdata import optimize
        from litdata.streaming import TokensLoader

        optimize(fn=_tensors, inputs=[kind], output_dir=str(folder / "litdata"), num_workers=1,
                 chunk_size=LENGTH * 64, item_loader=TokensLoader(block_size=LENGTH))  # fmt: skip


def _tensors(kind: str) -> Iterator[Any]:
    import torch

    for row in samples(kind):
        yield torch.from_numpy(row.astype(np.int32))


# --- one start of one trainer, in processes of its own ---


def record(path: Path, life: int) -> None:
    """Write a line for each optimizer step from now on: its number in the optimizer's state, and the samples in it."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    file = path.open("ab", buffering=0)
    seen: list[int] = []

    def given(module: Any, arguments: Any) -> None:
        real = isinstance(module, torch.nn.Embedding) and arguments[0].device.type != "meta"
        if real and module.training and torch.is_grad_enabled():
            seen.extend(arguments[0].reshape(-1, LENGTH - 1)[:, 0].tolist())

    def stepped(optimizer: Any, *_: Any) -> None:
        step = int(next(iter(optimizer.state.values()))["step"])
        file.write((json.dumps({"life": life, "step": step, "samples": seen}) + "\n").encode())
        seen.clear()
        time.sleep(PAUSE)

    torch.nn.modules.module.register_module_forward_pre_hook(given)
    register_optimizer_step_post_hook(stepped)


def train_ours(data: Path, out: Path, world: int) -> Any:
    """As `pretrain train` does."""
    assert world  # told by the environment
    from safetensors.torch import load_file

    from trainer.config import TrainConfig
    from trainer.loop import train

    shape = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 2, "head_dim": 16, "ffn": 64, "vocab_size": VOCABULARY}
    settings = {
        "model": shape, "steps": STEPS, "global_batch_tokens": BATCH * (LENGTH - 1), "micro_batch": MICRO,
        "log_every": 1, "checkpoint": {"every": EVERY}, "precision": "fp32", "compile": False, "device": "cpu",
        "optimizer": {"name": "adamw"},
    }  # fmt: skip
    train(TrainConfig.model_validate(settings), data / "mds", out / "train")
    newest = max((out / "train/checkpoints").iterdir())
    parts = [load_file(path) for path in sorted(newest.glob("model*.safetensors"))]
    return {name: value for part in parts for name, value in part.items()}


def train_litgpt(data: Path, out: Path, world: int) -> Any:
    """litgpt's docs, "pretrain": `litgpt pretrain --data LitData --resume auto`, data prepared with litdata."""
    import torch
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.config import Config
    from litgpt.data import LitData
    from litgpt.pretrain import setup

    sys.argv = ["litgpt", "pretrain", "tiny"]  # which it reads to write down its settings
    shape = Config(name="tiny", block_size=LENGTH - 1, n_layer=1, n_head=2, n_embd=32, padded_vocab_size=VOCABULARY)
    setup(
        "tiny", shape, out / "train", "32-true", resume="auto", devices=world, logger_name="csv", seed=1,
        data=LitData(data / "litdata", seed=1, num_workers=0),
        train=TrainArgs(save_interval=EVERY, global_batch_size=BATCH, micro_batch_size=MICRO, max_norm=1.0,
                        max_tokens=STEPS * BATCH * (LENGTH - 1), lr_warmup_steps=4),
        eval=EvalArgs(interval=10**6, max_iters=1, final_validation=False),
    )  # fmt: skip
    return torch.load(out / "train/final/lit_model.pth")["model"]


def tiny() -> Any:
    """The model of the three peers that bring none."""
    import torch
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(VOCABULARY, 32), nn.Linear(32, VOCABULARY)

        def forward(self, input_ids: Any, labels: Any) -> dict[str, Any]:
            logits = self.head(self.embedding(input_ids))
            return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())}

    torch.manual_seed(1)
    return Tiny()


def rows(data: Path) -> list[dict[str, Any]]:
    """The samples as `datasets` or a list gives them to a loader."""
    import torch

    tokens = torch.from_numpy(np.load(data / "tokens.npy").astype(np.int64))
    return [{"input_ids": row[:-1], "labels": row[1:]} for row in tokens]


def train_streaming(data: Path, out: Path, world: int) -> Any:
    """streaming's docs, "Resumption": the loader's state_dict in the checkpoint, load_state_dict before the loop."""
    import torch
    from streaming import StreamingDataLoader, StreamingDataset
    from torch.distributed import init_process_group
    from torch.nn.parallel import DistributedDataParallel

    model = raw = tiny()
    if world > 1:
        init_process_group("gloo")
        model = DistributedDataParallel(raw)
    optimizer = torch.optim.AdamW(raw.parameters(), lr=1e-2)
    loader = StreamingDataLoader(
        StreamingDataset(local=str(data / "mds"), shuffle=True, shuffle_seed=1, batch_size=MICRO), batch_size=MICRO
    )
    step = micro = 0
    if saved := sorted(out.glob("step-*.pt")):
        state = torch.load(saved[-1])
        raw.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        loader.load_state_dict(state["loader"])
        step = state["step"]
    while step < STEPS:
        for batch in loader:
            tokens = batch["tokens"].long()
            (model(tokens[:, :-1], tokens[:, 1:])["loss"] * MICRO * world / BATCH).backward()
            micro += 1
            if micro % (BATCH // MICRO // world):
                continue
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step % EVERY == 0 and int(os.environ.get("RANK", 0)) == 0:
                state = {"model": raw.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict()}
                torch.save(state | {"step": step}, out / f"step-{step:04d}.pt")
            if step == STEPS:
                break
    return raw.state_dict()


def train_hf(data: Path, out: Path, world: int) -> Any:
    """transformers' docs, "Trainer", Checkpoints, and its examples: get_last_checkpoint, resume_from_checkpoint."""
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    arguments = TrainingArguments(
        str(out / "train"), max_steps=STEPS, per_device_train_batch_size=MICRO, seed=1, data_seed=1, save_steps=EVERY,
        gradient_accumulation_steps=BATCH // MICRO // world, report_to=[], use_cpu=True, logging_steps=1000,
        disable_tqdm=True, save_total_limit=3,
    )  # fmt: skip
    trainer = Trainer(tiny(), arguments, train_dataset=rows(data))
    last = get_last_checkpoint(str(out / "train")) if (out / "train").is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    return trainer.model.state_dict()


def train_accelerate(data: Path, out: Path, world: int) -> Any:
    """accelerate's docs, "Checkpointing" and examples/by_feature/checkpointing.py, with its seedable sampler."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration, set_seed
    from torch.utils.data import DataLoader

    set_seed(1)
    accelerator = Accelerator(
        gradient_accumulation_steps=BATCH // MICRO // world, cpu=True,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )  # fmt: skip
    plain = tiny()
    model, optimizer, loader = accelerator.prepare(
        plain, torch.optim.AdamW(plain.parameters(), lr=1e-2), DataLoader(rows(data), batch_size=MICRO, shuffle=True)
    )
    batches = first_epoch = skipped = 0
    if saved := sorted(out.glob("step_*")):
        accelerator.load_state(str(saved[-1]))
        batches = int(saved[-1].name.removeprefix("step_"))
        first_epoch, skipped = divmod(batches, len(loader))
    wanted = STEPS * (BATCH // MICRO // world)
    for epoch in count(first_epoch):
        resumed = epoch == first_epoch and skipped
        for batch in accelerator.skip_first_batches(loader, skipped) if resumed else loader:
            with accelerator.accumulate(model):
                accelerator.backward(model(**batch)["loss"])
                optimizer.step()
                optimizer.zero_grad()
            batches += 1
            if batches % (EVERY * BATCH // MICRO // world) == 0:
                accelerator.save_state(str(out / f"step_{batches:04d}"))
            if batches >= wanted:
                return accelerator.unwrap_model(model).state_dict()
    raise AssertionError


TRAINERS: dict[str, tuple[Callable[[Path, Path, int], Any], str]] = {
    "pretrain": (train_ours, "train/checkpoints/step-*"),
    "litgpt": (train_litgpt, "train/step-*"),
    "StreamingDataset, plain loop": (train_streaming, "step-*.pt"),
    "HF Trainer": (train_hf, "train/checkpoint-*"),
    "accelerate": (train_accelerate, "step_*"),
}


LIBRARIES = {"pretrain": "trainer.loop", "litgpt": "litgpt.pretrain", "StreamingDataset, plain loop": "streaming",
             "HF Trainer": "transformers.trainer", "accelerate": "accelerate"}  # fmt: skip


def child(name: str, data: Path, out: Path, world: int, life: int) -> None:
    """One process of one start. The main one leaves the final weights' hash."""
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
    record(out / f"record-{rank}.jsonl", life)
    weights = TRAINERS[name][0](data, out, world)
    if rank == 0:
        digest = hashlib.sha256()
        for key in sorted(weights):
            digest.update(key.encode() + weights[key].detach().contiguous().numpy().tobytes())
        (out / "weights.txt").write_text(digest.hexdigest())


def fork(name: str, data: Path, out: Path, world: int, life: int, environment: dict[str, str]) -> int:
    """Start `child` in a process of this one's libraries; returns its id, which is its group's too."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        log = os.open(out / f"log-{life}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        child(name, data, out, world, life)
        code = 0
    finally:
        if code:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# --- trials ---


class Run:
    """A run of one trainer in a folder, started as often as a trial wants."""

    def __init__(self, name: str, folder: Path, data: Path) -> None:
        self.name, self.folder, self.data, self.life = name, folder, data, 0
        folder.mkdir(parents=True, exist_ok=True)

    def back_to(self, saved: Path) -> None:
        """Return to a copy of the folder, under the folder's own name: some checkpoints hold paths."""
        shutil.rmtree(self.folder)
        shutil.copytree(saved, self.folder)

    def start(self, world: int = 1, kill_at: float | None = None) -> str:
        """Start it; kill_at: SIGKILL so many steps later than none. Returns the error's last line, or ""."""
        self.life += 1
        place = self.folder / "data"  # the same command each time: the data lies where it was
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.data, place)
        worlds: list[dict[str, str]] = [{}]
        if world > 1 and self.name != "litgpt":  # which starts its processes itself
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                shared = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                          "MASTER_PORT": str(free.getsockname()[1])}  # fmt: skip
            worlds = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
        processes = [fork(self.name, place, self.folder, world, self.life, each) for each in worlds]
        codes: dict[int, int] = {}
        while len(codes) < len(processes):
            killed = kill_at is not None and self._steps() >= kill_at
            if killed:
                time.sleep(random.uniform(0, PAUSE * 2))
            if killed or any(codes.values()):  # as torchrun does when one fails
                for process in set(processes) - set(codes):
                    os.killpg(process, signal.SIGKILL)
            for process in set(processes) - set(codes):
                ended, status = os.waitpid(process, 0 if killed or any(codes.values()) else os.WNOHANG)
                if ended:
                    codes[process] = os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        if kill_at is not None or not any(codes.values()):
            return ""
        return last_error((self.folder / f"log-{self.life}.txt").read_text(errors="replace"))

    def _steps(self) -> int:
        """The last step that this start has recorded."""
        path = self.folder / "record-0.jsonl"
        steps = [row["step"] for row in read_records(path) if row["life"] == self.life] if path.exists() else []
        return max(steps, default=0)

    def steps(self) -> dict[int, list[int]]:
        """{step: samples, sorted} as the last start that did the step had it, over all processes."""
        last: dict[int, tuple[int, list[int]]] = {}
        for path in sorted(self.folder.glob("record-*.jsonl")):
            for row in read_records(path):
                life, given = last.get(row["step"], (0, []))
                if row["life"] >= life:
                    kept = given if row["life"] == life else []
                    last[row["step"]] = row["life"], kept + row["samples"]
        return {step: sorted(given) for step, (_, given) in last.items()}

    def weights(self) -> str:
        path = self.folder / "weights.txt"
        return path.read_text() if path.exists() else ""

    def newest(self) -> Path:
        """The largest file of the newest checkpoint."""
        found = max(self.folder.glob(TRAINERS[self.name][1]), key=lambda path: int(re.findall(r"\d+", path.name)[0]))
        files = [found] if found.is_file() else [path for path in found.rglob("*") if path.is_file()]
        return max(files, key=lambda path: (path.stat().st_size, path.name))


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)


def last_error(log: str) -> str:
    """The last error of a log, without its trace."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception|Exit)\b", line)]
    return " ".join(lines[errors[-1] :][:3]) if errors else (lines or ["ended without a word"])[-1]


def verdict(run: Run, reference: Run, error: str, *, changed: bool = False, harmed: bool = False) -> tuple[str, str]:
    """(cell of the table, note below it)."""
    if error:
        return "refused", error
    if changed:
        return "WRONG, went on", ""
    if run.weights() and run.weights() == reference.weights():
        return "same bytes", ""
    done, wanted = run.steps(), reference.steps()
    other = next((step for step in range(1, STEPS + 1) if done.get(step) != wanted[step]), None)
    if other is None and not harmed:
        return "same samples", ""
    return f"WRONG, step {other}" if other else "WRONG, weights", ""


def trials(name: str, base: Path, kills: int) -> dict[str, tuple[str, str]]:
    """{trial: verdict} of one trainer."""
    draw, folder = random.Random(name), base / name.replace(" ", "-")
    data = {kind: base / f"data-{kind}" for kind in KINDS}
    plain = data["plain"]

    def new(title: str) -> Run:
        return Run(name, folder / title, plain)

    one, two = new("one"), new("two")
    found: dict[str, tuple[str, str]] = {}
    if error := one.start():
        raise RuntimeError(f"{name} does not run: {error}\n{one.folder}")
    killed = new("killed")
    for step in sorted(draw.sample(range(EVERY + 1, STEPS - 2), kills)):
        killed.start(kill_at=step)
    found["killed"] = verdict(killed, one, killed.start())
    epoch = new("epoch")
    epoch.start(kill_at=EPOCH + 3)
    found["end of epoch"] = verdict(epoch, one, epoch.start())
    half = new("half")
    half.start(kill_at=EPOCH + EVERY + 4)
    saved = shutil.copytree(half.folder, folder / "saved")
    for kind in ("edited", "grown"):
        half.data = data[kind]
        found[f"data {kind}"] = verdict(half, one, half.start(), changed=True)
        half.back_to(saved)
    half.data = plain
    for harm in ("byte flipped", "file cut"):
        content = bytearray((path := half.newest()).read_bytes())
        content[len(content) // 2] ^= 64
        path.write_bytes(content if harm == "byte flipped" else content[: len(content) // 2])
        found[harm] = verdict(half, one, half.start(), harmed=True)
        half.back_to(saved)
    if error := two.start(2):
        found["2 to 1 processes"] = "not started", f"two processes: {error}"
    else:
        fewer = new("fewer")
        fewer.start(2, kill_at=EPOCH + EVERY + 4)
        found["2 to 1 processes"] = verdict(fewer, two, fewer.start(1))
    return found


def main() -> int:
    parser = options(__doc__, "one random SIGKILL instead of three, pretrain and HF Trainer only")
    parser.add_argument("--only", nargs="+", choices=TRAINERS, help="these trainers")
    parser.add_argument("--keep", type=Path, help="folder for the runs, which is not deleted")
    parser.add_argument("--trials", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trials:
        name, given, kills = arguments.trials
        importlib.import_module(LIBRARIES[name])  # once; each start is a fork
        print(json.dumps(trials(name, Path(given), int(kills))))
        return 0
    show_machine("litgpt", "litdata", "mosaicml-streaming", "transformers", "accelerate", "torch")
    names = arguments.only or (["pretrain", "HF Trainer"] if arguments.quick else list(TRAINERS))
    results: dict[str, dict[str, tuple[str, str]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        for kind in KINDS:
            write_data(folder / f"data-{kind}", kind, litdata="litgpt" in names)
        for name in names:
            command = [sys.executable, __file__, "--trials", name, str(folder), "1" if arguments.quick else "3"]
            quiet = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | quiet)
            results[name] = json.loads(done.stdout.splitlines()[-1])
    columns = list(results[names[0]])
    row = table("", dict.fromkeys(columns, ""))
    for name, found in results.items():
        row(name, *(found[column][0] for column in columns))
    for name, found in results.items():
        for column, (_, note) in found.items():
            if note:
                print(f"{name}, {column}: {note[:300]}")
    ours = [cell for cell, _ in results.get("pretrain", {}).values()]
    exact = {"same bytes", "same samples", "refused"}
    bars = {
        "pretrain_trials": at_least(len(ours), 7),
        "pretrain_wrong": at_most(sum(cell not in exact for cell in ours), 0),
    }
    return finish("resumption", bars)


if __name__ == "__main__":
    sys.exit(main())
