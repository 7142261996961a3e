"""The stage on files: survivors whatever the cut, kills and damage, rules, scopes, earlier corpora, lines."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.dedup.table
from common.errors import PipelineError
from common.files import publish_folder
from pipeline.config import DedupConfig, Source
from pipeline.dedup.stage import manifest, passes
from pipeline.documents import BASE_SCHEMA, document_id
from pipeline.stage import Build

Row = dict[str, Any]


def corpus(clusters: int = 40, seed: int = 3) -> list[Row]:
    """Clusters of one to six documents: copies, copies in capitals, and copies with a few words changed."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(3000)]
    rows = []
    for cluster in range(clusters):
        base = draw.choices(words, k=120)
        for member in range(1 + cluster % 6):
            text = list(base)
            if member % 3:
                text[draw.randrange(120)] = draw.choice(words)
            if member % 3 == 2:
                text += draw.choices(words, k=3)
            joined = " ".join(text)
            rows.append({"text": joined.upper() if member == 3 else joined, "of": cluster})
    draw.shuffle(rows)
    for number, row in enumerate(rows):
        path = f"{('web', 'books')[number % 2]}/{number % 5}.gz"
        row |= {"source": path.split("/")[0], "path": path, "offset": number, "id": document_id(path, number)}
        row |= {"url": f"https://a.example/{number}", "date": f"2026-01-{1 + number % 28:02d}"}
    return rows


def write(folder: Path, rows: list[Row], files: int, order: str = "contiguous") -> tuple[Path, ...]:
    folder.mkdir(parents=True)
    parts = [rows[i::files] for i in range(files)]
    if order == "contiguous":
        bounds = [len(rows) * i // files for i in range(files + 1)]
        parts = [rows[low:high] for low, high in itertools.pairwise(bounds)]
    for number, part in enumerate(parts):
        filled = [{field.name: row.get(field.name) for field in BASE_SCHEMA} for row in part]
        pq.write_table(pa.Table.from_pylist(filled, BASE_SCHEMA), folder / f"{number:05d}.parquet")
    return tuple(sorted(folder.glob("*.parquet")))


def make_build(folder: Path, inputs: tuple[Path, ...], **settings: Any) -> Build:
    sources = tuple(Source(name=name, type="jsonl", paths=["x"]) for name in ("web", "books"))
    return Build(DedupConfig(**settings), sources, 1, folder, inputs, folder / "work", "mark")


def run(build: Build, ranks: Any = range) -> dict[str, Row]:
    """All passes in this process; the rows that were read, by id, dropped ones with their rule."""
    for step in passes(build):
        for rank in ranks(step.tasks):
            step.run(rank=rank)
    return result(build)


def result(build: Build) -> dict[str, Row]:
    files = [*sorted(build.workdir.glob("data/*.parquet")), *sorted(build.workdir.glob("dropped/*.parquet"))]
    return {row["id"]: row for path in files for row in pq.read_table(path).to_pylist()}


def dropped(rows: dict[str, Row]) -> dict[str, Row]:
    return {key: row for key, row in rows.items() if row.get("rule")}


def test_planted_clusters_are_found_and_each_keeps_one(tmp_path: Path) -> None:
    rows = corpus()
    found = run(make_build(tmp_path, write(tmp_path / "in", rows, 2)))
    truth = {row["id"]: row["of"] for row in rows}
    assert set(found) == set(truth)
    kept = [key for key in found if not found[key].get("rule")]
    assert sorted(truth[key] for key in kept) == list(range(40))
    for key, row in found.items():
        assert row["cluster_size"] == sum(of == truth[key] for of in truth.values())
        assert truth[row["cluster"]] == truth[key]
    for key, row in dropped(found).items():
        assert row["duplicate_of"] == row["cluster"] != key
        assert row["similarity"] == row["value"] >= row["threshold"]
        assert (row["rule"] == "exact_duplicate") == (row["threshold"] == 1.0)
    assert {row["rule"] for row in dropped(found).values()} == {"exact_duplicate", "near_duplicate"}


@pytest.mark.parametrize("survivor", ["first", "longest", "newest"])
def test_survivors_do_not_depend_on_how_documents_are_cut(
    tmp_path: Path, survivor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.dedup.table, "SEGMENT", 50)
    monkeypatch.setattr(pipeline.dedup.signatures, "SEGMENT", 50)
    rows = corpus()
    outcomes = []
    for files, order in [(1, "contiguous"), (3, "contiguous"), (7, "contiguous"), (3, "round robin")]:
        folder = tmp_path / f"{files}{order}"
        small = {"partition_bytes": 20_000} if files == 3 else {}
        build = make_build(folder, write(folder / "in", rows, files, order), survivor=survivor, **small)
        outcomes.append(run(build, (lambda tasks: reversed(range(tasks))) if files == 7 else range))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    by_cluster: dict[str, list[Row]] = {}
    for row in outcomes[0].values():
        by_cluster.setdefault(row["cluster"], []).append(row)
    for survivor_id, members in by_cluster.items():
        best = next(row for row in members if row["id"] == survivor_id)
        if survivor == "first":
            assert best == min(members, key=lambda row: (row["source"] == "books", row["path"], row["offset"]))
        else:
            column = {"longest": lambda row: len(row["text"]), "newest": lambda row: row["date"]}[survivor]
            assert column(best) == max(map(column, members))


def test_exact_verification(tmp_path: Path) -> None:
    rows = corpus(12)
    words = {row["id"]: row["text"].lower().split() for row in rows}
    sets = {key: {tuple(text[i : i + 5]) for i in range(len(text) - 4)} for key, text in words.items()}
    build = make_build(tmp_path, write(tmp_path / "in", rows, 2), verify_by="exact", partition_bytes=30_000)
    found = dropped(run(build))
    assert found
    for key, row in found.items():
        one, other = sets[key], sets[row["duplicate_of"]]
        assert row["similarity"] == pytest.approx(len(one & other) / len(one | other))


@pytest.mark.parametrize("verify_by", ["estimate", "exact"])
def test_of_a_chain_every_dropped_document_is_like_its_survivor(tmp_path: Path, verify_by: str) -> None:
    base = corpus(1)[0]["text"].split() * 5
    words = [f"{word}{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 60]}" for i, word in enumerate(base)]
    rows = corpus(12)
    for number, row in enumerate(rows[:12]):
        row["text"] = " ".join(words[20 * number : 20 * number + 300])
    rows[12]["text"] = rows[5]["text"].upper()
    outcomes = []
    for files in (1, 3, 7):
        folder = tmp_path / str(files)
        build = make_build(
            folder, write(folder / "in", rows, files), verify_by=verify_by, partition_bytes=200_000 // files
        )
        outcomes.append(run(build))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    chain = [outcomes[0][row["id"]] for row in rows[:12]]
    assert 1 < len({row["cluster"] for row in chain}) < 12
    assert all(row["similarity"] >= 0.75 for row in dropped(outcomes[0]).values())
    pair = [outcomes[0][rows[number]["id"]] for number in (5, 12)]
    assert pair[0]["cluster"] == pair[1]["cluster"]
    sizes = Counter(row["cluster"] for row in outcomes[0].values())
    assert all(row["cluster_size"] == sizes[row["cluster"]] for row in outcomes[0].values())


def test_scopes_do_not_meet_and_a_missing_column_is_named(tmp_path: Path) -> None:
    rows = corpus(12)
    found = run(make_build(tmp_path / "a", write(tmp_path / "in", rows, 2), scope="source"))
    assert all(row["source"] == found[row["cluster"]]["source"] for row in found.values())
    with pytest.raises(PipelineError, match="no column `language`"):
        run(make_build(tmp_path / "b", write(tmp_path / "other", rows, 1), scope="language"))


def test_only_exact_and_only_near(tmp_path: Path) -> None:
    inputs = write(tmp_path / "in", corpus(12), 2)
    exact = run(make_build(tmp_path / "a", inputs, minhash=False))
    assert {row["rule"] for row in dropped(exact).values()} == {"exact_duplicate"}
    near = run(make_build(tmp_path / "b", inputs, exact=False))
    assert {row["rule"] for row in dropped(near).values()} == {"near_duplicate"}
    assert set(dropped(exact)) <= set(dropped(near))


@pytest.mark.parametrize("verify_by", ["estimate", "exact"])
def test_an_earlier_corpus_is_named_for_what_it_holds(tmp_path: Path, verify_by: str) -> None:
    rows = corpus(24)
    old = make_build(tmp_path / "old", write(tmp_path / "in-old", [row for row in rows if row["of"] < 12], 2))
    kept_before = {key for key, row in run(old).items() if not row.get("rule")}
    for scratch in old.workdir.glob(".*"):
        subprocess.run(["rm", "-r", str(scratch)], check=True)
    publish_folder(old.workdir, tmp_path / "runs/old/corpus/03-dedup", manifest(old))
    fresh = [
        row | {"id": document_id("new", i), "path": "web/new", "offset": i}
        for i, row in enumerate(rows)
    ]  # fmt: skip
    build = make_build(tmp_path, write(tmp_path / "in", fresh, 3), against=["runs/old"], verify_by=verify_by)
    found = run(build)
    truth = {row["id"]: row["of"] for row in [*rows, *fresh]}
    assert set(found) == {row["id"] for row in fresh}
    for key, row in found.items():
        if truth[key] < 12:
            assert row["rule"] in ("exact_known", "near_known")
            assert row["duplicate_of"] in kept_before
            assert truth[row["duplicate_of"]] == truth[key]
            assert row["detail"].split()[1].startswith("https://a.example/")
        else:
            assert row["rule"] in (None, "exact_duplicate", "near_duplicate") if "rule" in row else True
    assert all(row["similarity"] >= 0.75 for row in dropped(found).values())
    with pytest.raises(PipelineError, match="made with `ngram` 5, this recipe's with 4"):
        run(make_build(tmp_path / "x", build.inputs, against=[str(tmp_path / "runs/old")], ngram=4))
    with pytest.raises(PipelineError, match="no index in"):
        run(make_build(tmp_path / "x", build.inputs, against=["nowhere"]))
    index = next((tmp_path / "runs/old/corpus/03-dedup/index").glob("*.parquet"))
    index.write_bytes(index.read_bytes()[:-7])
    with pytest.raises(PipelineError, match=rf"{index.name}"):
        run(make_build(tmp_path / "y", build.inputs, against=[str(tmp_path / "runs/old")]))


def test_an_index_of_signatures_alone_serves_no_exact_verification(tmp_path: Path) -> None:
    inputs = write(tmp_path / "in", corpus(6), 1)
    old = make_build(tmp_path / "old", inputs, verify_by="estimate")
    run(old)
    publish_folder(old.workdir, tmp_path / "old/published", manifest(old))
    with pytest.raises(PipelineError, match="made with `verify_by` 'estimate', this recipe's with 'exact'"):
        run(make_build(tmp_path / "new", inputs, against=[str(tmp_path / "old/published")]))


def test_recurring_lines_of_a_site_are_cut_from_all_documents_but_one(tmp_path: Path) -> None:
    rows = corpus()
    for number, row in enumerate(rows):
        row["url"] = f"https://{('a', 'b')[number % 2]}.example/{number}"
        row["text"] = f"Accept all cookies\n{row['text']}\n  Imprint of {row['url'][8]}  "
    rows[0]["text"] = "Accept all cookies"
    found = run(make_build(tmp_path, write(tmp_path / "in", rows, 2), line_documents=4))
    kept = [row for row in found.values() if not row.get("rule")]
    for site in ("a", "b"):
        texts = [row["text"] for row in kept if f"//{site}." in row["url"]]
        lines = [line for text in texts for line in text.split("\n")]
        alone = [row for row in dropped(found).values() if row["rule"] == "recurring_lines"]
        assert sum(line == "Accept all cookies" for line in lines) == 1
        assert sum(line.strip() == f"Imprint of {site}" for line in lines) == 1
        assert all(row["text"] == "Accept all cookies" for row in alone)
    assert all(row["text"].count("\n") in (0, 1, 2) for row in kept)


SCRIPT = """
import sys
from pathlib import Path
from tests.pipeline.dedup.test_dedup_stage import make_build, run
folder = Path(sys.argv[1])
print("ready", flush=True)
run(make_build(folder, tuple(sorted((folder / "in").glob("*.parquet"))), line_documents=3))
"""


def test_killed_at_random_points_it_ends_with_the_same_files(tmp_path: Path) -> None:
    rows = corpus(60)
    calm = make_build(tmp_path / "calm", write(tmp_path / "calm/in", rows, 3), line_documents=3)
    run(calm)
    inputs = write(tmp_path / "killed/in", rows, 3)
    killed = make_build(tmp_path / "killed", inputs, line_documents=3)
    draw = random.Random(5)
    kills = 0
    for delay in (0.05, 0.2, 0.5, 0.9):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay * draw.uniform(0.5, 1.5))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
    run(killed)
    assert kills
    assert published(killed.workdir) == published(calm.workdir)


def published(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.parquet"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


@pytest.mark.parametrize("harm", ["truncated", "flipped", "removed"])
def test_damaged_intermediate_files_are_rebuilt(tmp_path: Path, harm: str) -> None:
    build = make_build(tmp_path, write(tmp_path / "in", corpus(30), 3), line_documents=3)
    run(build)
    before = published(build.workdir)
    files = [path for path in sorted((build.workdir / ".scratch").rglob("*")) if path.is_file()]
    assert len(files) > 20
    for path in files[:: 1 if harm == "flipped" else 3]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.unlink()
        if harm != "removed":
            path.write_bytes(bytes(data) if harm == "flipped" else bytes(data)[:-3])
    subprocess.run(["rm", "-r", str(build.workdir / "data")], check=True)
    run(build)
    assert published(build.workdir) == before


@pytest.mark.parametrize("file", ["shingles.bin", "band.bin", "columns.bin", "strings.bin"])
def test_a_file_that_is_cut_short_under_a_running_pass_is_named(tmp_path: Path, file: str) -> None:
    build = make_build(tmp_path, write(tmp_path / "in", corpus(30), 2))
    with pytest.raises(PipelineError, match=rf"{file}: damaged intermediate file"):  # noqa: PT012
        for step in passes(build):
            for rank in range(step.tasks):
                step.run(rank=rank)
            if step.name == "signatures":
                path = build.workdir / f".scratch/documents/00001-00000/{file}"
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_keys_out_of_order_are_named(tmp_path: Path) -> None:
    build = make_build(tmp_path, write(tmp_path / "in", corpus(30), 2))
    steps = passes(build)
    step = next(steps)
    for rank in range(step.tasks):
        step.run(rank=rank)
    path = build.workdir / ".scratch/documents/00000-00000/band.bin"
    data = path.read_bytes()
    end = 8 + len(data) // 12 * 8
    path.write_bytes(data[:8] + np.frombuffer(data[8:end], np.uint64)[::-1].tobytes() + data[end:])
    next(steps).run(rank=0)
    with pytest.raises(PipelineError, match=r"band\.bin: .*not in order"):
        next(steps).run(rank=0)
