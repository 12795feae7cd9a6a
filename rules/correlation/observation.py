"""One event as correlations see it: its time, its uuid, and its group keys, each read once however many rules ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from itertools import islice, product
from typing import Any

from model.event import PersonRule, parse_time
from rules.person import people_of
from rules.sigma.field import Event, Reader, leaves, reader
from rules.sigma.text import text_of

#: A group's key: the texts of the group-by fields.
GroupKey = tuple[str, ...]
#: An event with several values for its group-by fields belongs to several groups, to this many at most.
MOST_KEYS = 16
#: A `published` further ahead of its receipt than this is no time to go by.
MOST_AHEAD_S = 300.0


def time_of(event: Event, received: datetime | None, clock: float) -> float:
    """Event time in seconds: `published`, never far ahead of its receipt; without one the receipt, else the clock of the stream."""
    published = _seconds(event.get("published"))
    if received is None:
        return published if published is not None else max(clock, 0.0)
    arrived = received.timestamp()
    return arrived if published is None else min(published, arrived + MOST_AHEAD_S)


def _seconds(text: object) -> float | None:
    """Seconds of a time, quick for the one form that Okta writes, `2026-09-14T08:30:00.123Z`; None for what is no time."""
    if isinstance(text, str) and len(text) == 24 and (part := _THOUSANDTHS.get(text[19:])) is not None:
        second = _second(text[:19])
        return None if second is None else second + part
    time = parse_time(text)
    return None if time is None else time.timestamp()


_THOUSANDTHS = {f".{number:03d}Z": number / 1000 for number in range(1000)}


@lru_cache(maxsize=4096)
def _second(text: str) -> float | None:
    time = parse_time(f"{text}Z")
    return None if time is None else time.timestamp()


class Observation:
    """An event at a time, with what was read from it."""

    __slots__ = ("event", "read", "time", "uuid", "whose")

    def __init__(self, event: Event, time: float) -> None:
        self.event = event
        self.time = time
        uuid = event.get("uuid")
        self.uuid: str = uuid if uuid.__class__ is str else ""
        #: What readers gave, by reader; who was meant, by rule.
        self.read: dict[KeyReader, list[GroupKey]] | None = None
        self.whose: dict[PersonRule, str | None] | None = None

    def keys(self, reader: KeyReader) -> list[GroupKey]:
        if self.read is None:
            self.read = {}
        found = self.read.get(reader)
        if found is None:
            found = self.read[reader] = reader(self.event)
        return found

    def who(self, rule: PersonRule) -> str | None:
        """The one person that the event names under a rule; None for nobody or several (D2)."""
        if self.whose is None:
            self.whose = {}
        if rule not in self.whose:
            found = people_of(self.event, rule)
            self.whose[rule] = found[0] if len(found) == 1 else None
        return self.whose[rule]


KeyReader = Callable[[Event], list[GroupKey]]
_readers: dict[tuple[str | tuple[str, ...], ...], KeyReader] = {}


def key_reader(fields: Iterable[str]) -> KeyReader:
    """A function from an event to its group keys; none where a field is missing or null. The same fields give the same function."""
    names = tuple(fields)
    if names not in _readers:
        _readers[names] = _key_reader(tuple(reader(name) for name in names))
    return _readers[names]


def parts_reader(parts: Iterable[tuple[str, ...]]) -> Callable[[Event], list[Any]]:
    """As `key_reader` for several lists of fields at once: each key is a tuple of one key for each list."""
    names = tuple(parts)
    if names not in _readers:
        readers = [key_reader(fields) for fields in names]
        _readers[names] = lambda event: _products([read(event) for read in readers])
    return _readers[names]


def _key_reader(readers: tuple[Reader, ...]) -> KeyReader:
    if not readers:
        return lambda event: [()]
    if len(readers) == 1:
        return _single(readers[0], readers)
    if len(readers) == 2:
        return _pair(readers[0], readers[1], readers)
    return lambda event: _spread(event, readers)


def _single(one: Reader, readers: tuple[Reader, ...]) -> KeyReader:
    def read(event: Event) -> list[GroupKey]:
        value = one(event)
        return [(value,)] if value.__class__ is str else _spread(event, readers)

    return read


def _pair(one: Reader, two: Reader, readers: tuple[Reader, ...]) -> KeyReader:
    def read(event: Event) -> list[GroupKey]:
        first = one(event)
        if first.__class__ is str:
            second = two(event)
            if second.__class__ is str:
                return [(first, second)]
        return _spread(event, readers)

    return read


def _spread(event: Event, readers: tuple[Reader, ...]) -> list[GroupKey]:
    texts = [values_of(read(event)) for read in readers]
    return _products(texts)


def _products(parts: list[Any]) -> list[Any]:
    return list(islice(product(*parts), MOST_KEYS))


def values_of(value: Any) -> list[str]:
    """The texts of a field's values, each once; nulls and what is missing give none."""
    return list(dict.fromkeys(text for leaf in leaves(value) if (text := text_of(leaf)) is not None))
