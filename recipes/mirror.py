"""A local copy of a run folder in object storage: to train in, pushed after every checkpoint, and to look into.

The corpus is built there by `pipeline.depot`.

Object stores cannot rename, so a remote folder counts as complete only while it has a manifest.json: `push` deletes
the manifest, uploads the changed files, then uploads the new manifest. A killed upload leaves a folder without a
manifest, which the next push completes.

.mirror.json in the local copy records what was transferred (size and time of the local file, identity of the remote
one), so that only files that changed on either side are moved again. fsspec's clients retry with backoff; a file that
still fails ends the run, and the same command resumes it. Only one machine at a time may use an address.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import xxhash

from common.errors import RecipeError
from common.files import MANIFEST, list_names
from common.observe import Observer

COPIES, CONTROLLERS = Path("runs/.mirror"), Path("runs/.controller")
_NOTES = ".mirror.json"
_IDENTITY = ("ETag", "etag", "md5", "content_md5", "LastModified", "last_modified", "mtime", "size")


def is_remote(address: str) -> bool:
    """Whether `address` has a scheme, as in s3://bucket/runs."""
    return "://" in address


def local_copy(address: str, below: Path = COPIES) -> Path:
    """The folder of the working copy of the run folder at `address`; below CONTROLLERS: of its controller."""
    name = address.rstrip("/").rpartition("/")[2]
    return below / f"{name}-{xxhash.xxh3_64_hexdigest(address)[:8]}"


class Mirror:
    """The run folder at `address` (any fsspec URL) and its local copy. Raises RecipeError if fsspec cannot open it."""

    def __init__(self, address: str, local: Path) -> None:
        import fsspec

        try:
            self.files, self.root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise RecipeError(f"runs: cannot open {address}: {error}") from error
        self.address, self.local = address, local
        self.local.mkdir(parents=True, exist_ok=True)

    def pull(self, wanted: Callable[[str], bool] = lambda name: True) -> None:
        """Download what is newer in the store, manifests last; files of stages that are gone there are deleted.

        wanted: which names to download; of others no older file stays.

        Processes of one machine that share the copy (torchrun's ranks) take turns; only the first has work to do.
        """
        with (self.local / ".mirror.lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            notes, listing = self._notes(), self._listing()
            outdated = {name for name in notes if notes[name]["remote"] != listing.get(name) and not wanted(name)}
            for name in (notes.keys() - listing.keys()) | outdated:
                if name.startswith(("corpus/", "shards/")):  # a stage that was built again
                    (self.local / name).unlink(missing_ok=True)
                    del notes[name]
            for name in sorted(filter(wanted, listing), key=_manifests_last):
                if name in notes and notes[name]["remote"] == listing[name]:
                    continue
                path = self.local / name
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f".{path.name}.part")
                self.files.get_file(f"{self.root}/{name}", str(part))
                part.replace(path)
                notes[name] = {"local": _stamp(path), "remote": listing[name]}
            self._write(notes)

    def push(self) -> None:
        """Upload what changed locally and delete from the store what is gone locally; hidden files are scratch."""
        notes = self._notes()
        paths = {name: self.local / name for name in list_names(self.local)}
        changed = {name for name, path in paths.items() if notes.get(name, {}).get("local") != _stamp(path)}
        gone = notes.keys() - paths.keys()
        touched = {str(folder) for name in changed | gone for folder in PurePath(name).parents}
        withdrawn = {name for name in notes if _is_manifest(name) and str(PurePath(name).parent) in touched}
        for name in withdrawn:
            self._delete(name)
            del notes[name]
            self._write(notes)
        for name in sorted(changed | (withdrawn & paths.keys()), key=_manifests_last):
            self.files.put_file(str(paths[name]), f"{self.root}/{name}")
            notes[name] = {"local": _stamp(paths[name]), "remote": None}
        for name in gone - withdrawn:
            self._delete(name)
            del notes[name]
        listing = self._listing()
        for name, note in notes.items():
            note["remote"] = note["remote"] or listing.get(name)  # of the others the store may have newer ones
        self._write(notes)

    def _delete(self, name: str) -> None:
        if self.files.exists(f"{self.root}/{name}"):
            self.files.rm_file(f"{self.root}/{name}")

    def _listing(self) -> dict[str, str]:
        """{name below the root: identity of its content} of every remote file."""
        self.files.invalidate_cache()
        remote = self.files.find(self.root, detail=True) if self.files.exists(self.root) else {}
        prefix = self.root.rstrip("/") + "/"
        return {
            path.removeprefix(prefix): json.dumps({key: str(info[key]) for key in _IDENTITY if info.get(key)})
            for path, info in remote.items()
            if "/." not in path.removeprefix(self.root)
        }

    def _notes(self) -> dict[str, dict[str, Any]]:
        path = self.local / _NOTES
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _write(self, notes: dict[str, dict[str, Any]]) -> None:
        part = self.local / f"{_NOTES}.part"
        part.write_text(json.dumps(notes), encoding="utf-8")
        part.replace(self.local / _NOTES)


def pushing(observer: Observer, mirror: Mirror | None) -> Observer:
    """Have `observer` push to the mirror after each checkpoint (rank 0 alone)."""
    if mirror is None or os.environ.get("RANK", "0") != "0":
        return observer

    def then_push(report: Callable[..., None]) -> Callable[..., None]:
        def report_and_push(*arguments: Any) -> None:
            report(*arguments)
            mirror.push()

        return report_and_push

    for name in ("checkpointed", "finished"):
        setattr(observer, name, then_push(getattr(observer, name)))
    return observer


def _is_manifest(name: str) -> bool:
    return PurePath(name).name == MANIFEST


def _manifests_last(name: str) -> tuple[bool, str]:
    return _is_manifest(name), name


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
