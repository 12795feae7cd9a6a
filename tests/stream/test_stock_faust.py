"""Why stream/transport.py is there: the same scenario on Faust as it comes loses the event that raised; through our transport it does not.

A new release of Faust that keeps it makes the first test fail, and then the shim can be thought of anew.
"""

from __future__ import annotations

import asyncio
from typing import Any

import faust
import pytest

from model.errors import FaultError
from tests.stream.stations import Floor, Site, Station, until
from tests.support.kafka_fixtures import Kafka

pytestmark = pytest.mark.kafka

RECORDS = [(b"a", b"%d" % number) for number in range(10)]
BAD = b"4"


class Stock:
    """A plain Faust app: an agent that raises at one event, the first time it sees it."""

    def __init__(self, site: Site) -> None:
        self.seen: list[bytes] = []
        self.handled: list[bytes] = []
        self.apps: list[Any] = []
        self.site = site

    async def run(self, expected: int) -> None:
        app = faust.App(
            self.site.group,
            broker=f"kafka://{self.site.broker.bootstrap}",
            store="memory://",
            autodiscover=False,
            value_serializer="raw",
            key_serializer="raw",
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            broker_commit_interval=0.2,
            broker_session_timeout=6.0,
            broker_heartbeat_interval=2.0,
            datadir=self.site.datadir,
        )

        async def work(stream: Any) -> None:
            async for event in stream.events():
                self.seen.append(event.value)
                if event.value == BAD and self.seen.count(BAD) == 1:
                    raise ValueError("an agent that raises")
                self.handled.append(event.value)

        app.agent(app.topic(self.site.name))(work)
        await app.start()
        try:
            await until(lambda: len(self.seen) >= expected)
            await asyncio.sleep(1.0)
        finally:
            await app.stop()


@pytest.mark.fault(29)
async def test_stock_faust_loses_an_event_whose_agent_raises(kafka: Kafka, tmp_path: Any) -> None:
    site = await Site(kafka, partitions=1).open()
    site.datadir = tmp_path
    await site.produce(*RECORDS)
    stock = Stock(site)
    await stock.run(len(RECORDS))
    again = (b"a", b"after the restart")
    await site.produce(again)
    await stock.run(len(RECORDS) + 1)
    assert stock.handled[-1] == again[1], "the group goes on where it stood"
    assert BAD not in stock.handled, "stock Faust delivered the event again: is the shim still needed?"
    assert await site.committed() == {0: len(RECORDS) + 1}, "and its offset is committed, so nobody will ever see it again"


async def test_our_transport_does_not(kafka: Kafka) -> None:
    site, floor = await Site(kafka, partitions=1).open(), Floor()
    await site.produce(*RECORDS)
    raised: list[bytes] = []

    async def work(key: bytes, value: bytes) -> None:
        if value == BAD and not raised:
            raised.append(value)
            raise ValueError("an agent that raises")

    async with site.working(Station("a", floor, work)) as worker:
        with pytest.raises(FaultError, match="an agent that raises"):
            await asyncio.wait_for(worker.failed(), 20)
        await asyncio.sleep(1.0)
        assert await site.committed() == {0: None}
    async with site.working(Station("b", floor, work)):
        await until(lambda: set(floor.values) == {value for _, value in RECORDS})
