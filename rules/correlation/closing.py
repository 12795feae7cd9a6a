"""Correlations that fire because time passes: conditions that more events could undo, and events that must be followed."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

from rules.correlation.measure import Entry
from rules.correlation.node import NOTHING, Found, Node
from rules.correlation.observation import GroupKey
from rules.correlation.window import Hit, Window, holds
from rules.rule import Rule


class ClosingNode(Node):
    """A correlation whose condition more events could undo: a window begins with its first entry and is looked at when it is over."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule)
        self._ends: list[tuple[float, GroupKey]] = []
        self._collapses = False

    def take(self, key: GroupKey, window: Window | None, entry: Entry, clock: float) -> Sequence[Found]:
        if window is None:
            window = self.groups.made(key, clock)
        if window.insert(entry, self.limits) is not None and window.opened is None:
            self._open(key, window, entry.time)
        return NOTHING

    def _open(self, key: GroupKey, window: Window, time: float) -> None:
        window.opened = time
        heapq.heappush(self._ends, (time + self.limits.keep, key))
        if len(self._ends) > 2 * len(self.groups) + 64:  # groups that were forgotten leave their ends behind
            self._ends = [(one.opened + self.limits.keep, group) for group, one in self.groups.items() if one.opened is not None]
            heapq.heapify(self._ends)

    def close(self, clock: float) -> Iterator[Found]:
        while self._ends and self._ends[0][0] < clock:
            end, key = heapq.heappop(self._ends)
            window = self.groups.get(key)
            if window is None or window.opened is None or window.opened + self.limits.keep != end:
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
        self._open = 0
        self._collapses = False

    def take(self, key: GroupKey, window: Window | None, entry: Entry, clock: float) -> Sequence[Found]:
        if entry.member == 0:
            if window is None:
                window = self.groups.made(key, clock)
            if window.insert(entry, self.limits) is not None:
                heapq.heappush(self._ends, (entry.time + self.limits.keep, key, entry.uuid))
                self._open += 1
                if len(self._ends) > 2 * self._open + 64:  # what was answered, or forgotten, leaves its end behind
                    self._collect()
        elif window is not None:
            span, before = self.spec.span, len(window.entries)
            window.entries = [one for one in window.entries if not 0 <= entry.time - one.time <= span or one.uuid == entry.uuid]
            self._open -= before - len(window.entries)
            if not window.entries:
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
            self._open -= 1
            if not window.entries:
                self.groups.drop(key)
            yield Found(key, window, Hit(entry, (entry,), 0.0))

    def load(self, state: Sequence[Any]) -> None:
        super().load(state)
        self._collect()

    def _collect(self) -> None:
        """The ends of what is open now."""
        self._ends = [(entry.time + self.limits.keep, key, entry.uuid) for key, window in self.groups.items() for entry in window.entries]
        heapq.heapify(self._ends)
        self._open = len(self._ends)
