"""The list of documents that were taken out of a corpus for good, which every later build in its run folder honours.

    runs/<name>/forgotten.json    {"documents": [ids], "addresses": [hashes]}

It holds hashes alone: ids of documents, which are hashes of file and offset, and BLAKE2b-128 of addresses, so that a
page is recognised in files that are added later. `extract` enters a listed document by rule `forgotten`, without text,
address, date and metadata; the list is part of that stage's fingerprint. Without a list nothing changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.errors import PipelineError
from common.files import read_json, write_json
from common.runfolder import RunFolder

RULE = "forgotten"


@dataclass(frozen=True)
class Forgotten:
    """documents: ids; addresses: as `hash_address` writes them."""

    documents: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.documents or self.addresses)

    def covers(self, document: str, url: str) -> bool:
        """Whether a document is on the list, by id or by address."""
        return document in self.documents or bool(self.addresses and url and hash_address(url) in self.addresses)

    def with_more(self, documents: Iterable[str], urls: Iterable[str]) -> Forgotten:
        """The list with more ids and addresses."""
        return Forgotten(self.documents | {*documents}, self.addresses | {hash_address(url) for url in urls})

    def dump(self) -> dict[str, list[str]]:
        return {"documents": sorted(self.documents), "addresses": sorted(self.addresses)}

    def write(self, run: Path) -> None:
        """Write the list into a run folder."""
        write_json(RunFolder(run).forgotten, self.dump())


NOTHING = Forgotten()


def hash_address(url: str) -> str:
    return hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def read_forgotten(run: Path) -> Forgotten:
    """The list of a run folder. Raises PipelineError for a damaged one: a build without it would bring all back."""
    path = RunFolder(run).forgotten
    if not path.is_file():
        return NOTHING
    value = read_json(path)
    try:
        return Forgotten(frozenset(value["documents"]), frozenset(value["addresses"]))
    except (KeyError, TypeError) as error:
        raise PipelineError(f"{path}: not a list of forgotten documents ({error!r}); restore it from a copy") from error
