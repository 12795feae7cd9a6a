"""The classifier: every event of the log against the rules, hits published, the rest left alone.

JSON stays raw bytes until a rule asks; only what is acted on becomes a model (D4). A batch is classified at once, then the brake's
memory is made durable (if it changed), then everything is published in the log's order; the wait for Kafka's acknowledgements
overlaps with the next batch. Silent events (no moment, no finding) publish nothing: their row needs no word of ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from faust.types import TP

from handlers.contract import Clock
from model.decision import Moment, Severity
from model.errors import MalformedEvent
from model.event import decode, digest, parse_time
from model.records import Classified, EventRef, Notice
from model.settings import Settings
from rules.classify import Classifier
from stream import topics
from stream.broker import Broker, Publisher
from stream.judge import BrakeState, Judge, Judgement, LockdownBrake, Shield
from stream.state import Follower, State
from stream.worker import Records, Worker

log = logging.getLogger(__name__)

GROUP = "portcullis-classifier"


class ClassifyRole:
    """The worker of the classifier's group and what it needs: brakes (its own state), active counts (followed)."""

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        classifier: Classifier,
        shield: Shield,
        own_actors: Mapping[str, frozenset[str]],
        clock: Clock,
    ) -> None:
        self._broker, self._settings, self._classifier, self._clock = broker, settings, classifier, clock
        self._shield, self._own_actors = shield, own_actors
        self._publisher = Publisher(broker, linger_ms=0)
        self._brakes = State(broker, self._publisher, topics.BRAKES, self._brake_changed)
        self._counts = Follower(broker, topics.COUNTS)
        self._judges: dict[str, Judge] = {}
        self._max_age = timedelta(seconds=settings.safety.max_action_age_s)
        self.worker = Worker(broker, GROUP, [topics.SYSTEM_LOG], self, settings.kafka.session_timeout_s)

    async def start(self) -> None:
        await self._publisher.start()
        await self._brakes.start()
        await self._counts.start()
        await self.worker.start()

    async def stop(self) -> None:
        await self.worker.stop()
        await self._counts.stop()
        await self._brakes.stop()
        await self._publisher.stop()

    async def failed(self) -> None:
        await self.worker.failed()

    async def lag(self) -> int:
        return await self.worker.lag()

    async def assigned(self, partitions: set[TP]) -> None:
        """A new owner judges by what the last one wrote."""
        await self._brakes.caught_up()
        self._judges.clear()

    async def revoked(self, partitions: set[TP]) -> None:
        """Nothing is begun here that its batch does not wait for."""

    async def begin(self, tp: TP, records: Records) -> Awaitable[Any]:
        now = self._clock.now()
        judged = [judgement for record in records if (judgement := self._one(record, now)) is not None]
        await self._keep_brakes()
        pending = [future for judgement in judged for future in await self._publish(judgement)]
        return asyncio.gather(*pending)

    def _one(self, record: Any, now: datetime) -> Judgement | None:
        try:
            event = decode(record.value or b"")
        except MalformedEvent:
            return None  # the recorder quarantines it, with its bytes
        try:
            verdict = self._classifier.verdict(event)
            if verdict.moment is Moment.NONE and not verdict.findings:
                return None
            tenant = (record.key or b"").decode("utf-8", "replace")
            return self._judge(tenant).judge(event, verdict, _ref(event, record), now)
        except Exception as error:
            log.exception("event %s could not be judged", event["uuid"])
            return self._defect(event, record, now, error)

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
        for tenant, judge in list(self._judges.items()):  # an assignment may forget them meanwhile
            if judge.brake.changed:
                await self._brakes.write(f"lockdown:{tenant}", judge.brake.state.to_bytes())
                judge.brake.changed = False

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
