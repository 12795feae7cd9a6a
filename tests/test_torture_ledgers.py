"""The comparison of the torture harness, on made-up ledgers: each harm is seen, and good work is content.

The harness stands outside the product, so nothing here starts anything: rows and calls are written down as the vendors and the audit
trail would tell them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rules.policy import Policy
from tests.torture import settings
from tests.torture.effects import Call, Effect, Names, Row, effects_of
from tests.torture.ledgers import (
    Account,
    Crash,
    Logged,
    Moment,
    Wish,
    duplicate_effects,
    lost_events,
    lost_person,
    open_rows,
    order_violations,
    unexplained_calls,
)
from tests.torture.plan import Act, Entries, Strike, make_script
from tests.torture.world import Folk, wish_of

ANN = "00uann"
NAMES = Names(
    owners={"1": ANN}, logins={"ann@corp.example": ANN}, groups={"20": "Sales", "21": "Finance"}, folders={"70": "Sales", "71": "Company"}
)
SALES = Wish(True, frozenset({"Sales"}), {"Sales": "editor"}, space=50)
FINANCE = Wish(True, frozenset({"Finance"}), {"Finance": "editor"}, space=50)
GONE = Wish(False, ended=True)


class Book:
    """Writes calls and their rows, one second apart."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.rows: dict[str, Row] = {}

    def call(
        self, method: str, path: str, body: Any = None, *, status: int | None = 200, changed: bool = True, vendor: str = "box", **row: Any
    ) -> Book:
        n = len(self.calls) + 1
        intent, at = f"i{n}", float(n)
        told: dict[str, Any] = {
            "person": ANN,
            "target": vendor,
            "lane": "provision",
            "change": "",
            "status": "done",
            "event": f"e{n}",
            "called": at - 0.1,
        } | row
        self.calls.append(Call(vendor, n, at, method, path, body, status, intent, changed))
        self.rows[intent] = Row(intent, **told)
        return self

    def join(self, group: str = "20", **more: Any) -> Book:
        return self.call("POST", "/2.0/group_memberships", {"user": {"id": "1"}, "group": {"id": group}}, **more)

    def part(self, group: str = "Sales", **more: Any) -> Book:
        return self.call("DELETE", "/2.0/group_memberships/500", change=f"revoke group {group}", status=204, **more)

    def put(self, state: str, **more: Any) -> Book:
        return self.call("PUT", "/2.0/users/1", {"status": state}, **more)

    def end_sessions(self, **more: Any) -> Book:
        return self.call("POST", "/2.0/users/terminate_sessions", {"user_ids": ["1"], "user_logins": ["x"]}, **{"status": 202} | more)

    def rewrite(self, text: str, news: str, **more: Any) -> Book:
        body = {"ts": "1.2", "text": text, "blocks": [{"type": "section", "text": {"type": "plain_text", "text": news}}]}
        return self.call("POST", "/api/chat.update", body, **{"vendor": "slack", "lane": "notify", "incident": "i-1"} | more)

    def post(self, text: str, **more: Any) -> Book:
        context = {"type": "context", "elements": [{"type": "plain_text", "text": text}]}
        return self.call("POST", "/api/chat.postMessage", {"blocks": [context]}, vendor="slack", **more)

    @property
    def effects(self) -> list[Effect]:
        return effects_of(self.calls, self.rows, NAMES)


# -- the log ------------------------------------------------------------------------------------------------------------


def test_each_event_has_its_row_and_what_is_no_event_is_put_aside() -> None:
    logged = [Logged("a", "u1"), Logged("b", None), Logged("a", "u1"), Logged("c", "u1")]
    assert lost_events(logged, {"u1": "a"}, {"b", "c"}) == []


@pytest.mark.parametrize(
    ("rows", "quarantine", "told"),
    [
        ({}, {"b"}, "event u1 has no row"),
        ({"u1": "z"}, {"b"}, "other bytes"),
        ({"u1": "a"}, set(), "not in quarantine"),
        ({"u1": "a", "u9": "q"}, {"b"}, "never logged"),
        ({"u1": "a"}, {"b", "q"}, "should not be"),
    ],
)
def test_whatever_the_trail_lacks_or_made_up_is_lost(rows: dict[str, str], quarantine: set[str], told: str) -> None:
    (finding,) = lost_events([Logged("a", "u1"), Logged("b", None)], rows, quarantine)
    assert told in finding


# -- people -------------------------------------------------------------------------------------------------------------

OPEN = Account(True, frozenset({"Sales"}), {"Sales": "editor"}, 50, sessions=1)
SHUT = Account(False, frozenset(), {}, 50, sessions=0)


@pytest.mark.parametrize(
    ("wish", "accounts", "told"),
    [
        (SALES, [OPEN], ""),
        (SALES, [], "no account"),
        (SALES, [OPEN, OPEN], "2 accounts"),
        (SALES, [SHUT], "status"),
        (SALES, [replace(OPEN, groups=frozenset({"Sales", "Finance"}))], "groups"),
        (SALES, [replace(OPEN, folders={"Sales": "viewer"})], "folders"),
        (SALES, [replace(OPEN, space=1)], "space"),
        (GONE, [SHUT], ""),
        (GONE, [], ""),
        (GONE, [replace(SHUT, active=True)], "open at Box"),
        (GONE, [replace(SHUT, sessions=1)], "live sessions"),
        (GONE, [replace(SHUT, groups=frozenset({"Sales"}))], "still holds"),
        (replace(SALES, shut=True), [replace(OPEN, active=False, sessions=0)], ""),
        (replace(SALES, shut=True), [OPEN], "open at Box"),
        (Wish(None), [OPEN], ""),
    ],
)
def test_the_end_state_is_what_the_directory_and_the_table_ask_for(wish: Wish, accounts: list[Account], told: str) -> None:
    findings = lost_person("ann", wish, accounts)
    assert bool(findings) == bool(told)
    assert told in " ".join(findings)


def test_a_folder_that_nobody_can_give_is_not_missed() -> None:
    wish = replace(SALES, folders={"Sales": "editor", "Legal": "editor"})
    assert lost_person("ann", wish, [OPEN], missing_folders=frozenset({"Legal"})) == []
    assert lost_person("ann", wish, [OPEN])


def test_the_table_is_asked_about_people_as_they_were(tmp_path: Path) -> None:
    policy = Policy.load(settings.write_access(tmp_path / "access"))
    ann = Folk(ANN, "ann@corp.example", department="Legal")
    assert wish_of(ann, policy).folders == {"Company": "viewer", "Legal": "editor"}
    assert wish_of(replace(ann, groups=frozenset({"Contractors"})), policy).folders == {"Projects": "viewer"}
    assert wish_of(replace(ann, status="DEPROVISIONED"), policy) == Wish(False, ended=True)
    assert wish_of(replace(ann, held=True), policy).shut


# -- doubles ------------------------------------------------------------------------------------------------------------


def test_there_and_back_again_is_no_double() -> None:
    book = Book().join().part().join().put("inactive").put("active").put("inactive")
    assert duplicate_effects(book.effects) == []


@pytest.mark.parametrize("second", [{}, {"changed": False}, {"changed": False, "status": 409}, {"changed": False, "status": None}])
def test_a_call_for_what_stands_is_a_double_whether_it_changed_anything_or_not(second: dict[str, Any]) -> None:
    (finding,) = duplicate_effects(Book().join().join(**second).effects)
    assert "repeats box #1" in finding


@pytest.mark.parametrize("lost", [{"status": 503}, {"status": None}])
def test_a_call_that_the_network_ate_may_be_made_again(lost: dict[str, Any]) -> None:
    assert duplicate_effects(Book().join(changed=False, **lost).join().effects) == []


@pytest.mark.parametrize("lost", [{"status": 503, "row": "unknown"}, {"status": None}])
def test_a_change_whose_answer_was_lost_is_read_back_and_not_made_again(lost: dict[str, Any]) -> None:
    assert duplicate_effects(Book().join(status=lost["status"]).join(changed=False, status=409).effects)


def test_calls_of_two_lanes_that_are_out_at_the_same_time_cannot_know_of_each_other() -> None:
    book = Book().put("inactive", lane="provision").put("inactive", changed=False, lane="lockdown", called=0.5)
    assert duplicate_effects(book.effects) == []
    late = Book().put("inactive", lane="provision").put("inactive", changed=False, lane="lockdown", called=1.5, event="e1")
    assert duplicate_effects(late.effects)


def test_a_lockdown_closes_again_what_a_leave_had_closed_but_not_its_own() -> None:
    """The constant plan of another order (D14) is no repeat, as long as it finds everything shut."""
    left = Book().put("inactive", event="leave")
    assert duplicate_effects(left.put("inactive", changed=False, lane="lockdown", incident="threat").effects) == []
    own = Book().put("inactive", lane="lockdown", incident="threat")
    assert duplicate_effects(own.put("inactive", changed=False, lane="lockdown", incident="threat").effects)


def test_what_leaves_no_trace_is_repeated_once_a_crash_or_lost_answer() -> None:
    twice = Book().end_sessions(incident="x", lane="lockdown").end_sessions(incident="x", lane="lockdown", changed=False)
    assert duplicate_effects(twice.effects)
    for crash in (Crash(1.5, "lockdown"), Crash(1.5, "broker"), Crash(-10.0, "lockdown")):  # it comes back and partitions move
        assert duplicate_effects(twice.effects, [crash]) == []
    for crash in (Crash(1.5, "provision"), Crash(9.0, "lockdown"), Crash(-90.0, "lockdown")):
        assert duplicate_effects(twice.effects, [crash])
    lost = Book().end_sessions(incident="x", status=None).end_sessions(incident="x")
    assert duplicate_effects(lost.effects) == []
    assert duplicate_effects(lost.end_sessions(incident="x").effects)


def test_sessions_are_ended_once_more_where_the_suspension_before_was_in_doubt() -> None:
    def book(status: int | None) -> Book:
        shut = Book().put("inactive", incident="x", lane="lockdown", status=status)
        return shut.end_sessions(incident="x", lane="lockdown").end_sessions(incident="x", lane="lockdown")

    assert duplicate_effects(book(503).effects) == []
    assert duplicate_effects(book(200).effects)


def test_sessions_ended_for_another_reason_are_no_repeat() -> None:
    assert duplicate_effects(Book().end_sessions(incident="x").end_sessions(incident="y").effects) == []


def test_an_incident_has_one_message() -> None:
    assert duplicate_effects(Book().post("incident a1").post("incident b2").effects) == []
    assert duplicate_effects(Book().post("incident a1").post("incident a1").effects)
    assert duplicate_effects(Book().post("incident a1", status=500, changed=False).post("incident a1").effects) == []


def test_a_message_is_rewritten_for_news_and_not_to_say_the_same_again() -> None:
    """While one target fails for a minute its heading stays, and each try is news."""
    news = Book().rewrite("Only partly contained", "okta: 500").rewrite("Only partly contained", "okta: no answer")
    assert duplicate_effects(news.effects) == []
    assert duplicate_effects(news.rewrite("Only partly contained", "okta: no answer").effects)


def test_a_call_that_lands_after_it_was_made_again_is_no_repeat_as_long_as_it_changes_nothing() -> None:
    """Its caller was killed, and the read-back that followed found no effect yet (E1)."""
    assert duplicate_effects(Book().put("inactive", called=0.9).put("inactive", called=0.2, changed=False).effects) == []
    assert duplicate_effects(Book().put("inactive", called=0.9).put("inactive", called=1.5, changed=False).effects)
    assert duplicate_effects(Book().put("inactive", called=0.9).put("inactive", called=0.2, changed=True).effects)


def test_a_call_is_made_again_where_reading_back_found_no_effect_yet() -> None:
    """It landed after the look and before the repeat, which changes nothing (E1)."""
    landed = Book().put("inactive")
    landed.rows["i1"] = replace(landed.rows["i1"], status="failed", read_back=True)
    assert duplicate_effects(landed.put("inactive", changed=False).effects) == []
    seen = Book().put("inactive", read_back=True)
    assert duplicate_effects(seen.put("inactive", changed=False).effects)


def test_sessions_may_be_ended_again_where_the_answer_to_the_closing_was_lost() -> None:
    """Until it is known to stand, somebody may have signed in again."""
    told = {"lane": "lockdown", "incident": "x"}
    lost = Book().put("inactive", read_back=True, **told).end_sessions(**told).end_sessions(**told)
    assert duplicate_effects(lost.effects) == []
    assert duplicate_effects(Book().put("inactive", **told).end_sessions(**told).end_sessions(**told).effects)


# -- order --------------------------------------------------------------------------------------------------------------

HISTORY = {ANN: [Moment(0.0, SALES), Moment(2.5, FINANCE), Moment(10.0, GONE)]}


def test_effects_follow_the_directory_and_may_be_late() -> None:
    book = Book().join().part().join().part("Sales").join("21")
    assert len(order_violations(book.effects, HISTORY)) == 1  # nobody asked for the first parting
    good = Book().join().call("GET", "/nothing", changed=False, status=None).part().join("21")
    assert order_violations(good.effects, HISTORY) == []


def test_an_effect_of_the_past_after_one_of_the_present_is_out_of_order() -> None:
    book = Book().call("POST", "/x", status=503, changed=False).call("POST", "/x", status=503, changed=False).join("21").join("20")
    (finding,) = order_violations(book.effects, HISTORY)
    assert "group Sales" in finding


def test_an_effect_before_its_cause_is_out_of_order() -> None:
    assert order_violations(Book().join("21").effects, HISTORY)
    assert order_violations(Book().put("inactive").effects, HISTORY)


def test_a_repeat_that_changes_nothing_counts_for_the_order() -> None:
    history = {ANN: [Moment(0.0, SALES), Moment(1.5, FINANCE)]}
    stale = Book().join("20").join("21").join("20", changed=False, status=409)
    assert order_violations(stale.effects, history)


def test_a_call_that_was_out_when_the_other_lane_closed_is_concurrent() -> None:
    history = {ANN: [Moment(0.0, SALES), Moment(0.5, replace(SALES, shut=True))]}
    landing = Book().put("inactive", lane="lockdown").join(called=0.4)
    assert order_violations(landing.effects, history) == []
    sent_after = Book().put("inactive", lane="lockdown").join(called=1.5)
    assert order_violations(sent_after.effects, history)


def test_a_call_that_lands_after_its_callers_time_out_is_in_no_order() -> None:
    """Its caller was killed or gave up, and read back that there was no effect yet. One that was answered, or landed in time, is in order."""
    history = {ANN: [Moment(0.0, FINANCE), Moment(1.5, SALES)]}

    def landing(called: float, **row: Any) -> Book:
        book = Book().join("21").part("Finance").join("20").join("20", changed=False, status=409).join("20", changed=False, status=409)
        return book.join("21", called=called, **row)

    assert order_violations(landing(1.4, status="failed", read_back=True).effects, history) == []
    assert order_violations(landing(1.4).effects, history)
    assert order_violations(landing(5.0, status="failed", read_back=True).effects, history)


def test_provisioning_may_open_until_the_hold_stands_and_not_after() -> None:
    """The risk was raised at 0.5; its event came late, and the Hold stands since 2.5."""
    history = {ANN: [Moment(0.0, GONE), Moment(0.5, replace(SALES, shut=True))]}
    before, after = Book().join(called=1.0), Book().join(called=3.0)
    assert order_violations(before.effects, history, {ANN: 2.5}) == []
    assert order_violations(after.effects, history, {ANN: 2.5})
    assert order_violations(before.effects, history)


@pytest.mark.parametrize(
    ("wish", "key", "value", "allowed"),
    [
        (SALES, "account", "active", True),
        (SALES, "account", "inactive", False),
        (SALES, "space", 50, True),
        (SALES, "space", 51, False),
        (SALES, "folder Sales", "editor", True),
        (SALES, "folder Sales", "viewer", False),
        (SALES, "folder Sales", None, False),
        (SALES, "folder Legal", None, True),
        (SALES, "sessions", "ended", False),
        (GONE, "account", "inactive", True),
        (GONE, "group Sales", None, True),
        (GONE, "group Sales", "member", False),
        (GONE, "content", "2", True),
        (replace(SALES, shut=True), "account", "SUSPENDED", True),
        (replace(SALES, shut=True), "account", "active", False),
        (replace(SALES, shut=True), "group Sales", "member", False),
        (replace(SALES, shut=True), "group Finance", None, True),
        (replace(SALES, shut=True), "sessions", "ended", True),
        (replace(GONE, shut=True), "content", "2", False),
    ],
)
def test_which_effects_lead_to_a_wish(wish: Wish, key: str, value: Any, allowed: bool) -> None:
    assert wish.allows(key, value) is allowed


# -- rows ---------------------------------------------------------------------------------------------------------------


def test_a_call_without_a_row_or_without_an_intent_is_unexplained() -> None:
    book = Book().join().join()
    assert unexplained_calls(book.calls, book.rows) == []
    del book.rows["i2"]
    assert len(unexplained_calls([*book.calls, replace(book.calls[0], intent=None)], book.rows)) == 2


def test_nothing_may_stay_open() -> None:
    row = Book().join().rows["i1"]
    assert open_rows([row]) == []
    assert open_rows([replace(row, status="intended")])


# -- the script ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_script_and_exactly_so_many_events() -> None:
    first, again, other = (make_script(seed, 500, 12, 2, 2) for seed in (7, 7, 8))
    assert first == again
    assert first.steps != other.steps
    events = sum(len(step.elements) if isinstance(step, Entries) else isinstance(step, Act) for step in first.steps)
    assert events == 500


def test_kills_fall_on_all_roles_in_turn_and_on_the_broker_apart() -> None:
    strikes = make_script(1, 500, 16, 3, 2).strikes
    kills = [one for one in strikes if one.how == "kill"]
    assert sum(one.role == "broker" for one in kills) == 3
    per_process: dict[tuple[str, int], int] = {}
    for one in kills:
        if one.role != "broker":
            per_process[one.role, one.index] = per_process.get((one.role, one.index), 0) + 1
    assert len(per_process) == 8
    assert set(per_process.values()) == {2}
    assert {one.how for one in strikes} == {"kill", "stop", "freeze"}


def test_cuts_come_on_top_and_change_nothing_else() -> None:
    plain, cut = make_script(1, 500, 16, 3, 2), make_script(1, 500, 16, 3, 2, broker_cuts=9)
    cuts = [one for one in cut.strikes if one.how == "cut"]
    assert len(cuts) == 9
    assert {one.role for one in cuts} == {"broker"}
    assert [one for one in cut.strikes if one.how != "cut"] == plain.strikes
    assert cut.steps == plain.steps


def test_kills_can_be_aimed() -> None:
    strikes: list[Strike] = make_script(1, 100, 5, 0, 1, aim=("poller",)).strikes
    assert {one.role for one in strikes} == {"poller"}


def test_nobody_is_asked_for_what_their_state_forbids() -> None:
    """A script whose acts the directory would refuse is wrong: each person's acts are a way through Okta's states."""
    status: dict[str, str] = {}
    allowed = {"suspend": "ACTIVE", "unsuspend": "SUSPENDED", "activate": "DEPROVISIONED", "raise_risk": "ACTIVE"}
    ends = {"suspend": "SUSPENDED", "unsuspend": "ACTIVE", "activate": "ACTIVE", "deactivate": "DEPROVISIONED"}
    for step in make_script(3, 3000, 0, 0, 1).steps:
        if isinstance(step, Act):
            now = status.get(step.who, "ACTIVE")
            assert now != "DEPROVISIONED" or step.action == "activate"
            assert allowed.get(step.action, now) == now
            status[step.who] = ends.get(step.action, now)
