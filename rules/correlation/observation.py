"""One event as correlations see it: its time, its uuid, and its group keys, each read once however many rules ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import product
from typing import Any

from model.event import PersonRule, parse_time, people
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
    published = parse_time(event.get("published"))
    if received is None:
        return clock if published is None else published.timestamp()
    arrived = received.timestamp()
    return arrived if published is None else min(published.timestamp(), arrived + MOST_AHEAD_S)


class Observation:
    """An event at a time, with what was read from it."""

    __slots__ = ("_keys", "_who", "event", "time", "uuid")

    def __init__(self, event: Event, time: float) -> None:
        self.event = event
        self.time = time
        uuid = event.get("uuid")
        self.uuid: str = uuid if isinstance(uuid, str) else ""
        self._keys: dict[KeyReader, list[GroupKey]] = {}
        self._who: dict[PersonRule, str | None] = {}

    def keys(self, read: KeyReader) -> list[GroupKey]:
        found = self._keys.get(read)
        if found is None:
            found = self._keys[read] = read(self.event)
        return found

    def who(self, rule: PersonRule) -> str | None:
        """The one person that the event names under a rule; None for nobody or several (D2)."""
        if rule not in self._who:
            found = people(self.event, rule)
            self._who[rule] = found[0] if len(found) == 1 else None
        return self._who[rule]


KeyReader = Callable[[Event], list[GroupKey]]
_readers: dict[tuple[str, ...], KeyReader] = {}


def key_reader(fields: Iterable[str]) -> KeyReader:
    """A function from an event to its group keys; none where a field is missing or null. The same fields give the same function."""
    names = tuple(fields)
    if names not in _readers:
        _readers[names] = _key_reader(tuple(reader(name) for name in names))
    return _readers[names]


def _key_reader(readers: tuple[Reader, ...]) -> KeyReader:
    if not readers:
        return lambda event: [()]

    def read(event: Event) -> list[GroupKey]:
        key = []
        for one in readers:
            value = one(event)
            if value.__class__ is not str:
                return _spread(event, readers)
            key.append(value)
        return [tuple(key)]

    return read


def _spread(event: Event, readers: tuple[Reader, ...]) -> list[GroupKey]:
    texts = [values_of(read(event)) for read in readers]
    return [key for key, _ in zip(product(*texts), range(MOST_KEYS), strict=False)]


def values_of(value: Any) -> list[str]:
    """The texts of a field's values, each once; nulls and what is missing give none."""
    return list(dict.fromkeys(text for leaf in leaves(value) if (text := text_of(leaf)) is not None))
