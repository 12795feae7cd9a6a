"""Breakers made visible: in the process' log at once, in the audit trail when a lane gets round to it, and over HTTP (`/breakers`).

A breaker moves in the middle of a call, perhaps of a lockdown: nobody may wait for Kafka there. So a move is noted, and a task beside
the lane publishes it with the lane's own publisher. A probe that fails is no news; that it opened and that it closed are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from aiokafka.errors import KafkaError

from handlers.contract import Clock
from handlers.limits import BreakerState, BreakerView, Limits
from model.decision import Severity
from model.event import digest
from model.records import Notice
from stream import topics
from stream.broker import Publisher

log = logging.getLogger(__name__)

AGAIN_S = 1.0


class BreakerNews:
    """`tenants` of a connector's name: whose trail hears of it."""

    def __init__(self, clock: Clock, tenants: Callable[[str], Iterable[str]]) -> None:
        self._clock, self._tenants = clock, tenants
        self._open: set[tuple[str, str]] = set()
        self._queue: asyncio.Queue[tuple[BreakerView, datetime]] = asyncio.Queue()

    def moved(self, view: BreakerView) -> None:
        """The breakers' `on_change`: never waits, never fails."""
        key = (view.connector, view.lane)
        log.warning("breaker of %s (%s lane): %s%s", *key, view.state, f": {view.reason}" if view.reason else "")
        was_open = key in self._open
        if view.state is BreakerState.OPEN:
            self._open.add(key)
        elif view.state is BreakerState.CLOSED:
            self._open.discard(key)
        if (key in self._open) is not was_open:
            self._queue.put_nowait((view, self._clock.now()))

    async def tell_forever(self, publisher: Publisher) -> None:
        """Runs beside a lane. Several lanes of one process may share the news: each is told once."""
        while True:
            view, at = await self._queue.get()
            for notice in self._notices(view, at):
                await self._publish(publisher, notice)

    async def _publish(self, publisher: Publisher, notice: Notice) -> None:
        while True:
            try:
                await publisher.send(topics.OUTCOMES, topics.person_key(notice.tenant, ""), notice.to_bytes())
                return
            except KafkaError as error:
                log.warning("a breaker's news is not written yet: %s", type(error).__name__)
                await self._clock.sleep(AGAIN_S)

    def _notices(self, view: BreakerView, at: datetime) -> Iterator[Notice]:
        is_open = view.state is BreakerState.OPEN
        for tenant in self._tenants(view.connector):
            yield Notice(
                id=digest("breaker", tenant, view.connector, view.lane, view.state, at.isoformat()),
                tenant=tenant,
                at=at,
                topic="breaker",
                severity=Severity.HIGH if is_open else Severity.LOW,
                target=view.connector,
                text=f"{view.connector} ({view.lane} lane) {_said(view)}",
                remedy="see that the vendor answers and that our credential is good; it is tried again by itself" if is_open else "",
                facts={"code": view.lane, "lane": view.lane, "state": view.state.value, "reason": view.reason},
            )


def _said(view: BreakerView) -> str:
    if view.state is BreakerState.OPEN:
        return f"is not called for {view.retry_in:.0f} s after {view.failures} failures: {view.reason}"
    return "answers again"


def shown(limits: Iterable[Limits]) -> list[dict[str, Any]]:
    """What `/breakers` shows: one object a (connector, lane) of this process."""
    return [asdict(one.breaker.view) for one in limits]
