"""What rules and the life-cycle table say of one event. The hot path: plain dicts in, no pydantic, no I/O, nothing raised.

For each event type the rules that can match it, and what is left to ask of them, are worked out once and kept. `verdict` knows one event;
`observe` knows what came before as well: correlations, first-seen, absences, guards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import orjson

from model.decision import Finding, Moment, Response, Severity, Verdict
from model.event import PersonRule
from rules.correlation.correlator import Correlator
from rules.correlation.node import Feeder, Found
from rules.correlation.node import Node as Correlation
from rules.correlation.observation import Observation, time_of
from rules.correlation.seen import FirstSeen
from rules.lifecycle import Lifecycle
from rules.lower import Guards
from rules.person import people_of
from rules.record import matched
from rules.rule import Rule
from rules.ruleset import RuleSet
from rules.sigma.expression import Node, evidence_of
from rules.sigma.program import Got, Read, program

#: Okta has 1,274 event types; beyond this many, a type's plan is worked out anew each time.
_MOST_PLANS = 8192
#: A verdict from a plain tuple: half the time of calling the class.
_verdict_of = partial(tuple.__new__, Verdict)
_CREATED = "user.lifecycle.create"


@dataclass(frozen=True, slots=True)
class _Step:
    """One rule that can match a type, and what its match goes to."""

    rule: Rule
    #: A match is a finding (it is not where the rule only serves correlations, or waits for an absence).
    reports: bool
    #: Where a match is a finding only if its values are new.
    gate: FirstSeen | None
    seen: FirstSeen | None
    learners: tuple[FirstSeen, ...]
    feeds: tuple[tuple[Feeder, Correlation], ...]


@dataclass(frozen=True, slots=True)
class _Match:
    """Rules that ask the same of a type. `feeds` alone is there where they only serve correlations, as those of volume events do."""

    steps: tuple[_Step, ...]
    feeds: tuple[tuple[Feeder, Correlation, Rule], ...] | None


@dataclass(frozen=True, slots=True)
class _Plan:
    moment: Moment
    person: PersonRule
    #: What an event of the type matches: the rules that ask the same stand together.
    matches: Callable[[dict[str, Any]], tuple[list[_Match], tuple[Got, ...]]]
    #: The guards learn from this type.
    notes: bool


class Classifier:
    """Rules, table and guards of one tenant's stream (or of a file), with the state of its correlations. Not thread-safe."""

    def __init__(self, ruleset: RuleSet, lifecycle: Lifecycle, guards: Guards | None = None) -> None:
        self.ruleset = ruleset
        self._lifecycle = lifecycle
        self._guards = guards
        self._plans: dict[str, _Plan] = {}
        self.correlator = Correlator(ruleset.rules)

    def verdict(self, event: dict[str, Any]) -> Verdict:
        """Moment, people and findings of one event as `model.event.decode` gives it, without any state: correlations, first-seen and
        absences say nothing, guards are not asked. Never raises."""
        plan = self._plan_for(event)
        found = [
            finding(step.rule, event) for match in plan.matches(event)[0] for step in match.steps if step.reports and step.gate is None
        ]
        return _verdict(plan, people_of(event, plan.person), found, self.ruleset)

    def observe(self, event: dict[str, Any], received: datetime | None = None) -> Verdict:
        """As `verdict`, with everything that came before: the findings of correlations that this event completes, or whose windows its
        time closes, stand with it (D32). `received` is when it came (None: unknown, offline). Never raises."""
        plan = self._plan_for(event)
        matches, read = plan.matches(event)
        who = people_of(event, plan.person)
        if not matches and not plan.notes and not self.correlator.closing:
            return _quiet(plan, who)
        found: list[Finding] = []
        seen = Observation(event, time_of(event, received, self.correlator.clock))
        if self.correlator.closing:
            found.extend(self._closed(seen.time))
        elif seen.time > self.correlator.clock:
            self.correlator.clock = seen.time
        self._follow(matches, read, seen, found)
        if plan.notes and self._guards is not None:
            self._guards.note(seen)
        if not found:
            return _quiet(plan, who)
        return _verdict(plan, who, found, self.ruleset)

    def tick(self, now: datetime) -> tuple[Finding, ...]:
        """Findings of windows that end by `now` where no event says so. Only for a log that is read to its end: event time then keeps
        pace with the clock. Their `matched.events` name the events that began them."""
        return tuple(self._closed(now.timestamp()))

    def snapshot(self) -> bytes:
        """The state of correlations, first-seen and guards, to be kept with the offset that it goes up to."""
        guards = b"" if self._guards is None else orjson.dumps(self._guards.dump())
        return len(guards).to_bytes(4, "big") + guards + self.correlator.snapshot()

    def restore(self, snapshot: bytes) -> tuple[str, ...]:
        """Takes a snapshot's state over, into a classifier that observed nothing yet. Rules that changed since begin anew; their ids come
        back. Raises ValueError where the bytes are no snapshot."""
        size = int.from_bytes(snapshot[:4], "big")
        if len(snapshot) < 4 + size:
            raise ValueError("no snapshot of a classifier: cut short")
        if size and self._guards is not None:
            self._guards.load(orjson.loads(snapshot[4 : 4 + size]))
        return self.correlator.restore(snapshot[4 + size :])

    def _follow(self, matches: list[_Match], read: tuple[Got, ...], seen: Observation, found: list[Finding]) -> None:
        """Takes every match where it goes: to a finding, to what was seen before, to correlations."""
        learnt: list[FirstSeen] | None = None
        clock = self.correlator.clock
        for match in matches:
            if match.feeds is not None:
                for feed, node, rule in match.feeds:
                    if completed := feed(read, seen, clock):
                        found.extend(self._correlated(rule, node, completed, seen))
                continue
            for step in match.steps:
                if step.learners:
                    learnt = [*(learnt or ()), *step.learners]
                first = step.seen is not None and step.seen.is_new(seen)
                if step.gate is not None and not first:
                    continue
                if step.reports:
                    found.append(self._guarded(step.rule, finding(step.rule, seen.event, first), seen))
                for feed, node in step.feeds:
                    if completed := feed(read, seen, clock):
                        found.extend(self._correlated(step.rule, node, completed, seen))
        for known in learnt or ():
            known.learn(seen)

    def _correlated(self, rule: Rule, node: Correlation, completed: Sequence[Found], seen: Observation) -> list[Finding]:
        found = self.correlator.completed(node, completed, rule.match_id, seen)
        return [self._guarded(self.ruleset.rules_by_id[one.rule], one, seen) for one in found]

    def _closed(self, time: float) -> list[Finding]:
        """Findings of windows that end by a time. No event is theirs: guards that ask who did it, or from where, have nothing to say; those
        that ask who is meant, and when, do."""
        return [
            self._guarded(self.ruleset.rules_by_id[one.rule], one, Observation({"uuid": one.matched["events"][-1]}, time))
            for one in self.correlator.advance(time)
        ]

    def _guarded(self, rule: Rule, found: Finding, seen: Observation) -> Finding:
        return found if self._guards is None else self._guards.lowered(rule, found, seen)

    def _plan_for(self, event: dict[str, Any]) -> _Plan:
        event_type = event.get("eventType")
        if not isinstance(event_type, str):
            event_type = ""
        plan = self._plans.get(event_type)
        return self._plan(event_type) if plan is None else plan

    def _plan(self, event_type: str) -> _Plan:
        moment, person = self._lifecycle.of(event_type)
        asked: dict[Node, list[_Step]] = {}
        reads: dict[Read, int] = {}
        for rule in self.ruleset:
            node = None if rule.expression is None else rule.expression.for_type(event_type)
            if node is not None and (step := self._step(rule, reads)) is not None:
                asked.setdefault(node, []).append(step)
        plan = _Plan(
            moment,
            "none" if moment is Moment.GROUP else person,
            program([(node, _match(steps)) for node, steps in asked.items()], tuple(reads)),
            notes=self._guards is not None and event_type == _CREATED,
        )
        if len(self._plans) < _MOST_PLANS:
            self._plans[event_type] = plan
        return plan

    def _step(self, rule: Rule, reads: dict[Read, int]) -> _Step | None:
        seen = self.correlator.seen.get(rule.id)
        section = rule.section
        step = _Step(
            rule,
            rule.emits and section.absence is None,
            seen if section.first_seen is not None and section.first_seen.gate else None,
            seen,
            tuple(self.correlator.learners(rule.id)),
            tuple((_feeder(node, member, reads), node) for node, member in self.correlator.feeds(rule.match_id)),
        )
        return step if step.reports or step.learners or step.feeds else None


def _match(steps: list[_Step]) -> _Match:
    only_feed = not any(step.reports or step.learners or step.seen is not None for step in steps)
    return _Match(tuple(steps), tuple((feed, node, step.rule) for step in steps for feed, node in step.feeds) if only_feed else None)


def _feeder(node: Correlation, member: int, reads: dict[Read, int]) -> Feeder:
    """How a correlation takes what a plan reads; its key and value are added to that."""
    wanted = node.reads(member)
    if wanted is None:
        return node.feeder(member, None, 0)
    return node.feeder(member, *(reads.setdefault(one, len(reads)) for one in wanted))


def _quiet(plan: _Plan, who: tuple[str, ...]) -> Verdict:
    """The verdict of an event that no rule speaks of."""
    return _verdict_of((plan.moment, plan.moment, who, (), ()))


def _verdict(plan: _Plan, who: tuple[str, ...], found: list[Finding], ruleset: RuleSet) -> Verdict:
    if not found:
        return _quiet(plan, who)
    shadowed = ruleset.shadowed
    findings = tuple(one for one in found if one.rule not in shadowed)
    threat = any(one.response is not Response.ALERT for one in findings)
    return Verdict(
        Moment.THREAT if threat else plan.moment,
        plan.moment,
        who,
        findings,
        tuple(one for one in found if one.rule in shadowed) if shadowed else (),
    )


def finding(rule: Rule, event: dict[str, Any], first: bool = False) -> Finding:
    """The rule's finding on an event that it matches; `first`: its first-seen values were new. Nobody, or several where one is meant:
    person None (D2)."""
    who = people_of(event, rule.person)
    return Finding(
        rule=rule.id,
        rule_version=rule.version,
        title=rule.title,
        response=rule.response,
        severity=_severity(rule, event, first),
        person=who[0] if len(who) == 1 else None,
        scope=rule.scope,
        downstream=rule.downstream,
        matched=matched(evidence_of(rule.expression.root, event)) if rule.expression is not None else {},
        runbook=rule.runbook,
    )


def _severity(rule: Rule, event: dict[str, Any], first: bool) -> Severity:
    for check, severity in rule.severities:
        if first if check is None else check(event):
            return severity
    return rule.severity
