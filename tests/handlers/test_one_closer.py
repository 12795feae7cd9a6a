"""Closing has one lane (D33): who is gone is closed by the lockdown lane alone, nothing is opened on a look that is older than a closing,
and what a look or an answer has shown shut is not called for twice. Each of these was found by `script/torture`.
"""

from __future__ import annotations

from typing import Any

import pytest

from handlers.contract import Ending
from handlers.converge import Converger
from handlers.lockdown import Lockdown
from model.change import ChangeKind
from model.errors import TemporaryError
from model.person import PersonStatus
from tests.handlers.fakes import NOON, TENANT, hold, person
from tests.handlers.house import TRANSFER_HOLD_S, House, order

KINDS = [ChangeKind.DEACTIVATE, ChangeKind.END_SESSIONS]
FULL, LEAVE, AGAIN = order(), order("close"), order("again")


class FakeClosings:
    """contract.ClosingBook of one person."""

    def __init__(self) -> None:
        self.closing = self.closed = ""

    async def begun(self, tenant: str, person: str) -> str:
        return self.closing

    async def is_unfinished(self, tenant: str, person: str) -> bool:
        return self.closing != self.closed

    async def begin(self, tenant: str, person: str, order: str) -> None:
        self.closing = order

    async def end(self, tenant: str, person: str) -> None:
        self.closed = self.closing


class Shared(House):
    """Both engines over one book of closings, as the stream wires them."""

    def rewire(self, **targets: Any) -> None:
        self.closings = FakeClosings()
        fleet = {TENANT: {"okta": self.okta, "box": self.box}}
        ports = (self.fence, self.brake, self.protected, self.clock)
        more: dict[str, Any] = {"dry_run": self.dry_run, "closings": self.closings}
        self.converger = Converger(
            fleet, self.directory, self.policy, self.journal, self.holds, self.links, *ports, transfer_hold_s=TRANSFER_HOLD_S, **more
        )
        self.lockdown = Lockdown(fleet, self.directory, self.journal, self.holds, self.holds, self.links, *ports, **more)


def house(status: PersonStatus = PersonStatus.ACTIVE, **account: Any) -> Shared:
    built = Shared(people=(person(status=status),))
    built.links.link("00u1", built.box.add("00u1@acme.test", id="200", **account))
    return built


def kinds(at: House) -> list[ChangeKind]:
    return [one.change.kind for one in at.box.effects]


# --- the provision lane ----------------------------------------------------------------------------------------------------


async def test_provisioning_leaves_the_closing_to_the_lockdown_lane_and_then_does_the_rest() -> None:
    at = house(PersonStatus.DEPROVISIONED)
    outcome = await at.look()
    assert (outcome.ending, outcome.code, kinds(at)) == (Ending.RETRY, "closing", [])
    await at.lockdown.close(LEAVE)
    assert (await at.look()).ending is Ending.CONVERGED
    assert kinds(at)[:2] == KINDS
    assert ChangeKind.DEACTIVATE not in kinds(at)[2:]


async def test_a_guard_that_refuses_to_take_says_so_before_anybody_is_asked_to_close() -> None:
    at = house(PersonStatus.DEPROVISIONED)
    at.brake.tripped = True
    assert (await at.look()).ending is Ending.REFUSED


async def test_nothing_is_opened_for_whoever_is_being_closed_since_the_look_began() -> None:
    """The look saw somebody who works here; between two of its calls they left and were closed."""
    at = house()
    real = at.box.apply

    async def leave_after_the_first_call(change: Any, intent: str, lane: Any) -> Any:
        applied = await real(change, intent, lane)
        if lane == "provision" and not at.closings.closing:
            at.directory.set("00u1", status=PersonStatus.DEPROVISIONED)
            await at.lockdown.close(LEAVE)
        return applied

    at.box.apply = leave_after_the_first_call  # type: ignore[method-assign]
    outcome = await at.look()
    assert outcome.ending is Ending.RETRY
    lanes = [one.lane for one in at.box.effects]
    assert lanes == ["provision", "lockdown", "lockdown"]


async def test_a_dry_run_shows_the_closing_and_orders_nothing() -> None:
    at = Shared(people=(person(status=PersonStatus.DEPROVISIONED),), dry_run=True)
    at.links.link("00u1", at.box.add("00u1@acme.test", id="200"))
    outcome = await at.look()
    assert outcome.code != "closing"
    assert any(row.change.startswith("deactivate") for row in at.journal.rows.values())


# --- the lockdown lane: a leaver -------------------------------------------------------------------------------------------


async def test_a_second_order_for_the_same_leave_calls_nothing() -> None:
    at = house(PersonStatus.DEPROVISIONED)
    await at.lockdown.close(LEAVE)
    result = await at.lockdown.close(order("close", id="o-2"))
    assert (result.state, kinds(at)) == ("contained", KINDS)


async def test_sessions_are_ended_once_more_where_a_crash_stands_between_the_calls() -> None:
    """The suspension is there, and nobody knows of the sessions. Whatever order comes next ends them."""
    at = house(PersonStatus.DEPROVISIONED, active=False)
    at.closings.closing = "an order that died"
    await at.lockdown.close(order("close", id="o-2"))
    assert kinds(at) == [ChangeKind.END_SESSIONS]
    await at.lockdown.close(order("close", id="o-3"))
    assert kinds(at) == [ChangeKind.END_SESSIONS]


async def test_a_leavers_account_is_not_closed_unseen() -> None:
    at = house(PersonStatus.DEPROVISIONED)
    at.box.look_faults.append(TemporaryError("503"))
    result = await at.lockdown.close(LEAVE)
    assert (result.retry, kinds(at)) == (frozenset({"box"}), [])


async def test_a_directory_that_lags_the_log_is_asked_once_more() -> None:
    at = Shared(people=(person(last_updated=NOON.replace(hour=1)),))
    assert (await at.lockdown.close(LEAVE)).code == "stale"
    at.directory.set("00u1", last_updated=NOON.replace(hour=23))
    assert (await at.lockdown.close(LEAVE)).code == ""


# --- the lockdown lane: a threat -------------------------------------------------------------------------------------------


async def test_a_retry_does_not_call_for_what_was_acknowledged_even_where_a_lagging_look_still_shows_it_open() -> None:
    at = house()
    at.box.faults.extend([None, "503"])
    first = await at.lockdown.contain(FULL, hold(), "i-1")
    assert (first.retry, first.suspended) == (frozenset({"box"}), frozenset({"box"}))
    at.account().active = True  # as a replica that lags would show it
    await at.lockdown.contain(FULL, first.hold, "i-1", only=first.retry, suspended=first.suspended, attempt=2)
    assert kinds(at).count(ChangeKind.DEACTIVATE) == 1


async def test_an_order_that_is_delivered_once_more_ends_sessions_and_suspends_nobody_twice() -> None:
    at = house()
    first = await at.lockdown.contain(FULL, hold(), "i-1")
    second = await at.lockdown.contain(FULL, first.hold, "i-1", attempt=2)
    assert second.state == "contained"
    assert kinds(at) == [*KINDS, ChangeKind.END_SESSIONS]


async def test_a_new_lockdown_is_a_constant_plan_whatever_a_look_says() -> None:
    """D14: what a look shows shut may have been opened since."""
    at = house(active=False)
    await at.lockdown.contain(FULL, hold(), "i-1")
    assert kinds(at) == KINDS


@pytest.mark.parametrize("is_open", [True, False])
async def test_again_closes_what_was_opened_and_never_asks_okta(is_open: bool) -> None:
    at = house()
    first = await at.lockdown.contain(FULL, hold(), "i-1")
    at.account().active = is_open
    result = await at.lockdown.contain(AGAIN, first.hold, "i-1")
    assert [one.target for one in result.targets] == ["box"]
    assert kinds(at) == (KINDS * 2 if is_open else KINDS)
    assert len(at.okta.effects) == 2
