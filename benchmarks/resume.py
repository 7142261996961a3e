"""Time to the first batch after a resume in mid-epoch, against StreamingDataset; how long training waits to save.

    python benchmarks/resume.py [--quick]

Each data set is half read when it is resumed at a batch of 512. With 10^4 and 10^7 samples it lies on the disk (one
shard of 10,000 tiny samples under as many names as it takes), and the time runs from opening the data set to the
first batch's samples in memory. `StreamingDataset` is given its own state, as its `load_state_dict` wants it. With
10^10 samples there is nothing on the disk: the time is that of the order alone, which for StreamingDataset would be an
array of 80 GB. `jump` is the time for another step of the same run: far ahead in the same epoch, and epochs later.

The second table trains a model of 12M parameters, 4 x 256 tokens a step, and saves every 20 steps: the share of the
time that training waits for checkpoints.

Bars: ours at 10^10 within 50 ms, ours ten times faster than StreamingDataset at 10^7, waiting below 5 %.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bars import at_least, at_most, finish, options, show_machine, table
from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory

from trainer.cache import Cache
from trainer.config import TrainConfig
from trainer.dataset import MdsDataset
from trainer.loop import train
from trainer.sampler import Phase, Sampler

SHARD, BATCH = 10_000, 512


def data_set(folder: Path, samples: int) -> Path:
    """An MDS data set of `samples` samples: one real shard under many names."""
    with MDSWriter(out=str(folder), columns={"tokens": "ndarray:uint16"}, size_limit=1 << 26) as writer:
        for number in range(SHARD):
            writer.write({"tokens": np.full(2, number % 65_536, np.uint16)})
    index = json.loads((folder / "index.json").read_bytes())
    (entry,) = index["shards"]
    first, entries = folder / entry["raw_data"]["basename"], []
    for number in range(samples // SHARD):
        name = f"shard.{number:06d}.mds"
        if folder / name != first:
            os.link(first, folder / name)
        entries.append(entry | {"raw_data": entry["raw_data"] | {"basename": name}})
    (folder / "index.json").write_text(json.dumps(index | {"shards": entries}))
    return folder


def ours(folder: Path, samples: int) -> int:
    """Open, jump to the middle of the epoch, read a batch."""
    data = MdsDataset(folder, Cache(folder / "cache", 10**9))
    sampler = Sampler([data.shard_sizes], [Phase(0, [1.0])], BATCH, seed=1)
    return len([data.sample(index) for _, index in sampler.batch(samples // 2 // BATCH).tolist()])


def streaming(folder: Path, samples: int) -> int:
    """The same with StreamingDataset and its own state."""
    clean_stale_shared_memory()
    data = StreamingDataset(local=str(folder), shuffle=True, shuffle_seed=1, num_canonical_nodes=1, batch_size=BATCH)
    state = {"epoch": 0, "sample_in_epoch": samples // 2, "num_canonical_nodes": 1, "shuffle_seed": 1}
    data.load_state_dict(state | {"initial_physical_nodes": 1})
    rows = iter(data)
    return len([next(rows) for _ in range(BATCH)])


def seconds(call: Callable[..., Any], *arguments: Any) -> float:
    begun = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begun


def order(samples: int) -> list[float]:
    """Seconds to build the sampler and take the middle batch, one of the same epoch, and one of a later epoch."""
    shards = np.full(samples // SHARD, SHARD)
    sampler: list[Sampler] = []
    middle = samples // 2 // BATCH
    first = seconds(lambda: (sampler.append(Sampler([shards], [Phase(0, [1.0])], BATCH, 1)), sampler[0].batch(middle)))
    return [first, seconds(sampler[0].batch, middle // 2), seconds(sampler[0].batch, middle * 7)]


def checkpoint_wait(folder: Path, steps: int) -> dict[str, float]:
    """Share of a training run that waits for its checkpoints, their number and size."""
    rng = np.random.default_rng(1)
    with MDSWriter(out=str(folder / "shards"), columns={"tokens": "ndarray:uint16"}) as writer:
        for _ in range(512):
            writer.write({"tokens": rng.integers(0, 4096, 257, np.uint16)})
    shape = {"layers": 6, "width": 384, "heads": 6, "kv_heads": 6, "head_dim": 64, "ffn": 1024, "vocab_size": 4096}
    settings = {
        "model": shape, "steps": steps, "global_batch_tokens": 1024, "micro_batch": 4, "log_every": steps,
        "checkpoint": {"every": 20}, "precision": "fp32", "compile": False, "device": "cpu",
    }  # fmt: skip
    train(TrainConfig.model_validate(settings), folder / "shards", folder / "train")
    (speed,) = [json.loads(line) for line in (folder / "train/log.jsonl").read_text().splitlines() if "speed" in line]
    newest = sorted((folder / "train/checkpoints").iterdir())[-1]
    size = sum(path.stat().st_size for path in newest.iterdir())
    return {"share": speed["checkpoint_wait"], "checkpoints": steps // 20, "megabytes": size / 1e6}


def main() -> int:
    quick = options(__doc__, "10^6 instead of 10^7 samples, a shorter training").parse_args().quick
    show_machine("mosaicml-streaming", "torch")
    large = 10**6 if quick else 10**7
    row = table("samples", dict.fromkeys(("ours", "StreamingDataset", "order alone", "jump", "next epoch"), ""))
    times: dict[int, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for samples in (10**4, large):
            folder = data_set(Path(temporary) / str(samples), samples)
            times[samples] = seconds(ours, folder, samples), seconds(streaming, folder, samples)
        for samples in (10**4, large, 10**10):
            alone = [f"{1e3 * each:.2f} ms" for each in order(samples)]
            both = [f"{each:.3f} s" for each in times[samples]] if samples in times else ["-", "80 GB"]
            row(f"{samples:,}", *both, *alone)
        wait = checkpoint_wait(Path(temporary) / "run", 21 if quick else 41)
    print(
        f"\n{wait['checkpoints']:.0f} checkpoints of {wait['megabytes']:.0f} MB, one every 20 steps: training waited "
        f"{wait['share']:.2%} of the time"
    )
    bars = {
        "ms_at_1e10": at_most(1e3 * max(order(10**10)), 50),
        "faster_than_streaming": at_least(times[large][1] / times[large][0], 10),
        "checkpoint_wait": at_most(wait["share"], 0.05),
    }
    return finish("resume", bars)


if __name__ == "__main__":
    sys.exit(main())
