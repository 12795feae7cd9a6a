"""Poller and checkpoint as a state machine against the strict simulator: killed anywhere, refused, cut off, the log is published whole.

Held at every step (S1): whatever stands before the stored cursor is published. At the end (S2): the published uuids hold the tenant's
log, each tenant's order is kept for what came first, and a caught-up tail says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from model.errors import FaultError
from stream.poller import Tail
from tests.handlers.fakes import Killed
from tests.stream.tails import Source, api_of, event, simulated

FAULTS = st.sampled_from(
    [
        {"status": 400},
        {"status": 401},
        {"status": 429},
        {"status": 500},
        {"cut_body": True},
        {"reset": True},
        {"body": "<html>sign in</html>"},
        {"body": {"not": "a list"}},
    ]
)


#: What came in place of a page, and was parked whole (D27).
PARKED = (b"<html>sign in</html>", b'{"not":"a list"}')


class Polling(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.count = 0
        self.tail: Tail | None = None
        self._run(self._open())

    async def _open(self) -> None:
        self.source = Source(start="beginning", page_size=5)
        self.source.max_event_bytes = 100_000
        self.sim = simulated(self.source.clock.now)
        await self.sim.start()
        self.source.api = api_of(self.sim, self.source.clock)
        self.before = len(self.sim.org.log)
        self.tail = await self.source.tail()

    def teardown(self) -> None:
        try:
            self._settle()
        finally:
            self._run(self._close())
            self.loop.close()

    async def _close(self) -> None:
        assert self.source.api is not None
        await self.source.api.aclose()
        await self.sim.stop()

    # --- what may happen --------------------------------------------------------------------------------------------------

    @rule(number=st.integers(1, 12), late=st.booleans())
    def events_come(self, number: int, late: bool) -> None:
        """`late`: `published` two hours back; the order of persistence is what counts (2)."""
        for _ in range(number):
            self.count += 1
            facts = {"published": "2026-01-05T07:00:00.000Z"} if late else {}
            self.sim.org.log.append(event(f"e-{self.count}", **facts))

    @rule(count=st.integers(1, 4))
    def polls(self, count: int) -> None:
        for _ in range(count):
            self._step()

    @rule(fault=FAULTS, times=st.integers(1, 7))
    def okta_fails(self, fault: dict[str, Any], times: int) -> None:
        self.sim.faults.add({"method": "GET", "path": "/api/v1/logs", "times": times} | fault)

    @rule(writes=st.integers(0, 12))
    def is_killed(self, writes: int) -> None:
        self.source.log.kill_after = writes
        self._step()
        self._step()
        self._run(self._restart())

    @rule()
    def restarts(self) -> None:
        self._run(self._restart())

    @rule(seconds=st.sampled_from([1, 60, 1500]))
    def time_passes(self, seconds: int) -> None:
        self.source.clock.shift(seconds)

    # --- what must hold ---------------------------------------------------------------------------------------------------

    @invariant()
    def everything_before_the_cursor_is_published(self) -> None:
        cursor = self.source.cursor
        if cursor is not None:
            (after,) = parse_qs(urlsplit(cursor).query)["after"]
            position = int(after.partition("_")[2])
            published = {record.value for record in self._records()}
            assert set(self.sim.org.log.raws[:position]) <= published, "the cursor passed what Kafka does not hold"

    # --- the ends ---------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self.sim.faults.clear()
        self.source.log.kill_after = None
        self._run(self._restart())
        for _ in range(40 + self.count):
            self._step()
        published = [record.value for record in self._records() if record.value not in PARKED]
        log = self.sim.org.log.raws
        assert set(log) == set(published), "an event of the log is missing, or something was made up"
        firsts = list(dict.fromkeys(published))
        assert firsts == list(dict.fromkeys(log)), "what came first stands in the log's order"
        assert self.tail is not None
        assert self.tail.caught_up

    # --- how --------------------------------------------------------------------------------------------------------------

    def _records(self) -> list[Any]:
        from stream import topics

        return self.source.log.of(topics.SYSTEM_LOG)

    def _step(self) -> None:
        assert self.tail is not None
        with contextlib.suppress(Killed, FaultError):
            wait = self._run(self.tail.step())
            assert 0 <= wait <= 61

    async def _restart(self) -> None:
        self.source.log.kill_after = None
        self.tail = await self.source.tail()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)


TestPolling = Polling.TestCase
TestPolling.settings = settings(
    deadline=None, max_examples=25, stateful_step_count=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
