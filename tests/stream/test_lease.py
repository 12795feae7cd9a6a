"""S7: of two pollers one tails a tenant; when it dies or goes, the other goes on from its cursor, and nothing is missing. And of two
tenants one that cannot be read stops no other."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from handlers.auth import StaticToken
from handlers.client import Client
from handlers.limits import Limits
from handlers.okta.api import OKTA, OktaApi
from model.decision import Severity
from model.errors import FaultError
from model.records import Notice, read_record
from model.settings import KafkaSettings, OktaSettings
from simulators.okta import OktaSimulator
from stream import topics
from stream.broker import Broker, Publisher
from stream.clock import SystemClock
from stream.poller import Poller
from stream.topics import Topic
from tests.stream.fakes import until
from tests.support.kafka import Broker as RealKafka

pytestmark = pytest.mark.kafka
TOKEN = "00token"


@pytest.fixture
async def okta() -> AsyncIterator[OktaSimulator]:
    okta = OktaSimulator(lag=0.0, clock=time.time, rate=100_000)
    okta.add_token(TOKEN)
    await okta.start()
    yield okta
    await okta.stop()


def events(okta: OktaSimulator, begin: int, count: int) -> list[str]:
    uuids = [f"e-{number}" for number in range(begin, begin + count)]
    raws = [{"uuid": uuid, "eventType": "user.test", "published": "2026-01-05T09:00:00.000Z"} for uuid in uuids]
    okta.org.log.extend([json.dumps(raw).encode() for raw in raws])
    return uuids


async def poller(kafka: RealKafka, okta: OktaSimulator, *others: str) -> Poller:
    broker, clock = Broker(KafkaSettings(bootstrap=kafka.bootstrap)), SystemClock()
    await broker.start()
    settings = OktaSettings.model_validate(
        {"url": okta.url, "token_env": "T", "start": "beginning", "poll_interval_s": 0.1, "page_size": 10}
    )
    auth = StaticToken("SSWS", lambda: SecretStr(TOKEN))

    def api() -> OktaApi:
        return OktaApi(Client(OKTA, okta.url, auth, Limits("okta", "provision", clock, per_minute=1e6), clock), okta.url)

    tenants = ("acme", *others)
    one = Poller(broker, dict.fromkeys(tenants, settings), {tenant: api() for tenant in tenants}, clock)
    await one.start()
    return one


async def set_checkpoint(kafka: RealKafka, tenant: str, value: bytes | None) -> None:
    broker = Broker(KafkaSettings(bootstrap=kafka.bootstrap))
    await broker.start()
    publisher = Publisher(broker)
    await publisher.start()
    await publisher.send(topics.CHECKPOINTS, tenant.encode(), value)
    await publisher.stop()


async def values(kafka: RealKafka, topic: Topic) -> list[bytes]:
    """All of a topic, partition by partition."""
    broker = Broker(KafkaSettings(bootstrap=kafka.bootstrap))
    reader: Any = broker.reader()
    await reader.start()
    try:
        tps = broker.all_partitions(topic.name)
        reader.assign(tps)
        await reader.seek_to_beginning(*tps)
        count = sum((await reader.end_offsets(tps)).values())
        found: list[bytes] = []
        while len(found) < count:
            for records in (await reader.getmany(timeout_ms=500)).values():
                found += [record.value for record in records]
        return found
    finally:
        await reader.stop()


async def published(kafka: RealKafka) -> list[str]:
    return [json.loads(value)["uuid"] for value in await values(kafka, topics.SYSTEM_LOG)]


async def notices(kafka: RealKafka) -> list[Notice]:
    return [record for value in await values(kafka, topics.OUTCOMES) if isinstance(record := read_record(value), Notice)]


async def test_one_tails_and_the_other_takes_over_from_its_cursor(kafka_broker: RealKafka, okta: OktaSimulator) -> None:
    logged = events(okta, 0, 50)
    one = await poller(kafka_broker, okta)
    await until(lambda: one.events >= 50, 20)
    other = await poller(kafka_broker, okta)
    await until(lambda: bool(one._running) != bool(other._running), 20)
    owner, waiting = (one, other) if one._running else (other, one)
    before = owner.events, waiting.events
    logged += events(okta, 50, 50)
    await until(lambda: owner.events >= before[0] + 50, 20)
    assert waiting.events == before[1], "the loser does not ask"
    await owner.stop()
    logged += events(okta, 100, 50)
    await until(lambda: waiting._running and waiting.events >= 50, 30)
    await waiting.stop()
    found = await published(kafka_broker)
    assert set(found) == set(logged)
    repeats = sum(count - 1 for count in Counter(found).values())
    assert repeats <= 10, "a page at most: the cursor was kept"
    assert list(dict.fromkeys(found)) == logged, "the first time of each, in Okta's order"


@pytest.mark.fault(14)
async def test_a_tenant_that_cannot_be_read_stops_no_other_and_goes_on_when_it_is_mended(
    kafka_broker: RealKafka, okta: OktaSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.poller.AGAIN_S", 0.2)
    await set_checkpoint(kafka_broker, "globex", b"{")
    events(okta, 0, 20)
    one = await poller(kafka_broker, okta, "globex")
    failed = asyncio.create_task(one.failed())
    acme, globex = (one._tails[name] for name in ("acme", "globex"))
    await until(lambda: acme.caught_up and "globex" in one.stopped, 20)
    assert (acme.events, await one.lag()) == (20, 0), "nothing more can be read"
    events(okta, 20, 20)
    await until(lambda: acme.events == 40, 20)
    assert (globex.events, failed.done()) == (0, False)
    await set_checkpoint(kafka_broker, "globex", None)
    await until(lambda: globex.events == 40, 20)
    assert one.stopped == {}
    failed.cancel()
    await one.stop()
    told = await notices(kafka_broker)
    assert [(notice.tenant, notice.severity) for notice in told] == [("globex", Severity.CRITICAL)], "told once, however often it was tried"
    assert "checkpoint of tenant globex is damaged" in told[0].text


@pytest.mark.fault(14)
async def test_when_no_tenant_can_be_read_the_process_ends(kafka_broker: RealKafka, okta: OktaSimulator) -> None:
    for tenant in ("acme", "globex"):
        await set_checkpoint(kafka_broker, tenant, b"{")
    one = await poller(kafka_broker, okta, "globex")
    with pytest.raises(FaultError, match="is damaged"):
        await asyncio.wait_for(one.failed(), 20)
    await one.stop()
