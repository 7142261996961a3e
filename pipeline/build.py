"""Build a corpus: run the recipe's stages in order, skip those that are up to date, publish each atomically.

For each stage: compute its fingerprint; if the published folder has it, the stage is done. Otherwise run its passes in
a hidden folder named after the fingerprint (so a killed run finds its finished tasks, and a changed recipe never uses
the old ones), check the ledger (in = kept + dropped, in = kept by the stage before), write stats.json, and publish the
folder with its manifest by renaming it.

    runs/<name>/corpus/<NN-stage>/{data,dropped}/*.parquet stats.json manifest.json
    runs/<name>/shards/...                                  (stage `tokenize`)
    runs/<name>/log.jsonl                                   (times, hosts, versions: everything that may differ)

Texts are written by the first stage, and again in full by the last one before `tokenize` or the one that the command
ends with (a stage that is built so is `complete`); stages between leave out those that they did not change. Where the
next stages look at one document at a time, their tasks run inside those that write it (`pipeline.task`), in a hidden
folder `.<NN-stage>.<fingerprint>-ahead`, which becomes their building folder when their turn comes.

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
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from common.errors import PipelineError
from common.files import (
    MANIFEST,
    changed_files,
    hash_file,
    locked,
    missing_files,
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
from pipeline.depot import BEAT, Depot, scratch_folder
from pipeline.documents import Counts, add_counts, document_id, text_source
from pipeline.effort import Effort
from pipeline.executors import Executor, LocalPool
from pipeline.fingerprint import code_version, fingerprint, library_versions
from pipeline.forgotten import read_forgotten
from pipeline.read import input_hashes, list_inputs
from pipeline.reuse import find_earlier
from pipeline.stage import Build, Stage, load_stage
from pipeline.task import HEARTBEAT_SECONDS, DocumentPass, Pass

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
    depot: Depot | None = None,
) -> None:
    """Bring the run folder's corpus up to date with the recipe.

    base: the recipe's folder, against which relative paths are meant. first: rebuild from this stage on even
    if nothing changed. last: stop after this stage. begin: called once the run folder is locked, before anything is
    written into it. depot: the run folder in object storage that `run`, its controller's folder, stands for. Raises
    PipelineError.
    """
    names = config.stage_names
    for name in (first, last):
        if name is not None and name not in names:
            raise PipelineError(f"stage `{name}` is not among this recipe's stages: {', '.join(names)}")
    folders = _stage_folders(config, run)
    workers = config.executor.workers or len(os.sched_getaffinity(0))
    advice = "give this run another `name`"
    with locked(run, advice), depot.held() if depot else nullcontext(), LocalPool(workers) as pool:
        if depot:
            depot.begin(folders)
        begin()
        _remove_stale_folders(run, folders)
        unread: list[str] = []
        inputs = list_inputs(config.sources, base, unread)
        if unread and observer:
            named = ", ".join(sorted(unread)[:5]) + (", ..." if len(unread) > 5 else "")
            observer.warning(f"{len(unread)} files of other kinds than their source's type are not read: {named}")
        upstream: dict[str, Any] = {"inputs": input_hashes(inputs, run / "inputs.json")}
        wanted = names[: names.index(last) + 1] if last else names
        texts_end = [name for name in wanted if name != "tokenize"][-1:]
        stages: list[StageRun] = []
        forgotten, before, plan = read_forgotten(run), None, fingerprint(upstream)
        lineage = plan
        executor, checked = Executor(config.executor, pool, depot), set[Path]()
        for chosen, name, published in zip(config.stages, wanted, folders, strict=False):
            stage, settings = load_stage(chosen), config.settings(name)
            decides = _decides(stage, settings, base, config)
            lineage = fingerprint(decides | {"after": lineage})
            if before is None and forgotten:
                decides["forgotten"] = forgotten.dump()
            plan = fingerprint(decides | {"after": plan})
            marks = {"plan": plan, "lineage": lineage} | (upstream if before is None else {})
            afresh = depot is not None or (first is not None and names.index(name) >= names.index(first))
            build = Build(
                settings=settings,
                sources=tuple(config.sources),
                seed=config.seed,
                base=base,
                inputs=(),  # this, `workdir` and `fingerprint` are known when the stage's turn comes
                workdir=published,
                fingerprint="",
                published=published,
                forgotten=forgotten,
                earlier=None if afresh else find_earlier(published, plan, lineage),
            )
            complete = before is None or name in (*texts_end, "tokenize")
            stages.append(
                StageRun(stage, build, before, executor, run, observer or Observer(), decides, marks, complete, checked)
            )
            if len(stages) > 1:
                stages[-2].following.append(stages[-1])
            before = published
            lineage = plan if stage.mixes(settings) else lineage
        forced = False
        for stage_run in stages:
            forced = forced or stage_run.stage.name == first
            upstream = stage_run.bring_up_to_date(upstream, forced=forced)
        if depot and config.executor.type == "local":
            shutil.rmtree(scratch_folder() / depot.run, ignore_errors=True)


def _decides(stage: Stage[Any], settings: Any, base: Path, config: CorpusConfig) -> dict[str, Any]:
    """What decides a stage's output, but for the stage before it."""
    return {
        "stage": stage.name,
        "settings": settings.model_dump(mode="json") | stage.decided_by(config),
        "files": [hash_file(path) for path in stage.files(settings, base)],
        "code": code_version(stage.module),
        "libraries": library_versions(stage.libraries),
    }


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
    """One stage of a run.

    before: the published stage that it reads; run: the run folder; decides: what decides its output, but for the stage
    before it; marks: fields of its manifest, `plan` (fingerprint of what decides its output and that of all before it)
    and `lineage` (`pipeline.reuse`) among them; complete: whether it writes all texts; checked: published folders whose
    files were found to be those of their manifests; following: the next stage, if one is wanted.
    """

    stage: Stage[Any]
    build: Build[Any]
    before: Path | None
    executor: Executor
    run: Path
    observer: Observer
    decides: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, Any] = field(default_factory=dict)
    complete: bool = True
    checked: set[Path] = field(default_factory=set)
    following: list[StageRun] = field(default_factory=list)

    def bring_up_to_date(self, upstream: dict[str, Any], *, forced: bool) -> dict[str, Any]:
        """Build the stage unless its published folder is up to date. Returns what the next stage depends on."""
        stage, published = self.stage, self.build.published
        assert published is not None
        decides = self.decides | {"upstream": upstream}
        mark = fingerprint(decides)
        settings = decides["settings"] | dict.fromkeys(stage.manifest_only)
        content = fingerprint(decides | {"settings": settings})
        marks = {"stage": stage.name, "fingerprint": mark, "content": content, "complete": self.complete} | self.marks
        workdir = self._folder(content)
        if read_manifest(workdir):  # finished, but the last rename never happened
            swap_in(workdir, published)
        manifest = read_manifest(published)
        build = replace(self.build, inputs=_tables(self.before), workdir=workdir, fingerprint=mark)
        if forced or not manifest or not self._is_current(manifest, content):
            self._adopt(workdir)
            manifest = replace(self, build=replace(build, texts=self._texts(build.inputs)))._rebuild(published, marks)
        else:
            if manifest["fingerprint"] != mark:  # the files are up to date, their description is not
                fields = stage.manifest(replace(build, workdir=published)) | marks | {"complete": manifest["complete"]}
                write_json(published / MANIFEST, fields | {"files": manifest["files"]})
                if self.depot:
                    self.depot.put([published / MANIFEST])
            self._discard(self._folder(self.marks["plan"], "-ahead"))
            self.observer.stage_skipped(stage.name, read_json(published / "stats.json"))
        stats = read_json(published / "stats.json")
        self._check_counts(stats)
        # Not the hashes of its tables: whether they are complete changes nothing for the next stage.
        left_out = manifest["files"].get("dropped/crashed.parquet", {}).get("xxh3")
        return {"fingerprint": mark, "counts": stats, "left_out": left_out}

    @property
    def depot(self) -> Depot | None:
        """The run folder, where it is in object storage."""
        return self.executor.depot

    def _discard(self, folder: Path) -> None:
        """Remove a hidden folder."""
        if self.depot:
            self.depot.forget(folder)
        shutil.rmtree(folder, ignore_errors=True)

    def _is_current(self, manifest: dict[str, Any], content: str) -> bool:
        """Whether the published stage, with this manifest, is the one wanted."""
        assert self.build.published is not None
        has_texts = bool(manifest.get("complete")) or not self.complete
        return manifest.get("content") == content and has_texts and not missing_files(self.build.published, manifest)

    def _folder(self, mark: str, ending: str = "") -> Path:
        """Hidden folder in which the stage is built."""
        assert self.build.published is not None
        name = fingerprint({"mark": mark, "complete": self.complete})[:16]
        return building_folder(self.build.published, name + ending)

    def _texts(self, inputs: tuple[Path, ...]) -> tuple[Path, ...]:
        """For each input the file that has its texts, where this stage shall leave them out.

        Raises PipelineError where a file that the stage reads is damaged.
        """
        self._check_files({self.before} if self.before else set())
        sources = tuple(text_source(path) or path for path in inputs)
        self._check_files({path.parents[1] for path in sources})
        return () if self.complete else sources

    def _check_files(self, folders: set[Path]) -> None:
        """Compare published folders with their manifests, each once in a run."""
        for folder in () if self.depot else folders - self.checked:  # a task checks what it brings from there
            if damaged := changed_files(folder, _manifest(folder)):
                raise PipelineError(
                    f"{folder / damaged[0]}: the file is missing or differs from its manifest;"
                    f" delete {folder} to rebuild it"
                )
            self.checked.add(folder)

    def _adopt(self, workdir: Path) -> None:
        """Take over the tasks that ran inside those of the stage before, as far as its files are what they wrote."""
        ahead = self._folder(self.marks["plan"], "-ahead")
        if self.depot:
            self.depot.sync(workdir)
            self.depot.sync(ahead)
        if self.before is None or workdir.exists() or not ahead.is_dir():
            return
        files = _manifest(self.before)["files"]
        for path in ahead.glob(".receipts/*.json"):
            read = read_json(path)["input"]
            if files.get(read["name"], {}).get("xxh3") != read["xxh3"]:
                path.unlink()
                if self.depot:
                    self.depot.remove(path)
        ahead.rename(workdir)
        if self.depot:
            self.depot.move(ahead, workdir)

    def _ahead(self, tasks: int, schema: pa.Schema, texts: tuple[Path, ...]) -> tuple[DocumentPass, ...]:
        """The passes of the next stages that can run inside this one's tasks, whose documents have columns `schema`."""
        assert self.build.published is not None
        files = tuple(self.build.published / f"data/{rank:05d}.parquet" for rank in range(tasks))
        for after in self.following:
            build = replace(
                after.build,
                inputs=files,
                texts=() if after.complete else texts or files,
                schema=schema,
                workdir=after._folder(after.marks["plan"], "-ahead"),
                published=None,  # an earlier result of other documents
            )
            pass_ = after.stage.single(build)
            if pass_:
                return (pass_, *after._ahead(tasks, pass_.output_schema(schema), texts or files))
        return ()

    def _rebuild(self, published: Path, marks: dict[str, Any]) -> dict[str, Any]:
        """Run the stage's passes, check the ledger and publish. Returns the manifest."""
        started, name, workdir = time.monotonic(), self.stage.name, self.build.workdir
        siblings = self.depot.children(published.parent) if self.depot else published.parent.glob(".*")
        for leftover in siblings:
            if leftover.name.startswith(f".{published.name}.") and leftover != workdir:
                self._discard(leftover)
        workdir.mkdir(parents=True, exist_ok=True)
        counts, effort = self.run_passes()
        stats = {"stage": name, **_NO_COUNTS, "dropped": {}, "sources": {}, **counts}
        self._check_ledger(stats)
        write_json(workdir / "stats.json", stats)
        manifest = self.stage.manifest(self.build) | marks
        if self.depot:
            self.depot.publish(workdir, published, manifest)
        else:
            for scratch in workdir.glob(".*"):
                shutil.rmtree(scratch)
            publish_folder(workdir, published, manifest)
        seconds = time.monotonic() - started
        entry = {"event": "stage", "stage": name, "seconds": round(seconds, 3), **effort.fields()}
        with (self.run / "log.jsonl").open("a", encoding="utf-8") as log:
            machine = {"time": time.time(), "host": platform.node()}
            log.write(json.dumps(machine | entry | {"workers": self.executor.pool.workers}) + "\n")
        if self.depot:
            self.depot.put([self.run / "log.jsonl"])
        self.checked.add(published)
        self.observer.stage_finished(name, stats, seconds)
        return _manifest(published)

    def run_passes(self) -> tuple[Counts, Effort]:
        """Run the stage's passes. Returns the sum of their counts, and what they took.

        Raises PipelineError where more than `max_failures` documents crash, and what `Executor.run` raises.
        """
        build, started, effort = self.build, time.monotonic(), Effort(time.time())
        while True:
            positions = crashes.read_positions(build.workdir)
            if len(positions) > self.executor.config.max_failures:  # an earlier run was allowed more
                self._set_positions(positions := (), afresh=True)
            self._bring(positions)
            inputs = crashes.without(build.inputs, positions, build.workdir)
            if self.depot:
                self.depot.put({*inputs} - {*build.inputs})
            counts, is_first = Counts(), True
            for pass_ in self.stage.passes(replace(build, inputs=inputs, crashed=positions)):
                if not effort.tasks:
                    self.observer.stage_started(self.stage.name, pass_.tasks)
                effort.tasks += pass_.tasks
                if self.following and (schema := pass_.kept_schema()) is not None:
                    pass_.ahead = self._ahead(pass_.tasks, schema, build.texts)
                if crashed := self._run_pass(pass_, started):
                    # Other tasks of a stage's first pass do not depend on these documents and are kept.
                    self._leave_out(positions, crashed, afresh=not is_first)
                    break
                is_first = False
                add_counts(counts, pass_.total("counts"))
                for receipt in pass_.receipts():
                    effort.add(receipt)
            else:
                for leftover in build.workdir.rglob(".*.tmp"):  # of processes that died
                    leftover.unlink()
                add_counts(counts, crashes.write_left_out(build.workdir, self.stage.name, build.inputs, positions))
                return counts, effort

    def _run_pass(self, pass_: Pass, started: float) -> dict[Position, str]:
        """Run all tasks that have no receipt yet, reporting progress. Returns and raises what `Executor.run` does."""
        if self.depot:
            self.depot.sync(pass_.workdir)
        ranks = pass_.unfinished(verify=self.depot is None)
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
            finished = stop.wait(BEAT if self.depot else HEARTBEAT_SECONDS)
            if self.depot:
                with suppress(OSError):
                    self.depot.sync_progress(pass_.workdir)
            documents, size, done = 0, 0, 0.0
            for rank, weight in enumerate(weights):
                beat = _read_progress(pass_.progress_path(rank))
                documents, size, done = documents + beat[0], size + beat[1], done + beat[2] * weight
            progress = Progress(documents, size, done / total, time.monotonic() - started)
            self.observer.stage_progress(self.stage.name, progress)

    def _bring(self, positions: Iterable[Position]) -> None:
        """Have the input files with these documents here, and those with their texts."""
        if self.depot:
            names = {position.file for position in positions}
            paths = [path for path in self.build.inputs if path.name in names]
            self.depot.fill([*paths, *filter(None, map(text_source, paths))])

    def _set_positions(self, positions: Iterable[Position], *, afresh: bool) -> None:
        """What `crashes.leave_out` does."""
        workdir = self.build.workdir
        crashes.leave_out(workdir, positions, afresh=afresh)
        if self.depot:
            self.depot.remove(*self.depot.names(workdir) if afresh else ())
            self.depot.put([workdir / ".crashed/positions.json"])

    def _leave_out(self, positions: tuple[Position, ...], crashed: dict[Position, str], *, afresh: bool) -> None:
        """Leave these documents out of the stage, too. Raises PipelineError where they become too many."""
        build, allowed = self.build, self.executor.config.max_failures
        reason = crashed[min(crashed)]
        new = {crashes.original(position, positions) if build.inputs else position for position in crashed}
        named = min(new)
        if len(positions) + len(new) <= allowed:
            self._set_positions({*positions, *new}, afresh=afresh)
            return
        if build.inputs:
            self._bring((named,))
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


def _read_progress(path: Path) -> tuple[int, int, float]:
    """(documents, bytes, fraction) of one task; zeros where it has not begun or is writing just now."""
    try:
        documents, size, fraction = path.read_text(encoding="ascii").split()
    except (FileNotFoundError, ValueError):
        return 0, 0, 0.0
    return int(documents), int(size), float(fraction)
