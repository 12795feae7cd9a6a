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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import faust
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP

from model.errors import FaultError, Fenced
from stream.broker import METADATA_MAX_AGE_MS, Broker
from stream.topics import Topic, partition_of, person_key
from stream.transport import BatchConsumer, BatchTransport, RawBatches

log = logging.getLogger(__name__)

#: Batches being worked at once, over all partitions of a worker.
IN_FLIGHT = 64
#: Records that one poll of all partitions hands out at most.
POLL_RECORDS = 500
#: No committed progress of a partition for so long while it holds something to do, or no word from the group: the process ends (P4).
STALLED_S = 120.0
#: How often the ends of our partitions are read for that, and how long the answer may take.
LOOK_EVERY_S = 5.0
#: A stop waits so long for what is in flight; the rest is delivered again (33).
GRACE_S = 8.0

Records = Sequence[ConsumerRecord]


class App(faust.App):
    """Keeps nothing on disk: we use none of Faust's tables, and it would make a folder wherever we were started."""

    def _create_directories(self) -> None:
        """Where Faust makes the folder `<id>-data`."""


class Handler(Protocol):
    """What a worker does with a batch."""

    async def begin(self, tp: TP, records: Records) -> Awaitable[Any]:
        """Takes the batch over, in the log's order. The awaitable returned is done when everything it caused is durable."""

    async def assigned(self, partitions: set[TP]) -> None:
        """New partitions are ours; called before the first batch of any of them."""

    async def revoked(self, partitions: set[TP]) -> None:
        """They go away (D12): returns when nothing of theirs is worked on any more. Their batches are cancelled already."""


class Watchdog:
    """P4, partition by partition: a busy one must not hide one that stands still. Pure; times in seconds of one monotonic clock."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._seen: dict[str, tuple[object, float]] = {}

    def look(self, progress: Mapping[str, tuple[object, bool]], now: float) -> None:
        """`progress`: by name how far each has come, and whether anything is left to do. Raises FaultError."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in progress}
        for name, (reached, is_behind) in progress.items():
            before, since = self._seen.get(name, (None, now))
            if reached != before or not is_behind:
                self._seen[name] = (reached, now)
            elif now - since > self._patience_s:
                raise FaultError(f"{name} made no progress for {self._patience_s:.0f} s with work in hand, at {reached}")

    def forget(self) -> None:
        """Nobody could have made progress: the time until the next look does not count."""
        self._seen = {}


class Worker:
    """One member of one consumer group over some topics that share their keys and partition counts."""

    def __init__(
        self,
        broker: Broker,
        group: str,
        topics: Sequence[Topic],
        handler: Handler,
        session_timeout_s: float = 20.0,
        *,
        stalled_s: float = STALLED_S,
        poll_records: int = POLL_RECORDS,
    ) -> None:
        self._broker, self._group, self._handler = broker, group, handler
        self._topics = topics
        self._session_timeout_s = session_timeout_s
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._tasks: dict[TP, dict[asyncio.Task[None], asyncio.Future[Any]]] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchdog = Watchdog(stalled_s)
        self._membership = Watchdog(max(stalled_s, 6 * session_timeout_s))
        self._look_every_s = min(LOOK_EVERY_S, stalled_s / 2)
        self._broker_answered = 0.0
        self._poll_records = poll_records
        self._ends = broker.reader()
        self._app = self._make_app()

    def _make_app(self) -> faust.App:
        app = App(
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
            broker_max_poll_records=self._poll_records,
            broker_commit_interval=0.5,
            broker_session_timeout=self._session_timeout_s,
            broker_heartbeat_interval=min(3.0, self._session_timeout_s / 3),
            consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
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
            await asyncio.wait(running, timeout=GRACE_S)
        await self._revoked(set(self._tasks))
        await self.consumer.commit()
        await self._app.stop()
        await self._ends.stop()
        for topic in self._topics:
            self._broker.flow.gone(topic.name, self._group)

    async def failed(self) -> None:
        """Returns never, but raises FaultError when a batch failed, the app crashed or progress stopped."""
        looked = time.monotonic()
        while True:
            await asyncio.wait([self._failed], timeout=min(1.0, self._look_every_s))
            if self._failed.done():
                self._failed.result()
            if (crash := self._app.crash_reason) is not None:
                raise FaultError(
                    f"{self._group}: {crash}" if isinstance(crash, FaultError) else f"{self._group}: Faust crashed: {crash!r}"
                ) from crash
            if time.monotonic() - looked >= self._look_every_s:
                await self._watch()
                looked = time.monotonic()

    async def _agent(self, stream: Any) -> None:
        async for event in stream.noack().events():
            await self._slots.acquire()
            try:
                if not self.consumer.ledger.holds(event.message):
                    self._slots.release()
                    continue
                rest = asyncio.ensure_future(await self._handler.begin(event.message.tp, event.value))
            except asyncio.CancelledError:
                self._slots.release()
                raise
            except BaseException as error:  # nothing but cancellation may leave an agent's body: Faust would acknowledge the event
                self._slots.release()
                self._fail(error)
                continue
            task = asyncio.create_task(self._finish(event.message, event.value, rest))
            tp: TP = event.message.tp
            self._tasks.setdefault(tp, {})[task] = rest
            task.add_done_callback(partial(self._finished, tp))
            if not self.consumer.ledger.holds(event.message):  # revoked while it was handed over
                await self._cancel({task: rest})

    def _finished(self, tp: TP, task: asyncio.Task[None]) -> None:
        """Also for a task that was cancelled before it could begin."""
        self._tasks[tp].pop(task, None)
        self._slots.release()

    async def _finish(self, message: Any, records: Records, rest: asyncio.Future[Any]) -> None:
        try:
            await rest
            self.consumer.ack(message)
            if self._broker.embedded:
                size = sum(len(record.value or b"") + len(record.key or b"") for record in records)
                self._broker.flow.read(message.topic, self._group, size)
        except Fenced as error:
            log.warning("%s: %s", self._group, error)
            if self.consumer.ledger.holds(
                message
            ):  # still ours, it was the heartbeat: the batch is read again, after what stands before it
                await self.consumer.rejoin()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        log.error("%s: a batch failed, nothing of it is acknowledged: %r", self._group, error, exc_info=error)
        if not self._failed.done():
            self._failed.set_exception(error if isinstance(error, FaultError) else FaultError(f"{self._group}: {error!r}"))

    async def _revoked(self, tps: set[TP]) -> None:
        """D12: the work of partitions that go away is cancelled and awaited."""
        await self._cancel({task: rest for tp in tps for task, rest in self._tasks.get(tp, {}).items()})
        await self._handler.revoked(tps)

    @staticmethod
    async def _cancel(tasks: Mapping[asyncio.Task[None], asyncio.Future[Any]]) -> None:
        for one in (*tasks, *tasks.values()):
            one.cancel()
        await asyncio.gather(*tasks, *tasks.values(), return_exceptions=True)

    async def _assigned(self, tps: set[TP]) -> None:
        try:
            await self._handler.assigned(tps)
        except Exception as error:
            self._fail(error)
            raise

    async def _watch(self) -> None:
        """P4: something to read or in hand, and no commit for too long; or no heartbeat that the group answered, whoever owns what.
        A broker that does not answer is no fault of ours."""
        consumer = self.consumer
        owned = consumer.ledger.partitions()
        asked = owned or {TP(self._topics[0].name, 0)}
        try:
            async with asyncio.timeout(self._look_every_s):
                ends = await self._ends.end_offsets([TopicPartition(tp.topic, tp.partition) for tp in asked])
        except (KafkaError, TimeoutError):
            return
        now = time.monotonic()
        if now - self._broker_answered > self._session_timeout_s:  # it was away, or we were
            self._watchdog.forget()
            self._membership.forget()
        self._broker_answered = now
        progress = {}
        for tp in owned & consumer.ledger.partitions():
            committed = consumer._committed_offset[tp] or 0
            progress[f"{tp.topic}[{tp.partition}]"] = (committed, committed < ends[TopicPartition(tp.topic, tp.partition)])
        self._watchdog.look(progress, now)
        self._membership.look({f"the membership in {self._group}": (round(consumer.heartbeat_sent), True)}, now)

    async def lag(self) -> int:
        """Records of our partitions that are not yet finished and committed."""
        ledger = self.consumer.ledger
        positions = ledger.next_offsets()
        if not positions:
            return 0 if self.consumer.settled else 1  # not assigned yet: nobody can say
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
    """Work of one key in order, of different keys at once. `_last` holds, per key, what ends when all its work so far has ended:
    a link that is cancelled while it waits must not let the next one overtake what it waited for."""

    def __init__(self) -> None:
        self._last: dict[Any, asyncio.Future[Any]] = {}
        self._tasks: dict[asyncio.Task[Any], Any] = {}

    def add(self, key: Any, work: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
        """Runs the coroutine function `work` after all earlier work of `key`, whatever became of that."""
        before = self._last.get(key)
        task = asyncio.create_task(self._run(before, work))
        last: asyncio.Future[Any] = task if before is None else asyncio.create_task(self._both(before, task))
        self._last[key], self._tasks[task] = last, key
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        last.add_done_callback(lambda done: self._last.pop(key, None) if self._last.get(key) is done else None)
        return task

    async def _run(self, before: asyncio.Future[Any] | None, work: Callable[[], Awaitable[Any]]) -> Any:
        if before is not None:
            await asyncio.wait([before])
        return await work()

    async def cancel(self, chosen: Callable[[Any], bool] = lambda key: True) -> None:
        """Cancels and awaits all that is left of the chosen keys."""
        tasks = [task for task, key in self._tasks.items() if chosen(key)]
        for task in tasks:
            task.cancel()
        ends = [last for key, last in self._last.items() if chosen(key)]
        if tasks or ends:
            await asyncio.wait([*tasks, *ends])

    @staticmethod
    async def _both(before: asyncio.Future[Any], task: asyncio.Task[Any]) -> None:
        await asyncio.wait([before, task])

    def __len__(self) -> int:
        return len(self._last)
