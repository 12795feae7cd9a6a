"""What both lanes share: a batch becomes one piece of work a person, persons run at once, one person's work in order.

A slow person must not hold a batch for long: past `patience_s` the call is cancelled and the work goes on by the schedule (D24).
`step` of each lane turns every outcome into one of: done, later (schedule), parked with the original bytes, told to a human.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from faust.types import TP
from pydantic import ValidationError

from handlers.contract import Clock, Lane
from model.change import Action
from model.decision import Severity
from model.errors import FaultError, Fenced, TemporaryError
from model.event import digest
from model.records import Command, Knock, Notice, Order
from model.settings import Settings
from stream import topics
from stream.books import KafkaJournal
from stream.broker import Broker, Publisher
from stream.schedule import Due, RetryPolicy, Schedule, as_payload
from stream.state import Follower, State
from stream.topics import Topic
from stream.worker import Chains, Records, Worker

log = logging.getLogger(__name__)

Item = Order | Knock | Command
#: Slots of work that was put off as it came.
ITEM = "item."
#: Records a batch. What a batch asks of the vendors must be done well before the watchdog misses a commit.
POLL_RECORDS = 100
#: How often intents are looked for that nobody closes: one whose writer was stopped may come after its next owner has looked.
TIDY_S = 30.0
#: A worker that is fenced, but not yet told why, tries its scheduled work again after so long.
FENCED_S = 1.0


class LaneRole(ABC):
    """A worker, its schedule, its journal and its state. Subclasses say what a person's work is."""

    lane: Lane
    group: str
    work_topic: Topic
    work_model: type[Order] | type[Knock]
    #: People worked on at once, and as many by the schedule. More would only wait for one another at the vendors' gates, until all of them
    #: have run out of patience.
    at_once: int
    #: Seconds that a person may wait for a free place before they go on by the schedule, where all that comes for them until then is one
    #: look: a flood of knocks costs entries, not a held-up log. None: as long as it takes (lockdown gives nobody's place away).
    queue_s: float | None = None

    def __init__(self, broker: Broker, settings: Settings, clock: Clock) -> None:
        self._broker, self._settings, self._clock = broker, settings, clock
        self.publisher = Publisher(broker)
        #: For what a call waits for: one producer has one request under way, and a Hold that is being written would go before the intent.
        self._before_calls = Publisher(broker)
        self.intents = State(broker, self._before_calls, topics.INTENTS)
        self.chains = Chains()
        self._waiting: dict[tuple[str, str], tuple[list[Item], asyncio.Task[None]]] = {}
        self.due = State(broker, self.publisher, topics.DUE, lambda key, value: self.schedule.changed(key, value))
        self.worker = Worker(
            broker, self.group, [self.work_topic, topics.COMMANDS], self, settings.kafka.session_timeout_s, poll_records=POLL_RECORDS
        )
        self.schedule = Schedule(self.due, self.lane, self.worker.owns, self.chains, self._fire, clock, self.put_off_s, self.at_once)
        self.journal = KafkaJournal(self._before_calls, self.intents, self.lane, clock)
        self.retries = RetryPolicy(settings.safety)
        self.patience_s = settings.safety.batch_patience_s
        #: Coroutine functions that run as long as the lane does; one that ends or fails ends the process.
        self.beside: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._carried_out: deque[str] = deque(maxlen=1000)
        self._fresh = asyncio.Semaphore(self.at_once)
        self._resumed: set[tuple[str, str]] = set()

    # --- to be said by each lane ----------------------------------------------------------------------------------------

    @abstractmethod
    def followers(self) -> Sequence[Follower]:
        """State of this lane beside intents and due work."""

    @abstractmethod
    async def work(self, tenant: str, person: str, items: Sequence[Item]) -> None:
        """All that came for one person, in the log's order."""

    @abstractmethod
    async def later(self, due: Due) -> None:
        """A scheduled entry whose time has come."""

    @abstractmethod
    async def command(self, command: Command) -> None:
        """A human's order."""

    @abstractmethod
    async def outlived(self, tenant: str, person: str, items: Sequence[Item]) -> None:
        """The work took longer than a batch may: its call was cancelled; what is not done goes on the schedule."""

    async def crowded(self, tenant: str, person: str, items: Sequence[Item]) -> None:
        """No place was free within `queue_s`, and nothing was begun."""
        await self.outlived(tenant, person, items)

    @abstractmethod
    async def resume(self, action: Action) -> Action:
        """Closes a row by reading back; the closed row. Raises TemporaryError where that cannot be done now."""

    def put_off_s(self, due: Due) -> float:
        """Seconds until a retry that is due may go (E6). Lockdown never waits."""
        return 0.0

    # --- life -------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        await self.publisher.start()
        await self._before_calls.start()
        for follower in (self.intents, self.due, *self.followers()):
            await follower.start()
        self._tasks = [
            asyncio.create_task(self.schedule.run_forever(), name=f"{self.lane} schedule"),
            asyncio.create_task(self._tidy_forever(), name=f"{self.lane} open intents"),
        ]
        await self.worker.start()
        self._tasks += [asyncio.create_task(one(), name=f"beside {self.lane}") for one in self.beside]

    async def stop(self) -> None:
        await self.worker.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.chains.cancel()
        for follower in (*self.followers(), self.due, self.intents):
            await follower.stop()
        await self._before_calls.stop()
        await self.publisher.stop()

    async def failed(self) -> None:
        watching = asyncio.create_task(self.worker.failed())
        try:
            while not watching.done():
                await asyncio.wait([watching, *self._tasks], timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
                for task in self._tasks:
                    if task.done() and not task.cancelled():
                        raise FaultError(f"{self.lane}: {task.get_name()} ended: {task.exception()!r}") from task.exception()
                if self.schedule.failure is not None:
                    raise FaultError(f"{self.lane}: {self.schedule.failure!r}") from self.schedule.failure
                for follower in (self.intents, self.due, *self.followers()):
                    if follower.dead is not None:
                        raise FaultError(f"{self.lane}: a follower died: {follower.dead!r}") from follower.dead
            watching.result()
        finally:
            watching.cancel()

    async def lag(self) -> int:
        return await self.worker.lag() + len(self.chains)

    def due_before(self, seconds: float) -> int:
        return self.schedule.due_before(seconds)

    # --- batches ----------------------------------------------------------------------------------------------------------

    async def assigned(self, partitions: set[TP]) -> None:
        """A new owner knows all that the last one wrote, closes what it left open, and follows the schedule from its beginning."""
        for follower in (self.intents, self.due, *self.followers()):
            await follower.caught_up()
        self._tidy({tp.partition for tp in partitions})
        self.schedule.rescan()

    def _tidy(self, partitions: set[int]) -> None:
        """Open intents are read back after the work of their person that is under way, and most are closed by then."""
        for who in self.journal.people_with_open() - self._resumed:
            if topics.partition_of(topics.person_key(*who), self._broker.partitions) in partitions:
                self._resumed.add(who)
                self.chains.add(who, partial(self._resume, *who)).add_done_callback(partial(self._resumption_over, who))

    def _resumption_over(self, who: tuple[str, str], task: asyncio.Task[None]) -> None:
        self._resumed.discard(who)
        self.schedule.note(task)

    async def _tidy_forever(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            self._tidy(self.worker.owned)

    async def revoked(self, partitions: set[TP]) -> None:
        """Scheduled and resumed work belongs to no batch: it is cancelled here (D12)."""
        gone = {tp.partition for tp in partitions}
        await self.chains.cancel(lambda key: topics.partition_of(topics.person_key(*key), self._broker.partitions) in gone)

    async def begin(self, tp: TP, records: Records) -> Awaitable[Any]:
        people: dict[bytes, list[Item]] = {}
        for record in records:
            item = await self._read(tp, record)
            if item is not None:
                people.setdefault(record.key or b"", []).append(item)
        return asyncio.gather(*(self._enqueue(topics.split_person_key(key), items) for key, items in people.items()))

    def _enqueue(self, who: tuple[str, str], items: list[Item]) -> asyncio.Task[None]:
        """After all earlier work of that person; what is still waiting takes the new items in, so that a person who is knocked faster
        than looked at is one look behind, never a queue of them."""
        waiting = self._waiting.get(who)
        if waiting is None or waiting[1].done():
            waiting = (items, self.chains.add(who, partial(self._patiently, who, items)))
            self._waiting[who] = waiting
        else:
            waiting[0].extend(items)
        return waiting[1]

    async def _read(self, tp: TP, record: Any) -> Item | None:
        model = Command if tp.topic == topics.COMMANDS.name else self.work_model
        try:
            item: Item = model.from_bytes(record.value or b"")
        except ValidationError as error:
            await self._poison(tp, record, error)
            return None
        return item

    async def put_off(self, tenant: str, person: str, item: Item, delay: float) -> None:
        """Its batch is over, its work is not: it goes on by the schedule, as it came, each item in a slot of its own."""
        now = self._clock.now()
        due = Due(
            lane=self.lane, tenant=tenant, person=person, slot=f"{ITEM}{item.id}", kind="retry", due=self._in(delay), since=now,
            reason="took longer than a batch may", code="timeout", payload=item.model_dump_json(),
        )  # fmt: skip
        await self.schedule.put(due)

    async def reread(self, due: Due) -> None:
        """An item that was put off, or a redriven record that could not be read: once more, by what we know today."""
        item = self._item(due.original)
        if item is None:
            await self.park(due.tenant, due.person, due.slot, "still unreadable", "unreadable", due.original)
            return
        await self.work(due.tenant, due.person, [item])
        await self.schedule.done(due)

    def _item(self, raw: bytes) -> Item | None:
        for model in (self.work_model, Command):
            try:
                item: Item = model.from_bytes(raw)
            except ValidationError:
                continue
            return item
        return None

    async def _poison(self, tp: TP, record: Any, error: ValidationError) -> None:
        """Bytes on our own topic that are none of our words: kept whole, told, never dropped (P3)."""
        tenant, person = topics.split_person_key(record.key or b"")
        slot = f"poison.{tp.topic}.{tp.partition}.{record.offset}"
        await self.park(tenant, person, slot, f"{error.error_count()} errors in a record of {tp.topic}", "unreadable", record.value or b"")

    async def _patiently(self, who: tuple[str, str], items: Sequence[Item]) -> None:
        tenant, person = who
        try:
            async with asyncio.timeout(self.queue_s):
                await self._fresh.acquire()
        except TimeoutError:
            self._waiting.pop(who, None)
            await self.crowded(tenant, person, items)
            return
        try:
            self._waiting.pop(who, None)
            async with asyncio.timeout(self.patience_s):
                await self._close_open(tenant, person)
                await self.work(tenant, person, items)
        except TimeoutError:
            await self.outlived(tenant, person, items)
        finally:
            self._fresh.release()

    async def _fire(self, due: Due) -> None:
        """Scheduled work has the same fence and the same patience as a batch."""
        try:
            async with asyncio.timeout(max(self.patience_s * 3, 60.0)):
                await self._close_open(due.tenant, due.person)
                await self.later(due)
        except TimeoutError:
            await self.again(due, "took too long", "timeout", None)
        except Fenced as error:
            log.warning("%s", error)
            await self._clock.sleep(FENCED_S)  # the entry is due still: without a pause it would ask the vendors again and again

    async def _resume(self, tenant: str, person: str) -> None:
        try:
            await self._close_open(tenant, person)
        except Fenced as error:
            log.warning("%s", error)

    async def _close_open(self, tenant: str, person: str) -> None:
        """Intents that a crash or a cancelled call left open are closed by reading back (E1); what cannot be read now stays open."""
        for action in self.journal.open(tenant, person):
            try:
                closed = await self.resume(action)
            except TemporaryError as error:
                log.info("intent %s stays open: %s", action.intent, error)
                continue
            await self.journal.close(closed)

    # --- later ------------------------------------------------------------------------------------------------------------

    async def again(self, due: Due, reason: str, code: str, delay: float | None) -> Due:
        """The same entry once more, later."""
        attempts = due.attempts + 1
        wait = self.retries.delay(attempts, delay)
        new = due.model_copy(
            update={"kind": "retry", "due": self._in(wait), "attempts": attempts, "reason": reason[:500], "code": code},
        )
        await self.schedule.put(new)
        return new

    async def park(self, tenant: str, person: str, slot: str, reason: str, code: str, payload: bytes, **more: Any) -> None:
        """Waits for a human, with the original bytes, the reason and the attempts (P3)."""
        now = self._clock.now()
        known = self.schedule.get(tenant, person, slot)
        text = as_payload(payload)
        due = Due(
            lane=self.lane, tenant=tenant, person=person, slot=slot, kind="parked", due=now, since=known.since if known else now,
            attempts=(known.attempts if known else 0) + 1, reason=reason[:500], code=code, payload=text, **more,
        )  # fmt: skip
        if known is not None and known.kind == "parked" and known.code == code:
            return  # waits already; a newer knock changed nothing, and nobody is told twice
        await self.schedule.put(due)
        await self.tell(
            tenant, "parked", f"{slot}: {reason}", person=person, target=slot, severity=Severity.HIGH,
            remedy=f"mend the cause, then: portcullis parked redrive '{due.key}' --actor YOU --reason WHY", facts={"code": code},
        )  # fmt: skip

    async def tell(
        self,
        tenant: str,
        topic: Any,
        text: str,
        *,
        person: str = "",
        target: str | None = None,
        incident: str | None = None,
        severity: Severity = Severity.MEDIUM,
        remedy: str = "",
        facts: dict[str, Any] | None = None,
    ) -> None:
        """A notice into the audit topic: a human reads it in Slack or asks for it in SQL."""
        now = self._clock.now()
        notice = Notice(
            id=digest("notice", tenant, person, topic, text, now.isoformat()), tenant=tenant, at=now, topic=topic, severity=severity,
            person=person or None, target=target, incident=incident, text=text[:1000], remedy=remedy, facts=facts or {},
        )  # fmt: skip
        await self.publisher.send(topics.OUTCOMES, topics.person_key(tenant, person), notice.to_bytes())

    async def carry_out(self, command: Command) -> None:
        await self.command(command)
        self._carried_out.append(command.id)

    def is_carried_out(self, item: Item) -> bool:
        """By this process. A restart may carry a command out again, which does no harm."""
        return item.id in self._carried_out

    async def take_command(self, command: Command) -> None:
        await self.tell(
            command.tenant, "command", f"{command.kind} by {command.actor}: {command.reason}", person=command.person,
            severity=Severity.LOW, facts={"command": command.id, "args": command.args},
        )  # fmt: skip

    def _in(self, seconds: float) -> datetime:
        return self._clock.now() + timedelta(seconds=seconds)

    async def redrive_or_drop(self, command: Command) -> None:
        """`parked redrive` makes the entry due now; `parked drop` forgets it. What was superseded is parked no longer and left alone."""
        slot = str(command.args.get("slot", ""))
        due = self.schedule.get(command.tenant, command.person, slot)
        if due is None or due.kind != "parked" or command.args.get("lane") != self.lane:
            return
        await self.take_command(command)
        if command.kind == "drop":
            await self.schedule.drop(command.tenant, command.person, slot)
        else:
            await self.schedule.put(
                due.model_copy(update={"kind": "retry", "due": self._clock.now(), "attempts": 0, "since": self._clock.now()})
            )
