"""The provision lane: a knock is a look at the present; what cannot be done now is scheduled, what cannot be done at all is parked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest
from faust.types import TP

from handlers.protected import load_protected
from model.change import ActionStatus
from model.decision import Moment
from model.errors import FaultError, Fenced, PermanentError, TemporaryError
from model.person import PersonStatus
from model.records import EventRef, Knock, Order
from stream import topics
from stream.books import Latch
from stream.provision import ProvisionRole
from stream.topics import person_key
from tests.handlers.fakes import NOON, TENANT, Fault, hold, person, swap
from tests.stream import memory
from tests.stream.fakes import ANN, World, killed, later, make_command, settled, until, work

pytestmark = pytest.mark.usefixtures("memory")

SALES = {("group", "Everyone"): "", ("folder", "Company"): "viewer", ("group", "Sales"): "", ("folder", "Sales"): "editor"}
FINANCE = {("group", "Everyone"): "", ("folder", "Company"): "viewer", ("group", "Finance"): "", ("folder", "Finance"): "editor"}
FRESH = NOON + timedelta(seconds=10)


def account(world: World, who: str = ANN) -> Any:
    (found,) = [state for state in world.box.accounts.values() if state.login == f"{who}@acme.test"]
    return found


def knocks(world: World) -> list[Knock]:
    return [Knock.from_bytes(record.value or b"") for record in world.log.of(topics.KNOCKS)]


def put_hold(world: World, **facts: Any) -> None:
    latch = Latch(holds=(hold("h1", ANN, **facts),))
    world.log.put(topics.HOLDS.name, person_key(TENANT, ANN), latch.to_bytes())


# --- looking --------------------------------------------------------------------------------------------------------------


async def test_a_knock_brings_the_account_to_what_policy_asks() -> None:
    world = World()
    async with world.provision() as role:
        await world.knock()
        await work(role)
    assert account(world).grants == SALES
    assert {(row.status, row.lane, row.event_uuid) for row in world.log.rows.values()} == {(ActionStatus.DONE, "provision", "e-1")}
    assert all(row.observed for row in world.log.rows.values())


async def test_several_knocks_in_a_batch_are_one_look() -> None:
    world = World()
    async with world.provision() as role:
        await world.knock(uuid=None)
        await work(role)
        before = world.box.looks
        await world.knock(uuid=None)
        await work(role)
        one = world.box.looks - before
        for _ in range(20):
            await world.knock(uuid=None)
        await work(role)
        assert world.box.looks - before == 2 * one


async def test_knocks_that_come_again_or_late_change_nothing() -> None:
    world = World()
    async with world.provision() as role:
        await world.knock()
        await work(role)
        effects = list(world.box.effects)
        await world.knock()
        await world.knock(uuid="e-0")
        await work(role)
        await later(world, role, 100)
    assert world.box.effects == effects


async def test_a_look_that_finds_nothing_newer_than_its_event_is_made_once_more_and_only_once() -> None:
    """D6: the directory lags the log."""
    world = World()
    async with world.provision() as role:
        await world.knock(uuid=None)
        await work(role)
        world.clock.shift(60)
        await world.knock()
        await work(role)
        entry = world.due()["box"]
        assert (entry.kind, (entry.due - world.clock.now()).total_seconds()) == ("look", 5)
        world.directory.set(ANN, department="Finance")
        await later(world, role, 6)
        assert account(world).grants == FINANCE
        assert world.due() == {}


async def test_a_person_who_moved_on_from_what_is_parked_is_looked_at_once_the_directory_knows() -> None:
    """D6: the first look still sees what the vendor refused, and parks it again; nobody else would come."""
    world = World()
    async with world.provision() as role:
        world.box.refuses["grant folder Sales"] = "forbidden"
        await world.knock(uuid=None)
        await work(role)
        assert world.due()["box"].kind == "parked"
        await world.knock(uuid="moved")
        await work(role)
        assert world.due()["box"].kind == "parked"
        world.directory.set(ANN, department="Finance")
        await later(world, role, 6)
        assert world.due() == {}
    assert account(world).grants == FINANCE


async def test_whoever_is_no_matter_of_policy_yet_is_looked_at_once_the_directory_knows() -> None:
    world = World(person(ANN, status=PersonStatus.STAGED))
    async with world.provision() as role:
        await world.knock(uuid="activated")
        await work(role)
        assert world.box.accounts == {}
        world.directory.set(ANN, status=PersonStatus.ACTIVE)
        await later(world, role, 6)
        assert world.due() == {}
    assert account(world).grants == SALES


async def test_a_knock_merged_into_a_retry_that_comes_too_soon_is_looked_at_once_more() -> None:
    world = World(settings={"retry_first_s": 2})
    async with world.provision() as role:
        world.box.look_faults.append(TemporaryError("500"))
        await world.knock(uuid=None)
        await work(role)
        await world.knock(uuid="moved")
        await work(role)
        await later(world, role, 2.1)
        assert account(world).grants == SALES
        world.directory.set(ANN, department="Finance")
        await later(world, role, 4)
        assert world.due() == {}
    assert account(world).grants == FINANCE


# --- what fails -------------------------------------------------------------------------------------------------------------


async def test_a_temporary_failure_is_retried_later_and_the_partition_goes_on() -> None:
    world = World(person(ANN), person("00ubob"))
    async with world.provision() as role:
        world.box.faults.append("429")
        await world.knock(uuid=None)
        await work(role)
        entry = world.due()["box"]
        assert (entry.kind, entry.attempts) == ("retry", 1)
        assert (entry.due - world.clock.now()).total_seconds() >= 7
        await world.knock("00ubob", uuid=None)
        await work(role)
        assert account(world, "00ubob").grants == SALES
        await later(world, role, 11)
    assert account(world).grants == SALES
    assert world.due() == {}


async def test_knocks_merge_into_the_open_entry_and_do_not_hurry_it() -> None:
    """D24: what is retried is a look, so whatever happened meanwhile is seen then."""
    world = World()
    async with world.provision() as role:
        world.box.look_faults.append(TemporaryError("500", 30))
        await world.knock(uuid=None)
        await work(role)
        entry = world.due()["box"]
        looks = world.box.looks
        world.directory.set(ANN, department="Finance")
        for number in range(5):
            await world.knock(uuid=f"e-{number}")
        await work(role)
        assert world.box.looks == looks
        assert world.due() == {"box": entry}
        await later(world, role, 31)
    assert account(world).grants == FINANCE


async def test_a_retry_survives_the_death_of_its_worker() -> None:
    world = World()
    async with world.provision() as role:
        world.box.look_faults.append(TemporaryError("500", 30))
        await world.knock(uuid=None)
        await work(role)
    world.clock.shift(31)
    async with world.provision() as role:
        await settled(role)
    assert account(world).grants == SALES
    assert world.due() == {}


async def test_what_never_succeeds_is_parked_with_its_knock_told_once_and_redriven() -> None:
    """P3."""
    world = World()
    async with world.provision() as role:
        world.box.refuses["grant folder Sales"] = "forbidden"
        knock = await world.knock(uuid=None)
        await work(role)
        entry = world.due()["box"]
        assert (entry.kind, entry.code) == ("parked", "forbidden")
        assert Knock.from_bytes(entry.original) == knock
        await world.knock(uuid="e-2")
        await work(role)
        assert len(world.log.notices("parked")) == 1, "nobody is told twice that a thing is parked"
        assert f"portcullis parked redrive '{entry.key}'" in world.log.notices("parked")[0].remedy
        await later(world, role, 100_000)
        assert world.due()["box"].kind == "parked", "what is parked waits for a human"
        world.box.refuses.clear()
        await world.command("redrive", lane="provision", slot="box")
        await world.command("redrive", lane="provision", slot="box")
        await work(role)
    assert account(world).grants == SALES
    assert world.due() == {}


async def test_a_parked_change_that_a_later_look_made_good_is_parked_no_longer() -> None:
    world = World()
    async with world.provision() as role:
        world.box.refuses["grant folder Sales"] = "forbidden"
        await world.knock(uuid=None)
        await work(role)
        world.box.refuses.clear()
        await world.knock(uuid=None)
        await work(role)
    assert world.due() == {}


async def test_after_long_enough_a_retry_is_given_up_and_parked() -> None:
    world = World()
    async with world.provision() as role:
        world.box.look_faults.extend([TemporaryError("500")] * 200)
        await world.knock(uuid=None)
        await work(role)
        for _ in range(40):
            await later(world, role, 101)
        entry = world.due()["box"]
    assert (entry.kind, entry.reason) == ("parked", "given up: 500")
    assert len(world.log.notices("parked")) == 1


async def test_protected_people_and_an_untrusted_list_take_nothing_away() -> None:
    world = World(person("00ubreakglass"))
    async with world.provision() as role:
        await world.knock("00ubreakglass", uuid=None)
        await work(role)
        world.directory.set("00ubreakglass", status=PersonStatus.DEPROVISIONED)
        await world.knock("00ubreakglass", uuid=None)
        await work(role)
        assert account(world, "00ubreakglass").active
        assert world.due()["box"].code == "protected"
    world.protected = load_protected(None)
    async with world.provision() as role:
        await world.command("redrive", "00ubreakglass", lane="provision", slot="box")
        await work(role)
        assert world.due()["box"].code == "protected_list"
    assert account(world, "00ubreakglass").active


@pytest.mark.fault(38)
async def test_a_look_that_outlives_its_batch_is_due_no_sooner_than_the_calls_timeout() -> None:
    world = World(settings={"batch_patience_s": 0.05})
    world.box.look_hangs = True
    async with world.provision() as role:
        await world.knock(uuid=None)
        await work(role)
        entry = world.due()["box"]
        assert (entry.due - world.clock.now()).total_seconds() == pytest.approx(15, abs=1)
        assert await role.worker.lag() == 0, "the batch is acknowledged"
        world.box.look_hangs = False
        await later(world, role, 16)
    assert account(world).grants == SALES


async def test_a_flood_of_people_goes_on_by_the_schedule_and_lets_the_log_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No place is free: the batches are acknowledged, each person is one entry, and everybody is looked at in the end."""
    monkeypatch.setattr(ProvisionRole, "queue_s", 0.02)
    many = [f"00u{number}" for number in range(3)]
    world = World(*map(person, many))
    async with world.provision() as role:
        for _ in range(role.at_once):
            await role._fresh.acquire()
        role.schedule._at_once = 0
        for _ in range(2):
            for number, one in enumerate(many):
                await world.knock(one, uuid=f"e-{number}")
        link = await world.command("link", many[0], target="box", account="7", login="a")
        await work(role)
        assert await role.worker.lag() == 0
        assert set(world.due()) == {*(f"item.crowded.{one}" for one in many), f"item.{link.id}"}
        assert {(entry.kind, entry.attempts) for slot, entry in world.due().items() if "crowded" in slot} == {("look", 0)}
        role.schedule._at_once = role.at_once
        await later(world, role, 0)
        await later(world, role, 60)
        assert world.due() == {}
    assert all(account(world, one).grants == SALES for one in many[1:])
    assert [one.facts["command"] for one in world.log.notices("command")] == [link.id]


async def test_an_old_event_is_not_looked_at_twice() -> None:
    """The directory lags its log by seconds: what happened hours before it was received stands there already (D6)."""
    world = World()
    async with world.provision() as role:
        event = EventRef(uuid="e-1", event_type="t", received=world.clock.now(), published=world.clock.now() - timedelta(hours=3))
        knock = Knock(id="k", tenant=TENANT, person=ANN, moment=Moment.JOIN, event=event)
        world.log.put(topics.KNOCKS.name, person_key(TENANT, ANN), knock.to_bytes())
        await work(role)
        assert world.due() == {}
    assert account(world).grants == SALES


async def test_a_command_behind_a_slow_look_is_not_forgotten_and_one_before_it_not_repeated() -> None:
    world = World()
    async with world.provision() as role:
        done = await world.command("link", target="box", account="7", login="a")
        await work(role)
        other = make_command("link", id="c-2", target="box", account="8", login="a")
        await role.outlived(TENANT, ANN, [done, other])
        assert set(world.due()) == {"item.c-2"}
        await later(world, role, 16)
        assert world.due() == {}
    assert [one.facts["command"] for one in world.log.notices("command")] == ["c-1", "c-2"]


# --- what dies --------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(30)
@pytest.mark.parametrize("writes", range(1, 26))
async def test_killed_at_any_write_the_next_owner_brings_it_to_the_same_end(writes: int) -> None:
    world = World()
    await world.knock(uuid=None)
    await killed(world, world.provision(), writes)
    async with world.provision() as role:
        await work(role)
        await later(world, role, 1000)
    assert account(world).grants == SALES
    labels = [one.change.label for one in world.box.effects if one.changed]
    assert len(labels) == len(set(labels)), "an effect was made twice"
    assert not [row for row in world.log.rows.values() if row.status is ActionStatus.INTENDED]
    assert not world.log.state(topics.INTENTS)
    assert world.due() == {}


@pytest.mark.fault(35)
async def test_an_answer_that_was_lost_is_one_effect() -> None:
    world = World()
    world.box.faults.append("timeout_after")
    async with world.provision() as role:
        await world.knock(uuid=None)
        await work(role)
        await later(world, role, 1000)
    assert account(world).grants == SALES
    assert [label for label in world.box.labels() if label.startswith("create")] == [f"create {ANN}@acme.test"]
    assert not world.log.state(topics.INTENTS)


@pytest.mark.fault(35)
@pytest.mark.parametrize("lost", ["kill_before", "timeout_before"])
async def test_a_call_that_lands_after_it_was_read_back_is_found_by_one_more_look(lost: Fault) -> None:
    world = World()
    async with world.provision() as role:
        await world.knock(uuid=None)
        await work(role)
    world.directory.set(ANN, department="Finance")
    await world.knock(uuid=None)
    world.box.faults.extend([None, None, lost])
    await killed(world, world.provision())
    world.directory.set(ANN, department="Sales")
    await world.knock(uuid=None)
    async with world.provision() as role:
        await work(role)
        await later(world, role, 10)
        assert account(world).grants == SALES
        assert [row.change for row in world.log.rows.values() if row.status is ActionStatus.FAILED] == ["grant folder Finance"]
        account(world).grants["folder", "Finance"] = "editor"  # only now the vendor works on it
        await later(world, role, 21)
    assert account(world).grants == SALES
    assert world.due() == {}


async def test_an_intent_that_leaves_no_trace_is_closed_for_good_not_read_back_for_ever() -> None:
    world = World()
    async with world.provision() as role:
        await world.knock(uuid=None)
        await work(role)
    world.directory.set(ANN, status=PersonStatus.SUSPENDED)
    await world.knock(uuid=None)
    world.box.faults.extend([None, "kill_after"])
    await killed(world, world.provision())
    (row,) = [row for row in world.log.rows.values() if row.status is ActionStatus.INTENDED]
    assert row.change.startswith("end_sessions")
    async with world.provision() as role:
        await work(role)
        assert world.log.rows[row.intent].status is ActionStatus.UNKNOWN
        assert not world.log.state(topics.INTENTS)
        said = len(world.log.order)
        await world.knock(uuid=None)
        await work(role)
    assert [one for one in world.log.rows.values() if one.intent == row.intent] == [world.log.rows[row.intent]]
    assert len(world.log.order) - said <= 2, "every knock read the old row back again"


# --- Holds ------------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(39)
async def test_nothing_is_opened_under_a_hold() -> None:
    world = World()
    put_hold(world)
    async with world.provision() as role:
        await world.knock(uuid=None)
        await work(role)
    assert world.box.effects == []
    assert world.due() == {}, "the release knocks; nothing waits"


async def test_a_hold_that_appears_while_access_is_opened_orders_containment_again() -> None:
    """D11: the last word is lockdown's."""
    world = World()
    world.box.on_call = lambda change: put_hold(world, accounts=[("box", "101")]) if change.kind.value == "grant" else None
    async with world.provision() as role:
        await world.knock(uuid=None)
        await work(role)
    orders = [Order.from_bytes(record.value or b"") for record in world.log.of(topics.THREATS)]
    assert [(one.kind, one.person) for one in orders] == [("again", ANN)]


async def test_a_dead_follower_of_the_holds_opens_nothing_and_ends_the_role() -> None:
    world = World()
    async with world.provision() as role:
        cast(memory.Follower, role.followers()[0]).dead = RuntimeError("gone")
        await world.knock(uuid=None)
        await work(role)
        assert world.box.effects == []
        assert world.due()["box"].kind == "retry"
        with pytest.raises(FaultError, match="follower died"):
            await role.failed()


# --- leavers ------------------------------------------------------------------------------------------------------------------


async def leaver(world: World, **facts: Any) -> None:
    world.directory.set(ANN, status=PersonStatus.DEPROVISIONED, status_changed=world.clock.now(), **facts)
    account(world).content = 3


async def test_content_is_handed_over_after_its_time_also_by_a_worker_that_was_not_there() -> None:
    boss = person("00uboss")
    world = World(person(ANN, manager_id="00uboss"), boss)
    async with world.provision() as role:
        await world.knock("00uboss", uuid=None)
        await world.knock(uuid=None)
        await work(role)
        await leaver(world)
        await world.knock(uuid=None)
        await work(role)
        entry = world.due()["box"]
        assert (entry.kind, account(world).content) == ("look", 3)
        assert (entry.due - world.clock.now()).total_seconds() == pytest.approx(3600, abs=1)
    world.clock.shift(3601)
    async with world.provision() as role:
        await settled(role)
    assert (account(world).content, account(world, "00uboss").content) == (0, 3)


async def test_content_of_somebody_without_a_manager_is_a_case_for_a_human() -> None:
    world = World()
    async with world.provision() as role:
        await world.knock(uuid=None)
        await work(role)
        await leaver(world)
        world.clock.shift(3601)
        await world.knock(uuid=None)
        await work(role)
    (case,) = world.log.notices("case")
    assert case.facts["code"] == "no_manager"
    assert "managerId" in case.remedy
    assert account(world).content == 3


# --- brakes -------------------------------------------------------------------------------------------------------------------


async def test_the_removal_brake_holds_what_is_over_the_limit_over_restarts_until_a_human_resets_it() -> None:
    """E9, D19."""
    people = [person(f"00u{number}") for number in range(5)]
    world = World(*people, settings={"brakes": {"removal_count": 3}})
    async with world.provision() as role:
        for one in people:
            await world.knock(one.id, uuid=None)
        await work(role)
        for one in people:
            world.directory.set(one.id, status=PersonStatus.SUSPENDED)
        for one in people[:4]:
            await world.knock(one.id, uuid=None)
        await work(role)
        shut = [one.id for one in people if not account(world, one.id).active]
        assert len(shut) == 3
        (told,) = world.log.notices("brake")
        assert "portcullis brakes reset removal:acme:box" in told.remedy
    async with world.provision() as role:
        await world.knock(people[4].id, uuid=None)
        await work(role)
        assert account(world, people[4].id).active, "the trip was forgotten by a restart"
        assert len(world.log.notices("brake")) == 1
        await world.knock(shut[0], uuid=None)
        await work(role)
        await world.command("reset_brake", "", key=TENANT.encode(), brake="removal:acme:box")
        await work(role)
        for due in [one for one in people if account(world, one.id).active]:
            await world.command("redrive", due.id, id=f"c-{due.id}", lane="provision", slot="box")
        await work(role)
    assert not any(account(world, one.id).active for one in people)


async def test_a_percentage_counts_from_five_people_on() -> None:
    people = [person(f"00u{number}") for number in range(6)]
    world = World(*people, settings={"brakes": {"removal_percent": 5}})
    world.log.put(topics.COUNTS.name, TENANT.encode(), b"20")
    async with world.provision() as role:
        for one in people:
            await world.knock(one.id, uuid=None)
        await work(role)
        for one in people:
            world.directory.set(one.id, status=PersonStatus.SUSPENDED)
            await world.knock(one.id, uuid=None)
            await work(role)
    assert sum(not account(world, one.id).active for one in people) == 4


# --- groups ---------------------------------------------------------------------------------------------------------------------


async def test_a_group_knock_knocks_every_member_once() -> None:
    people = [person(f"00u{number}") for number in range(3)]
    world = World(*people)
    world.directory.groups["00g1"] = tuple(one.id for one in people)
    async with world.provision() as role:
        await world.knock("group/00g1", group="00g1")
        await work(role)
    assert sorted(one.person for one in knocks(world)[1:]) == ["00u0", "00u1", "00u2"]
    assert all(account(world, one.id).grants == SALES for one in people)


async def test_a_group_that_cannot_be_read_now_is_read_later_and_one_that_is_gone_is_left() -> None:
    world = World()
    world.directory.groups["00g1"] = (ANN,)
    async with world.provision() as role:
        world.directory.member_faults.append(TemporaryError("500", 20))
        await world.knock("group/00g1", group="00g1")
        await work(role)
        assert set(world.due()) == {"members.00g1"}
        await later(world, role, 21)
        await work(role)
        assert account(world).grants == SALES
        assert "members.00g1" not in world.due()
        world.directory.member_faults.append(PermanentError("gone", "not_found"))
        await world.knock("group/00g1", group="00g1")
        await work(role)
        world.directory.member_faults.append(PermanentError("no", "forbidden"))
        await world.knock("group/00g1", group="00g1")
        await work(role)
        assert (world.due()["members.00g1"].kind, world.due()["members.00g1"].code) == ("parked", "forbidden")


@pytest.mark.parametrize("writes", range(6))
async def test_a_group_put_off_is_not_lost_by_a_kill(writes: int) -> None:
    people = [person(f"00u{number}") for number in range(3)]
    world = World(*people)
    world.directory.groups["00g1"] = tuple(one.id for one in people)
    async with world.provision() as role:
        world.directory.member_faults.append(TemporaryError("500", 20))
        await world.knock("group/00g1", group="00g1")
        await work(role)
    world.clock.shift(21)
    world.log.kill_after = writes  # what is due runs as soon as the lane does
    await killed(world, world.provision(), writes)
    async with world.provision() as role:
        await settled(role)
        await work(role)
    assert all(account(world, one.id).grants == SALES for one in people)


# --- links ------------------------------------------------------------------------------------------------------------------------


async def test_a_link_is_made_by_its_command_and_never_to_an_account_of_somebody_else() -> None:
    """D21."""
    world = World(person(ANN), person("00ubob"))
    async with world.provision() as role:
        await world.command("link", target="box", account="200", login="ann@acme.test")
        await work(role)
        await world.command("link", "00ubob", id="c-2", target="box", account="200", login="ann@acme.test")
        await work(role)
        mine = await role.links.find(TENANT, ANN, "box")
        assert mine is not None
        assert (mine.account, mine.made_by) == ("200", "link:cara")
        assert await role.links.find(TENANT, "00ubob", "box") is None
    (case,) = world.log.notices("case")
    assert case.person == "00ubob"
    assert len(world.log.notices("command")) == 1


async def test_an_account_that_was_there_before_is_not_opened_without_a_link() -> None:
    world = World()
    world.employ()
    world.box.accounts["200"].active = False
    async with world.provision() as role:
        await world.knock(uuid=None)
        await work(role)
        assert not world.box.accounts["200"].active
        assert world.due()["box"].kind == "parked"
        await world.command("link", target="box", account="200", login="ann@acme.test")
        await work(role)
        await world.command("redrive", id="c-2", lane="provision", slot="box")
        await work(role)
        await settled(role)
    assert world.box.accounts["200"].active


# --- fences and partitions ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault(34)
async def test_a_fenced_worker_changes_nothing_and_commits_nothing() -> None:
    world = World()
    async with world.provision() as role:
        cast(memory.Worker, role.worker).is_silent = True
        await world.knock(uuid=None)
        with pytest.raises(Fenced):
            await cast(memory.Worker, role.worker).deliver()
    assert world.box.effects == []
    async with world.provision() as role:
        await work(role)
    assert account(world).grants == SALES


@pytest.mark.fault(31)
async def test_a_revocation_cancels_scheduled_work_and_waits_until_nothing_of_it_moves() -> None:
    """D12: work that belongs to no batch too."""
    world = World()
    async with world.provision() as role:
        world.box.look_faults.append(TemporaryError("500", 10))
        await world.knock(uuid=None)
        await work(role)
        world.box.look_hangs = True
        world.clock.shift(11)
        role.schedule.rescan()
        await until(lambda: len(role.chains) == 1)
        worker = cast(memory.Worker, role.worker)
        await role.revoked({TP(topics.KNOCKS.name, partition) for partition in worker.owned})
        assert len(role.chains) == 0
        world.box.look_hangs = False
        assert world.due()["box"].kind == "retry", "it is still due, for whoever owns it now"
        await role.assigned({TP(topics.KNOCKS.name, partition) for partition in worker.owned})
        await settled(role)
    assert account(world).grants == SALES


async def test_work_of_another_partition_is_left_to_its_owner() -> None:
    world = World()
    async with world.provision() as role:
        world.box.look_faults.append(TemporaryError("500", 10))
        await world.knock(uuid=None)
        await work(role)
        cast(memory.Worker, role.worker).owned = set()
        await later(world, role, 100)
        assert world.box.effects == []
        assert role.due_before(1000) == 0
        cast(memory.Worker, role.worker).owned = {0, 1, 2, 3}
        assert role.due_before(1000) == 1
        await role.assigned({TP(topics.KNOCKS.name, partition) for partition in range(4)})
        await settled(role)
    assert account(world).grants == SALES


async def test_a_defect_in_scheduled_work_ends_the_role() -> None:
    world = World()
    async with world.provision() as role:
        world.box.look_faults.append(TemporaryError("500", 10))
        await world.knock(uuid=None)
        await work(role)

        async def broken(*args: Any, **more: Any) -> Any:
            raise ZeroDivisionError("a defect")

        swap(role, "later", broken)
        world.clock.shift(11)
        role.schedule.rescan()
        with pytest.raises(FaultError, match="a defect"):
            await asyncio.wait_for(role.failed(), 5)


async def test_bytes_that_are_no_knock_are_parked_and_the_rest_of_the_batch_flows() -> None:
    world = World()
    async with world.provision() as role:
        world.log.put(topics.KNOCKS.name, person_key(TENANT, ANN), b"{}")
        await world.knock(uuid=None)
        await work(role)
        (poison,) = [due for due in world.due().values() if due.kind == "parked"]
    assert poison.original == b"{}"
    assert account(world).grants == SALES
