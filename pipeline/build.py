"""Run a corpus's stages in order, skipping what is already built, publishing each stage as a whole.

For each stage: compute its fingerprint; if the published folder carries it, go on. Otherwise run the stage's
passes with datatrove's executor in a hidden folder named after the fingerprint (so that a killed run finds its
finished tasks, and a changed recipe never finds the old ones), check the ledger (in = kept + dropped, and in =
what the stage before kept), write stats.json, and rename the folder into place with its manifest.

    runs/<name>/corpus/<NN-stage>/{data,dropped}/*.parquet stats.json manifest.json
    runs/<name>/shards/...                                  (stage `tokenize`)
    runs/<name>/log.jsonl                                   (times, hosts, versions: everything that may differ)

Run a stage's passes with the recipe's executor, while a thread reports their progress.

Tasks write heartbeats to small files (`pipeline.task.Heartbeat`), which work the same for threads, processes
and machines; the thread adds them up twice a second, weighted by the size of each task's input. Where a document ends
the process that works on it each time, the stage is tried again without it, `max_failures` documents at most
(`pipeline.crashes`).
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from common.errors import PipelineError
from common.files import (
    MANIFEST,
    changed_files,
    hash_file,
    locked,
    publish_folder,
    read_json,
    read_manifest,
    swap_in,
    write_json,
)
from common.observe import Observer, Progress
from pipeline import crashes
from pipeline.config import CorpusConfig, ExecutorConfig, StageName
from pipeline.crashes import Place
from pipeline.documents import document_id
from pipeline.executors import LocalPool, run_tasks, unfinished
from pipeline.fingerprint import code_version, fingerprint, library_versions
from pipeline.read import input_hashes, list_inputs
from pipeline.stage import Build, StageModule
from pipeline.task import HEARTBEAT_SECONDS, CorpusStep, Counts, add_counts, write_left_out


@dataclass(frozen=True)
class Stage:
    """Where a stage's code is, the libraries whose versions decide its output, and the settings that decide nothing but
    its manifest: where these alone change, the manifest is written anew and the files stay.
    """

    module: str
    libraries: tuple[str, ...]
    manifest_only: tuple[str, ...] = ()


STAGES: dict[StageName, Stage] = {
    "extract": Stage("pipeline.extract.stage", ("resiliparse", "fastwarc", "warcio", "trafilatura", "pyarrow")),
    "language": Stage("pipeline.language.stage", ("numba", "pyarrow")),
    "dedup": Stage("pipeline.dedup.stage", ("pyarrow",)),
    "quality": Stage("pipeline.quality.stage", ("numba", "fasttext-wheel", "pyarrow")),
    "tokenize": Stage("pipeline.tokenize.stage", ("tokenizers", "zstandard", "pyarrow"), ("weights", "phases")),
}


def build_corpus(
    config: CorpusConfig,
    run: Path,
    base: Path,
    *,
    first: str | None = None,
    last: str | None = None,
    observer: Observer | None = None,
    begin: Callable[[], None] = lambda: None,
) -> None:
    """Bring the run folder's corpus up to date with the recipe.

    base: the recipe's folder, against which relative paths are meant. first: rebuild from this stage on even
    if nothing changed. last: stop after this stage. begin: called once the run folder is locked, before anything is
    written into it. Raises PipelineError.
    """
    for name in (first, last):
        if name is not None and name not in config.stages:
            raise PipelineError(f"stage `{name}` is not among this recipe's stages: {', '.join(config.stages)}")
    workers = config.executor.workers or len(os.sched_getaffinity(0))
    with locked(run, "give this run another `name`"), LocalPool(workers) as pool:
        begin()
        _remove_stale_folders(config, run)
        inputs = list_inputs(config.sources, base)
        upstream: dict[str, Any] = {"inputs": input_hashes(inputs, run / "inputs.json")}
        forced = False
        for number, name in enumerate(config.stages):
            forced = forced or name == first
            before = stage_folder(config, run, config.stages[number - 1]) if number else None
            upstream = _build_stage(
                config, run, base, name, before, upstream, pool, forced=forced, observer=observer or Observer()
            )
            if name == last:
                return


def stage_folder(config: CorpusConfig, run: Path, stage: StageName) -> Path:
    """Where a stage's result is published."""
    if stage == "tokenize":
        return run / "shards"
    return run / "corpus" / f"{config.stages.index(stage) + 1:02d}-{stage}"


def stage_stats(config: CorpusConfig, run: Path) -> dict[str, dict[str, Any]]:
    """stats.json of every published stage, in the recipe's order."""
    folders = {stage: stage_folder(config, run, stage) for stage in config.stages}
    return {
        stage: read_json(folder / "stats.json")
        for stage, folder in folders.items()
        if (folder / "stats.json").is_file()
    }


def _build_stage(
    config: CorpusConfig,
    run: Path,
    base: Path,
    name: StageName,
    before: Path | None,
    upstream: dict[str, Any],
    pool: LocalPool,
    *,
    forced: bool,
    observer: Observer,
) -> dict[str, Any]:
    """Build one stage unless it stands. Returns what the next stage depends on."""
    stage, place = STAGES[name], stage_folder(config, run, name)
    module = cast(StageModule, importlib.import_module(stage.module))
    decides: dict[str, Any] = {
        "stage": name,
        "settings": _settings(config, name),
        "files": [hash_file(path) for path in module.external_files(getattr(config, name), base)],
        "code": code_version(stage.module),
        "libraries": library_versions(stage.libraries),
        "upstream": upstream,
    }
    mark = fingerprint(decides)
    content = fingerprint(decides | {"settings": {**decides["settings"], **dict.fromkeys(stage.manifest_only)}})
    building = place.parent / f".{place.name}.{content[:16]}"
    if read_manifest(building):  # finished, but the last rename never happened
        swap_in(building, place)
    manifest = read_manifest(place)
    build = Build(
        settings=getattr(config, name),
        sources=tuple(config.sources),
        seed=config.seed,
        base=base,
        inputs=_input_files(before),
        workdir=building,
        fingerprint=mark,
    )
    marks = {"stage": name, "fingerprint": mark, "content": content}
    if forced or not manifest or manifest.get("content") != content or not _sizes_hold(place, manifest):
        manifest = _run_passes(config, run, name, module, build, marks, before, place, pool, observer)
    else:
        if manifest["fingerprint"] != mark:  # the files stand; what their manifest says of them is another matter
            fields = module.manifest(replace(build, workdir=place)) | marks
            write_json(place / MANIFEST, fields | {"files": manifest["files"]})
        observer.stage_skipped(name, read_json(place / "stats.json"))
    _require_documents(config, name, read_json(place / "stats.json"))
    return {"fingerprint": mark, "files": {key: entry["xxh3"] for key, entry in manifest["files"].items()}}


def _run_passes(
    config: CorpusConfig,
    run: Path,
    name: StageName,
    module: StageModule,
    build: Build,
    marks: dict[str, str],
    before: Path | None,
    place: Path,
    pool: LocalPool,
    observer: Observer,
) -> dict[str, Any]:
    """Run a stage's passes, check the ledger and publish. Returns the manifest."""
    started = time.monotonic()
    for leftover in place.parent.glob(f".{place.name}.*"):
        if leftover != build.workdir:
            shutil.rmtree(leftover)
    if before and (damaged := changed_files(before, _published(before))):
        raise PipelineError(
            f"{before / damaged[0]}: the file is not what its manifest says (changed or missing);"
            f" delete {before} to rebuild it"
        )
    build.workdir.mkdir(parents=True, exist_ok=True)
    counts, tasks = run_passes(name, module, build, config.executor, pool, run / "logs" / place.name, observer)
    stats = {"stage": name, **_ledger(counts)}
    _check_ledger(name, stats, before)
    write_json(build.workdir / "stats.json", stats)
    for scratch in build.workdir.glob(".*"):
        shutil.rmtree(scratch)
    publish_folder(build.workdir, place, module.manifest(build) | marks)
    seconds = time.monotonic() - started
    _log(
        run,
        {"event": "stage", "stage": name, "seconds": round(seconds, 3), "tasks": tasks, "workers": pool.workers},
    )
    observer.stage_finished(name, stats, seconds)
    return _published(place)


def _settings(config: CorpusConfig, name: StageName) -> dict[str, Any]:
    """Everything of the recipe that decides this stage's output."""
    settings: dict[str, Any] = getattr(config, name).model_dump(mode="json")
    if name == "extract":
        # Where files lie decides nothing: their keys and contents are hashed with the inputs and external files.
        left_out = {"weight", "repeat", "license", "paths"}
        settings["sources"] = [source.model_dump(exclude=left_out) for source in config.sources]
        settings |= {lists: len(settings[lists]) for lists in ("blocklist", "allowlist", "url_words")}
    if name == "tokenize":
        settings["weights"] = {source.name: source.weight * source.repeat for source in config.sources}
    if name in ("dedup", "tokenize"):
        settings["seed"] = config.seed
    return settings


def _published(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest is None:
        raise PipelineError(f"{folder}: not a finished stage (no manifest.json); run the recipe again")
    return manifest


def _sizes_hold(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether every listed file is there with its size; contents are hashed when a stage reads them."""
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry["bytes"]
        for name, entry in manifest["files"].items()
    )


def _input_files(before: Path | None) -> tuple[Path, ...]:
    return tuple(sorted((before / "data").glob("*.parquet"))) if before else ()


def _ledger(counts: Counts) -> Counts:
    empty = {"documents_in": 0, "documents_kept": 0, "documents_dropped": 0, "bytes_in": 0, "bytes_kept": 0}
    return {**empty, "dropped": {}, "sources": {}, **counts}


def _check_ledger(name: str, stats: Counts, before: Path | None) -> None:
    """Raise PipelineError unless in = kept + dropped, and in = what the stage before kept."""
    kept, dropped, read = stats["documents_kept"], stats["documents_dropped"], stats["documents_in"]
    expected = read_json(before / "stats.json")["documents_kept"] if before else read
    if read != kept + dropped or read != expected:
        raise PipelineError(
            f"stage `{name}` does not add up: {expected} documents came in, {read} were read,"
            f" {kept} kept and {dropped} dropped; nothing was published"
        )


def _require_documents(config: CorpusConfig, name: str, stats: Counts) -> None:
    """Raise PipelineError where a source gave nothing, or a stage left nothing: silence would hide it."""
    if name == "extract":
        for source in config.sources:
            if not stats["sources"].get(source.name, {}).get("in"):
                raise PipelineError(
                    f"source `{source.name}` gave no documents; its files exist but hold no record of type"
                    f" `{source.type}`: {', '.join(source.paths)}"
                )
    if stats["documents_kept"] == 0:
        worst = max(stats["dropped"].items(), key=lambda item: item[1], default=("nothing", 0))
        raise PipelineError(
            f"stage `{name}` kept none of {stats['documents_in']} documents; most fell to rule `{worst[0]}`"
            f" ({worst[1]}). See `pretrain inspect RUN --stage {name} --dropped`, then loosen that rule"
        )


def _remove_stale_folders(config: CorpusConfig, run: Path) -> None:
    """Delete stage folders of an earlier order of stages: a run folder shows its recipe and no other."""
    wanted = {stage_folder(config, run, stage).name for stage in config.stages}
    for folder in (run / "corpus").glob("[0-9][0-9]-*"):
        if folder.name not in wanted:
            shutil.rmtree(folder)


def _log(run: Path, entry: dict[str, Any]) -> None:
    """Append what may differ between equal runs to log.jsonl."""
    with (run / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"time": time.time(), "host": platform.node()} | entry) + "\n")


def run_passes(
    stage: str,
    module: StageModule,
    build: Build,
    config: ExecutorConfig,
    pool: LocalPool,
    logs: Path,
    observer: Observer,
) -> tuple[Counts, int]:
    """Run a stage's passes. Returns counts, and the number of tasks.

    Raises PipelineError where more than `max_failures` documents crash, and what `executors.run_tasks` raises.
    """
    started = time.monotonic()
    tasks = 0

    def run(step: CorpusStep) -> dict[Place, str]:
        nonlocal tasks
        if not tasks:
            observer.stage_started(stage, step.tasks)
        tasks += step.tasks
        return _execute(step, config, pool, logs / step.name, stage, observer, started)

    while True:
        places = crashes.read_places(build.workdir)
        if len(places) > config.max_failures:  # more were allowed when they were found
            crashes.leave_out(build.workdir, places := (), afresh=True)
        inputs = crashes.without(build.inputs, places, build.workdir)
        counts, first = Counts(), True
        for step in module.passes(replace(build, inputs=inputs, crashed=places)):
            if found := run(step):
                # What other tasks of a stage's first pass have done does not depend on these documents.
                _leave_out(build, places, found, config.max_failures, stage, afresh=not first)
                break
            first = False
            add_counts(counts, _collect(step))
        else:
            for leftover in build.workdir.rglob(".*.tmp"):  # of processes that died
                leftover.unlink()
            add_counts(counts, write_left_out(build.workdir, stage, build.inputs, places))
            return counts, tasks


def _leave_out(
    build: Build, places: tuple[Place, ...], found: dict[Place, str], allowed: int, stage: str, *, afresh: bool
) -> None:
    """Have the stage built without these documents, too. Raises PipelineError where they become too many."""
    how = found[min(found)]
    new = {crashes.original(place, places) if build.inputs else place for place in found}
    if len(places) + len(new) <= allowed:
        crashes.leave_out(build.workdir, {*places, *new}, afresh=afresh)
        return
    named = min(new)
    if build.inputs:
        row = next(crashes.left_out(build.inputs, (named,))).to_pylist()[0]
        name = f"document {row['id']} ({row['path']} at offset {row['offset']}, {row['url']})"
    elif named.reading:
        name = f"reading {named.file} on from behind offset {named.position}"
    else:
        name = f"document {document_id(named.file, named.position)} ({named.file} at offset {named.position})"
    raise PipelineError(
        f"stage `{stage}`: {name} fails in every attempt: {how}. Nothing was dropped for it, and finished tasks are"
        f" kept. `executor.max_failures` allows {allowed} such documents a stage; `--set executor.max_failures="
        f"{len(places) + len(new)}` drops it by rule `{crashes.RULE}` and goes on"
    )


def _collect(step: CorpusStep) -> Counts:
    counts = Counts()
    for rank in range(step.tasks):
        receipt = step.receipt(rank)
        if receipt is None:
            raise PipelineError(f"task {rank} of `{step.name}` left no receipt; run the recipe again")
        add_counts(counts, receipt)
    return counts


def _execute(
    step: CorpusStep,
    config: ExecutorConfig,
    pool: LocalPool,
    logs: Path,
    stage: str,
    observer: Observer,
    started: float,
) -> dict[Place, str]:
    """Run all tasks of `step` that have no receipt yet. Returns and raises what `executors.run_tasks` does."""
    ranks = unfinished(step)
    if not ranks:
        return {}
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(step, stage, observer, started, stop), daemon=True)
    watcher.start()
    try:
        return run_tasks(step, ranks, config, pool, logs)
    finally:
        stop.set()
        watcher.join()


def _watch(step: CorpusStep, stage: str, observer: Observer, started: float, stop: threading.Event) -> None:
    """Report the sum of all heartbeats until told to stop."""
    weights = [max(step.weight(rank), 1.0) for rank in range(step.tasks)]
    total = sum(weights)
    finished = False
    while not finished:
        finished = stop.wait(HEARTBEAT_SECONDS)
        documents, size, done = 0, 0, 0.0
        for rank, weight in enumerate(weights):
            beat = _read_beat(step.workdir / ".progress" / f"{step.name}-{rank:05d}")
            documents, size, done = documents + beat[0], size + beat[1], done + beat[2] * weight
        observer.stage_progress(stage, Progress(documents, size, done / total, time.monotonic() - started))


def _read_beat(path: Path) -> tuple[int, int, float]:
    """(documents, bytes, fraction) of one task; zeros where it has not begun or is writing just now."""
    try:
        documents, size, fraction = path.read_text(encoding="ascii").split()
    except (FileNotFoundError, ValueError):
        return 0, 0, 0.0
    return int(documents), int(size), float(fraction)
