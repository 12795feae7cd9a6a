"""What is not ours any more is not touched: a process that was stopped past its session, and a broker that was away."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from model.errors import Fenced
from tests.stream.stations import SESSION_S, Floor, Site, Station, until
from tests.support.kafka_fixtures import AnyBroker, Kafka

pytestmark = pytest.mark.kafka


class Child:
    """`lines` with the moment at which each arrived."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[tuple[float, str]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.decode().strip()))

    def said(self, word: str) -> list[float]:
        return [at for at, line in self.lines if line.startswith(word)]

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._reading


@contextlib.asynccontextmanager
async def child(site: Site, root: Path) -> AsyncIterator[Child]:
    arguments = (sys.executable, "-m", "tests.stream.child_worker", site.broker.bootstrap, site.group, site.name)
    process = await asyncio.create_subprocess_exec(*arguments, cwd=root, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    one = Child(process)
    try:
        yield one
    finally:
        await one.close()


@pytest.mark.fault(34)
async def test_a_process_stopped_past_its_session_wakes_up_fenced_and_has_no_second_effect(kafka: Kafka, root: Path) -> None:
    site, floor = await Site(kafka, partitions=1).open(), Floor()
    await site.produce((b"t:person", b"order"))
    async with child(site, root) as sleeper:
        await until(lambda: sleeper.said("effect"), 30)
        sleeper.process.send_signal(signal.SIGSTOP)
        effects = len(sleeper.said("effect"))
        async with site.working(Station("b", floor)):
            await until(lambda: floor.values == [b"order"], 40)
            woken = time.monotonic()
            sleeper.process.send_signal(signal.SIGCONT)
            await until(lambda: sleeper.said("fenced"), 20)
            await until(lambda: sleeper.said("ended"), 30)
    late = [at for at in sleeper.said("effect")[effects:] if at > woken]
    assert late == [], "it acted after somebody else had taken over"
    assert floor.values == [b"order"]


async def test_a_heartbeat_that_is_too_old_fences_although_nobody_told_us(kafka: Kafka) -> None:
    """D12: the generation alone does not show it."""
    site = await Site(kafka, partitions=1).open()
    async with site.working(Station("a", Floor())) as worker:
        await until(lambda: worker.owned == {0})
        worker.check("t", "person")
        thread = worker.consumer._thread
        sent = thread.heartbeat_sent
        assert time.monotonic() - sent < SESSION_S
        await until(lambda: thread.heartbeat_sent > sent)
        coordinator = thread._ensure_consumer()._coordinator

        async def unanswered(*args: object) -> bool:
            return False

        coordinator._do_heartbeat = thread._noting(unanswered)
        thread.heartbeat_sent = time.monotonic() - SESSION_S - 0.1
        with pytest.raises(Fenced, match="longer than the session timeout"):
            worker.check("t", "person")
        assert worker.owned == {0}


@pytest.mark.fault(32)
async def test_a_broker_that_dies_and_returns_costs_nothing_and_needs_nobody(kafka_broker: AnyBroker) -> None:
    site, floor = await Site(Kafka(kafka_broker.bootstrap, "t")).open(), Floor()
    records = await site.spread(keys=6, each=20)
    async with site.working(Station("a", floor)) as worker:
        failed = asyncio.create_task(worker.failed())
        await until(lambda: len(floor.done) == len(records))
        await until(lambda: site.total_committed())
        await asyncio.to_thread(kafka_broker.kill)
        await asyncio.sleep(2)
        await asyncio.to_thread(kafka_broker.restart)
        more = [(key, value + b"+") for key, value in records]
        await site.produce(*more)
        await until(lambda: set(floor.values) == {value for _, value in records + more}, 60)
        assert not failed.done(), "a broker that was away for a moment ended the worker"
        failed.cancel()
        await until(lambda: _committed(site, len(records) * 2), 30)


async def _committed(site: Site, count: int) -> bool:
    return await site.total_committed() == count
