"""The System Log as Okta keeps it: bytes in order of persistence, read by two kinds of query.

A polling query follows the order of persistence and never ends: its cursor is a position, and an event whose `published` lies far
back is delivered when it is committed. A bounded query follows `published` and ends. Events are kept as the bytes that they came as
and pages are joined from them: a simulator that re-encodes would hide every defect of a reader (a lone surrogate, odd white space).
`published` is decoded only when the first bounded query asks, and only for what came since the last one.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import orjson

from model.event import parse_time
from simulators.limits import Clock

#: A filtered query looks at so many events a page at most; the page may then be short, and its `next` goes on.
_SCANNED = 50_000
_CURSOR = re.compile(r"(\d{1,15})_(\d{1,12})")
_KEYED = re.compile(r"(-?\d{1,18})\.(\d{1,12})")

Test = Callable[[bytes], bool]


class CursorRefused(ValueError):
    """An `after` that this log never gave out."""


@dataclass(frozen=True, slots=True)
class Page:
    """`next` is the cursor of the following page, None where a bounded query has ended."""

    events: list[bytes]
    next: str | None

    @property
    def body(self) -> bytes:
        return b"[" + b",".join(self.events) + b"]"


class _Published(msgspec.Struct):
    published: Any = None


_decode_published = msgspec.json.Decoder(_Published).decode


class SystemLog:
    """Append only. Times are epoch seconds of the injected clock; `published` is kept in microseconds."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.birth = clock()
        self.raws: list[bytes] = []
        self._persisted: list[float] = []
        self._by_published: list[tuple[int, int]] = []
        self._indexed = 0

    def __len__(self) -> int:
        return len(self.raws)

    def append(self, raw: bytes) -> None:
        self.extend((raw,))

    def extend(self, raws: Iterable[bytes]) -> None:
        """Persists events now, in this order. Persistence time never goes back, whatever the clock does."""
        before = len(self.raws)
        self.raws.extend(raws)
        now = max(self.clock(), self._persisted[-1] if self._persisted else 0.0)
        self._persisted.extend([now] * (len(self.raws) - before))

    # -- polling ------------------------------------------------------------------------------------------------------

    def poll(self, limit: int, *, since: float = 0.0, after: str | None = None, test: Test | None = None) -> Page:
        """From `after`, else from the first event persisted at or after `since`. Raises CursorRefused."""
        start = bisect_left(self._persisted, since) if after is None else self._position(after)
        if test is None:
            end = min(start + limit, len(self.raws))
            return Page(self.raws[start:end], self._cursor(end))
        found: list[bytes] = []
        end = start
        while end < len(self.raws) and len(found) < limit and end - start < _SCANNED:
            if test(self.raws[end]):
                found.append(self.raws[end])
            end += 1
        return Page(found, self._cursor(end))

    def _cursor(self, position: int) -> str:
        moment = self._persisted[position - 1] if position else self.birth
        return f"{int(moment * 1000)}_{position}"

    def _position(self, after: str) -> int:
        match = _CURSOR.fullmatch(after)
        position = int(match.group(2)) if match else -1
        if not 0 <= position <= len(self.raws) or self._cursor(position) != after:
            raise CursorRefused(after)
        return position

    # -- bounded ------------------------------------------------------------------------------------------------------

    def between(
        self, since: datetime, until: datetime, limit: int, *, after: str | None = None, descending: bool = False, test: Test | None = None
    ) -> Page:
        """Events with since <= published < until in order of `published`; one without a readable `published` is never here."""
        self._index()
        keys = self._by_published
        low, high = bisect_left(keys, (_micros(since), -1)), bisect_left(keys, (_micros(until), -1))
        if after is not None:
            key = self._key(after)
            low, high = (low, min(high, bisect_left(keys, key))) if descending else (max(low, bisect_right(keys, key)), high)
        positions = range(high - 1, low - 1, -1) if descending else range(low, high)
        found: list[bytes] = []
        last: tuple[int, int] | None = None
        for at in positions:
            if len(found) == limit:
                return Page(found, f"{last[0]}.{last[1]}" if last else after)
            last = keys[at]
            raw = self.raws[last[1]]
            if test is None or test(raw):
                found.append(raw)
        return Page(found, None)

    def _index(self) -> None:
        fresh = [
            (_micros(moment), at)
            for at in range(self._indexed, len(self.raws))
            if (moment := parse_time(_published(self.raws[at]))) is not None
        ]
        self._indexed = len(self.raws)
        if len(fresh) > 100:
            self._by_published.extend(fresh)
            self._by_published.sort()
            return
        for key in fresh:
            insort(self._by_published, key)

    def _key(self, after: str) -> tuple[int, int]:
        match = _KEYED.fullmatch(after)
        key = (int(match.group(1)), int(match.group(2))) if match else (0, -1)
        at = bisect_left(self._by_published, key)
        if at >= len(self._by_published) or self._by_published[at] != key:
            raise CursorRefused(after)
        return key


def _micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def _published(raw: bytes) -> object:
    try:
        return _decode_published(raw).published
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        value = readable(raw)
        return value.get("published") if isinstance(value, dict) else None


def readable(raw: bytes) -> Any:
    """The event as a value, as far as Python reads it; else None. Only filters and `q` look inside."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            return None
