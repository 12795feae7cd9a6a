"""Due work is a durable schedule, not a timer (D24): retries, later looks, read-backs, parked changes. It survives restarts and fires
late rather than never. One entry a (lane, tenant, person, slot): later knocks for that person merge into it, because what is retried
is "look at this person at this target", never an old plan.

Rejected: retry topics with delays baked in (order per person is lost), timers in memory (a restart forgets them).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import heapq
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from handlers.contract import Clock, Lane
from model.person import Word
from model.settings import SafetySettings
from stream.state import State
from stream.worker import Chains

log = logging.getLogger(__name__)

Kind = Literal["retry", "look", "read_back", "parked"]


class Due(Word):
    """One entry. `slot` is a target's name in the provision lane; `contain` (and what lighter orders ask for, `contain.…`), `close`,
    `release`, `read_back` in the lockdown lane.
    `payload` is the original order, knock or command as it came, kept with parked work too (P3): text, or base64 where it is none.
    `number` counts a Hold's read-backs. `suspended`: targets where nothing but the rest of the closing is left."""

    lane: Lane
    tenant: str
    person: str
    slot: str
    kind: Kind
    due: datetime
    since: datetime
    attempts: int = 0
    reason: str = ""
    code: str = ""
    hold: str | None = None
    incident: str | None = None
    only: tuple[str, ...] = ()
    event_uuid: str | None = None
    payload: str = ""
    number: int = 0
    suspended: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.lane}:{self.tenant}:{self.person}:{self.slot}"

    @property
    def original(self) -> bytes:
        """The very bytes that `as_payload` was given."""
        text = self.payload
        return base64.b64decode(text.removeprefix(_BASE64)) if text.startswith(_BASE64) else text.encode()


_BASE64 = "base64:"


def as_payload(raw: bytes) -> str:
    """Any bytes as text that JSON can carry, and that gives them back exactly."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = _BASE64
    return _BASE64 + base64.b64encode(raw).decode() if text.startswith(_BASE64) else text


class RetryPolicy:
    """Backoff with jitter; what a vendor asked for is a minimum. Pure but for the dice."""

    def __init__(self, settings: SafetySettings, dice: Callable[[], float] = random.random) -> None:
        self._settings, self._dice = settings, dice

    def delay(self, attempts: int, asked: float | None) -> float:
        """Seconds until try number `attempts` + 1."""
        backoff = min(self._settings.retry_longest_s, self._settings.retry_first_s * 2.0 ** min(max(attempts - 1, 0), 20))
        return max(asked or 0.0, backoff * (0.5 + self._dice() / 2))

    def gives_up(self, since: datetime, now: datetime) -> bool:
        return (now - since).total_seconds() > self._settings.give_up_s


class Schedule:
    """The entries of one lane; runs those of persons whose partition is ours, in their person's chain.

    At most `at_once` are under way: what is due and has no place yet stays out of its person's chain, where a fresh knock would wait
    behind it. `wait` gives the seconds that a due retry must be put off for (E6); the entry itself stays as it is, so a restart asks again."""

    def __init__(
        self,
        state: State,
        lane: Lane,
        owns: Callable[[str, str], bool],
        chains: Chains,
        run: Callable[[Due], Awaitable[None]],
        clock: Clock,
        wait: Callable[[Due], float] = lambda due: 0.0,
        at_once: int = 16,
    ) -> None:
        self._state, self._lane, self._owns, self._chains, self._run, self._clock = state, lane, owns, chains, run, clock
        self._wait, self._at_once = wait, at_once
        self._heap: list[tuple[datetime, str]] = []
        self._running: set[str] = set()
        self._wake = asyncio.Event()
        self.failure: BaseException | None = None

    def changed(self, key: str, value: bytes | None) -> None:
        """The follower's callback."""
        if value is None or not key.startswith(f"{self._lane}:"):
            return
        due: Due = Due.from_bytes(value)
        if due.kind != "parked":
            heapq.heappush(self._heap, (due.due, key))
            self._wake.set()

    def rescan(self) -> None:
        """After an assignment: entries that were somebody else's may be ours now."""
        self._heap = [(due.due, due.key) for due in self.entries() if due.kind != "parked"]
        heapq.heapify(self._heap)
        self._wake.set()

    def entries(self) -> list[Due]:
        return [Due.from_bytes(value) for key, value in list(self._state.values.items()) if key.startswith(f"{self._lane}:")]

    def get(self, tenant: str, person: str, slot: str) -> Due | None:
        value = self._state.values.get(f"{self._lane}:{tenant}:{person}:{slot}")
        return Due.from_bytes(value) if value else None

    async def put(self, due: Due) -> None:
        await self._state.write(due.key, due.to_bytes())

    async def done(self, due: Due) -> None:
        """Drops an entry whose work is done, unless that work put it off again."""
        if self.get(due.tenant, due.person, due.slot) == due:
            await self._state.erase(due.key)

    async def drop(self, tenant: str, person: str, slot: str) -> None:
        key = f"{self._lane}:{tenant}:{person}:{slot}"
        if key in self._state.values:
            await self._state.erase(key)

    def due_before(self, seconds: float) -> int:
        """How many entries of ours are due within so many seconds (or running now)."""
        until = self._clock.now() + timedelta(seconds=seconds)
        mine = [due for due in self.entries() if due.kind != "parked" and due.due <= until and self._owns(due.tenant, due.person)]
        return len(mine) + len(self._running)

    async def run_forever(self) -> None:
        while True:
            self._wake.clear()
            wait = self._start_due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):  # not wait_for: woken and cancelled at once, Python 3.11's forgets the cancellation
                    await self._wake.wait()

    def _start_due(self) -> float:
        """Starts what is due; returns the seconds until the next."""
        now = self._clock.now()
        while self._heap and len(self._running) < self._at_once:
            when, key = self._heap[0]
            if when > now:
                return min((when - now).total_seconds(), 60.0)
            heapq.heappop(self._heap)
            value = self._state.values.get(key)
            due = Due.from_bytes(value) if value else None
            if due is None or due.due > when or due.kind == "parked" or key in self._running or not self._owns(due.tenant, due.person):
                continue
            if due.kind == "retry" and (wait := self._wait(due)) > 0:
                heapq.heappush(self._heap, (now + timedelta(seconds=max(wait, 0.05)), key))
                continue
            self._running.add(key)
            task = self._chains.add((due.tenant, due.person), partial(self._fire, due))
            task.add_done_callback(partial(self._done, key))
        return 60.0

    async def _fire(self, due: Due) -> None:
        if self._owns(due.tenant, due.person) and self.get(due.tenant, due.person, due.slot) == due:
            await self._run(due)

    def note(self, task: asyncio.Task[None]) -> bool:
        """Work that belongs to no batch and failed ends the process, as a batch's would. True where it did not fail."""
        if task.cancelled() or (error := task.exception()) is None:
            return True
        log.error("work outside a batch failed", exc_info=error)
        self.failure = error
        return False

    def _done(self, key: str, task: asyncio.Task[None]) -> None:
        self._running.discard(key)
        self._wake.set()
        if not self.note(task) or task.cancelled():
            return
        value = self._state.values.get(key)
        if value is not None:  # still there: put again by the work itself, maybe while the follower's callback was not due
            self.changed(key, value)
