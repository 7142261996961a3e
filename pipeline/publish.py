"""A corpus as a folder for the Hugging Face Hub, with all that it takes to make it again; and the comparison of two.

    data/NNNNN.parquet   the documents that the last stage with texts kept, all their columns
    README.md            the Hub's header, counts, licenses, how it was made; croissant.json: the same for programs
    recipe.yaml          the resolved recipe; forgotten.json, where documents were taken out
    manifest.json        written last: fingerprints of the stages, hashes of inputs and files, versions

Writing and comparing hold one batch of documents in memory and read each file once; where files differ in their bytes,
their documents are compared one by one, since other versions of libraries may write the same documents otherwise.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import PipelineError
from common.files import changed_files, dump_json, publish_folder, read_manifest, write_atomically
from common.runfolder import Row, RunFolder
from pipeline.datacard import Facts, croissant, dataset_card
from pipeline.documents import Counts, add_counts, parquet_file, read_batches, read_schema

FORMAT = 1
LIBRARIES = ("pyarrow", "numpy", "numba", "tokenizers", "datatrove", "fastwarc", "resiliparse", "warcio")


def write_dataset(run: RunFolder, output: Path, sources: list[Row]) -> Path:
    """Write the folder, in place of an earlier one. sources: the recipe's. Raises PipelineError without documents."""
    if not run.text_stages:
        raise PipelineError(f"{run.path}: no finished stage with documents; build the corpus first")
    if output.exists() and read_manifest(output) is None:
        raise PipelineError(f"{output}: exists and is no data set of `pretrain export`; name another `--output`")
    building = output.with_name(f".{output.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    (building / "data").mkdir(parents=True)
    stages = list(run.text_stages.values())
    counts: Counts = {"languages": {}, "sources": {}}
    for path in sorted(stages[-1].data.glob("*.parquet")):
        _write_documents(path, building / "data" / path.name, counts)
    for path in (run.recipe, run.forgotten):
        if path.is_file():
            shutil.copy(path, building)
    facts = Facts(run.name, sources, [stage.stats for stage in stages], counts)
    write_atomically(building / "README.md", dataset_card(facts).encode())
    write_atomically(building / "croissant.json", dump_json(croissant(facts, building)).encode())
    manifest = {
        "format": FORMAT,
        "name": run.name,
        "documents": facts.documents,
        "stages": {stage.name: stage.manifest["fingerprint"] for stage in stages},
        "inputs": stages[0].manifest.get("inputs", {}),
        "versions": _versions(),
    }
    publish_folder(building, output, manifest)
    return output


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def _write_documents(path: Path, target: Path, counts: Counts) -> None:
    """Copy the documents of a file, and count them."""
    with parquet_file(target, read_schema(path).remove_metadata()) as write:
        for table in read_batches(path):
            write(table)
            none = ["und"] * table.num_rows
            languages = table["language"].to_pylist() if "language" in table.column_names else none
            sizes = [len(text.encode()) for text in table["text"].to_pylist()]
            for language, source, size in zip(languages, table["source"].to_pylist(), sizes, strict=True):
                one = {"documents": 1, "bytes": size}
                add_counts(counts, {"languages": {language: one}, "sources": {source: one}})


class Difference(NamedTuple):
    """The first document in which two folders differ. column: `id` where it is another document, or missing."""

    file: str
    row: int
    document: Row
    column: str
    theirs: Any
    ours: Any


def read_dataset(folder: Path) -> dict[str, Any]:
    """The manifest of a data set folder. Raises PipelineError where there is none, or a file was changed since."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("format") != FORMAT or "stages" not in manifest:
        raise PipelineError(f"{folder}: not a data set of `pretrain export --format dataset` (no such manifest.json)")
    if changed := changed_files(folder, manifest):
        raise PipelineError(f"{folder / changed[0]}: missing or changed since it was exported; fetch the folder again")
    return manifest


def changed_inputs(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Input files that differ between two manifests, and how."""
    hashes = theirs["inputs"], ours["inputs"]
    how = {(True, True): "differs", (True, False): "missing here", (False, True): "not among theirs"}
    return [
        f"{key}: {how[key in hashes[0], key in hashes[1]]}"
        for key in sorted(hashes[0].keys() | hashes[1].keys())
        if hashes[0].get(key) != hashes[1].get(key)
    ]


def first_difference(theirs: Path, ours: Path) -> Difference | None:
    """The first document that differs, by file and row; None where all are the same."""
    names = sorted({path.name for folder in (theirs, ours) for path in (folder / "data").glob("*.parquet")})
    for name in names:
        files = [folder / "data" / name for folder in (theirs, ours)]
        for row, pair in enumerate(zip_longest(*map(_documents, files))):
            if difference := _compare(f"data/{name}", row, *pair):
                return difference
    return None


def _documents(path: Path) -> Iterator[Row]:
    tables = read_batches(path) if path.is_file() else iter(())
    return chain.from_iterable(table.to_pylist() for table in tables)


def _compare(file: str, row: int, theirs: Row | None, ours: Row | None) -> Difference | None:
    one, other = theirs or {}, ours or {}
    columns = ["id", *one.keys(), *(other.keys() - one.keys())]
    differing = (name for name in columns if repr(one.get(name)) != repr(other.get(name)))  # NaN is equal to NaN
    column = next(differing, None)
    about = {name: (one or other).get(name) for name in ("id", "url", "path")}
    if column is None:
        return None
    return Difference(file, row, about, column, one.get(column), other.get(column))
