"""Containment of all targets at once, the closing half of a leave, and drift under a Hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from handlers.containment import TargetResult
from handlers.protected import load_protected
from model.change import ActionStatus, Change, ChangeKind
from model.decision import Scope
from model.errors import Fenced, RateLimited, Refused, TemporaryError
from model.person import Hold, PersonStatus
from tests.handlers.fakes import TENANT, FakeTarget, hold, person, swap
from tests.handlers.house import House, order

FULL = order()
SESSIONS = order(scope=Scope.SESSIONS)
LEAVE = order("close")


def house(**facts: Any) -> House:
    built = House(**facts)
    built.links.link("00u1", built.box.add("00u1@acme.test", id="200"))
    return built


def states(result: Any) -> dict[str, str]:
    return {one.target: one.state for one in result.targets}


# --- contain --------------------------------------------------------------------------------------------------------------


async def test_everything_is_suspended_first_and_then_its_sessions_ended() -> None:
    at = house()
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert (result.state, result.page, result.retry) == ("contained", False, frozenset())
    assert states(result) == {"okta": "closed", "box": "closed"}
    for target in (at.okta, at.box):
        assert [one.change.kind for one in target.effects] == [ChangeKind.DEACTIVATE, ChangeKind.END_SESSIONS]
        assert all(one.lane == "lockdown" for one in target.effects)
    assert {row.incident for row in at.journal.rows.values()} == {"i-1"}


async def test_each_result_carries_its_times_and_an_independent_look() -> None:
    result = await house().lockdown.contain(FULL, hold(), "i-1")
    for one in result.targets:
        assert one.started is not None
        assert one.looked is not None
        assert one.answered is not None
        assert one.observed is not None
        assert [action.observed is not None for action in one.actions] == [True, False]


async def test_the_hold_is_durable_before_the_first_call_and_what_release_needs_before_each_targets_own() -> None:
    at = house()

    def check(change: Change) -> None:
        stands = at.holds.holds["h1"]
        assert ("box", "200") in stands.accounts
        assert ("okta", "00u1") in stands.accounts
        assert stands.restore[change.target] == {"status": "active"}

    at.box.on_call = at.okta.on_call = check
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    first = at.holds.written[0]
    assert first.restore == {}
    assert set(first.accounts) == {("okta", "00u1"), ("box", "200")}
    assert result.hold == at.holds.holds["h1"]
    assert set(result.hold.restore) == {"okta", "box"}


async def test_writes_of_a_hold_keep_their_order_although_kafka_answers_late() -> None:
    at = house()
    write = at.holds.write

    async def ever_faster(written: Hold) -> None:
        for _ in range(60 // (1 + len(written.restore) ** 2)):
            await asyncio.sleep(0)
        await write(written)

    swap(at.holds, "write", ever_faster)
    await at.lockdown.contain(FULL, hold(), "i-1")
    assert [len(one.restore) for one in at.holds.written] == [0, 1, 2]


async def test_without_a_durable_hold_nothing_is_called() -> None:
    at = house()

    async def down(written: Hold) -> None:
        raise TemporaryError("Kafka is down")

    swap(at.holds, "write", down)
    with pytest.raises(TemporaryError):
        await at.lockdown.contain(FULL, hold(), "i-1")
    assert at.okta.effects == at.box.effects == []


async def test_scope_sessions_suspends_nothing_and_writes_no_hold() -> None:
    at = house()
    result = await at.lockdown.contain(SESSIONS, None, "i-1")
    assert result.state == "contained"
    assert at.holds.written == []
    assert (at.account().active, at.account().sessions) == (True, 0)


async def test_an_order_again_repeats_what_its_hold_stands_for() -> None:
    """D11: provisioning met a Hold too late; what it opened is shut, and a Hold that leaves Okta out stays so."""
    at = house()
    first = await at.lockdown.contain(order(downstream=True), hold(), "i-1")
    at.account().active = True
    assert first.hold is not None
    result = await at.lockdown.contain(order("again"), first.hold, "i-1")
    assert states(result) == {"box": "closed"}
    assert not at.account().active
    assert at.okta.effects == []
    assert first.hold.restore == at.holds.holds["h1"].restore
    await at.lockdown.release(first.hold, actor="cara", reason="cleared")
    assert (await at.lockdown.contain(order("again"), first.hold, "i-1")).state == "superseded"


@pytest.mark.parametrize(("ordered", "given"), [(FULL, None), (SESSIONS, hold()), (order("approve"), hold()), (LEAVE, None)])
async def test_an_order_that_does_not_fit_is_a_defect(ordered: Any, given: Any) -> None:
    with pytest.raises(ValueError, match="contain takes orders"):
        await house().lockdown.contain(ordered, given, "i-1")


async def test_downstream_leaves_okta_out() -> None:
    at = house()
    result = await at.lockdown.contain(order(downstream=True), hold(), "i-1")
    assert states(result) == {"box": "closed"}
    assert at.okta.effects == []
    assert result.hold is not None
    assert "okta" not in dict(result.hold.accounts)


async def test_no_account_is_nothing_to_close() -> None:
    at = House()
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert result.state == "contained"
    assert states(result) == {"okta": "closed", "box": "nothing"}


async def test_an_account_without_a_link_is_found_by_its_exact_key() -> None:
    at = House()
    at.box.add("00U1@acme.test", id="300")
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert states(result)["box"] == "closed"
    assert not at.box.accounts["300"].active
    assert result.hold is not None
    assert ("box", "300") in result.hold.accounts


async def test_a_link_to_an_account_that_is_gone_falls_back_to_the_key() -> None:
    at = house()
    at.box.accounts["201"] = at.box.accounts.pop("200")
    assert states(await at.lockdown.contain(FULL, hold(), "i-1"))["box"] == "closed"


async def test_of_several_matches_none_is_closed_and_a_human_is_paged() -> None:
    at = House()
    at.box.add("00u1@acme.test")
    at.box.add("00U1@acme.test")
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert (result.state, result.page, result.retry) == ("partial", True, frozenset())
    assert result.targets[1].code == "several"
    assert at.box.effects == []


async def test_the_account_of_somebody_else_is_not_closed() -> None:
    at = House()
    at.links.link("00uother", at.box.add("00u1@acme.test"))
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert (result.state, result.targets[1].code) == ("partial", "linked_elsewhere")
    assert at.box.effects == []


async def test_a_failed_look_does_not_hold_up_a_known_account() -> None:
    at = house()
    at.box.look_faults.append(TemporaryError("500"))
    at.okta.look_faults.append(Refused("403", "forbidden"))
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert result.state == "contained"
    assert result.targets[1].looked is None
    assert result.hold is not None
    assert result.hold.restore["box"] == {}


@pytest.mark.fault(38)
async def test_a_look_that_hangs_does_not_hold_up_a_known_account_nor_the_others() -> None:
    at = house()
    at.box.look_hangs = True
    reported: dict[str, float] = {}

    async def report(one: TargetResult) -> None:
        reported[one.target] = at.clock.monotonic()

    result = await at.lockdown.contain(FULL, hold(), "i-1", report)
    assert result.state == "contained"
    assert not at.account().active
    assert reported == {"okta": 0.0, "box": 3.0}


@pytest.mark.fault(38)
async def test_a_target_whose_calls_hang_delays_no_other() -> None:
    at = house()
    at.box.delay = 10_000
    done: list[str] = []

    async def report(one: TargetResult) -> None:
        done.append(one.target)

    task = asyncio.ensure_future(at.lockdown.contain(FULL, hold(), "i-1", report))
    for _ in range(400):
        await asyncio.sleep(0)
    assert done == ["okta"]
    assert at.okta.accounts["00u1"].active is False
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert at.journal.statuses()["deactivate 00u1@acme.test"] in ("unknown", "done")


@pytest.mark.fault(41)
async def test_a_partial_lockdown_is_reported_as_partial_and_the_rest_is_tried_again() -> None:
    at = house()
    at.box.faults.append("429")
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert (result.state, result.retry, result.delay, result.page) == ("partial", frozenset({"box"}), 7.0, True)
    assert states(result) == {"okta": "closed", "box": "failed"}
    assert at.account().sessions == 0
    again = await at.lockdown.contain(FULL, result.hold, "i-1", only=result.retry, attempt=2)
    assert again.state == "contained"
    assert len(at.okta.effects) == 2
    assert not at.account().active
    assert again.hold is not None
    assert again.hold.restore["box"] == {"status": "active"}


async def test_nothing_closed_anywhere_is_a_failure_and_not_partial() -> None:
    at = house()
    at.box.faults.extend(["503", "503"])
    at.okta.faults.extend(["503", "503"])
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert (result.state, result.retry) == ("failed", frozenset({"okta", "box"}))


async def test_sessions_are_ended_although_the_suspension_failed() -> None:
    at = house()
    at.okta.refuses["deactivate"] = "E0000001"
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert (result.state, result.page) == ("partial", True)
    assert at.okta.labels() == ["end_sessions sessions"]
    assert "deactivate" in result.reason


async def test_a_suspension_that_was_refused_because_it_stands_is_success() -> None:
    """D16: a 400, and the status is read: somebody else was faster."""
    at = house()
    at.okta.refuses["deactivate"] = "E0000001"
    at.okta.on_call = lambda change: None
    look = at.okta.look

    async def shut_after_the_first(account: str, lane: Any) -> Any:
        seen = await look(account, lane)
        at.okta.accounts["00u1"].active = False
        return seen

    swap(at.okta, "look", shut_after_the_first)
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert result.state == "contained"


@pytest.mark.fault(35)
async def test_a_suspension_whose_answer_was_lost_is_read_back() -> None:
    at = house()
    at.box.faults.append("timeout_after")
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert result.state == "contained"
    row = result.targets[1].actions[0]
    assert (row.status, row.observed is not None) == (ActionStatus.DONE, True)
    assert [one.change.kind for one in at.box.effects] == [ChangeKind.DEACTIVATE, ChangeKind.END_SESSIONS]


async def test_a_directory_that_lags_delays_the_observation_and_not_the_report() -> None:
    at = house()
    look, reported = at.okta.look, []

    async def lagging(account: str, lane: Any) -> Any:
        seen = await look(account, lane)
        return seen.model_copy(update={"active": True}) if seen and at.clock.monotonic() < 1 else seen

    async def report(one: TargetResult) -> None:
        reported.append((one.target, one.state, at.clock.monotonic()))

    swap(at.okta, "look", lagging)
    result = await at.lockdown.contain(FULL, hold(), "i-1", report)
    okta = result.targets[0]
    assert ("okta", "closed", 0.0) in reported
    assert okta.answered is not None
    assert okta.observed is not None
    assert (okta.observed - okta.answered).total_seconds() > 1


@pytest.mark.fault(43)
async def test_protected_people_are_refused_and_paged() -> None:
    at = House((person("00ubreakglass"),))
    result = await at.lockdown.contain(order(who="00ubreakglass"), hold(person="00ubreakglass"), "i-1")
    assert (result.state, result.code, result.page) == ("refused", "protected", True)
    assert (at.okta.effects, at.holds.written, at.journal.rows) == ([], [], {})


@pytest.mark.fault(44)
async def test_without_a_list_that_can_be_trusted_nobody_is_locked() -> None:
    at = House(protected=load_protected(None))
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert (result.state, result.code) == ("refused", "protected_list")
    assert at.okta.effects == []


@pytest.mark.fault(43)
async def test_an_administrators_sessions_end_and_a_human_suspends() -> None:
    at = house()
    at.account().privileged = True
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    box = result.targets[1]
    assert (result.state, box.state, box.code, box.page, box.retry) == ("partial", "refused", "privileged", True, False)
    assert at.box.labels() == ["end_sessions sessions"]


@pytest.mark.fault(43)
async def test_our_own_service_identity_is_not_touched() -> None:
    at = house()
    at.protected = at.protected.with_own(accounts=[("box", "200")])
    at.rewire()
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert result.targets[1].code == "ours"
    assert at.box.effects == []


async def test_a_retry_dies_with_its_hold() -> None:
    at = house()
    at.box.faults.append("503")
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert result.hold is not None
    await at.lockdown.release(result.hold, actor="cara", reason="false alarm")
    calls = len(at.box.effects)
    again = await at.lockdown.contain(FULL, result.hold, "i-1", only=result.retry, attempt=2)
    assert again.state == "superseded"
    assert len(at.box.effects) == calls
    assert at.account().active


async def test_a_repeated_order_finds_everything_shut_and_keeps_what_release_needs() -> None:
    """kill -9 after the calls: the order comes again, and the look sees what we closed ourselves."""
    at = house()
    first = await at.lockdown.contain(FULL, hold(), "i-1")
    second = await at.lockdown.contain(FULL, at.holds.holds["h1"], "i-1")
    assert second.state == "contained"
    assert second.hold is not None
    assert first.hold is not None
    assert second.hold.restore == first.hold.restore
    assert [one.changed for one in at.box.effects] == [True, True, False, False]


async def test_a_repeat_after_an_unseen_closing_does_not_take_our_own_state_for_what_was_there() -> None:
    at = house()
    at.box.look_faults.append(TemporaryError("500"))
    await at.lockdown.contain(FULL, hold(), "i-1")
    again = await at.lockdown.contain(FULL, at.holds.holds["h1"], "i-1")
    assert again.hold is not None
    assert again.hold.restore["box"] == {}


@pytest.mark.fault(30)
@pytest.mark.parametrize(("failing", "calls"), [(1, ["end_sessions"]), (2, ["deactivate", "end_sessions"])])
async def test_a_repeat_looks_twice_before_it_closes_unseen(failing: int, calls: list[str]) -> None:
    """kill -9 after the calls, and then a look that a reset ate: what stands already is not called for again. A vendor whose looks
    keep failing does not keep an account open."""
    at = house()
    await at.lockdown.contain(FULL, hold(), "i-1")
    at.box.look_faults.extend([TemporaryError("reset")] * failing)
    again = await at.lockdown.contain(FULL, at.holds.holds["h1"], "i-1", attempt=2)
    assert again.state == "contained"
    assert [one.change.kind.value for one in at.box.effects[2:]] == calls


@pytest.mark.parametrize("checks", range(12))
async def test_whoever_lost_the_partition_calls_nothing_more(checks: int) -> None:
    at = house()
    at.fence.left = checks
    if checks < 9:
        with pytest.raises(Fenced):
            await at.lockdown.contain(FULL, hold(), "i-1")
    else:
        await at.lockdown.contain(FULL, hold(), "i-1")
    assert len(at.okta.effects) + len(at.box.effects) <= checks // 2


async def test_a_dry_run_calls_nothing_and_writes_no_hold() -> None:
    at = house(dry_run=True)
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert states(result) == {"okta": "planned", "box": "planned"}
    assert (at.okta.effects, at.box.effects, at.holds.written) == ([], [], [])
    assert {row.status for row in at.journal.rows.values()} == {ActionStatus.PLANNED}


async def test_okta_down_does_not_hold_up_a_linked_account() -> None:
    at = house()
    at.directory.faults.append(TemporaryError("Okta is down"))
    assert states(await at.lockdown.contain(FULL, hold(), "i-1"))["box"] == "closed"


async def test_okta_down_leaves_an_unlinked_account_to_a_retry() -> None:
    at = House()
    at.box.add("00u1@acme.test")
    at.directory.faults.append(TemporaryError("Okta is down", delay=2.0))
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert (states(result)["box"], result.retry, result.delay) == ("failed", frozenset({"box"}), 2.0)


async def test_two_targets_ask_okta_once_who_somebody_is() -> None:
    at = House()
    other = FakeTarget("box-us", at.journal)
    at.box.add("00u1@acme.test")
    other.add("00u1@acme.test")
    at.rewire(**{"box-us": other})
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert result.state == "contained"
    assert at.directory.reads == 1
    assert result.hold is not None
    assert len(result.hold.restore) == 3


# --- a leaver's closing half (D33, C65) -------------------------------------------------------------------------------------


def leaver(status: PersonStatus = PersonStatus.DEPROVISIONED) -> House:
    return house(people=(person(status=status),))


@pytest.mark.parametrize("status", [PersonStatus.DEPROVISIONED, PersonStatus.SUSPENDED])
async def test_a_leaver_is_closed_everywhere_but_in_okta_without_hold_or_incident(status: PersonStatus) -> None:
    at = leaver(status)
    result = await at.lockdown.close(LEAVE)
    assert (result.state, result.hold) == ("contained", None)
    assert states(result) == {"box": "closed"}
    assert (at.okta.effects, at.holds.written) == ([], [])
    assert {row.incident for row in at.journal.rows.values()} == {None}
    assert not at.account().active


@pytest.mark.fault(40)
async def test_whoever_is_back_is_not_closed() -> None:
    at = house()
    result = await at.lockdown.close(LEAVE)
    assert (result.state, at.box.effects) == ("superseded", [])


@pytest.mark.fault(45)
async def test_a_suspension_by_a_lockdown_of_ours_is_no_leave() -> None:
    at = leaver(PersonStatus.SUSPENDED)
    at.holds.holds["h1"] = hold()
    assert (await at.lockdown.close(LEAVE)).state == "superseded"
    assert at.box.effects == []


async def test_without_a_look_at_okta_nobody_is_closed() -> None:
    at = leaver()
    at.directory.faults.append(RateLimited("429", delay=4.0))
    with pytest.raises(RateLimited):
        await at.lockdown.close(LEAVE)
    assert at.box.effects == []


async def test_a_closing_counts_for_the_brake_and_a_lockdown_does_not() -> None:
    at = leaver()
    at.brake.tripped = True
    result = await at.lockdown.close(LEAVE)
    assert (result.state, result.code, result.page, result.retry) == ("failed", "brake", True, frozenset())
    assert at.box.effects == []
    assert [plan.target for plan in at.brake.asked] == ["box"]
    assert (await at.lockdown.contain(FULL, hold(), "i-1")).state == "contained"


@pytest.mark.fault(43)
async def test_a_protected_leaver_is_refused() -> None:
    at = House((person("00ubreakglass", status=PersonStatus.DEPROVISIONED),))
    assert (await at.lockdown.close(order("close", "00ubreakglass"))).code == "protected"


async def test_close_takes_orders_of_its_kind_only() -> None:
    with pytest.raises(ValueError, match="kind close"):
        await house().lockdown.close(FULL)


# --- drift under a Hold (N12) -----------------------------------------------------------------------------------------------


async def contained(at: House) -> Hold:
    result = await at.lockdown.contain(FULL, hold(), "i-1")
    assert result.hold is not None
    at.box.effects.clear()
    at.okta.effects.clear()
    return result.hold


async def test_what_is_shut_stays_shut_and_nobody_is_called() -> None:
    at = house()
    result = await at.lockdown.read_back(await contained(at))
    assert (result.page, [one.state for one in result.targets]) == (False, ["shut", "shut"])
    assert at.box.effects == at.okta.effects == []


async def test_whoever_was_opened_again_is_closed_again_and_paged() -> None:
    at = house()
    held = await contained(at)
    at.account().active = True
    result = await at.lockdown.read_back(held)
    assert (result.page, result.closed_again) == (True, frozenset({"box"}))
    assert not at.account().active
    assert at.box.labels() == ["deactivate 00u1@acme.test", "end_sessions sessions"]


async def test_a_second_time_it_is_left_to_a_human() -> None:
    at = house()
    held = await contained(at)
    at.account().active = True
    result = await at.lockdown.read_back(held, closed_before={"box"})
    assert (result.page, result.closed_again) == (True, frozenset())
    assert result.targets[1].state == "open"
    assert at.box.effects == []


@pytest.mark.fault(39)
async def test_an_account_that_a_late_call_created_is_found_and_closed() -> None:
    at = House()
    held = await contained(at)
    at.box.add("00u1@acme.test", id="400")
    result = await at.lockdown.read_back(held)
    assert result.closed_again == {"box"}
    assert result.hold is not None
    assert ("box", "400") in result.hold.accounts
    assert result.hold.restore["box"] == {"status": "active"}


async def test_what_cannot_be_read_is_tried_again() -> None:
    at = house()
    held = await contained(at)
    at.box.look_faults.append(TemporaryError("500"))
    result = await at.lockdown.read_back(held)
    assert (result.retry, result.page) == (frozenset({"box"}), False)
    assert at.box.effects == []


async def test_a_closing_again_that_fails_is_paged_and_tried_again() -> None:
    at = house()
    held = await contained(at)
    at.account().active = True
    at.box.faults.append("503")
    result = await at.lockdown.read_back(held)
    assert (result.page, result.retry, result.targets[1].state) == (True, frozenset({"box"}), "open")


async def test_after_a_release_nobody_is_closed_again() -> None:
    at = house()
    held = await contained(at)
    await at.lockdown.release(held, actor="cara", reason="cleared")
    result = await at.lockdown.read_back(held)
    assert (result.targets, result.page) == ((), False)
    assert at.account().active


async def test_a_downstream_hold_never_looks_at_okta() -> None:
    at = house()
    result = await at.lockdown.contain(order(downstream=True), hold(), "i-1")
    assert result.hold is not None
    drift = await at.lockdown.read_back(result.hold)
    assert [one.target for one in drift.targets] == ["box"]


# --- rows left open -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [True, False])
async def test_a_row_left_open_is_closed_by_reading_back(effect: bool) -> None:
    at = house()
    await contained(at)
    row = next(one for one in at.journal.rows.values() if one.target == "box" and one.change.startswith("deactivate"))
    at.account().active = not effect
    closed = await at.lockdown.resume(row.model_copy(update={"status": ActionStatus.INTENDED}))
    assert closed.status is (ActionStatus.DONE if effect else ActionStatus.FAILED)
    assert at.box.effects == []


async def test_a_row_at_a_target_that_is_configured_no_longer_does_not_stay_open() -> None:
    at = house()
    await contained(at)
    row = next(iter(at.journal.rows.values())).model_copy(update={"target": "sharepoint", "status": ActionStatus.INTENDED})
    assert (await at.lockdown.resume(row)).status is ActionStatus.UNKNOWN
    assert (await at.converger.resume(row)).status is ActionStatus.UNKNOWN


def test_the_targets_of_one_tenant_are_not_those_of_another() -> None:
    at = house()
    assert at.lockdown._targets("other") == []
    assert [one.name for one in at.lockdown._targets(TENANT)] == ["okta", "box"]
