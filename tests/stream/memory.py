"""Kafka in a dictionary, for the lanes: every write is durable when it returns, and everybody who follows a topic sees it.

It stands in for `stream.broker.Publisher`, `stream.state.State`/`Follower` and `stream.worker.Worker` (whose own tests run on a real
broker), so that the lanes meet the real engines, restarts and kills without a network. A batch is committed only when it is done, and a
new worker of a group begins where the last one committed. `Log.kill_after` is kill -9 at the n-th write from now.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from model.change import Action
from model.errors import FaultError, Fenced
from model.records import ActionTaken, AuditRecord, Classified, HoldChanged, IncidentChanged, Notice, read_record
from stream import topics
from stream.topics import Topic, partition_of, person_key
from tests.handlers.fakes import Killed

Seen = Callable[[str, bytes | None], None]
RECEIVED_MS = 1_767_614_400_000


@dataclass(frozen=True)
class Record:
    """As aiokafka gives it, as far as anybody here looks."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    timestamp: int = RECEIVED_MS


class Log:
    """All topics. It is also the `Broker` that roles are given."""

    embedded = False

    def __init__(self, partitions: int = 4) -> None:
        self.partitions = partitions
        self.records: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.order: list[Record] = []
        self.committed: dict[tuple[str, str, int], int] = defaultdict(int)
        self.followers: dict[str, list[Follower]] = defaultdict(list)
        self.on_write: Callable[[Record], None] = lambda record: None
        self.kill_after: int | None = None
        self.dead = False

    async def append(self, topic: str, key: bytes, value: bytes | None, timestamp_ms: int | None = None) -> int:
        await asyncio.sleep(0)
        if self.dead:
            raise Killed
        if self.kill_after is not None:
            self.kill_after -= 1
            if self.kill_after < 0:
                self.dead, self.kill_after = True, None
                raise Killed
        return self.put(topic, key, value, timestamp_ms)

    def put(self, topic: str, key: bytes, value: bytes | None, timestamp_ms: int | None = None) -> int:
        """A write of somebody else, at this moment."""
        partition = partition_of(key, self.partitions)
        records = self.records[topic, partition]
        record = Record(topic, partition, len(records), key, value, timestamp_ms or RECEIVED_MS)
        records.append(record)
        self.order.append(record)
        self.on_write(record)
        for follower in list(self.followers[topic]):
            follower.enter(record)
        return record.offset

    def of(self, topic: Topic) -> list[Record]:
        return [record for record in self.order if record.topic == topic.name]

    def state(self, topic: Topic) -> dict[str, bytes]:
        values: dict[str, bytes] = {}
        for record in self.of(topic):
            if record.value is None:
                values.pop(record.key.decode(), None)
            else:
                values[record.key.decode()] = record.value
        return values

    # --- what a bystander reads out of the audit topic --------------------------------------------------------------------

    def audit(self) -> list[AuditRecord]:
        return [read_record(record.value or b"") for record in self.of(topics.OUTCOMES)]

    @property
    def rows(self) -> dict[str, Action]:
        """The `actions` table: the last word on each intent. (A target of tests.handlers.fakes takes this for its journal.)"""
        return {one.action.intent: one.action for one in self.audit() if isinstance(one, ActionTaken)}

    def notices(self, topic: str = "") -> list[Notice]:
        return [one for one in self.audit() if isinstance(one, Notice) and topic in ("", one.topic)]

    def incidents(self) -> list[IncidentChanged]:
        return [one for one in self.audit() if isinstance(one, IncidentChanged)]

    def holds(self) -> list[HoldChanged]:
        return [one for one in self.audit() if isinstance(one, HoldChanged)]

    def classified(self) -> list[Classified]:
        return [one for one in self.audit() if isinstance(one, Classified)]


class Publisher:
    def __init__(self, broker: Log, linger_ms: int = 0) -> None:
        self.log = broker

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def begin(self, topic: Topic, key: bytes, value: bytes | None, timestamp_ms: int | None = None) -> asyncio.Future[Any]:
        offset = await self.log.append(topic.name, key, value, timestamp_ms)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(offset)
        return future

    async def send(self, topic: Topic, key: bytes, value: bytes | None, timestamp_ms: int | None = None) -> int:
        return await self.log.append(topic.name, key, value, timestamp_ms)

    async def send_all(self, records: Iterable[tuple[Topic, bytes, bytes]]) -> None:
        for topic, key, value in records:
            await self.send(topic, key, value)


class Follower:
    def __init__(self, broker: Log, topic: Topic, on_change: Seen | None = None) -> None:
        self.log, self.topic, self.on_change = broker, topic, on_change
        self.values: dict[str, bytes] = {}
        self.dead: BaseException | None = None

    async def start(self) -> None:
        for record in self.log.of(self.topic):
            self.enter(record)
        self.log.followers[self.topic.name].append(self)

    async def stop(self) -> None:
        if self in self.log.followers[self.topic.name]:
            self.log.followers[self.topic.name].remove(self)

    def enter(self, record: Record) -> None:
        if self.dead is not None:
            return
        key = record.key.decode()
        if record.value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = record.value
        if self.on_change is not None:
            self.on_change(key, record.value)

    async def caught_up(self, timeout_s: float = 30.0) -> None:
        await asyncio.sleep(0)
        if self.dead is not None:
            raise FaultError(f"the follower of {self.topic.name} died: {self.dead!r}")


class State(Follower):
    def __init__(self, broker: Log, publisher: Publisher, topic: Topic, on_change: Seen | None = None) -> None:
        super().__init__(broker, topic, on_change)

    async def write(self, key: str, value: bytes) -> None:
        await self.log.append(self.topic.name, key.encode(), value)

    async def erase(self, key: str) -> None:
        await self.log.append(self.topic.name, key.encode(), None)


class Worker:
    """One member of a group that owns `owned`; `deliver` hands over what was not yet committed, a batch a partition, and waits."""

    def __init__(
        self, broker: Log, group: str, topics: Sequence[Topic], handler: Any, session_timeout_s: float = 20.0, *, poll_records: int = 500
    ) -> None:
        self.log, self.group, self.topics, self.handler = broker, group, topics, handler
        self.owned = set(range(broker.partitions))
        self.is_silent = False
        self.positions: dict[tuple[str, int], int] = {}
        self.batches: list[list[Record]] = []

    @property
    def consumer(self) -> Any:
        return SimpleNamespace(ledger=SimpleNamespace(next_offsets=self.next_offsets))

    def next_offsets(self) -> dict[TP, int]:
        committed = self.log.committed
        return {TP(one.name, at): committed[self.group, one.name, at] for one in self.topics for at in self.owned}

    async def start(self) -> None:
        await self.handler.assigned({TP(topic.name, partition) for topic in self.topics for partition in self.owned})

    async def stop(self) -> None: ...

    async def failed(self) -> None:
        await asyncio.Event().wait()

    async def lag(self) -> int:
        return sum(len(self._unread(topic.name, partition)) for topic in self.topics for partition in self.owned)

    def _unread(self, topic: str, partition: int) -> list[Record]:
        done = self.log.committed[self.group, topic, partition]
        return self.log.records[topic, partition][self.positions.get((topic, partition), done) :]

    async def deliver(self) -> int:
        """How many records were handed over. What a batch raises is raised here, and nothing of it is committed."""
        count = 0
        for topic in self.topics:
            for partition in sorted(self.owned):
                if records := self._unread(topic.name, partition):
                    count += len(records)
                    self.batches.append(records)
                    self.positions[topic.name, partition] = records[-1].offset + 1
                    await (await self.handler.begin(TP(topic.name, partition), records))
                    self.log.committed[self.group, topic.name, partition] = records[-1].offset + 1
        return count

    async def drain(self) -> None:
        while await self.deliver():
            pass

    def owns(self, tenant: str, person: str) -> bool:
        return partition_of(person_key(tenant, person), self.log.partitions) in self.owned

    def check(self, tenant: str, person: str) -> None:
        if self.log.dead:
            raise Killed
        if self.is_silent or not self.owns(tenant, person):
            raise Fenced(f"{self.group}: not ours")
