"""The classifier's role: one bad event never stops a batch, the brake is durable before what it let through, repeats keep their ids."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, cast

import pytest
from faust.types import TP
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.protected import ProtectedList
from model.decision import Finding, Moment, Response, Scope, Severity, Verdict
from model.records import Knock, Order
from model.settings import Settings
from rules.ruleset import RuleSet
from stream import topics
from stream.classify import ClassifyRole
from stream.judge import BrakeState
from tests.handlers.fakes import NOON, Killed, swap
from tests.stream.fakes import in_memory
from tests.stream.memory import Log, Worker
from tests.support.clock import FakeClock

pytestmark = pytest.mark.usefixtures("memory")
TENANT = "acme"


class Rules:
    """Asks what the event itself says: `x` is alert, approve, lockdown or raise."""

    def verdict(self, event: dict[str, Any]) -> Verdict:
        asked, who = event.get("x"), event.get("who", "00uann")
        if asked == "raise":
            raise ZeroDivisionError("a rule with a defect")
        people = (who,) if isinstance(who, str) else ()
        if asked is None:
            return Verdict(Moment(event.get("moment", "none")), Moment(event.get("moment", "none")), people)
        found = Finding(
            rule="r-1", rule_version="1", title="T", response=Response(asked), severity=Severity.HIGH, person=who, scope=Scope.FULL
        )  # fmt: skip
        return Verdict(Moment.THREAT, Moment.NONE, people, (found,))

    def observe(self, event: dict[str, Any], received: datetime | None = None) -> Verdict:
        return self.verdict(event)

    def tick(self, now: datetime) -> tuple[Finding, ...]:
        return self.ended

    def __init__(self) -> None:
        self.ended: tuple[Finding, ...] = ()
        self.ruleset = RuleSet([])


def event(uuid: str, **facts: Any) -> bytes:
    return json.dumps({"uuid": uuid, "eventType": "user.test", "published": "2026-01-05T12:00:00.000Z"} | facts).encode()


@contextlib.asynccontextmanager
async def classifier(log: Log, rules: Any = None, **safety: Any) -> AsyncIterator[ClassifyRole]:
    """Without a kept memory of correlations, as on the embedded broker (that memory's test runs on a real one)."""
    log.dead, log.embedded = False, True
    make = (lambda tenant: rules) if rules is not None else lambda tenant: Rules()
    shield = ProtectedList("loaded", {(TENANT, "00uglass"): "break glass"})
    settings = Settings.model_validate({"safety": safety})
    role = ClassifyRole(cast(Any, log), settings, cast(Any, make), shield, {TENANT: frozenset({"00uservice"})}, FakeClock(NOON, auto=False))
    await role.start()
    try:
        yield role
    finally:
        log.kill_after = None
        await role.stop()


async def judge(role: ClassifyRole) -> None:
    await cast(Worker, role.worker).drain()


def feed(log: Log, *raws: bytes | None, tenant: str = TENANT) -> None:
    for raw in raws:
        log.put(topics.SYSTEM_LOG.name, tenant.encode(), raw, int(NOON.timestamp() * 1000))


def orders(log: Log) -> list[Order]:
    return [Order.from_bytes(record.value or b"") for record in log.of(topics.THREATS)]


def knocks(log: Log) -> list[Knock]:
    return [Knock.from_bytes(record.value or b"") for record in log.of(topics.KNOCKS)]


async def test_an_event_becomes_its_record_its_order_and_its_knock_with_coordinates_of_its_bytes() -> None:
    log = Log()
    async with classifier(log) as role:
        feed(log, event("e-0"), event("e-1", x="lockdown"), event("e-2", moment="leave"))
        await judge(role)
    first, second = log.classified()
    assert (first.event.uuid, first.event.topic, first.event.offset) == ("e-1", topics.SYSTEM_LOG.name, 1)
    assert first.event.partition == log.of(topics.SYSTEM_LOG)[0].partition
    assert (second.event.uuid, second.moment) == ("e-2", Moment.LEAVE)
    assert [(one.kind, one.person) for one in orders(log)] == [("lockdown", "00uann"), ("close", "00uann")]
    assert [one.person for one in knocks(log)] == ["00uann"]
    assert all(record.key == b"acme:00uann" for record in (*log.of(topics.THREATS), *log.of(topics.KNOCKS)))


async def test_a_silent_event_publishes_nothing() -> None:
    log = Log()
    async with classifier(log) as role:
        feed(log, event("e-1"), event("e-2"))
        before = len(log.order)
        await judge(role)
        assert len(log.order) == before


@pytest.mark.fault(13)
@pytest.mark.parametrize("poison", [b"", b"{", b"[]", b'"x"', b'{"uuid": 5}', b"\xff\xfe", b"null", b"[" * 100_000, None])
async def test_an_event_that_is_none_does_not_stop_the_batch(poison: bytes | None) -> None:
    log = Log()
    async with classifier(log) as role:
        feed(log, event("e-1", x="lockdown"), poison, event("e-2", moment="join", who="00ubob"))
        await judge(role)
        assert await role.lag() == 0
    assert [one.event.uuid for one in log.classified()] == ["e-1", "e-2"]


@pytest.mark.fault(29)
async def test_a_rule_that_raises_is_told_and_the_next_event_is_judged() -> None:
    log = Log()
    async with classifier(log) as role:
        feed(log, event("e-1", x="raise"), event("e-2", x="lockdown"))
        await judge(role)
    (notice,) = log.notices()
    assert notice.facts["event"] == "e-1"
    assert "could not be judged: ZeroDivisionError" in notice.text
    assert [(one.event.uuid, one.moment) for one in log.classified()] == [("e-1", Moment.NONE), ("e-2", Moment.THREAT)]
    assert len(orders(log)) == 1


@pytest.mark.fault(4)
@pytest.mark.parametrize("published", ["2017-09-31T22:23:07.777Z", "2016-12-31T23:59:60Z", "", 5, None, {"a": 1}, "0000-00-00"])
async def test_a_time_that_is_none_does_not_stop_the_stream_and_age_counts_from_receipt(published: object) -> None:
    log = Log()
    async with classifier(log) as role:
        feed(log, event("e-1", x="lockdown", published=published))
        await judge(role)
    (record,) = log.classified()
    assert record.event.published is None
    assert record.decisions[0].response is Response.LOCKDOWN
    assert record.event.received == NOON


async def test_the_brake_is_durable_before_the_order_that_it_let_through() -> None:
    """E9."""
    log = Log()
    async with classifier(log, brakes={"lockdown_count": 2}) as role:
        feed(log, *(event(f"e-{number}", x="lockdown", who=f"00u{number}") for number in range(3)))
        await judge(role)
    written = [record.topic for record in log.order if record.topic in (topics.BRAKES.name, topics.THREATS.name)]
    assert written[0] == topics.BRAKES.name
    state = BrakeState.from_bytes(log.state(topics.BRAKES)[f"lockdown:{TENANT}"])
    assert [who for who, _ in state.locks] == ["00u0", "00u1"]
    assert state.tripped == NOON
    assert [one.kind for one in orders(log)] == ["lockdown", "lockdown", "approve"]
    assert len(log.notices("brake")) == 1


async def test_a_trip_stays_over_a_restart_until_it_is_reset() -> None:
    log = Log()
    async with classifier(log, brakes={"lockdown_count": 0}) as role:
        feed(log, event("e-1", x="lockdown"))
        await judge(role)
    async with classifier(log, brakes={"lockdown_count": 1}) as role:
        feed(log, event("e-2", x="lockdown", who="00ubob"))
        await judge(role)
        assert [one.kind for one in orders(log)] == ["approve", "approve"]
        log.put(topics.BRAKES.name, f"lockdown:{TENANT}".encode(), None)
        feed(log, event("e-3", x="lockdown", who="00ueve"))
        await judge(role)
    assert [one.kind for one in orders(log)] == ["approve", "approve", "lockdown"]
    assert len(log.notices("brake")) == 1


async def test_tenants_have_brakes_of_their_own() -> None:
    log = Log()
    async with classifier(log, brakes={"lockdown_count": 1}) as role:
        for tenant in ("one", "two"):
            feed(log, *(event(f"{tenant}-{number}", x="lockdown", who=f"00u{number}") for number in range(2)), tenant=tenant)
        await judge(role)
    assert sorted((one.tenant, one.kind) for one in orders(log)) == [
        ("one", "approve"),
        ("one", "lockdown"),
        ("two", "approve"),
        ("two", "lockdown"),
    ]


async def test_the_percentage_follows_the_count_that_provisioning_writes() -> None:
    log = Log()
    async with classifier(log, brakes={"lockdown_count": 99, "lockdown_percent": 1}) as role:
        log.put(topics.COUNTS.name, TENANT.encode(), b"600")
        feed(log, *(event(f"e-{number}", x="lockdown", who=f"00u{number}") for number in range(8)))
        await judge(role)
    assert [one.kind for one in orders(log)] == ["lockdown"] * 6 + ["approve"] * 2


@pytest.mark.fault(16)
@pytest.mark.parametrize("writes", range(10))
async def test_killed_anywhere_a_redelivery_gives_the_same_ids_and_nothing_is_lost(writes: int) -> None:
    log = Log()
    feed(log, event("e-1", x="lockdown"), event("e-2", moment="leave"), event("e-3", x="lockdown", who="00ubob"))
    with contextlib.suppress(Killed):
        async with classifier(log, brakes={"lockdown_count": 1}) as role:
            log.kill_after = writes
            await judge(role)
    async with classifier(log, brakes={"lockdown_count": 1}) as role:
        await judge(role)
    whole = Log()
    feed(whole, event("e-1", x="lockdown"), event("e-2", moment="leave"), event("e-3", x="lockdown", who="00ubob"))
    async with classifier(whole, brakes={"lockdown_count": 1}) as role:
        await judge(role)
    for topic in (topics.THREATS, topics.KNOCKS):
        assert {json.loads(one.value or b"")["id"] for one in log.of(topic)} == {
            json.loads(one.value or b"")["id"] for one in whole.of(topic)
        }
    assert {one.id for one in log.classified()} == {one.id for one in whole.classified()}
    assert {(one.kind, one.person) for one in orders(log)} == {("lockdown", "00uann"), ("close", "00uann"), ("approve", "00ubob")}


async def test_an_assignment_while_brakes_are_written_forgets_nothing_and_breaks_nothing() -> None:
    log = Log()
    async with classifier(log) as role:
        feed(log, event("e-1", x="lockdown"), tenant="one")
        feed(log, event("e-2", x="lockdown"), tenant="two")
        waiting = [log.records[topics.SYSTEM_LOG.name, partition] for partition in range(4)]
        records = [record for records in waiting for record in records]
        log.on_write = lambda record: role._judges.clear()
        await (await role.begin(TP(topics.SYSTEM_LOG.name, 0), cast(Any, records)))
    assert set(log.state(topics.BRAKES)) == {"lockdown:one", "lockdown:two"}


@pytest.fixture(scope="module")
def shipped() -> Any:
    from rules.classify import Classifier
    from rules.lifecycle import Lifecycle
    from rules.ruleset import RuleSet

    rules, table = RuleSet.load(None), Lifecycle.load()
    return lambda tenant: Classifier(rules, table)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
_event = st.fixed_dictionaries(
    {"uuid": st.text(min_size=1, max_size=8), "eventType": st.sampled_from(["user.risk.detect", "user.session.start", "group.user_membership.add"])},
    optional=dict.fromkeys(("actor", "target", "outcome", "debugContext", "published", "client", "severity", "transaction"), _json),
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(raws=st.lists(st.binary(max_size=60) | _event.map(lambda one: json.dumps(one).encode()), min_size=1, max_size=8))
def test_whatever_bytes_come_no_exception_escapes_and_what_stands_behind_them_is_judged(raws: list[bytes], shipped: Any) -> None:
    async def play() -> Log:
        log = Log()
        async with classifier(log, shipped(TENANT)) as role:
            feed(log, *raws, event("the-last", eventType="user.lifecycle.create", target=[{"type": "User", "id": "00uann"}]))
            await judge(role)
            assert await role.lag() == 0
        return log

    log = asyncio.run(play())
    assert log.classified()[-1].event.uuid == "the-last"
    assert not [one for one in log.notices() if "could not be judged" in one.text], "a rule of ours raised"


@pytest.fixture
def memory() -> Iterator[None]:
    with in_memory():
        yield


# --- windows and batches that ended ----------------------------------------------------------------------------------------------


def rule_found(who: str, response: Response) -> Finding:
    return Finding(rule="r-w", rule_version="1", title="W", response=response, severity=Severity.HIGH, person=who, scope=Scope.FULL)


async def test_a_window_that_ends_while_no_event_comes_is_judged_with_brakes_and_protection() -> None:
    log, rules = Log(), Rules()
    async with classifier(log, rules, brakes={"lockdown_count": 1}) as role:
        feed(log, event("e-1"))
        await judge(role)
        rules.ended = tuple(rule_found(who, Response.LOCKDOWN) for who in ("00uann", "00ubob", "00uglass"))
        await role._close_windows(NOON)
    assert [(one.person, one.kind) for one in orders(log)] == [("00uann", "lockdown"), ("00ubob", "approve"), ("00uglass", "approve")]


async def test_a_batch_that_was_cancelled_with_its_assignment_holds_up_no_later_one() -> None:
    log = Log()
    async with classifier(log) as role:
        feed(log, event("e-1", x="alert"))
        worker = cast(Worker, role.worker)
        (records,) = [records for (topic, _), records in log.records.items() if topic == topics.SYSTEM_LOG.name and records]
        hang: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        swap(role._publisher, "begin", lambda *a, **k: _given(hang))
        rest = asyncio.ensure_future(await role.begin(TP(topics.SYSTEM_LOG.name, 0), cast(Any, records)))
        rest.cancel()
        await asyncio.gather(rest, return_exceptions=True)
        del role._publisher.begin
        await worker.drain()
        assert await role.lag() == 0
    assert len(log.classified()) == 1


async def _given(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
    return future


async def test_a_defect_in_its_clock_ends_the_role() -> None:
    log = Log()
    async with classifier(log) as role:
        feed(log, event("e-1"))
        await judge(role)
        swap(role.minds, "tick", lambda now: 1 / 0)
        failed = asyncio.create_task(role.failed())
        await cast(FakeClock, role._clock).advance(3)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(failed, 5)
