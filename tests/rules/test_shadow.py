"""The promotion report: how often a rule on trial fired, for whom, what would have been done, and how much of it was known trouble."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from model.decision import Response
from model.settings import BrakeSettings
from rules.shadow import Firing, Known, Promotion, promotions, would
from stream.judge import LockdownBrake

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def firing(person: str | None = "00uann", minutes: float = 0, **more: Any) -> Firing:
    base: dict[str, Any] = {"tenant": "acme", "rule": "T-1", "version": "v1", "asked": Response.LOCKDOWN, "why": "shadow"}
    return Firing(person=person, at=at(minutes), **(base | more))


def known(person: str = "00uann", opened: float = 0, closed: float | None = None, **more: Any) -> Known:
    base: dict[str, Any] = {"tenant": "acme", "id": f"i-{person}-{opened}"}
    return Known(person=person, opened=at(opened), closed=None if closed is None else at(closed), **(base | more))


def report(*given: Firing | Known, on_trial: tuple[str, ...] = ("T-1",), count: int = 5) -> dict[str, Promotion]:
    found = promotions(
        [one for one in given if isinstance(one, Firing)],
        [one for one in given if isinstance(one, Known)],
        on_trial,
        lambda tenant: LockdownBrake(BrakeSettings(lockdown_count=count)),
    )
    return {one.rule: one for one in found}


@pytest.mark.parametrize(
    ("why", "response", "reason"),
    [
        ("shadow", Response.LOCKDOWN, ""),
        ("shadow: approve (NET: from 192.0.2.0/24)", Response.APPROVE, "NET: from 192.0.2.0/24"),
        ("shadow: alert (asked lately (once a day))", Response.ALERT, "asked lately (once a day)"),
        ("shadow: burn (everything)", Response.LOCKDOWN, ""),
    ],
)
def test_what_would_have_been_done_stands_in_why(why: str, response: Response, reason: str) -> None:
    assert would(firing(why=why)) == (response, reason)


def test_how_often_for_whom_and_what_would_have_been_done() -> None:
    lowered = "shadow: approve (SVC: is a service account)"
    record = report(firing(), firing(minutes=5), firing("00ubob", 9, why=lowered), firing(None, 9, why="shadow: alert (nobody)"))["T-1"]
    assert (record.fired, record.nobody) == (4, 1)
    assert record.people == {"00uann": 2, "00ubob": 1}
    assert record.would == {"lockdown": 2, "approve": 1, "alert": 1}
    assert record.reasons == {"SVC: is a service account": 1, "nobody": 1}
    assert (record.first, record.last) == (at(0), at(9))
    shown = record.as_dict()
    assert (shown["people"], shown["most"][0]) == (2, {"person": "00uann", "fired": 2})


def test_a_rule_on_trial_that_never_fired_stands_there_and_one_that_is_no_longer_on_trial_too() -> None:
    found = report(firing(rule="was"), on_trial=("quiet",))
    assert list(found) == ["was", "quiet"]
    assert (found["quiet"].fired, found["quiet"].as_dict()["first"]) == (0, None)


@pytest.mark.parametrize(
    ("incident", "coincides"),
    [
        (known(opened=30), True),
        (known(opened=61), False),
        (known(opened=-600), True),
        (known(opened=-600, closed=-30), True),
        (known(opened=-600, closed=-61), False),
        (known("00ubob"), False),
        (known(tenant="other"), False),
    ],
)
def test_an_incident_of_the_same_person_about_the_same_time_coincides(incident: Known, coincides: bool) -> None:
    record = report(firing(), incident)["T-1"]
    assert (len(record.incidents), record.with_incident) == ((1, 1) if coincides else (0, 0))
    assert record.as_dict()["without_incident"] == (0 if coincides else 1)


def test_several_findings_of_one_incident_are_one_incident() -> None:
    record = report(firing(), firing(minutes=3), firing("00ubob"), firing(None), known(), known(opened=2))["T-1"]
    assert (len(record.incidents), record.with_incident, record.fired) == (2, 2, 4)


def test_the_brake_is_played_for_each_rule_alone() -> None:
    people = [firing(f"00u{number}", number) for number in range(4)]
    others = [firing(f"00u{number}", number, rule="T-2") for number in range(2)]
    lowered = [firing(f"00v{number}", number, rule="T-3", why="shadow: approve (x)") for number in range(9)]
    found = report(*sorted([*people, *others, *lowered], key=lambda one: one.at), count=2)
    assert found["T-1"].brakes == [("acme", at(2))]
    assert (found["T-2"].brakes, found["T-3"].brakes) == ([], [])
    assert found["T-1"].as_dict()["brakes"] == [{"tenant": "acme", "tripped": at(2).isoformat()}]


def test_findings_of_an_older_version_are_told_apart() -> None:
    assert report(firing(), firing(version="v2"))["T-1"].as_dict()["versions"] == {"v1": 1, "v2": 1}
