"""Stage `quality`: signals and scores of every document, then rules, masking and decontamination.

The first pass measures; its columns are taken over from the published stage where nothing that decides them changed,
so a changed threshold computes no signal. The second pass decides. Adds a float column per signal, `<name>_score`
(and `<name>_bin`) per classifier, `failed_rules` and `masked`. A drop names the first failing rule with its value and
threshold; `detail` lists all failing rules with theirs. Signals describe the text as it came in; C4's line edits and
masking change the text of kept documents afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import PipelineError
from common.files import atomic_file, hash_file, read_manifest
from pipeline.config import QualityConfig
from pipeline.documents import read_batches, read_rows, read_schema, text_bytes
from pipeline.fingerprint import code_version, fingerprint
from pipeline.kernels.signals.measure import SIGNALS, signals
from pipeline.quality.classifier import Classifier
from pipeline.quality.contamination import Contamination, read_evaluations
from pipeline.quality.edits import edit_lines, mask
from pipeline.quality.presets import QualityRule
from pipeline.quality.rules import Failure, Signals, broken, failures, score_cut
from pipeline.stage import Build
from pipeline.task import CorpusStep, Counts, DocumentStep, Heartbeat, TaskReport, Verdicts, add_counts

_LANGUAGE_SCORE = "language_score"


def passes(build: Build) -> Iterator[CorpusStep]:
    """Measure, then decide; a task for each input file."""
    _check_own_rules(build)
    yield MeasureStep(build)
    yield DecideStep(build, _cuts(build))


def external_files(settings: QualityConfig, base: Path) -> list[Path]:
    """Classifiers and evaluation files."""
    models = [(f"quality.models.{name}.path", model.path) for name, model in settings.models.items()]
    evaluations = [("quality.decontaminate.files", path) for path in settings.decontaminate.files]
    for field, path in (*models, *evaluations):
        if not (base / path).is_file():
            raise PipelineError(f"{field}: no file at {base / path}")
    return [base / path for _, path in (*models, *evaluations)]


def manifest(build: Build) -> dict[str, Any]:
    """What decided the columns, so that the next build can take them over."""
    return {"measured": _measured(build)}


def score_columns(settings: QualityConfig) -> list[str]:
    """Names of the classifiers' columns."""
    return [f"{name}_score" for name in settings.models]


def languages_of(table: pa.Table) -> list[str]:
    """Language of each document; without a language stage before it, English rules apply."""
    return table["language"].to_pylist() if "language" in table.column_names else ["en"] * table.num_rows


class MeasureStep(CorpusStep):
    """Writes the signals and scores of one input file, without the texts: .columns/NNNNN.parquet."""

    def __init__(self, build: Build) -> None:
        super().__init__("measure", build.workdir, len(build.inputs))
        self.inputs, self.settings, self.base = build.inputs, build.settings, build.base
        self.names = _names(build)
        self.earlier = _earlier(build)

    def weight(self, rank: int) -> float:
        return float(self.inputs[rank].stat().st_size)

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        path = _columns_file(self.workdir, rank)
        total, seen = max(read_rows(self.inputs[rank]), 1), 0
        known = self._known(rank)
        models = [Classifier(self.base / m.path, m.label) for m in self.settings.models.values()] if not known else []
        schema = pa.schema([(name, pa.float64()) for name in self.names])
        with atomic_file(path) as file, pq.ParquetWriter(file, schema) as writer:
            for table in read_batches(self.inputs[rank]):
                if known:
                    rows = [known[document] for document in table["id"].to_pylist()]
                    columns = dict(zip(self.names, np.array(rows, np.float64).T, strict=True))
                else:
                    columns = self._measure(table, models)
                writer.write_table(pa.table(columns, schema))
                seen += table.num_rows
                heartbeat.beat(table.num_rows, text_bytes(table), seen / total)
        return TaskReport(files=[path])

    def _measure(self, table: pa.Table, models: list[Classifier]) -> dict[str, Any]:
        texts = table["text"].to_pylist()
        # A line is a line whatever ends it; the kernels take CR for a character, as the reference does.
        columns = signals([text.replace("\r\n", "\n") for text in texts], language=languages_of(table))
        scores = {f"{name}_score": model.score(texts) for name, model in zip(self.settings.models, models, strict=True)}
        given = {name: table[name].to_numpy() for name in {_LANGUAGE_SCORE} & set(self.names)}
        return columns | scores | given

    def _known(self, rank: int) -> dict[str, list[float]]:
        """{document id: columns} from the published stage, empty where they must be computed."""
        known: dict[str, list[float]] = {}
        if self.earlier is None:
            return known
        for part in ("data", "dropped"):
            table = pq.read_table(self.earlier / part / f"{rank:05d}.parquet", columns=["id", *self.names])
            values = zip(*(table[name].to_pylist() for name in self.names), strict=True)
            known |= dict(zip(table["id"].to_pylist(), values, strict=True))
        return known


class DecideStep(DocumentStep):
    """Applies rules, cuts by score, decontaminates, edits and masks."""

    def __init__(self, build: Build, cuts: dict[str, float]) -> None:
        self.settings: QualityConfig = build.settings
        scores = [pa.field(name, pa.float64()) for name in (*SIGNALS, *score_columns(self.settings))]
        bins = [pa.field(f"{name}_bin", pa.int64()) for name, model in self.settings.models.items() if model.bins]
        others = [pa.field("failed_rules", pa.string()), pa.field("masked", pa.int64())]
        super().__init__("quality", build.workdir, build.inputs, [*scores, *bins, *others])
        self.cuts, self.base = cuts, build.base

    def process(self, rank: int, heartbeat: Heartbeat) -> TaskReport:
        self._columns = pq.read_table(_columns_file(self.workdir, rank))
        self._row = 0
        self._masked: Counts = {}
        paths = [self.base / path for path in self.settings.decontaminate.files]
        self._evaluations = Contamination(read_evaluations(paths), self.settings.decontaminate.ngram) if paths else None
        report = super().process(rank, heartbeat)
        if self.settings.mask:
            add_counts(report.counts, {"masked": self._masked})
        return report

    def judge(self, table: pa.Table, rank: int) -> Verdicts:
        part = self._columns.slice(self._row, table.num_rows)
        self._row += table.num_rows
        found = {name: part[name].to_numpy() for name in part.column_names}
        texts = table["text"].to_pylist()
        failed = failures(self.settings, found, languages_of(table))
        self._cut_by_score(found, failed)
        details = ["; ".join(map(str, names)) for names in failed]
        self._decontaminate(texts, failed, details)
        kept = [not names or self.settings.label_only for names in failed]
        edited, masked = self._edit(texts, kept)
        columns = {name: pa.array(found[name]) for name in (*SIGNALS, *score_columns(self.settings))}
        for name, model in self.settings.models.items():
            if model.bins:
                columns[f"{name}_bin"] = pa.array(np.digitize(found[f"{name}_score"], model.bins))
        columns["failed_rules"] = pa.array([" ".join(f.name for f in names) for names in failed], pa.string())
        columns["masked"] = pa.array(masked, pa.int64())
        table = table.set_column(table.schema.get_field_index("text"), "text", pa.array(edited, pa.string()))
        for name, column in columns.items():
            table = table.append_column(name, column)
        firsts = [None if keep else names[0] for keep, names in zip(kept, failed, strict=True)]
        return Verdicts(
            table,
            [first.name if first else None for first in firsts],
            [first.value if first else None for first in firsts],
            [first.rule.threshold if first else None for first in firsts],
            [None if keep else detail for keep, detail in zip(kept, details, strict=True)],
        )

    def _cut_by_score(self, found: Signals, failed: list[list[Failure]]) -> None:
        """Add the failures of classifiers that keep a share."""
        for name, cut in self.cuts.items():
            for i in np.flatnonzero(found[name] < cut):
                failed[i].append(Failure(name, QualityRule(name, ">=", cut), float(found[name][i])))

    def _decontaminate(self, texts: list[str], failed: list[list[Failure]], details: list[str]) -> None:
        """Add overlaps with evaluation files, the first shared n-gram in the detail."""
        if self._evaluations is None:
            return
        for i, (count, ngram) in enumerate(self._evaluations.find(texts)):
            if count:
                failure = Failure("contamination", QualityRule("contamination", "<=", 0), count)
                failed[i].append(failure)
                details[i] = "; ".join(filter(None, [details[i], f"{failure}: {' '.join(ngram.split())}"]))

    def _edit(self, texts: list[str], kept: list[bool]) -> tuple[list[str], list[int]]:
        """Texts after line edits and masking, and how much was masked in each; dropped ones stay as they came."""
        edited, masked = list(texts), [0] * len(texts)
        for i in np.flatnonzero(kept):
            if self.settings.c4_lines != "keep":
                edited[i] = edit_lines(edited[i], terminal=self.settings.c4_lines == "edit_terminal")
            if self.settings.mask:
                edited[i], counts = mask(edited[i], self.settings.mask)
                masked[i] = sum(counts.values())
                add_counts(self._masked, counts)
        return edited, masked


def _names(build: Build) -> list[str]:
    """What rules may read: signals, classifiers' scores, and the language stage's score where it ran."""
    given = read_schema(build.inputs[0]).names if build.inputs else []
    return [*SIGNALS, *score_columns(build.settings), *({_LANGUAGE_SCORE} & set(given))]


def _check_own_rules(build: Build) -> None:
    known = _names(build)
    for name, rule in build.settings.own_rules.items():
        if rule.signal not in known:
            raise PipelineError(
                f"quality.own_rules.{name}.signal: got `{rule.signal}`, allowed: {', '.join(sorted(known))}"
            )


def _columns_file(workdir: Path, rank: int) -> Path:
    return workdir / f".columns/{rank:05d}.parquet"


def _measured(build: Build) -> str:
    """Hash of all that decides the columns of the first pass."""
    before = read_manifest(build.inputs[0].parents[1]) if build.inputs else None
    return fingerprint(
        {
            "inputs": before["files"] if before else None,
            "code": [code_version("pipeline.kernels.signals.measure"), code_version("pipeline.quality.classifier")],
            "models": {
                name: [hash_file(build.base / model.path), model.label] for name, model in build.settings.models.items()
            },
        }
    )


def _earlier(build: Build) -> Path | None:
    """The published stage, if its columns are those that the first pass would compute."""
    place = build.workdir.parent / build.workdir.name.split(".")[1]
    published = read_manifest(place)
    return place if published and published.get("measured") == _measured(build) else None


def _cuts(build: Build) -> dict[str, float]:
    """{score column: lowest score kept} of the models that keep a share, over all documents that pass the rules."""
    shares = {f"{name}_score": model.keep for name, model in build.settings.models.items() if model.keep is not None}
    if not shares:
        return {}
    scores: dict[str, list[Any]] = {name: [] for name in shares}
    for rank, path in enumerate(build.inputs):
        columns = pq.read_table(_columns_file(build.workdir, rank))
        found = {name: columns[name].to_numpy() for name in columns.column_names}
        schema = read_schema(path)
        languages = languages_of(pq.read_table(path, columns=["id", *({"language"} & set(schema.names))]))
        fails = broken(build.settings, found, languages)
        passing = ~np.logical_or.reduce([np.zeros(len(languages), bool), *fails.values()])
        for name in shares:
            scores[name].append(found[name][passing])
    return {name: score_cut(np.concatenate(scores[name]), share) for name, share in shares.items()}
