"""Slack: one message a subject, rewritten in place; Slack being down or us dying delays it, and neither loses nor doubles it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from handlers.messages import Message, render_text
from model.change import ActionStatus
from model.decision import Response, Severity
from model.errors import CredentialsRefused, OutcomeUnknown, PortcullisError, Refused, TemporaryError
from model.records import ActionTaken, Classified, IncidentChanged, Notice, read_record
from model.settings import KafkaSettings
from stream import topics
from stream.broker import Broker, Publisher
from stream.notify import GAP_S, MEND_S, UPDATE_S, Desk, NotifyRole, Pending
from stream.topics import person_key
from tests.handlers.fakes import NOON
from tests.stream.fakes import make_order
from tests.stream.stations import own_topics, until
from tests.support.clock import FakeClock
from tests.support.kafka_fixtures import Kafka

TENANT = "acme"


@dataclass
class Slack:
    """Keeps what was posted. `faults`, taken by posts and updates in order: an error before anything happened, "lost" (it happened, the
    answer did not come), "hang" (it happened, and the answer never comes) or "stuck" (nothing happens, for ever)."""

    messages: dict[str, tuple[str, str]] = field(default_factory=dict)
    updates: list[str] = field(default_factory=list)
    intents: list[str] = field(default_factory=list)
    faults: deque[PortcullisError | str] = field(default_factory=deque)

    async def post(self, channel: str, text: str, blocks: Any, intent: str, *, metadata: Any = None) -> str:
        ts = f"{len(self.messages) + 1}.0"
        await self._effect(lambda: self.messages.update({ts: (intent, render_text(text, blocks))}), intent)
        return ts

    async def update(self, channel: str, ts: str, text: str, blocks: Any, intent: str, *, metadata: Any = None) -> None:
        assert ts in self.messages, "an update of a message that is not there"

        def rewrite() -> None:
            self.messages[ts] = (self.messages[ts][0], render_text(text, blocks))
            self.updates.append(ts)

        await self._effect(rewrite, intent)

    async def find_by_intent(self, channel: str, intent: str, *, oldest: str | None = None) -> str | None:
        return next((ts for ts, (one, _) in self.messages.items() if one == intent), None)

    async def aclose(self) -> None: ...

    async def _effect(self, happen: Any, intent: str) -> None:
        assert intent not in self.intents, "one intent, two calls"
        self.intents.append(intent)
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, PortcullisError):
            raise fault
        if fault == "stuck":
            await asyncio.Event().wait()
        happen()
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "lost":
            raise OutcomeUnknown("no answer")

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.messages.values()]


class Floor:
    """One log, one Slack, one clock; the role may come and go."""

    def __init__(self, broker: Broker, publisher: Publisher) -> None:
        self.broker, self.publisher, self.slack, self.clock = broker, publisher, Slack(), FakeClock(NOON)

    @contextlib.asynccontextmanager
    async def notifier(self) -> AsyncIterator[NotifyRole]:
        role = NotifyRole(self.broker, self.slack, "C1", self.clock)
        await role.start()
        try:
            yield role
        finally:
            await role.stop()

    async def tell(self, record: Any, person: str = "00uann") -> None:
        await self.publisher.send(topics.OUTCOMES, person_key(TENANT, person), record if isinstance(record, bytes) else record.to_bytes())

    async def rows(self) -> dict[str, Any]:
        """The last word on each of our calls."""
        rows: dict[str, Any] = {}
        for value in await self.records(topics.OUTCOMES.name):
            with contextlib.suppress(ValueError):
                told = read_record(value or b"")
                if isinstance(told, ActionTaken):
                    rows[told.action.intent] = told.action
        return rows

    async def open_intents(self) -> int:
        state: dict[bytes, bytes | None] = {}
        for key, value in await self.records(topics.INTENTS.name, keys=True):
            state[key] = value
        return sum(value is not None for value in state.values())

    async def records(self, topic: str, keys: bool = False) -> list[Any]:
        consumer = self.broker.reader()
        await consumer.start()
        tps = self.broker.all_partitions(topic)
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends, found = await consumer.end_offsets(tps), []
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                found += [(one.key, one.value) if keys else one.value for one in records]
        await consumer.stop()
        return found


@pytest.fixture
async def floor(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Floor]:
    """On a real broker, where a member that left is not waited for."""
    own_topics(kafka, monkeypatch, "OUTCOMES", "MESSAGES", "INTENTS")
    broker = Broker(KafkaSettings(bootstrap=kafka.bootstrap, partitions=2))
    await broker._make_topics([topics.OUTCOMES, topics.MESSAGES, topics.INTENTS])
    publisher = Publisher(broker)
    await publisher.start()
    yield Floor(broker, publisher)
    await publisher.stop()


def incident(state: str, number: int = 1, person: str = "00uann") -> IncidentChanged:
    order = make_order(person)
    return IncidentChanged.model_validate(
        {"id": f"i-{number}-{state}", "tenant": TENANT, "at": NOON, "incident": f"inc-{number}", "person": person, "state": state}
        | {"title": "Risk is high", "opened": NOON, "decisions": order.decisions, "event": order.event}
    )


def notice(number: int, severity: Severity = Severity.CRITICAL, code: str = "c", topic: str = "page") -> Notice:
    return Notice.model_validate(
        {"id": f"n-{number}", "tenant": TENANT, "at": NOON, "topic": topic, "severity": severity, "text": f"news {number}"}
        | {"facts": {"code": code}}
    )


def alert(number: int, rule: str = "r-1") -> Classified:
    order = make_order(uuid=f"e-{number}")
    decision = order.decisions[0].model_copy(update={"id": f"d-{number}", "response": Response.ALERT, "rule": rule})
    return Classified.model_validate(
        {"id": f"c-{number}", "tenant": TENANT, "at": NOON, "event": order.event, "moment": "none", "people": (), "decisions": (decision,)}
    )


async def quiet(role: NotifyRole) -> bool:
    return await role.lag() == 0


# --- one message a subject -----------------------------------------------------------------------------------------------------


@pytest.mark.kafka
async def test_an_incident_is_one_message_whatever_becomes_of_it(floor: Floor) -> None:
    async with floor.notifier() as role:
        for state in ("open", "partial", "contained", "released"):
            await floor.tell(incident(state))
            await until(lambda: quiet(role))
    assert len(floor.slack.messages) == 1
    assert set(floor.slack.updates) == {"1.0"}
    assert "released" in floor.slack.texts[0].lower()
    rows = await floor.rows()
    assert {(row.target, row.lane, row.status) for row in rows.values()} == {("slack", "notify", ActionStatus.DONE)}
    assert set(rows) == set(floor.slack.intents), "every call has its row"
    assert await floor.open_intents() == 0


@pytest.mark.kafka
async def test_what_a_message_says_already_is_not_written_again(floor: Floor) -> None:
    """An order that is delivered again after a kill tells its incident again, in a record of its own."""
    async with floor.notifier() as role:
        await floor.tell(incident("open"))
        await until(lambda: quiet(role))
        await floor.tell(incident("open").model_copy(update={"id": "again"}))
        await until(lambda: quiet(role))
        assert (len(floor.slack.messages), floor.slack.updates) == (1, [])
        await floor.tell(incident("contained"))
        await until(lambda: quiet(role))
    assert len(floor.slack.updates) == 1


@pytest.mark.kafka
async def test_two_incidents_are_two_messages_and_never_faster_than_slack_takes_them(floor: Floor) -> None:
    async with floor.notifier() as role:
        for number in range(5):
            await floor.tell(incident("open", number, f"00u{number}"), f"00u{number}")
        await until(lambda: len(floor.slack.messages) == 5)
        await until(lambda: quiet(role))
    assert floor.clock.slept.count(GAP_S) >= 5


@pytest.mark.kafka
async def test_a_restart_says_nothing_again(floor: Floor) -> None:
    async with floor.notifier() as role:
        await floor.tell(incident("open"))
        await floor.tell(incident("contained"))
        await until(lambda: quiet(role))
    said, updates = dict(floor.slack.messages), list(floor.slack.updates)
    async with floor.notifier() as role:
        await until(lambda: quiet(role))
        await floor.tell(incident("contained"))
        await until(lambda: quiet(role))
    assert (floor.slack.messages, floor.slack.updates) == (said, updates)


@pytest.mark.kafka
async def test_bytes_that_are_no_record_do_not_stop_the_rest(floor: Floor) -> None:
    async with floor.notifier() as role:
        await floor.tell(b"{")
        await floor.tell(b"\xff")
        await floor.tell(incident("open"))
        await until(lambda: quiet(role))
    assert len(floor.slack.messages) == 1


@pytest.mark.kafka
async def test_small_news_is_not_said_and_a_dry_alert_is_said_once_an_hour(floor: Floor) -> None:
    async with floor.notifier() as role:
        await floor.tell(notice(1, Severity.LOW, topic="command"))
        for number in range(20):
            await floor.tell(alert(number))
        await until(lambda: quiet(role))
    assert len(floor.slack.messages) == 1


# --- Slack is down, or says no ------------------------------------------------------------------------------------------------------


@pytest.mark.kafka
@pytest.mark.fault(49)
async def test_slack_being_down_delays_and_loses_nothing_and_holds_the_offset(floor: Floor) -> None:
    floor.clock = FakeClock(NOON, auto=False)
    async with floor.notifier() as role:
        floor.slack.faults.extend([TemporaryError("503", 7)] * 3)
        await floor.tell(incident("open"))
        await until(lambda: floor.clock.slept)
        assert floor.clock.slept == [7.0]
        await floor.tell(incident("contained"))
        assert role._consumer is not None
        (tp,) = [tp for tp in role._consumer.assignment() if await role._consumer.position(tp)]
        await until(lambda: _position(role, tp, 2))
        assert await role._consumer.committed(tp) in (None, 0), "what is not said is not committed"
    async with floor.notifier() as role:
        for _ in range(4):
            await until(lambda: floor.clock.sleepers or floor.slack.messages)
            await floor.clock.advance(70)
        await until(lambda: quiet(role))
    assert len(floor.slack.messages) == 1
    assert "contained" in floor.slack.texts[0].lower()


async def _position(role: NotifyRole, tp: TopicPartition, at: int) -> bool:
    assert role._consumer is not None
    return bool(await role._consumer.position(tp) >= at)


@pytest.mark.parametrize(
    "refusal", [CredentialsRefused("token_revoked", "token_revoked"), *(Refused(code, code) for code in ("not_in_channel", "is_archived"))]
)
@pytest.mark.kafka
async def test_a_wrong_token_or_channel_waits_for_a_human_and_drops_nothing(floor: Floor, refusal: PortcullisError) -> None:
    async with floor.notifier() as role:
        floor.slack.faults.extend([refusal] * 3)
        await floor.tell(incident("open"))
        await until(lambda: floor.slack.messages)
        await until(lambda: quiet(role))
    assert floor.clock.slept[:3] == [MEND_S] * 3
    assert len(floor.slack.messages) == 1
    statuses = sorted(row.status for row in (await floor.rows()).values())
    assert statuses == [ActionStatus.DONE, *[ActionStatus.FAILED] * 3]


@pytest.mark.kafka
async def test_a_message_that_slack_will_never_take_does_not_hold_up_the_next(floor: Floor) -> None:
    async with floor.notifier() as role:
        floor.slack.faults.append(Refused("invalid_blocks", "invalid_blocks"))
        await floor.tell(incident("open", 1))
        await until(lambda: floor.slack.intents)
        await floor.tell(incident("open", 2))
        await until(lambda: quiet(role))
    assert len(floor.slack.messages) == 1
    assert await floor.open_intents() == 0


@pytest.mark.kafka
async def test_an_answer_that_was_lost_is_read_back_and_no_second_message(floor: Floor) -> None:
    """35, D25."""
    async with floor.notifier() as role:
        floor.slack.faults.append("lost")
        await floor.tell(incident("open"))
        await until(lambda: quiet(role))
        await floor.tell(incident("contained"))
        await until(lambda: quiet(role))
    assert len(floor.slack.messages) == 1
    assert "contained" in floor.slack.texts[0].lower()
    assert {row.status for row in (await floor.rows()).values()} == {ActionStatus.DONE}
    assert await floor.open_intents() == 0


# --- we die --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.kafka
async def test_a_post_that_a_crash_left_open_is_found_by_its_metadata_or_made_once(floor: Floor, arrived: bool) -> None:
    floor.slack.faults.append("hang" if arrived else "stuck")
    async with floor.notifier():
        await floor.tell(incident("open"))
        await until(lambda: floor.slack.intents)
    assert len(floor.slack.messages) == arrived
    async with floor.notifier() as role:
        await until(lambda: quiet(role))
        await until(lambda: floor.slack.messages)
        await floor.tell(incident("contained"))
        await until(lambda: quiet(role))
    assert len(floor.slack.messages) == 1
    rows = await floor.rows()
    assert rows[floor.slack.intents[0]].status is (ActionStatus.DONE if arrived else ActionStatus.FAILED)
    assert {row.status for row in rows.values()} <= {ActionStatus.DONE, ActionStatus.FAILED}
    assert await floor.open_intents() == 0


@pytest.mark.kafka
async def test_a_rewriting_that_a_crash_left_open_is_made_at_most_once_more_and_its_row_is_closed(floor: Floor) -> None:
    async with floor.notifier() as role:
        await floor.tell(incident("open"))
        await until(lambda: quiet(role))
        floor.slack.faults.append("hang")
        await floor.tell(incident("contained"))
        await until(lambda: floor.slack.updates)
    async with floor.notifier() as role:
        await until(lambda: quiet(role))
    assert len(floor.slack.messages) == 1
    assert len(floor.slack.updates) == 2
    assert (await floor.rows())[floor.slack.intents[1]].status is ActionStatus.UNKNOWN
    assert await floor.open_intents() == 0


# --- the desk, pure -----------------------------------------------------------------------------------------------------------------


TPS = [TopicPartition("t", 0), TopicPartition("t", 1)]


def pending(subject: str, number: int, tp: TopicPartition = TPS[0]) -> Pending:
    return Pending(subject, Message(f"{number}", ()), TENANT, "", None, {tp: number}, 1, f"n-{number}")


def test_what_is_urgent_is_said_first_and_what_only_has_to_be_told_twice_a_minute() -> None:
    now = 0.0
    desk = Desk(lambda: now)
    desk.fold(pending("told", 1), urgent=False)
    desk.fold(pending("incident", 2), urgent=True)
    first, second = desk.next(), None
    assert first is not None
    assert first.subject == "incident"
    desk.said(first)
    second = desk.next()
    assert second is not None
    assert second.subject == "told"
    desk.said(second)
    desk.fold(pending("told", 3), urgent=False)
    assert desk.next() is None
    assert desk.wait_s() == UPDATE_S
    now = UPDATE_S
    third = desk.next()
    assert third is not None
    assert third.last == "n-3"


def test_what_came_while_it_was_said_is_said_next_and_counted_once() -> None:
    desk = Desk(lambda: 0.0)
    desk.fold(pending("s", 1), urgent=True)
    saying = desk.next()
    assert saying is not None
    desk.fold(pending("s", 2), urgent=True)
    desk.said(saying)
    left = desk.next()
    assert left is not None
    assert (left.last, left.count) == ("n-2", 1)


@given(
    told=st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from(TPS)), max_size=20),
    pauses=st.lists(st.integers(0, 20), max_size=6),
)
def test_no_offset_is_let_go_before_its_subject_was_said(told: list[tuple[str, bool, TopicPartition]], pauses: list[int]) -> None:
    desk = Desk(lambda: 1e9)
    waiting: dict[TopicPartition, set[tuple[int, str]]] = {tp: set() for tp in TPS}
    for number, (subject, urgent, tp) in enumerate(told):
        subject = f"{subject}{'!' if urgent else ''}"
        desk.fold(pending(subject, number, tp), urgent=urgent)
        waiting[tp].add((number, subject))
        if number in pauses and (one := desk.next()) is not None:
            desk.said(one)
            for offsets in waiting.values():
                offsets -= {entry for entry in offsets if entry[1] == one.subject}
        firsts = desk.first_offsets()
        for tp2, offsets in waiting.items():
            if offsets:
                assert firsts[tp2] <= min(at for at, _ in offsets)
            else:
                assert tp2 not in firsts
    assert timedelta(seconds=UPDATE_S) > timedelta(seconds=GAP_S)
