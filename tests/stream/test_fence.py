"""A heartbeat that is too old, and a broker that was away. (A process that slept through its session: test_frozen.py.)"""

from __future__ import annotations

import asyncio
import time

import pytest

from model.errors import Fenced
from tests.stream.stations import SESSION_S, Floor, Site, Station, until
from tests.support.kafka_fixtures import AnyBroker, Kafka

pytestmark = pytest.mark.kafka


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


@pytest.mark.fault(33)
async def test_a_stop_while_the_broker_is_away_is_clean_and_takes_seconds(kafka_broker: AnyBroker) -> None:
    """Also with work done that can no more be committed."""
    site, floor, gate = await Site(Kafka(kafka_broker.bootstrap, "t")).open(), Floor(), asyncio.Event()

    async def wait(key: bytes, value: bytes) -> None:
        await gate.wait()

    await site.spread(keys=6, each=1)
    worker = site.worker(Station("a", floor, wait))
    await worker.start()
    await until(lambda: len(floor.busy) == 6)
    await asyncio.to_thread(kafka_broker.kill)
    gate.set()
    await asyncio.sleep(1)
    began = time.monotonic()
    await asyncio.wait_for(worker.stop(), 60)
    assert time.monotonic() - began < 20
    assert len(floor.done) == 6


async def _committed(site: Site, count: int) -> bool:
    return await site.total_committed() == count
