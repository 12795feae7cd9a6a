"""Each check finds what it is for, at its line, and says what to do; what is right is left alone. Our own rules are clean."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from model.errors import ConfigurationError
from rules.catalogue import Catalogue
from rules.checks import Code, Problem
from rules.guards import GuardSettings
from rules.lint import Report, lint
from rules.ruleset import BUILT_IN, RuleSet

CASES = (
    '{"case": "fires", "fires": ["T-1"], "events": [{"uuid": "1", "eventType": "user.session.start"}]}\n'
    '{"case": "is quiet", "fires": [], "events": [{"uuid": "2", "eventType": "user.session.end"}]}\n'
)


def rule(selection: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A rule that lint has nothing to say about but what the test gives it."""
    found: dict[str, Any] = {
        "title": "T",
        "logsource": {"product": "okta", "service": "okta"},
        "detection": {"selection": selection, "condition": "selection"},
        "level": "high",
        "portcullis": {"id": "T-1"},
    }
    section = changes.pop("portcullis", {})
    return found | changes | {"portcullis": found["portcullis"] | section}


SIGN_IN = {"eventType": "user.session.start", "outcome.result": "SUCCESS"}
LOCK = {"response": "lockdown", "runbook": "Call them."}


def linted(tmp_path: Path, *documents: dict[str, Any], cases: str = CASES, **more: Any) -> Report:
    (tmp_path / "rule.yml").write_text(yaml.safe_dump_all(documents, sort_keys=False), encoding="utf-8")
    (tmp_path / "rule.cases.jsonl").write_text(cases, encoding="utf-8")
    return lint(tmp_path, **more)


def the_one(tmp_path: Path, *documents: dict[str, Any], **more: Any) -> Problem:
    (problem,) = linted(tmp_path, *documents, **more).problems
    return problem


def line_with(tmp_path: Path, text: str, nth: int = 0) -> int:
    lines = (tmp_path / "rule.yml").read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, start=1) if text in line][nth]


def codes(report: Report) -> list[str]:
    return sorted(one.code for one in report.problems)


# --- ours -----------------------------------------------------------------------------------------------------------------


def test_our_own_rules_are_clean() -> None:
    report = lint()
    assert report.problems == ()
    assert report.rules == len(RuleSet.load())
    assert report.skipped == 0


def test_a_rule_that_is_right_is_left_alone(tmp_path: Path) -> None:
    assert linted(tmp_path, rule(SIGN_IN, portcullis=LOCK)).problems == ()


# --- event types -------------------------------------------------------------------------------------------------------------


def test_a_misspelt_event_type_is_found_at_its_line_with_the_nearest_name(tmp_path: Path) -> None:
    selection = {"eventType": ["user.session.start", "user.sesion.end"], "outcome.result": "SUCCESS"}
    problem = the_one(tmp_path, rule(selection))
    assert (problem.code, problem.grade, problem.rule, problem.line) == (
        "event-type",
        "error",
        "T-1",
        line_with(tmp_path, "user.sesion.end"),
    )
    assert "'user.sesion.end'" in problem.text
    assert problem.remedy == "did you mean user.session.end?"


def test_a_type_that_resembles_none_leads_to_the_refresh(tmp_path: Path) -> None:
    problem = the_one(tmp_path, rule({"eventType": "acme.made.this.up"}))
    assert problem.code == "event-type", "that it can never fire is told by this alone"
    assert "refresh-catalogue" in problem.remedy
    newer = Catalogue("2027.01.0", frozenset({"acme.made.this.up"}))
    assert codes(linted(tmp_path, rule({"eventType": "acme.made.this.up", "outcome.result": "SUCCESS"}), catalogue=newer)) == []


def test_types_are_compared_as_sigma_compares(tmp_path: Path) -> None:
    assert codes(linted(tmp_path, rule({"eventType": "USER.Authentication.auth_via_idp", "outcome.result": "FAILURE"}))) == []


@pytest.mark.parametrize(
    ("key", "value", "fits"),
    [
        ("eventType|startswith", "user.session.", True),
        ("eventType|startswith", "user.sesion.", False),
        ("eventType", "user.session.*", True),
        ("eventType", "user.session.st?rt", True),
        ("eventType", "user.sesion.*", False),
        ("eventType|re", "^user\\.session\\.(start|end)$", True),
        ("eventType|re", "^session", False),
        ("eventType|contains|all", ["user", "factor"], True),
        ("eventType|contains|all", ["user", "zone"], False),
        ("eventType|exists", True, True),
    ],
)
def test_a_pattern_must_fit_some_type(tmp_path: Path, key: str, value: Any, fits: bool) -> None:
    report = linted(tmp_path, rule({key: value, "outcome.result": "SUCCESS"}))
    assert ("event-type" in codes(report)) is not fits
    if not fits:
        assert "event-type" in {one.code for one in report.problems if one.grade == "error"}


def test_one_bad_pattern_among_good_ones_is_found(tmp_path: Path) -> None:
    problem = the_one(tmp_path, rule({"eventType|startswith": ["user.session.", "user.sesion."], "outcome.result": "SUCCESS"}))
    assert (problem.code, problem.line) == ("event-type", line_with(tmp_path, "- user.sesion."))


# --- fields --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "grade", "remedy"),
    [
        ("displaymessage", "error", "did you mean displayMessage?"),
        ("actor.alternateid", "error", "did you mean actor.alternateId?"),
        ("client.ipAdress", "error", "did you mean client.ipAddress?"),
        ("target[type=User].alternateid", "error", "did you mean target.alternateId?"),
        ("debugContext.debugdata", "error", "did you mean debugContext.debugData?"),
        ("winlog.event_data.Image", "warning", "names are Okta's"),
    ],
)
def test_an_unknown_field(tmp_path: Path, field: str, grade: str, remedy: str) -> None:
    problem = the_one(tmp_path, rule(SIGN_IN | {field: "x"}))
    assert (problem.code, problem.grade, problem.line) == ("field", grade, line_with(tmp_path, f"{field}:"))
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    "field",
    [
        "debugContext.debugData.anything.at all",
        "target.detailEntry.methodTypeUsed",
        "target.0.id",
        "target[type=User].id",
        "request.ipChain.geographicalContext.country",
        "securityContext.isProxy",
        "authenticationContext.rootSessionId",
        "client.userAgent",
        "transaction.detail.requestApiTokenId",
    ],
)
def test_a_known_field_is_known(tmp_path: Path, field: str) -> None:
    assert codes(linted(tmp_path, rule(SIGN_IN | {field: "x"}))) == []


def test_fields_of_correlations_references_and_our_section_are_looked_at(tmp_path: Path) -> None:
    member = rule(SIGN_IN | {"actor.id|fieldref": "target.ident"}, name="member", portcullis={"id": "member"}, title="M")
    counted = {
        "title": "C",
        "correlation": {
            "type": "value_count",
            "rules": ["member"],
            "group-by": ["actor.ident", "who"],
            "aliases": {"who": {"member": "actor.Id"}},
            "timespan": "5m",
            "condition": {"field": "client.ip", "gte": 2},
        },
        "portcullis": {"id": "T-1", "also": [{"field": "client.Zone", "gte": 2}]},
    }
    report = linted(tmp_path, member, counted)
    assert sorted(one.text.partition(":")[0] for one in report.problems) == [
        "actor.Id",
        "actor.ident",
        "client.Zone",
        "client.ip",
        "target.ident",
    ]
    first = rule(SIGN_IN, portcullis={"id": "T-1", "first_seen": {"field": "client.ipaddress", "by": "actor.ID", "within": "7d"}})
    assert sorted(one.remedy for one in linted(tmp_path, first).problems) == ["did you mean actor.id?", "did you mean client.ipAddress?"]


def test_a_word_that_an_outcome_never_is(tmp_path: Path) -> None:
    problem = the_one(tmp_path, rule({"eventType": "user.session.start", "outcome.result": "FAILED"}))
    assert (problem.code, problem.grade, problem.line) == ("value", "warning", line_with(tmp_path, "FAILED"))
    assert "FAILURE" in problem.remedy


# --- reach ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "detection",
    [
        {"a": SIGN_IN, "b": {"outcome.result": "FAILURE"}, "condition": "a and b"},
        {"a": SIGN_IN, "b": {"outcome.result": ["SUCCESS", "ALLOW"]}, "condition": "a and not b"},
        {"a": SIGN_IN, "b": {"eventType": "user.session.end"}, "condition": "a and b"},
        {"a": SIGN_IN, "b": {"eventType|startswith": "user."}, "condition": "a and not b"},
        {"a": SIGN_IN | {"target.type": "User"}, "condition": "a and not a"},
        {"a": SIGN_IN, "b": [{"outcome.result": "DENY"}, {"severity": "WARN", "outcome.result": "FAILURE"}], "condition": "a and b"},
        {"a": SIGN_IN, "b": {"outcome.result": "ALLOW"}, "c": {"outcome.result": "DENY"}, "condition": "a and (b or c)"},
        {"a": SIGN_IN | {"actor.id|expand": "%own_api_tokens%"}, "condition": "a"},
    ],
)
def test_a_rule_that_can_never_fire(tmp_path: Path, detection: dict[str, Any]) -> None:
    problem = the_one(tmp_path, rule({}, detection=detection))
    assert (problem.code, problem.grade, problem.line) == ("never-fires", "error", line_with(tmp_path, "condition:"))


@pytest.mark.parametrize(
    "detection",
    [
        {"a": SIGN_IN, "b": {"target.type": "User"}, "c": {"target.type": "AppInstance"}, "condition": "a and b and c"},
        {"a": SIGN_IN, "b": {"outcome.result": ["SUCCESS", "DENY"]}, "condition": "a and b"},
        {"a": SIGN_IN, "b": {"outcome.result": "FAILURE"}, "condition": "a and not b"},
        {"a": SIGN_IN, "b": {"outcome.result": "FAILURE"}, "c": {"severity": "WARN"}, "condition": "a and (b or c)"},
        {"a": SIGN_IN, "b": {"actor.type": "User"}, "c": {"client.zone": "x"}, "condition": "a and not (b and c)"},
    ],
)
def test_a_rule_that_can_fire_is_not_called_dead(tmp_path: Path, detection: dict[str, Any]) -> None:
    assert codes(linted(tmp_path, rule({}, detection=detection))) == []


def correlation(kind: str, *members: str, condition: Any = None, **section: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"type": kind, "rules": list(members), "group-by": ["actor.id"], "timespan": "5m"}
    if condition is not None:
        body["condition"] = condition
    return {"title": "C", "correlation": body, "portcullis": {"id": "T-1"} | section}


def member(name: str, selection: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in rule(selection, name=name, title=name).items() if key != "portcullis"}


def dead(name: str) -> dict[str, Any]:
    found = member(name, {})
    return found | {"detection": {"a": SIGN_IN, "b": {"outcome.result": "FAILURE"}, "condition": "a and b"}}


@pytest.mark.parametrize(
    ("body", "fires"),
    [
        (correlation("event_count", "dead", condition={"gte": 2}), False),
        (correlation("event_count", "dead", "live", condition={"gte": 2}), True),
        (correlation("event_count", "live", condition={"gte": 5, "lte": 3}), False),
        (correlation("event_count", "live", condition={"gte": 3, "lte": 5}), True),
        (correlation("temporal", "dead", "live"), False),
        (correlation("temporal", "dead", "live", condition="dead or live"), True),
        (correlation("temporal", "dead", "live", condition="dead and not live"), False),
        (correlation("temporal_ordered", "live", "dead"), False),
    ],
)
def test_a_correlation_lives_by_its_rules(tmp_path: Path, body: dict[str, Any], fires: bool) -> None:
    report = linted(tmp_path, body, dead("dead"), member("live", SIGN_IN))
    blamed = [one.rule for one in report.problems if one.code == "never-fires"]
    assert "dead" in blamed
    assert ("T-1" not in blamed) is fires


def test_a_search_identifier_that_nobody_uses(tmp_path: Path) -> None:
    detection = {"a": SIGN_IN, "forgotten": {"severity": "WARN"}, "condition": "a"}
    problem = the_one(tmp_path, rule({}, detection=detection))
    assert (problem.code, problem.line) == ("unused", line_with(tmp_path, "forgotten:"))


# --- outcome ------------------------------------------------------------------------------------------------------------------------


def test_a_type_that_can_fail_needs_an_outcome(tmp_path: Path) -> None:
    selection = {"eventType": ["user.mfa.factor.reset_all", "user.account.lock"]}
    problem = the_one(tmp_path, rule(selection))
    assert (problem.code, problem.grade, problem.line) == ("outcome", "warning", line_with(tmp_path, "detection:"))
    assert "user.mfa.factor.reset_all can fail" in problem.text
    assert "user.account.lock" not in problem.text


def test_a_rule_that_names_no_type_is_told_that(tmp_path: Path) -> None:
    assert the_one(tmp_path, rule({"actor.id": "x"})).text.startswith("it names no event type")


def test_one_type_of_two_without_an_outcome_is_found(tmp_path: Path) -> None:
    detection = {"a": SIGN_IN, "b": {"eventType": "user.session.end"}, "condition": "a or b"}
    problem = the_one(tmp_path, rule({}, detection=detection))
    assert problem.text.startswith("user.session.end can fail")


@pytest.mark.parametrize(
    "fine",
    [
        rule({"eventType": "user.mfa.factor.reset_all"}, portcullis={"outcome": "any"}),
        rule({"eventType": "user.mfa.factor.reset_all", "outcome.reason|contains": "x"}),
        rule({"eventType": "security.threat.detected"}),
        rule({}, detection={"a": {"eventType": "user.session.end"}, "b": {"outcome.result": "FAILURE"}, "condition": "a and not b"}),
    ],
)
def test_an_outcome_that_is_tested_or_means_nothing(tmp_path: Path, fine: dict[str, Any]) -> None:
    assert codes(linted(tmp_path, fine)) == []


# --- locking ------------------------------------------------------------------------------------------------------------------------


def test_a_lockdown_needs_a_runbook(tmp_path: Path) -> None:
    problem = the_one(tmp_path, rule(SIGN_IN, portcullis={"response": "lockdown", "runbook": "  "}))
    assert (problem.code, problem.grade, problem.line) == ("runbook", "error", line_with(tmp_path, "response:"))
    assert codes(linted(tmp_path, rule(SIGN_IN, portcullis={"response": "approve"}))) == []


@pytest.mark.parametrize(
    "selection",
    [
        {"eventType": "user.account.lock"},
        {"eventType": "user.mfa.okta_verify.deny_push"},
        {"eventType": "security.threat.detected", "outcome.result": "ALLOW"},
        {"eventType": "user.session.start", "outcome.result": "FAILURE"},
        {"eventType": "user.authentication.auth_via_mfa", "outcome.reason": "INVALID_CREDENTIALS"},
        {"eventType|startswith": "user.authentication.auth_via_", "outcome.result": ["SUCCESS", "FAILURE"]},
        {"outcome.result": "FAILURE", "actor.type": "User"},
    ],
)
def test_what_an_outsider_can_cause_never_locks(tmp_path: Path, selection: dict[str, Any]) -> None:
    report = linted(tmp_path, rule(selection, portcullis=LOCK | {"outcome": "any"}))
    (problem,) = [one for one in report.problems if one.code == "outsider-locks"]
    assert (problem.grade, problem.line) == ("error", line_with(tmp_path, "response:"))
    for lower in ("approve", "alert"):
        assert "outsider-locks" not in codes(linted(tmp_path, rule(selection, portcullis={"response": lower, "outcome": "any"})))


def test_a_success_takes_a_credential(tmp_path: Path) -> None:
    either = {"a": SIGN_IN, "b": {"eventType": "user.authentication.sso"}, "condition": "1 of *"}
    assert codes(linted(tmp_path, rule({}, detection=either, portcullis=LOCK | {"outcome": "any"}))) == ["outsider-locks"]
    assert codes(linted(tmp_path, rule(SIGN_IN, portcullis=LOCK))) == []
    verdict = {"eventType": "user.risk.detect", "debugContext.debugData.risk.level": "HIGH"}
    assert codes(linted(tmp_path, rule(verdict, portcullis=LOCK))) == [], "Okta's own verdict may lock"


FAILED = {"eventType": "user.session.start", "outcome.result": "FAILURE"}
LOCKED = {"eventType": "user.account.lock"}


@pytest.mark.parametrize(
    ("body", "locks"),
    [
        (correlation("event_count", "failed", condition={"gte": 10}, **LOCK), True),
        (correlation("value_count", "failed", condition={"field": "client.ipAddress", "gte": 10}, **LOCK), True),
        (correlation("temporal", "failed", "locked", **LOCK), True),
        (correlation("temporal_ordered", "failed", "signed_in", **LOCK), False),
        (correlation("temporal", "failed", "signed_in", condition="failed or signed_in", **LOCK), True),
        (correlation("temporal", "failed", "signed_in", condition={"gte": 1}, **LOCK), True),
        (correlation("event_count", "signed_in", condition={"gte": 10}, **LOCK), False),
    ],
)
def test_a_correlation_locks_only_with_a_signal_that_only_insiders_cause(tmp_path: Path, body: dict[str, Any], locks: bool) -> None:
    report = linted(tmp_path, body, member("failed", FAILED), member("locked", LOCKED), member("signed_in", SIGN_IN))
    blamed = [one for one in report.problems if one.code == "outsider-locks"]
    assert bool(blamed) is locks
    assert all("user.session.start" in one.text or "user.account.lock" in one.text for one in blamed)


def test_a_correlation_of_correlations_is_looked_through(tmp_path: Path) -> None:
    many = {"title": "Many", "name": "many"} | {
        key: value for key, value in correlation("event_count", "failed", condition={"gte": 5}).items() if key == "correlation"
    }
    alone = correlation("temporal", "many", "locked", **LOCK)
    assert "outsider-locks" in codes(linted(tmp_path, alone, many, member("failed", FAILED), member("locked", LOCKED)))
    followed = correlation("temporal_ordered", "many", "signed_in", **LOCK)
    assert "outsider-locks" not in codes(linted(tmp_path, followed, many, member("failed", FAILED), member("signed_in", SIGN_IN)))


# --- names, tags, proofs ----------------------------------------------------------------------------------------------------------------


def test_ids_names_and_titles_that_stand_twice(tmp_path: Path) -> None:
    report = linted(tmp_path, rule(SIGN_IN), rule(SIGN_IN, title="t", name="T-2", portcullis={"id": "T-1"}))
    (problem,) = [one for one in report.problems if one.grade == "error"]
    assert (problem.code, problem.line) == ("duplicate-id", line_with(tmp_path, "id: T-1", 1))
    assert "rule.yml:1" in problem.text
    report = linted(tmp_path, rule(SIGN_IN), rule(SIGN_IN, title="t", portcullis={"id": "T-2"}))
    assert ("duplicate-title", line_with(tmp_path, "title: t")) in [(one.code, one.line) for one in report.problems]


def test_titles_of_rules_that_nobody_sees_may_be_the_same(tmp_path: Path) -> None:
    body = correlation("temporal", "a", "b")
    assert codes(linted(tmp_path, body, member("a", SIGN_IN) | {"title": "M"}, member("b", SIGN_IN) | {"title": "M"})) == []


@pytest.mark.parametrize(
    ("tag", "remedy"),
    [
        ("attack.initial_access", "write attack.initial-access"),
        ("attack.T1078", "write attack.t1078"),
        ("attack.t1078.4", "a technique"),
        ("attack.initial-acess", "a tactic"),
        ("Attack.t1078", "write attack.t1078"),
    ],
)
def test_att_and_ck_tags_have_their_form(tmp_path: Path, tag: str, remedy: str) -> None:
    problem = the_one(tmp_path, rule(SIGN_IN, tags=["attack.t1078.004", tag]))
    assert (problem.code, problem.grade, problem.line) == ("attack-tag", "warning", line_with(tmp_path, f"- {tag}"))
    assert remedy in problem.remedy


def test_other_tags_are_nobody_s_business(tmp_path: Path) -> None:
    tags = ["attack.credential-access", "attack.t1110.003", "attack.g0049", "attack.s0002", "cve.2024-1234", "detection.threat-hunting"]
    assert codes(linted(tmp_path, rule(SIGN_IN, tags=tags))) == []


def test_a_rule_travels_with_its_proof(tmp_path: Path) -> None:
    fires, quiet = CASES.splitlines(keepends=True)
    assert codes(linted(tmp_path, rule(SIGN_IN), cases=fires)) == ["no-quiet-case"]
    assert codes(linted(tmp_path, rule(SIGN_IN), cases=quiet)) == ["no-firing-case"]
    problem = the_one(tmp_path, rule(SIGN_IN), cases="no json\n")
    assert (problem.code, problem.path.name, problem.line) == ("refused", "rule.cases.jsonl", 1)
    (tmp_path / "rule.cases.jsonl").unlink()
    (problem,) = lint(tmp_path).problems
    assert (problem.code, problem.grade) == ("no-cases", "warning")
    foreign = {key: value for key, value in rule(SIGN_IN, id="6f1c0e8e-3d6e-4c3a-9d0c-8a7f0a6d9901").items() if key != "portcullis"}
    (tmp_path / "rule.yml").write_text(yaml.safe_dump(foreign), encoding="utf-8")
    assert codes(lint(tmp_path)) == [], "a rule of somebody else's need not have our cases"


def test_a_rule_of_ours_without_cases_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(BUILT_IN, tmp_path / "detections")
    monkeypatch.setattr("rules.lint.BUILT_IN", tmp_path / "detections")
    (tmp_path / "detections" / "token_reused.cases.jsonl").unlink()
    (problem,) = lint().problems
    assert (problem.code, problem.grade, problem.path.name, problem.rule) == ("no-cases", "error", "token_reused.yml", "OKTA-048")


# --- what does not load -----------------------------------------------------------------------------------------------------------------


def test_all_that_does_not_load_is_told_not_only_the_first(tmp_path: Path) -> None:
    broken = rule(SIGN_IN | {"actor.id|re": "(?=x)"}, portcullis={"id": "T-2"}, title="B")
    unknown = rule(SIGN_IN, portcullis={"id": "T-3", "respons": "alert"}, title="U")
    lost = correlation("temporal", "T-1", "nowhere") | {"title": "L", "portcullis": {"id": "T-4"}}
    misspelt = rule(SIGN_IN | {"actor.ID": "x"})
    report = linted(tmp_path, broken, unknown, lost, misspelt)
    (tmp_path / "other.yml").write_text("title: [", encoding="utf-8")
    report = lint(tmp_path)
    refused = [(one.path.name, one.line, one.text) for one in report.problems if one.code == "refused"]
    assert [name for name, _, _ in refused] == ["other.yml", "rule.yml", "rule.yml", "rule.yml"]
    assert {line for _, line, _ in refused[1:]} == {
        line_with(tmp_path, "actor.id|re"),
        line_with(tmp_path, "respons:"),
        line_with(tmp_path, "rules:"),
    }
    assert "did you mean response?" in " ".join(text for _, _, text in refused)
    assert [one.line for one in report.problems if one.code == "field"] == [line_with(tmp_path, "actor.ID")], "the others are looked at"
    with pytest.raises(ConfigurationError):
        RuleSet.load(tmp_path)


def test_rules_for_other_products_are_left_out(tmp_path: Path) -> None:
    windows = rule({"winlog.Image": "x"}, logsource={"product": "windows"}, title="W", portcullis={"id": "W"})
    report = linted(tmp_path, windows, rule(SIGN_IN))
    assert (report.rules, report.skipped, report.problems) == (1, 1, ())


def test_nothing_to_look_at_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no rules"):
        lint(tmp_path)
    with pytest.raises(ConfigurationError, match="no such folder"):
        lint(tmp_path / "nowhere")


# --- notes ----------------------------------------------------------------------------------------------------------------------------


def test_notes_say_which_guards_guard_nothing_and_which_windows_are_over(tmp_path: Path) -> None:
    path = tmp_path / "guards.toml"
    path.write_text(
        '[networks]\ntrusted = ["192.0.2.0/24"]\n\n[[support_window]]\nreference = "CASE-7"\n'
        "start = 2026-01-01T00:00:00Z\nend = 2026-01-02T00:00:00Z\n",
        encoding="utf-8",
    )
    rules = tmp_path / "rules"
    rules.mkdir()
    settings = GuardSettings.load(path)
    document = rule(SIGN_IN, portcullis={"guards": ["NET", "SVC", "BG", "CASE"]})
    report = linted(rules, document, guards=settings, now=datetime(2026, 2, 1, tzinfo=UTC))
    assert report.problems == ()
    assert len(report.notes) == 2
    assert "the guard SVC guards nothing" in report.notes[0]
    assert "T-1" in report.notes[0]
    assert "CASE-7 has ended" in report.notes[1]
    assert linted(rules, document).notes == (), "without a guards file there is no house to speak of"


def test_every_kind_of_problem_is_explained(root: Path) -> None:
    page = (root / "docs" / "rules.md").read_text(encoding="utf-8").split("## Before rules go live")[1].split("\n## ")[0]
    told = [name for line in page.splitlines() if line.startswith("| `") for name in re.findall(r"`([^`]+)`", line.split("|")[1])]
    assert sorted(told) == sorted(get_args(Code))
