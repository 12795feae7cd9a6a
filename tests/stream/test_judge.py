"""From a verdict to what is published: age, brakes and guards, each once, and what lowers a response is said."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from handlers.protected import ProtectedList, load_protected
from model.decision import Finding, Moment, Response, Scope, Severity, Verdict
from model.records import EventRef, called
from model.settings import BrakeSettings
from stream.judge import BrakeState, Judge, Judgement, LockdownBrake
from tests.handlers.fakes import NOON

TENANT = "acme"
OURS = "00uservice"
LIST = ProtectedList("loaded", {(TENANT, "00uglass"): "break glass"})


def finding(person: str | None = "00uann", response: Response = Response.LOCKDOWN, rule: str = "r-1", **facts: Any) -> Finding:
    base: dict[str, Any] = {"rule_version": "1", "title": "T", "severity": Severity.HIGH, "scope": Scope.FULL}
    return Finding(rule=rule, response=response, person=person, **(base | facts))


def verdict(*findings: Finding, life: Moment = Moment.NONE, people: tuple[str, ...] = ("00uann",), moment: Moment | None = None) -> Verdict:
    threat = any(one.response is not Response.ALERT for one in findings)
    return Verdict(moment or (Moment.THREAT if threat else life), life, people, findings)


def judge(brakes: BrakeSettings | None = None, shield: ProtectedList = LIST, state: BrakeState | None = None, **facts: Any) -> Judge:
    brake = LockdownBrake(brakes or BrakeSettings(), state)
    return Judge(TENANT, timedelta(minutes=15), shield, brake, frozenset({OURS}), **facts)


def ref(uuid: str = "e-1", published: datetime | None = NOON, received: datetime = NOON) -> EventRef:
    return EventRef(uuid=uuid, event_type="user.risk.detect", published=published, received=received)


def judged(verdict: Verdict, *, at: datetime = NOON, by: Judge | None = None, event: Any = None, **facts: Any) -> Judgement:
    return (by or judge()).judge(event or {}, verdict, ref(**facts), at)


def responses(judgement: Judgement) -> list[Response]:
    return [one.response for one in judgement.record.decisions]


# --- age ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "locks"), [(0, True), (900, True), (901, False), (86400, False), (-3600, True)])
def test_a_threat_older_than_the_limit_is_alerted_never_locked(age: int, locks: bool) -> None:
    """S4, D3."""
    for response in (Response.LOCKDOWN, Response.APPROVE):
        judgement = judged(verdict(finding(response=response)), published=NOON - timedelta(seconds=age))
        (decision,) = judgement.record.decisions
        assert (decision.response is response) == locks
        assert decision.expired is not locks
        assert decision.asked is response
        assert bool(judgement.orders) == locks
        if not locks:
            assert decision.response is Response.ALERT
            assert "max_action_age" in decision.why


def test_an_event_without_a_readable_time_is_as_old_as_its_receipt() -> None:
    old = judged(verdict(finding()), published=None, received=NOON - timedelta(hours=1))
    assert responses(old) == [Response.ALERT]
    assert responses(judged(verdict(finding()), published=None)) == [Response.LOCKDOWN]


def test_knocks_have_no_age() -> None:
    judgement = judged(verdict(life=Moment.LEAVE), published=NOON - timedelta(days=90))
    assert [one.person for one in judgement.knocks] == ["00uann"]
    assert [one.kind for one in judgement.orders] == ["close"]


def test_why_a_guard_lowered_a_response_is_kept_beside_why_we_did() -> None:
    lowered = finding(response=Response.APPROVE, asked=Response.LOCKDOWN, why="on holiday")
    fresh, old = judged(verdict(lowered)), judged(verdict(lowered), published=NOON - timedelta(days=1))
    (decision,), (expired,) = fresh.record.decisions, old.record.decisions
    assert (decision.asked, decision.response, decision.why) == (Response.LOCKDOWN, Response.APPROVE, "on holiday")
    assert (expired.asked, expired.response) == (Response.LOCKDOWN, Response.ALERT)
    assert expired.why.startswith("on holiday; the event is 86400 s old")


ANN_AS_TOLD = {"id": "00uann", "type": "User", "displayName": "Ann Lee", "alternateId": "ann@acme.test"}


@pytest.mark.parametrize(
    ("event", "who"),
    [
        ({"target": [{"id": "00uann", "type": "AppUser", "displayName": "Not this"}, ANN_AS_TOLD]}, "Ann Lee, ann@acme.test"),
        ({"target": None, "actor": ANN_AS_TOLD}, "Ann Lee, ann@acme.test"),
        ({"target": [ANN_AS_TOLD | {"displayName": None}]}, "ann@acme.test"),
        ({"target": [ANN_AS_TOLD | {"displayName": ["x"], "alternateId": "unknown"}]}, ""),
        ({"target": [ANN_AS_TOLD | {"displayName": "x" * 5000}]}, "x" * 100 + ", ann@acme.test"),
        ({"target": [ANN_AS_TOLD | {"displayName": "a\ud800"}]}, "a\ud800, ann@acme.test"),
        ({"target": [ANN_AS_TOLD | {"id": "00ubob"}], "actor": "x"}, ""),
        ({}, ""),
    ],
)
def test_a_decision_says_what_the_event_calls_the_person(event: dict[str, Any], who: str) -> None:
    judgement = judged(verdict(finding()), event=event)
    assert judgement.record.decisions[0].who == who
    (order,) = judgement.orders
    assert called(order.decisions) == who
    assert order.to_bytes()


# --- whom ------------------------------------------------------------------------------------------------------------------


@pytest.mark.fault(43)
def test_protected_people_are_never_locked_by_themselves() -> None:
    judgement = judged(verdict(finding("00uglass"), people=("00uglass",)))
    assert responses(judgement) == [Response.APPROVE]
    assert [one.kind for one in judgement.orders] == ["approve"]


@pytest.mark.fault(44)
def test_a_list_that_cannot_be_trusted_turns_every_lockdown_into_an_approval() -> None:
    for shield in (load_protected(None), ProtectedList("empty", {})):
        judgement = judged(verdict(finding()), by=judge(shield=shield))
        assert responses(judgement) == [Response.APPROVE]
        assert "cannot be trusted" in judgement.record.decisions[0].why


@pytest.mark.fault(45)
@pytest.mark.parametrize(
    "event", [{"actor": {"id": OURS}}, {"actor": {"id": "00uadmin"}, "transaction": {"detail": {"requestApiTokenClientId": OURS}}}]
)
def test_our_own_action_causes_nothing(event: dict[str, Any]) -> None:
    """D5: no loop; but it is recorded, and a rule that fired is still seen."""
    judgement = judged(verdict(finding(), life=Moment.LEAVE), event=event)
    assert (judgement.knocks, judgement.orders) == ([], [])
    assert responses(judgement) == [Response.ALERT]
    assert judgement.record.people == ("00uann",)


@pytest.mark.parametrize(
    "event", [{"actor": None}, {"actor": []}, {"actor": {"id": 5}}, {"transaction": {"detail": "x"}}, {"actor": {"id": {}}}]
)
def test_an_odd_actor_is_not_ours(event: dict[str, Any]) -> None:
    assert len(judged(verdict(life=Moment.JOIN), event=event).knocks) == 1


@pytest.mark.fault(21)
def test_nobody_or_several_are_recorded_and_alerted_and_nobody_is_touched() -> None:
    for people in ((), ("00uann", "00ubob")):
        judgement = judged(verdict(finding(None), life=Moment.MOVE, people=people))
        assert responses(judgement) == [Response.ALERT]
        assert (judgement.knocks, judgement.orders) == ([], [])
        assert judgement.record.people == people


def test_an_alert_orders_nothing_whomever_it_names() -> None:
    for person in ("00uglass", "00uann", None):
        judgement = judged(verdict(finding(person, Response.ALERT)))
        assert responses(judgement) == [Response.ALERT]
        assert judgement.orders == []
        assert judgement.record.decisions[0].why == ""


# --- orders and knocks ---------------------------------------------------------------------------------------------------------


def test_one_order_a_person_as_wide_as_the_widest_of_its_decisions() -> None:
    """D15: full beats sessions, and Okta is left out only where every decision leaves it out."""
    found = [finding(rule="r-1", scope=Scope.SESSIONS, downstream=True), finding(rule="r-2", scope=Scope.FULL, downstream=False)]
    (order,) = judged(verdict(*found)).orders
    assert (order.kind, order.scope, order.downstream) == ("lockdown", Scope.FULL, False)
    assert [one.rule for one in order.decisions] == ["r-1", "r-2"]
    (narrow,) = judged(verdict(finding(scope=Scope.SESSIONS, downstream=True))).orders
    assert (narrow.scope, narrow.downstream) == (Scope.SESSIONS, True)


def test_approvals_and_lockdowns_of_one_person_are_two_orders() -> None:
    judgement = judged(verdict(finding(rule="r-1"), finding(rule="r-2", response=Response.APPROVE)))
    assert sorted(one.kind for one in judgement.orders) == ["approve", "lockdown"]


def test_a_leave_knocks_and_orders_the_closing_half() -> None:
    """D33."""
    judgement = judged(verdict(life=Moment.LEAVE))
    assert [(one.kind, one.decisions) for one in judgement.orders] == [("close", ())]
    assert [one.moment for one in judgement.knocks] == [Moment.LEAVE]
    for moment in (Moment.JOIN, Moment.MOVE):
        judgement = judged(verdict(life=moment))
        assert (len(judgement.knocks), judgement.orders) == (1, [])


def test_a_threat_that_is_a_moment_of_life_too_is_both() -> None:
    """D2: threat wins as the moment; the life moment still knocks."""
    judgement = judged(verdict(finding(), life=Moment.LEAVE))
    assert judgement.record.moment is Moment.THREAT
    assert sorted(one.kind for one in judgement.orders) == ["close", "lockdown"]
    assert len(judgement.knocks) == 1


def test_a_group_event_knocks_its_groups_by_safe_ids_only() -> None:
    event = {
        "target": [
            {"type": "UserGroup", "id": "00g1"},
            {"type": "UserGroup", "id": "00g1"},
            {"type": "UserGroup", "id": "../users"},
            {"type": "UserGroup", "id": None},
            {"type": "AppInstance", "id": "0oa1"},
            "odd",
        ]
    }
    judgement = judged(verdict(life=Moment.GROUP, people=()), event=event)
    assert [(one.person, one.group) for one in judgement.knocks] == [("group/00g1", "00g1")]
    assert judged(verdict(life=Moment.GROUP, people=()), event={"target": None}).knocks == []


def test_the_same_event_gives_the_same_ids_whenever_it_is_judged() -> None:
    """A redelivery falls on the ids of what was published before (D9)."""
    found = verdict(finding(), finding(rule="r-2", response=Response.ALERT), life=Moment.LEAVE)
    first, second = judged(found), judged(found, at=NOON + timedelta(seconds=30))
    assert first.record.id == second.record.id
    for name in ("orders", "knocks"):
        assert [one.id for one in getattr(first, name)] == [one.id for one in getattr(second, name)]
    assert [one.id for one in first.record.decisions] == [one.id for one in second.record.decisions]
    other = judged(found, uuid="e-2")
    assert not {one.id for one in first.orders} & {one.id for one in other.orders}
    ids = [one.id for one in first.orders] + [one.id for one in first.knocks] + [one.id for one in first.record.decisions]
    assert len(set(ids)) == len(ids) == 2 + 1 + 2


# --- the brake ----------------------------------------------------------------------------------------------------------------------


def lock(by: Judge, who: str, at: datetime = NOON) -> Judgement:
    return judged(verdict(finding(who), people=(who,)), by=by, at=at, uuid=f"e-{who}", published=at)


def test_the_limit_is_exact_and_trips_once() -> None:
    by = judge(BrakeSettings(lockdown_count=3))
    judgements = [lock(by, f"00u{number}") for number in range(5)]
    assert [responses(one)[0] for one in judgements] == [Response.LOCKDOWN] * 3 + [Response.APPROVE] * 2
    (notice,) = [notice for one in judgements for notice in one.notices]
    assert (notice.topic, notice.severity, notice.facts["people"]) == ("brake", Severity.CRITICAL, 3)
    assert f"portcullis brakes reset lockdown:{TENANT}" in notice.remedy


def test_one_person_counts_once_and_is_let_through_again() -> None:
    by = judge(BrakeSettings(lockdown_count=1))
    assert [responses(lock(by, "00uann"))[0] for _ in range(4)] == [Response.LOCKDOWN] * 4
    assert responses(lock(by, "00ubob")) == [Response.APPROVE]
    assert responses(lock(by, "00uann")) == [Response.LOCKDOWN], "what was let through within the window stays so"


def test_the_window_slides_but_a_trip_stays() -> None:
    by = judge(BrakeSettings(lockdown_count=2, lockdown_window_s=600))
    lock(by, "00u1")
    lock(by, "00u2", NOON + timedelta(seconds=599))
    assert responses(lock(by, "00u3", NOON + timedelta(seconds=601))) == [Response.LOCKDOWN]
    assert responses(lock(by, "00u4", NOON + timedelta(seconds=602))) == [Response.APPROVE]
    assert responses(lock(by, "00u5", NOON + timedelta(days=2))) == [Response.APPROVE], "a trip waits for a human, not for time"
    by.brake.reset()
    assert responses(lock(by, "00u5", NOON + timedelta(days=2))) == [Response.LOCKDOWN]


def test_a_trip_outlives_a_restart() -> None:
    """E9."""
    by = judge(BrakeSettings(lockdown_count=0))
    lock(by, "00uann")
    again = judge(BrakeSettings(lockdown_count=0), state=BrakeState.from_bytes(by.brake.state.to_bytes()))
    judgement = lock(again, "00ubob")
    assert responses(judgement) == [Response.APPROVE]
    assert judgement.notices == [], "it is told when it trips, not at every restart"


@pytest.mark.parametrize(("active", "locked"), [(None, 9), (0, 9), (100, 4), (400, 4), (500, 5), (899, 8), (900, 9), (10_000, 9)])
def test_a_percentage_counts_from_five_people_on(active: int | None, locked: int) -> None:
    """D19: without a count of active people only the count of the limit applies; five of 500 are 1 %, five of 400 are more."""
    by = judge(BrakeSettings(lockdown_count=9, lockdown_percent=1.0), active=active)
    assert sum(responses(lock(by, f"00u{number}"))[0] is Response.LOCKDOWN for number in range(12)) == locked


@pytest.mark.fault(42)
def test_five_thousand_lock_events_in_a_minute_are_five_lockdowns_and_one_notice() -> None:
    by = judge()
    judgements = [lock(by, f"00u{number}", NOON + timedelta(milliseconds=12 * number)) for number in range(5000)]
    assert sum(one.kind == "lockdown" for judgement in judgements for one in judgement.orders) == 5
    assert sum(len(judgement.notices) for judgement in judgements) == 1
    assert len(by.brake.state.locks) == 5, "the brake's memory does not grow with an attack"


@given(data=st.data())
def test_whatever_is_asked_nobody_is_locked_who_must_not_be(data: st.DataObject) -> None:
    person = data.draw(st.sampled_from([None, "00uglass", "00uann"]))
    response = data.draw(st.sampled_from(list(Response)))
    age = data.draw(st.integers(-10, 2000))
    trusted = data.draw(st.booleans())
    event = data.draw(st.sampled_from([{}, {"actor": {"id": OURS}}]))
    by = judge(BrakeSettings(lockdown_count=data.draw(st.integers(0, 1))), shield=LIST if trusted else load_protected(None))
    judgement = judged(verdict(finding(person, response)), by=by, event=event, published=NOON - timedelta(seconds=age))
    (decision,) = judgement.record.decisions
    rank = [Response.ALERT, Response.APPROVE, Response.LOCKDOWN].index
    assert rank(decision.response) <= rank(response), "a response is lowered, never raised"
    assert (decision.response is response) or decision.why
    if decision.response is Response.LOCKDOWN:
        assert person == "00uann"
        assert trusted
        assert age <= 900
        assert event == {}
    assert [one.kind for one in judgement.orders] == (
        [] if decision.response is Response.ALERT else ["lockdown" if decision.response is Response.LOCKDOWN else "approve"]
    )


class Brake(RuleBasedStateMachine):
    """Against a plain count: within any window before a trip no more people than the limit are let through, whatever restarts."""

    @initialize(count=st.integers(0, 4), window=st.sampled_from([10, 60]), active=st.sampled_from([None, 300]))
    def begin(self, count: int, window: int, active: int | None) -> None:
        self.settings = BrakeSettings(lockdown_count=count, lockdown_window_s=window, lockdown_percent=1.0)
        self.count, self.window, self.active = count, window, active
        self.brake = LockdownBrake(self.settings)
        self.now = NOON
        self.let: dict[str, datetime] = {}
        self.tripped = False

    @rule(seconds=st.integers(0, 30))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(who=st.sampled_from("abcdefg"))
    def somebody_is_to_be_locked(self, who: str) -> None:
        may, tripped = self.brake.admit(who, self.now, self.active)
        standing = {one for one, when in self.let.items() if when > self.now - timedelta(seconds=self.window)}
        if who in standing:
            assert (may, tripped) == (True, False)
        elif self.tripped:
            assert (may, tripped) == (False, False)
        else:
            number = len(standing) + 1
            over = number > self.count or (self.active is not None and number >= 5 and number * 100 > self.active)
            assert (may, tripped) == (not over, over)
            self.tripped = over
        if may:
            self.let.setdefault(who, self.now)
            if who not in standing:
                self.let[who] = self.now

    @rule()
    def restarts(self) -> None:
        self.brake = LockdownBrake(self.settings, BrakeState.from_bytes(self.brake.state.to_bytes()))

    @precondition(lambda self: self.tripped)
    @rule()
    def a_human_resets_it(self) -> None:
        self.brake.reset()
        self.tripped, self.let = False, {}

    @invariant()
    def it_remembers_no_more_than_it_needs(self) -> None:
        if hasattr(self, "brake"):
            assert len(self.brake.state.locks) <= max(self.count, 1)
            assert (self.brake.state.tripped is not None) == self.tripped


TestBrake = Brake.TestCase
TestBrake.settings = settings(deadline=None, max_examples=50, stateful_step_count=30)
