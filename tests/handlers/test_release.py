"""Releasing a Hold: durable first, Okta first, nothing that somebody else holds shut, nothing that changed since."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.containment import ContainmentResult
from model.errors import Fenced, TemporaryError
from model.person import Hold, HoldState, PersonStatus
from tests.handlers.fakes import FakeTarget, hold, swap
from tests.handlers.house import House
from tests.handlers.test_lockdown import FULL, contained, house, states


async def release(at: House, held: Hold | None, **more: Any) -> ContainmentResult:
    assert held is not None
    return await at.lockdown.release(held, actor="cara", reason="false alarm", **more)


async def test_release_restores_what_was_there_and_is_durable_before_anything_opens() -> None:
    at = house()
    held = await contained(at)
    at.box.on_call = at.okta.on_call = lambda change: assert_released(at)
    result = await release(at, held)
    assert result.state == "released"
    assert states(result) == {"okta": "restored", "box": "restored"}
    assert at.account().active
    assert at.okta.accounts["00u1"].active
    assert result.hold is not None
    assert (result.hold.state, result.hold.released_by, result.hold.reason) == (HoldState.RELEASED, "cara", "false alarm")
    assert result.hold.released == at.clock.now()


def assert_released(at: House) -> None:
    assert at.holds.holds["h1"].state is HoldState.RELEASED


async def test_whoever_was_shut_before_the_lockdown_stays_shut() -> None:
    at = house()
    at.account().active = False
    result = await release(at, await contained(at))
    assert states(result)["box"] == "nothing"
    assert not at.account().active


async def test_what_changed_since_is_left_as_it_is() -> None:
    at = house()
    held = await contained(at)
    at.account().active = True
    result = await release(at, held)
    assert states(result) == {"okta": "restored", "box": "nothing"}
    assert at.box.effects == []


async def test_what_was_closed_unseen_is_not_guessed() -> None:
    at = house()
    at.box.look_faults.append(TemporaryError("500"))
    result = await release(at, await contained(at))
    assert (states(result)["box"], result.targets[1].code) == ("left", "unseen")
    assert not at.account().active


async def test_an_account_that_is_gone_is_no_failure() -> None:
    at = house()
    held = await contained(at)
    at.box.accounts.clear()
    result = await release(at, held)
    assert (result.state, result.targets[1].code) == ("released", "absent")


@pytest.mark.fault(39)
async def test_under_another_hold_of_the_person_nothing_opens() -> None:
    at = house()
    held = await contained(at)
    at.holds.holds["h2"] = hold("h2")
    result = await release(at, held)
    assert (result.state, result.code) == ("still_held", "hold")
    assert not at.account().active
    assert at.holds.holds["h1"].state is HoldState.RELEASED


async def test_a_shared_account_held_for_another_tenant_stays_shut() -> None:
    at = house()
    held = await contained(at)
    at.holds.holds["h9"] = hold("h9", person="00uelse", tenant="other", accounts=(("box", "200"),))
    result = await release(at, held)
    assert result.state == "partial"
    assert (result.targets[1].state, result.targets[1].code) == ("refused", "hold")
    assert not at.account().active


@pytest.mark.parametrize("status", [PersonStatus.DEPROVISIONED, PersonStatus.ABSENT])
async def test_whoever_left_meanwhile_is_opened_nowhere(status: PersonStatus) -> None:
    at = house()
    held = await contained(at)
    swap(at.okta, "restoring", lambda account, saved: ())  # nothing brings a deactivated user back
    at.directory.set("00u1", status=status)
    result = await release(at, held)
    assert result.state == "released"
    assert (states(result)["box"], result.targets[1].code) == ("left", "gone")
    assert not at.account().active


async def test_the_rest_waits_for_okta() -> None:
    at = house()
    held = await contained(at)
    at.okta.faults.append("429")
    result = await release(at, held)
    assert (result.state, result.retry, result.delay) == ("failed", frozenset({"okta", "box"}), 7.0)
    assert not at.account().active
    again = await release(at, result.hold, only=result.retry, attempt=2)
    assert again.state == "released"
    assert at.account().active
    assert len([one for one in at.holds.written if one.state is HoldState.RELEASED]) == 1


async def test_a_partial_release_names_what_is_left() -> None:
    at = house()
    held = await contained(at)
    at.box.faults.append("503")
    result = await release(at, held)
    assert (result.state, result.retry) == ("partial", frozenset({"box"}))
    again = await release(at, result.hold, only=result.retry, attempt=2)
    assert again.state == "released"
    assert at.account().active


async def test_okta_that_cannot_say_who_is_here_is_asked_again() -> None:
    at = house()
    at.okta.accounts["00u1"].active = False
    held = await contained(at)
    at.directory.faults.append(TemporaryError("500", delay=3.0))
    result = await release(at, held)
    assert (result.retry, result.delay) == (frozenset({"box"}), 3.0)
    assert not at.account().active


@pytest.mark.fault(40)
async def test_a_release_that_is_repeated_after_a_new_lockdown_opens_nothing() -> None:
    """E7: the command comes again (a redelivery), but meanwhile the person was locked anew."""
    at = house()
    held = await contained(at)
    first = await release(at, held)
    await at.lockdown.contain(FULL, hold("h2"), "i-2")
    result = await release(at, first.hold)
    assert result.state == "still_held"
    assert not at.account().active


async def test_a_hold_that_appears_during_a_release_stops_it() -> None:
    at = house()
    held = await contained(at)
    at.okta.on_call = lambda change: at.holds.holds.update(h2=hold("h2"))
    result = await release(at, held)
    assert result.targets[1].code == "hold"
    assert not at.account().active


async def test_whoever_lost_the_partition_releases_nothing() -> None:
    at = house()
    held = await contained(at)
    at.fence.left = 0
    with pytest.raises(Fenced):
        await release(at, held)
    assert at.holds.holds["h1"].is_open


async def test_a_dry_run_releases_nothing() -> None:
    at = house()
    held = await contained(at)
    at.dry_run = True
    at.rewire()
    assert (await release(at, held)).state == "superseded"
    assert at.holds.holds["h1"].is_open


async def test_a_refused_look_is_paged() -> None:
    at = house()
    held = await contained(at)
    other = FakeTarget("box", at.journal)
    other.accounts = at.box.accounts

    def broken(account: Any, saved: Any) -> Any:
        from model.errors import Refused

        raise Refused("no", "forbidden")

    swap(other, "restoring", broken)
    at.rewire(box=other)
    result = await release(at, held)
    assert (result.state, result.page, result.targets[1].code) == ("partial", True, "forbidden")
