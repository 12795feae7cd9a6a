"""Who is meant stands in what people read, from the first word on, and no vendor is asked for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from handlers.messages import render_text
from model.decision import Moment, Response
from model.records import Classified
from stream import notify, topics
from stream.notify import NotifyRole
from tests.handlers.fakes import TENANT
from tests.stream import memory
from tests.stream.fakes import ANN, World, later, make_order, work
from tests.support.clock import FakeClock

pytestmark = pytest.mark.usefixtures("memory")
PLACE = TopicPartition("identity.outcomes", 0)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> NotifyRole:
    for name in ("Publisher", "State"):
        monkeypatch.setattr(notify, name, getattr(memory, name))
    return NotifyRole(cast(Any, memory.Log()), cast(Any, None), "#alarms", clock)


def said(desk: NotifyRole, raw: bytes) -> str:
    desk._fold(PLACE, SimpleNamespace(value=raw, offset=0))
    one = desk._desk.next()
    assert one is not None
    desk._desk.said(one)
    return render_text(one.message.text, one.message.blocks)


def named(kind: str = "lockdown") -> Any:
    order = make_order(ANN, kind=kind)
    (decision,) = order.decisions
    return order.model_copy(update={"decisions": (decision.model_copy(update={"who": "Ann Lee, ann@acme.test"}),)})


@pytest.mark.parametrize(("kind", "states"), [("lockdown", ["open", "contained"]), ("approve", ["pending_approval"])])
async def test_an_incident_names_the_person_in_every_state(desk: NotifyRole, kind: str, states: list[str]) -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        world.log.put(topics.THREATS.name, topics.person_key(TENANT, ANN), named(kind).to_bytes())
        await work(role)
    told = world.log.incidents()
    assert [one.state for one in told] == states
    for one in told:
        text = said(desk, one.to_bytes())
        assert f"Ann Lee, ann@acme.test ({ANN})" in text


async def test_so_does_what_pages_somebody(desk: NotifyRole) -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        world.log.put(topics.THREATS.name, topics.person_key(TENANT, ANN), named().to_bytes())
        await work(role)
        world.box.accounts["200"].active = True
        await later(world, role, 61)
    (notice,) = world.log.notices("drift")
    assert "Ann Lee, ann@acme.test" in said(desk, notice.to_bytes())


async def test_so_does_an_alert(desk: NotifyRole) -> None:
    order = named()
    alert = order.decisions[0].model_copy(update={"response": Response.ALERT})
    record = Classified(id="c", tenant=TENANT, at=alert.decided, event=order.event, moment=Moment.NONE, people=(ANN,), decisions=(alert,))
    assert f"Ann Lee, ann@acme.test ({ANN})" in said(desk, record.to_bytes())
