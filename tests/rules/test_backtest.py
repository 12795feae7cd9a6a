"""Past events are judged as if the candidate had been in force: time is theirs, brakes count people, differences are exact, memory stays flat."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.settings import BrakeSettings
from rules.backtest import EVERY, MOST_LISTED, House, Make, Past, Report, backtest
from rules.classify import Classifier
from rules.guards import GuardSettings
from rules.lifecycle import Lifecycle
from rules.lower import Guards
from rules.ruleset import RuleSet
from stream.judge import LockdownBrake

NOON = datetime(2020, 1, 5, 12, 0, tzinfo=UTC)
TABLE = Lifecycle.load()


def event(number: int, who: str = "00uann", *, seconds: float | None = None, result: str = "SUCCESS", **more: Any) -> bytes:
    moment = NOON + timedelta(seconds=number if seconds is None else seconds)
    body = {
        "uuid": f"e-{number}",
        "eventType": "user.session.start",
        "published": moment.isoformat().replace("+00:00", "Z"),
        "actor": {"id": who, "type": "User"},
        "outcome": {"result": result},
    }
    return json.dumps(body | more).encode()


def one(rule_id: str, **section: Any) -> dict[str, Any]:
    return {
        "title": rule_id,
        "logsource": {"product": "okta", "service": "okta"},
        "detection": {"selection": {"eventType": "user.session.start", "outcome.result": "SUCCESS"}, "condition": "selection"},
        "level": "high",
        "portcullis": {"id": rule_id, "person": "actor"} | section,
    }


LOCK = {"response": "lockdown", "scope": "full"}


@pytest.fixture
def rules(tmp_path: Path) -> Any:
    """Rules → what makes classifiers of them."""
    made: list[int] = []

    def make(*documents: dict[str, Any], guards: GuardSettings | None = None) -> Make:
        folder = tmp_path / str(len(made))
        made.append(1)
        folder.mkdir()
        (folder / "rules.yml").write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        ruleset = RuleSet.load(folder)
        return lambda tenant: Classifier(ruleset, TABLE, Guards(guards))

    return make


def house(count: int = 5, spared: Iterable[str] = (), **more: Any) -> House:
    list_ = set(spared)
    return House(lambda tenant: LockdownBrake(BrakeSettings(lockdown_count=count)), lambda tenant, who: who in list_, **more)


def played(make: Make, *raws: bytes, current: Make | None = None, by: House | None = None) -> Report:
    return backtest((Past(raw) for raw in raws), make, by or house(), current=current)


# --- who would be locked ------------------------------------------------------------------------------------------------------


def test_old_events_are_judged_as_if_live(rules: Any) -> None:
    report = played(rules(one("T-1", **LOCK)), event(1, "00uann"), event(2, "00ubob", result="FAILURE"), event(3, "00uann"))
    found = report.as_dict()
    assert (found["fired"], found["locked"], found["brakes"]) == ({"T-1": 2}, ["00uann"], [])
    assert found["outcomes"] == {"T-1": {"lockdown": 2}}
    assert [(row["person"], row["event"], row["scope"], row["rule"]) for row in found["lockdowns"]] == [
        ("00uann", "e-1", "full", "T-1"),
        ("00uann", "e-3", "full", "T-1"),
    ]
    assert (found["added"], found["removed"], found["changed"]) == ([], [], []), "without a second set there is no difference"
    assert (found["first"], found["last"]) == ("2020-01-05T12:00:01+00:00", "2020-01-05T12:00:03+00:00")


def test_protected_people_nobody_and_lower_responses_are_not_locked(rules: Any) -> None:
    make = rules(one("lock", **LOCK), one("approve", response="approve"), one("alert"))
    several = [{"id": "00ua", "type": "User"}, {"id": "00ub", "type": "User"}]
    nobody = rules(one("lock", **LOCK | {"person": "target"}))
    report = played(make, event(1, "00uglass"), by=house(spared=["00uglass"]))
    assert report.as_dict()["locked"] == []
    assert report.as_dict()["outcomes"] == {"lock": {"approve": 1}, "approve": {"approve": 1}, "alert": {"alert": 1}}
    assert played(nobody, event(1, target=several)).as_dict()["outcomes"] == {"lock": {"alert": 1}}


def test_guards_lower_as_they_do_live(rules: Any) -> None:
    guards = GuardSettings.model_validate({"placeholders": {}, "service_accounts": {"ids": ["00urobot"]}})
    make = rules(one("lock", **LOCK | {"guards": ["SVC"]}), guards=guards)
    report = played(make, event(1, "00urobot"), event(2, "00uann"))
    assert report.as_dict()["outcomes"] == {"lock": {"approve": 1, "lockdown": 1}}
    assert report.as_dict()["locked"] == ["00uann"]


def test_windows_move_with_the_time_of_the_events(rules: Any) -> None:
    counted = {
        "title": "count",
        "correlation": {
            "type": "event_count",
            "rules": ["member"],
            "group-by": ["actor.id"],
            "timespan": "1m",
            "condition": {"gte": 3},
        },
        "portcullis": {"id": "count", "person": "actor", "response": "lockdown"},
    }
    member = one("member") | {"name": "member"}
    make = rules(counted, {key: value for key, value in member.items() if key != "portcullis"})
    slow = [event(number, seconds=number * 40) for number in range(6)]
    fast = [event(number, seconds=number * 10) for number in range(3)]
    assert played(make, *slow).as_dict()["fired"] == {}
    assert played(make, *fast).as_dict()["fired"] == {"count": 1}
    assert played(make, *fast).as_dict()["locked"] == ["00uann"]


# --- brakes ------------------------------------------------------------------------------------------------------------------------


def test_a_brake_trips_by_the_events_time_and_says_what_it_held_back(rules: Any) -> None:
    make = rules(one("lock", **LOCK))
    report = played(make, *(event(number, f"00u{number}") for number in range(6)), by=house(3))
    found = report.as_dict()
    assert found["locked"] == ["00u0", "00u1", "00u2"]
    assert found["brakes"] == [
        {"brake": "lockdown:default", "tripped": "2020-01-05T12:00:03+00:00", "locked_before": 3, "held": 3},
    ]
    assert found["outcomes"] == {"lock": {"lockdown": 3, "approve": 3}}
    spread = played(make, *(event(number, f"00u{number}", seconds=number * 601) for number in range(6)), by=house(3))
    assert len(spread.as_dict()["locked"]) == 6, "the same people over an hour trip nothing"


def test_a_percentage_counts_from_the_active_people_that_are_given(rules: Any) -> None:
    make = rules(one("lock", **LOCK))
    events = [event(number, f"00u{number}") for number in range(9)]
    assert len(played(make, *events, by=house(50, active=400)).locked) == 4
    assert len(played(make, *events, by=house(50)).locked) == 9


def test_each_tenant_has_its_own_brake_and_memory(rules: Any) -> None:
    make = rules(one("lock", **LOCK))
    past = [Past(event(number, f"00u{number}"), tenant) for number in range(2) for tenant in ("red", "blue")]
    report = backtest(past, make, house(1))
    assert [one["brake"] for one in report.as_dict()["brakes"]] == ["lockdown:red", "lockdown:blue"]
    assert report.as_dict()["locked"] == ["00u0"]
    assert list(report.locked) == [("red", "00u0"), ("blue", "00u0")]


# --- differences --------------------------------------------------------------------------------------------------------------------


def test_what_is_new_gone_and_other_is_told(rules: Any) -> None:
    candidate = rules(one("new"), one("same"), one("other", **LOCK), one("was_on_trial", response="approve"))
    current = rules(one("gone"), one("same"), one("other", response="approve"), one("was_on_trial", response="approve", shadow=True))
    found = played(candidate, event(1), event(2, result="FAILURE"), current=current).as_dict()
    assert [(row["rule"], row["event"], row["person"], row["response"]) for row in found["added"]] == [("new", "e-1", "00uann", "alert")]
    assert [(row["rule"], row["event"]) for row in found["removed"]] == [("gone", "e-1")]
    assert sorted((row["rule"], row["before"], row["response"]) for row in found["changed"]) == [
        ("other", "approve", "lockdown"),
        ("was_on_trial", "shadow", "approve"),
    ]
    assert found["totals"] == {"added": 1, "removed": 1, "changed": 2}
    assert set(found["fired"]) == {"new", "same", "other", "was_on_trial"}


def test_the_same_rules_differ_in_nothing(rules: Any) -> None:
    make = rules(one("lock", **LOCK), one("alert"))
    found = played(make, *(event(number, f"00u{number}") for number in range(9)), current=make, by=house(1)).as_dict()
    assert (found["added"], found["removed"], found["changed"]) == ([], [], [])


def test_a_rule_on_trial_fires_and_locks_nobody(rules: Any) -> None:
    found = played(rules(one("trial", **LOCK | {"shadow": True})), event(1)).as_dict()
    assert (found["fired"], found["outcomes"], found["locked"]) == ({"trial": 1}, {"trial": {"shadow": 1}}, [])


# --- bad lines, odd times, long logs ---------------------------------------------------------------------------------------------------


def test_lines_that_are_no_events_are_counted_and_stop_nothing(rules: Any) -> None:
    report = played(rules(one("lock", **LOCK)), b"{", event(2), b"[]", b'{"uuid": "x"}', event(5, "00ubob"))
    assert (report.events, report.malformed.total) == (2, 3)
    assert report.malformed.rows[0] == {"number": 1, "reason": "unreadable"}
    assert report.as_dict()["locked"] == ["00uann", "00ubob"]


@pytest.mark.parametrize("published", [None, "2017-09-31T00:00:00Z", 5, "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_an_odd_time_stops_nothing(rules: Any, published: Any) -> None:
    report = played(rules(one("lock", **LOCK)), event(1, "00uann", published=published), event(2, "00ubob"))
    assert report.as_dict()["locked"] == ["00uann", "00ubob"]


def test_a_future_time_is_bounded_by_the_receipt_where_that_is_known(rules: Any) -> None:
    past = [Past(event(1, published="9999-01-01T00:00:00Z"), received=NOON)]
    report = backtest(past, rules(one("lock", **LOCK)), house())
    assert report.last is not None
    assert report.last <= NOON + timedelta(minutes=5)


def test_progress_is_heard_now_and_then_and_at_the_end(rules: Any) -> None:
    raws = [event(number) for number in range(EVERY * 2 + 7)]
    heard: list[tuple[int, int]] = []
    backtest(map(Past, raws), rules(one("alert")), house(), progress=lambda done, size: heard.append((done, size)))
    assert [done for done, _ in heard] == [EVERY, EVERY * 2, EVERY * 2 + 7]
    assert heard[-1][1] == sum(len(raw) + 1 for raw in raws)


def test_memory_does_not_grow_with_the_log_and_the_counts_stay_exact(rules: Any) -> None:
    """What is kept are counts, people and so many examples."""
    candidate, current = rules(one("new")), rules(one("gone"))

    def log(size: int) -> Iterator[Past]:
        return (Past(event(number, f"00u{number % 50}")) for number in range(size))

    def peak(size: int) -> int:
        tracemalloc.start()
        try:
            report = backtest(log(size), candidate, house(), current=current)
            assert report.fired == {"new": size}
            assert (report.added.total, len(report.added.rows)) == (size, min(size, MOST_LISTED))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1_500)
    assert peak(6_000) < peak(1_500) * 1.2
