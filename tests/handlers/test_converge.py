"""One look at one person at one target: what it does, what it never does, and what it says."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from handlers.contract import Ending, Observation
from handlers.protected import load_protected
from model.change import ActionStatus, Change, ChangeKind
from model.errors import FaultError, RateLimited, Refused, TemporaryError
from model.person import PersonStatus
from tests.handlers.fakes import NOON, TENANT, Effect, FakeTarget, Fault, Killed, hold, person, swap
from tests.handlers.house import TRANSFER_HOLD_S, House

SALES = {("group", "Everyone"): "", ("folder", "Company"): "viewer", ("group", "Sales"): "", ("folder", "Sales"): "editor"}
FINANCE = {("group", "Everyone"): "", ("folder", "Company"): "viewer", ("group", "Finance"): "", ("folder", "Finance"): "editor"}


async def hired(house: House) -> None:
    assert (await house.look()).ending is Ending.CONVERGED
    house.box.effects.clear()


def gone(house: House, status: PersonStatus = PersonStatus.DEPROVISIONED, **facts: Any) -> None:
    house.directory.set("00u1", status=status, status_changed=house.clock.now(), **facts)


# --- joining and moving -------------------------------------------------------------------------------------------------


async def test_a_hire_gets_an_account_with_what_policy_asks_and_a_link_that_names_the_intent() -> None:
    house = House()
    outcome = await house.look(event_uuid="e1")
    assert outcome.ending is Ending.CONVERGED
    assert house.account().grants == SALES
    assert house.account().attributes == {"space_amount": 50 * 1024**3}
    assert house.box.labels()[0] == "create 00u1@acme.test"
    link = await house.links.find(TENANT, "00u1", "box")
    assert link is not None
    assert house.box.accounts[link.account] is house.account()
    assert link.made_by == house.box.effects[0].intent
    assert all(row.event_uuid == "e1" and row.lane == "provision" for row in house.journal.rows.values())


async def test_every_row_is_intended_then_done_then_observed_by_a_second_look() -> None:
    house = House()
    outcome = await house.look()
    assert {one.status for one in outcome.actions} == {ActionStatus.DONE}
    assert all(one.intended and one.called and one.answered and one.observed for one in outcome.actions)
    assert {row.intent: row for row in outcome.actions} == house.journal.rows
    first = [status for intent, status in house.journal.history if intent == outcome.actions[0].intent]
    assert first == [ActionStatus.INTENDED, ActionStatus.DONE, ActionStatus.DONE]


async def test_a_second_look_does_nothing() -> None:
    house = House()
    await hired(house)
    outcome = await house.look()
    assert (outcome.ending, outcome.actions, house.box.effects) == (Ending.CONVERGED, (), [])


async def test_a_transfer_takes_away_before_it_gives() -> None:
    house = House()
    await hired(house)
    house.directory.set("00u1", department="Finance")
    assert (await house.look()).ending is Ending.CONVERGED
    assert house.account().grants == FINANCE
    assert house.box.labels() == ["revoke folder Sales", "revoke group Sales", "grant folder Finance", "grant group Finance"]


async def test_what_policy_does_not_name_is_left_alone() -> None:
    house = House()
    await hired(house)
    house.account().grants["folder", "Choir"] = "co-owner"
    house.account().attributes["nickname"] = "annie"
    gone(house, PersonStatus.SUSPENDED)
    assert (await house.look()).ending is Ending.CONVERGED
    assert house.account().grants == {("folder", "Choir"): "co-owner"}
    assert house.account().attributes["nickname"] == "annie"


async def test_a_return_from_leave_restores_access_on_the_linked_account() -> None:
    house = House()
    await hired(house)
    gone(house, PersonStatus.SUSPENDED)
    await house.look()
    assert not house.account().active
    gone(house, PersonStatus.ACTIVE)
    assert (await house.look()).ending is Ending.CONVERGED
    assert house.account().active
    assert house.account().grants == SALES


@pytest.mark.parametrize("status", [PersonStatus.STAGED, PersonStatus.UNKNOWN])
async def test_a_status_that_means_nothing_opens_nothing(status: PersonStatus) -> None:
    house = House((person(status=status),))
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.CONVERGED, "no_policy")
    assert house.box.accounts == {}


async def test_okta_is_never_changed_by_policy() -> None:
    house = House()
    outcome = await house.converger.look(TENANT, "00u1", "okta")
    assert (outcome.ending, outcome.code) == (Ending.CONVERGED, "no_policy")


async def test_a_target_that_is_not_configured_parks() -> None:
    outcome = await House().converger.look(TENANT, "00u1", "sharepoint")
    assert (outcome.ending, outcome.code) == (Ending.PARKED, "no_target")


@pytest.mark.fault(40)
async def test_events_delivered_in_the_wrong_order_end_in_oktas_present_state() -> None:
    house = House()
    await hired(house)
    # deactivate and reactivate happened; their knocks arrive reversed; each looks at the present
    for _ in range(2):
        await house.look()
    assert house.account().active
    gone(house)
    gone(house, PersonStatus.ACTIVE)
    await house.look()
    assert house.account().active
    assert house.box.effects == []


# --- stale looks (D6) -----------------------------------------------------------------------------------------------------


async def test_an_empty_plan_for_an_event_is_looked_at_once_more() -> None:
    house = House()
    await hired(house)
    assert (await house.look(event_at=NOON)).code == "stale"
    assert (await house.look()).code == ""


async def test_a_person_older_than_the_event_is_looked_at_once_more() -> None:
    house = House()
    outcome = await house.look(event_at=NOON + timedelta(seconds=1))
    assert outcome.actions
    assert outcome.code == "stale"
    fresh = House((person(last_updated=NOON + timedelta(seconds=1)),))
    assert (await fresh.look(event_at=NOON + timedelta(seconds=1))).code == ""


# --- leaving (C5, C50, D22) -----------------------------------------------------------------------------------------------

BOSS = person("00uboss", department="Legal")


def leaving(house: House) -> None:
    house.box.add("00uboss@acme.test")
    house.box.add("00u1@acme.test", grants=dict(SALES), content=3)


async def test_a_leaver_is_closed_at_once_and_content_waits_for_the_hold_period() -> None:
    house = House((person(manager_id="00uboss"), BOSS))
    leaving(house)
    gone(house)
    outcome = await house.look()
    assert (outcome.ending, outcome.pending) == (Ending.CONVERGED, TRANSFER_HOLD_S)
    assert house.box.labels()[:2] == ["deactivate 00u1@acme.test", "end_sessions sessions"]
    seen = {row.change: row.observed is not None for row in outcome.actions}
    assert (seen["deactivate 00u1@acme.test"], seen["end_sessions sessions"]) == (True, False)
    assert (house.account().active, house.account().grants, house.account().content) == (False, {}, 3)


async def test_content_goes_to_the_manager_after_the_hold_period_and_only_once() -> None:
    house = House((person(manager_id="00uboss@acme.test"), BOSS))
    leaving(house)
    gone(house)
    await house.look()
    house.clock.shift(TRANSFER_HOLD_S)
    outcome = await house.look()
    assert (outcome.ending, outcome.code, outcome.pending) == (Ending.CONVERGED, "", None)
    assert (house.account().content, house.account("00uboss").content) == (0, 3)
    await house.look()
    assert house.box.labels().count("transfer content") == 1


async def test_a_suspension_transfers_nothing_however_long_it_lasts() -> None:
    house = House((person(manager_id="00uboss"), BOSS))
    leaving(house)
    gone(house, PersonStatus.SUSPENDED)
    house.clock.shift(10 * TRANSFER_HOLD_S)
    outcome = await house.look()
    assert (outcome.ending, outcome.pending) == (Ending.CONVERGED, None)
    assert house.account().content == 3


@pytest.mark.parametrize(
    ("manager_id", "boss", "code"),
    [
        ("", BOSS, "no_manager"),
        ("00unobody", BOSS, "no_manager"),
        ("00uboss", BOSS.model_copy(update={"status": PersonStatus.SUSPENDED}), "no_manager"),
        ("00u1", BOSS, "no_manager"),
    ],
)
async def test_without_a_manager_nothing_is_handed_over_and_there_is_a_case(manager_id: str, boss: Any, code: str) -> None:
    house = House((person(manager_id=manager_id), boss))
    leaving(house)
    gone(house)
    house.clock.shift(TRANSFER_HOLD_S)
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.CONVERGED, code)
    assert (house.account().active, house.account().content) == (False, 3)


@pytest.mark.parametrize("account", [{"active": False}, None])
async def test_a_manager_without_an_open_account_gets_nothing(account: dict[str, Any] | None) -> None:
    house = House((person(manager_id="00uboss"), BOSS))
    house.box.add("00u1@acme.test", content=3)
    if account is not None:
        house.box.add("00uboss@acme.test", **account)
    gone(house)
    house.clock.shift(TRANSFER_HOLD_S)
    assert (await house.look()).code == "no_manager_account"
    assert house.account().content == 3


async def test_a_leaver_without_content_is_not_kept_waiting() -> None:
    house = House((person(manager_id="00uboss"), BOSS))
    house.box.add("00u1@acme.test")
    gone(house)
    assert (await house.look()).pending is None


async def test_whoever_left_at_an_unknown_time_waits_the_whole_period() -> None:
    house = House((person(manager_id="00uboss"), BOSS))
    leaving(house)
    house.directory.set("00u1", status=PersonStatus.DEPROVISIONED, status_changed=None, last_updated=None)
    assert (await house.look()).pending == TRANSFER_HOLD_S
    assert house.account().content == 3


async def test_absence_is_read_twice() -> None:
    """N7: one odd 404 removes nobody."""
    house = House()
    await hired(house)
    present = house.directory.people.pop((TENANT, "00u1"))
    reads = 0
    ask = house.directory.person

    async def flickering(*args: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 2:
            house.directory.put(present)
        return await ask(*args)

    swap(house.directory, "person", flickering)
    assert (await house.look()).ending is Ending.CONVERGED
    assert house.account().active
    assert reads == 2
    del house.directory.people[TENANT, "00u1"]
    reads = 10
    await house.look()
    assert not house.account().active


# --- whose account (D21, E2) ----------------------------------------------------------------------------------------------


async def test_an_account_that_was_there_before_is_not_opened_without_a_link() -> None:
    house = House()
    house.box.add("00u1@acme.test")
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.PARKED, "unlinked")
    assert house.box.effects == []
    house.links.link("00u1", next(iter(house.box.accounts)))
    assert (await house.look()).ending is Ending.CONVERGED
    assert house.account().grants == SALES


async def test_an_account_that_was_there_before_is_closed_by_its_exact_key() -> None:
    house = House()
    house.box.add("00U1@Acme.test", grants=dict(SALES))
    gone(house)
    assert (await house.look()).ending is Ending.CONVERGED
    state = next(iter(house.box.accounts.values()))
    assert (state.active, state.grants) == (False, {})


async def test_of_several_matches_none_is_touched() -> None:
    house = House()
    house.box.add("00u1@acme.test")
    house.box.add("00U1@acme.test")
    gone(house)
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.PARKED, "several")
    assert house.box.effects == []


@pytest.mark.parametrize("status", [PersonStatus.ACTIVE, PersonStatus.DEPROVISIONED])
async def test_a_reused_login_never_reaches_the_account_of_somebody_else(status: PersonStatus) -> None:
    house = House((person(status=status),))
    house.links.link("00uother", house.box.add("00u1@acme.test"))
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.PARKED, "linked_elsewhere")
    assert house.box.effects == []


async def test_a_link_is_followed_by_id_when_the_login_changed() -> None:
    house = House()
    await hired(house)
    house.account().login = "married@acme.test"
    gone(house)
    await house.look()
    assert [state.active for state in house.box.accounts.values()] == [False]


async def test_a_creation_that_finds_the_login_taken_is_a_case_and_leaves_no_wish_behind() -> None:
    house = House()
    house.box.on_call = lambda change: house.box.accounts.update({"7": house.box.accounts.get("7") or _state()})
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.PARKED, "account_exists")
    house.box.on_call = lambda change: None
    again = await house.look()
    assert (again.ending, again.code) == (Ending.PARKED, "unlinked")
    assert house.account().grants == {}


def _state() -> Any:
    from tests.handlers.fakes import State

    return State("00u1@acme.test")


# --- faults (35, 36, 37) --------------------------------------------------------------------------------------------------

LOST: list[Fault] = ["timeout_after", "503_after", "crash_after", "kill_after"]
NOT_DONE: list[Fault] = ["timeout_before", "503", "429", "crash_before", "kill_before"]


@pytest.mark.fault(35)
@pytest.mark.parametrize("fault", [*LOST, *NOT_DONE])
@pytest.mark.parametrize("at", range(5))
async def test_a_lost_answer_never_causes_a_second_effect(fault: Fault, at: int) -> None:
    """Whichever of the five calls of a hire it hits, and whether the process died there: one account, one effect per change."""
    house = House()
    house.box.faults.extend([None] * at + [fault])
    for _ in range(4):
        try:
            outcome = await house.look()
        except (asyncio.CancelledError, Killed):
            for row in house.journal.open():
                await house.converger.resume(row)
            continue
        if outcome.ending is Ending.CONVERGED:
            break
    assert outcome.ending is Ending.CONVERGED
    assert house.account().grants == SALES
    assert house.links.links[TENANT, "00u1", "box"].account in house.box.accounts
    changed = [one.change.label for one in house.box.effects if one.changed]
    assert len(changed) == len(set(changed)) == 5
    assert all(row.status is not ActionStatus.INTENDED for row in house.journal.rows.values())


@pytest.mark.fault(35)
@pytest.mark.parametrize("fault", ["timeout_after", "503_after"])
async def test_an_effect_without_an_answer_is_read_back_in_the_same_look(fault: Fault) -> None:
    house = House()
    await hired(house)
    house.directory.set("00u1", department="Legal")
    house.account().grants.pop(("folder", "Sales"))
    house.box.faults.append(fault)
    outcome = await house.look()
    assert outcome.ending is Ending.CONVERGED
    (row,) = outcome.actions
    assert (row.status, row.observed is not None) == (ActionStatus.DONE, True)
    assert row.detail.startswith("read back after")
    assert len(house.box.effects) == 1


@pytest.mark.fault(35)
async def test_a_call_without_effect_is_reported_as_such_and_retried_later() -> None:
    house = House()
    house.box.faults.append("timeout_before")
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.RETRY, "OutcomeUnknown")
    (row,) = outcome.actions
    assert row.status is ActionStatus.FAILED
    assert "no effect" in row.detail


@pytest.mark.fault(35)
async def test_an_account_that_our_lost_call_created_is_ours_whenever_it_appears() -> None:
    """The call landed after we had given up and looked: the next look takes it for ours, and creates nothing twice."""
    house = House()
    house.box.faults.append("timeout_before")
    await house.look()
    house.box.add("00u1@acme.test")
    assert (await house.look()).ending is Ending.CONVERGED
    assert house.account().grants == SALES
    assert "create 00u1@acme.test" not in house.box.labels()
    link = await house.links.find(TENANT, "00u1", "box")
    assert link is not None
    assert house.box.accounts[link.account] is house.account()


@pytest.mark.parametrize("fault", ["429", "403"])
async def test_an_account_that_appears_after_a_call_that_had_no_effect_is_not_ours(fault: Fault) -> None:
    house = House()
    house.box.faults.append(fault)
    await house.look()
    house.box.add("00u1@acme.test")
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.PARKED, "unlinked")


@pytest.mark.fault(35)
async def test_an_account_that_is_not_listed_yet_is_adopted_when_the_login_turns_out_taken() -> None:
    """The search lags: creation is called again, the login is taken, and the older wish says that it is ours."""
    house = House()
    house.box.faults.append("timeout_after")
    observe = house.box.observe

    async def lagging(who: Any, link: Any, lane: Any) -> Any:
        seen = await observe(who, link, lane)
        return type(seen)(None) if link is None else seen

    swap(house.box, "observe", lagging)
    assert (await house.look()).ending is Ending.RETRY
    assert (await house.look()).ending is Ending.CONVERGED
    assert len(house.box.accounts) == 1
    assert house.account().grants == SALES


@pytest.mark.fault(36)
async def test_503_is_retried_and_what_stands_already_is_success() -> None:
    house = House()
    house.box.faults.append("503")
    assert (await house.look()).ending is Ending.RETRY
    assert (await house.look()).ending is Ending.CONVERGED
    gone(house)
    house.box.on_call = lambda change: setattr(house.account(), "active", False)  # somebody was faster
    outcome = await house.look()
    assert outcome.ending is Ending.CONVERGED
    assert outcome.actions[0].status is ActionStatus.ALREADY


@pytest.mark.fault(36)
async def test_an_account_that_is_gone_is_made_anew_for_whoever_is_there() -> None:
    house = House()
    await hired(house)
    house.box.accounts.clear()
    assert (await house.look()).ending is Ending.CONVERGED
    assert house.account().grants == SALES
    house.box.accounts.clear()
    gone(house)
    house.box.effects.clear()
    assert (await house.look()).ending is Ending.CONVERGED
    assert house.box.effects == []


@pytest.mark.fault(37)
async def test_the_wait_that_a_vendor_asks_for_is_handed_on() -> None:
    house = House()
    house.box.faults.append("429")
    outcome = await house.look()
    assert (outcome.ending, outcome.code, outcome.delay) == (Ending.RETRY, "RateLimited", 7.0)
    assert [row.status for row in outcome.actions] == [ActionStatus.FAILED]


async def test_a_refused_object_is_parked_and_the_rest_goes_on() -> None:
    house = House()
    house.box.refuses["grant folder Sales"] = "forbidden"
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.PARKED, "forbidden")
    assert "grant folder Sales" in outcome.reason
    assert ("folder", "Sales") not in house.account().grants
    assert house.account().grants.keys() == SALES.keys() - {("folder", "Sales")}
    assert house.journal.statuses()["grant folder Sales"] == "parked"


async def test_refused_credentials_wait_for_the_breaker_and_park_nobody() -> None:
    house = House()
    house.box.faults.append("401")
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.RETRY, "credentials")
    assert len(outcome.actions) == 1
    house.box.faults.extend([None] * 4 + ["401"])
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.RETRY, "credentials")
    assert (await house.look()).ending is Ending.CONVERGED


async def test_an_account_that_a_target_took_for_made_is_a_case_without_a_wish_of_ours() -> None:
    """A target that adopts what carries the login, on its own account, opens nothing all the same."""
    house = House()
    other = house.box.add("00u1@acme.test")
    swap(house.box, "observe", _blind)
    effect = house.box._effect
    adopting = lambda change, *rest: effect(change.model_copy(update={"args": change.args | {"adopt": True}}), *rest)  # noqa: E731
    swap(house.box, "_effect", adopting)
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.PARKED, "unlinked")
    assert house.box.accounts[other].grants == {}
    assert [one.change.kind for one in house.box.effects] == [ChangeKind.CREATE]


async def _blind(*args: Any) -> Observation:
    return Observation(None)


async def test_what_was_acknowledged_is_not_called_for_again_beside_something_new() -> None:
    house = House()
    await hired(house)
    house.directory.set("00u1", department="Finance")
    change_state, stuck = house.box._change_state, []

    def lagging(state: Any, change: Change) -> None:
        if change.label == "revoke folder Sales":
            stuck.append(change)
            state.grants["folder", "Engineering"] = "viewer"  # something new for the second round
        else:
            change_state(state, change)

    swap(house.box, "_change_state", lagging)
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.RETRY, "remains")
    assert len(stuck) == 1
    assert "revoke folder Engineering" in house.box.labels()


async def test_a_transfer_that_goes_on_at_the_vendor_is_not_ordered_twice() -> None:
    house = House((person(manager_id="00uboss"), BOSS))
    leaving(house)
    gone(house)
    house.clock.shift(TRANSFER_HOLD_S)
    change_state = house.box._change_state
    swap(house.box, "_change_state", lambda state, one: None if one.kind is ChangeKind.TRANSFER else change_state(state, one))
    assert (await house.look()).ending is Ending.CONVERGED
    assert house.box.labels().count("transfer content") == 1


async def test_no_policy_can_make_a_suspension_hand_content_over() -> None:
    house = House((person(manager_id="00uboss"), BOSS))
    leaving(house)
    gone(house, PersonStatus.SUSPENDED)
    house.clock.shift(TRANSFER_HOLD_S)
    real = house.policy

    class Eager:
        def desired(self, who: Any, *args: Any, manager: Any = None, **more: Any) -> Any:
            wish = real.desired(who, *args, **more)
            return wish.model_copy(update={"transfer_to": manager.id}) if wish and manager else wish

    swap(house.converger.looker, "policy", Eager())
    await house.look()
    assert house.account().content == 3


async def test_an_okta_that_cannot_be_read_is_no_absence() -> None:
    house = House()
    await hired(house)
    house.directory.faults.append(TemporaryError("Okta is down", delay=3.0))
    outcome = await house.look()
    assert (outcome.ending, outcome.delay) == (Ending.RETRY, 3.0)
    house.directory.faults.append(Refused("no right to read", "E0000006"))
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.PARKED, "E0000006")
    assert house.account().active


async def test_a_look_that_fails_after_a_failed_call_reports_the_call() -> None:
    house = House()
    house.box.faults.append("429")
    house.box.on_call = lambda change: house.box.look_faults.append(TemporaryError("and now this"))
    outcome = await house.look()
    assert (outcome.code, outcome.delay) == ("RateLimited", 7.0)


async def test_a_target_that_does_not_show_what_it_acknowledged_is_asked_again_later_and_called_once() -> None:
    house = House()
    await hired(house)
    house.directory.set("00u1", department="Legal")
    swap(house.box, "_change_state", lambda state, change: None)
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.RETRY, "remains")
    assert outcome.delay
    assert house.box.labels() == ["revoke folder Sales", "revoke group Sales"]


async def test_ended_sessions_are_repeated_once_and_no_more() -> None:
    house = House()
    await hired(house)
    gone(house)
    house.box.faults.extend([None, "timeout_before", "timeout_before"])
    outcome = await house.look()
    assert outcome.ending is Ending.RETRY
    assert [row.change for row in outcome.actions].count("end_sessions sessions") == 2
    assert house.account().active is False


async def test_a_defect_in_a_target_leaves_no_open_row_and_is_not_swallowed() -> None:
    house = House()

    def explode(change: Change) -> None:
        raise ZeroDivisionError

    house.box.on_call = explode
    with pytest.raises(ZeroDivisionError):
        await house.look()
    assert [row.status for row in house.journal.rows.values()] == [ActionStatus.UNKNOWN]


async def test_a_fault_ends_the_process_and_is_no_outcome() -> None:
    house = House()
    house.directory.faults.append(FaultError("broken"))
    with pytest.raises(FaultError):
        await house.look()


@pytest.mark.fault(38)
async def test_a_call_that_is_cancelled_is_written_as_unknown() -> None:
    """D24: the call is cancelled first; its row says that nobody knows."""
    house = House()
    house.box.faults.append("crash_after")
    with pytest.raises(asyncio.CancelledError):
        await house.look()
    assert [row.status for row in house.journal.rows.values()] == [ActionStatus.UNKNOWN]


# --- Holds (D11, D18, N4) -------------------------------------------------------------------------------------------------


@pytest.mark.fault(39)
async def test_a_delayed_provision_after_a_lock_opens_nothing() -> None:
    house = House()
    house.holds.holds["h1"] = hold()
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.HELD, "hold")
    assert house.box.accounts == {}
    assert "h1" in outcome.reason


async def test_under_a_hold_what_closes_goes_on_and_what_opens_is_withheld() -> None:
    house = House()
    await hired(house)
    house.holds.holds["h1"] = hold()
    house.directory.set("00u1", department="Finance")
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.HELD, "hold")
    assert house.box.labels() == ["revoke folder Sales", "revoke group Sales"]
    assert "grant folder Finance" in outcome.reason


@pytest.mark.fault(45)
async def test_a_suspension_under_a_hold_is_no_leave() -> None:
    house = House()
    await hired(house)
    house.holds.holds["h1"] = hold()
    gone(house, PersonStatus.SUSPENDED)
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.HELD, "hold")
    assert house.account().grants == SALES
    assert house.box.effects == []


async def test_under_a_hold_nothing_irreversible_is_done() -> None:
    house = House((person(manager_id="00uboss"), BOSS))
    leaving(house)
    gone(house)
    house.clock.shift(TRANSFER_HOLD_S)
    house.holds.holds["h1"] = hold()
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.HELD, "hold")
    assert (house.account().active, house.account().content) == (False, 3)


async def test_a_hold_on_the_account_counts_whoever_it_was_placed_for() -> None:
    """Two tenants may share one Box: the Hold of another tenant's person covers the account."""
    house = House()
    await hired(house)
    account = next(iter(house.box.accounts))
    house.holds.holds["h9"] = hold("h9", person="00uelse", tenant="other", accounts=(("box", account),))
    house.directory.set("00u1", department="Finance")
    assert (await house.look()).ending is Ending.HELD
    assert not house.box.openings()


@pytest.mark.parametrize("reads", range(1, 9))
async def test_a_hold_that_appears_during_a_look_ends_in_containment_or_opens_nothing_more(reads: int) -> None:
    house = House()
    house.holds.appear_after[reads] = hold()
    seen_open: list[Effect] = []
    house.box.on_call = lambda change: seen_open.extend(
        [Effect("", "", change, True)] if "h1" in house.holds.holds and change.kind is not ChangeKind.REVOKE else []
    )
    outcome = await house.look()
    assert outcome.ending is Ending.HELD
    assert outcome.code == ("contain_again" if house.box.openings() else "hold")
    assert seen_open == []


async def test_a_hold_that_appears_while_the_last_call_is_out_is_seen_afterwards() -> None:
    house = House()
    calls: list[Change] = []

    def lock_at_the_last(change: Change) -> None:
        calls.append(change)
        if len(calls) == 5:
            house.holds.holds["h1"] = hold()

    house.box.on_call = lock_at_the_last
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.HELD, "contain_again")


async def test_a_dead_follower_stops_provisioning() -> None:
    house = House()
    house.holds.dead = True
    outcome = await house.look()
    assert outcome.ending is Ending.RETRY
    assert house.box.effects == []


async def test_a_follower_that_dies_after_we_opened_is_told() -> None:
    house = House()
    house.box.on_call = lambda change: setattr(house.holds, "dead", change.label == "grant group Sales")
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.RETRY, "holds")


# --- guards (N8, D19, D12) ------------------------------------------------------------------------------------------------


@pytest.mark.fault(43)
async def test_nothing_is_taken_from_protected_people() -> None:
    house = House((person("00ubreakglass", status=PersonStatus.DEPROVISIONED),))
    house.box.add("00ubreakglass@acme.test", grants=dict(SALES))
    outcome = await house.look("00ubreakglass")
    assert (outcome.ending, outcome.code) == (Ending.REFUSED, "protected")
    assert house.account("00ubreakglass").active
    assert house.box.effects == []


async def test_protected_people_may_be_given_something() -> None:
    house = House((person("00ubreakglass"),))
    assert (await house.look("00ubreakglass")).ending is Ending.CONVERGED


@pytest.mark.fault(44)
async def test_without_a_list_that_can_be_trusted_removals_hold_and_joins_go_on() -> None:
    house = House(protected=load_protected(None))
    await hired(house)
    house.directory.set("00u1", department="Finance")
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.REFUSED, "protected_list")
    assert house.account().grants == SALES


@pytest.mark.fault(43)
@pytest.mark.parametrize("code", ["privileged", "ours"])
async def test_administrators_and_our_own_identity_are_left_to_a_human(code: str) -> None:
    house = House()
    account = house.box.add("00u1@acme.test", privileged=code == "privileged")
    if code == "ours":
        house.protected = house.protected.with_own(accounts=[("box", account)])
        house.rewire()
    gone(house)
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.REFUSED, code)
    assert house.account().active


async def test_the_brake_is_asked_about_removals_and_stops_them() -> None:
    house = House()
    await hired(house)
    assert house.brake.asked == []
    house.brake.tripped = True
    gone(house)
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.REFUSED, "brake")
    assert house.account().active


@pytest.mark.parametrize("checks", range(10))
async def test_whoever_lost_the_partition_calls_nothing_more(checks: int) -> None:
    house = House()
    house.fence.left = checks
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.FENCED, "fenced")
    assert len(house.box.effects) == checks // 2
    assert len(house.journal.open()) == checks % 2


async def test_an_approval_binds_to_plan_and_state() -> None:
    house = House()
    (preview,) = [one for one in await house.converger.plan(TENANT, "00u1") if one.target == "box"]
    assert preview.plan is not None
    house.directory.set("00u1", department="Finance")
    outcome = await house.look(expect=preview.plan.hash)
    assert (outcome.ending, outcome.code) == (Ending.REFUSED, "moved")
    house.directory.set("00u1", department="Sales")
    assert (await house.look(expect=preview.plan.hash)).ending is Ending.CONVERGED


# --- dry run, previews, resuming ------------------------------------------------------------------------------------------


async def test_a_dry_run_writes_what_it_would_do_and_calls_nothing() -> None:
    house = House(dry_run=True)
    outcome = await house.look()
    assert outcome.ending is Ending.CONVERGED
    assert {row.status for row in house.journal.rows.values()} == {ActionStatus.PLANNED}
    assert len(house.journal.rows) == 5
    assert (house.box.accounts, house.links.links, house.brake.asked) == ({}, {}, [])


async def test_a_preview_shows_plan_wish_and_state_of_every_target_and_changes_nothing() -> None:
    house = House()
    previews = {one.target: one for one in await house.converger.plan(TENANT, "00u1")}
    assert previews["okta"].plan is None
    assert "does not speak" in previews["okta"].problem
    box = previews["box"]
    assert box.plan is not None
    assert box.desired is not None
    assert [one.kind.value for one in box.plan.changes] == ["create", *["grant"] * 4]
    assert box.problem == ""
    assert (house.journal.rows, house.links.links, house.box.effects) == ({}, {}, [])


async def test_a_preview_names_what_a_guard_would_say() -> None:
    house = House()
    house.box.add("00u1@acme.test")
    box = (await house.converger.plan(TENANT, "00u1"))[1]
    assert box.plan is not None
    assert "portcullis link" in box.problem
    house.box.accounts.clear()
    house.holds.holds["h1"] = hold()
    box = (await house.converger.plan(TENANT, "00u1"))[1]
    assert len(box.withheld) == 5
    gone(house, PersonStatus.SUSPENDED)
    assert "no leave" in (await house.converger.plan(TENANT, "00u1"))[1].problem


@pytest.mark.parametrize("effect", [True, False])
@pytest.mark.parametrize("what", ["create", "grant", "revoke", "deactivate", "update", "activate"])
async def test_a_row_left_open_by_a_crash_is_closed_by_reading_back(what: str, effect: bool) -> None:
    house = House()
    await _prepare(house, what)
    house.box.faults.append("kill_after" if effect else "kill_before")
    with pytest.raises(Killed):
        await house.look()
    (row,) = house.journal.open()
    assert row.change.startswith(what)
    calls = len(house.box.effects)
    closed = await house.converger.resume(row)
    assert closed.status is (ActionStatus.DONE if effect else ActionStatus.FAILED)
    assert house.journal.rows[row.intent] == closed
    assert len(house.box.effects) == calls
    assert (await house.look()).ending is Ending.CONVERGED
    repeats = [one.change.label for one in house.box.effects if one.changed]
    assert len(repeats) == len(set(repeats))


async def _prepare(house: House, what: str) -> None:
    if what == "create":
        return
    await hired(house)
    match what:
        case "grant":
            house.account().grants.pop(("folder", "Sales"))
        case "revoke":
            house.account().grants["folder", "Finance"] = "editor"
        case "update":
            house.account().attributes["space_amount"] = 1
        case "activate":
            house.account().active = False
        case "deactivate":
            gone(house)


@pytest.mark.parametrize("change", ["end_sessions sessions", "transfer content", "notify x", "something else"])
async def test_what_leaves_no_trace_is_closed_as_unknown(change: str) -> None:
    house = House()
    await hired(house)
    row = next(iter(house.journal.rows.values())).model_copy(update={"change": change, "status": ActionStatus.INTENDED, "intent": "i9"})
    house.journal.rows["i9"] = row
    assert (await house.converger.resume(row)).status is ActionStatus.UNKNOWN


async def test_a_row_stays_open_while_the_target_cannot_be_read() -> None:
    house = House()
    await hired(house)
    row = next(iter(house.journal.rows.values())).model_copy(update={"status": ActionStatus.INTENDED})
    house.box.look_faults.append(RateLimited("later"))
    with pytest.raises(RateLimited):
        await house.converger.resume(row)


async def test_a_level_changed_by_a_crashed_call_is_read_back_by_its_level() -> None:
    house = House()
    await hired(house)
    row = next(iter(house.journal.rows.values())).model_copy(
        update={"change": "update folder Sales", "after": {"level": "editor"}, "status": ActionStatus.INTENDED, "account": "101"}
    )
    house.journal.rows[row.intent] = row
    assert (await house.converger.resume(row)).status is ActionStatus.DONE
    house.account().grants["folder", "Sales"] = "viewer"
    assert (await house.converger.resume(row)).status is ActionStatus.FAILED


def test_the_fake_is_a_target() -> None:
    from handlers.contract import Target
    from tests.handlers.fakes import FakeJournal

    target: Target = FakeTarget("box", FakeJournal())
    assert target.kind == "box"
