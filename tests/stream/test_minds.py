"""The classifier's memory: over restarts no event counts twice in a window and none is forgotten, on a real log."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from faust.types import TP

from handlers.protected import ProtectedList
from model.decision import Finding, Moment, Response, Scope, Severity, Verdict
from model.records import Classified, read_record
from model.settings import KafkaSettings, Settings
from stream import minds, topics
from stream.broker import Broker, Publisher
from stream.classify import ClassifyRole
from stream.clock import SystemClock
from stream.minds import Minds
from tests.handlers.fakes import NOON
from tests.stream import memory
from tests.stream.embedded import event
from tests.stream.memory import Log
from tests.stream.stations import own_topics, until
from tests.support.clock import FakeClock
from tests.support.kafka_fixtures import Kafka

TENANT = "acme"


class Counting:
    """A correlation: tells of every third event. An event of type `defect` raises."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def verdict(self, event: dict[str, Any]) -> Verdict:
        return Verdict(Moment.NONE, Moment.NONE, ())

    def observe(self, event: dict[str, Any], received: Any = None) -> Verdict:
        if event["eventType"] == "defect":
            raise ZeroDivisionError("a rule with a defect")
        self.seen.append(event["uuid"])
        if len(self.seen) % 3:
            return self.verdict(event)
        found = Finding(
            rule="third", rule_version="1", title="T", response=Response.ALERT, severity=Severity.LOW, person="00uann", scope=Scope.FULL,
            matched={"events": self.seen[-3:]},
        )  # fmt: skip
        return Verdict(Moment.NONE, Moment.NONE, ("00uann",), (found,))

    def tick(self, now: Any) -> tuple[Finding, ...]:
        return ()

    def snapshot(self) -> bytes:
        return json.dumps(self.seen).encode()

    def restore(self, snapshot: bytes) -> tuple[str, ...]:
        self.seen = json.loads(snapshot)
        return ()


class Desk:
    def __init__(self, broker: Broker, publisher: Publisher) -> None:
        self.broker, self.publisher, self.number = broker, publisher, 0

    @contextlib.asynccontextmanager
    async def classifier(self) -> AsyncIterator[ClassifyRole]:
        settings = Settings.model_validate({"kafka": {"session_timeout_s": 6}})
        make = cast(Any, lambda tenant: Counting())
        role = ClassifyRole(self.broker, settings, make, ProtectedList("loaded", {}), {}, SystemClock())
        await role.start()
        try:
            yield role
        finally:
            await role.stop()

    async def events(self, count: int, event_type: str = "user.test") -> None:
        for _ in range(count):
            self.number += 1
            await self.publisher.send(topics.SYSTEM_LOG, TENANT.encode(), event(f"e-{self.number}", eventType=event_type))

    async def told(self) -> list[list[str]]:
        """Of each finding, the events that it names; each record once."""
        consumer = self.broker.reader()
        await consumer.start()
        tps = self.broker.all_partitions(topics.OUTCOMES.name)
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        found: dict[str, list[str]] = {}
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    told = read_record(record.value)
                    if isinstance(told, Classified) and told.decisions:
                        found.setdefault(told.id, told.decisions[0].matched["events"])
        await consumer.stop()
        return list(found.values())


async def idle(role: ClassifyRole) -> bool:
    return await role.lag() == 0


@pytest.mark.kafka
@pytest.mark.parametrize("every_s", [0.0, 3600.0])
async def test_over_restarts_every_event_counts_exactly_once(kafka: Kafka, monkeypatch: pytest.MonkeyPatch, every_s: float) -> None:
    """With a snapshot at every batch, and with none at all, when the log itself is the memory."""
    own_topics(kafka, monkeypatch)
    monkeypatch.setattr(minds, "EVERY_S", every_s)
    broker = Broker(KafkaSettings(bootstrap=kafka.bootstrap, partitions=2))
    await broker.start()
    publisher = Publisher(broker)
    await publisher.start()
    desk = Desk(broker, publisher)
    for count in (2, 5, 5):
        async with desk.classifier() as role:
            await desk.events(count)
            await until(lambda: idle(role))
    assert await desk.told() == [[f"e-{number + at}" for at in range(3)] for number in (1, 4, 7, 10)]
    await publisher.stop()


async def taken(log: Log, every: bool = True) -> Minds:
    """A new owner's memory, out of what is kept."""
    windows = memory.State(log, memory.Publisher(log), topics.WINDOWS)
    await windows.start()
    return Minds(cast(Any, lambda tenant: Counting()), cast(Any, windows), FakeClock(NOON).monotonic)


def seen(one: Minds) -> list[str]:
    return cast(Counting, one._minds[TENANT].classifier).seen


async def test_an_event_that_comes_again_although_the_snapshot_holds_it_is_judged_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minds, "EVERY_S", 0.0)
    log = Log()
    first = await taken(log)
    for offset in range(4):
        first.observe(TENANT, 0, offset, {"uuid": f"e-{offset}", "eventType": "x"}, NOON)
    await first.keep(first.snapshots())
    assert first.snapshots() == [], "nothing new, nothing kept"
    second = await taken(log)
    for offset in range(2, 6):
        second.observe(TENANT, 0, offset, {"uuid": f"e-{offset}", "eventType": "x"}, NOON)
    assert seen(second) == [f"e-{offset}" for offset in range(6)]


async def test_a_snapshot_that_cannot_be_read_begins_anew_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    log.put(topics.WINDOWS.name, TENANT.encode(), b"\x00" * 8 + b"damaged")
    one = await taken(log)
    one.observe(TENANT, 0, 7, {"uuid": "e-7", "eventType": "x"}, NOON)
    assert seen(one) == ["e-7"]
    assert "cannot be read" in caplog.text


async def test_a_memory_that_is_too_large_is_not_kept_and_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(minds, "EVERY_S", 0.0)
    monkeypatch.setattr(minds, "LARGEST", 1)
    one = await taken(Log())
    one.observe(TENANT, 0, 0, {"uuid": "e-0", "eventType": "x"}, NOON)
    assert one.snapshots() == []
    assert "too large to keep" in caplog.text


async def test_a_rule_that_raises_while_the_log_is_read_once_more_does_not_keep_the_role_from_starting() -> None:
    log = Log()
    one = await taken(log)
    for number, event_type in enumerate(["x", "defect", "x"]):
        log.put(topics.SYSTEM_LOG.name, TENANT.encode(), event(f"e-{number}", eventType=event_type))
    for record in log.of(topics.SYSTEM_LOG):
        one._recall(record)
    assert seen(one) == ["e-0", "e-2"]
    assert TP("t", 0).partition == 0
