"""The classifier: every event of the log against the rules, hits published, the rest left alone.

JSON stays raw bytes until a rule asks; only what is acted on becomes a model (D4). A batch is classified at once, then the brake's
memory is made durable (if it changed), then everything is published in the log's order; the wait for Kafka's acknowledgements
overlaps with the next batch. A lockdown does not wait for the rest of its batch. Silent events (no moment, no finding) publish
nothing: their row needs no word of ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP

from handlers.contract import Clock
from model.decision import Finding, Moment, Response, Severity, Verdict
from model.errors import MalformedEvent
from model.event import decode, digest, parse_time
from model.records import Classified, EventRef, Notice
from model.settings import Settings
from rules.classify import Classifier
from stream import topics
from stream.broker import Broker, Publisher
from stream.judge import BrakeState, Judge, Judgement, LockdownBrake, Shield
from stream.minds import Minds
from stream.rulebook import Rulebook
from stream.state import Follower, State
from stream.worker import Records, Worker

log = logging.getLogger(__name__)

GROUP = "portcullis-classifier"
#: Seconds between looks at windows that end while no event comes.
TICK_S = 2.0


class ClassifyRole:
    """The worker of the classifier's group and what it needs: brakes (its own state), active counts (followed)."""

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        make: Callable[[str], Classifier],
        shield: Shield,
        own_actors: Mapping[str, frozenset[str]],
        clock: Clock,
    ) -> None:
        """`make` builds a tenant's classifier, with its guards and an empty memory."""
        self._broker, self._settings, self._clock = broker, settings, clock
        self._shield, self._own_actors = shield, own_actors
        self._publisher = Publisher(broker, linger_ms=0)
        self._windows = None if broker.embedded else State(broker, self._publisher, topics.WINDOWS)
        self.minds = Minds(make, self._windows, clock.monotonic)
        #: Done when everything published so far is acknowledged: a snapshot is kept only after that.
        self._settled: asyncio.Future[Any] | None = None
        self._ticking: asyncio.Task[None] | None = None
        #: Where the rules are looked at again; None: those of the start stay.
        self.rulebook: Rulebook | None = None
        self._reading: asyncio.Task[None] | None = None
        self._brakes = State(broker, self._publisher, topics.BRAKES, self._brake_changed)
        self._counts = Follower(broker, topics.COUNTS)
        self._judges: dict[str, Judge] = {}
        #: How often partitions were assigned: a batch that waits meanwhile goes no further.
        self._assignment = 0
        self._keeping = asyncio.Lock()
        self._max_age = timedelta(seconds=settings.safety.max_action_age_s)
        self.worker = Worker(broker, GROUP, [topics.SYSTEM_LOG], self, settings.kafka.session_timeout_s)

    async def start(self) -> None:
        await self._publisher.start()
        await self._brakes.start()
        await self._counts.start()
        if self._windows is not None:
            await self._windows.start()
        await self.worker.start()
        self._ticking = asyncio.create_task(self._tick(), name="correlation clock")
        if self.rulebook is not None:
            self._reading = asyncio.create_task(self.rulebook.run_forever(self.minds.replace_rules, self._tell), name="rulebook")

    async def stop(self) -> None:
        for task in (self._ticking, self._reading):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self.worker.stop()
        if self._windows is not None:
            await self._windows.stop()
        await self._counts.stop()
        await self._brakes.stop()
        await self._publisher.stop()

    async def failed(self) -> None:
        assert self._ticking is not None
        watching = asyncio.create_task(self.worker.failed())
        try:
            await asyncio.wait([watching, self._ticking], return_when=asyncio.FIRST_COMPLETED)
            if self._ticking.done() and not self._ticking.cancelled():
                self._ticking.result()
            await watching
        finally:
            watching.cancel()

    async def lag(self) -> int:
        return await self.worker.lag()

    async def assigned(self, partitions: set[TP]) -> None:
        """A new owner judges by what the last one wrote."""
        self._assignment += 1
        await self._brakes.caught_up()
        self._judges.clear()
        log_topic = topics.SYSTEM_LOG.name
        positions = {tp: at for tp, at in self.worker.consumer.ledger.next_offsets().items() if tp.topic == log_topic}
        await self.minds.assigned(self._broker, positions)

    async def revoked(self, partitions: set[TP]) -> None:
        """Nothing is begun here that its batch does not wait for."""

    async def begin(self, tp: TP, records: Records) -> Awaitable[Any]:
        now, assignment = self._clock.now(), self._assignment
        judged: list[Judgement] = []
        for record in records:
            judgement = self._one(record, now)
            if judgement is None:
                continue
            judged.append(judgement)
            if judgement.locks:  # with Kafka before the rest of the page is looked at
                await asyncio.gather(*await self._hand_over(judged))
                judged.clear()
                if self._assignment != assignment:
                    break  # the batch will be read again, and what is remembered now does not know its beginning
        return self._settle(await self._hand_over(judged))

    async def _hand_over(self, judged: list[Judgement]) -> list[asyncio.Future[Any]]:
        await self._keep_brakes()
        return [future for judgement in judged for future in await self._publish(judgement)]

    def _settle(self, pending: list[asyncio.Future[Any]]) -> Awaitable[Any]:
        """Done when these and all before them are acknowledged; then the memory whose time has come is kept."""
        before, snapshots = self._settled, self.minds.snapshots()
        if not pending and not snapshots and (before is None or before.done()):
            self._settled = None
            return _nothing()
        task = asyncio.ensure_future(self._acknowledged(before, pending, snapshots))
        self._settled = task
        return task

    async def _acknowledged(self, before: asyncio.Future[Any] | None, pending: list[asyncio.Future[Any]], snapshots: Any) -> None:
        await asyncio.gather(*pending)
        if before is not None:
            await asyncio.wait([before])
            if not before.cancelled():  # a batch of an assignment that is over counts for nothing
                before.result()
        await self.minds.keep(snapshots)

    def _one(self, record: Any, now: datetime) -> Judgement | None:
        try:
            event = decode(record.value or b"")
        except MalformedEvent:
            return None  # the recorder quarantines it, with its bytes
        try:
            tenant = (record.key or b"").decode("utf-8", "replace")
            received = datetime.fromtimestamp(record.timestamp / 1000, UTC)
            verdict = self.minds.observe(tenant, record.partition, record.offset, event, received)
            if self.leaves_alone(verdict):
                return None
            return self._judge(tenant).judge(event, verdict, _ref(event, record), now)
        except Exception as error:
            log.exception("event %s could not be judged", event["uuid"])
            return self._defect(event, record, now, error)

    def leaves_alone(self, verdict: Verdict) -> bool:
        """Nothing of a silent event is published."""
        return verdict.moment is Moment.NONE and not verdict.findings and not verdict.shadow

    async def _tick(self) -> None:
        """Windows that end while no event comes (absences), once the log is read to its end: event time then keeps pace with the clock."""
        while True:
            await self._clock.sleep(TICK_S)
            try:
                if not await self.worker.lag():
                    await self._close_windows(self._clock.now())
            except KafkaError as error:
                log.warning("the ends of the log cannot be asked now: %s", type(error).__name__)

    async def _close_windows(self, now: datetime) -> None:
        pending = []
        for tenant, findings in self.minds.tick(now).items():
            for found in findings:
                ref = EventRef(
                    uuid=digest("window", tenant, found.rule, found.person or "", now.isoformat()),
                    event_type="portcullis.window",
                    received=now,
                )
                whom = (found.person,) if found.person else ()
                if self.minds.is_shadow(tenant, found.rule):
                    verdict = Verdict(Moment.NONE, Moment.NONE, whom, shadow=(found,))
                else:
                    verdict = Verdict(moment_of(found), Moment.NONE, whom, (found,))
                judgement = self._judge(tenant).judge({}, verdict, ref, now)
                await self._keep_brakes()
                pending += await self._publish(judgement)
        await asyncio.gather(*pending)

    def _judge(self, tenant: str) -> Judge:
        judge = self._judges.get(tenant)
        if judge is None:
            stored = self._brakes.values.get(f"lockdown:{tenant}")
            state = BrakeState.from_bytes(stored) if stored else None
            brake = LockdownBrake(self._settings.safety.brakes, state)
            judge = Judge(tenant, self._max_age, self._shield, brake, self._own_actors.get(tenant, frozenset()))
            self._judges[tenant] = judge
        count = self._counts.values.get(tenant)
        judge.active = int(count) if count and count.isdigit() else None
        return judge

    def _brake_changed(self, key: str, value: bytes | None) -> None:
        """A human reset a brake: the next judge begins with what stands there now."""
        kind, _, tenant = key.partition(":")
        judge = self._judges.get(tenant)
        if kind == "lockdown" and judge is not None and not judge.brake.changed and value != judge.brake.state.to_bytes():
            judge.brake.state = BrakeState.from_bytes(value) if value else BrakeState()

    async def _keep_brakes(self) -> None:
        """The count is durable before the order that it let through (E9)."""
        async with self._keeping:  # whoever publishes next waits for a write that is on its way
            for tenant, judge in list(self._judges.items()):  # an assignment may forget them meanwhile
                if judge.brake.changed:
                    judge.brake.changed = False
                    await self._brakes.write(f"lockdown:{tenant}", judge.brake.state.to_bytes())

    async def _tell(self, notice: Notice) -> None:
        await (await self._publisher.begin(topics.OUTCOMES, topics.person_key(notice.tenant, ""), notice.to_bytes()))

    async def _publish(self, judgement: Judgement) -> list[asyncio.Future[Any]]:
        record = judgement.record
        person = record.people[0] if len(record.people) == 1 else ""
        begin = self._publisher.begin
        pending = [await begin(topics.OUTCOMES, topics.person_key(record.tenant, person), record.to_bytes())]
        for order in judgement.orders:
            pending.append(await begin(topics.THREATS, topics.person_key(order.tenant, order.person), order.to_bytes()))
        for knock in judgement.knocks:
            pending.append(await begin(topics.KNOCKS, topics.person_key(knock.tenant, knock.person), knock.to_bytes()))
        for notice in judgement.notices:
            pending.append(await begin(topics.OUTCOMES, topics.person_key(notice.tenant, ""), notice.to_bytes()))
        return pending

    def _defect(self, event: dict[str, Any], record: Any, now: datetime, error: Exception) -> Judgement:
        """Nothing is dropped silently: the event has its row, and this says that nobody judged it."""
        tenant = (record.key or b"").decode("utf-8", "replace")
        verdict_ref = _ref(event, record)
        notice = Notice(
            id=digest("unjudged", tenant, event["uuid"]),
            tenant=tenant,
            at=now,
            topic="parked",
            severity=Severity.HIGH,
            text=f"event {event['uuid']} ({event['eventType']}) could not be judged: {type(error).__name__}",
            remedy="report this defect with the event's bytes: SELECT raw FROM events WHERE uuid = …",
            facts={"event": event["uuid"]},
        )
        silent = Classified(
            id=digest("classified", tenant, event["uuid"]), tenant=tenant, at=now, event=verdict_ref, moment=Moment.NONE, people=()
        )
        return Judgement(silent, notices=[notice])


def moment_of(found: Finding) -> Moment:
    """D2: a finding that asks for more than an alert is a threat."""
    return Moment.NONE if found.response is Response.ALERT else Moment.THREAT


async def _nothing() -> None:
    """A silent batch waits for nobody."""


def _ref(event: dict[str, Any], record: Any) -> EventRef:
    return EventRef(
        uuid=event["uuid"],
        event_type=event["eventType"],
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        published=parse_time(event.get("published")),
        received=datetime.fromtimestamp(record.timestamp / 1000, UTC),
    )
