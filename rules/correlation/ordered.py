"""temporal_ordered: rules in their order.

Followers (rules after the first) that come before anything began are not kept by group, or every sign-in of everybody would be: they wait in
one short queue for as long as the grace, for the case that the beginning arrives late. That queue is not part of a snapshot: after a restart a
beginning that was late is late for good, by the length of the grace at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from rules.correlation.measure import Entry, entry_of
from rules.correlation.node import NO_VALUE, NOTHING, Feeder, Found, Node
from rules.correlation.observation import GroupKey, Observation
from rules.correlation.window import ENDS, Window, in_order, start_of
from rules.rule import Rule
from rules.sigma.program import Got

#: Followers that wait for a late beginning, over all groups.
MOST_WAITING = 4_096


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


class OrderedNode(Node):
    """temporal_ordered. What follows is kept only where something began; before that it waits for a late beginning."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        # A step that must be `min_gap` later than the one before cannot overtake it by less than the gap.
        overtakes = self.limits.grace - self.limits.min_gap
        self._waiting = Waiting(overtakes) if overtakes > 0 else None
        self._last = len(self.spec.members) - 1

    def feeder(self, member: int, at: int | None, value_at: int) -> Feeder:
        taking, windows, waiting, person = super().feeder(member, at, value_at), self._windows, self._waiting, self.person
        if member in (0, ENDS) or at is None:
            return taking

        def following(read: Sequence[Got], seen: Observation, clock: float) -> Sequence[Found]:
            """As `feed_one`, in one call, where nothing began: nearly always."""
            key = read[at]
            if key.__class__ is not tuple or (windows and key in windows):
                return taking(read, seen, clock)
            if waiting is not None:
                who = None if person is None else seen.who(person)
                waiting.add(key, entry_of((seen.time, seen.uuid, member, NO_VALUE, who)), clock)
            return NOTHING

        return following

    def feed_one(self, member: int, key: GroupKey, value: Any, seen: Observation, clock: float) -> Sequence[Found]:
        window = self._windows.get(key)
        who = None if self.person is None else seen.who(self.person)
        entry = entry_of((seen.time, seen.uuid, member, value, who))
        if member != 0 and (window is None or not _follows(window, member)):
            if self._waiting is not None and member != ENDS:
                self._waiting.add(key, entry, clock)
            return NOTHING
        return self.take(key, window, entry, clock)

    def take(self, key: GroupKey, window: Window | None, entry: Entry, clock: float) -> Sequence[Found]:
        if window is None:
            window = self.groups.made(key, clock)
        if window.insert(entry, self.limits) is None:
            again = in_order(window, self._last + 1, self.limits) if entry.member == self._last else []
            return [Found(key, window, hit) for hit in again if hit.by.uuid == entry.uuid]
        if entry.member == ENDS:
            # What began before, by more than an event can be late, is over.
            del window.entries[: start_of(window.entries, entry.time - self.limits.grace, len(window.entries))]
        fresh = {entry}
        late = [] if self._waiting is None else self._waiting.later_than(key, entry)
        fresh.update(one for one in late if window.insert(one, self.limits) is not None)
        if entry.member != self._last and len(fresh) == 1 and entry is window.entries[-1]:
            return NOTHING
        hits = in_order(window, self._last + 1, self.limits)
        if entry.member == self._last and self._waiting is None:
            window.entries.remove(entry)  # nothing that is still to come can begin before it
        return [Found(key, window, hit) for hit in hits if not fresh.isdisjoint(hit.entries)]


def _follows(window: Window, member: int) -> bool:
    """True where the group has what this member follows (ENDS follows anything)."""
    return member == ENDS or any(entry[2] == member - 1 for entry in window.entries)
