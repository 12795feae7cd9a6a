"""The groups of one correlation, bounded: what is idle past its window goes by itself; over the bound the group idle longest is forgotten.
Forgetting is counted, so that a notice can say that a rule saw less than it should have."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from rules.correlation.observation import GroupKey
from rules.correlation.window import Window


class Groups:
    """Windows by group key, the most recently touched last."""

    def __init__(self, most: int, keep: float) -> None:
        self._most = most
        self._keep = keep
        self.windows: OrderedDict[GroupKey, Window] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self.windows)

    def get(self, key: GroupKey) -> Window | None:
        return self.windows.get(key)

    def touched(self, key: GroupKey, clock: float) -> Window:
        """The group's window, made where there is none."""
        windows = self.windows
        window = windows.get(key)
        if window is not None:
            windows.move_to_end(key)
            return window
        self.sweep(clock)
        if len(windows) >= self._most:
            windows.popitem(last=False)
            self.forgotten += 1
        window = windows[key] = Window()
        return window

    def sweep(self, clock: float) -> None:
        """Lets go of the longest untouched groups whose windows are over."""
        windows = self.windows
        while windows:
            key, window = next(iter(windows.items()))
            if window.newest + self._keep >= clock:
                return
            del windows[key]

    def drop(self, key: GroupKey) -> None:
        self.windows.pop(key, None)

    def items(self) -> Iterator[tuple[GroupKey, Window]]:
        return iter(self.windows.items())
