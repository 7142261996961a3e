"""A run folder in object storage: worked on in a local copy, published stage by stage and checkpoint by checkpoint.

Object stores cannot rename, so what makes a folder whole is its manifest.json: before files of a published folder
change, its manifest goes; after they have all arrived, it comes back, last. A reader that finds a manifest finds
what it lists; a killed upload leaves a folder without one, which the next run completes.

What was sent or fetched is noted in .mirror.json of the local copy (size and time of the local file, identity of
the remote one), so a second run moves only what changed on either side. fsspec's clients retry with backoff; a
file that still fails ends the run, and the same command goes on. One machine at a time may work on an address.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from common.errors import RecipeError
from common.observe import Observer

COPIES = Path("runs/.mirror")
_NOTES = ".mirror.json"
_MANIFEST = "manifest.json"
_IDENTITY = ("ETag", "etag", "md5", "content_md5", "LastModified", "last_modified", "mtime", "size")


def is_remote(address: str) -> bool:
    """Whether `address` has a scheme, as in s3://bucket/runs."""
    return "://" in address


def local_copy(address: str) -> Path:
    """Where the run folder at `address` is worked on."""
    name = address.rstrip("/").rpartition("/")[2]
    return COPIES / f"{name}-{xxhash.xxh3_64_hexdigest(address)[:8]}"


class Mirror:
    """The run folder at `address` (fsspec) and its local copy. Raises RecipeError where the store cannot be used."""

    def __init__(self, address: str, local: Path) -> None:
        import fsspec

        try:
            self.files, self.root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise RecipeError(f"runs: cannot open {address}: {error}") from error
        self.address, self.local = address, local
        self.local.mkdir(parents=True, exist_ok=True)

    def pull(self) -> None:
        """Fetch what is newer in the store; a local file that the store no longer has is left alone.

        Processes of one machine that share the copy (torchrun's ranks) take turns, and the later ones find it done.
        """
        with (self.local / ".mirror.lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            self._fetch()

    def _fetch(self) -> None:
        notes = self._notes()
        self.files.invalidate_cache()
        listing = self._listing()
        for name in sorted(listing, key=lambda name: (name.endswith(_MANIFEST), name)):
            note, identity = notes.get(name), listing[name]
            if note is None or note["remote"] != identity:
                place = self.local / name
                place.parent.mkdir(parents=True, exist_ok=True)
                part = place.with_name(f".{place.name}.part")
                self.files.get_file(f"{self.root}/{name}", str(part))
                part.replace(place)
                notes[name] = {"local": _stamp(place), "remote": identity}
        self._keep(notes)

    def push(self) -> None:
        """Send what changed here, manifests last, and remove from the store what is gone here."""
        notes = self._notes()
        here = {str(path.relative_to(self.local)): path for path in sorted(self.local.rglob("*")) if self._counts(path)}
        changed = [name for name, path in here.items() if notes.get(name, {}).get("local") != _stamp(path)]
        gone = [name for name in notes if name not in here]
        for name in _manifests(changed + gone, notes):
            self.files.rm_file(f"{self.root}/{name}")
            del notes[name]
            self._keep(notes)
        gone = [name for name in gone if name in notes]
        touched = {name for name in here if name.endswith(_MANIFEST) and name not in notes}
        for name in [*(n for n in changed if not n.endswith(_MANIFEST)), *sorted(touched)]:
            self.files.put_file(str(here[name]), f"{self.root}/{name}")
            notes[name] = {"local": _stamp(here[name]), "remote": None}
        for name in gone:
            if self.files.exists(f"{self.root}/{name}"):
                self.files.rm_file(f"{self.root}/{name}")
            del notes[name]
        self.files.invalidate_cache()
        listing = self._listing()
        for name in notes:
            notes[name]["remote"] = listing.get(name)
        self._keep(notes)

    def _listing(self) -> dict[str, str]:
        """{name below the root: what identifies its content} of every remote file."""
        found = self.files.find(self.root, detail=True) if self.files.exists(self.root) else {}
        prefix = self.root.rstrip("/") + "/"
        return {
            path.removeprefix(prefix): json.dumps({key: str(info[key]) for key in _IDENTITY if info.get(key)})
            for path, info in found.items()
        }

    def _counts(self, path: Path) -> bool:
        """Whether a local file is part of the run: hidden ones are scratch."""
        return path.is_file() and not any(part.startswith(".") for part in path.relative_to(self.local).parts)

    def _notes(self) -> dict[str, dict[str, Any]]:
        path = self.local / _NOTES
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _keep(self, notes: dict[str, dict[str, Any]]) -> None:
        part = self.local / f"{_NOTES}.part"
        part.write_text(json.dumps(notes), encoding="utf-8")
        part.replace(self.local / _NOTES)


def pushing(observer: Observer, mirror: Mirror | None) -> Observer:
    """Have `observer` push to the mirror after each finished stage and checkpoint (rank 0 alone)."""
    if mirror is None or os.environ.get("RANK", "0") != "0":
        return observer
    for name in ("stage_finished", "checkpointed", "finished"):
        setattr(observer, name, _then_push(getattr(observer, name), mirror))
    return observer


def _then_push(report: Callable[..., None], mirror: Mirror) -> Callable[..., None]:
    def report_and_push(*arguments: Any) -> None:
        report(*arguments)
        mirror.push()

    return report_and_push


def _manifests(names: list[str], notes: dict[str, dict[str, Any]]) -> list[str]:
    """Manifests in the store of the folders that `names` lie in."""
    folders = {str(parent) for name in names for parent in (Path(name), *Path(name).parents)}
    return [name for name in notes if name.endswith(_MANIFEST) and str(Path(name).parent) in folders]


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
