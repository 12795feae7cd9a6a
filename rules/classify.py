"""What rules and the life-cycle table say of one event. The hot path: plain dicts in, no pydantic, no I/O, nothing raised.

For each event type the rules that can match it, and what is left to ask of them, are worked out once and kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model.decision import Finding, Moment, Response, Verdict
from model.event import PersonRule, people
from rules.lifecycle import Lifecycle
from rules.record import matched
from rules.rule import Rule
from rules.ruleset import RuleSet
from rules.sigma.expression import Check, evidence_of

#: Okta has 1,274 event types; beyond this many, a type's plan is worked out anew each time.
_MOST_PLANS = 8192


@dataclass(frozen=True, slots=True)
class _Plan:
    moment: Moment
    person: PersonRule
    checks: tuple[tuple[Check, Rule], ...]


class Classifier:
    """Rules and table, compiled for one tenant's stream or for a file."""

    def __init__(self, ruleset: RuleSet, lifecycle: Lifecycle) -> None:
        self.ruleset = ruleset
        self._lifecycle = lifecycle
        self._plans: dict[str, _Plan] = {}

    def verdict(self, event: dict[str, Any]) -> Verdict:
        """Moment, people and findings of one event as `model.event.decode` gives it; knows no earlier event. Never raises."""
        event_type = event.get("eventType")
        plan = self._plans.get(event_type) if event_type.__class__ is str else None
        if plan is None:
            plan = self._plan(event_type if isinstance(event_type, str) else "")
        found: list[Finding] | None = None
        for check, rule in plan.checks:
            if check(event):
                if found is None:
                    found = []
                found.append(finding(rule, event))
        who = people(event, plan.person)
        if found is None:
            return Verdict(plan.moment, plan.moment, who)
        threat = any(one.response is not Response.ALERT for one in found)
        return Verdict(Moment.THREAT if threat else plan.moment, plan.moment, who, tuple(found))

    def _plan(self, event_type: str) -> _Plan:
        moment, person = self._lifecycle.of(event_type)
        checks = tuple((check, rule) for rule in self.ruleset if (check := rule.expression.for_type(event_type)) is not None)
        plan = _Plan(moment, "none" if moment is Moment.GROUP else person, checks)
        if len(self._plans) < _MOST_PLANS:
            self._plans[event_type] = plan
        return plan


def finding(rule: Rule, event: dict[str, Any]) -> Finding:
    """The rule's finding on an event that it matches. Nobody, or several where one is meant: person None (D2)."""
    who = people(event, rule.person)
    return Finding(
        rule=rule.id,
        rule_version=rule.version,
        title=rule.title,
        response=rule.response,
        severity=rule.severity,
        person=who[0] if len(who) == 1 else None,
        scope=rule.scope,
        downstream=rule.downstream,
        matched=matched(evidence_of(rule.expression.root, event)),
        runbook=rule.runbook,
    )
