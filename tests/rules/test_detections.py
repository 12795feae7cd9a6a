"""The rules that ship: fifty, as the table says, each with its proof."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.decision import Response, Scope
from rules.cases import Case, CaseResult, cases_path, read_cases, run_cases
from rules.lifecycle import Lifecycle
from rules.rule import Rule
from rules.ruleset import RuleSet
from rules.sigma.expression import leaves_of

RULES = RuleSet.load()
RESULTS = list(run_cases(RULES, Lifecycle.load()))


@pytest.mark.parametrize("result", RESULTS, ids=lambda one: f"{one.case.path.stem}:{one.case.line}")
def test_cases(result: CaseResult) -> None:
    assert result.ok, f"{result.case.path}:{result.case.line}: {result.case.name}: {result.problem}"


def test_fifty_rules_in_the_table_and_no_number_twice() -> None:
    numbers = {rule.id for rule in RULES.reported}
    assert {f"OKTA-{number:03d}" for number in range(1, 51)} | {"OKTA-041.single"} == numbers


def cases_of(rule: Rule) -> list[Case]:
    return read_cases(cases_path(rule.path))


@pytest.mark.parametrize("rule", RULES.reported, ids=lambda rule: str(rule.id))
def test_each_rule_has_a_case_that_fires_and_one_that_is_quiet(rule: Rule) -> None:
    cases = cases_of(rule)
    assert any(rule.id in case.fires for case in cases)
    assert any(rule.id not in case.fires for case in cases)


@pytest.mark.parametrize("rule", RULES.reported, ids=lambda rule: str(rule.id))
def test_each_rule_says_what_a_human_needs(rule: Rule) -> None:
    if rule.id == "OKTA-041.single":
        return
    assert rule.description
    assert rule.falsepositives
    assert rule.section.basis
    assert rule.runbook.strip() or rule.response is Response.ALERT
    assert all(re.fullmatch(r"attack\.([a-z-]+|t\d{4}(\.\d{3})?)", tag) for tag in rule.tags)
    assert rule.tags


def table(shared: Path) -> Iterator[dict[str, str]]:
    lines = (shared / "detections" / "default-rules.md").read_text(encoding="utf-8").splitlines()
    names = ["id", "title", "types", "conditions", "severity", "response", "scope", "window", "guards", "basis"]
    for line in lines:
        if line.startswith("|OKTA-"):
            yield dict(zip(names, line.strip("|").split("|"), strict=True))


def test_responses_and_severities_are_those_of_the_table(shared: Path) -> None:
    rows = list(table(shared))
    assert len(rows) == 50
    for row in rows:
        rule = RULES.get(row["id"])
        assert rule is not None, row["id"]
        assert (rule.response.value, rule.severity.value) == (row["response"], row["severity"]), row["id"]
        assert rule.title == row["title"]
        if row["response"] == "lockdown":
            assert rule.scope is (Scope.FULL if row["scope"].startswith("full") else Scope.SESSIONS), row["id"]
            assert rule.downstream is ("downstream only" in row["scope"]), row["id"]
        named = set(re.findall(r"\b(BG|SVC|ADM|HD|NEWU|NET|CB|LOOP|ORD|SYNC|CASE|RATE|SIM)\b", row["guards"]))
        assert named <= set(rule.section.guards), (row["id"], named)


def test_the_event_types_of_the_table_are_asked_about(shared: Path) -> None:
    ours = RuleSet.load(placeholders={"own_api_tokens": ("00Town",)})
    for row in table(shared):
        rule = ours.get(row["id"])
        assert rule is not None
        asked = set(types_of(rule, ours))
        for name in row["types"].split("<br>"):
            assert name.casefold() in asked, f"{row['id']} does not ask about {name}"


def types_of(rule: Rule, ruleset: RuleSet) -> Iterator[str]:
    if rule.expression is not None:
        for leaf, _ in leaves_of(rule.expression.root):
            if leaf.name == "eventType" and leaf.values is not None:
                yield from leaf.values
    for name in rule.spec.members if rule.spec is not None else ():
        member = ruleset.get(rule.refers[name])
        if member is not None:
            yield from types_of(member, ruleset)
