"""Run a corpus's stages in order, skipping what is already built, publishing each stage as a whole.

For each stage: compute its fingerprint; if the published folder carries it, go on. Otherwise run the stage's
passes with datatrove's executor in a hidden folder named after the fingerprint (so that a killed run finds its
finished tasks, and a changed recipe never finds the old ones), check the ledger (in = kept + dropped, and in =
what the stage before kept), write stats.json, and rename the folder into place with its manifest.

    runs/<name>/corpus/<NN-stage>/{data,dropped}/*.parquet stats.json manifest.json
    runs/<name>/shards/...                                  (stage `tokenize`)
    runs/<name>/log.jsonl                                   (times, hosts, versions: everything that may differ)
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pipeline.config import CorpusConfig, StageName
from pipeline.errors import PipelineError
from pipeline.fingerprint import code_version, fingerprint, library_versions
from pipeline.local import LocalPool
from pipeline.passes import run_passes
from pipeline.progress import Observer, Silent
from pipeline.sources import input_hashes, list_inputs
from pipeline.stage import Build, StageModule
from pipeline.step import Counts
from pipeline.storage import (
    MANIFEST,
    changed_files,
    hash_file,
    publish_folder,
    read_json,
    read_manifest,
    swap_in,
    write_json,
)


@dataclass(frozen=True)
class Stage:
    """Where a stage's code is, the libraries whose versions decide its output, and the settings that decide nothing but
    its manifest: where these alone change, the manifest is written anew and the files stay.
    """

    module: str
    libraries: tuple[str, ...]
    manifest_only: tuple[str, ...] = ()


STAGES: dict[StageName, Stage] = {
    "extract": Stage("pipeline.extract.step", ("resiliparse", "fastwarc", "warcio", "trafilatura", "pyarrow")),
    "language": Stage("pipeline.language.step", ("numba", "pyarrow")),
    "dedup": Stage("pipeline.dedup.step", ("datasketch", "pyarrow")),
    "quality": Stage("pipeline.quality.step", ("numba", "fasttext-wheel", "pyarrow")),
    "tokenize": Stage("pipeline.tokenize.step", ("tokenizers", "zstandard", "pyarrow"), ("weights", "phases")),
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
    with locked(run), LocalPool(workers) as pool:
        begin()
        _remove_stale_folders(config, run)
        inputs = list_inputs(config.sources, base)
        upstream: dict[str, Any] = {"inputs": input_hashes(inputs, run / "inputs.json")}
        forced = False
        for number, name in enumerate(config.stages):
            forced = forced or name == first
            before = stage_folder(config, run, config.stages[number - 1]) if number else None
            upstream = _build_stage(
                config, run, base, name, before, upstream, pool, forced=forced, observer=observer or Silent()
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


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run folder for this process. Raises PipelineError where another one works in it."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise PipelineError(
                f"{run}: another process ({lock.read().strip() or 'unknown'}) is working in this run folder;"
                " wait for it, or give this run another `name`"
            ) from error
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {platform.node()}")
        lock.flush()
        yield


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
