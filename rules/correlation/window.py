"""The windows of one group of one correlation. Entries are kept in order of event time, each uuid once, never more than a bound.

A window that slides is looked at with every entry: the windows that end at it or, for a late one, at an entry within a span after it.
A window that closes begins with its first entry and is looked at once, when event time has passed its end and the grace.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rules.correlation.measure import Entry, Holds, Measure
from rules.correlation.spec import Spec

#: Alerts remembered of one group, so that none is made twice.
_MOST_ALERTS = 64


class Hit(NamedTuple):
    """A window that satisfies its condition: the entry that completed it, all entries in it, and the figure."""

    by: Entry
    entries: tuple[Entry, ...]
    figure: float


class Limits(NamedTuple):
    span: float
    grace: float
    most_events: int
    min_gap: float = 0.0

    @property
    def keep(self) -> float:
        """How long an entry can matter."""
        return self.span + self.grace


class Window:
    """Entries of one group in order of time. Subclasses say what they amount to."""

    __slots__ = ("entries", "fired", "opened")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        #: Where a window that closes began.
        self.opened: float | None = None
        #: (time, who, uuid) of alerts, newest last: one alert per window, group and person. Most windows never have one.
        self.fired: list[tuple[float, str | None, str]] | None = None

    def insert(self, entry: Entry, limits: Limits) -> int | None:
        """The entry's position; None where it is known already, came after the grace, or has no place within the bound."""
        entries = self.entries
        if not entries or entry[0] > entries[-1][0]:
            entries.append(entry)
            at = len(entries) - 1
            if at < limits[2] and entries[0][0] >= entry[0] - limits[0] - limits[1]:
                return at  # nothing to drop, as nearly always
        else:
            if entry.time < entries[-1].time - limits.keep:
                return None
            at = bisect_left(entries, (entry.time,))
            while at < len(entries) and entries[at].time == entry.time:
                if entries[at].uuid == entry.uuid and entries[at][2:4] == entry[2:4]:
                    return None
                at += 1
            entries.insert(at, entry)
        at -= self._prune(limits)
        return at if at >= 0 else None

    def _prune(self, limits: Limits) -> int:
        """Drops what no window needs, and the oldest above the bound; the number dropped."""
        entries = self.entries
        oldest = entries[-1].time - limits.keep
        cut = start_of(entries, oldest, len(entries))
        cut = max(cut, len(entries) - limits.most_events)
        if cut:
            del entries[:cut]
        return cut

    def is_new(self, hit: Hit, who: str | None, limits: Limits, now: str) -> bool:
        """Notes the alert unless one for the same person stands within a span of it. The event that made it, delivered again (`now` is
        the event at hand), makes it again: whoever asks may not have got it the first time."""
        time, uuid = hit.by.time, hit.by.uuid
        if self.fired is None:
            self.fired = []
        for seen_time, seen_who, seen_uuid in self.fired:
            if seen_who == who and abs(seen_time - time) <= limits.span:
                return seen_uuid == uuid == now
        oldest = time - limits.keep
        self.fired = [*(one for one in self.fired if one[0] >= oldest), (time, who, uuid)][-_MOST_ALERTS:]
        return True

    def made_alert(self, uuid: str) -> bool:
        return self.fired is not None and any(one[2] == uuid for one in self.fired)

    def again(self, entry: Entry, span: float) -> Hit:
        """The alert of an event that is delivered again."""
        inside = tuple(one for one in self.entries if entry.time - span <= one.time <= entry.time) or (entry,)
        return Hit(entry, inside, float(len(inside)))

    @property
    def newest(self) -> float:
        return self.entries[-1].time if self.entries else 0.0

    def dump(self) -> list[Any]:
        return [[list(entry) for entry in self.entries], [list(one) for one in self.fired or ()], self.opened]

    def load(self, state: Sequence[Any]) -> None:
        entries, fired, self.opened = state
        self.entries = [Entry(float(t), u, int(m), tuple(v) if isinstance(v, list) else v, w) for t, u, m, v, w in entries]
        self.fired = [(float(t), w, u) for t, w, u in fired] or None


def start_of(entries: Sequence[Entry], time: float, end: int) -> int:
    """The position of the first entry at or after a time (entries are tuples that begin with theirs)."""
    return 0 if not end or entries[0].time >= time else bisect_left(entries, (time,), 0, end)


def ends_from(entries: Sequence[Entry], at: int, span: float) -> Iterable[int]:
    """Positions of the entries at which a window can end that holds the entry at `at`."""
    if at == len(entries) - 1:
        return (at,)
    limit = entries[at].time + span
    return range(at, next((end for end in range(at, len(entries)) if entries[end].time > limit), len(entries)))


def sliding(window: Window, at: int, holds: Holds, measure: Measure, least: int, span: float) -> Hit | None:
    """The first window with the entry at `at` whose figure holds; windows of fewer than `least` entries cannot."""
    entries = window.entries
    for end in ends_from(entries, at, span):
        start = start_of(entries, entries[end].time - span, end + 1)
        if end + 1 - start >= least:
            inside = entries[start : end + 1]
            figure = measure(inside)
            if holds(figure, inside):
                return Hit(entries[at], tuple(inside), figure)
    return None


def together(window: Window, at: int, spec: Spec, span: float) -> Hit | None:
    """The first window with the entry at `at` in which enough rules were seen."""
    entries = window.entries
    for end in ends_from(entries, at, span):
        start = start_of(entries, entries[end].time - span, end + 1)
        inside = entries[start : end + 1]
        if holds(spec, inside):
            seen = {entry.member for entry in inside}
            return Hit(entries[at], tuple(inside), float(len(seen)))
    return None


def holds(spec: Spec, inside: Sequence[Entry]) -> bool:
    """The condition of a temporal correlation over the entries of one window."""
    seen = frozenset(entry.member for entry in inside)
    return spec.seen(seen) if spec.seen is not None else spec.bounds.hold(len(seen))


#: The member number of an event that ends what was begun (`unless`).
ENDS = -1


def in_order(window: Window, length: int, limits: Limits) -> list[Hit]:
    """All completions of the rules 0, 1, … length-1 in this order within a span, each with its latest beginning.

    A step follows an earlier event, `min_gap` after it at least; an entry of kind ENDS forgets what began before it.
    """
    chains: list[list[tuple[Entry, ...]]] = [[] for _ in range(length)]
    hits: list[Hit] = []
    for entry in window.entries:
        if entry.member == ENDS:
            chains = [[] for _ in range(length)]
            continue
        chain = _longer(chains, entry, limits)
        if chain is None:
            continue
        if entry.member == length - 1:
            hits.append(Hit(entry, chain, float(length)))
        chains[entry.member].append(chain)
    return hits


def _longer(chains: list[list[tuple[Entry, ...]]], entry: Entry, limits: Limits) -> tuple[Entry, ...] | None:
    """The chain with the latest beginning that the entry can go on from, with it."""
    if entry.member == 0:
        return (entry,)
    best: tuple[Entry, ...] | None = None
    for chain in chains[entry.member - 1]:
        last, first = chain[-1], chain[0]
        follows = last.uuid != entry.uuid and entry.time - last.time >= limits.min_gap and entry.time - first.time <= limits.span
        if follows and (best is None or first.time >= best[0].time):
            best = chain
    return None if best is None else (*best, entry)
