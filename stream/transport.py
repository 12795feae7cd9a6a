"""One poll of a partition is one Faust event, with our own ledger of offsets.

Why Faust's bookkeeping is not used (faust-streaming 0.15.3, `faust/transport/consumer.py`; measured on Apache Kafka 4.1):
`_new_offset` is off by one, between assignment and `perform_seek` the committed offset is unknown and anything commits, acks of an
earlier assignment count, and `_add_gap` books skipped offsets as done: events are lost under rebalances even by a guarded loop.
And Faust costs about 100 µs a *message*; handing it polls instead of messages makes it as fast as a bare consumer.

What this file changes, and nothing else:
1. `getmany` yields one message for all records of a partition in that poll: `value` = the records, `offset` = the last one's.
   The generation is taken before the fetch (D13); the first record must stand exactly at the expected position, else the batch is
   dropped and sought again, and twice in a row is a fault. What is dropped because a rebalance came between is sought again too:
   the fetch may have been answered from the new position, and on a quiet partition nothing else would ever show the gap.
2. The ledger: batches per partition. An ack counts only for the very message object of the present assignment; what is committed
   is the end of the contiguous run of finished batches, and it leaves the ledger only when Kafka took the commit.
3. A revoked partition is withdrawn at once (nothing of it is begun any more), its work is cancelled and awaited (D12, `on_revoked`),
   what is finished is committed, and then it is forgotten.
4. `_add_gap` books nothing. `perform_seek` seeks explicitly, to the beginning where the group never committed (D8).
5. fetch_max_wait is lowered from Faust's hard-coded 1,500 ms, and partitions are assigned by range, so that one worker owns the same
   partition number of every topic it reads (round-robin would split a person's orders from the commands about them).
6. The time at which the last successful heartbeat was *sent* is kept: a process woken from SIGSTOP must act on nothing (D12).
7. A commit that fails is tried again at the next interval instead of crashing the app.

Rejected: capping Faust's own commit at the lowest unacknowledged offset (lost more), a ledger message by message (7–9k events/s).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import faust
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import SyncGroupRequest
from aiokafka.structs import OffsetAndMetadata
from faust.transport.consumer import ensure_TPset
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport, ensure_aiokafka_TP
from faust.types import TP, ConsumerMessage, Message

from model.errors import FaultError
from stream.broker import LAST_WORD_S

log = logging.getLogger(__name__)

#: Idle partitions make a fetch wait this long; Faust's 1,500 ms delayed data beside them by up to a second.
FETCH_MAX_WAIT_MS = 50

Partitions = Callable[[set[TP]], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Batch:
    """One poll of one partition as it stands in the ledger."""

    message: ConsumerMessage
    first: int
    last: int
    done: bool = False


class Ledger:
    """Which batches of the present assignment are finished, per partition. Pure bookkeeping: no I/O, no Faust."""

    def __init__(self) -> None:
        self._batches: dict[TP, deque[Batch]] = {}
        self._expected: dict[TP, int] = {}
        self._refused: dict[TP, int] = {}

    def assign(self, positions: Mapping[TP, int]) -> None:
        """A new assignment begins: nothing of an earlier one counts."""
        self._batches = {tp: deque() for tp in positions}
        self._expected = dict(positions)
        self._refused = {}

    def withdraw(self, tps: Iterable[TP]) -> None:
        """They are going away: nothing of them is admitted or begun any more; what is finished may still be committed."""
        for tp in tps:
            self._expected.pop(tp, None)

    def forget(self, tps: Iterable[TP]) -> None:
        for tp in tps:
            self._batches.pop(tp, None)
            self._expected.pop(tp, None)

    def admit(self, tp: TP, message: ConsumerMessage, first: int, last: int) -> int | None:
        """Enters a batch. Returns None, or the position to seek to again where the batch does not begin there (D13).
        Raises FaultError the second time in a row: the log no longer holds what we have not read."""
        expected = self._expected.get(tp)
        if expected is None:
            return None
        if first != expected:
            self._refused[tp] = self._refused.get(tp, 0) + 1
            if self._refused[tp] > 1:
                raise FaultError(
                    f"{tp.topic}[{tp.partition}] begins at {first} where offset {expected} was due: records were removed before they were "
                    "read. Nothing was skipped; restore the log, or accept the gap by committing a later offset for this group by hand"
                )
            return expected
        self._refused.pop(tp, None)
        self._expected[tp] = last + 1
        self._batches[tp].append(Batch(message, first, last))
        return None

    def owns(self, tp: TP) -> bool:
        return tp in self._expected

    def holds(self, message: ConsumerMessage) -> bool:
        """True while the message is unfinished work of a partition that is ours."""
        return message.tp in self._expected and any(
            batch.message is message and not batch.done for batch in self._batches.get(message.tp, ())
        )

    def finish(self, message: Message) -> bool:
        """Marks the batch done; False for a message of another assignment."""
        for batch in self._batches.get(message.tp, ()):
            if batch.message is message and not batch.done:
                batch.done = True
                return True
        return False

    def committable(self, tp: TP) -> int | None:
        """The offset after the contiguous run of finished batches, or None where there is none."""
        end = None
        for batch in self._batches.get(tp, ()):
            if not batch.done:
                break
            end = batch.last + 1
        return end

    def committed(self, tp: TP, offset: int) -> None:
        batches = self._batches.get(tp)
        while batches and batches[0].done and batches[0].last < offset:
            batches.popleft()

    def unfinished(self) -> int:
        """Batches not yet finished, or finished and not yet committed."""
        return sum(len(batches) for batches in self._batches.values())

    def waiting(self) -> Iterator[TP]:
        return (tp for tp, batches in self._batches.items() if batches and batches[0].done)

    def partitions(self) -> set[TP]:
        return set(self._expected)

    def next_offsets(self) -> dict[TP, int]:
        """The next offset to be fetched, per owned partition."""
        return dict(self._expected)


class BatchConsumerThread(AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer."""

    #: Monotonic time at which the last heartbeat (or the end of a join) that the coordinator answered well was sent.
    heartbeat_sent: float = 0.0

    def _create_worker_consumer(self, transport: Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._partition_assignment_strategy = [RangePartitionAssignor]
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator
        assert isinstance(coordinator, GroupCoordinator)
        coordinator._do_heartbeat = self._noting(coordinator._do_heartbeat)
        coordinator._send_req = self._noting_sync(coordinator._send_req)

    def _noting(self, call: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
        async def noted(*args: Any) -> bool:
            sent = time.monotonic()
            answered = await call(*args)
            if answered:
                self.heartbeat_sent = sent
            return answered

        return noted

    def _noting_sync(self, send: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
        """A join may wait a whole session for a member that is dead; the session begins anew when the broker has all of them, and
        that is when it lets us ask for our share."""

        async def noted(request: Any) -> Any:
            sent = time.monotonic()
            answer = await send(request)
            if isinstance(request, SyncGroupRequest) and answer.error_code == 0:
                self.heartbeat_sent = sent
            return answer

        return noted

    async def rejoin(self) -> None:
        await self.call_thread(self._ensure_consumer()._coordinator.request_rejoin)

    async def seek_explicitly(self) -> dict[TP, int]:
        return dict(await self.call_thread(self._seek_explicitly))

    async def _seek_explicitly(self) -> dict[TP, int]:
        consumer = self._ensure_consumer()
        positions: dict[TP, int] = {}
        fresh = []
        for tp in consumer.assignment():
            committed = await consumer.committed(tp)
            if committed is None:
                fresh.append(tp)
            else:
                positions[tp] = committed
        if fresh:
            positions.update(await consumer.beginning_offsets(fresh))
        for tp, offset in positions.items():
            consumer.seek(tp, offset)
        return {TP(tp.topic, tp.partition): offset for tp, offset in positions.items()}

    async def seek_again(self, tp: TP, offset: int) -> None:
        await self.call_thread(self._seek_again, ensure_aiokafka_TP(tp), offset)

    async def _seek_again(self, tp: Any, offset: int) -> None:
        with contextlib.suppress(KafkaError):  # it is not assigned any more: its next owner seeks
            self._ensure_consumer().seek(tp, offset)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        mine = {tp: offset for tp, offset in offsets.items() if tp in self.assignment()}
        if not mine:
            return False
        try:
            async with asyncio.timeout(LAST_WORD_S):  # left to aiokafka, it takes as long as the broker is away, and a stop waits for it
                await self._ensure_consumer().commit({ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "") for tp, offset in mine.items()})
        except (KafkaError, TimeoutError) as error:
            log.warning("commit refused, tried again at the next interval: %s", type(error).__name__)
            return False
        now = time.monotonic()
        self.tp_last_committed_at.update(dict.fromkeys(mine, now))
        return True


class BatchConsumer(Consumer):
    """See the module's docstring, points 1 to 4."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ledger = Ledger()
        self._dropped: set[TP] = set()
        #: The group has said which partitions are ours now (maybe none).
        self.settled = False
        #: Cancels and awaits the work of partitions that are being revoked; set by whoever works (stream/worker.py).
        self.on_revoked: Partitions | None = None
        #: Called with the partitions that are ours now, before the first batch of any of them.
        self.on_assigned: Partitions | None = None

    _thread: BatchConsumerThread

    def _new_consumer_thread(self) -> BatchConsumerThread:
        """Its loop is of our kind: on uvloop, not on the asyncio loop that the thread would make for itself (8 % of an event's cost)."""
        thread_loop = type(self.loop)()
        thread = BatchConsumerThread(self, loop=self.loop, thread_loop=thread_loop, beacon=self.beacon)
        thread._close_thread_loop_on_stop = True
        return thread

    async def rejoin(self) -> None:
        """All partitions are given back and taken anew: what was in hand is read again from what is committed, in its order."""
        await self._thread.rejoin()

    @property
    def heartbeat_sent(self) -> float:
        return float(self._thread.heartbeat_sent)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        await self._seek_dropped()
        generation = self.app.consumer_generation_id
        records, _ = await self._wait_next_records(timeout)
        if not records or self.should_stop:
            return
        self._dropped.update(TP(tp.topic, tp.partition) for tp in records)
        for tp, batch in records.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            tp = TP(tp.topic, tp.partition)
            message = self._batch_message(tp, batch, generation)
            again = self.ledger.admit(tp, message, batch[0].offset, batch[-1].offset)
            if again is None and self.ledger.holds(message):
                self._dropped.discard(tp)
                yield tp, message

    async def _seek_dropped(self) -> None:
        """What was fetched and not handed out is fetched again, once its partition is (still, or again) ours."""
        positions = self.ledger.next_offsets()
        for tp in self._dropped & positions.keys():
            await self._thread.seek_again(tp, positions[tp])
            self._dropped.discard(tp)

    def _batch_message(self, tp: TP, records: list[Any], generation: int) -> ConsumerMessage:
        last = records[-1]
        value: Any = records
        return ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000.0, last.timestamp_type, None, None, value, None, 0, 0, tp,
            generation_id=generation,
        )  # fmt: skip

    async def perform_seek(self) -> None:
        positions = await self._thread.seek_explicitly()
        self.ledger.assign(positions)
        for tp, offset in positions.items():
            self._committed_offset[tp] = offset
            self._read_offset[tp] = None
        if self.on_assigned is not None:
            await self.on_assigned(set(positions))
        self.settled = True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's warnings about slow streams speak of messages; our watchdog stands in stream/worker.py."""

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """With nothing assigned there is nothing to seek, and `perform_seek` is not called."""
        await super().on_partitions_assigned(assigned, generation_id)
        self.settled = self.settled or not assigned

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.settled = False
        tps = ensure_TPset(revoked)
        self.ledger.withdraw(tps)
        if self.on_revoked is not None:
            await self.on_revoked(tps)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_S):
                await self.commit(tps)
        self.ledger.forget(tps)
        await super().on_partitions_revoked(revoked)

    def ack(self, message: Message) -> bool:
        message.acked = True
        return self.ledger.finish(message)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self.ledger.waiting() if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self.ledger.committable(tp)

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        if not await self._commit(offsets):
            return False
        for tp, offset in offsets.items():
            self.ledger.committed(tp, offset)
            self._committed_offset[tp] = offset
        return True

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return bool(await self._thread.commit(offsets))

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Books nothing: an offset that was not handed out was not worked on."""


class BatchTransport(Transport):
    """Set as `app.transport` before any topic is made."""

    Consumer = BatchConsumer


class RawBatches(faust.Schema[Any, Any]):
    """Hands the records of a poll through; decoding is the agent's, where an error has an owner."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> None:
        return None

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> list[Any]:
        return list(message.value)
