"""All correlations of one tenant: who feeds whom, the clock of event time, alerts, and state that can be carried away and brought back.

A correlation that feeds a temporal one passes on every event that satisfies it, so that "ten failures, then a success" sees the latest
failure; one that is counted passes on its alerts. Alerts are one per window, group and person.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from model.decision import Finding
from rules.correlation.closing import AbsenceNode, ClosingNode
from rules.correlation.node import Found, Node
from rules.correlation.observation import Observation
from rules.correlation.ordered import OrderedNode
from rules.correlation.seen import FirstSeen
from rules.correlation.spec import Kind
from rules.correlation.window import ENDS
from rules.record import MOST_ELEMENTS, inert, matched
from rules.rule import Rule
from rules.sigma.expression import evidence_of

_FORMAT = 1


class Correlator:
    """The state of every correlation and first-seen of a rule set. Not thread-safe; one tenant, one owner (D7)."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.clock = float("-inf")
        self.nodes = {rule.id: node_of(rule) for rule in rules if rule.spec is not None}
        self.seen = {rule.id: FirstSeen(rule.section.first_seen) for rule in rules if rule.section.first_seen is not None}
        self._versions = {rule.id: rule.version for rule in rules}
        self._matched_by = {rule.match_id: rule for rule in rules if rule.expression is not None}
        self._feeds: dict[str, list[tuple[Node, int]]] = {}
        self._learners: dict[str, list[FirstSeen]] = {}
        for rule in rules:
            self._wire(rule)
        #: The correlations that fire because time passes: where there are some, every event's time counts.
        self.closing = [node for node in self.nodes.values() if isinstance(node, (ClosingNode, AbsenceNode))]

    def _wire(self, rule: Rule) -> None:
        node = self.nodes.get(rule.id)
        if node is not None:
            for member, name in enumerate(node.spec.members):
                self._feeds.setdefault(rule.refers.get(name, rule.id), []).append((node, member))
            for name in rule.section.unless:
                self._feeds.setdefault(rule.refers[name], []).append((node, ENDS))
        if rule.section.first_seen is not None:
            for name in rule.section.first_seen.learn or (rule.id,):
                self._learners.setdefault(rule.refers.get(name, rule.id), []).append(self.seen[rule.id])

    def feeds(self, rule_id: str) -> list[tuple[Node, int]]:
        """The correlations that a rule's matches go to, and as which member."""
        return self._feeds.get(rule_id, [])

    def learners(self, rule_id: str) -> list[FirstSeen]:
        return self._learners.get(rule_id, [])

    @property
    def forgotten(self) -> dict[str, int]:
        """Groups and values given up for each rule's bound since the start; worth a notice where it grows."""
        counts = {rule_id: node.forgotten for rule_id, node in self.nodes.items()}
        for rule_id, seen in self.seen.items():
            counts[rule_id] = counts.get(rule_id, 0) + seen.forgotten
        return {rule_id: count for rule_id, count in counts.items() if count}

    def advance(self, time: float) -> list[Finding]:
        """Moves the clock; findings of windows that this closes."""
        if time <= self.clock:
            return []
        self.clock = time
        findings: list[Finding] = []
        for node in self.closing:
            for found in node.close(time):
                findings.extend(self._report(node, found, None))
        return findings

    def completed(self, node: Node, found: Sequence[Found], rule_id: str, seen: Observation) -> list[Finding]:
        """Findings of what an event of the rule completed at a node, those of the correlations that this feeds included."""
        findings = [finding for one in found for finding in self._report(node, one, seen)]
        return [self._with_evidence(one, rule_id, seen) for one in findings]

    def _with_evidence(self, finding: Finding, rule_id: str, seen: Observation) -> Finding:
        """What the completing event matched stands beside the figures of the correlation."""
        expression = self._matched_by[rule_id].expression
        evidence = matched(evidence_of(expression.root, seen.event)) if expression is not None else {}
        return replace(finding, matched=finding.matched | {name: value for name, value in evidence.items() if name not in finding.matched})

    def _report(self, node: Node, found: Found, seen: Observation | None) -> Iterator[Finding]:
        rule = node.rule
        who = _who(node, found)
        new = found.window.is_new(found.hit, who, node.limits, seen.uuid if seen else "")
        if new and rule.emits:
            yield _finding(node, found, who)
        if seen is None:
            return
        for parent, member in self._feeds.get(rule.id, ()):
            if new or parent.spec.kind.is_temporal:
                for further in parent.feed(member, seen, self.clock):
                    yield from self._report(parent, further, seen)

    def snapshot(self) -> bytes:
        """The whole state, compressed. A few hundred bytes for an idle tenant; grows with open windows, bounded by their bounds."""
        state = {
            "format": _FORMAT,
            "clock": None if self.clock == float("-inf") else self.clock,
            "nodes": {rule_id: [self._versions[rule_id], node.dump()] for rule_id, node in self.nodes.items()},
            "seen": {rule_id: [self._versions[rule_id], seen.dump()] for rule_id, seen in self.seen.items()},
        }
        try:
            raw = orjson.dumps(state)
        except TypeError:  # lone surrogates in group keys that others chose
            raw = orjson.dumps(_escaped(state))
        return zlib.compress(raw, 1)

    def restore(self, snapshot: bytes) -> tuple[str, ...]:
        """Takes a state over, into a fresh correlator. Rules that changed since begin anew; their ids come back.

        Raises ValueError where the bytes are no snapshot of ours.
        """
        try:
            state = orjson.loads(zlib.decompress(snapshot))
            if state["format"] != _FORMAT:
                raise ValueError(f"a snapshot of format {state['format']}")
            begun_anew = [*self._load(self.nodes, state["nodes"]), *self._load(self.seen, state["seen"])]
            if state["clock"] is not None:
                self.clock = float(state["clock"])
        except (zlib.error, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"no snapshot of correlations: {error}") from None
        return tuple(sorted(begun_anew))

    def _load(self, into: dict[str, Any], states: dict[str, Any]) -> Iterator[str]:
        for rule_id, part in into.items():
            version, dumped = states.get(rule_id, (None, None))
            if version == self._versions[rule_id]:
                part.load(dumped)
            else:
                yield rule_id


def node_of(rule: Rule) -> Node:
    assert rule.spec is not None
    if rule.section.absence is not None:
        return AbsenceNode(rule)
    if rule.spec.at_close:
        return ClosingNode(rule)
    return OrderedNode(rule) if rule.spec.kind is Kind.TEMPORAL_ORDERED else Node(rule)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, (list, tuple)) else value


def _who(node: Node, found: Found) -> str | None:
    """The person of the completing event, or of the latest event of the member that `person_from` names."""
    if node.person_from is None:
        return found.hit.by.who
    named = [entry.who for entry in found.hit.entries if entry.member == node.person_from]
    return named[-1] if named else None


def _finding(node: Node, found: Found, who: str | None) -> Finding:
    rule, spec, hit = node.rule, node.spec, found.hit
    first, last = hit.entries[0].time, max(entry.time for entry in hit.entries)
    uuids = list(dict.fromkeys(entry.uuid for entry in hit.entries))
    facts: dict[str, Any] = {name: inert(value) for name, value in zip(spec.group_by, found.key, strict=True)}
    if rule.section.absence is not None:
        facts["absent"] = rule.section.absence.expect
    else:
        label = (
            spec.kind.value
            if spec.kind in (Kind.EVENT_COUNT, Kind.TEMPORAL, Kind.TEMPORAL_ORDERED)
            else f"{spec.kind.value}({', '.join(spec.fields)})"
        )
        facts[label] = int(hit.figure) if hit.figure.is_integer() else hit.figure
    facts |= {"since": _iso(first), "until": _iso(last), "events": inert(uuids[-MOST_ELEMENTS:])}
    return Finding(
        rule=rule.id,
        rule_version=rule.version,
        title=rule.title,
        response=rule.response,
        severity=rule.severity,
        person=who,
        scope=rule.scope,
        downstream=rule.downstream,
        matched=facts,
        runbook=rule.runbook,
    )


def _iso(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return str(time)
