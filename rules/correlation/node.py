"""One correlation with its groups. `feed` takes an event that a member rule matched, `close` looks at windows whose time is over.

Followers of temporal_ordered (rules after the first) that come before anything began are not kept per group, or every sign-in of everybody
would be: they wait in one short queue for as long as the grace, for the case that the beginning arrives late.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rules.correlation.group import Groups
from rules.correlation.measure import Entry, measure_of
from rules.correlation.observation import GroupKey, KeyReader, Observation, key_reader
from rules.correlation.spec import Kind
from rules.correlation.window import ENDS, Hit, Limits, Window, holds, in_order, sliding, together
from rules.rule import Rule
from rules.sigma.field import leaves, reader
from rules.sigma.match import number_of

#: Followers that wait for a late beginning, over all groups.
MOST_WAITING = 20_000


class Found(NamedTuple):
    """A group's window that satisfies its correlation."""

    key: GroupKey
    window: Window
    hit: Hit


class Node:
    """A correlation whose windows slide: looked at with every event."""

    def __init__(self, rule: Rule) -> None:
        assert rule.spec is not None
        self.rule = rule
        self.spec = spec = rule.spec
        section = rule.section.window
        self.limits = Limits(spec.span, section.grace, section.max_events or _most_events(rule), section.min_gap)
        self.groups = Groups(section.max_groups, spec.span + section.grace)
        self._keys = [_member_keys(rule, member) for member in range(len(spec.members))]
        self._measure = measure_of(spec)
        self._values = key_reader(spec.fields)
        self._number = reader(spec.fields[0]) if spec.fields else None
        self._waiting: deque[tuple[GroupKey, Entry]] = deque(maxlen=MOST_WAITING)
        self._waiting_until = float("-inf")
        self.person_from = _position(rule, rule.section.person_from)

    @property
    def forgotten(self) -> int:
        """Groups given up because of the bound: the rule saw less than it should have."""
        return self.groups.forgotten

    def feed(self, member: int, seen: Observation, clock: float) -> Iterator[Found]:
        """Takes an event of a member rule (ENDS: of an `unless` rule); gives the windows that it completes."""
        who = seen.who(self.rule.person)
        for key in seen.keys(self._keys[max(member, 0)]):
            for value in self._values_of(seen):
                yield from self._take(key, Entry(seen.time, seen.uuid, member, value, who), clock)

    def close(self, clock: float) -> Iterator[Found]:
        """Windows whose end event time has passed: none, where windows slide."""
        return iter(())

    def _values_of(self, seen: Observation) -> Sequence[Any]:
        kind = self.spec.kind
        if kind is Kind.VALUE_COUNT:
            return seen.keys(self._values)
        if self._number is None:
            return (None,)
        numbers = (number_of(leaf) for leaf in leaves(self._number(seen.event)))
        return tuple(number for number in numbers if number is not None)[:1]

    def _take(self, key: GroupKey, entry: Entry, clock: float) -> Iterator[Found]:
        kind = self.spec.kind
        if kind is Kind.TEMPORAL_ORDERED:
            yield from self._take_in_order(key, entry, clock)
            return
        window = self.groups.touched(key, clock)
        if kind in (Kind.VALUE_COUNT, Kind.TEMPORAL) and self._repeats(window, entry):
            window.entries[-1] = entry
            return
        at = window.insert(entry, self.limits)
        if at is None:
            return
        span = self.spec.span
        hit = together(window, at, self.spec, span) if kind is Kind.TEMPORAL else sliding(window, at, self.spec, self._measure, span)
        if hit is not None:
            yield Found(key, window, hit)

    def _repeats(self, window: Window, entry: Entry) -> bool:
        """True where the newest entry says the same: what it could complete, that one completed. Exact while the grace is within the span."""
        if not window.entries or self.limits.grace > self.spec.span:
            return False
        last = window.entries[-1]
        return last.time <= entry.time and last[2:] == entry[2:] and last.uuid != entry.uuid

    def _take_in_order(self, key: GroupKey, entry: Entry, clock: float) -> Iterator[Found]:
        window = self.groups.get(key)
        if entry.member != 0 and (window is None or (entry.member != ENDS and not _has(window, entry.member - 1))):
            self._wait(key, entry, clock)
            return
        window = self.groups.touched(key, clock)
        fresh = {entry} if window.insert(entry, self.limits) is not None else set()
        if fresh and entry.time <= self._waiting_until:
            late = [one for waiting, one in self._waiting if waiting == key and one.time >= entry.time and one.uuid != entry.uuid]
            fresh.update(one for one in late if window.insert(one, self.limits) is not None)
        last = len(self.spec.members) - 1
        if fresh and any(one.member == last or one is not window.entries[-1] for one in fresh):
            for hit in in_order(window, last + 1, self.limits):
                if not fresh.isdisjoint(hit.entries):
                    yield Found(key, window, hit)
        elif not fresh and entry.member == last:
            for hit in in_order(window, last + 1, self.limits):
                if hit.by.uuid == entry.uuid:
                    yield Found(key, window, hit)

    def _wait(self, key: GroupKey, entry: Entry, clock: float) -> None:
        waiting = self._waiting
        while waiting and waiting[0][1].time < clock - self.limits.grace:
            waiting.popleft()
        if self.limits.grace:
            waiting.append((key, entry))
            self._waiting_until = max(self._waiting_until, entry.time)

    def dump(self) -> list[Any]:
        groups = [[list(key), window.dump()] for key, window in self.groups.items()]
        return [groups, [[list(key), list(entry)] for key, entry in self._waiting]]

    def load(self, state: Sequence[Any]) -> None:
        groups, waiting = state
        for key, dumped in groups:
            self.groups.touched(tuple(key), float("-inf")).load(dumped)
        self._waiting.extend((tuple(key), Entry(*entry)) for key, entry in waiting)
        self._waiting_until = max((entry.time for _, entry in self._waiting), default=float("-inf"))


class ClosingNode(Node):
    """A correlation whose condition more events could undo: a window begins with its first entry and is looked at when it is over."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self._ends: list[tuple[float, GroupKey]] = []

    def _take(self, key: GroupKey, entry: Entry, clock: float) -> Iterator[Found]:
        window = self.groups.touched(key, clock)
        if window.insert(entry, self.limits) is not None and window.opened is None:
            self._open(key, window, entry.time)
        return iter(())

    def _open(self, key: GroupKey, window: Window, time: float) -> None:
        window.opened = time
        heapq.heappush(self._ends, (time + self.spec.span + self.limits.grace, key))

    def close(self, clock: float) -> Iterator[Found]:
        while self._ends and self._ends[0][0] < clock:
            end, key = heapq.heappop(self._ends)
            window = self.groups.get(key)
            if window is None or window.opened is None or window.opened + self.spec.span + self.limits.grace != end:
                continue
            last = window.opened + self.spec.span
            inside = [entry for entry in window.entries if entry.time <= last]
            window.entries = [entry for entry in window.entries if entry.time > last]
            window.opened = None
            if inside and (figure := self._figure(inside)) is not None:
                yield Found(key, window, Hit(inside[-1], tuple(inside), figure))
            if window.entries:
                self._open(key, window, window.entries[0].time)
            else:
                self.groups.drop(key)

    def _figure(self, inside: list[Entry]) -> float | None:
        """The window's figure where its condition holds."""
        if self.spec.kind.is_temporal:
            return float(len({entry.member for entry in inside})) if holds(self.spec, inside) else None
        figure = self._measure(inside)
        return figure if self.spec.bounds.hold(figure) else None

    def load(self, state: Sequence[Any]) -> None:
        super().load(state)
        for key, window in self.groups.items():
            if window.opened is not None:
                self._open(key, window, window.opened)


class AbsenceNode(Node):
    """An event that must be followed: member 0 is the rule's own event, member 1 the one that is expected. Nothing but time fires it."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self._ends: list[tuple[float, GroupKey, str]] = []

    def _take(self, key: GroupKey, entry: Entry, clock: float) -> Iterator[Found]:
        if entry.member == 0:
            window = self.groups.touched(key, clock)
            if window.insert(entry, self.limits) is not None:
                heapq.heappush(self._ends, (entry.time + self.spec.span + self.limits.grace, key, entry.uuid))
        elif (waiting := self.groups.get(key)) is not None:
            span = self.spec.span
            waiting.entries = [one for one in waiting.entries if not 0 <= entry.time - one.time <= span or one.uuid == entry.uuid]
            if not waiting.entries:
                self.groups.drop(key)
        return iter(())

    def close(self, clock: float) -> Iterator[Found]:
        while self._ends and self._ends[0][0] < clock:
            _, key, uuid = heapq.heappop(self._ends)
            window = self.groups.get(key)
            entry = next((one for one in window.entries if one.uuid == uuid), None) if window else None
            if window is None or entry is None:
                continue
            window.entries.remove(entry)
            if not window.entries:
                self.groups.drop(key)
            yield Found(key, window, Hit(entry, (entry,), 0.0))

    def load(self, state: Sequence[Any]) -> None:
        super().load(state)
        keep = self.spec.span + self.limits.grace
        self._ends = [(entry.time + keep, key, entry.uuid) for key, window in self.groups.items() for entry in window.entries]
        heapq.heapify(self._ends)


def node_of(rule: Rule) -> Node:
    assert rule.spec is not None
    if rule.section.absence is not None:
        return AbsenceNode(rule)
    return ClosingNode(rule) if rule.spec.at_close else Node(rule)


def _most_events(rule: Rule) -> int:
    """Entries kept of one group: enough for the condition, few for rules that only ask what was seen."""
    assert rule.spec is not None
    if rule.spec.kind.is_temporal:
        return max(128, 8 * len(rule.spec.members))
    return max(1024, *(2 * int(limit) + 2 for _, limit in rule.spec.bounds.ops))


def _member_keys(rule: Rule, member: int) -> KeyReader:
    assert rule.spec is not None
    name = rule.spec.members[member]
    return key_reader(rule.spec.aliases.get(field, {}).get(name, field) for field in rule.spec.group_by)


def _position(rule: Rule, name: str | None) -> int | None:
    return None if name is None or rule.spec is None or name not in rule.spec.members else rule.spec.members.index(name)


def _has(window: Window, member: int) -> bool:
    return any(entry.member == member for entry in window.entries)
