"""One correlation with its groups. `feed` takes an event that a member rule matched, `close` looks at windows whose time is over.

Followers of temporal_ordered (rules after the first) that come before anything began are not kept by group, or every sign-in of everybody
would be: they wait in one short queue for as long as the grace, for the case that the beginning arrives late. That queue is not part of a
snapshot: after a restart a beginning that was late is late for good, by the length of the grace at most.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from model.event import PersonRule
from rules.correlation.group import Groups
from rules.correlation.measure import Entry, entry_of, holds_of, measure_of
from rules.correlation.observation import GroupKey, KeyReader, Observation, key_reader, parts_reader
from rules.correlation.spec import Kind, Spec
from rules.correlation.window import ENDS, Hit, Limits, Window, holds, in_order, sliding, together
from rules.rule import Rule
from rules.sigma.field import Event, leaves, reader
from rules.sigma.match import number_of
from rules.sigma.program import Got, Read

#: Followers that wait for a late beginning, over all groups.
MOST_WAITING = 4_096


class Found(NamedTuple):
    """A group's window that satisfies its correlation."""

    key: GroupKey
    window: Window
    hit: Hit


#: The value of an entry that has none to count or measure.
NO_VALUE: GroupKey = ()
_NO_VALUES = (NO_VALUE,)
#: Takes what was read, the event and the clock; gives the windows that it completes.
Feeder = Callable[[Sequence[Got], Observation, float], Sequence[Found]]
#: Nothing found: what `feed` gives nearly always.
NOTHING: tuple[Found, ...] = ()


class Waiting:
    """Followers that came before anything began, of all groups, for as long as the grace; the oldest go first. A late beginning looks through
    all of them: that is rare, and sorting them by group would cost every sign-in more than it saves."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._queue: deque[tuple[GroupKey, Entry]] = deque(maxlen=MOST_WAITING)
        #: The latest event time among them.
        self.until = float("-inf")

    def add(self, key: GroupKey, entry: Entry, clock: float) -> None:
        queue = self._queue
        if queue and queue[0][1][0] < clock - self._grace:
            queue.popleft()
        queue.append((key, entry))
        if entry[0] > self.until:
            self.until = entry[0]

    def later_than(self, key: GroupKey, entry: Entry) -> list[Entry]:
        """What waits of the group, from other events at or after the entry's time."""
        if entry.time > self.until:
            return []
        return [one for group, one in self._queue if group == key and one.time >= entry.time and one.uuid != entry.uuid]


class Node:
    """A correlation whose windows slide: looked at with every event."""

    def __init__(self, rule: Rule) -> None:
        assert rule.spec is not None
        self.rule = rule
        self.spec = spec = rule.spec
        section = rule.section.window
        if (absence := rule.section.absence) is not None:
            section = section.model_copy(update={"grace": absence.grace, "max_groups": absence.max_groups})
        self.limits = Limits(spec.span, section.grace, section.max_events or _most_events(rule), section.min_gap)
        self.groups = Groups(section.max_groups, spec.span + section.grace)
        self._windows = self.groups.windows
        self.person_from = _position(rule, rule.section.person_from)
        #: Who is meant matters where alerts are made for persons.
        self.person: PersonRule | None = rule.person if rule.emits else None
        self.keys = [_member_keys(rule, member) for member in range(len(spec.members))]
        self.keys.append(self.keys[0])  # ENDS, the last by Python's count, is grouped as the first rule is
        self._measure = measure_of(spec)
        self._holds = holds_of(spec)
        self._values = _values_reader(spec)
        self._number = reader(spec.fields[0]) if spec.fields and spec.kind is not Kind.VALUE_COUNT else None
        counts = spec.kind in (Kind.EVENT_COUNT, Kind.VALUE_COUNT)
        self._least = int(spec.bounds.most) if counts and spec.bounds.only_more else 1
        self._collapses = spec.kind in (Kind.VALUE_COUNT, Kind.TEMPORAL) and section.grace <= spec.span

    def reads(self, member: int) -> tuple[Read, Read] | None:
        """What an event's key, and value, are read from, for whoever reads many at once; None where only `feed` can."""
        if self._number is not None:
            return None
        spec = self.spec
        name = spec.members[max(member, 0)]
        key = tuple(spec.aliases.get(field, {}).get(name, field) for field in spec.group_by)
        value: Read = (spec.fields, *(fields for fields, _ in spec.also)) if spec.kind is Kind.VALUE_COUNT else ()
        return (key,), value

    @property
    def forgotten(self) -> int:
        """Groups given up because of the bound: the rule saw less than it should have."""
        return self.groups.forgotten

    def feeder(self, member: int, at: int | None, value_at: int) -> Feeder:
        """`feed` for whoever read keys and values of many correlations at once: this one's stand at `at` and `value_at`."""
        feed, feed_one, windows = self.feed, self.feed_one, self._windows
        if at is None:
            return lambda read, seen, clock: feed(member, seen, clock)

        def taking(read: Sequence[Got], seen: Observation, clock: float) -> Sequence[Found]:
            key, value = read[at], read[value_at]
            if isinstance(key, tuple) and isinstance(value, tuple):
                return feed_one(member, key, value, seen, clock)
            return NOTHING if key is False or value is False else feed(member, seen, clock)

        def collapsing(read: Sequence[Got], seen: Observation, clock: float) -> Sequence[Found]:
            window = windows.get(read[at])  # type: ignore[arg-type]
            if window is not None:
                # As `feed_one` says, without a call: this is what nearly every sign-in comes to.
                last = window.entries[-1]
                if last[3] == read[value_at] and last[2] == member and last[0] <= seen.time and last[1] != seen.uuid:
                    window.entries[-1] = entry_of((seen.time, seen.uuid, member, last[3], None))
                    return NOTHING
            return taking(read, seen, clock)

        return collapsing if self._collapses and self.person is None else taking

    def feed(self, member: int, seen: Observation, clock: float) -> Sequence[Found]:
        """Takes an event of a member rule (ENDS: of an `unless` rule); gives the windows that it completes."""
        values = self._values_of(seen)
        return [
            found for key in seen.keys(self.keys[member]) for value in values for found in self.feed_one(member, key, value, seen, clock)
        ]

    def feed_one(self, member: int, key: GroupKey, value: Any, seen: Observation, clock: float) -> Sequence[Found]:
        """As `feed`, for one group and one value."""
        who = None if self.person is None else seen.who(self.person)
        if self._collapses:
            window = self._windows.get(key)
            if window is not None and window.entries:
                # What the newest entry could complete it completed; one that says the same takes its place (exact while grace ≤ span).
                last = window.entries[-1]
                if last[3] == value and last[2] == member and last[4] == who and last[0] <= seen.time and last[1] != seen.uuid:
                    window.entries[-1] = entry_of((seen.time, seen.uuid, member, value, who))
                    return NOTHING
        return self.take(key, entry_of((seen.time, seen.uuid, member, value, who)), clock)

    def take(self, key: GroupKey, entry: Entry, clock: float) -> Sequence[Found]:
        """One entry for one group."""
        window = self.groups.touched(key, clock)
        at = window.insert(entry, self.limits)
        if at is not None and len(window.entries) < self._least:
            return NOTHING
        span = self.spec.span
        if at is None:
            return (Found(key, window, window.again(entry, span)),) if window.made_alert(entry.uuid) else NOTHING
        if self.spec.kind is Kind.TEMPORAL:
            hit = together(window, at, self.spec, span)
        else:
            hit = sliding(window, at, self._holds, self._measure, self._least, span)
        return NOTHING if hit is None else (Found(key, window, hit),)

    def close(self, clock: float) -> Iterator[Found]:
        """Windows whose end event time has passed: none, where windows slide."""
        return iter(())

    def _values_of(self, seen: Observation) -> Sequence[Any]:
        if self._values is not None:
            return seen.keys(self._values)
        if self._number is None:
            return _NO_VALUES
        numbers = (number_of(leaf) for leaf in leaves(self._number(seen.event)))
        return tuple(number for number in numbers if number is not None)[:1]

    def dump(self) -> list[Any]:
        return [[list(key), window.dump()] for key, window in self.groups.items()]

    def load(self, state: Sequence[Any]) -> None:
        for key, dumped in state:
            self.groups.touched(tuple(key), float("-inf")).load(dumped)


class OrderedNode(Node):
    """temporal_ordered. What follows is kept only where something began; before that it waits for a late beginning."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        # A step that must be `min_gap` later than the one before cannot overtake it by less than the gap.
        overtakes = self.limits.grace - self.limits.min_gap
        self._waiting = Waiting(overtakes) if overtakes > 0 else None
        self._last = len(self.spec.members) - 1

    def feeder(self, member: int, at: int | None, value_at: int) -> Feeder:
        taking, windows = super().feeder(member, at, value_at), self._windows
        if member == 0 or self._waiting is not None:
            return taking
        return lambda read, seen, clock: taking(read, seen, clock) if windows else NOTHING

    def feed_one(self, member: int, key: GroupKey, value: Any, seen: Observation, clock: float) -> Sequence[Found]:
        if member != 0:
            window = self._windows.get(key) if self._windows else None
            if window is None or not _follows(window, member):
                if self._waiting is not None and member != ENDS:
                    who = None if self.person is None else seen.who(self.person)
                    self._waiting.add(key, entry_of((seen.time, seen.uuid, member, value, who)), clock)
                return NOTHING
        return super().feed_one(member, key, value, seen, clock)

    def take(self, key: GroupKey, entry: Entry, clock: float) -> Sequence[Found]:
        window = self.groups.touched(key, clock)
        if window.insert(entry, self.limits) is None:
            again = in_order(window, self._last + 1, self.limits) if entry.member == self._last else []
            return [Found(key, window, hit) for hit in again if hit.by.uuid == entry.uuid]
        fresh = {entry}
        late = [] if self._waiting is None else self._waiting.later_than(key, entry)
        fresh.update(one for one in late if window.insert(one, self.limits) is not None)
        if entry.member != self._last and len(fresh) == 1 and entry is window.entries[-1]:
            return NOTHING
        return [Found(key, window, hit) for hit in in_order(window, self._last + 1, self.limits) if not fresh.isdisjoint(hit.entries)]


class ClosingNode(Node):
    """A correlation whose condition more events could undo: a window begins with its first entry and is looked at when it is over."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self._ends: list[tuple[float, GroupKey]] = []
        self._collapses = False

    def take(self, key: GroupKey, entry: Entry, clock: float) -> Sequence[Found]:
        window = self.groups.touched(key, clock)
        if window.insert(entry, self.limits) is not None and window.opened is None:
            self._open(key, window, entry.time)
        return NOTHING

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
        return figure if self._holds(figure, inside) else None

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
        self._collapses = False

    def take(self, key: GroupKey, entry: Entry, clock: float) -> Sequence[Found]:
        if entry.member == 0:
            window = self.groups.touched(key, clock)
            if window.insert(entry, self.limits) is not None:
                heapq.heappush(self._ends, (entry.time + self.spec.span + self.limits.grace, key, entry.uuid))
        elif (waiting := self.groups.get(key)) is not None:
            span = self.spec.span
            waiting.entries = [one for one in waiting.entries if not 0 <= entry.time - one.time <= span or one.uuid == entry.uuid]
            if not waiting.entries:
                self.groups.drop(key)
        return NOTHING

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
    if rule.spec.at_close:
        return ClosingNode(rule)
    return OrderedNode(rule) if rule.spec.kind is Kind.TEMPORAL_ORDERED else Node(rule)


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


def _values_reader(spec: Spec) -> Callable[[Event], list[Any]] | None:
    if spec.kind is not Kind.VALUE_COUNT:
        return None
    return parts_reader((spec.fields, *(fields for fields, _ in spec.also))) if spec.also else key_reader(spec.fields)


def _position(rule: Rule, name: str | None) -> int | None:
    return None if name is None or rule.spec is None or name not in rule.spec.members else rule.spec.members.index(name)


def _follows(window: Window, member: int) -> bool:
    """True where the group has what this member follows (ENDS follows anything)."""
    return member == ENDS or any(entry[2] == member - 1 for entry in window.entries)
