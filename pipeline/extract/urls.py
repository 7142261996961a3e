"""Which URLs are read: block lists, allow lists and words, all from the user's files; nothing is downloaded.

A list has one domain, URL or URL prefix a line (`#` begins a comment); a domain covers its subdomains, a prefix ends at
a path segment. A folder is read in UT1's layout: the files `domains` and `urls` in and below it. Look-ups are set
memberships: a list of millions of lines costs memory, not time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

_PARTS = re.compile(r"[^\W_]+")
_UT1_FILES = ("domains", "urls")


@dataclass(frozen=True)
class UrlRules:
    """Lists read from files. `allowed` None: every URL that is not blocked."""

    blocked: frozenset[str]
    allowed: frozenset[str] | None
    words: frozenset[str]

    def refusal(self, url: str) -> tuple[str, str] | None:
        """(rule, matching entry, word or domain) that refuses a URL; None if it is read."""
        if entry := matching_entry(url, self.blocked):
            return "blocked_url", entry
        if self.words and (word := next((part for part in _PARTS.findall(url.lower()) if part in self.words), None)):
            return "blocked_url_word", word
        if self.allowed is not None and matching_entry(url, self.allowed) is None:
            return "url_not_allowed", domain_of(url)
        return None


def list_files(names: list[str], base: Path) -> list[Path]:
    """Files of lists named in a recipe; a folder stands for its files of UT1's layout."""
    files: list[Path] = []
    for path in (base / name for name in names):
        files += sorted(f for f in path.rglob("*") if f.name in _UT1_FILES) if path.is_dir() else [path]
    return files


def read_rules(blocked: list[Path], allowed: list[Path], words: list[Path]) -> UrlRules:
    """Rules of these files; without `allowed` files every URL is allowed. Raises OSError."""
    return UrlRules(read_list(blocked), read_list(allowed) if allowed else None, read_list(words))


def read_list(paths: list[Path]) -> frozenset[str]:
    """Entries of list files in lower case, without scheme, `www.` and final slash."""
    entries = set()
    for path in paths:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for line in file:
                entry = re.sub(r"^https?://", "", line.partition("#")[0].strip().lower())
                entries.add(entry.removeprefix("www.").rstrip("/"))
    return frozenset(entries - {""})


def matching_entry(url: str, entries: frozenset[str]) -> str | None:
    """The entry that covers `url`: its host, a parent domain, or a prefix of its path; None if there is none."""
    if not entries:
        return None
    host = domain_of(url)
    labels = host.split(".")
    hosts = [".".join(labels[start:]) for start in range(len(labels))]
    segments = _split(url).path.rstrip("/").lower().split("/")
    prefixes = [host + "/".join(segments[:end]) for end in range(2, len(segments) + 1)]
    return next((entry for entry in (*hosts, *prefixes) if entry in entries), None)


def domain_of(url: str) -> str:
    """Host of a URL in lower case without `www.`; "" if it has none."""
    try:
        return (_split(url).hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # not a valid IPv6 address
        return SplitResult("", "", url, "", "")
