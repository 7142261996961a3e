"""Stage `extract`: read the sources and turn each page into text.

Dropped, each with its rule: `unreadable` (bytes that are no record), `http_status`, `media_type`, `too_large`,
`blocked_url`, `blocked_url_word`, `url_not_allowed`, `domain_limit`, `extractor_timeout`, `extractor_crash` (both with
`isolate_seconds` alone), `empty_text`, `crashed` (`pipeline.crashes`). Costs what the extractor costs; memory is one
batch of documents. A limit per domain takes a pass of its own that reads the addresses first, so that the same
documents are kept however tasks are run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa

from common.files import read_json, write_json
from pipeline.config import ExtractConfig
from pipeline.crashes import RULE as CRASHED
from pipeline.documents import BASE_SCHEMA, BATCH_BYTES, BATCH_ROWS, document_id, text_bytes
from pipeline.extract.isolated import IsolatedExtractor, PageRefusedError
from pipeline.extract.text import decode, extract_counted, tidy
from pipeline.extract.urls import domain_of, list_files, read_rules
from pipeline.kernels.html.fast import WEIGHTS
from pipeline.read import Input, RawDocument, list_inputs, plan_tasks, read_documents
from pipeline.stage import Build
from pipeline.task import CorpusStep, Heartbeat, TaskReport, Verdicts, VerdictWriter

_HTML = {"text/html", "application/xhtml+xml"}
_READY = {"text/plain", "text/markdown"}
Reason = tuple[str | None, float | None, float | None, str | None]
_KEPT: Reason = (None, None, None, None)


def passes(build: Build) -> Iterator[CorpusStep]:
    """One pass, a task for each `task_bytes` of input."""
    tasks = plan_tasks(list_inputs(list(build.sources), build.base), build.settings.task_bytes)
    if build.settings.domain_limit is not None:
        yield SurveyStep(build, tasks)
    yield ExtractStep(build, tasks)


def external_files(settings: ExtractConfig, base: Path) -> list[Path]:
    """The URL lists, and the fast extractor's weights."""
    lists = [*settings.blocklist, *settings.allowlist, *settings.url_words]
    return [*list_files(lists, base), *([WEIGHTS] if settings.extractor == "fast" else [])]


def manifest(build: Build) -> dict[str, Any]:
    """Nothing beyond the runner's fields."""
    return {}


class SourceStep(CorpusStep):
    """A pass over the input files, with the rules that need no text."""

    def __init__(self, name: str, build: Build, inputs: list[list[Input]]) -> None:
        super().__init__(name, build.workdir, len(inputs))
        self.inputs = inputs
        self.settings = settings = build.settings
        self.crashed = frozenset(build.crashed)
        lists = (settings.blocklist, settings.allowlist, settings.url_words)
        self.urls = read_rules(*(list_files(names, build.base) for names in lists))

    def weight(self, rank: int) -> float:
        return float(sum(item.size for item in self.inputs[rank]))

    def read(self, item: Input, skipped: Counter[str] | None = None) -> Iterator[RawDocument]:
        """The documents of an input file; an archive's records that are no page are added to `skipped`."""
        return read_documents(item, self.settings.max_bytes, self.crashed, skipped)

    def refuse(self, raw: RawDocument) -> Reason:
        """Why a document is not even decoded, or _KEPT."""
        settings = self.settings
        if raw.crashed is not None:
            return CRASHED, None, None, raw.crashed
        if raw.fault is not None:
            return "unreadable", None, None, raw.fault
        if raw.status not in settings.statuses:
            return "http_status", float(raw.status), None, None
        if raw.text is None and raw.media_type not in {*settings.media_types, "text/markdown"}:
            return "media_type", None, None, raw.media_type or "none declared"
        if raw.truncated:
            return "too_large", float(len(raw.body)), float(settings.max_bytes), None
        if refusal := self.urls.refusal(raw.url):
            return refusal[0], None, None, refusal[1]
        return _KEPT

    def survey_path(self, rank: int) -> Path:
        """File in which the survey leaves the documents of each domain in a task."""
        return self.workdir / ".survey" / f"{rank:05d}.json"


class SurveyStep(SourceStep):
    """Counts the documents of each domain, task by task."""

    def __init__(self, build: Build, inputs: list[list[Input]]) -> None:
        super().__init__("survey", build, inputs)

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        found: Counter[str] = Counter()
        for item in self.inputs[rank]:
            found.update(domain_of(raw.url) for raw in self.read(item) if self.refuse(raw) is _KEPT)
        write_json(self.survey_path(rank), dict(sorted(found.items())))
        return TaskReport({}, [self.survey_path(rank)])


class _Batch:
    """Documents with the reasons to drop them, gathered across input files until they are worth a row group."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.reasons: list[Reason] = []
        self.characters = 0

    def add(self, row: dict[str, Any], reason: Reason) -> None:
        """One document more."""
        self.rows.append(row)
        self.reasons.append(reason)
        self.characters += len(row["text"])

    def is_full(self) -> bool:
        """Whether it is time to write."""
        return len(self.rows) == BATCH_ROWS or self.characters > BATCH_BYTES

    def write(self, writer: VerdictWriter) -> tuple[int, int]:
        """Write the documents and be empty. Returns how many they were, and their bytes of text."""
        if not self.rows:
            return 0, 0
        table = pa.Table.from_pylist(self.rows, schema=BASE_SCHEMA)
        columns: list[Any] = [list(column) for column in zip(*self.reasons, strict=True)]
        writer.write(Verdicts(table, *columns))
        self.rows, self.reasons, self.characters = [], [], 0
        return table.num_rows, text_bytes(table)


class ExtractStep(SourceStep):
    """Reads the input files of a task, decodes and extracts their documents."""

    def __init__(self, build: Build, inputs: list[list[Input]]) -> None:
        super().__init__("extract", build, inputs)
        self.domains: Counter[str] = Counter()  # documents of each domain before the one in hand
        self.ways: Counter[str] = Counter()  # how the texts of the task in hand were found
        self.skipped: Counter[str] = Counter()  # its archives' records that are no page, by type
        self.isolated: IsolatedExtractor | None = None

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        total, done = self.weight(rank), 0.0
        self.domains, self.ways, self.skipped = self._domains_before(rank), Counter(), Counter()
        with VerdictWriter(self.workdir, "extract", rank, BASE_SCHEMA) as writer, self._isolation() as self.isolated:
            batch = _Batch()
            for item in self.inputs[rank]:
                for raw in self.read(item, self.skipped):
                    batch.add(*self._extract(item, raw))
                    if batch.is_full():
                        within = min(raw.offset, item.size) if item.source.type == "warc" else 0
                        heartbeat.beat(*batch.write(writer), (done + within) / total)
                done += item.size
            heartbeat.beat(*batch.write(writer), 1.0)
        counts = {"extracted_by": self.ways, "skipped_records": self.skipped}
        return TaskReport(
            writer.counts | {name: dict(sorted(found.items())) for name, found in counts.items()}, writer.files
        )

    def _isolation(self) -> AbstractContextManager[IsolatedExtractor | None]:
        seconds = self.settings.isolate_seconds
        return nullcontext() if seconds is None else IsolatedExtractor(self.settings.extractor, seconds)

    def _domains_before(self, rank: int) -> Counter[str]:
        found: Counter[str] = Counter()
        if self.settings.domain_limit is not None:
            for earlier in range(rank):
                found.update(read_json(self.survey_path(earlier)))
        return found

    def _extract(self, item: Input, raw: RawDocument) -> tuple[dict[str, Any], Reason]:
        reason = self.refuse(raw)
        if reason is _KEPT:
            reason = self._over_limit(raw)
        text, charset = "", raw.charset
        if reason is _KEPT:
            try:
                text, charset = self._text(raw)
            except PageRefusedError as refused:
                reason = (refused.rule, None, self.settings.isolate_seconds, refused.detail)
        if reason is _KEPT and len(text) < self.settings.min_characters:
            reason = ("empty_text", float(len(text)), float(self.settings.min_characters), None)
        row = {
            "text": text,
            "id": document_id(item.key, raw.offset),
            "url": raw.url,
            "source": item.source.name,
            "path": item.key,
            "offset": raw.offset,
            "date": raw.date,
            "media_type": raw.media_type,
            "charset": charset,
            "metadata": json.dumps(raw.metadata, sort_keys=True, ensure_ascii=False, default=str),
        }
        return row, reason

    def _over_limit(self, raw: RawDocument) -> Reason:
        """Whether the document's domain has had its share, or _KEPT."""
        limit = self.settings.domain_limit
        if limit is None:
            return _KEPT
        domain = domain_of(raw.url)
        self.domains[domain] += 1
        if self.domains[domain] > limit:
            return "domain_limit", float(self.domains[domain]), float(limit), domain
        return _KEPT

    def _text(self, raw: RawDocument) -> tuple[str, str | None]:
        if raw.text is not None:
            return tidy(raw.text), "utf-8"
        page, charset = decode(raw.body, raw.charset)
        if raw.media_type in _READY:
            return tidy(page), charset
        extractor: str = self.settings.extractor
        if self.isolated is not None:
            text, way = self.isolated.extract(page, raw.url), extractor
        else:
            text, way = extract_counted(page, url=raw.url, extractor=extractor)
        self.ways[way] += 1
        return text, charset
