"""Stage `extract`: read the sources and turn each page into text.

Dropped, each with its rule: `unreadable` (bytes that are no record), `http_status`, `media_type`, `too_large`,
`blocked_url`, `empty_text`. Costs what the extractor costs; memory is one batch of documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from pipeline.config import ExtractConfig
from pipeline.documents import BASE_SCHEMA, BATCH_ROWS, document_id, text_bytes
from pipeline.extract.text import decode, extract_decoded, tidy
from pipeline.sources import Input, RawDocument, list_inputs, plan_tasks, read_documents
from pipeline.stage import Build
from pipeline.step import CorpusStep, Heartbeat, TaskReport, Verdicts, VerdictWriter

_HTML = {"text/html", "application/xhtml+xml"}
_READY = {"text/plain", "text/markdown"}
Reason = tuple[str | None, float | None, float | None, str | None]
_KEPT: Reason = (None, None, None, None)


def passes(build: Build) -> Iterator[CorpusStep]:
    """One pass, a task for each `task_bytes` of input."""
    tasks = plan_tasks(list_inputs(list(build.sources), build.base), build.settings.task_bytes)
    yield ExtractStep(build.workdir, tasks, build.settings, build.base)


def external_files(settings: ExtractConfig, base: Path) -> list[Path]:
    """The URL block lists."""
    return [base / name for name in settings.blocklist]


def manifest(build: Build) -> dict[str, Any]:
    """Nothing beyond the runner's fields."""
    return {}


class ExtractStep(CorpusStep):
    """Reads the input files of a task, decodes and extracts their documents."""

    def __init__(self, workdir: Path, inputs: list[list[Input]], settings: ExtractConfig, base: Path) -> None:
        super().__init__("extract", workdir, len(inputs))
        self.inputs = inputs
        self.settings = settings
        self.blocked = read_blocklist(external_files(settings, base))

    def weight(self, rank: int) -> float:
        return float(sum(item.size for item in self.inputs[rank]))

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        total, done = self.weight(rank), 0.0
        with VerdictWriter(self.workdir, "extract", rank, BASE_SCHEMA) as writer:
            for item in self.inputs[rank]:
                for rows, reasons, offset in self._batches(item):
                    table = pa.Table.from_pylist(rows, schema=BASE_SCHEMA)
                    columns: list[Any] = [list(column) for column in zip(*reasons, strict=True)]
                    writer.write(Verdicts(table, *columns))
                    within = min(offset, item.size) if item.source.type == "warc" else 0
                    heartbeat.beat(len(rows), text_bytes(table), (done + within) / total)
                done += item.size
            heartbeat.beat(0, 0, 1.0)
        return TaskReport(writer.counts, writer.files)

    def _batches(self, item: Input) -> Iterator[tuple[list[dict[str, Any]], list[Reason], int]]:
        rows: list[dict[str, Any]] = []
        reasons: list[Reason] = []
        for raw in read_documents(item, self.settings.max_bytes):
            row, reason = self._extract(item, raw)
            rows.append(row)
            reasons.append(reason)
            if len(rows) == BATCH_ROWS:
                yield rows, reasons, raw.offset
                rows, reasons = [], []
        if rows:
            yield rows, reasons, item.size

    def _extract(self, item: Input, raw: RawDocument) -> tuple[dict[str, Any], Reason]:
        reason = self._refuse(raw)
        text, charset = ("", raw.charset) if reason is not _KEPT else self._text(raw)
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

    def _refuse(self, raw: RawDocument) -> Reason:
        """Why a document is not even decoded, or _KEPT."""
        settings = self.settings
        if raw.fault is not None:
            return "unreadable", None, None, raw.fault
        if raw.status not in settings.statuses:
            return "http_status", float(raw.status), None, None
        if raw.text is None and raw.media_type not in {*settings.media_types, "text/markdown"}:
            return "media_type", None, None, raw.media_type or "none declared"
        if raw.truncated:
            return "too_large", float(len(raw.body)), float(settings.max_bytes), None
        if blocked := is_blocked(raw.url, self.blocked):
            return "blocked_url", None, None, blocked
        return _KEPT

    def _text(self, raw: RawDocument) -> tuple[str, str | None]:
        if raw.text is not None:
            return tidy(raw.text), "utf-8"
        page, charset = decode(raw.body, raw.charset)
        if raw.media_type in _READY:
            return tidy(page), charset
        return extract_decoded(page, url=raw.url, extractor=self.settings.extractor), charset


def read_blocklist(paths: list[Path]) -> frozenset[str]:
    """Domains and URL prefixes (without scheme), one a line; `#` begins a comment."""
    lines = (line.partition("#")[0].strip().lower() for path in paths for line in path.read_text("utf-8").splitlines())
    return frozenset(line.removeprefix("https://").removeprefix("http://").rstrip("/") for line in lines if line)


def is_blocked(url: str, blocked: frozenset[str]) -> str | None:
    """The entry that blocks `url`: its host, a parent domain, or a prefix of its path; None if none does."""
    if not blocked:
        return None
    parts = urlsplit(url)
    labels = (parts.hostname or "").split(".")
    hosts = [".".join(labels[start:]) for start in range(len(labels))]
    segments = parts.path.rstrip("/").split("/")
    prefixes = [(parts.hostname or "") + "/".join(segments[:end]) for end in range(2, len(segments) + 1)]
    return next((entry for entry in (*hosts, *prefixes) if entry.lower() in blocked), None)
