"""Guards: what a house declares is checked for its meaning, and lowers responses, never raises them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from model.decision import Finding, Response, Severity
from model.errors import ConfigurationError
from rules.guards import GuardSettings, OwnActor
from rules.lower import Guards
from rules.ruleset import RuleSet
from tests.rules.build import classifier, event, event_rule, findings, user

DECLARED = """
[service_accounts]
ids = ["00uservice"]
[networks]
trusted = ["198.51.100.0/24", "2001:db8::/32"]
[iam_admins]
ids = ["00uraj"]
[help_desk]
ids = ["00udesk"]
[imports]
ids = ["0oahr"]
[new_users]
days = 14
[cool_down]
hours = 1
[[change_window]]
reference = "CHG-1"
start = 2026-09-14T07:00:00Z
end = 2026-09-14T09:00:00Z
[[support_window]]
reference = "CASE-7"
start = 2026-09-14T07:00:00Z
end = 2026-09-14T09:00:00Z
[[phishing_exercise]]
reference = "PHISH-3"
start = 2026-09-14T07:00:00Z
end = 2026-09-14T09:00:00Z
"""


def settings(tmp_path: Path, text: str = DECLARED) -> GuardSettings:
    path = tmp_path / "guards.toml"
    path.write_text(text, encoding="utf-8")
    return GuardSettings.load(path)


def only(tmp_path: Path, response: str, guard: str, *events: dict[str, Any], guards: Guards | None = None) -> Finding:
    """The last finding of a rule with one guard."""
    rule = event_rule("x", portcullis={"response": response, "guards": [guard], "person": "actor"}, level="high")
    asked = classifier(tmp_path, rule, guards=guards or Guards(settings(tmp_path), ["00ubreakglass"]))
    return findings(asked, *events)[-1]


APPLIES: dict[str, list[dict[str, Any]]] = {
    "BG": [event("x", 0, "00ubreakglass")],
    "SVC": [event("x", 0, "00uservice")],
    "NET": [event("x", 0, client={"ipAddress": "198.51.100.7"})],
    "ADM": [event("x", 0, "00uraj")],
    "HD": [event("x", 0, "00udesk")],
    "NEWU": [event("user.lifecycle.create", -86_400, target=[user("u1")], outcome={"result": "SUCCESS"}), event("x", 0)],
    "SYNC": [event("x", 0) | {"actor": {"id": "0oahr", "type": "PublicClientApp"}}],
    "CASE": [event("x", 0)],
    "SIM": [event("x", 0)],
}
DOES_NOT: dict[str, list[dict[str, Any]]] = {
    "BG": [event("x", 0)],
    "SVC": [event("x", 0)],
    "NET": [event("x", 0, client={"ipAddress": "203.0.113.9"})],
    "ADM": [event("x", 7200, "00uraj")],
    "HD": [event("x", 0)],
    "NEWU": [event("user.lifecycle.create", -86_400 * 15, target=[user("u1")], outcome={"result": "SUCCESS"}), event("x", 0)],
    "SYNC": [event("x", 0)],
    "CASE": [event("x", 7200)],
    "SIM": [event("x", -7200)],
}


@pytest.mark.parametrize("guard", APPLIES)
@pytest.mark.parametrize(("asked", "left"), [("lockdown", Response.APPROVE), ("approve", Response.ALERT)])
def test_a_guard_lowers_by_one_step_and_says_why(tmp_path: Path, guard: str, asked: str, left: Response) -> None:
    found = only(tmp_path, asked, guard, *APPLIES[guard])
    assert (found.response, found.asked, found.severity) == (left, Response(asked), Severity.HIGH)
    assert found.why.startswith(f"{guard}: ")


@pytest.mark.parametrize("guard", APPLIES)
def test_a_guarded_alert_is_informational(tmp_path: Path, guard: str) -> None:
    found = only(tmp_path, "alert", guard, *APPLIES[guard])
    assert (found.response, found.severity) == (Response.ALERT, Severity.INFORMATIONAL)


@pytest.mark.parametrize("guard", DOES_NOT)
def test_elsewhere_it_leaves_the_response_alone(tmp_path: Path, guard: str) -> None:
    found = only(tmp_path, "lockdown", guard, *DOES_NOT[guard])
    assert (found.response, found.asked, found.why) == (Response.LOCKDOWN, None, "")


@pytest.mark.parametrize("by_tick", [True, False], ids=["the clock", "somebody else's event"])
def test_what_fires_because_time_passed_is_guarded_as_well(tmp_path: Path, by_tick: bool) -> None:
    """Guards that ask whom an event means, or when: never those that ask who did it, for whoever's event shows the time did not."""
    absence = {"expect": "ack", "within": "60s", "by": "actor.id", "grace": "0s"}
    section = {"response": "lockdown", "guards": ["BG", "HD"], "person": "actor", "absence": absence}
    rules = classifier(
        tmp_path,
        event_rule("x", portcullis=section),
        event_rule("ack"),
        guards=Guards(settings(tmp_path), ["00ubreakglass"]),
    )
    assert not findings(rules, event("x", 0, "00ubreakglass"), event("x", 1, "u2"))
    late = event("y", 90, "00udesk")
    found = rules.tick(datetime.fromisoformat(late["published"])) if by_tick else rules.observe(late).findings
    assert [(one.person, one.response, one.why) for one in found] == [
        ("00ubreakglass", Response.APPROVE, "BG: is on the protected list"),
        ("u2", Response.LOCKDOWN, ""),
    ]


def test_only_the_guards_that_a_rule_names_are_asked(tmp_path: Path) -> None:
    assert only(tmp_path, "lockdown", "HD", *APPLIES["NET"]).response is Response.LOCKDOWN


def test_several_guards_are_all_named_and_lower_once(tmp_path: Path) -> None:
    rule = event_rule("x", portcullis={"response": "lockdown", "guards": ["NET", "SVC"]})
    asked = classifier(tmp_path, rule, guards=Guards(settings(tmp_path)))
    (found,) = findings(asked, event("x", 0, "00uservice", client={"ipAddress": "198.51.100.7"}))
    assert found.response is Response.APPROVE
    assert found.why == "NET: from 198.51.100.0/24; SVC: is a service account"


def test_a_rule_asks_about_one_person_once_in_a_while(tmp_path: Path) -> None:
    rule = event_rule("x", portcullis={"response": "lockdown", "guards": ["RATE"]})
    asked = classifier(tmp_path, rule, guards=Guards(settings(tmp_path)))
    given = [event("x", 0), event("x", 60), event("x", 60, "u2"), event("x", 3700)]
    assert [one.response.value for one in findings(asked, *given)] == ["lockdown", "alert", "lockdown", "lockdown"]
    assert [one.response.value for one in findings(asked, given[3])] == ["lockdown"], "the same event, delivered again"


@pytest.mark.parametrize(
    "own",
    [
        {"actor": {"id": "0oaportcullis", "type": "PublicClientAppEntity"}},
        {"transaction": {"detail": {"requestApiTokenId": "00Tours"}}},
        {"transaction": {"detail": {"requestApiTokenClientId": "0oaportcullis"}}},
    ],
)
def test_what_we_did_ourselves_is_never_more_than_an_alert(tmp_path: Path, own: dict[str, Any]) -> None:
    """Fault 45: our own action's event returns; no guard needs to be named for that."""
    rule = event_rule("x", portcullis={"response": "lockdown"})
    asked = classifier(tmp_path, rule, guards=Guards(own=OwnActor(clients=("0oaportcullis",), tokens=("00Tours",))))
    (found,) = findings(asked, event("x", 0) | own)
    assert (found.response, found.severity, found.asked) == (Response.ALERT, Severity.INFORMATIONAL, Response.LOCKDOWN)
    assert findings(asked, event("x", 1))[0].response is Response.LOCKDOWN


def test_a_correlations_alert_is_guarded_by_the_event_that_completes_it(tmp_path: Path) -> None:
    count = {"type": "event_count", "rules": ["x"], "timespan": "60s", "condition": {"gte": 2}}
    document = {"title": "c", "name": "c", "correlation": count, "portcullis": {"response": "lockdown", "guards": ["NET"]}}
    asked = classifier(tmp_path, event_rule("x"), document, guards=Guards(settings(tmp_path)))
    (found,) = findings(asked, event("x", 0), event("x", 1, client={"ipAddress": "198.51.100.7"}))
    assert found.response is Response.APPROVE


def test_what_guards_learnt_survives_a_restart(tmp_path: Path) -> None:
    rule = event_rule("x", portcullis={"response": "approve", "guards": ["NEWU"]})
    before = classifier(tmp_path, rule, guards=Guards(settings(tmp_path)))
    findings(before, APPLIES["NEWU"][0])
    after = classifier(tmp_path, rule, guards=Guards(settings(tmp_path)))
    after.restore(before.snapshot())
    assert findings(after, event("x", 0))[0].response is Response.ALERT


def test_our_own_tokens_are_a_placeholder_of_the_rules(tmp_path: Path) -> None:
    declared = settings(tmp_path, '[own]\ntokens = ["00Town"]\n')
    ruleset = RuleSet.load(placeholders=declared.sigma_placeholders())
    rule = ruleset.get("OKTA-032")
    assert rule is not None
    assert rule.expression is not None
    revoked = event("system.api_token.revoke", 0, outcome={"result": "SUCCESS"}, target=[{"id": "00Town", "type": "Token"}])
    assert rule.expression.matches(revoked)
    assert not rule.expression.matches(revoked | {"target": [{"id": "00Tother", "type": "Token"}]})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[networks]\ntrusted = ['0.0.0.0/4']", "too wide"),
        ("[networks]\ntrusted = ['10.0.0.1/8']", "host bits"),
        ("[networks]\ntrusted = ['office']", "does not appear to be"),
        ("[help_desk]\nids = ['ida@example.com']", "no Okta id"),
        ("[help_desk]\nids = ['me']", "no Okta id"),
        ("[help_desk]\nids = ['00u1', '00u1']", "twice"),
        ("[service_accounts]\nids = ['00u1']\n[iam_admins]\nids = ['00u1']", "one of the two is wrong"),
        ("[[change_window]]\nreference = 'C'\nstart = 2026-01-02T00:00:00Z\nend = 2026-01-01T00:00:00Z", "end must be after start"),
        ("[[change_window]]\nreference = 'C'\nstart = 2026-01-01T00:00:00Z\nend = 2026-03-01T00:00:00Z", "longer than 31 days"),
        ("[[change_window]]\nreference = 'C'\nstart = 2026-01-01T00:00:00\nend = 2026-01-02T00:00:00", "timezone"),
        ("[[support_window]]\nstart = 2026-01-01T00:00:00Z\nend = 2026-01-02T00:00:00Z", "reference"),
        ("[new_users]\ndays = -1", "greater than or equal"),
        ("[help_dsk]\nids = []", "did you mean help_desk"),
        ("[networks]\ntrusted = '10.0.0.0/8'", "tuple"),
        ("[networks\n", "not valid TOML"),
        ("[help_desk]\nids = []\nids = []", "not valid TOML"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "guards.toml"))
    assert reason in str(caught.value)


def test_what_is_declared_and_what_is_over(tmp_path: Path) -> None:
    declared = settings(tmp_path)
    assert {"SVC", "NET", "ADM", "HD", "NEWU", "CASE", "SIM"} <= declared.configured()
    assert not {"SVC", "NET", "ADM", "HD", "NEWU", "CASE", "SIM"} & GuardSettings.load(None).configured()
    assert settings(tmp_path, "[iam_admins]\nids = ['00u1']\n").configured() & {"ADM"} == set(), "no window, no change, no guard"
    assert declared.over(datetime(2026, 9, 15, tzinfo=UTC)) == ["CHG-1", "CASE-7", "PHISH-3"]
    assert declared.over(datetime(2026, 9, 14, 8, tzinfo=UTC)) == []
