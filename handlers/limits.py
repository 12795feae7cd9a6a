"""What stands before every call of one (connector, lane): a gate for concurrency, a rate budget, a circuit breaker (E5, D23).

The lanes are processes of their own, so the share of a vendor's rate that lockdown needs is reserved by splitting the budget,
not by asking another process. What the vendor's own headers say is heeded on top: provisioning stands still while what remains
of the vendor's bucket is lockdown's share. Rejected: one bucket shared over Kafka (a lockdown must not wait for a broker), and
retrying in here (a retry that sleeps in memory dies with the process; the durable schedule retries).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from handlers.contract import Clock, Lane
from model.errors import BreakerOpen, CredentialsRefused, PermanentError, RateLimited, TemporaryError


class RateBudget:
    """Requests a minute as a token bucket (GCRA): `burst` at once, then evenly. Waits in memory up to `max_wait_s`, beyond
    that raises RateLimited with the wait as its delay, so that the durable schedule waits instead."""

    def __init__(self, clock: Clock, per_minute: float, *, burst: float | None = None, max_wait_s: float = 5.0) -> None:
        self._clock = clock
        self._interval = 60.0 / per_minute
        self._tolerance = max((burst if burst is not None else per_minute / 10) - 1, 0) * self._interval
        self._max_wait = max_wait_s
        self._due = float("-inf")

    async def take(self) -> None:
        now = self._clock.monotonic()
        due = max(self._due, now)
        wait = due - self._tolerance - now
        if wait > self._max_wait:
            raise RateLimited(f"our rate budget is spent for {wait:.0f} s", delay=wait)
        self._due = due + self._interval
        if wait > 0:
            await self._clock.sleep(wait)

    def hold_off(self, seconds: float) -> None:
        """The vendor asked for a pause: nothing more goes out before it is over, then evenly."""
        self._due = max(self._due, self._clock.monotonic() + seconds + self._tolerance)


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerView:
    """What an operator sees. `retry_in` seconds to the next probe (0 unless open)."""

    connector: str
    lane: Lane
    state: BreakerState
    failures: int
    reason: str
    retry_in: float


class Breaker:
    """Opens at once on refused credentials, else after `threshold` consecutive failures of the connector itself. After the
    cool-down one probe goes through: success closes, failure opens again for twice as long."""

    def __init__(
        self,
        connector: str,
        lane: Lane,
        clock: Clock,
        *,
        threshold: int = 5,
        cooldown_s: float = 15.0,
        max_cooldown_s: float = 240.0,
        on_change: Callable[[BreakerView], None] | None = None,
    ) -> None:
        self._connector, self._lane, self._clock = connector, lane, clock
        self._threshold, self._first_cooldown, self._max_cooldown = threshold, cooldown_s, max_cooldown_s
        self._on_change = on_change
        self._state = BreakerState.CLOSED
        self._failures, self._reason = 0, ""
        self._cooldown, self._until = cooldown_s, 0.0
        self._probing = False

    @property
    def view(self) -> BreakerView:
        left = max(self._until - self._clock.monotonic(), 0.0) if self._state is BreakerState.OPEN else 0.0
        return BreakerView(self._connector, self._lane, self._state, self._failures, self._reason, left)

    def admit(self) -> bool:
        """True where this call is the probe of a half-open breaker; raises BreakerOpen where nothing may go out."""
        if self._state is BreakerState.CLOSED:
            return False
        left = self._until - self._clock.monotonic()
        if self._state is BreakerState.OPEN and left > 0:
            raise BreakerOpen(f"{self._connector}: stopped for {left:.0f} s more after: {self._reason}", delay=left)
        if self._probing:
            raise BreakerOpen(f"{self._connector}: a probe is under way after: {self._reason}", delay=1.0)
        self._probing = True
        self._move(BreakerState.HALF_OPEN)
        return True

    def succeeded(self, probe: bool) -> None:
        """An answer that began before the breaker opened says nothing about now: only the probe closes it."""
        if self._state is not BreakerState.CLOSED and not probe:
            return
        self._probing, self._failures, self._reason, self._cooldown = False, 0, "", self._first_cooldown
        self._move(BreakerState.CLOSED)

    def failed(self, probe: bool, reason: str, *, at_once: bool = False) -> None:
        self._failures += 1
        if probe:
            self._probing = False
            self._cooldown = min(self._cooldown * 2, self._max_cooldown)
        elif self._state is not BreakerState.CLOSED or (self._failures < self._threshold and not at_once):
            return
        self._reason = reason
        self._until = self._clock.monotonic() + self._cooldown
        self._move(BreakerState.OPEN)

    def undecided(self, probe: bool) -> None:
        """The call ended without saying anything about the connector (cancelled, out of budget): the next one probes."""
        if probe:
            self._probing = False

    def _move(self, state: BreakerState) -> None:
        if state is not self._state:
            self._state = state
            if self._on_change is not None:
                self._on_change(self.view)


class RetryBudget:
    """E6: retries stay below `fraction` of the requests of the last minute, with a floor a minute. Lockdown is exempt.

    `try_retry` returns 0 where a retry may go (and counts it), else the seconds after which to ask again; `wait` only asks.
    """

    _WINDOW = 60.0

    def __init__(self, clock: Clock, *, exempt: bool = False, fraction: float = 0.10, floor: int = 10) -> None:
        self._clock, self._exempt, self._fraction, self._floor = clock, exempt, fraction, floor
        self._requests: deque[float] = deque()
        self._retries: deque[float] = deque()

    def note_request(self) -> None:
        self._trim()
        self._requests.append(self._clock.monotonic())

    def wait(self) -> float:
        if self._exempt:
            return 0.0
        self._trim()
        if len(self._retries) < max(self._floor, int(len(self._requests) * self._fraction)):
            return 0.0
        return self._retries[0] + self._WINDOW - self._clock.monotonic()

    def try_retry(self) -> float:
        wait = self.wait()
        if not self._exempt and wait <= 0:
            self._retries.append(self._clock.monotonic())
        return wait

    def _trim(self) -> None:
        oldest = self._clock.monotonic() - self._WINDOW
        for times in (self._requests, self._retries):
            while times and times[0] <= oldest:
                times.popleft()


class Limits:
    """All limits of one (connector, lane). `share` is this lane's part of `per_minute`, `reserve` the part of the vendor's
    bucket that is left to others. Long calls (a transfer takes minutes) queue at a gate of their own, not before the short ones."""

    def __init__(
        self,
        connector: str,
        lane: Lane,
        clock: Clock,
        *,
        per_minute: float,
        share: float = 1.0,
        reserve: float = 0.0,
        concurrency: int = 8,
        long_calls: int = 2,
        max_wait_s: float = 5.0,
        on_change: Callable[[BreakerView], None] | None = None,
    ) -> None:
        self.connector, self.lane = connector, lane
        self.connections = concurrency + long_calls
        self.budget = RateBudget(clock, per_minute * share, max_wait_s=max_wait_s)
        self.breaker = Breaker(connector, lane, clock, on_change=on_change)
        self.retries = RetryBudget(clock, exempt=lane == "lockdown")
        self._reserve = reserve
        self._gate, self._long_gate = asyncio.Semaphore(concurrency), asyncio.Semaphore(long_calls)

    @asynccontextmanager
    async def slot(self, *, long: bool = False) -> AsyncIterator[None]:
        """Around one request. What leaves the block tells the breaker how the connector is: TemporaryError is a failure,
        CredentialsRefused opens it at once, RateLimited says nothing, any other PermanentError is an answer."""
        async with self._long_gate if long else self._gate:
            probe = self.breaker.admit()
            try:
                await self.budget.take()
                self.retries.note_request()
                yield
            except RateLimited as limited:
                self.breaker.undecided(probe)
                if limited.delay:
                    self.budget.hold_off(limited.delay)
                raise
            except TemporaryError as error:
                self.breaker.failed(probe, str(error))
                raise
            except CredentialsRefused as error:
                self.breaker.failed(probe, str(error), at_once=True)
                raise
            except PermanentError:
                self.breaker.succeeded(probe)
                raise
            except BaseException:
                self.breaker.undecided(probe)
                raise
            self.breaker.succeeded(probe)

    def heed(self, limit: int | None, remaining: int | None, reset_in: float | None) -> None:
        """What the vendor says is left of its bucket: this lane pauses where only the reserve of the others remains."""
        if limit and remaining is not None and reset_in and remaining < limit * self._reserve:
            self.budget.hold_off(reset_in)
