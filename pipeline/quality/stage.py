"""Stage `quality`: signals and scores of every document, then rules, masking and decontamination.

One pass measures and decides. It takes its columns over from the published stage where nothing that decides them
changed, so a changed threshold recomputes no signal. Where a classifier keeps a share of the documents, a pass before
it measures, and one of a single task finds the lowest score kept. Adds a float column per signal, `<name>_score` (and
`<name>_bin`) per classifier, `failed_rules` and `masked`. A drop names the first failing rule with its value and
threshold; `detail` lists all failing rules with theirs. Signals describe the text as it came in; C4's line edits and
masking change the text of kept documents afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import PipelineError
from common.files import atomic_file, hash_file, read_manifest
from pipeline.config import CorpusConfig, QualityConfig
from pipeline.documents import Counts, add_counts, append_columns, replace_texts
from pipeline.fingerprint import code_version, fingerprint
from pipeline.kernels.signals.measure import SIGNALS, signals
from pipeline.quality.classifier import Classifier
from pipeline.quality.contamination import Contamination, read_evaluations
from pipeline.quality.edits import edit_lines, mask
from pipeline.quality.presets import QualityRule
from pipeline.quality.rules import Failure, Signals, broken, failures, kept, languages_of, score_cut
from pipeline.reuse import known
from pipeline.stage import Build, Stage
from pipeline.task import DocumentPass, FilesPass, Judge, Pass, Task, TaskReport, Verdict, Verdicts

_LANGUAGE, _LANGUAGE_SCORE = "language", "language_score"


def passes(build: Build[QualityConfig]) -> Iterator[Pass]:
    """Measure and decide, a task for each input file; where scores are cut, measure and find the cuts first."""
    if one := single(build):
        yield one
        return
    _check_own_rules(build)
    yield MeasurePass(build)
    cut = CutPass(build)
    yield cut
    yield DecidePass(build, cut.total("notes"))


def single(build: Build[QualityConfig]) -> DecidePass | None:
    """The one pass, where no share of the documents is kept by score."""
    if any(model.keep is not None for model in build.settings.models.values()):
        return None
    _check_own_rules(build)
    return DecidePass(build, None)


def files(settings: QualityConfig, base: Path) -> list[Path]:
    """Classifiers and evaluation files. Raises PipelineError for one that is missing."""
    models = [(f"quality.models.{name}.path", model.path) for name, model in settings.models.items()]
    evaluations = [("quality.decontaminate.files", path) for path in settings.decontaminate.files]
    for field, path in (*models, *evaluations):
        if not (base / path).is_file():
            raise PipelineError(f"{field}: no file at {base / path}")
    return [base / path for _, path in (*models, *evaluations)]


def decided_by(config: CorpusConfig) -> dict[str, Any]:
    """Not where models and evaluation files lie: their contents are hashed."""
    models = {name: model.model_dump(exclude={"path"}) for name, model in config.quality.models.items()}
    return {"models": models, "decontaminate": config.quality.decontaminate.model_dump(exclude={"files"})}


def manifest(build: Build[QualityConfig]) -> dict[str, Any]:
    """Hash of all that decided the columns, so that the next build can take them over."""
    return {"measured": _measured(build)}


def score_columns(settings: QualityConfig) -> list[str]:
    return [f"{name}_score" for name in settings.models]


class Measurer:
    """Signals and scores of the documents of input file `rank`.

    names: of the columns; earlier: the published stage that has them already for some of the documents.
    """

    def __init__(self, settings: QualityConfig, base: Path, names: list[str], earlier: Path | None, rank: int) -> None:
        self.settings, self.base, self.names = settings, base, names
        self.known = known(earlier, rank, names)

    def columns(self, table: pa.Table) -> dict[str, Any]:
        names, ids = self.names, table["id"].to_pylist()
        is_new = np.array([each not in self.known for each in ids], bool)
        rows = np.array([self.known.get(each, [0.0] * len(names)) for each in ids], np.float64).reshape(-1, len(names))
        columns = dict(zip(names, rows.T.copy(), strict=True))
        if is_new.any():
            for name, values in self._measure(table.filter(pa.array(is_new))).items():
                columns[name][is_new] = values
        return columns

    @cached_property
    def _models(self) -> dict[str, Classifier]:
        return {name: Classifier(self.base / of.path, of.label) for name, of in self.settings.models.items()}

    def _measure(self, table: pa.Table) -> dict[str, Any]:
        texts = table["text"].to_pylist()
        # The kernels take CR for a character, as the reference does; here CRLF ends a line, too.
        columns = signals([text.replace("\r\n", "\n") for text in texts], language=languages_of(table))
        scores = {f"{name}_score": model.score(texts) for name, model in self._models.items()}
        given = {name: table[name].to_numpy() for name in {_LANGUAGE_SCORE} & set(self.names)}
        return columns | scores | given


class MeasurePass(FilesPass):
    """Writes signals, scores and languages of one input file, without the texts: .columns/NNNNN.parquet."""

    def __init__(self, build: Build[QualityConfig]) -> None:
        super().__init__("measure", build.workdir, [[path] for path in build.inputs])
        self.names, self.measurer = _names(build), _measurer(build)

    def process(self, rank: int, task: Task) -> TaskReport:
        path = _columns_file(self.workdir, rank)
        measurer = self.measurer(rank)
        schema = pa.schema([*((name, pa.float64()) for name in self.names), (_LANGUAGE, pa.string())])
        with atomic_file(path, durable=False) as file, pq.ParquetWriter(file, schema) as writer:
            for table in self.read(rank, task):
                columns = measurer.columns(table) | {_LANGUAGE: languages_of(table)}
                writer.write_table(pa.table(columns, schema))
        return TaskReport(files=[path])


class MeasuredColumns:
    """The columns that `MeasurePass` wrote for one input file, in its order."""

    def __init__(self, columns: Signals) -> None:
        self._columns, self._row = columns, 0

    def columns(self, table: pa.Table) -> dict[str, Any]:
        start, self._row = self._row, self._row + table.num_rows
        return {name: values[start : self._row] for name, values in self._columns.items()}


class CutPass(Pass):
    """Finds the lowest score kept by each classifier that keeps a share of the documents; one task, without texts."""

    def __init__(self, build: Build[QualityConfig]) -> None:
        super().__init__("cut", build.workdir, 1)
        self.files, self.settings = len(build.inputs), build.settings
        models = build.settings.models
        self.shares = {f"{name}_score": model.keep for name, model in models.items() if model.keep is not None}

    def reads(self, rank: int) -> Sequence[Path]:
        return [_columns_file(self.workdir, None)]

    def process(self, rank: int, task: Task) -> TaskReport:
        """Notes: {score column: lowest score kept}, over all documents that pass the rules."""
        scores: dict[str, list[Any]] = {name: [] for name in self.shares}
        for number in range(self.files):
            columns, languages = _read_columns(self.workdir, number)
            passing = kept(broken(self.settings, columns, languages), len(languages))
            for name in self.shares:
                scores[name].append(columns[name][passing])
            task.beat(0, 0, (number + 1) / self.files)
        cuts = {name: float(score_cut(np.concatenate(scores[name]), share)) for name, share in self.shares.items()}
        return TaskReport(notes=cuts)


class DecidePass(DocumentPass):
    """Applies rules, cuts by score, decontaminates, edits and masks; without `cuts` it measures first."""

    def __init__(self, build: Build[QualityConfig], cuts: dict[str, float] | None) -> None:
        self.settings = settings = build.settings
        scores = [pa.field(name, pa.float64()) for name in (*SIGNALS, *score_columns(settings))]
        bins = [pa.field(f"{name}_bin", pa.int64()) for name, model in settings.models.items() if model.bins]
        others = [pa.field("failed_rules", pa.string()), pa.field("masked", pa.int64())]
        super().__init__("quality", build.workdir, build.inputs, [*scores, *bins, *others], build.texts)
        self.cuts, self.base = cuts or {}, build.base
        self.measurer = _measurer(build) if cuts is None else None

    def reads(self, rank: int) -> Sequence[Path]:
        return [self.inputs[rank], *(() if self.measurer else [_columns_file(self.workdir, rank)])]

    def open(self, rank: int) -> DecideJudge:
        measured = self.measurer(rank) if self.measurer else MeasuredColumns(_read_columns(self.workdir, rank)[0])
        return DecideJudge(self, measured)


class DecideJudge(Judge):
    """Decides on the documents of one file, in order, by their measured columns."""

    def __init__(self, of: DecidePass, measured: Measurer | MeasuredColumns) -> None:
        self.settings, self.cuts, self.added = of.settings, of.cuts, of.added
        self.measured = measured
        self.masked: Counts = {}
        paths = [of.base / path for path in of.settings.decontaminate.files]
        self.evaluations = Contamination(read_evaluations(paths), of.settings.decontaminate.ngram) if paths else None

    def judge(self, table: pa.Table) -> tuple[pa.Table, Verdicts]:
        columns = self.measured.columns(table)
        texts = table["text"].to_pylist()
        failed = failures(self.settings, columns, languages_of(table))
        self._cut_by_score(columns, failed)
        details = ["; ".join(map(str, names)) for names in failed]
        self._decontaminate(texts, failed, details)
        dropped = [bool(names) and not self.settings.label_only for names in failed]
        edited, masked = self._edit(texts, dropped)
        for name, model in self.settings.models.items():
            columns[f"{name}_bin"] = np.digitize(columns[f"{name}_score"], model.bins)
        columns["failed_rules"] = [" ".join(failure.name for failure in names) for names in failed]
        columns["masked"] = masked
        table = append_columns(replace_texts(table, edited), self.added, [columns[field.name] for field in self.added])
        return table, [
            Verdict(names[0].name, names[0].value, names[0].rule.threshold, detail) if drop else None
            for drop, names, detail in zip(dropped, failed, details, strict=True)
        ]

    def report(self) -> TaskReport:
        return TaskReport({"masked": self.masked} if self.settings.mask else {})

    def _cut_by_score(self, columns: Signals, failed: list[list[Failure]]) -> None:
        """Add the failures of classifiers that keep a share."""
        for name, cut in self.cuts.items():
            for i in np.flatnonzero(columns[name] < cut):
                failed[i].append(Failure(name, QualityRule(name, ">=", cut), float(columns[name][i])))

    def _decontaminate(self, texts: list[str], failed: list[list[Failure]], details: list[str]) -> None:
        """Add overlaps with evaluation files, the first shared n-gram in the detail."""
        if self.evaluations is None:
            return
        for i, (count, ngram) in enumerate(self.evaluations.find(texts)):
            if count:
                failure = Failure("contamination", QualityRule("contamination", "<=", 0), count)
                failed[i].append(failure)
                details[i] = "; ".join(filter(None, [details[i], f"{failure}: {' '.join(ngram.split())}"]))

    def _edit(self, texts: list[str], dropped: list[bool]) -> tuple[list[str], list[int]]:
        """Texts after line edits and masking, and the number of masks in each; dropped texts stay as they are."""
        edited, masked = list(texts), [0] * len(texts)
        for i in np.flatnonzero(np.logical_not(dropped)):
            if self.settings.c4_lines != "keep":
                edited[i] = edit_lines(edited[i], terminal=self.settings.c4_lines == "edit_terminal")
            if self.settings.mask:
                edited[i], counts = mask(edited[i], self.settings.mask)
                masked[i] = sum(counts.values())
                add_counts(self.masked, counts)
        return edited, masked


def _names(build: Build[QualityConfig]) -> list[str]:
    """Columns for rules: signals, classifiers' scores, and the language stage's score where it ran."""
    given = build.input_schema().names
    return [*SIGNALS, *score_columns(build.settings), *({_LANGUAGE_SCORE} & set(given))]


def _check_own_rules(build: Build[QualityConfig]) -> None:
    known = _names(build)
    for name, rule in build.settings.own_rules.items():
        if rule.signal not in known:
            raise PipelineError(
                f"quality.own_rules.{name}.signal: got `{rule.signal}`, allowed: {', '.join(sorted(known))}"
            )


def _columns_file(workdir: Path, rank: int | None) -> Path:
    """Of one task, or a pattern of all."""
    return workdir / f".columns/{'*' if rank is None else f'{rank:05d}'}.parquet"


def _read_columns(workdir: Path, rank: int) -> tuple[Signals, list[str]]:
    """(signals and scores, languages) of an input file's documents."""
    table = pq.read_table(_columns_file(workdir, rank))
    return {name: table[name].to_numpy() for name in table.column_names if name != _LANGUAGE}, languages_of(table)


def _measured(build: Build[QualityConfig]) -> str | None:
    """Hash of all that decides the columns of the first pass; None where a document was left out of the first input
    file, which then lies beside no manifest that says what its texts are."""
    before = read_manifest(build.inputs[0].parents[1]) if build.inputs else None
    if before is None:
        return None
    return fingerprint(
        {
            "inputs": {name: before.get(name) for name in ("fingerprint", "files")},
            "code": [code_version("pipeline.kernels.signals.measure"), code_version("pipeline.quality.classifier")],
            "models": {
                name: [hash_file(build.base / model.path), model.label] for name, model in build.settings.models.items()
            },
        }
    )


def _measurer(build: Build[QualityConfig]) -> Callable[[int], Measurer]:
    """The `Measurer` of each input file; it takes over the published stage's columns if it would compute the same."""
    earlier, measured = build.earlier, _measured(build)
    manifest = read_manifest(build.published) if build.published else None
    if not earlier and manifest and measured and manifest.get("measured") == measured:
        earlier = build.published
    return partial(Measurer, build.settings, build.base, _names(build), earlier)


STAGE = Stage("quality", __name__, ("numba", "pyarrow"), passes, files, manifest, decided_by, single=single)
