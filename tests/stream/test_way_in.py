"""From the tenant's log to the effect, over one Kafka in memory: late, repeated and unknown events, each handled once or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from audit.store import AuditStore, LogRecord
from model.records import Knock, Order
from rules.classify import Classifier
from rules.lifecycle import Lifecycle
from rules.ruleset import RuleSet
from stream import topics
from stream.classify import ClassifyRole
from tests.handlers.house import NOBODY
from tests.stream.fakes import ANN, World, work
from tests.stream.memory import Log, Worker
from tests.stream.tails import Source, event, page, scripted
from tests.support.clock import START

pytestmark = pytest.mark.usefixtures("memory")
TARGET = [{"type": "User", "id": ANN, "alternateId": f"{ANN}@acme.test"}]
LATE = event("e-late", eventType="user.lifecycle.create", published=(START - timedelta(hours=2)).isoformat(), target=TARGET)
RISK = event("e-risk", eventType="user.risk.detect", target=TARGET, severity="WARN", debugContext={"debugData": {"risk": "{level=HIGH}"}})
UNKNOWN = event("e-new", eventType="zone.of.twilight", severity="APOCALYPTIC", target=TARGET)


@pytest.fixture(scope="module")
def shipped() -> Any:
    rules, table = RuleSet.load(None), Lifecycle.load()
    return lambda tenant: Classifier(rules, table)


@contextlib.asynccontextmanager
async def judged(source: Source, shipped: Any) -> AsyncIterator[ClassifyRole]:
    source.log.embedded = True
    world = World()
    role = ClassifyRole(cast(Any, source.log), world.settings, shipped, NOBODY, {}, source.clock)
    await role.start()
    yield role
    await role.stop()


async def read(source: Source, shipped: Any, pages: int) -> None:
    """So many pages of the log, each judged as it comes."""
    tail = await source.tail()
    async with judged(source, shipped) as role:
        for _ in range(pages):
            await tail.step()
            await cast(Worker, role.worker).drain()


def world_of(source: Source) -> World:
    world = World()
    world.log = world.box.journal = world.okta.journal = cast(Any, source.log)
    return world


def knocked(log: Log) -> list[str]:
    return [Knock.from_bytes(record.value or b"").id for record in log.of(topics.KNOCKS)]


@pytest.mark.fault(2)
async def test_an_event_that_comes_two_hours_late_is_handled_once(shipped: Any) -> None:
    source = scripted(page(event("e-1"), next="a1"), page(LATE, next="a2"), page(event("e-2"), next="a3"))
    await read(source, shipped, 3)
    assert source.published == ["e-1", "e-late", "e-2"]
    assert source.cursor is not None
    assert "after=a3" in source.cursor, "the cursor is the link: no time of an event moves it back or ahead"
    assert len(knocked(source.log)) == 1
    world = world_of(source)
    async with world.provision() as role:
        await work(role)
    assert [one.login for one in world.box.accounts.values()] == [f"{ANN}@acme.test"]


@pytest.mark.fault(3)
async def test_the_same_event_on_two_pages_is_one_effect(shipped: Any) -> None:
    source = scripted(page(RISK, LATE, next="a1"), page(LATE, RISK, next="a2"))
    await read(source, shipped, 2)
    assert source.published == ["e-risk", "e-late", "e-late", "e-risk"], "Okta's order is kept, repeats too"
    orders = [Order.from_bytes(record.value or b"") for record in source.log.of(topics.THREATS)]
    assert [one.kind for one in orders] == ["lockdown", "lockdown"]
    assert len({one.id for one in orders}) == 1
    assert len(set(knocked(source.log))) == 1
    world = world_of(source)
    world.employ()
    async with world.lockdown() as closer, world.provision() as opener:
        await work(closer)
        await work(opener)
        effects = len(world.box.effects) + len(world.okta.effects)
    assert world.states() == ["open", "contained"]
    assert effects == len({one.change.label + one.change.target for one in (*world.box.effects, *world.okta.effects)})


@pytest.mark.fault(28)
async def test_an_unknown_type_and_severity_are_recorded_counted_and_nobody_acts(shipped: Any, tmp_path: Path) -> None:
    source = scripted(page(UNKNOWN, next="a1"))
    await read(source, shipped, 1)
    assert (source.log.of(topics.THREATS), source.log.of(topics.KNOCKS), source.log.notices()) == ([], [], [])
    (record,) = source.log.of(topics.SYSTEM_LOG)
    with AuditStore(tmp_path / "audit.duckdb", "one") as store:
        row = LogRecord(record.topic, record.partition, record.offset, record.timestamp, record.key, record.value or b"", "event")
        store.write([row])
        with store.reader() as connection:
            found = connection.execute("SELECT uuid, event_type, severity, count(*) FROM events GROUP BY ALL").fetchall()
    assert found == [("e-new", "zone.of.twilight", "APOCALYPTIC", 1)]
