"""Okta's catalogue of event types: names only, with the release that they are from, so that a misspelt type is found before it ships.

`catalogue.csv` is vendored, because lint must work without a network and say the same tomorrow. `refresh` reads the list that Okta publishes
(developer.okta.com/docs/okta-event-types.csv) from a file that somebody fetched. Rejected: fetching it here (rules know no network), and
keeping descriptions and tags (Okta's own text, and nothing here asks for them).
"""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from model.errors import ConfigurationError

BUILT_IN = Path(__file__).parent / "catalogue.csv"
_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")
_RELEASE = re.compile(r"\d{4}(?:\.\d{1,2}){1,2}")
_HEAD = re.compile(r"# Okta's event types, release (\S+)")
_TYPE, _DATE = "Event Type", "Release Date"
#: A shorter list is a page of an error, or cut short.
FEWEST = 500
#: A name as long as this is nobody's slip of the pen.
_LONGEST = 200


@dataclass(frozen=True)
class Catalogue:
    """`release` as Okta counts them (`2026.08.1`: the year, its month, the week's number)."""

    release: str
    event_types: frozenset[str]

    @classmethod
    def load(cls, path: Path | None = None) -> Catalogue:
        """Reads a file that `written` wrote (None: the vendored one). Raises ConfigurationError with path and line."""
        path = path or BUILT_IN
        first, *rest = _lines(path) or [""]
        head = _HEAD.fullmatch(first)
        if head is None:
            raise ConfigurationError(f"{path}:1: no catalogue of ours: write one with `portcullis rules refresh-catalogue`")
        for number, name in enumerate(rest, start=2):
            if _NAME.fullmatch(name) is None:
                raise ConfigurationError(f"{path}:{number}: {name[:80]!r} is no name of an event type")
        return cls(head[1], frozenset(rest))

    @cached_property
    def folded(self) -> dict[str, str]:
        """Names without case (as Sigma compares) → names as Okta writes them."""
        return {name.casefold(): name for name in self.event_types}

    def __contains__(self, event_type: object) -> bool:
        return isinstance(event_type, str) and event_type.casefold() in self.folded

    def nearest(self, event_type: str) -> str | None:
        """The name that was probably meant; None where none is near."""
        if len(event_type) > _LONGEST:
            return None
        near = difflib.get_close_matches(event_type.casefold(), self.folded, n=1, cutoff=0.75)
        return self.folded[near[0]] if near else None

    def written(self, path: Path) -> None:
        """Writes the file anew, whole or not at all. Raises ConfigurationError where it cannot be written."""
        text = "\n".join((f"# Okta's event types, release {self.release}", *sorted(self.event_types), ""))
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise ConfigurationError(f"{path}: cannot be written: {error.strerror}: name another file with --out") from None


def published(path: Path) -> Catalogue:
    """The catalogue in Okta's own CSV (columns Event Type, Description, Release Date, Tags, Change Details); its release is the newest date.

    Raises ConfigurationError with path, line and reason. A list that is too short to be whole is refused.
    """
    names: set[str] = set()
    releases: list[str] = []
    for line, name, date in _rows(path):
        if _NAME.fullmatch(name) is None:
            raise ConfigurationError(f"{path}:{line}: {name[:80]!r} is no name of an event type")
        names.add(name)
        if _RELEASE.fullmatch(date):
            releases.append(date)
    if len(names) < FEWEST:
        raise ConfigurationError(f"{path}: {len(names)} event types are not the whole list (Okta has more than a thousand): fetch it again")
    if not releases:
        raise ConfigurationError(f"{path}: no release stands in the column {_DATE}")
    return Catalogue(max(releases, key=_ordered), frozenset(names))


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    reader = csv.reader(_lines(path, keep_ends=True))
    try:
        head = [cell.strip() for cell in next(reader, [])]
        if _TYPE not in head or _DATE not in head:
            raise ConfigurationError(f"{path}:1: not Okta's list of event types: the columns {_TYPE} and {_DATE} are missing")
        at, dated = head.index(_TYPE), head.index(_DATE)
        for row in reader:
            if len(row) > max(at, dated):
                yield reader.line_num, row[at].strip(), row[dated].strip()
            elif row:
                raise ConfigurationError(f"{path}:{reader.line_num}: cut short")
    except csv.Error as error:
        raise ConfigurationError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _ordered(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def _lines(path: Path, *, keep_ends: bool = False) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines(keepends=keep_ends)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not UTF-8") from None


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh changed."""

    before: str
    after: str
    added: tuple[str, ...]
    gone: tuple[str, ...]


def refresh(source: Path, into: Path | None = None) -> Refreshed:
    """Takes over Okta's published list from `source`; says what is new and what is gone. Raises ConfigurationError."""
    into = into or BUILT_IN
    new = published(source)
    old = Catalogue.load(into) if into.exists() else Catalogue("none", frozenset())
    new.written(into)
    return Refreshed(old.release, new.release, _sorted(new.event_types - old.event_types), _sorted(old.event_types - new.event_types))


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
