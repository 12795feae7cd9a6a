"""S7: of two pollers one tails a tenant; when it dies or goes, the other goes on from its cursor, and nothing is missing."""

from __future__ import annotations

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
from model.settings import KafkaSettings, OktaSettings
from simulators.okta import OktaSimulator
from stream import topics
from stream.broker import Broker
from stream.clock import SystemClock
from stream.poller import Poller
from stream.topics import partition_of
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


async def poller(kafka: RealKafka, okta: OktaSimulator) -> Poller:
    broker, clock = Broker(KafkaSettings(bootstrap=kafka.bootstrap)), SystemClock()
    await broker.start()
    settings = OktaSettings.model_validate(
        {"url": okta.url, "token_env": "T", "start": "beginning", "poll_interval_s": 0.1, "page_size": 10}
    )
    auth = StaticToken("SSWS", lambda: SecretStr(TOKEN))
    api = OktaApi(Client(OKTA, okta.url, auth, Limits("okta", "provision", clock, per_minute=1e6), clock), okta.url)
    one = Poller(broker, {"acme": settings}, {"acme": api}, clock)
    await one.start()
    return one


async def published(kafka: RealKafka) -> list[str]:
    broker = Broker(KafkaSettings(bootstrap=kafka.bootstrap))
    reader: Any = broker.reader()
    await reader.start()
    try:
        (tp,) = [one for one in broker.all_partitions(topics.SYSTEM_LOG.name) if one.partition == partition_of(b"acme", broker.partitions)]
        reader.assign([tp])
        await reader.seek_to_beginning(tp)
        end = (await reader.end_offsets([tp]))[tp]
        found: list[str] = []
        while len(found) < end:
            for records in (await reader.getmany(timeout_ms=500)).values():
                found += [json.loads(record.value)["uuid"] for record in records]
        return found
    finally:
        await reader.stop()


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
