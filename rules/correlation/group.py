"""The groups of one correlation, bounded: what is idle past its window goes by itself; over the bound, of the next few groups the one that was
idle longest is forgotten. Forgetting is counted, so that a notice can say that a rule saw less than it should have.

A group is not moved when an event comes to it (that would cost every event); instead every new group looks at a few of the others in turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from rules.correlation.observation import GroupKey
from rules.correlation.window import Window

#: Groups that a new one lets go of at most, and that it looks at where there is no room.
_LOOKS, _LOOKS_AT_BOUND = 2, 8


class Groups:
    """Windows by group key."""

    def __init__(self, most: int, keep: float) -> None:
        self._most = most
        self._keep = keep
        self.windows: OrderedDict[GroupKey, Window] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self.windows)

    def get(self, key: GroupKey) -> Window | None:
        return self.windows.get(key)

    def made(self, key: GroupKey, clock: float) -> Window:
        """A window for a group that has none."""
        self._look(clock)
        window = self.windows[key] = Window()
        return window

    def _look(self, clock: float) -> None:
        """Lets go of groups whose windows are over, and of one more where there is no room."""
        windows, over = self.windows, clock - self._keep
        if len(windows) >= self._most:
            self._make_room(over)
            return
        for _ in range(min(_LOOKS, len(windows))):
            key, window = next(iter(windows.items()))
            if window.newest >= over:
                windows.move_to_end(key)
                return
            del windows[key]

    def _make_room(self, over: float) -> None:
        windows = self.windows
        idlest, newest = None, float("inf")
        for _ in range(min(_LOOKS_AT_BOUND, len(windows))):
            key, window = next(iter(windows.items()))
            if (last := window.newest) < newest:
                idlest, newest = key, last
            windows.move_to_end(key)
        if idlest is not None:
            del windows[idlest]
            self.forgotten += newest >= over

    def drop(self, key: GroupKey) -> None:
        self.windows.pop(key, None)

    def items(self) -> Iterator[tuple[GroupKey, Window]]:
        return iter(self.windows.items())
