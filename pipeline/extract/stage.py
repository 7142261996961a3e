"""Stage `extract`: read the sources and turn each page into text.

Dropped, each with its rule: `unreadable` (bytes that are no record), `http_status`, `media_type`, `too_large`,
`blocked_url`, `blocked_url_word`, `url_not_allowed`, `domain_limit`, `extractor_timeout`, `extractor_crash` (both with
`isolate_seconds` alone), `empty_text`, `crashed` (`pipeline.crashes`), `forgotten` (`pipeline.forgotten`). Costs what
the extractor costs; memory is one batch of documents. A limit per domain takes a pass of its own that reads the
addresses first, so that the same documents are kept however tasks are run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from common.errors import PipelineError
from common.files import read_json, write_json
from pipeline import forgotten
from pipeline.config import CorpusConfig, ExtractConfig
from pipeline.crashes import DETAIL, DETAIL_READING, RULE, Position, Record
from pipeline.documents import BASE_SCHEMA, BATCH_BYTES, BATCH_ROWS, Counts, document_id, storable, text_bytes
from pipeline.extract.decoding import decode_page, tidy
from pipeline.extract.isolated import IsolatedExtractor, PageRefusedError
from pipeline.extract.markup import html_of_xhtml
from pipeline.extract.text import extract_decoded
from pipeline.extract.urls import domain_of, list_files, read_rules
from pipeline.kernels.html.fast import UNSURE, WEIGHTS, Form
from pipeline.read import Input, RawDocument, list_inputs, plan_tasks, read_documents
from pipeline.reuse import known
from pipeline.stage import Build, Stage
from pipeline.task import Pass, Task, TaskReport, Verdict, VerdictWriter, follow

MAX_NAMED = 1000  # files in stats.json that no reader takes
_WAYS = "extracted_by"
_TEXT = ("text", "charset", "charset_from", "page_kind", "extract_confidence")
_READY = {"text/plain", "text/markdown"}
_URL_LISTS = ("blocklist", "allowlist", "url_words")
# Of a source: where its files are decides nothing (their keys and contents are hashed), nor does the mixture.
_NOT_DECISIVE = {"weight", "repeat", "license", "paths", "fetch"}


def passes(build: Build[ExtractConfig]) -> Iterator[Pass]:
    """Extraction, a task for each `task_bytes` of input; before it the survey where domains are limited."""
    unread: list[str] = []
    tasks = plan_tasks(list_inputs(list(build.sources), build.base, unread), build.settings.task_bytes)
    if build.settings.domain_limit is not None:
        yield SurveyPass(build, tasks)
    yield ExtractPass(build, tasks, sorted(unread)[:MAX_NAMED])


def files(settings: ExtractConfig, base: Path) -> list[Path]:
    """The URL lists, and the fast extractor's weights."""
    lists = [name for field in _URL_LISTS for name in getattr(settings, field)]
    return [*list_files(lists, base), *([WEIGHTS] if settings.extractor == "fast" else [])]


def form_of(settings: ExtractConfig) -> Form:
    """What the settings ask the extractor to write."""
    markdown, comments = settings.format == "markdown", settings.comments == "keep"
    return Form(markdown, "links" in settings.keep, "images" in settings.keep, comments, settings.authors)


def decided_by(config: CorpusConfig) -> dict[str, Any]:
    """The sources; of the URL lists only how many there are, since their contents are hashed."""
    lists = {name: len(getattr(config.extract, name)) for name in _URL_LISTS}
    return lists | {"sources": [source.model_dump(exclude=_NOT_DECISIVE) for source in config.sources]}


def check(build: Build[ExtractConfig], counts: Counts) -> None:
    """Raise PipelineError where a source gave nothing."""
    for source in build.sources:
        if not counts["sources"].get(source.name, {}).get("in"):
            raise PipelineError(
                f"source `{source.name}` gave no documents; its files exist but hold no record of type"
                f" `{source.type}`: {', '.join(source.paths)}"
            )


class SourcePass(Pass):
    """A pass over the input files, with the rules that need no text."""

    def __init__(self, name: str, build: Build[ExtractConfig], inputs: list[list[Input]]) -> None:
        super().__init__(name, build.workdir, len(inputs))
        self.inputs = inputs
        self.settings = settings = build.settings
        self.crashed, self.forgotten = frozenset(build.crashed), build.forgotten
        self.urls = read_rules(*(list_files(getattr(settings, name), build.base) for name in _URL_LISTS))

    def weight(self, rank: int) -> float:
        return float(sum(item.size for item in self.inputs[rank]))

    def read(self, item: Input, task: Task, skipped: Counter[str] | None = None) -> Iterator[RawDocument]:
        """The documents of an input file; an archive's records that are no page are added to `skipped`."""

        def watch(item: Input, documents: Iterator[RawDocument]) -> Iterator[RawDocument]:
            return _watched(item.key, documents, self.crashed, task.record)

        return read_documents(item, self.settings.max_bytes, skipped=skipped, watch=watch)

    def refuse(self, item: Input, raw: RawDocument) -> Verdict | None:
        """Why a document is not even decoded."""
        settings = self.settings
        if self.forgotten and self.forgotten.covers(document_id(item.key, raw.offset), raw.url):
            return Verdict(forgotten.RULE)
        if raw.crashed is not None:
            return Verdict(RULE, detail=raw.crashed)
        if raw.fault is not None:
            return Verdict("unreadable", detail=raw.fault)
        if raw.status not in settings.statuses:
            return Verdict("http_status", float(raw.status))
        if raw.text is None and raw.media_type not in {*settings.media_types, "text/markdown"}:
            return Verdict("media_type", detail=raw.media_type or "none declared")
        if raw.truncated:
            return Verdict("too_large", float(len(raw.body)), float(settings.max_bytes))
        if refusal := self.urls.refusal(raw.url):
            return Verdict(refusal[0], detail=refusal[1])
        return None

    def survey_path(self, rank: int) -> Path:
        """File with the number of documents of each domain in a task."""
        return self.workdir / ".survey" / f"{rank:05d}.json"


def _watched(
    key: str, documents: Iterator[RawDocument], crashed: frozenset[Position], record: Record | None
) -> Iterator[RawDocument]:
    """The documents of a file, without the content of those that crash; each is recorded in a search for one."""

    def at(offset: int, *, reading: bool = False) -> bool:
        if record:
            record.write(key, offset, reading=reading)
        return Position(key, offset, reading) in crashed

    offset = -1
    while not at(offset, reading=True):
        document = next(documents, None)
        if document is None:
            break
        offset = document.offset
        yield replace(document, body=b"", text=None, crashed=DETAIL) if at(offset) else document
    else:
        yield RawDocument(offset=-1, crashed=f"{DETAIL_READING} (offset {offset})")
    if record:
        record.clear()


class SurveyPass(SourcePass):
    """Counts the documents of each domain, task by task."""

    def __init__(self, build: Build[ExtractConfig], inputs: list[list[Input]]) -> None:
        super().__init__("survey", build, inputs)

    def process(self, rank: int, task: Task) -> TaskReport:
        domains: Counter[str] = Counter()
        for item in self.inputs[rank]:
            domains.update(domain_of(raw.url) for raw in self.read(item, task) if self.refuse(item, raw) is None)
        write_json(self.survey_path(rank), dict(sorted(domains.items())))
        return TaskReport(files=[self.survey_path(rank)])


class ExtractPass(SourcePass):
    """Reads the input files of a task, decodes and extracts their documents."""

    def __init__(self, build: Build[ExtractConfig], inputs: list[list[Input]], unread: list[str]) -> None:
        super().__init__("extract", build, inputs)
        self.unread, self.earlier = unread, build.earlier

    def reads(self, rank: int) -> Sequence[Path]:
        return [self.survey_path(earlier) for earlier in range(rank)] if self.settings.domain_limit is not None else ()

    def total(self, kind: Literal["counts", "notes"]) -> Counts:
        """The sum of all tasks, without ways by which nothing is extracted any more."""
        total = super().total(kind)
        return total | {name: {way: n for way, n in total[name].items() if n} for name in total.keys() & {_WAYS}}

    def process(self, rank: int, task: Task) -> TaskReport:
        settings = self.settings
        seconds = settings.isolate_seconds
        isolation = (
            nullcontext() if seconds is None else IsolatedExtractor(settings.extractor, seconds, form_of(settings))
        )
        skipped: Counter[str] = Counter()
        with VerdictWriter.open(self.workdir, "extract", rank, BASE_SCHEMA) as writer, isolation as isolated:
            extraction = _Extraction(settings, self._domains_before(rank), isolated, self._texts_before(rank))
            ahead = follow(
                self.ahead, rank, BASE_SCHEMA, self._written(rank, task, extraction, _Batch(writer), skipped)
            )
        counts = {_WAYS: extraction.ways, "skipped_records": skipped}
        if rank == 0:
            counts["skipped_files"] = Counter(self.unread)
            if self.earlier:  # the tasks count what is more or less than then
                extraction.ways.update(read_json(self.earlier / "stats.json")[_WAYS])
        report = writer.report(TaskReport({name: dict(sorted(of.items())) for name, of in counts.items()}))
        report.ahead = ahead
        return report

    def kept_schema(self) -> pa.Schema:
        return BASE_SCHEMA

    def _written(
        self, rank: int, task: Task, extraction: _Extraction, batch: _Batch, skipped: Counter[str]
    ) -> Iterator[pa.Table]:
        """Extract and write the documents of a task; yields those kept."""
        total, done = self.weight(rank), 0.0
        for item in self.inputs[rank]:
            for raw in self.read(item, task, skipped):
                batch.add(*extraction.extract(item, raw, self.refuse(item, raw)))
                if batch.is_full():
                    within = min(raw.offset, item.size) if item.source.type == "warc" else 0
                    yield batch.write(task, (done + within) / total)
            done += item.size
        yield batch.write(task, 1.0)

    def _texts_before(self, rank: int) -> dict[str, tuple[Any, ...]]:
        """{document id: values of _TEXT} of the pages that the earlier build read."""
        texts = known(self.earlier, rank, _TEXT, ["data"])
        dropped = known(self.earlier, rank, [*_TEXT, "rule"], ["dropped"])
        return texts | {name: row[:-1] for name, row in dropped.items() if row[-1] == "empty_text"}

    def _domains_before(self, rank: int) -> Counter[str]:
        domains: Counter[str] = Counter()
        if self.settings.domain_limit is not None:
            for earlier in range(rank):
                domains.update(read_json(self.survey_path(earlier)))
        return domains


class _Extraction:
    """State of one task. domains: documents of each domain so far; before: what an earlier build of the same lineage
    extracted (columns _TEXT by id); ways: how texts were extracted, more than before."""

    def __init__(
        self,
        settings: ExtractConfig,
        domains: Counter[str],
        isolated: IsolatedExtractor | None,
        before: dict[str, tuple[Any, ...]],
    ) -> None:
        self.settings, self.domains, self.isolated, self.before = settings, domains, isolated, before
        self.ways: Counter[str] = Counter()

    def extract(self, item: Input, raw: RawDocument, refused: Verdict | None) -> tuple[dict[str, Any], Verdict | None]:
        """Row of BASE_SCHEMA and verdict of a document; `refused`: the verdict of rules that need no text."""
        identity = document_id(item.key, raw.offset)
        verdict = refused or self._over_limit(raw)
        if verdict and identity in self.before:
            self._uncount(raw, self.before[identity][-1])
        if refused and refused.rule == forgotten.RULE:
            raw = RawDocument(raw.offset)
        text, charset, basis, kind, confidence = "", raw.charset, None, None, None
        if verdict is None:
            try:
                text, charset, basis, kind, confidence = self.before.get(identity) or self._text(raw)
            except PageRefusedError as error:
                verdict = Verdict(error.rule, None, self.settings.isolate_seconds, error.detail)
        if verdict is None and len(text) < self.settings.min_characters:
            verdict = Verdict("empty_text", float(len(text)), float(self.settings.min_characters))
        row = {
            "text": text,
            "id": identity,
            "url": raw.url,
            "source": item.source.name,
            "path": item.key,
            "offset": raw.offset,
            "date": raw.date,
            "media_type": raw.media_type,
            "charset": charset,
            "charset_from": basis,
            "page_kind": kind,
            "extract_confidence": confidence,
            "bytes": None,  # entered with the text
            "metadata": storable(json.dumps(raw.metadata, sort_keys=True, ensure_ascii=False, default=str)),
        }
        return row, verdict

    def _uncount(self, raw: RawDocument, confidence: float | None) -> None:
        """Take a page that was extracted before out of the count, extracting it again where no column tells how."""
        if confidence is not None:
            self.ways["wide" if confidence < UNSURE else "model"] -= 1
            return
        with suppress(PageRefusedError):
            self._text(raw, -1)

    def _over_limit(self, raw: RawDocument) -> Verdict | None:
        limit = self.settings.domain_limit
        if limit is None:
            return None
        domain = domain_of(raw.url)
        self.domains[domain] += 1
        if self.domains[domain] <= limit:
            return None
        return Verdict("domain_limit", float(self.domains[domain]), float(limit), domain)

    def _text(self, raw: RawDocument, number: int = 1) -> tuple[str, str, str, str | None, float | None]:
        """Values of _TEXT of a document, which counts as `number` in `ways`."""
        if raw.text is not None:
            return tidy(raw.text), "utf-8", "utf-8", None, None
        page, charset, basis = decode_page(raw.body, raw.charset)
        if raw.media_type in _READY:
            return tidy(page), charset, basis, None, None
        if raw.media_type.endswith("xml"):
            page = html_of_xhtml(page)
        if self.isolated is not None:
            found = self.isolated.extract(page, raw.url)
        else:
            extractor, form = self.settings.extractor, form_of(self.settings)
            found = extract_decoded(page, url=raw.url, extractor=extractor, form=form)
        self.ways[found.method] += number
        return found.text, charset, basis, found.kind, found.confidence


class _Batch:
    """Documents with their verdicts, gathered across input files until they fill a row group."""

    def __init__(self, writer: VerdictWriter) -> None:
        self.writer = writer
        self.rows: list[dict[str, Any]] = []
        self.verdicts: list[Verdict | None] = []
        self.characters = 0

    def add(self, row: dict[str, Any], verdict: Verdict | None) -> None:
        self.rows.append(row)
        self.verdicts.append(verdict)
        self.characters += len(row["text"])

    def is_full(self) -> bool:
        return len(self.rows) == BATCH_ROWS or self.characters > BATCH_BYTES

    def write(self, task: Task, fraction: float) -> pa.Table:
        """Write the documents and forget them. Returns those kept. fraction: of the task that is then done."""
        table = pa.Table.from_pylist(self.rows, schema=BASE_SCHEMA)
        kept = self.writer.write(table, self.verdicts)
        self.rows, self.verdicts, self.characters = [], [], 0
        task.beat(table.num_rows, text_bytes(table), fraction)
        return kept


_LIBRARIES = ("resiliparse", "fastwarc", "warcio", "trafilatura", "pyarrow")
STAGE = Stage("extract", __name__, _LIBRARIES, passes, files=files, decided_by=decided_by, check=check)
