"""Workers on a real broker: a handler that notes everything it is given, on topics and in a group of its own test."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from faust.types import TP

from model.settings import KafkaSettings
from stream import classify, notify, poller, record, topics
from stream.broker import Broker
from stream.lockdown import LockdownRole
from stream.provision import ProvisionRole
from stream.topics import WEEK_MS, Topic
from stream.worker import Chains, Records, Worker
from tests.support.kafka_fixtures import Kafka

#: Kafka's shortest session (group.min.session.timeout.ms).
SESSION_S = 6.0
Work = Callable[[bytes, bytes], Awaitable[None]]


async def nothing(key: bytes, value: bytes) -> None:
    """Work that is done at once."""


@dataclass
class Floor:
    """What all workers of one test did together, and whether two were ever at one key at once."""

    done: list[tuple[bytes, bytes]] = field(default_factory=list)
    begun: list[tuple[str, bytes]] = field(default_factory=list)
    busy: dict[bytes, str] = field(default_factory=dict)
    overlaps: list[str] = field(default_factory=list)
    cancelled: list[bytes] = field(default_factory=list)

    @property
    def values(self) -> list[bytes]:
        return [value for _, value in self.done]

    def first_times(self, key: bytes) -> list[bytes]:
        return list(dict.fromkeys(value for one, value in self.done if one == key))


class Station:
    """One worker's handler: one chain a key, as the lanes have it."""

    def __init__(self, name: str, floor: Floor, work: Work = nothing) -> None:
        self.name, self.floor, self.work = name, floor, work
        self.chains = Chains()
        self.assignments: list[set[TP]] = []
        self.revocations: list[set[TP]] = []
        self.batches: list[tuple[TP, int]] = []

    async def begin(self, tp: TP, records: Records) -> Awaitable[Any]:
        self.batches.append((tp, len(records)))
        tasks = [self.chains.add(record.key, partial(self._handle, record.key, record.value)) for record in records]
        return asyncio.gather(*tasks)

    async def assigned(self, partitions: set[TP]) -> None:
        self.assignments.append(partitions)

    async def revoked(self, partitions: set[TP]) -> None:
        self.revocations.append(partitions)

    async def _handle(self, key: bytes, value: bytes) -> None:
        floor = self.floor
        if key in floor.busy:
            floor.overlaps.append(f"{self.name} and {floor.busy[key]} at {key!r}")
        floor.busy[key] = self.name
        floor.begun.append((self.name, value))
        try:
            await self.work(key, value)
            floor.done.append((key, value))
        except asyncio.CancelledError:
            floor.cancelled.append(value)
            raise
        finally:
            floor.busy.pop(key, None)


class Site:
    """Topics of one test on a real broker, with a group that reads them."""

    def __init__(self, kafka: Kafka, *names: str, partitions: int = 4) -> None:
        self.broker = Broker(KafkaSettings(bootstrap=kafka.bootstrap, partitions=partitions))
        self.topics = [Topic(kafka.name(name), "key", WEEK_MS, "of a test") for name in names or ("work",)]
        self.group = kafka.name("group")
        self.datadir: Path | None = None

    async def open(self) -> Site:
        await self.broker._make_topics(self.topics)
        return self

    @property
    def name(self) -> str:
        return self.topics[0].name

    async def produce(self, *records: tuple[bytes, bytes], topic: str = "") -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all", enable_idempotence=True) as producer:
            for key, value in records:
                await producer.send(topic or self.name, value, key=key)
            await producer.flush()

    async def spread(self, keys: int, each: int) -> list[tuple[bytes, bytes]]:
        """`each` numbered records for each of so many keys, interleaved."""
        records = [(b"key%d" % key, b"key%d:%04d" % (key, number)) for number in range(each) for key in range(keys)]
        await self.produce(*records)
        return records

    def worker(self, station: Any, **options: Any) -> Worker:
        return Worker(self.broker, self.group, self.topics, station, SESSION_S, **options)

    @contextlib.asynccontextmanager
    async def working(self, station: Any, **options: Any) -> AsyncIterator[Worker]:
        worker = self.worker(station, **options)
        try:
            await worker.start()
            yield worker
        finally:
            await worker.stop()

    async def committed(self) -> dict[int, int | None]:
        """The group's offsets of the first topic, as the broker has them."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap, group_id=self.group, enable_auto_commit=False)
        await consumer.start()
        try:
            found = {}
            for partition in range(self.broker.partitions):
                found[partition] = await consumer.committed(TopicPartition(self.name, partition))
            return found
        finally:
            await consumer.stop()

    async def total_committed(self) -> int:
        return sum(offset or 0 for offset in (await self.committed()).values())

    async def lagging(self, *workers: Worker) -> int:
        return sum([await worker.lag() for worker in workers])


async def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    """Until it is true (a coroutine is awaited); fails the test where it takes too long."""
    for _ in range(int(timeout_s / 0.02)):
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"it did not come about within {timeout_s:.0f} s")


def own_topics(kafka: Kafka, patch: pytest.MonkeyPatch, *names: str) -> None:
    """The roles' own topics and groups, under names of this test alone (all of them where none is named)."""
    renamed = {}
    for name in names or [name for name, one in vars(topics).items() if isinstance(one, Topic)]:
        one: Topic = getattr(topics, name)
        renamed[name] = replace(one, name=kafka.name(one.name))
        patch.setattr(topics, name, renamed[name])
    patch.setattr(topics, "ALL", tuple(renamed.values()))
    patch.setattr(record, "CHAINED", (topics.SYSTEM_LOG, topics.OUTCOMES))
    patch.setattr(LockdownRole, "work_topic", topics.THREATS)
    patch.setattr(ProvisionRole, "work_topic", topics.KNOCKS)
    for owner, attribute in ((LockdownRole, "group"), (ProvisionRole, "group"), (poller, "GROUP"), (classify, "GROUP"), (notify, "GROUP")):
        patch.setattr(owner, attribute, kafka.name(getattr(owner, attribute)))


def by_key(records: list[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = defaultdict(list)
    for key, value in records:
        found[key].append(value)
    return found
