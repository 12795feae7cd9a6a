"""The log that the throughput runs read, and how each of them finds a clean house: the topics of the product, filled once, their
groups and state thrown away between two runs. Tenants are chosen so that each has a partition of its own, as in a cluster with enough
partitions; with one tenant everything stands in one partition, and one worker's core is all it can use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from bench.events import synthetic
from model.settings import KafkaSettings
from stream import topics
from stream.broker import Broker

PARTITIONS = 8
#: Events a second of event time, over all tenants; 2,000 people stand behind every 50.
PER_SECOND = 400.0
_PEOPLE = 40
_WAIT_S = 30.0


def tenant_names(count: int, partitions: int = PARTITIONS) -> list[str]:
    """As many tenants on as many different partitions; one where one is asked for."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < count:
        name = f"tenant-{number:03d}"
        found.setdefault(topics.partition_of(name.encode(), partitions), name)
        number += 1
    return sorted(found.values())


def events(count: int, tenants: list[str], now: datetime) -> Iterator[tuple[str, bytes]]:
    """(tenant, event), tenants in turn; their times end at `now`."""
    each, rate = count // len(tenants), PER_SECOND / len(tenants)
    start = now - timedelta(seconds=each / rate)
    streams = [synthetic(each, seed, int(rate * _PEOPLE), rate, start) for seed in range(1, len(tenants) + 1)]
    for raws in zip(*streams, strict=True):
        yield from zip(tenants, raws, strict=True)


def fill(bootstrap: str, count: int, tenants: list[str]) -> float:
    """Makes the topics, writes `count` events, returns their mean size in bytes. Each partition holds its tenant's order. The log is read
    once before anybody is measured: a broker that has just started serves the first reader slowly, and it would be the first contender's."""
    _make_topics(bootstrap)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "batch.size": 1_000_000, "queue.buffering.max.kbytes": 65_536})
    size, written = 0, 0
    for tenant, raw in events(count, tenants, datetime.now(UTC)):
        partition = topics.partition_of(tenant.encode(), PARTITIONS)
        while True:
            try:
                producer.produce(topics.SYSTEM_LOG.name, raw, tenant.encode(), partition)
                break
            except BufferError:
                producer.poll(0.1)
        size, written = size + len(raw), written + 1
    if producer.flush(60):
        raise RuntimeError("the log could not be filled within a minute")
    _read_once(bootstrap, written)
    return size / written


def _read_once(bootstrap: str, count: int) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-warm-up", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topics.SYSTEM_LOG.name, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    give_up = time.monotonic() + 2 * _WAIT_S
    while count > 0:
        count -= len(consumer.consume(1000, 1.0))
        if time.monotonic() > give_up:
            raise RuntimeError("the log could not be read within a minute")
    consumer.close()


def clear(bootstrap: str, *, log_too: bool = False) -> None:
    """Throws every group and every topic but the log away (the log as well with `log_too`): the next run starts as the first did."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    groups = [one.group_id for one in admin.list_consumer_groups().result().valid]
    if groups:
        for ended in admin.delete_consumer_groups(groups).values():
            ended.result()
    known = admin.list_topics(timeout=10).topics
    doomed = [name for name in known if not name.startswith("__") and (log_too or name != topics.SYSTEM_LOG.name)]
    if doomed:
        for ended in admin.delete_topics(doomed).values():
            ended.result()
    give_up = time.monotonic() + _WAIT_S
    while set(admin.list_topics(timeout=10).topics) & set(doomed):
        if time.monotonic() > give_up:
            raise RuntimeError("topics that were deleted are still there")
        time.sleep(0.1)
    _make_topics(bootstrap)


def _make_topics(bootstrap: str) -> None:
    async def make() -> None:
        broker = Broker(KafkaSettings(bootstrap=bootstrap, partitions=PARTITIONS))
        await broker.start()
        await broker.stop()

    asyncio.run(make())
