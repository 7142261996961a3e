"""A round: damaged inputs of every kind are read one by one with a clock, then built into a corpus and counted."""

from __future__ import annotations

import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from common.runfolder import RunFolder
from pipeline.build import build_corpus
from pipeline.config import CorpusConfig
from pipeline.extract.stage import _Extraction
from pipeline.read import list_inputs, read_documents
from tests.conftest import PROSE, page, write_warc
from tests.fuzz.inputs import KINDS, write_input

SECONDS = 10  # that an input may take


@dataclass
class Round:
    """Result of a round. lost: files whose documents the corpus has not counted as reading them one by one gave."""

    inputs: int = 0
    documents: int = 0
    kept: int = 0
    slowest: float = 0.0
    rules: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)


def run_round(folder: Path, numbers: range, seed: int) -> Round:
    """Read and build `numbers` inputs of each kind. Raises what the pipeline raises, TooSlowError after SECONDS."""
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for number in numbers:
            write_input(folder / kind, kind, number, seed)
    write_warc(folder / "clean/a.warc.gz", {f"https://c.example/{n}": page(text) for n, text in PROSE.items()})
    config = CorpusConfig.model_validate(
        {
            "name": "fuzz",
            "sources": [
                *({"name": kind, "type": "warc" if kind == "http" else kind, "paths": [kind]} for kind in KINDS),
                {"name": "clean", "type": "warc", "paths": ["clean/*"]},
            ],
            "tokenize": {"tokenizer": {"vocab_size": 400}, "sequence_length": 64, "validation": 0.2},
            "executor": {"workers": 1},
        }
    )
    result = Round(inputs=len(numbers) * len(KINDS))
    expected: Counter[str] = Counter()
    extraction = _Extraction(config.extract, Counter(), None, {})
    signal.signal(signal.SIGALRM, _too_slow)
    for item in list_inputs(config.sources, folder):
        began = time.monotonic()
        signal.alarm(SECONDS)
        for raw in read_documents(item, config.extract.max_bytes):
            extraction.extract(item, raw, None)
            expected[item.key] += 1
        signal.alarm(0)
        result.slowest = max(result.slowest, time.monotonic() - began)
    build_corpus(config, folder / "run", folder)  # it checks itself that in = kept + dropped in every stage
    counted: Counter[str] = Counter()
    for number, stage in enumerate(config.stage_names[:-1], 1):
        for side in ("data", "dropped"):
            for path in sorted((folder / f"run/corpus/{number:02d}-{stage}/{side}").glob("*.parquet")):
                table = pq.read_table(path)
                if stage == "extract":
                    counted.update(table["path"].to_pylist())
                if side == "dropped":
                    result.rules.update(table["rule"].to_pylist())
                elif stage == "quality":
                    result.kept += table.num_rows
    result.documents = counted.total()
    result.lost = sorted(key for key in expected | counted if expected[key] != counted[key])
    assert RunFolder(folder / "run").shards.is_dir()
    return result


class TooSlowError(BaseException):
    """Not one that the pipeline catches."""


def _too_slow(*_: object) -> None:
    raise TooSlowError(f"an input took more than {SECONDS} seconds")
