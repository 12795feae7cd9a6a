"""State that decides lives in compacted topics: written with acks=all before anything relies on it, read whole at start, and
followed. One writer a key (D11). DuckDB is never asked for a decision, and a lost disk loses nothing.

Rejected: Faust tables with rocksdb (an agent sees only the current event's partition, and recovery is one more thing to prove),
one database more to run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaError

from model.errors import FaultError
from stream.broker import Broker, Publisher
from stream.topics import Topic, partition_of

log = logging.getLogger(__name__)

Seen = Callable[[str, bytes | None], None]


class Follower:
    """The whole of one compacted topic in memory, kept current. `values` maps keys to the last value's bytes."""

    def __init__(self, broker: Broker, topic: Topic, on_change: Seen | None = None) -> None:
        self._broker, self._topic, self._on_change = broker, topic, on_change
        self._consumer = broker.reader()
        #: Asks for ends on a connection of its own: on the consumer's, an answer would wait behind the fetch that waits for data (50 ms).
        self._ends = broker.reader()
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Condition()
        #: Own writes that did not come back yet; and, per partition, up to where everything has.
        self._written: dict[str, int] = {}
        self._read: dict[int, int] = {}
        self.values: dict[str, bytes] = {}
        self.dead: BaseException | None = None

    async def start(self) -> None:
        """Reads the topic to its end and goes on following it."""
        await self._consumer.start()
        await self._ends.start()
        partitions = self._broker.all_partitions(self._topic.name)
        self._consumer.assign(partitions)
        for partition, offset in (await self._consumer.beginning_offsets(partitions)).items():
            self._consumer.seek(partition, offset)
        self._task = asyncio.create_task(self._follow(), name=f"follow {self._topic.name}")
        await self.caught_up()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._ends.stop()
        await self._consumer.stop()

    async def _follow(self) -> None:
        try:
            while True:
                try:
                    polled = await self._consumer.getmany(timeout_ms=200)
                except KafkaError as error:
                    if not error.retriable:
                        raise
                    log.warning("%s: %s while following, trying again", self._topic.name, type(error).__name__)
                    await asyncio.sleep(0.5)
                    continue
                for records in polled.values():
                    for record in records:
                        self._echo((record.key or b"").decode("utf-8", "replace"), record.value, record.partition, record.offset)
                async with self._moved:
                    self._moved.notify_all()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.dead = error
            async with self._moved:
                self._moved.notify_all()
            raise

    def _echo(self, key: str, value: bytes | None, partition: int, offset: int) -> None:
        """A record as it stands in the log: old where we wrote that key later. After it, no older one of that partition comes."""
        self._read[partition] = offset + 1
        mine = self._written.get(key, -1)
        if offset >= mine:
            self._written.pop(key, None)
        if offset > mine:
            self._enter(key, value)

    def _own(self, key: str, value: bytes | None, offset: int) -> None:
        """What we just wrote, unless it has come back already, or was followed by another."""
        read = self._read.get(partition_of(key.encode(), self._broker.partitions), 0)
        if offset >= read and offset > self._written.get(key, -1):
            self._written[key] = offset
            self._enter(key, value)

    def _enter(self, key: str, value: bytes | None) -> None:
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value
        if self._on_change is not None:
            self._on_change(key, value)

    async def caught_up(self, timeout_s: float = 30.0) -> None:
        """Returns when everything that stood in the topic at the call has been taken. A dead follower stops what relies on it (D11)."""
        try:
            async with asyncio.timeout(timeout_s):
                ends = await self._ends.end_offsets(self._broker.all_partitions(self._topic.name))
                async with self._moved:
                    await self._moved.wait_for(lambda: self.dead is not None or self._reached(ends))
        except TimeoutError:
            raise FaultError(f"{self._topic.name} could not be read to its end within {timeout_s:.0f} s") from None
        except KafkaError as error:
            raise FaultError(f"{self._topic.name} cannot be read: {type(error).__name__}") from error
        if self.dead is not None:
            raise FaultError(f"the follower of {self._topic.name} died: {self.dead!r}")

    def _reached(self, ends: dict[Any, int]) -> bool:
        positions = {tp: self._consumer._subscription.subscription.assignment.state_value(tp) for tp in ends}
        return all(state is not None and state.has_valid_position and state.position >= ends[tp] for tp, state in positions.items())


class State(Follower):
    """A follower that also writes: the writer sees its own writes at once (after Kafka has them)."""

    def __init__(self, broker: Broker, publisher: Publisher, topic: Topic, on_change: Seen | None = None) -> None:
        super().__init__(broker, topic, on_change)
        self._publisher = publisher

    async def write(self, key: str, value: bytes) -> None:
        self._own(key, value, await self._publisher.send(self._topic, key.encode(), value))

    async def erase(self, key: str) -> None:
        """A tombstone: the key is gone for good once compaction has run."""
        self._own(key, None, await self._publisher.send(self._topic, key.encode(), None))
