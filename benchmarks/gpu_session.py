"""Everything that only a GPU can tell, in one call of under ten minutes: for a machine that is lent for a quarter hour.

    python benchmarks/gpu_session.py SHARDS OUTPUT [--minutes 9] [--dry]

SHARDS is a shards folder with something held out. OUTPUT receives session.json, written anew after each row, and the
folders of the runs. Each part has a process of its own and a time limit; a part that fails or is stopped keeps the
rows that it has, and the next one starts. In this order:

    check    loss and every gradient, compiled bf16 against eager fp32, for each of CHECKS
    resume   40 steps of preset 124m, and the same killed after step 20 and started again: the same bytes?
    learn    330 steps of 65,536 tokens, preset 124m, as `pretrain train --profile` runs them: held-out loss, the loop's
             speed, and where its time goes (OUTPUT/learn/profile.txt)
    speed    each of VARIANTS, the most telling first, until the time is up

Exit code 1 where a part failed or a check did not hold; bars are train_gpu.py's. `--dry` runs all of it on a CPU with
a tiny model and few steps.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import xxhash
from bars import options, show_machine
from train_gpu import agreement, measure

from trainer.config import TrainConfig
from trainer.loop import train
from trainer.machine import deterministic, peak_flops

Row = dict[str, Any]
SPAWN = multiprocessing.get_context("spawn")
DRY_MODEL = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 64}
CHECKS: list[Row] = [
    {},
    {"document": None, "kv_heads": 2},
    {"kv_heads": 2, "qk_norm": False},
    {"kv_heads": 2, "head_dim": 128, "context": 2048, "document": 700},
]
FREE: Row = {"deterministic": False}
VARIANTS: list[Row] = [
    {"preset": "124m"},
    {"preset": "124m", **FREE},
    {"preset": "1b", "micro_batches": 4},
    {"preset": "124m", **FREE, "attention": "FA3"},
    {"preset": "124m", **FREE, "attention": "FA4"},
    {"preset": "124m", **FREE, "inductor": {"triton.cudagraphs": True}},
    {"preset": "124m", **FREE, "inductor": {"max_autotune_gemm": True}},
    {"preset": "124m", **FREE, "inductor": {"coordinate_descent_tuning": True}},
    {"preset": "124m", "cast_once": False},
    {"preset": "124m", "document": 400},
    {"preset": "124m", "sequences": 64},
    {"preset": "1b", "micro_batches": 4, **FREE, "attention": "FA3"},
    {"preset": "350m"},
]


def check(dry: bool, *_: Path) -> Iterator[Row]:
    """Agreement of the fast path with the plain one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "torch": torch.__version__}
    half = torch.float16 if device.type == "cuda" else torch.float32  # for bf16 it would give the data sheet's figure
    yield {"product_flops": peak_flops(device, half)}
    for case in CHECKS[:2] if dry else CHECKS:
        with deterministic(True):
            wrong = agreement(**case | ({"context": 64, "document": 20} if dry else {}))
        yield {"case": case, "holds": not wrong, "wrong": wrong}


def configured(steps: int, dry: bool, **fields: Any) -> TrainConfig:
    """A run of preset 124m, or dry of a tiny model."""
    fields |= {"steps": steps, "log_every": 10, "evaluation": {"every": 100_000, "batches": 40}, "prompts": []}
    if dry:
        small = {"preset": "tiny", "model": DRY_MODEL, "device": "cpu", "compile": False}
        return TrainConfig.model_validate(fields | small | {"global_batch_tokens": 256, "micro_batch": 4})
    return TrainConfig.model_validate(fields | {"preset": "124m", "global_batch_tokens": 65_536, "micro_batch": 32})


def resume(dry: bool, shards: Path, output: Path) -> Iterator[Row]:
    """Whether a run that was killed and started again has the bytes of an undisturbed one."""
    config, digests = configured(40, dry, checkpoint={"every": 20}), []
    for name in ("undisturbed", "killed"):
        folder = output / name
        if name == "killed":
            victim = SPAWN.Process(target=train, args=(config, shards, folder))
            victim.start()
            while victim.is_alive() and not list(folder.glob("checkpoints/step-*20")):
                time.sleep(0.02)
            victim.kill()
            victim.join()
        train(config, shards, folder)
        files = [folder / "metrics.jsonl", *sorted(folder.glob("checkpoints/step-*40/*.safetensors"))]
        digests.append({path.name: xxhash.xxh3_128_hexdigest(path.read_bytes()) for path in files})
        yield {"run": name, "files": digests[-1]}
    yield {"holds": digests[0] == digests[1] and len(digests[0]) == 3}


def learn(dry: bool, shards: Path, output: Path) -> Iterator[Row]:
    """A short training: what it has learnt, how fast the loop is, and where the time goes."""
    begun, folder = time.perf_counter(), output / "learn"
    result = train(configured(20 if dry else 330, dry), shards, folder, profile=True)
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    speeds = [row for row in rows if row["kind"] == "speed"]
    yield {"validation": result.validation, "seconds": time.perf_counter() - begun}
    yield {"speed": sorted(speeds, key=lambda row: float(row["tokens_per_second"]))[len(speeds) // 2]}
    profile = json.loads((folder / "profile.json").read_bytes())
    yield {"profile": profile | {"kernels": profile["kernels"][:60]}}


def speed(dry: bool, *_: Path) -> Iterator[Row]:
    """The rate of each variant; one that fails says why."""
    for variant in VARIANTS[:6] if dry else VARIANTS:
        yield {"variant": variant} | _attempt(dry, **variant)


def _attempt(
    dry: bool, *, deterministic: bool = True, attention: str = "", inductor: Row | None = None, **case: Any
) -> Row:
    import torch._inductor.config as compiler
    from torch.nn.attention import activate_flash_attention_impl, restore_flash_attention_impl

    from trainer import machine

    if dry:
        case |= {"shape": DRY_MODEL | {"vocab_size": 61, "context": 16}, "sequences": 2, "micro_batches": 2, "steps": 1}
    torch.compiler.reset()
    begun = time.perf_counter()
    try:
        if attention:
            activate_flash_attention_impl(attention)
        with machine.deterministic(deterministic), compiler.patch(inductor or {}):
            return measure(**case) | {"seconds": time.perf_counter() - begun}
    except Exception as error:  # noqa: BLE001 - whatever it is, the other variants count
        return {"failed": f"{type(error).__name__}: {error}"[:500]}
    finally:
        if attention:
            restore_flash_attention_impl(_raise_warn=False)


# Seconds at most, out of ten minutes; what earlier parts leave is speed's.
PARTS: dict[str, tuple[Callable[..., Iterator[Row]], float]] = {
    "check": (check, 120.0),
    "resume": (resume, 150.0),
    "learn": (learn, 150.0),
    "speed": (speed, 600.0),
}


def work(connection: Connection, name: str, shards: Path, output: Path, dry: bool) -> None:
    """A part's process: sends rows, at last None."""
    os.setpgid(0, 0)  # so that the part ends with all that it started
    try:
        for row in PARTS[name][0](dry, shards, output):
            connection.send(row)
    except Exception:  # noqa: BLE001 - it is recorded, and the next part starts
        connection.send({"failed": traceback.format_exc()[-3000:]})
    connection.send(None)


def attend(name: str, limit: float, shards: Path, output: Path, dry: bool) -> Iterator[Row]:
    """A part's rows, and how it ended if not well."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(theirs, name, shards, output, dry))
    process.start()
    theirs.close()
    end = time.monotonic() + limit
    try:
        while ours.poll(max(0.0, end - time.monotonic())):
            if (row := ours.recv()) is None:
                return
            yield row
        yield {"stopped": f"after {limit:.0f} seconds"}
    except EOFError:
        process.join()
        yield {"failed": f"the process ended with {process.exitcode}"}
    finally:
        if process.is_alive():
            try:
                os.killpg(process.pid or 0, signal.SIGKILL)
            except ProcessLookupError:
                process.kill()
        process.join()


def main() -> int:
    parser = options(__doc__, None)
    parser.add_argument("shards", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything")
    parser.add_argument("--dry", action="store_true", help="a tiny model on a CPU")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.dry:
        print("torch sees no GPU: nothing measured")
        return 2
    show_machine("torch")
    arguments.output.mkdir(parents=True, exist_ok=True)
    end, session = time.monotonic() + 60 * arguments.minutes, dict[str, list[Row]]()
    for name, (_, limit) in PARTS.items():
        rows = session[name] = list[Row]()
        left = end - time.monotonic() if arguments.dry else min(limit, end - time.monotonic())
        for row in attend(name, left, arguments.shards, arguments.output, arguments.dry):
            rows.append(row)
            print(name, json.dumps(row)[:300], flush=True)
            (arguments.output / "session.json").write_text(json.dumps(session, indent=1), "utf-8")
    bad = [row for name, rows in session.items() for row in rows if row.get("holds") is False or "failed" in row]
    failed = [row for row in bad if "variant" not in row]
    print(json.dumps({"name": "gpu_session", "failed": len(failed), "session": str(arguments.output / "session.json")}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
