"""Find the document that ends the process which works on it, and build the stage without it.

A task that dies or fails every time is run twice more with its readers recording where they stand, a document at a
time (`recording`, `at_hand`): the record outlives the process. Where both runs end at the same document, that one is to
blame. It is left out of the stage's input and written among its dropped documents by rule `crashed`, so that
in = kept + dropped holds; what is written does not depend on the executor, nor on how the process died.
Costs nothing but a comparison a document until a task has failed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import PretrainError
from common.files import MANIFEST, atomic_file, hash_file, read_json, write_json

RULE = "crashed"
DETAIL = "ended the process that worked on it, each time"
DETAIL_READING = "reading on from here ended the process, each time"


@dataclass(frozen=True, order=True)
class Place:
    """Where a reading stood: at a document, or (`reading`) behind it, on the way to the next.

    file: key of an input file, or path of a parquet file; position: offset of a raw document (-1: none was read
    yet), or row.
    """

    file: str
    position: int
    reading: bool = False


_record: int | None = None  # file descriptor, in a task that is looked into


@contextmanager
def recording(path: Path) -> Iterator[None]:
    """Let `at_hand` write to `path` inside the block; the file stays where a document may have ended the block."""
    global _record
    path.parent.mkdir(parents=True, exist_ok=True)
    _record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        yield
        path.unlink()
    except (PretrainError, OSError) as error:
        if is_final(error):
            path.unlink()
        raise
    finally:
        os.close(_record)
        _record = None


def is_final(error: BaseException | None) -> bool:
    """Whether a task's error is one for which no document is to blame: a message for people, a full disk."""
    wants_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return isinstance(error, (PretrainError, OSError)) and not wants_memory


def is_recording() -> bool:
    """Whether readers are to hand out documents one by one."""
    return _record is not None


def at_hand(file: str, position: int, *, reading: bool = False) -> None:
    """Say where a reading stands."""
    if _record is not None:
        os.pwrite(_record, json.dumps([file, position, reading]).encode() + b"\n", 0)


def recorded(path: Path) -> Place | None:
    """Where the process that left this record ended; None where no document is to blame."""
    line = path.read_bytes().partition(b"\n")[0] if path.is_file() else b""
    place = Place(*json.loads(line)) if line else None
    return place if place and place.file else None


def read_places(workdir: Path) -> tuple[Place, ...]:
    """The documents that this building of a stage leaves out."""
    path = workdir / ".crashed/places.json"
    return tuple(Place(**entry) for entry in read_json(path)) if path.is_file() else ()


def leave_out(workdir: Path, places: Iterable[Place], *, afresh: bool) -> None:
    """Leave these documents out from now on. `afresh`: forget what other tasks have done, too."""
    if afresh:
        shutil.rmtree(workdir)
    write_json(workdir / ".crashed/places.json", [asdict(place) for place in sorted(places)])


def without(inputs: tuple[Path, ...], places: tuple[Place, ...], workdir: Path) -> tuple[Path, ...]:
    """The stage's input files without the documents left out: a folder like the stage before, mostly of links."""
    if not places or not inputs:
        return inputs
    folder = workdir / ".crashed/input"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    found = []
    for path in inputs:
        rows = {place.position for place in places if place.file == path.name}
        found.append(folder / "data" / path.name)
        if rows:
            table = pq.read_table(path)
            kept = pa.array([row not in rows for row in range(table.num_rows)])
            with atomic_file(found[-1]) as file:
                pq.write_table(table.filter(kept), file)
        else:
            os.link(path, found[-1])
    # What else reads the folder (pipeline.quality) knows it by the hashes in its manifest.
    files = {f"data/{path.name}": {"bytes": path.stat().st_size, "xxh3": hash_file(path)} for path in found}
    write_json(folder / MANIFEST, {"files": files})
    return tuple(found)


def original(place: Place, places: tuple[Place, ...]) -> Place:
    """A place in a file of `without`, as a place in the stage's own input."""
    row, name = place.position, Path(place.file).name
    for other in sorted(places):
        row += other.file == name and other.position <= row
    return Place(name, row)


def left_out(inputs: Sequence[Path], places: tuple[Place, ...]) -> Iterator[pa.Table]:
    """The rows left out, a table for each file that has some."""
    for path in inputs:
        rows = [place.position for place in sorted(places) if place.file == path.name]
        if rows:
            yield pq.read_table(path).take(rows)
