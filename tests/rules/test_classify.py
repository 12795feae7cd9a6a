"""D2 and D32: moments, people, findings, and what a decision keeps of an event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from model.decision import Moment, Response, Scope, Severity
from rules.classify import Classifier
from rules.record import LONGEST_TEXT, MOST_ELEMENTS, MOST_FIELDS, inert, matched
from rules.ruleset import RuleSet
from tests.rules.build import LIFECYCLE, classifier, event, event_rule, user

IDA, TOM = {"id": "00uida", "type": "User"}, {"id": "00utom", "type": "User"}
APP = {"id": "0oabox", "type": "AppInstance"}


@pytest.fixture(scope="module")
def built_in() -> Classifier:
    return Classifier(RuleSet.load(), LIFECYCLE)


def full(kind: str, **more: Any) -> dict[str, Any]:
    return {"uuid": "u", "eventType": kind} | more


@pytest.mark.parametrize(
    ("given", "moment", "people"),
    [
        (full("user.lifecycle.create", target=[IDA], actor=TOM), Moment.JOIN, ("00uida",)),
        (full("user.lifecycle.create", target=[{"id": "x", "type": "NewUser"}], actor=TOM, outcome={"result": "FAILURE"}), Moment.JOIN, ()),
        (full("user.lifecycle.deactivate", target=[APP, IDA, TOM, IDA]), Moment.LEAVE, ("00uida", "00utom")),
        (full("group.user_membership.add", target=[{"id": "00g", "type": "UserGroup"}, IDA]), Moment.MOVE, ("00uida",)),
        (full("application.user_membership.add", target=[{"id": "0ua", "type": "AppUser"}, APP, IDA]), Moment.MOVE, ("00uida",)),
        (full("user.account.privilege.revoke", target=None, actor=IDA), Moment.MOVE, ("00uida",)),
        (full("group.lifecycle.delete", target=[{"id": "00g", "type": "UserGroup"}, IDA], actor=TOM), Moment.GROUP, ()),
        (full("group.privilege.grant", target=[IDA], actor=TOM), Moment.GROUP, ()),
        (full("device.enrollment.create", target=[IDA], actor=TOM), Moment.NONE, ("00utom",)),
        (full("user.account.lock", target=[], actor=IDA), Moment.NONE, ("00uida",)),
        (full("user.lifecycle.password_mass_expiry", target=[IDA], actor=TOM), Moment.NONE, ()),
        (full("user.session.start", actor=IDA), Moment.NONE, ("00uida",)),
        (full("made.up.type", actor={"id": "system", "type": "SystemPrincipal"}), Moment.NONE, ()),
        (
            full("user.lifecycle.suspend", target=[{"id": "../x", "type": "User"}, {"id": "me", "type": "User"}], actor=TOM),
            Moment.LEAVE,
            (),
        ),
        (full("user.lifecycle.suspend", target={"id": "00uida", "type": "User"}), Moment.LEAVE, ()),
    ],
)
def test_moment_and_people(built_in: Classifier, given: dict[str, Any], moment: Moment, people: tuple[str, ...]) -> None:
    verdict = built_in.verdict(given)
    assert (verdict.life_moment, verdict.people) == (moment, people)


def test_an_event_is_a_threat_where_some_response_is_not_alert(tmp_path: Path) -> None:
    told = event_rule("told", {"s": {"eventType": "user.lifecycle.create"}, "condition": "s"})
    asked = event_rule("asked", {"s": {"eventType": "user.lifecycle.create", "severity": "WARN"}, "condition": "s"})
    asked["portcullis"] = {"response": "approve", "runbook": "look"}
    rules = classifier(tmp_path, told, asked)
    quiet = rules.verdict(full("user.lifecycle.create", target=[IDA]))
    assert (quiet.moment, quiet.life_moment, [one.response for one in quiet.findings]) == (Moment.JOIN, Moment.JOIN, [Response.ALERT])
    loud = rules.verdict(full("user.lifecycle.create", target=[IDA], severity="WARN"))
    assert (loud.moment, loud.life_moment) == (Moment.THREAT, Moment.JOIN)


@pytest.mark.parametrize(
    ("section", "given", "person"),
    [
        ({}, full("x", target=[APP, IDA], actor=TOM), "00uida"),
        ({}, full("x", target=[APP], actor=TOM), "00utom"),
        ({}, full("x", target=[IDA, TOM], actor=TOM), None),
        ({}, full("x", target=None, actor={"id": "a", "type": "SystemPrincipal"}), None),
        ({"person": "target"}, full("x", target=[], actor=TOM), None),
        ({"person": "actor"}, full("x", target=[IDA], actor=TOM), "00utom"),
        ({"person": "none"}, full("x", target=[IDA], actor=TOM), None),
    ],
)
def test_a_findings_person_is_the_rules(tmp_path: Path, section: dict[str, Any], given: dict[str, Any], person: str | None) -> None:
    (found,) = classifier(tmp_path, event_rule("x", portcullis=section)).verdict(given).findings
    assert found.person == person


def test_a_finding_carries_the_rules_words(tmp_path: Path) -> None:
    section = {"id": "ACME-1", "response": "lockdown", "scope": "full", "downstream": True, "runbook": "Call them."}
    detection = {"s": {"eventType": "x", "outcome.reason|contains": "bad"}, "filter": {"actor.id": "00ux"}, "condition": "s and not filter"}
    rules = classifier(tmp_path, event_rule("x", detection, level="critical", portcullis=section))
    (found,) = rules.verdict(full("x", outcome={"reason": "very bad"}, actor=IDA)).findings
    assert (found.rule, found.title, found.response, found.severity) == ("ACME-1", "x", Response.LOCKDOWN, Severity.CRITICAL)
    assert (found.scope, found.downstream, found.runbook) == (Scope.FULL, True, "Call them.")
    assert found.matched == {"eventType": "x", "outcome.reason": "very bad"}
    assert found.rule_version == rules.ruleset.rules[0].version


def test_a_rule_without_a_section_only_alerts(tmp_path: Path) -> None:
    (found,) = classifier(tmp_path, event_rule("x")).verdict(full("x")).findings
    assert (found.response, found.severity, found.scope) == (Response.ALERT, Severity.MEDIUM, Scope.SESSIONS)


@pytest.mark.parametrize(
    ("kind", "result", "severity"),
    [
        ("security.threat.detected", "DENY", "informational"),
        ("security.threat.detected", "ALLOW", "medium"),
        ("security.attack.start", "SUCCESS", "high"),
    ],
)
def test_severity_depends_on_the_event(built_in: Classifier, kind: str, result: str, severity: str) -> None:
    (found,) = built_in.verdict(full(kind, outcome={"result": result})).findings
    assert (found.rule, found.severity.value) == ("OKTA-040", severity)


def test_severity_of_what_is_new(built_in: Classifier) -> None:
    rules = Classifier(built_in.ruleset, LIFECYCLE)
    made = [event("system.api_token.create", at, "00uraj", outcome={"result": "SUCCESS"}) for at in (0, 3600)]
    severities = [one.severity.value for single in made for one in rules.observe(single).findings if one.rule == "OKTA-042"]
    assert severities == ["high", "medium"], "the first token of that actor is worth more"


def test_rules_on_trial_stand_apart(tmp_path: Path) -> None:
    rules = classifier(tmp_path, event_rule("x", portcullis={"response": "lockdown", "shadow": True}))
    for verdict in (rules.verdict(full("x", actor=IDA)), rules.observe(full("x", actor=IDA))):
        assert verdict.findings == ()
        assert [one.rule for one in verdict.shadow] == ["x"]
        assert verdict.moment is Moment.NONE


def test_without_state_correlations_say_nothing(built_in: Classifier) -> None:
    fails = [event("user.account.lock", at, outcome={"result": "FAILURE"}) for at in range(10)]
    assert {one.rule for single in fails for one in built_in.verdict(single).findings} == {"OKTA-041.single"}


def test_a_silent_event_is_silent(built_in: Classifier) -> None:
    assert built_in.verdict(full("system.email.send")).is_silent


# --- what a decision keeps ----------------------------------------------------------------------------------------------


def test_what_is_kept_is_bounded_and_can_be_written_as_json() -> None:
    given = {f"f{number}": "x" * 10_000 for number in range(100)}
    kept = matched(given.items())
    assert len(kept) == MOST_FIELDS
    assert all(len(text) == LONGEST_TEXT + 1 for text in kept.values())
    assert orjson.dumps(kept)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("\ud83d", "\\ud83d"),
        (2**70, "an integer of more than 64 bits"),
        ({"a": ["\udc00"]}, '{"a":["\\udc00"]}'),
        (["a", {"b": 1}], ["a", '{"b":1}']),
        (list(range(50)), [*range(MOST_ELEMENTS), "…"]),
        (None, None),
        (True, True),
        (1.5, 1.5),
    ],
)
def test_values_are_made_inert(value: Any, kept: Any) -> None:
    assert inert(value) == kept
    assert orjson.dumps(inert(value))


def test_of_a_list_the_elements_that_matched_are_kept(tmp_path: Path) -> None:
    detection = {"s": {"eventType": "x", "target.displayName|startswith": "Okta"}, "k": ["needle"], "condition": "s and k"}
    rules = classifier(tmp_path, event_rule("x", detection))
    target = [{"displayName": "Box"}, {"displayName": "Okta Admin Console"}, {"displayName": "the needle"}]
    (found,) = rules.verdict(full("x", target=target)).findings
    assert found.matched == {"eventType": "x", "target.displayName": "Okta Admin Console", "keywords": "the needle"}


def test_an_alert_of_a_correlation_names_its_group_its_events_and_what_completed_it(tmp_path: Path) -> None:
    count = {"type": "event_count", "rules": ["x"], "group-by": ["client.ip"], "timespan": "60s", "condition": {"gte": 3}}
    rules = classifier(tmp_path, event_rule("x"), {"title": "c", "name": "c", "correlation": count})
    found = [one for at in range(3) for one in rules.observe(event("x", at, uuid=f"e{at}", client={"ip": "192.0.2.1"})).findings]
    assert [one.matched for one in found] == [
        {
            "client.ip": "192.0.2.1",
            "event_count": 3,
            "since": "2026-09-14T08:00:00.000Z",
            "until": "2026-09-14T08:00:02.000Z",
            "events": ["e0", "e1", "e2"],
            "eventType": "x",
        }
    ]
    assert user("u1")["id"] == found[0].person
