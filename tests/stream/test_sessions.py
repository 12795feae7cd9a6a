"""Ended sessions leave no trace in a look: where the answer was lost, only our own memory knows that they must be ended once more."""

from __future__ import annotations

import pytest

from model.change import ActionStatus
from model.decision import Scope
from tests.handlers.fakes import Fault
from tests.stream.fakes import World, killed, later, work

pytestmark = pytest.mark.usefixtures("memory")

#: How the call may fail: eaten before it had an effect (a reset, a hang), refused for now, or done without an answer (cut).
LOST: tuple[Fault, ...] = ("timeout_before", "503", "429", "timeout_after", "503_after")


def ended(world: World) -> int:
    return [one.change.kind.value for one in world.box.effects].count("end_sessions")


def needed(fault: Fault) -> int:
    """Calls with an effect: the repeat alone, or both where the first had one."""
    return 2 if fault.endswith("_after") else 1


@pytest.mark.fault(35)
@pytest.mark.parametrize("fault", LOST)
async def test_a_lost_end_of_sessions_goes_out_once_more(fault: Fault) -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        world.box.faults.extend([None, fault])
        await world.order()
        await work(role)
        assert world.states() == ["open", "partial"]
        assert (world.due()["contain"].only, world.due()["contain"].suspended) == (("box",), ("box",))
        await later(world, role, 11)
        assert world.states()[-1] == "contained"
    assert ended(world) == needed(fault)
    assert all(row.status is not ActionStatus.INTENDED for row in world.log.rows.values())


@pytest.mark.fault(35)
@pytest.mark.parametrize("fault", LOST)
async def test_an_order_again_does_not_take_the_place_of_what_is_left(fault: Fault) -> None:
    """Provisioning met the Hold a moment late (D11). That order finds the account shut and calls nothing; the sessions are still open."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        world.box.faults.extend([None, fault])
        await world.order()
        await work(role)
        await world.order(uuid="again-1", kind="again")
        await work(role)
        assert world.states()[-1] == "partial", "told as contained while its sessions are open"
        await later(world, role, 11)
        assert world.states()[-1] == "contained"
    assert ended(world) == needed(fault)
    assert set(world.due()) == {"read_back"}


async def test_a_lighter_order_does_not_take_the_place_of_a_suspension_that_is_left() -> None:
    """A rule that only ends sessions, and one that leaves Okta alone, fire while the lockdown waits for its next try."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        world.okta.faults.extend(["503", "503"])
        await world.order(uuid="e-1")
        await work(role)
        await world.order(uuid="e-2", scope=Scope.SESSIONS)
        await world.order(uuid="e-3", downstream=True)
        await work(role)
        assert world.okta.accounts["00uann"].active
        await later(world, role, 11)
    assert not world.okta.accounts["00uann"].active
    assert world.states()[-1] == "contained"


async def test_what_a_lighter_order_has_left_is_tried_again_as_well() -> None:
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order(uuid="e-1")
        await work(role)
        world.box.faults.append("timeout_before")
        await world.order(uuid="e-2", scope=Scope.SESSIONS)
        await work(role)
        assert (ended(world), world.states()[-1]) == (1, "partial")
        await later(world, role, 11)
    assert (ended(world), world.states()[-1]) == (2, "contained")


async def test_a_release_takes_all_that_is_left_with_it() -> None:
    """D15."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        world.box.faults.extend(["503", "503", "503"])
        await world.order(uuid="e-1")
        await world.order(uuid="e-2", scope=Scope.SESSIONS)
        await work(role)
        assert {"contain", "contain.sessions"} <= set(world.due())
        hold = world.log.holds()[-1].hold
        await world.command("release", holds=[hold.id])
        await work(role)
    assert world.due() == {}


@pytest.mark.fault(35)
@pytest.mark.parametrize("fault", LOST)
async def test_sessions_that_a_read_back_could_not_end_are_ended_by_the_next(fault: Fault) -> None:
    """N12: closed again, but its sessions' end was lost. The next look finds the account shut."""
    world = World()
    world.employ()
    async with world.lockdown() as role:
        await world.order()
        await work(role)
        world.box.accounts["200"].active = True
        world.box.faults.extend([None, fault])
        await later(world, role, 61)
        assert (world.due()["read_back"].kind, world.due()["read_back"].suspended) == ("retry", ("box",))
        assert world.log.notices("drift")[-1].facts["box"] == "closed_again"
        await later(world, role, 11)
        assert world.due()["read_back"].kind == "read_back"
    assert ended(world) == 1 + needed(fault)
    assert len(world.log.notices("drift")) == 1, "closed again once, paged once"


@pytest.mark.parametrize("fault", LOST)
async def test_a_kill_between_the_lost_answer_and_its_entry_ends_them_as_well(fault: Fault) -> None:
    """The order is handed to the next owner, who finds the account shut."""
    for writes in range(1, 16):
        world = World()
        world.employ()
        await world.order()
        world.box.faults.extend([None, fault])
        await killed(world, world.lockdown(), writes)
        async with world.lockdown() as role:
            await work(role)
            await later(world, role, 1000)
            assert world.states()[-1] == "contained"
        assert ended(world) >= 1, f"killed at write {writes}"
