"""Folders of rules: what loads, what is left out, and what is refused with its path and line. SigmaHQ's own rules load unchanged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.errors import ConfigurationError
from rules.classify import Classifier
from rules.offline import classify_lines
from rules.ruleset import RuleSet
from tests.rules.build import LIFECYCLE, event, event_rule, observed, ruleset

RULE = """title: T
name: t
logsource:
    product: okta
    service: okta
detection:
    selection:
        eventType: x
    condition: selection
"""


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_folder_is_searched_deep_for_both_endings(tmp_path: Path) -> None:
    write(tmp_path, "a/b/one.yml", RULE)
    write(tmp_path, "two.yaml", RULE.replace("name: t", "name: u"))
    write(tmp_path, "notes.txt", "not: [a rule")
    assert {rule.id for rule in RuleSet.load(tmp_path)} == {"t", "u"}


def test_a_file_is_a_folder_of_one(tmp_path: Path) -> None:
    assert len(RuleSet.load(write(tmp_path, "one.yml", RULE))) == 1


@pytest.mark.parametrize(
    ("logsource", "reason"),
    [("product: windows", "windows"), ("category: webserver", "webserver"), ("product: aws\n    service: cloudtrail", "aws")],
)
def test_rules_for_other_products_are_left_out_and_said_so(tmp_path: Path, logsource: str, reason: str) -> None:
    write(tmp_path, "okta.yml", RULE)
    write(tmp_path, "other.yml", RULE.replace("product: okta\n    service: okta", logsource).replace("name: t", "name: o"))
    loaded = RuleSet.load(tmp_path)
    assert [rule.id for rule in loaded] == ["t"]
    (skipped,) = loaded.skipped
    assert reason in skipped.reason


def test_unsupported_rules_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "one.yml", RULE + "status: unsupported\n")
    assert [one.reason for one in RuleSet.load(tmp_path).skipped] == ["its status is unsupported"]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (RULE.replace("eventType: x", "eventType|near: x"), 8, "Unknown modifier"),
        (RULE.replace("eventType: x", "eventType: x\n        eventType: y"), 9, "stands twice"),
        (RULE.replace("condition: selection", "condition: selection and"), 9, ""),
        (RULE.replace("condition: selection", "nothing: {a: b}"), 6, "condition"),
        (RULE.replace("title: T\n", ""), 1, "title"),
        (RULE + "portcullis:\n    respons: lockdown\n", 11, "did you mean response"),
        (RULE + "portcullis:\n    response: panic\n", 11, "response"),
        (RULE + "portcullis:\n    response: lockdown\n    person: none\n", 10, "needs somebody"),
        (RULE + "portcullis:\n    guards: [XX]\n", 11, "guards"),
        (RULE + "portcullis:\n    id: 'a b'\n", 11, "id"),
        (RULE + "portcullis:\n    severity: {other: high}\n", 11, "other"),
        (RULE + "portcullis:\n    first_seen: {field: a, within: soon}\n", 11, "soon"),
        (RULE + "portcullis: yes\n", 10, "must be a mapping"),
        (RULE + "level: awful\n", 10, "level"),
        ("- a\n- b\n", 1, "mapping"),
        ("title: [\n", 2, "not valid YAML"),
        ("title: !!python/object:os.system x\n", 1, "not valid YAML"),
        ("title: &a [*a]\n", 1, ""),
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(8)),
            1,
            "",
        ),
        (b"title: \xff\xfe\n", None, "not UTF-8"),
        ("action: global\n" + RULE, 1, "action"),
        (RULE.replace("product: okta\n    service: okta", ""), 3, "log"),
        (RULE.replace("eventType: x", "published: 2026-13-45"), None, "not valid YAML"),
    ],
    ids=range(23),
)
def test_refused_with_path_and_line(tmp_path: Path, text: str | bytes, line: int | None, reason: str) -> None:
    path = write(tmp_path, "rule.yml", text)
    with pytest.raises(ConfigurationError) as caught:
        RuleSet.load(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert reason.casefold() in message.casefold()


def test_a_second_document_is_refused_at_its_own_line(tmp_path: Path) -> None:
    path = write(tmp_path, "rules.yml", RULE + "---\n" + RULE.replace("name: t", "name: u").replace("eventType: x", "eventType|re: '('"))
    with pytest.raises(ConfigurationError) as caught:
        RuleSet.load(tmp_path)
    assert str(caught.value).startswith(f"{path}:18: ")


def test_an_id_or_name_stands_once(tmp_path: Path) -> None:
    first = write(tmp_path, "a.yml", RULE)
    second = write(tmp_path, "b.yml", RULE)
    with pytest.raises(ConfigurationError) as caught:
        RuleSet.load(tmp_path)
    assert str(caught.value).startswith(f"{second}:1: ")
    assert f"{first}:1" in str(caught.value)


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigurationError, match=r"no such folder|no rules"):
            RuleSet.load(folder)


def test_the_version_changes_with_the_meaning_and_not_with_the_layout(tmp_path: Path) -> None:
    def version(text: str, **placeholders: tuple[str, ...]) -> str:
        return RuleSet.load(write(tmp_path, "rule.yml", text), placeholders).rules[0].version

    plain = version(RULE)
    assert version("# a comment\n" + RULE.replace("title: T\nname: t\n", "name: t\ntitle: T\n")) == plain
    assert version(RULE.replace("eventType: x", "eventType: y")) != plain
    assert version(RULE + "portcullis: {response: approve}\n") != plain
    expands = RULE.replace("eventType: x", "actor.id|expand: '%who%'")
    assert version(expands, who=("a",)) != version(expands, who=("b",))


def test_a_correlations_version_takes_in_its_members(tmp_path: Path) -> None:
    def version(kind: str) -> str:
        count = {"type": "event_count", "rules": ["m"], "timespan": "60s", "condition": {"gte": 2}}
        loaded = ruleset(
            tmp_path, event_rule("m", {"s": {"eventType": kind}, "condition": "s"}), {"title": "c", "name": "c", "correlation": count}
        )
        found = loaded.get("c")
        assert found is not None
        return found.version

    assert version("x") != version("y")


def test_ids_that_are_no_uuids_are_ids(tmp_path: Path) -> None:
    write(tmp_path, "one.yml", RULE.replace("name: t", "id: ACME-17"))
    assert RuleSet.load(tmp_path).rules[0].id == "ACME-17"


def test_a_filter_narrows_the_rules_that_it_names(tmp_path: Path) -> None:
    narrowing = {
        "title": "Not the robot",
        "logsource": {"product": "okta", "service": "okta"},
        "filter": {"rules": ["x"], "robot": {"actor.id": "00urobot"}, "condition": "not robot"},
    }
    loaded = ruleset(tmp_path, event_rule("x"), event_rule("y"), narrowing)
    assert observed(Classifier(loaded, LIFECYCLE), event("x", 0), event("x", 0, "00urobot"), event("y", 0, "00urobot")) == [
        ["x"],
        [],
        ["y"],
    ]
    alone = ruleset(tmp_path, event_rule("x"))
    assert alone.rules[0].version != loaded.rules[0].version


def test_a_broken_filter_is_refused(tmp_path: Path) -> None:
    broken = {
        "title": "f",
        "logsource": {"product": "okta", "service": "okta"},
        "filter": {"robot": {"actor.id": "x"}, "condition": "not robot"},
    }
    with pytest.raises(ConfigurationError, match="rules"):
        ruleset(tmp_path, event_rule("x"), broken)


# --- SigmaHQ ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sigmahq() -> Path:
    folder = os.environ.get("PORTCULLIS_SIGMAHQ")
    if not folder:
        pytest.skip("PORTCULLIS_SIGMAHQ names no folder with SigmaHQ's rules: their licence keeps them out of this repository")
    return Path(folder)


def okta_only(folder: Path, into: Path) -> Path:
    """SigmaHQ's Okta rules, wherever they stand in the clone, as they are."""
    for path in sorted(folder.rglob("*.yml")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "okta" in text:
            source = next(iter(yaml.safe_load_all(text))).get("logsource", {})
            if "okta" in (source.get("product"), source.get("service")):
                (into / path.name).write_text(text, encoding="utf-8")
    return into


def test_all_okta_rules_of_sigmahq_load_unchanged(sigmahq: Path, tmp_path: Path) -> None:
    """24 stand in a whole clone, 21 of them under `rules/identity/okta`."""
    loaded = RuleSet.load(okta_only(sigmahq, tmp_path))
    assert len(loaded) == len(list(tmp_path.iterdir())) >= (24 if (sigmahq / "rules").is_dir() else 20)
    assert not loaded.skipped


@pytest.mark.parametrize("folder", ["identity", "cloud", "application"])
def test_whatever_the_rules_of_that_folder_use_is_understood(sigmahq: Path, tmp_path: Path, folder: str) -> None:
    """Modifiers, conditions and value kinds are the same whatever product a rule is for: here they are all said to be Okta's."""
    there = sigmahq / "rules" / folder
    if not there.is_dir():
        pytest.skip(f"{there} is no folder: PORTCULLIS_SIGMAHQ names less than a whole clone")
    paths = sorted(there.rglob("*.yml"))
    for path in paths:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        for one in documents:
            if "logsource" in one:
                one["logsource"] = {"product": "okta", "service": "okta"}
        (tmp_path / path.name).write_text(yaml.safe_dump_all(documents, allow_unicode=True), encoding="utf-8")
    loaded = RuleSet.load(tmp_path)
    assert len(loaded) >= len(paths) > 0
    assert not loaded.skipped


#: What SigmaHQ's rules must find in the samples: rule title → sample events, found by their own words and not by our evaluator.
EXPECTED: dict[str, Any] = {
    "New Okta User Created": lambda e: e["eventType"] == "user.lifecycle.create",
    "Okta Application Modified or Deleted": lambda e: e["eventType"] in ("application.lifecycle.update", "application.lifecycle.delete"),
    "Okta MFA Reset or Deactivated": lambda e: e["eventType"] in ("user.mfa.factor.deactivate", "user.mfa.factor.reset_all"),
    "Okta Admin Role Assigned to an User or Group": lambda e: e["eventType"] in ("group.privilege.grant", "user.account.privilege.grant"),
    "Okta Security Threat Detected": lambda e: e["eventType"] == "security.threat.detected",
    "Okta API Token Created": lambda e: e["eventType"] == "system.api_token.create",
    "Okta API Token Revoked": lambda e: e["eventType"] == "system.api_token.revoke",
    "Okta Identity Provider Created": lambda e: e["eventType"] == "system.idp.lifecycle.create",
    "Okta Unauthorized Access to App": lambda e: e.get("displayMessage") == "User attempted unauthorized access to app",
    "Okta User Account Locked Out": lambda e: e.get("displayMessage") == "Max sign in attempts exceeded",
    "Okta Suspicious Activity Reported by End-user": lambda e: e["eventType"] == "user.account.report_suspicious_activity_by_enduser",
    "Okta FastPass Phishing Detection": lambda e: (
        (e.get("outcome") or {}).get("reason") == "FastPass declined phishing attempt"
        and e["outcome"]["result"] == "FAILURE"
        and e["eventType"] == "user.authentication.auth_via_mfa"
    ),
    "Okta User Session Start Via An Anonymising Proxy Service": lambda e: (
        e["eventType"] == "user.session.start" and (e.get("securityContext") or {}).get("isProxy") is True
    ),
}


def test_sigmahq_matches_what_it_should_in_the_samples(sigmahq: Path, shared: Path, tmp_path: Path) -> None:
    classifier = Classifier(RuleSet.load(okta_only(sigmahq, tmp_path)), LIFECYCLE)
    samples = [
        json.loads(line)["event"] for path in sorted((shared / "samples").glob("*.jsonl")) for line in path.read_bytes().splitlines()
    ]
    good = [one for one in samples if isinstance(one.get("uuid"), str) and isinstance(one.get("eventType"), str)]
    rows = list(classify_lines([json.dumps(one).encode() for one in good], classifier))
    for title, holds in EXPECTED.items():
        wanted = [number for number, one in enumerate(good) if holds(one)]
        found = [number for number, row in enumerate(rows) if any(one["title"] == title for one in row["decisions"])]
        assert found == wanted, title
        assert wanted, f"the samples show nothing of {title!r}"
