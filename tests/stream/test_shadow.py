"""A rule on trial: recorded with what it asked for and what would have become of it; told to nobody, acted on by nobody."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from aiokafka import TopicPartition

from handlers.protected import load_protected
from model.decision import Finding, Moment, Response, Severity, Verdict
from model.records import Classified, Decision
from model.settings import BrakeSettings
from rules.classify import Classifier
from rules.lifecycle import Lifecycle
from rules.ruleset import RuleSet
from stream import notify, topics
from stream.notify import NotifyRole
from tests.handlers.fakes import NOON
from tests.stream import memory as kafka
from tests.stream.fakes import in_memory
from tests.stream.memory import Log
from tests.stream.test_classify import Rules, classifier, event, feed, knocks, orders, rule_found
from tests.stream.test_classify import judge as work_through
from tests.stream.test_judge import OURS, finding, judge, lock, ref
from tests.support.clock import FakeClock

SIGN_IN = {"eventType": "user.session.start", "actor": {"id": "00uann", "type": "User"}, "outcome": {"result": "SUCCESS"}}


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    with in_memory():
        yield


def rules(folder: Path, *sections: dict[str, Any]) -> Classifier:
    """One rule for each section, all of them for successful sign-ins."""
    for number, section in enumerate(sections):
        document = {
            "title": f"Sign-in {number}",
            "logsource": {"product": "okta", "service": "okta"},
            "detection": {"selection": {"eventType": "user.session.start", "outcome.result": "SUCCESS"}, "condition": "selection"},
            "level": "high",
            "portcullis": {"id": f"T-{number}", "person": "actor"} | section,
        }
        (folder / f"rule{number}.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return Classifier(RuleSet.load(folder), Lifecycle.load())


def on_trial(found: Finding, *, at: Any = NOON, by: Any = None, happened: Any = None) -> Decision:
    verdict = Verdict(Moment.NONE, Moment.NONE, (), shadow=(found,))
    judgement = (by or judge()).judge(happened or {}, verdict, ref(), at)
    assert judgement.orders == [], "a rule on trial orders nothing"
    assert judgement.notices == []
    (decision,) = judgement.record.decisions
    assert (decision.shadow, decision.response) == (True, Response.ALERT)
    return decision


# --- the judge --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("response", list(Response))
def test_it_is_recorded_with_what_it_asks_for(response: Response) -> None:
    decision = on_trial(finding(response=response))
    assert (decision.asked, decision.why, decision.person) == (response, "shadow", "00uann")


@pytest.mark.parametrize(
    ("facts", "would"),
    [
        ({"found": finding("00uglass")}, "approve (a protected person"),
        ({"found": finding(None)}, "alert (no single person"),
        ({"found": finding(), "at": NOON + timedelta(hours=1)}, "alert (the event is 3600 s old"),
        ({"found": finding(), "happened": {"actor": {"id": OURS}}}, "alert (we did this ourselves"),
        ({"found": finding(), "by": judge(shield=load_protected(None))}, "approve (the protected list cannot be trusted"),
        ({"found": finding(response=Response.APPROVE, asked=Response.LOCKDOWN, why="NET: from 10.0.0.0/8")}, "approve (NET: from"),
    ],
)
def test_it_says_what_would_have_become_of_it(facts: dict[str, Any], would: str) -> None:
    decision = on_trial(facts.pop("found"), **facts)
    assert decision.asked is Response.LOCKDOWN
    assert decision.why.startswith(f"shadow: {would}")


def test_it_uses_up_no_brake_and_trips_none() -> None:
    by = judge(BrakeSettings(lockdown_count=1))
    for number in range(5):
        assert on_trial(finding(f"00u{number}"), by=by).why == "shadow"
    assert not by.brake.changed
    assert lock(by, "00uann").record.decisions[0].response is Response.LOCKDOWN


def test_a_real_finding_beside_it_is_acted_on_alone() -> None:
    verdict = Verdict(Moment.THREAT, Moment.NONE, ("00uann",), (finding(rule="live"),), (finding(rule="trial", response=Response.APPROVE),))
    judgement = judge().judge({}, verdict, ref(), NOON)
    assert [(one.kind, [decision.rule for decision in one.decisions]) for one in judgement.orders] == [("lockdown", ["live"])]
    assert [(one.rule, one.shadow) for one in judgement.record.decisions] == [("live", False), ("trial", True)]


# --- the role, with real rules ------------------------------------------------------------------------------------------------


async def test_its_finding_reaches_the_trail_and_nothing_else(tmp_path: Path) -> None:
    log = Log()
    async with classifier(log, rules(tmp_path, {"response": "lockdown", "scope": "full", "shadow": True})) as role:
        feed(log, event("e-1", **SIGN_IN), event("e-2", **SIGN_IN | {"outcome": {"result": "FAILURE"}}))
        await work_through(role)
    (record,) = log.classified()
    assert (record.event.uuid, record.moment) == ("e-1", Moment.NONE)
    (decision,) = record.decisions
    assert (decision.rule, decision.shadow, decision.asked, decision.why) == ("T-0", True, Response.LOCKDOWN, "shadow")
    assert (orders(log), knocks(log), log.notices()) == ([], [], [])
    assert log.of(topics.BRAKES) == []


async def test_promoted_it_acts(tmp_path: Path) -> None:
    """The same rule and event without the word: this is what the others would hide."""
    log = Log()
    async with classifier(log, rules(tmp_path, {"response": "lockdown", "scope": "full"})) as role:
        feed(log, event("e-1", **SIGN_IN))
        await work_through(role)
    assert [(one.kind, one.person) for one in orders(log)] == [("lockdown", "00uann")]
    assert log.classified()[0].moment is Moment.THREAT


async def test_a_window_of_it_that_ends_orders_nothing(tmp_path: Path) -> None:
    log, fake = Log(), Rules()
    fake.ruleset = cast(Any, SimpleNamespace(shadowed=frozenset({"r-w"})))
    async with classifier(log, fake) as role:
        feed(log, event("e-1"))
        await work_through(role)
        fake.ended = (rule_found("00uann", Response.LOCKDOWN),)
        await role._close_windows(NOON)
    (record,) = log.classified()
    assert [(one.shadow, one.asked) for one in record.decisions] == [(True, Response.LOCKDOWN)]
    assert record.moment is Moment.NONE
    assert orders(log) == []


# --- Slack ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shadow", "messages"), [(False, 1), (True, 0)])
async def test_nobody_is_told(monkeypatch: pytest.MonkeyPatch, clock: FakeClock, shadow: bool, messages: int) -> None:
    for name in ("Publisher", "State"):
        monkeypatch.setattr(notify, name, getattr(kafka, name))
    role = NotifyRole(cast(Any, Log()), cast(Any, None), "#alarms", clock)
    found = (finding(response=Response.ALERT, severity=Severity.CRITICAL),)
    verdict = Verdict(Moment.NONE, Moment.NONE, (), () if shadow else found, found if shadow else ())
    record = judge().judge({}, verdict, ref(), NOON).record
    role._fold(TopicPartition("identity.outcomes", 0), SimpleNamespace(value=record.to_bytes(), offset=0))
    assert len(role._desk) == messages


def test_records_of_before_are_read() -> None:
    """A decision without the word is one of a rule in force."""
    verdict = Verdict(Moment.NONE, Moment.NONE, (), (finding(response=Response.ALERT),))
    record = judge().judge({}, verdict, ref(), NOON).record
    raw = record.model_dump(mode="json")
    del raw["decisions"][0]["shadow"]
    assert Classified.model_validate(raw) == record
