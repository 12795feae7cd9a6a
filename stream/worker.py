"""A Faust app over batches, in our own event loop: what the classifier and both lanes share.

An agent's body never raises and never decodes: it hands each batch to `begin` in the order of the log, and a task waits for what
`begin` left unfinished and acknowledges the batch. So order is kept where it is cheap (the hand-over) and waits overlap.
An exception out of a batch is a bug or a broken log: nothing is acknowledged, the process ends non-zero and the batch is read again.
Faust's own web server, leader, tables, command line and `take` are not used. Parallelism comes from partitions, and within a batch
from persons; never from `concurrency`, which breaks a person's order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

import faust
from aiokafka import ConsumerRecord, TopicPartition
from faust.types import TP

from model.errors import FaultError, Fenced
from stream.broker import Broker
from stream.topics import Topic, partition_of, person_key
from stream.transport import BatchConsumer, BatchTransport, RawBatches

log = logging.getLogger(__name__)

#: Batches being worked at once, over all partitions of a worker.
IN_FLIGHT = 64
#: No committed progress for so long while there is something to read: the process ends (P4).
STALLED_S = 120.0

Records = Sequence[ConsumerRecord]


class Handler(Protocol):
    """What a worker does with a batch."""

    async def begin(self, tp: TP, records: Records) -> Awaitable[Any]:
        """Takes the batch over, in the log's order. The awaitable returned is done when everything it caused is durable."""

    async def assigned(self, partitions: set[TP]) -> None:
        """New partitions are ours; called before the first batch of any of them."""


class Worker:
    """One member of one consumer group over some topics that share their keys and partition counts."""

    def __init__(self, broker: Broker, group: str, topics: Sequence[Topic], handler: Handler, session_timeout_s: float = 20.0) -> None:
        self._broker, self._group, self._handler = broker, group, handler
        self._topics = topics
        self._session_timeout_s = session_timeout_s
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._tasks: dict[TP, set[asyncio.Task[None]]] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._progress = (time.monotonic(), -1)
        self._ends = broker.reader()
        self._app = self._make_app()

    def _make_app(self) -> faust.App:
        app = faust.App(
            self._group,
            broker=f"kafka://{self._broker.bootstrap}",
            store="memory://",
            autodiscover=False,
            value_serializer="raw",
            key_serializer="raw",
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            stream_wait_empty=False,
            stream_buffer_maxsize=8,
            broker_max_poll_records=500,
            broker_commit_interval=0.5,
            broker_session_timeout=self._session_timeout_s,
            broker_heartbeat_interval=min(3.0, self._session_timeout_s / 3),
            consumer_max_fetch_size=4 * 1024 * 1024,
            stream_processing_timeout=86400.0,
        )
        app.transport = BatchTransport(app.conf.broker, app)
        app.agent(app.topic(*(topic.name for topic in self._topics), schema=RawBatches()))(self._agent)
        return app

    @property
    def consumer(self) -> BatchConsumer:
        consumer = self._app.consumer
        assert isinstance(consumer, BatchConsumer)
        return consumer

    async def start(self) -> None:
        for topic in self._topics:
            self._broker.flow.reader(topic.name, self._group)
        self.consumer.on_revoked = self._revoked
        self.consumer.on_assigned = self._assigned
        await self._ends.start()
        await self._app.start()

    async def stop(self) -> None:
        """Stops taking batches, lets those in flight finish for a moment, commits, leaves the group."""
        self.consumer.stop_flow()
        running = [task for tasks in self._tasks.values() for task in tasks]
        if running:
            await asyncio.wait(running, timeout=self._session_timeout_s)
        await self._revoked(set(self._tasks))
        await self.consumer.commit()
        await self._app.stop()
        await self._ends.stop()
        for topic in self._topics:
            self._broker.flow.gone(topic.name, self._group)

    async def failed(self) -> None:
        """Returns never, but raises FaultError when a batch failed, the app crashed or progress stopped."""
        while True:
            await asyncio.wait([self._failed], timeout=1.0)
            if self._failed.done():
                self._failed.result()
            if self._app.crash_reason is not None:
                raise FaultError(f"{self._group}: Faust crashed: {self._app.crash_reason!r}") from self._app.crash_reason
            self._watch()

    async def _agent(self, stream: Any) -> None:
        async for event in stream.noack().events():
            await self._slots.acquire()
            try:
                if not self.consumer.ledger.holds(event.message):
                    self._slots.release()
                    continue
                rest = await self._handler.begin(event.message.tp, event.value)
            except asyncio.CancelledError:
                self._slots.release()
                raise
            except BaseException as error:  # nothing but cancellation may leave an agent's body: Faust would acknowledge the event
                self._slots.release()
                self._fail(error)
                continue
            task = asyncio.create_task(self._finish(event.message, event.value, rest))
            tasks = self._tasks.setdefault(event.message.tp, set())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _finish(self, message: Any, records: Records, rest: Awaitable[Any]) -> None:
        try:
            await rest
            self.consumer.ack(message)
            size = sum(len(record.value or b"") + len(record.key or b"") for record in records)
            self._broker.flow.read(message.topic, self._group, size)
        except Fenced as error:
            log.warning("%s: %s", self._group, error)
        except Exception as error:
            self._fail(error)
        finally:
            self._slots.release()

    def _fail(self, error: BaseException) -> None:
        log.error("%s: a batch failed, nothing of it is acknowledged: %r", self._group, error, exc_info=error)
        if not self._failed.done():
            self._failed.set_exception(error if isinstance(error, FaultError) else FaultError(f"{self._group}: {error!r}"))

    async def _revoked(self, tps: set[TP]) -> None:
        """D12: the work of partitions that go away is cancelled and awaited."""
        tasks = [task for tp in tps for task in self._tasks.get(tp, ())]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _assigned(self, tps: set[TP]) -> None:
        try:
            await self._handler.assigned(tps)
        except Exception as error:
            self._fail(error)
            raise

    def _watch(self) -> None:
        """P4: something to read, and no commit for too long."""
        consumer = self.consumer
        committed = sum(offset or 0 for offset in consumer._committed_offset.values())
        now = time.monotonic()
        behind = consumer.ledger.unfinished() > 0
        if committed != self._progress[1] or not behind:
            self._progress = (now, committed)
        elif now - self._progress[0] > STALLED_S:
            raise FaultError(f"{self._group} made no progress for {STALLED_S:.0f} s with work in hand")

    async def lag(self) -> int:
        """Records of our partitions that are not yet finished and committed."""
        ledger = self.consumer.ledger
        positions = ledger.next_offsets()
        if not positions:
            return 1  # not assigned yet: nobody can say
        ends = await self._ends.end_offsets([TopicPartition(tp.topic, tp.partition) for tp in positions])
        return ledger.unfinished() + sum(int(ends[TopicPartition(tp.topic, tp.partition)]) - at for tp, at in positions.items())

    @property
    def owned(self) -> set[int]:
        """Partition numbers that are ours now (all topics of a worker share them)."""
        return {tp.partition for tp in self.consumer.ledger.partitions()}

    def owns(self, tenant: str, person: str) -> bool:
        return partition_of(person_key(tenant, person), self._broker.partitions) in self.owned

    def check(self, tenant: str, person: str) -> None:
        """The fence before every mutating call (D12): ours now, and the last good heartbeat was sent within the session timeout."""
        if not self.owns(tenant, person):
            raise Fenced(f"{self._group}: the partition of {tenant}:{person} is not ours any more")
        silent = time.monotonic() - self.consumer.heartbeat_sent
        if silent > self._session_timeout_s:
            raise Fenced(f"{self._group}: the last good heartbeat was sent {silent:.1f} s ago, longer than the session timeout")


class Chains:
    """Work of one key in order, of different keys at once."""

    def __init__(self) -> None:
        self._last: dict[Any, asyncio.Task[Any]] = {}

    def add(self, key: Any, work: Any) -> asyncio.Task[Any]:
        """Runs the coroutine function `work` after all earlier work of `key`, whatever became of that."""
        before = self._last.get(key)
        task = asyncio.create_task(self._run(before, work))
        self._last[key] = task
        task.add_done_callback(lambda done: self._last.pop(key, None) if self._last.get(key) is done else None)
        return task

    async def _run(self, before: asyncio.Task[Any] | None, work: Any) -> Any:
        if before is not None:
            await asyncio.wait([before])
        return await work()

    async def cancel(self) -> None:
        """Cancels and awaits all that is left."""
        tasks = list(self._last.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._last)
