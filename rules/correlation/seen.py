"""First seen: whether a value is new for a group within a time. Bounded: groups idle longest and values oldest are forgotten first, which
errs towards "new" and so towards a human looking."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from rules.correlation.observation import GroupKey, Observation, key_reader
from rules.rule import FirstSeenSection


class FirstSeen:
    """What was seen for one rule's `first_seen`."""

    def __init__(self, section: FirstSeenSection) -> None:
        self._section = section
        self._group = key_reader(section.by)
        self._value = key_reader(section.field)
        self._seen: OrderedDict[GroupKey, OrderedDict[GroupKey, float]] = OrderedDict()
        self.forgotten = 0

    def is_new(self, seen: Observation) -> bool:
        """True where some value of the event is new for one of its groups. Learns nothing. An event without the field is not new."""
        return any(self._is_new(group, value, seen.time) for group in seen.keys(self._group) for value in seen.keys(self._value))

    def _is_new(self, group: GroupKey, value: GroupKey, time: float) -> bool:
        known = self._seen.get(group)
        last = None if known is None else known.get(value)
        return last is None or time - last > self._section.within

    def learn(self, seen: Observation) -> None:
        for group in seen.keys(self._group):
            for value in seen.keys(self._value):
                self._learn(group, value, seen.time)

    def _learn(self, group: GroupKey, value: GroupKey, time: float) -> None:
        known = self._seen.get(group)
        if known is None:
            if len(self._seen) >= self._section.max_groups:
                self._seen.popitem(last=False)
                self.forgotten += 1
            known = self._seen[group] = OrderedDict()
        self._seen.move_to_end(group)
        known[value] = max(time, known.get(value, time))
        known.move_to_end(value)
        if len(known) > self._section.max_values:
            known.popitem(last=False)
            self.forgotten += 1
        oldest = next(iter(known))
        if time - known[oldest] > self._section.within:
            del known[oldest]

    def dump(self) -> list[Any]:
        return [[list(group), [[list(value), time] for value, time in known.items()]] for group, known in self._seen.items()]

    def load(self, state: Sequence[Any]) -> None:
        self._seen = OrderedDict(
            (tuple(group), OrderedDict((tuple(value), float(time)) for value, time in known)) for group, known in state
        )
