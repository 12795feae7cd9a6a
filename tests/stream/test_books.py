"""What the lanes remember: handled events, Holds by account, links by owner, intents that a kill leaves open and never half open."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.change import Action, ActionStatus
from model.errors import FaultError, TemporaryError
from model.person import HoldState, Link
from model.records import IncidentChanged
from stream import topics
from stream.books import REMEMBER, HoldIndex, Holds, KafkaJournal, Latch, Links
from tests.handlers.fakes import NOON, TENANT, Killed, hold
from tests.stream.fakes import ANN
from tests.stream.memory import Follower, Log, Publisher, State
from tests.support.clock import FakeClock


def action(intent: str = "i-1", status: ActionStatus = ActionStatus.INTENDED, **facts: Any) -> Action:
    base = {"intent": intent, "lane": "provision", "tenant": TENANT, "person": ANN, "target": "box", "change": "create x", "status": status}
    return Action.model_validate(base | facts)


# --- latches --------------------------------------------------------------------------------------------------------------------


def test_a_handled_event_is_remembered_longer_than_the_log_keeps_it() -> None:
    """S3."""
    latch = Latch().with_handled("lockdown:e-1", NOON)
    week = NOON + timedelta(days=8)
    assert timedelta(milliseconds=topics.SYSTEM_LOG.retention_ms) < REMEMBER
    assert latch.with_handled("lockdown:e-2", week).has_handled("lockdown:e-1")
    assert not latch.has_handled("close:e-1")
    assert not latch.with_handled("lockdown:e-2", NOON + REMEMBER).has_handled("lockdown:e-1")


@given(uuids=st.lists(st.text(max_size=8), max_size=30))
def test_every_mark_stands_once_and_reads_back(uuids: list[str]) -> None:
    latch = Latch()
    for uuid in uuids:
        latch = latch.with_handled(uuid, NOON)
    again = Latch.from_bytes(latch.to_bytes())
    assert [one for one, _ in again.handled] == list(dict.fromkeys(reversed(uuids)))[::-1]


def test_a_hold_is_rewritten_in_place_and_released_is_a_state() -> None:
    """D15: never a tombstone."""
    latch = Latch().with_hold(hold("h1")).with_hold(hold("h2")).with_hold(hold("h1", state="released"))
    assert [one.id for one in latch.open_holds] == ["h2"]
    assert {one.id: one.state for one in latch.holds} == {"h1": HoldState.RELEASED, "h2": HoldState.OPEN}


def test_a_latch_does_not_grow_with_a_persons_history() -> None:
    latch = Latch()
    for number in range(200):
        incident = IncidentChanged(
            id=f"{number}", tenant=TENANT, at=NOON, incident=f"inc-{number}", person=ANN, state="contained", title="T" * 50
        )
        latch = latch.with_incident(incident)
    assert len(latch.incidents) <= 25
    assert latch.incident("inc-199") is not None
    for number in range(2000):
        latch = latch.with_handled(f"lockdown:e-{number}", NOON)
    assert len(latch.to_bytes()) < 200_000


# --- Holds by account -----------------------------------------------------------------------------------------------------------------


async def test_holds_are_found_by_the_accounts_that_they_cover_also_across_tenants() -> None:
    """D18: two tenants may share one Box."""
    log, index = Log(), HoldIndex()
    follower = Follower(log, topics.HOLDS, index.changed)
    await follower.start()
    holds = Holds(cast(Any, follower), index)
    covering = hold("h1", ANN, accounts=[("box", "200"), ("okta", ANN)])
    log.put(topics.HOLDS.name, b"other:00ubob", Latch(holds=(hold("h2", "00ubob", tenant="other", accounts=[("box", "200")]),)).to_bytes())
    log.put(topics.HOLDS.name, f"{TENANT}:{ANN}".encode(), Latch(holds=(covering,)).to_bytes())
    assert {one.id for one in await holds.covers_account("box", "200", fresh=True)} == {"h1", "h2"}
    assert await holds.covers_account("box", "201") == ()
    assert [one.id for one in await holds.open_holds(TENANT, ANN, fresh=True)] == ["h1"]
    log.put(
        topics.HOLDS.name, f"{TENANT}:{ANN}".encode(), Latch(holds=(covering.model_copy(update={"state": HoldState.RELEASED}),)).to_bytes()
    )
    assert {one.id for one in await holds.covers_account("box", "200")} == {"h2"}
    log.put(topics.HOLDS.name, b"other:00ubob", None)
    assert await holds.covers_account("box", "200") == ()


async def test_holds_that_cannot_be_known_now_are_a_reason_to_wait() -> None:
    """D11."""
    log, index = Log(), HoldIndex()
    follower = Follower(log, topics.HOLDS, index.changed)
    await follower.start()
    holds = Holds(cast(Any, follower), index)
    follower.dead = FaultError("gone")
    with pytest.raises(TemporaryError, match="Holds cannot be known now"):
        await holds.open_holds(TENANT, ANN, fresh=True)
    with pytest.raises(TemporaryError):
        await holds.covers_account("box", "200")


# --- links -----------------------------------------------------------------------------------------------------------------------------


async def test_an_account_has_the_owner_whose_link_is_newest_and_an_old_link_owns_nothing() -> None:
    log = Log()
    state = State(log, Publisher(log), topics.LINKS, lambda key, value: links.changed(key, value))
    links = Links(cast(Any, state))
    await state.start()

    def link(account: str, person: str = ANN) -> Link:
        return Link(tenant=TENANT, person=person, target="box", account=account, made_by="link:cara", at=NOON)

    await links.make(link("200"))
    assert (await links.find(TENANT, ANN, "box")) == link("200")
    assert (await links.owner("box", "200")) == link("200")
    await links.make(link("300"))
    assert await links.owner("box", "200") is None
    assert await links.owner("box", "300") == link("300")
    await links.make(link("", "00ubob"))
    assert await links.owner("box", "") is None, "a wish without an account owns nothing"
    assert await links.owner("okta", "300") is None


# --- the journal -------------------------------------------------------------------------------------------------------------------------


class Office:
    def __init__(self) -> None:
        self.log = Log()

    async def journal(self, lane: str = "provision") -> KafkaJournal:
        self.log.dead = False
        publisher = Publisher(self.log)
        state = State(self.log, publisher, topics.INTENTS)
        await state.start()
        return KafkaJournal(cast(Any, publisher), cast(Any, state), lane, FakeClock(NOON))


async def test_an_intent_is_open_until_its_answer_and_closed_by_it() -> None:
    office = Office()
    journal = await office.journal()
    await journal.intended(action())
    assert [one.intent for one in journal.open(TENANT, ANN)] == ["i-1"]
    assert journal.people_with_open() == {(TENANT, ANN)}
    await journal.answered(action(status=ActionStatus.UNKNOWN))
    assert journal.open(TENANT, ANN), "an outcome that nobody knows is to be read back"
    await journal.answered(action(status=ActionStatus.DONE))
    assert journal.open(TENANT, ANN) == []
    assert office.log.rows["i-1"].status is ActionStatus.DONE
    assert office.log.state(topics.INTENTS) == {}


async def test_what_will_never_be_known_can_be_closed() -> None:
    office = Office()
    journal = await office.journal()
    await journal.intended(action())
    await journal.answered(action(status=ActionStatus.UNKNOWN))
    await journal.close(action(status=ActionStatus.UNKNOWN))
    await journal.close(action(status=ActionStatus.UNKNOWN))
    assert office.log.state(topics.INTENTS) == {}
    assert office.log.rows["i-1"].status is ActionStatus.UNKNOWN


async def test_lanes_do_not_see_one_anothers_intents_nor_people_whose_names_begin_alike() -> None:
    office = Office()
    journal, other = await office.journal(), await office.journal("lockdown")
    await journal.intended(action())
    assert other.open(TENANT, ANN) == []
    assert other.all_open() == []
    assert journal.open(TENANT, ANN[:-1]) == []
    assert journal.open(TENANT[:-1], ANN) == []


@pytest.mark.parametrize("writes", range(5))
async def test_a_kill_between_its_writes_leaves_no_row_that_nobody_closes(writes: int) -> None:
    """E1: whatever stands `intended` in the trail stands open for whoever comes next."""
    office = Office()
    journal = await office.journal()
    office.log.kill_after = writes
    with contextlib.suppress(Killed):
        await journal.intended(action())
        await journal.answered(action(status=ActionStatus.DONE))
    office.log.kill_after = None
    rows = office.log.rows
    open_now = {one.intent for one in (await office.journal()).all_open()}
    assert {intent for intent, row in rows.items() if row.status is ActionStatus.INTENDED} <= open_now
