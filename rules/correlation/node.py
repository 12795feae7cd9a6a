"""One correlation with its groups. `feed` takes an event that a member rule matched, `close` looks at windows whose time is over.

What nearly every event comes to stands first and calls little: the same value again, a follower of nothing. `feeder` is that, made once for
each rule that feeds a correlation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from model.event import PersonRule
from rules.correlation.group import Groups
from rules.correlation.measure import Entry, entry_of, holds_of, measure_of
from rules.correlation.observation import GroupKey, KeyReader, Observation, key_reader, parts_reader
from rules.correlation.spec import Kind, Spec
from rules.correlation.window import Hit, Limits, Window, sliding, together
from rules.rule import Rule
from rules.sigma.compare import number_of
from rules.sigma.field import Event, leaves, reader
from rules.sigma.program import Got, Read


class Found(NamedTuple):
    """A group's window that satisfies its correlation."""

    key: GroupKey
    window: Window
    hit: Hit

    def meaning(self, who: str | None) -> Found:
        """The same, with the person of the completing event."""
        return self._replace(hit=self.hit._replace(by=self.hit.by._replace(who=who)))


#: The value of an entry that has none to count or measure.
NO_VALUE: GroupKey = ()
_NO_VALUES = (NO_VALUE,)
#: Takes what was read, the event and the clock; gives the windows that it completes.
Feeder = Callable[[Sequence[Got], Observation, float], Sequence[Found]]
#: Nothing found: what `feed` gives nearly always.
NOTHING: tuple[Found, ...] = ()


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
        #: Whom an entry means, where alerts are made for persons; found out late where the group's key says it already.
        self.person: PersonRule | None = rule.person if rule.emits else None
        self._person_late = _is_in_key(rule) and type(self) is Node
        if self._person_late:
            self.person = None
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
            if key.__class__ is tuple and value.__class__ is tuple:
                return feed_one(member, key, value, seen, clock)
            return NOTHING if key is False or value is False else feed(member, seen, clock)

        def collapsing(read: Sequence[Got], seen: Observation, clock: float) -> Sequence[Found]:
            """As `feed_one`, in one call: this is what nearly every sign-in comes to."""
            key, value = read[at], read[value_at]
            if key.__class__ is not tuple or value.__class__ is not tuple:
                return taking(read, seen, clock)
            window = windows.get(key)
            entry = entry_of((seen.time, seen.uuid, member, value, None))
            if window is not None:
                last = window.entries[-1]
                if last[3] == value and last[2] == member and last[0] <= entry[0] and last[1] != entry[1]:
                    window.entries[-1] = entry
                    return NOTHING
            found = take(key, window, entry, clock)
            return self._named(found, seen) if found else found

        take = self.take
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
        window = self._windows.get(key)
        entry = entry_of((seen.time, seen.uuid, member, value, who))
        if self._collapses and window is not None and window.entries:
            # What the newest entry could complete it completed; one that says the same takes its place (exact while grace ≤ span).
            last = window.entries[-1]
            if last[2:] == entry[2:] and last[0] <= entry[0] and last[1] != entry[1]:
                window.entries[-1] = entry
                return NOTHING
        found = self.take(key, window, entry, clock)
        return self._named(found, seen) if found else found

    def _named(self, found: Sequence[Found], seen: Observation) -> Sequence[Found]:
        """With the person that the group's key names, where that was left for later."""
        return [one.meaning(seen.who(self.rule.person)) for one in found] if self._person_late else found

    def take(self, key: GroupKey, window: Window | None, entry: Entry, clock: float) -> Sequence[Found]:
        """One entry for one group, whose window is made where there is none."""
        if window is None:
            window = self.groups.made(key, clock)
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
            self.groups.made(tuple(key), float("-inf")).load(dumped)


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


def _is_in_key(rule: Rule) -> bool:
    """True where all events of a group mean the same person: that of its key."""
    spec = rule.spec
    assert spec is not None
    return (
        rule.emits
        and rule.person == "actor"
        and rule.section.person_from is None
        and not spec.kind.is_temporal
        and "actor.id" in spec.group_by
    )


def _position(rule: Rule, name: str | None) -> int | None:
    return None if name is None or rule.spec is None or name not in rule.spec.members else rule.spec.members.index(name)
