"""Virtual time for tests: `handlers.contract.Clock` without waiting.

A sleeper is woken when the event loop has turned `SETTLE` times and nobody new fell asleep, earliest deadline first; time jumps
to that deadline. So a backoff of an hour takes no time, and several sleepers still wake in the order of their deadlines. Work
that waits for a real socket is invisible to this: pass `auto=False` there and move time by `advance`.
Rejected: patching the loop's own `time()` (libraries' timeouts would fire while a loopback server is still answering).
"""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta

#: A Monday morning; any fixed time would do.
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SETTLE = 25


class FakeClock:
    """`slept` lists every duration asked for, in order, so that a test can assert on a backoff."""

    def __init__(self, start: datetime = START, *, auto: bool = True) -> None:
        self._start = start
        self._elapsed = 0.0
        self._auto = auto
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._asked = 0
        self._quiet = 0
        self._pumping = False
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        self._asked += 1
        self._quiet = 0
        heapq.heappush(self._sleepers, (self._elapsed + seconds, self._asked, woken))
        if self._auto and not self._pumping:
            self._pumping = True
            loop.call_soon(self._pump)
        await woken

    async def advance(self, seconds: float) -> None:
        """Moves time on, waking everyone whose deadline passes, in order; then lets them run."""
        end = self._elapsed + seconds
        await self._settle()
        while (deadline := self._next_deadline()) is not None and deadline <= end:
            self._wake(deadline)
            await self._settle()
        self._elapsed = end

    def shift(self, seconds: float) -> None:
        """Moves time on (or back: a clock that was set wrong) without waking anybody."""
        self._elapsed += seconds

    @property
    def sleepers(self) -> int:
        """How many are asleep now."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def _settle(self) -> None:
        for _ in range(SETTLE):
            await asyncio.sleep(0)

    def _pump(self) -> None:
        self._quiet += 1
        if self._quiet > SETTLE:
            self._quiet = 0
            if (deadline := self._next_deadline()) is not None:
                self._wake(deadline)
        if self._next_deadline() is None:
            self._pumping = False
            return
        asyncio.get_running_loop().call_soon(self._pump)

    def _next_deadline(self) -> float | None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def _wake(self, deadline: float) -> None:
        self._elapsed = max(self._elapsed, deadline)
        while self._sleepers and self._sleepers[0][0] <= deadline:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
