"""The lockdown lane: orders become Holds and shut accounts once, whatever fails, dies or comes again; only a release opens."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from handlers.protected import load_protected
from model.change import Action, ActionStatus, ChangeKind
from model.decision import Scope, Severity
from model.errors import Fenced, TemporaryError
from model.person import HoldState, PersonStatus
from stream import topics
from stream.books import Latch
from tests.handlers.fakes import NOON, TENANT, person, swap
from tests.stream import memory
from tests.stream.fakes import ANN, World, killed, later, make_command, make_order, settled, until, work

pytestmark = pytest.mark.usefixtures("memory")


def kinds(world: World, target: str = "box") -> list[str]:
    return [one.change.kind.value for one in (world.box if target == "box" else world.okta).effects]


def latch(world: World) -> Latch:
    return cast(Latch, Latch.from_bytes(world.log.state(topics.HOLDS)[f"{TENANT}:{ANN}"]))


def hold_id(world: World) -> str:
    (hold,) = latch(world).holds
    return hold.id


# --- orders ---------------------------------------------------------------------------------------------------------------


async def test_an_order_becomes_a_hold_then_shut_accounts_then_a_contained_incident() -> None:
    world = World()
    world.employ()

    def durable(change: Any) -> None:
        assert latch(world).open_holds, "a call before the Hold was durable"

    world.box.on_call = world.okta.on_call = durable
    async with world.lockdown() as role:
        order = await world.order()
        await work(role)
    assert kinds(world) == kinds(world, "okta") == ["deactivate", "end_sessions"]
    assert world.states() == ["open", "contained"]
    contained = world.log.incidents()[-1]
    assert contained.decisions == order.decisions
    assert contained.contained is not None
    assert {name: told["state"] for name, told in contained.targets.items()} == {"okta": "closed", "box": "closed"}
    assert {(row.status, row.lane, row.incident) for row in world.log.rows.values()} == {
        (ActionStatus.DONE, "lockdown", contained.incident)
    }


async def test_the_same_event_never_acts_twice_also_after_a_release() -> None:
    """S3: neither a redelivery, nor a repeat in the log, nor the same uuid after the Hold was lifted."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await world.order()
        await work(role)
        assert kinds(world) == ["deactivate", "end_sessions"]
        await world.command("release", holds=[hold_id(world)])
        await work(role)
        await world.order()
        await work(role)
    assert kinds(world) == ["deactivate", "end_sessions", "activate"]
    assert not latch(world).open_holds


async def test_two_orders_while_a_hold_stands_are_one_incident() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order(uuid="e-1")
        await work(role)
        await world.order(uuid="e-2")
        await work(role)
    assert len(latch(world).holds) == 1
    assert len({one.incident for one in world.log.incidents()}) == 1
    assert {one.event_uuid for one in world.log.incidents()[-1].decisions} == {"e-1", "e-2"}


async def test_scope_sessions_ends_sessions_and_writes_no_hold() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order(scope=Scope.SESSIONS)
        await work(role)
    assert kinds(world) == kinds(world, "okta") == ["end_sessions"]
    assert latch(world).holds == ()
    assert world.due() == {}


async def test_downstream_leaves_okta_alone() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order(downstream=True)
        await work(role)
    assert kinds(world, "okta") == []
    assert kinds(world) == ["deactivate", "end_sessions"]


async def test_an_approval_is_stored_and_executes_nothing() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order(kind="approve")
        await work(role)
    assert world.states() == ["pending_approval"]
    assert kinds(world) == kinds(world, "okta") == []
    assert latch(world).holds == ()


@pytest.mark.fault(43)
async def test_whoever_is_protected_is_refused_and_paged_and_nothing_is_called_contained() -> None:
    world = World(person("00ubreakglass"))
    async with world.lockdown() as role:
        await world.order("00ubreakglass")
        await work(role)
    assert kinds(world, "okta") == []
    assert "contained" not in world.states()
    (page,) = world.log.notices("page")
    assert page.severity is Severity.CRITICAL
    assert "protected" in page.text


@pytest.mark.fault(44)
async def test_without_a_list_that_can_be_trusted_nobody_is_locked() -> None:
    world = World()
    world.protected = load_protected(None)
    async with world.lockdown() as role:
        await world.order()
        await work(role)
    assert kinds(world, "okta") == []
    assert "contained" not in world.states()
    assert [one.facts["code"] for one in world.log.notices("page")] == ["protected_list"]


# --- what fails ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(41)
async def test_a_partial_containment_is_told_retried_and_then_contained() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        world.box.faults.extend(["503", "503"])
        await world.order()
        await work(role)
        assert world.states() == ["open", "partial"]
        assert world.due()["contain"].only == ("box",)
        await later(world, role, 11)
        assert world.states() == ["open", "partial", "contained"]
    assert "contain" not in world.due()
    assert not world.box.accounts["200"].active
    assert kinds(world, "okta") == ["deactivate", "end_sessions"], "what was closed is not closed again"
    assert {one["state"] for one in world.log.incidents()[-1].targets.values()} == {"closed"}


async def test_a_retry_waits_as_long_as_the_vendor_asked() -> None:
    world = World(settings={"retry_first_s": 1})
    world.employ()
    async with world.lockdown() as role:
        world.box.faults.extend(["429", "429"])
        await world.order()
        await work(role)
        wait = (world.due()["contain"].due - world.clock.now()).total_seconds()
        assert 7.0 <= wait < 7.5
        await later(world, role, 6.5)
        assert world.states()[-1] == "partial"
        await later(world, role, 1)
        assert world.states()[-1] == "contained"


async def test_retries_back_off_to_a_longest_and_never_give_up() -> None:
    """An account that stays open in danger is tried as long as it takes (provisioning parks, lockdown does not)."""
    world = World()
    world.employ()
    waits = []
    async with world.lockdown() as role:
        world.box.faults.extend(["503"] * 80)
        await world.order()
        await work(role)
        for _ in range(7):
            entry = world.due()["contain"]
            waits.append((entry.due - world.clock.now()).total_seconds())
            await later(world, role, 5000)
        assert world.due()["contain"].kind == "retry"
        world.box.faults.clear()
        await later(world, role, 5000)
    assert all(50 * 0.999 <= wait <= 100 for wait in waits[5:])
    assert waits[0] <= 10
    assert world.states()[-1] == "contained"


async def test_a_released_hold_takes_its_retries_with_it() -> None:
    """D15: every retry names its Hold and dies with it."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        world.box.faults.extend(["503", "503"])
        await world.order()
        await work(role)
        await world.command("release", holds=[hold_id(world)])
        await work(role)
        assert world.due() == {}
        await later(world, role, 1000)
    assert world.box.accounts["200"].active


@pytest.mark.fault(38)
async def test_work_that_outlives_its_batch_goes_on_by_the_schedule_no_sooner_than_the_calls_timeout() -> None:
    world = World(settings={"batch_patience_s": 0.05})
    world.employ()
    hang = asyncio.Event()
    apply = world.box.apply

    async def slow(*args: Any) -> Any:
        await hang.wait()
        return await apply(*args)

    async with world.lockdown() as role:
        swap(world.box, "apply", slow)
        await world.order()
        await work(role)
        (entry,) = [due for slot, due in world.due().items() if slot.startswith("item.")]
        assert (entry.due - world.clock.now()).total_seconds() == pytest.approx(15, abs=1)
        assert world.okta.accounts[ANN].active is False, "one vendor that hangs holds nobody else up"
        hang.set()
        await later(world, role, 16)
        assert world.states()[-1] == "contained"
    assert not any(slot.startswith("item.") for slot in world.due())
    assert all(row.status is not ActionStatus.INTENDED for row in world.log.rows.values())


async def test_what_outlives_its_batch_together_keeps_a_place_of_its_own() -> None:
    """A lockdown must not be overwritten by the approval that came behind it, nor a release be forgotten."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        lock, approve = make_order(uuid="e-1"), make_order(uuid="e-2", kind="approve")
        release = make_command("release", holds=["nothing"])
        await role.outlived(TENANT, ANN, [lock, approve, release])
        assert set(world.due()) == {f"item.{one.id}" for one in (lock, approve, release)}
        await later(world, role, 16)
        assert set(world.due()) == {"read_back"}
    assert {"contained", "pending_approval"} <= set(world.states())
    assert [one.facts["command"] for one in world.log.notices("command")] == [release.id]


async def test_what_was_handled_before_time_ran_out_is_not_put_off() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        order, release = await world.order(), await world.command("release", holds=["nothing"])
        await work(role)
        await role.outlived(TENANT, ANN, [order, release])
        assert set(world.due()) == {"read_back"}


# --- what dies --------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(30)
@pytest.mark.parametrize("writes", range(1, 16))
async def test_killed_at_any_write_the_next_owner_brings_it_to_the_same_end(writes: int) -> None:
    world = World()
    world.employ()
    await world.order()
    await killed(world, world.lockdown(), writes)
    async with world.lockdown() as role:
        await work(role)
        await later(world, role, 1000)
    assert world.states()[-1] == "contained"
    assert [one.change.kind for one in world.box.effects if one.changed] == [ChangeKind.DEACTIVATE, ChangeKind.END_SESSIONS]
    assert not [row for row in world.log.rows.values() if row.status is ActionStatus.INTENDED]
    assert not world.log.state(topics.INTENTS), "an intent stays open for ever"
    assert len(latch(world).holds) == 1


async def test_an_intent_left_open_is_closed_by_reading_back_before_anything_else() -> None:
    world = World()
    world.employ()
    await world.order()
    world.box.faults.append("kill_after")
    await killed(world, world.lockdown())
    (open_row,) = [row for row in world.log.rows.values() if row.status is ActionStatus.INTENDED and row.target == "box"]
    async with world.lockdown() as role:
        closed = world.log.rows[open_row.intent]
        assert (closed.status, closed.detail) == (ActionStatus.DONE, "read back after a restart")
        await work(role)
    changed = [one.change.kind for one in world.box.effects if one.changed]
    assert changed == [ChangeKind.DEACTIVATE, ChangeKind.END_SESSIONS], "one effect of each, whatever was read back"


@pytest.mark.fault(34)
async def test_an_intent_that_its_stopped_writer_left_behind_is_closed_without_another_assignment() -> None:
    """It came after the new owner had looked, so nobody would ever ask for it again."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        late = Action(
            intent="late", lane="lockdown", tenant=TENANT, person=ANN, target="box", account="200", change=f"deactivate {ANN}",
            status=ActionStatus.INTENDED, intended=NOON,
        )  # fmt: skip
        await role.journal.intended(late)
        assert world.log.rows["late"].status is ActionStatus.INTENDED
        role._tidy(role.worker.owned)
        role._tidy(role.worker.owned)
        await settled(role)
        assert (world.log.rows["late"].status, role.journal.all_open()) == (ActionStatus.FAILED, [])


@pytest.mark.parametrize("writes", range(1, 12))
async def test_a_release_that_a_crash_broke_off_is_carried_on(writes: int) -> None:
    """The Hold is released first; whoever takes over restores what was there before."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
    await world.command("release", holds=[hold_id(world)])
    await killed(world, world.lockdown(), writes)
    async with world.lockdown() as role:
        await work(role)
        await later(world, role, 1000)
    assert world.box.accounts["200"].active
    assert world.okta.accounts[ANN].active
    assert world.states()[-1] == "released"
    (hold,) = latch(world).holds
    assert (hold.state, hold.released_by) == (HoldState.RELEASED, "cara")
    knocks = world.log.of(topics.KNOCKS)
    assert knocks, "whoever is released is looked at again"


@pytest.mark.parametrize("writes", range(12))
async def test_work_that_was_put_off_is_not_lost_by_a_kill(writes: int) -> None:
    """Its entry goes when its work is done, not before."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await role.outlived(TENANT, ANN, [make_order()])
    world.clock.shift(16)
    world.log.kill_after = writes  # what is due runs as soon as the lane does
    await killed(world, world.lockdown(), writes)
    async with world.lockdown() as role:
        await work(role)
        await later(world, role, 100)
    assert world.states()[-1] == "contained"
    assert not world.box.accounts["200"].active
    assert not any(slot.startswith("item.") for slot in world.due())


# --- reading back, drift ----------------------------------------------------------------------------------------------------


async def test_drift_is_closed_once_and_paged_and_then_left_to_a_human() -> None:
    """N12."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
        world.box.accounts["200"].active = True
        await later(world, role, 61)
        assert not world.box.accounts["200"].active
        (drift,) = world.log.notices("drift")
        assert (drift.severity, drift.facts["box"]) == (Severity.CRITICAL, "closed_again")
        world.box.accounts["200"].active = True
        await later(world, role, 301)
        assert world.box.accounts["200"].active, "closed again once; the second time is a human's"
        assert world.log.notices("drift")[-1].facts["box"] == "open"
        await later(world, role, 10_000)
    assert len(world.log.notices("drift")) == 2
    assert world.due() == {}


async def test_a_read_back_that_fails_is_tried_again_and_does_not_use_up_the_second() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
        world.box.look_faults.append(TemporaryError("500"))
        world.okta.look_faults.append(TemporaryError("500"))
        await later(world, role, 61)
        assert world.due()["read_back"].kind == "retry"
        await later(world, role, 100)
        assert world.due()["read_back"].kind == "read_back", "the second look back was forgotten"
        world.box.accounts["200"].active = True
        await later(world, role, 301)
    assert not world.box.accounts["200"].active


async def test_a_read_back_survives_a_restart_and_comes_late_rather_than_never() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
    world.box.accounts["200"].active = True
    world.clock.shift(86400)
    async with world.lockdown() as role:
        await settled(role)
        assert not world.box.accounts["200"].active


async def test_a_release_ends_the_reading_back() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
        await world.command("release", holds=[hold_id(world)])
        await work(role)
        await later(world, role, 1000)
    assert world.box.accounts["200"].active
    assert world.log.notices("drift") == []


async def test_what_provisioning_opened_too_late_is_shut_again() -> None:
    """D11: an order `again` closes what stands open under the Hold; the last word is lockdown's."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
        world.box.accounts["200"].active = True
        await world.order(uuid="again-1", kind="again")
        await work(role)
    assert not world.box.accounts["200"].active
    assert world.states()[-1] == "contained"


# --- releases and other commands ----------------------------------------------------------------------------------------------


async def test_a_release_restores_what_was_before_and_says_who_and_why() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
        await world.command("release", holds=[hold_id(world)])
        await work(role)
    assert world.box.accounts["200"].active
    assert world.okta.accounts[ANN].active
    hold = world.log.holds()[-1].hold
    assert (hold.state, hold.released_by, hold.reason) == (HoldState.RELEASED, "cara", "cleared")
    assert world.log.incidents()[-1].state == "released"
    (command,) = world.log.notices("command")
    assert "cara" in command.text
    assert "cleared" in command.text
    (knock,) = world.log.of(topics.KNOCKS)
    assert b"released by cara" in (knock.value or b"")


async def test_a_release_delivered_twice_opens_once() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
        await world.command("release", holds=[hold_id(world)])
        await world.command("release", holds=[hold_id(world)])
        await work(role)
    assert [one for one in kinds(world) if one == "activate"] == ["activate"]
    assert len(world.log.notices("command")) == 1


async def test_a_release_of_another_hold_opens_nothing() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
        await world.command("release", holds=["somebody-elses"])
        await work(role)
    assert latch(world).open_holds
    assert not world.box.accounts["200"].active


async def test_a_second_release_of_a_hold_that_was_settled_does_not_open_what_somebody_shut_since() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
        await world.command("release", holds=[hold_id(world)])
        await work(role)
        world.box.accounts["200"].active = False
        await world.command("release", id="c-2", holds=[hold_id(world)])
        await work(role)
    assert not world.box.accounts["200"].active


async def test_a_release_that_a_vendor_refuses_for_now_is_tried_again() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
        world.box.faults.append("503")
        await world.command("release", holds=[hold_id(world)])
        await work(role)
        assert world.due()["release"].only == ("box",)
        await later(world, role, 11)
    assert world.box.accounts["200"].active
    assert world.due() == {}


async def test_a_lockdown_brake_is_reset_by_its_command_alone() -> None:
    world = World()
    brake = f"lockdown:{TENANT}"
    await world.log.append(topics.BRAKES.name, brake.encode(), b'{"locks":[],"tripped":"2026-01-05T12:00:00Z"}')
    async with world.lockdown() as role:
        await world.command("reset_brake", "", key=TENANT.encode(), brake="removal:acme:box")
        await work(role)
        assert brake in world.log.state(topics.BRAKES)
        await world.command("reset_brake", "", id="c-2", key=TENANT.encode(), brake=brake)
        await work(role)
    assert brake not in world.log.state(topics.BRAKES)
    assert [one.facts["command"] for one in world.log.notices("command")] == ["c-2"]


# --- leavers ------------------------------------------------------------------------------------------------------------------


async def test_a_leaver_is_shut_at_once_without_hold_or_incident() -> None:
    """D33."""
    world = World(person(ANN, status=PersonStatus.DEPROVISIONED))
    world.employ()
    async with world.lockdown() as role:
        await world.order(kind="close")
        await work(role)
    assert not world.box.accounts["200"].active
    assert world.log.incidents() == []
    assert world.log.holds() == []
    assert kinds(world, "okta") == []


@pytest.mark.fault(40)
async def test_whoever_is_back_in_okta_is_not_shut_by_an_old_event() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order(kind="close")
        await work(role)
    assert world.box.accounts["200"].active
    assert world.due() == {}


async def test_a_closing_that_okta_cannot_confirm_now_is_tried_again() -> None:
    world = World(person(ANN, status=PersonStatus.DEPROVISIONED))
    world.employ()
    async with world.lockdown() as role:
        world.directory.faults.append(TemporaryError("500", 42))
        await world.order(kind="close")
        await work(role)
        assert world.box.accounts["200"].active
        assert (world.due()["close"].due - world.clock.now()).total_seconds() >= 42
        await later(world, role, 43)
    assert not world.box.accounts["200"].active


async def test_suspended_under_a_hold_is_no_leave() -> None:
    """D5: our own suspension comes back in the log."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
        world.directory.set(ANN, status=PersonStatus.SUSPENDED)
        before = len(world.box.effects)
        await world.order(uuid="e-2", kind="close")
        await work(role)
    assert len(world.box.effects) == before


# --- fences, poison, dry runs ---------------------------------------------------------------------------------------------------


@pytest.mark.fault(34)
async def test_a_fenced_worker_calls_nothing_and_commits_nothing() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        worker = cast(memory.Worker, role.worker)
        worker.is_silent = True
        await world.order()
        with pytest.raises(Fenced):
            await worker.deliver()
        assert kinds(world) == kinds(world, "okta") == []
    async with world.lockdown() as role:
        await work(role)
    assert world.states()[-1] == "contained"


async def test_scheduled_work_of_a_fenced_worker_pauses_instead_of_asking_vendors_again_and_again() -> None:
    world = World()
    world.employ()
    world.clock = type(world.clock)(NOON, auto=False)
    async with world.lockdown() as role:
        world.box.faults.extend(["503", "503"])
        await world.order()
        await cast(memory.Worker, role.worker).deliver()
        cast(memory.Worker, role.worker).is_silent = True
        looks = world.box.looks
        world.clock.shift(60)
        role.schedule.rescan()
        for _ in range(500):
            await asyncio.sleep(0)
        assert world.box.looks - looks <= 1
        assert world.due()["contain"].kind == "retry"
        cast(memory.Worker, role.worker).is_silent = False
        await world.clock.advance(1)
        await until(lambda: world.states()[-1] == "contained")


async def test_bytes_that_are_no_order_are_parked_whole_told_and_can_be_redriven_or_dropped() -> None:
    """P3: also bytes that are no text."""
    world = World()
    raw = b'\xff\xfe{"kind": \x00'
    async with world.lockdown() as role:
        await world.log.append(topics.THREATS.name, f"{TENANT}:{ANN}".encode(), raw)
        await work(role)
        ((slot, entry),) = world.due().items()
        assert (entry.kind, entry.code, entry.original) == ("parked", "unreadable", raw)
        assert len(world.log.notices("parked")) == 1
        await world.command("redrive", lane="lockdown", slot=slot)
        await work(role)
        await settled(role)
        assert world.due()[slot].kind == "parked"
        assert world.due()[slot].original == raw
        await world.command("drop", id="c-2", lane="lockdown", slot=slot)
        await work(role)
        assert world.due() == {}


async def test_a_record_that_was_mended_meanwhile_is_carried_out_when_redriven() -> None:
    """What an older release could not read, this one may."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await role.park(TENANT, ANN, "poison.x", "unknown word", "unreadable", make_order().to_bytes())
        await world.command("redrive", lane="lockdown", slot="poison.x")
        await work(role)
        await settled(role)
    assert world.states()[-1] == "contained"
    assert "poison.x" not in world.due()


async def test_another_lane_leaves_a_parked_entry_alone() -> None:
    world = World()
    async with world.lockdown() as role:
        await role.park(TENANT, ANN, "poison.x", "unknown word", "unreadable", b"?")
        await world.command("drop", lane="provision", slot="poison.x")
        await work(role)
        assert "poison.x" in world.due()


async def test_a_redrive_that_comes_late_leaves_what_superseded_it_alone() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        world.box.faults.extend(["503"] * 4)
        await world.order()
        await work(role)
        before = world.due()["contain"]
        await world.command("drop", lane="lockdown", slot="contain")
        await work(role)
        assert world.due()["contain"] == before, "a pending retry was dropped by a command about something parked"


async def test_a_dry_run_calls_nothing_and_says_what_it_would() -> None:
    """E8, D31."""
    world = World()
    world.employ()
    async with world.lockdown(dry_run=True) as role:
        await world.order()
        await work(role)
    assert kinds(world) == kinds(world, "okta") == []
    assert {row.status for row in world.log.rows.values()} == {ActionStatus.PLANNED}
    assert latch(world).holds == ()
