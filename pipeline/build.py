"""Build a corpus: run the recipe's stages in order, skip those that are up to date, publish each atomically.

For each stage: compute its fingerprint; if the published folder has it, the stage is done. Otherwise run its passes in
a hidden folder named after the fingerprint (so a killed run finds its finished tasks, and a changed recipe never uses
the old ones), check the ledger (in = kept + dropped, in = kept by the stage before), write stats.json, and publish the
folder with its manifest by renaming it.

    runs/<name>/corpus/<NN-stage>/{data,dropped}/*.parquet stats.json manifest.json
    runs/<name>/shards/...                                  (stage `tokenize`)
    runs/<name>/log.jsonl                                   (times, hosts, versions: everything that may differ)

While a pass runs, a thread adds up the progress files of its tasks (`pipeline.task.Task`) twice a second, weighted by
the size of each task's input; that works the same for processes and machines. Where a document crashes its process on
every attempt, the stage is tried again without it, for at most `max_failures` documents (`pipeline.crashes`).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from common.runfolder import building_folder, stage_folder
from pipeline import crashes
from pipeline.config import CorpusConfig
from pipeline.crashes import Position
from pipeline.documents import Counts, add_counts, document_id
from pipeline.executors import Executor, LocalPool
from pipeline.fingerprint import code_version, fingerprint, library_versions
from pipeline.read import input_hashes, list_inputs
from pipeline.stage import Build, Stage, load_stage
from pipeline.task import HEARTBEAT_SECONDS, Pass

_NO_COUNTS = {"documents_in": 0, "documents_kept": 0, "documents_dropped": 0, "bytes_in": 0, "bytes_kept": 0}


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
    names = config.stage_names
    for name in (first, last):
        if name is not None and name not in names:
            raise PipelineError(f"stage `{name}` is not among this recipe's stages: {', '.join(names)}")
    folders = _stage_folders(config, run)
    workers = config.executor.workers or len(os.sched_getaffinity(0))
    with locked(run, "give this run another `name`"), LocalPool(workers) as pool:
        begin()
        _remove_stale_folders(run, folders)
        unread: list[str] = []
        inputs = list_inputs(config.sources, base, unread)
        if unread and observer:
            named = ", ".join(sorted(unread)[:5]) + (", ..." if len(unread) > 5 else "")
            observer.warning(f"{len(unread)} files of other kinds than their source's type are not read: {named}")
        upstream: dict[str, Any] = {"inputs": input_hashes(inputs, run / "inputs.json")}
        before, forced = None, False
        executor = Executor(config.executor, pool)
        for chosen, name, published in zip(config.stages, names, folders, strict=True):
            forced = forced or name == first
            stage = load_stage(chosen)
            build = Build(
                settings=config.settings(name),
                sources=tuple(config.sources),
                seed=config.seed,
                base=base,
                inputs=_tables(before),
                workdir=published,
                fingerprint="",  # until `bring_up_to_date` knows it
                published=published,
            )
            stage_run = StageRun(stage, build, before, executor, run, observer or Observer())
            upstream, before = stage_run.bring_up_to_date(config, upstream, forced=forced), published
            if name == last:
                return


def stage_stats(config: CorpusConfig, run: Path) -> dict[str, dict[str, Any]]:
    """stats.json of every published stage, in the recipe's order."""
    paths = [folder / "stats.json" for folder in _stage_folders(config, run)]
    return {name: read_json(path) for name, path in zip(config.stage_names, paths, strict=True) if path.is_file()}


def _stage_folders(config: CorpusConfig, run: Path) -> list[Path]:
    return [stage_folder(run, number, name) for number, name in enumerate(config.stage_names, 1)]


def _tables(stage: Path | None) -> tuple[Path, ...]:
    return tuple(sorted((stage / "data").glob("*.parquet"))) if stage else ()


def _remove_stale_folders(run: Path, wanted: list[Path]) -> None:
    """Delete stage folders of an earlier order of stages: a run folder holds the stages of its recipe and no others."""
    for folder in (run / "corpus").glob("[0-9][0-9]-*"):
        if folder not in wanted:
            shutil.rmtree(folder)


@dataclass(frozen=True)
class StageRun:
    """One stage of a run. before: the published stage that it reads; run: the run folder."""

    stage: Stage[Any]
    build: Build[Any]
    before: Path | None
    executor: Executor
    run: Path
    observer: Observer

    def bring_up_to_date(self, config: CorpusConfig, upstream: dict[str, Any], *, forced: bool) -> dict[str, Any]:
        """Build the stage unless its published folder is up to date. Returns what the next stage depends on."""
        stage, published = self.stage, self.build.published
        assert published is not None
        settings = self.build.settings.model_dump(mode="json") | stage.decided_by(config)
        decides: dict[str, Any] = {
            "stage": stage.name,
            "settings": settings,
            "files": [hash_file(path) for path in stage.files(self.build.settings, self.build.base)],
            "code": code_version(stage.module),
            "libraries": library_versions(stage.libraries),
            "upstream": upstream,
        }
        mark = fingerprint(decides)
        content = fingerprint(decides | {"settings": settings | dict.fromkeys(stage.manifest_only)})
        marks = {"stage": stage.name, "fingerprint": mark, "content": content}
        workdir = building_folder(published, content[:16])
        if read_manifest(workdir):  # finished, but the last rename never happened
            swap_in(workdir, published)
        manifest = read_manifest(published)
        build = replace(self.build, workdir=workdir, fingerprint=mark)
        if forced or not manifest or manifest.get("content") != content or not _has_its_files(published, manifest):
            manifest = replace(self, build=build)._rebuild(published, marks)
        else:
            if manifest["fingerprint"] != mark:  # the files are up to date, their description is not
                fields = stage.manifest(replace(build, workdir=published)) | marks
                write_json(published / MANIFEST, fields | {"files": manifest["files"]})
            self.observer.stage_skipped(stage.name, read_json(published / "stats.json"))
        self._check_counts(read_json(published / "stats.json"))
        return {"fingerprint": mark, "files": {key: entry["xxh3"] for key, entry in manifest["files"].items()}}

    def _rebuild(self, published: Path, marks: dict[str, str]) -> dict[str, Any]:
        """Run the stage's passes, check the ledger and publish. Returns the manifest."""
        started, name, workdir = time.monotonic(), self.stage.name, self.build.workdir
        for leftover in published.parent.glob(f".{published.name}.*"):
            if leftover != workdir:
                shutil.rmtree(leftover)
        if self.before and (damaged := changed_files(self.before, _manifest(self.before))):
            raise PipelineError(
                f"{self.before / damaged[0]}: the file is missing or differs from its manifest;"
                f" delete {self.before} to rebuild it"
            )
        workdir.mkdir(parents=True, exist_ok=True)
        counts, tasks = self.run_passes()
        stats = {"stage": name, **_NO_COUNTS, "dropped": {}, "sources": {}, **counts}
        self._check_ledger(stats)
        write_json(workdir / "stats.json", stats)
        for scratch in workdir.glob(".*"):
            shutil.rmtree(scratch)
        publish_folder(workdir, published, self.stage.manifest(self.build) | marks)
        seconds = time.monotonic() - started
        entry = {"event": "stage", "stage": name, "seconds": round(seconds, 3), "tasks": tasks}
        with (self.run / "log.jsonl").open("a", encoding="utf-8") as log:
            machine = {"time": time.time(), "host": platform.node()}
            log.write(json.dumps(machine | entry | {"workers": self.executor.pool.workers}) + "\n")
        self.observer.stage_finished(name, stats, seconds)
        return _manifest(published)

    def run_passes(self) -> tuple[Counts, int]:
        """Run the stage's passes. Returns the sum of their counts, and the number of tasks.

        Raises PipelineError where more than `max_failures` documents crash, and what `Executor.run` raises.
        """
        build, started, tasks = self.build, time.monotonic(), 0
        while True:
            positions = crashes.read_positions(build.workdir)
            if len(positions) > self.executor.config.max_failures:  # an earlier run was allowed more
                crashes.leave_out(build.workdir, positions := (), afresh=True)
            inputs = crashes.without(build.inputs, positions, build.workdir)
            counts, is_first = Counts(), True
            for pass_ in self.stage.passes(replace(build, inputs=inputs, crashed=positions)):
                if not tasks:
                    self.observer.stage_started(self.stage.name, pass_.tasks)
                tasks += pass_.tasks
                if crashed := self._run_pass(pass_, started):
                    # Other tasks of a stage's first pass do not depend on these documents and are kept.
                    self._leave_out(positions, crashed, afresh=not is_first)
                    break
                is_first = False
                add_counts(counts, pass_.total("counts"))
            else:
                for leftover in build.workdir.rglob(".*.tmp"):  # of processes that died
                    leftover.unlink()
                add_counts(counts, crashes.write_left_out(build.workdir, self.stage.name, build.inputs, positions))
                return counts, tasks

    def _run_pass(self, pass_: Pass, started: float) -> dict[Position, str]:
        """Run all tasks that have no receipt yet, reporting progress. Returns and raises what `Executor.run` does."""
        ranks = pass_.unfinished()
        if not ranks:
            return {}
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(pass_, started, stop), daemon=True)
        watcher.start()
        try:
            folder = self.build.published or self.build.workdir
            return self.executor.run(pass_, ranks, self.run / "logs" / folder.name / pass_.name)
        finally:
            stop.set()
            watcher.join()

    def _watch(self, pass_: Pass, started: float, stop: threading.Event) -> None:
        """Report the summed progress of all tasks until told to stop."""
        weights = [max(pass_.weight(rank), 1.0) for rank in range(pass_.tasks)]
        total = sum(weights)
        finished = False
        while not finished:
            finished = stop.wait(HEARTBEAT_SECONDS)
            documents, size, done = 0, 0, 0.0
            for rank, weight in enumerate(weights):
                beat = _read_progress(pass_.progress_path(rank))
                documents, size, done = documents + beat[0], size + beat[1], done + beat[2] * weight
            progress = Progress(documents, size, done / total, time.monotonic() - started)
            self.observer.stage_progress(self.stage.name, progress)

    def _leave_out(self, positions: tuple[Position, ...], crashed: dict[Position, str], *, afresh: bool) -> None:
        """Leave these documents out of the stage, too. Raises PipelineError where they become too many."""
        build, allowed = self.build, self.executor.config.max_failures
        reason = crashed[min(crashed)]
        new = {crashes.original(position, positions) if build.inputs else position for position in crashed}
        if len(positions) + len(new) <= allowed:
            crashes.leave_out(build.workdir, {*positions, *new}, afresh=afresh)
            return
        named = min(new)
        if build.inputs:
            row = next(crashes.left_out(build.inputs, (named,))).to_pylist()[0]
            what = f"document {row['id']} ({row['path']} at offset {row['offset']}, {row['url']})"
        elif named.reading:
            what = f"reading {named.file} past offset {named.offset}"
        else:
            what = f"document {document_id(named.file, named.offset)} ({named.file} at offset {named.offset})"
        raise PipelineError(
            f"stage `{self.stage.name}`: {what} failed on every attempt: {reason}. Nothing was dropped and finished"
            f" tasks are kept. To drop it by rule `{crashes.RULE}` and continue, rerun with `--set"
            f" executor.max_failures={len(positions) + len(new)}` (now: {allowed} per stage)"
        )

    def _check_ledger(self, stats: Counts) -> None:
        """Raise PipelineError unless in = kept + dropped, and in = kept by the stage before."""
        kept, dropped, read = stats["documents_kept"], stats["documents_dropped"], stats["documents_in"]
        expected = read_json(self.before / "stats.json")["documents_kept"] if self.before else read
        if read != kept + dropped or read != expected:
            raise PipelineError(
                f"stage `{self.stage.name}` does not add up: {expected} documents came in, {read} were read,"
                f" {kept} kept and {dropped} dropped; nothing was published"
            )

    def _check_counts(self, stats: Counts) -> None:
        """Raise PipelineError where the stage left nothing, or its own check fails: silence would hide a mistake."""
        self.stage.check(self.build, stats)
        if stats["documents_kept"] == 0:
            rule, count = max(stats["dropped"].items(), key=lambda item: item[1], default=("nothing", 0))
            raise PipelineError(
                f"stage `{self.stage.name}` dropped all {stats['documents_in']} documents, most of them by rule"
                f" `{rule}` ({count}). See `pretrain inspect RUN --stage {self.stage.name} --dropped`, then loosen"
                " that rule"
            )


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest is None:
        raise PipelineError(f"{folder}: not a finished stage (no manifest.json); run the recipe again")
    return manifest


def _has_its_files(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether every listed file exists with its size; contents are hashed when a stage reads them."""
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry["bytes"]
        for name, entry in manifest["files"].items()
    )


def _read_progress(path: Path) -> tuple[int, int, float]:
    """(documents, bytes, fraction) of one task; zeros where it has not begun or is writing just now."""
    try:
        documents, size, fraction = path.read_text(encoding="ascii").split()
    except (FileNotFoundError, ValueError):
        return 0, 0, 0.0
    return int(documents), int(size), float(fraction)
