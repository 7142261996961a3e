"""Shards end to end: made of JSON lines, read by streaming, verified, damaged, and shown."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.commands import app
from common.errors import PipelineError
from pipeline.build import build_corpus
from pipeline.config import CorpusConfig
from pipeline.tokenize.tokenizer import Encoder
from pipeline.tokenize.verify import show, verify
from tests.conftest import PROSE

SIZE = 48


def documents() -> dict[str, str]:
    """Distinct texts of several lengths, some longer than a sequence."""
    words = " ".join(PROSE.values()).split()
    return {f"https://example.org/{i}": " ".join(words[i : i + 5 + 7 * (i % 9)]) for i in range(150)}


def build(folder: Path, workers: int = 1, **tokenize: object) -> Path:
    """Shards of `documents()` over two sources. Returns the shards folder."""
    rows = [json.dumps({"text": text, "url": url}) for url, text in documents().items()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "web.jsonl").write_text("\n".join(rows[:100]), "utf-8")
    (folder / "books.jsonl").write_text("\n".join(rows[100:]), "utf-8")
    settings = {"tokenizer": {"vocab_size": 400}, "sequence_length": SIZE, "validation": 0.1, "bucket_bytes": 4000}
    config = CorpusConfig.model_validate(
        {
            "name": "t",
            "sources": [
                {"name": "web", "type": "jsonl", "paths": [str(folder / "web.jsonl")]},
                {"name": "books", "type": "jsonl", "paths": [str(folder / "books.jsonl")], "weight": 2, "repeat": 3},
            ],
            "stages": ["extract", "tokenize"],
            "extract": {"extractor": "none", "task_bytes": 5000},
            "tokenize": settings | tokenize,
            "executor": {"workers": workers},
        }
    )
    build_corpus(config, folder / "run", Path())
    return folder / "run/shards"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    phases = [{"start": 0.9, "weights": {"web": 0.5}}]
    return build(tmp_path_factory.mktemp("shards"), shard_bytes=2000, phases=phases)


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards, tmp_path / "shards"))


def stream_samples(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """The samples of one stream through StreamingDataset, in storage order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("streaming", exc_type=ImportError)
        from streaming import StreamingDataset
    dataset = StreamingDataset(local=str(folder), shuffle=False, batch_size=1)
    yield from (dataset[i] for i in range(len(dataset)))


def test_streaming_reads_every_document_whole(shards: Path) -> None:
    encoder = Encoder(shards / "tokenizer.json")
    pieces = pq.read_table(shards / "documents.parquet").to_pylist()
    samples = {
        f"{place.parent.name}/{place.name}": list(stream_samples(place))
        for place in [shards / "train/web", shards / "train/books", shards / "validation/web"]
    }
    texts: dict[str, list[int]] = {}
    for piece in pieces:
        if (name := f"{piece['split']}/{piece['stream']}") in samples:
            sample = samples[name][piece["sample"]]
            assert bytes.fromhex(piece["id"]) in {row.tobytes() for row in sample["doc_ids"]}
            cut = sample["tokens"][piece["offset"] : piece["offset"] + piece["tokens"]]
            texts.setdefault(piece["url"], []).extend(cut.tolist())
    assert len(texts) > 130
    for url, ids in texts.items():
        assert ids[-1] == encoder.eos_id
        assert encoder.tokenizer.decode(ids[:-1]) == documents()[url]


def test_index_is_the_one_that_streaming_would_merge(shards: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("streaming", exc_type=ImportError)
        from streaming.base.util import merge_index
    places = sorted((shards / "train/web").glob("*/index.json"))
    assert len(places) > 1
    copy = Path(shutil.copytree(shards / "train/web", tmp_path / "web"))
    (copy / "index.json").unlink()
    merge_index([str(copy / place.parent.name / "index.json") for place in places], str(copy))
    assert json.loads((copy / "index.json").read_bytes()) == json.loads((shards / "train/web/index.json").read_bytes())


def test_manifest_counts_and_mixture(shards: Path) -> None:
    manifest = json.loads((shards / "manifest.json").read_bytes())
    streams = manifest["streams"]
    assert sum(stream["documents"] for stream in streams.values()) == 150
    assert streams["train/books"]["weight"] == 6.0
    assert manifest["phases"][0] == {"start": 0.0, "weights": {"train/books": 6.0, "train/web": 1.0}}
    assert manifest["phases"][1] == {"start": 0.9, "weights": {"train/books": 6.0, "train/web": 0.5}}
    stats = json.loads((shards / "stats.json").read_bytes())
    language = stats["languages"]["und"]
    assert language["bytes_per_token"] == round(language["bytes"] / language["tokens"], 4)
    assert language["bytes"] == sum(len(text.encode()) for text in documents().values())


def test_same_bytes_for_any_number_of_workers(shards: Path, tmp_path: Path) -> None:
    other = build(tmp_path, workers=2, shard_bytes=2000, phases=[{"start": 0.9, "weights": {"web": 0.5}}])
    files = [json.loads((place / "manifest.json").read_bytes())["files"] for place in (shards, other)]
    assert files[0] == files[1]


def test_best_fit_cuts_only_long_documents_and_rehydration_copies(tmp_path: Path) -> None:
    folder = build(
        tmp_path, packing="best_fit", rehydrate={1: 2}, bos="<|endoftext|>", compression=None, hashes=["sha1"]
    )
    assert verify(folder).problems == []
    manifest = json.loads((folder / "manifest.json").read_bytes())
    rows = pq.read_table(folder / "documents.parquet").to_pylist()
    copies = Counter((row["split"], row["id"], row["copy"]) for row in rows)
    sizes: Counter[tuple[str, str, int]] = Counter()
    for row in rows:
        sizes[row["split"], row["id"], row["copy"]] += row["tokens"]
    for key, pieces in copies.items():
        assert pieces == -(-sizes[key] // (SIZE + 1))
        assert (key[0], key[1], 1 - key[2]) in copies or key[0] == "validation"
    stream = manifest["streams"]["train/web"]
    assert stream["padding"] == stream["samples"] * (SIZE + 1) - stream["tokens"] > 0
    assert stream["cut_documents"] == sum(
        pieces > 1 for key, pieces in copies.items() if key[0] == "train" and _stream(rows, key) == "web"
    )


def _stream(rows: list[dict[str, object]], key: tuple[str, str, int]) -> object:
    return next(row["stream"] for row in rows if (row["split"], row["id"], row["copy"]) == key)


def test_verify_finds_nothing_wrong_and_counts(shards: Path) -> None:
    report = verify(shards)
    manifest = json.loads((shards / "manifest.json").read_bytes())
    assert report.problems == []
    assert report.samples == sum(stream["samples"] for stream in manifest["streams"].values())
    assert report.tokens == sum(stream["tokens"] for stream in manifest["streams"].values())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "flipped byte": flip,
    "deleted": Path.unlink,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("pattern", ["train/web/*/shard.00000.mds.zstd", "train/books/index.json"])
def test_verify_and_trainer_name_the_damaged_file(copied: Path, tmp_path: Path, damage: str, pattern: str) -> None:
    from common.errors import TrainerError
    from trainer.shards import open_shards

    path = sorted(copied.glob(pattern))[0]
    DAMAGE[damage](path)
    assert any(str(path) in problem for problem in verify(copied).problems)

    def read_all() -> None:
        opened = open_shards(copied, tmp_path / "cache")
        for stream, found in enumerate(opened.train):
            opened.read(opened.train, np.array([(stream, i) for i in range(len(found.data))]))

    with pytest.raises(TrainerError) as refused:
        read_all()
    assert str(path) in str(refused.value)
    done = CliRunner().invoke(app, ["shards", "verify", str(copied)])
    assert done.exit_code == 1


def test_verify_refuses_what_is_no_shards_folder_or_has_another_vocabulary(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="not a folder of shards"):
        verify(tmp_path)
    with pytest.raises(PipelineError, match="no such folder"):
        verify(tmp_path / "absent")
    manifest = json.loads((copied / "manifest.json").read_bytes())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"vocab_size": 300}))
    problems = verify(copied).problems
    assert any("a vocabulary of 400, the shards were made with 300" in problem for problem in problems)
    (copied / "manifest.json").write_text(json.dumps(manifest | {"streams": {}}))
    with pytest.raises(PipelineError, match="lists no stream"):
        verify(copied)
    (copied / "manifest.json").unlink()
    with pytest.raises(PipelineError, match="unfinished"):
        verify(copied)


def test_show_gives_the_documents_of_a_sample(shards: Path) -> None:
    name, parts, padding = show(shards, None, 1)
    assert name == "train/books"
    assert sum(part.tokens for part in parts) + padding == SIZE + 1
    for part in parts:
        assert part.text.removesuffix("<|endoftext|>") in documents()[part.url or ""]
    done = CliRunner().invoke(app, ["shards", "show", str(shards), "--sample", "1"])
    assert parts[-1].url in done.output
    with pytest.raises(PipelineError, match=r"has samples 0 to \d+, got 100000"):
        show(shards, "train/web", 100_000)
    with pytest.raises(PipelineError, match="no stream `x`"):
        show(shards, "x", 0)


def test_from_jsonl_makes_shards_of_clean_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [json.dumps({"body": text}) for text in documents().values()]
    (tmp_path / "clean.jsonl").write_text("\n".join(rows), "utf-8")
    monkeypatch.chdir(tmp_path)
    command = ["shards", "from-jsonl", "clean.jsonl", "-o", "out", "--text-key", "body"]
    command += ["--vocab-size", "300", "--sequence-length", "32", "--workers", "1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert verify(tmp_path / "out/shards").problems == []


def test_no_near_duplicate_stands_on_both_sides_of_the_split(tmp_path: Path) -> None:
    """Each text twice but for its last word. Without deduplication some pairs straddle the split, with it none."""
    words, chance = " ".join(PROSE.values()).split(), random.Random(1)
    texts = [" ".join(chance.choices(words, k=60)) for _ in range(60)]
    rows = [{"text": f"{text} {end}", "url": f"{number}/{end}"} for number, text in enumerate(texts) for end in "ab"]
    (tmp_path / "web.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    straddling = {}
    for stages in (["extract", "tokenize"], ["extract", "dedup", "tokenize"]):
        config = CorpusConfig.model_validate(
            {
                "name": "t",
                "sources": [{"name": "web", "type": "jsonl", "paths": [str(tmp_path / "web.jsonl")]}],
                "stages": stages,
                "extract": {"extractor": "none"},
                "tokenize": {"tokenizer": {"vocab_size": 300}, "sequence_length": SIZE, "validation": 0.3},
                "executor": {"workers": 1},
            }
        )
        run = tmp_path / f"run{len(stages)}"
        build_corpus(config, run, Path())
        sides: dict[str, set[str]] = {"train": set(), "validation": set()}
        for row in pq.read_table(run / "shards/documents.parquet").to_pylist():
            sides[row["split"]].add(row["url"].partition("/")[0])
        assert len(sides["train"] | sides["validation"]) == len(texts)
        straddling[len(stages)] = len(sides["train"] & sides["validation"])
    assert straddling[2] > 0
    assert straddling[3] == 0


def test_phase_of_an_unknown_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="there is no source or stream `boks`; there are: books, web"):
        build(tmp_path, phases=[{"start": 0.5, "weights": {"boks": 1.0}}])


def test_other_weights_rewrite_the_manifest_alone(tmp_path: Path) -> None:
    folder = build(tmp_path)
    files = {path: path.stat().st_ino for path in folder.rglob("*") if path.name != "manifest.json"}
    first = json.loads((folder / "manifest.json").read_bytes())
    build(tmp_path, phases=[{"start": 0.9, "weights": {"web": 0.5}}])
    second = json.loads((folder / "manifest.json").read_bytes())
    assert {path: path.stat().st_ino for path in folder.rglob("*") if path.name != "manifest.json"} == files
    assert [len(manifest["phases"]) for manifest in (first, second)] == [1, 2]
    changed = {"phases", "fingerprint", "plan", "lineage"}
    assert {key for key in second if first[key] != second[key]} == changed
    assert verify(folder).problems == []
    with pytest.raises(PipelineError, match="there is no source or stream `boks`"):
        build(tmp_path, phases=[{"start": 0.5, "weights": {"boks": 1.0}}])
    assert json.loads((folder / "manifest.json").read_bytes()) == second
    build(tmp_path, packing="best_fit")
    assert {path: path.stat().st_ino for path in folder.rglob("*.mds*")}.items().isdisjoint(files.items())


@pytest.mark.parametrize("setting", [{"compression": "lz4"}, {"hashes": ["crc32"]}])
def test_unknown_compressions_and_hashes_are_refused_at_once(setting: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="tokenize"):
        CorpusConfig.model_validate({"name": "t", "sources": [], "tokenize": setting})
