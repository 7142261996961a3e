"""A corpus's yield, time and storage, scaled up from a measured run of the same stages.

Each stage's survivors and its core-seconds are taken per byte of stored input, which is what a recipe knows before
it runs. Deduplication finds more the larger a corpus is, so yields are upper bounds for a larger one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import CorpusConfig


@dataclass(frozen=True)
class StagePlan:
    """Expected survivors of a stage, their text in bytes, and its time in core-seconds."""

    stage: str
    documents: float
    bytes: float
    core_seconds: float


@dataclass(frozen=True)
class CorpusPlan:
    """Stages in order; tokens, and bytes of shards on disk, where the measured run made them."""

    scale: float
    stages: list[StagePlan]
    tokens: float
    shard_bytes: float


def stored_bytes(config: CorpusConfig, base: Path) -> int:
    """Stored size of all inputs in bytes. Raises PipelineError where a pattern matches nothing."""
    from pipeline.sources import list_inputs

    return sum(item.size for item in list_inputs(list(config.sources), base))


def plan_corpus(config: CorpusConfig, base: Path, measured: CorpusConfig, run: Path, measured_base: Path) -> CorpusPlan:
    """What `config` will give, from what `measured` gave in the run folder `run`."""
    from pipeline.runner import stage_stats

    scale = stored_bytes(config, base) / stored_bytes(measured, measured_base)
    stats = stage_stats(measured, run)
    seconds = core_seconds(run)
    stages = [
        StagePlan(name, counts["documents_kept"] * scale, counts["bytes_kept"] * scale, seconds.get(name, 0.0) * scale)
        for name, counts in stats.items()
        if name in config.stages
    ]
    shards = _manifest(run / "shards")
    size = sum(entry["bytes"] for entry in shards["files"].values()) if shards else 0
    return CorpusPlan(scale, stages, stats.get("tokenize", {}).get("tokens", 0) * scale, size * scale)


def core_seconds(run: Path) -> dict[str, float]:
    """Seconds times workers of each stage's last complete building, from the run's log.jsonl."""
    seconds: dict[str, float] = {}
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("event") == "stage":
            seconds[entry["stage"]] = entry["seconds"] * min(entry["workers"], entry["tasks"])
    return seconds


def mixture(shards: Path, tokens: int) -> list[dict[str, Any]]:
    """Tokens and epochs of each training stream in a run of `tokens`, from the shards' manifest.

    A phase holds from its `start` (a share of the run) to the next one's; a stream's share in it is its samples
    times its weight (docs/format.md).
    """
    manifest = _manifest(shards)
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


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
