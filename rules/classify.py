"""What rules and the life-cycle table say of one event. The hot path: plain dicts in, no pydantic, no I/O, nothing raised.

For each event type the rules that can match it, and what is left to ask of them, are worked out once and kept. `verdict` knows one event;
`observe` knows what came before as well: correlations, first-seen, absences, guards.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from model.decision import Finding, Moment, Response, Severity, Verdict
from model.event import PersonRule
from rules.correlation.correlator import Correlator
from rules.correlation.node import Node as Correlation
from rules.correlation.observation import Observation, time_of
from rules.correlation.seen import FirstSeen
from rules.lifecycle import Lifecycle
from rules.lower import Guards
from rules.person import people_of
from rules.record import matched
from rules.rule import Rule
from rules.ruleset import RuleSet
from rules.sigma.expression import Check, Node, compiled, evidence_of

#: Okta has 1,274 event types; beyond this many, a type's plan is worked out anew each time.
_MOST_PLANS = 8192
#: Verdicts kept for one type, so that the same is not built again for every event of a person.
_MOST_QUIET = 4096
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
    feeds: tuple[tuple[Correlation, int], ...]

    @property
    def is_plain(self) -> bool:
        """Needs no state."""
        return self.seen is None and not self.learners and not self.feeds


#: What is left to ask for a type, and the rules that ask just that.
_Asked = tuple[tuple[Check, tuple[_Step, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    moment: Moment
    person: PersonRule
    plain: _Asked
    stateful: _Asked
    #: The guards learn from this type.
    notes: bool
    #: Verdicts of events that no rule matched, by the people they name.
    quiet: dict[tuple[str, ...], Verdict]


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
            finding(step.rule, event)
            for check, steps in (*plan.plain, *plan.stateful)
            if check(event)
            for step in steps
            if step.reports and step.gate is None
        ]
        return _verdict(plan, people_of(event, plan.person), found, self.ruleset)

    def observe(self, event: dict[str, Any], received: datetime | None = None) -> Verdict:
        """As `verdict`, with everything that came before: the findings of correlations that this event completes, or whose windows its
        time closes, stand with it (D32). `received` is when it came (None: unknown, offline). Never raises."""
        plan = self._plan_for(event)
        found: list[Finding] = []
        seen: Observation | None = None
        if plan.stateful or plan.notes or self.correlator.closing:
            seen = Observation(event, time_of(event, received, self.correlator.clock))
            if self.correlator.closing:
                found.extend(self.correlator.advance(seen.time, seen))
            elif seen.time > self.correlator.clock:
                self.correlator.clock = seen.time
        for check, steps in plan.plain:
            if check(event):
                seen = seen or Observation(event, time_of(event, received, self.correlator.clock))
                found.extend(self._guarded(step.rule, finding(step.rule, event), seen) for step in steps)
        if seen is not None:
            if plan.stateful:
                self._stateful(plan, seen, found)
            if plan.notes and self._guards is not None:
                self._guards.note(seen)
        return _verdict(plan, people_of(event, plan.person), found, self.ruleset)

    def tick(self, now: datetime) -> tuple[Finding, ...]:
        """Findings of windows that end by `now` where no event says so. Only for a log that is read to its end: event time then keeps
        pace with the clock. Their `matched.events` name the events that began them."""
        return tuple(self.correlator.advance(now.timestamp()))

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

    def _stateful(self, plan: _Plan, seen: Observation, found: list[Finding]) -> None:
        learnt: list[FirstSeen] = []
        event, clock = seen.event, self.correlator.clock
        for check, steps in plan.stateful:
            if not check(event):
                continue
            for step in steps:
                if step.learners:
                    learnt.extend(step.learners)
                first = step.seen is not None and step.seen.is_new(seen)
                if step.gate is not None and not first:
                    continue
                if step.reports:
                    found.append(self._guarded(step.rule, finding(step.rule, event, first), seen))
                for node, member in step.feeds:
                    if completed := node.feed(member, seen, clock):
                        for one in self.correlator.completed(node, completed, step.rule.match_id, seen):
                            found.append(self._guarded(self.ruleset.rules_by_id[one.rule], one, seen))
        for known in learnt:
            known.learn(seen)

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
        plain: dict[Node, list[_Step]] = {}
        stateful: dict[Node, list[_Step]] = {}
        for rule in self.ruleset:
            asked = None if rule.expression is None else rule.expression.for_type(event_type)
            if asked is not None and (step := self._step(rule)) is not None:
                (plain if step.is_plain else stateful).setdefault(asked, []).append(step)
        plan = _Plan(
            moment,
            "none" if moment is Moment.GROUP else person,
            tuple((compiled(asked), tuple(steps)) for asked, steps in plain.items()),
            tuple((compiled(asked), tuple(steps)) for asked, steps in stateful.items()),
            notes=self._guards is not None and event_type == _CREATED,
            quiet={},
        )
        if len(self._plans) < _MOST_PLANS:
            self._plans[event_type] = plan
        return plan

    def _step(self, rule: Rule) -> _Step | None:
        seen = self.correlator.seen.get(rule.id)
        section = rule.section
        step = _Step(
            rule,
            rule.emits and section.absence is None,
            seen if section.first_seen is not None and section.first_seen.gate else None,
            seen,
            tuple(self.correlator.learners(rule.id)),
            tuple(self.correlator.feeds(rule.match_id)),
        )
        return step if step.reports or step.learners or step.feeds else None


def _verdict(plan: _Plan, who: tuple[str, ...], found: list[Finding], ruleset: RuleSet) -> Verdict:
    if not found:
        quiet = plan.quiet.get(who)
        if quiet is None:
            quiet = Verdict(plan.moment, plan.moment, who)
            if len(plan.quiet) >= _MOST_QUIET:
                plan.quiet.clear()
            plan.quiet[who] = quiet
        return quiet
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
