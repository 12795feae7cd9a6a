"""Why a rule did not fire on the events of a case: what a human wants to read where a test fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rules.record import inert
from rules.rule import Rule
from rules.ruleset import RuleSet
from rules.sigma.expression import leaves_of

#: Conditions named for one event, and events told of.
MOST_NAMED = 4


def explain(rule: Rule, ruleset: RuleSet, events: Sequence[dict[str, Any]]) -> list[str]:
    """Short lines on what of the rule's condition did not hold, or how often the rules of a correlation matched."""
    if rule.expression is None:
        return list(_members(rule, ruleset, events))
    lines: list[str] = []
    for number, event in enumerate(events[:MOST_NAMED], start=1):
        if rule.expression.for_type(event["eventType"]) is None:
            lines.append(f"event {number}: the rule does not ask about {event['eventType']}")
        elif not rule.expression.matches(event):
            lines.append(f"event {number}: {_unmet(rule, event)}")
        else:
            lines.append(f"event {number}: matches; what is asked besides (first_seen, absence, window) did not hold")
    return lines


def _members(rule: Rule, ruleset: RuleSet, events: Sequence[dict[str, Any]]) -> Iterator[str]:
    for name in rule.spec.members if rule.spec is not None else ():
        member = ruleset.get(rule.refers.get(name, "").removesuffix("#begun"))
        if member is not None and member.expression is not None:
            yield f"{name} matches {sum(map(member.expression.matches, events))} of {len(events)} events"
        elif member is not None:
            yield f"{name} is a correlation of its own: " + "; ".join(_members(member, ruleset, events))


def _unmet(rule: Rule, event: dict[str, Any]) -> str:
    assert rule.expression is not None
    wrong: list[str] = []
    for leaf, positive in leaves_of(rule.expression.root):
        if leaf.check(event) is not positive and not leaf.type_only:
            told = f"{leaf.name or 'a keyword'} is {inert(leaf.evidence(event))!r}"
            wrong.append(told if positive else f"{told}, which is excluded")
    unique = list(dict.fromkeys(wrong))
    return "; ".join(unique[:MOST_NAMED]) + (f" and {len(unique) - MOST_NAMED} more" if len(unique) > MOST_NAMED else "")
