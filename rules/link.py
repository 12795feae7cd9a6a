"""References between rules: by id, by Sigma id, by name. Here doubles and cycles are refused, it is settled who reports, and a rule's
version takes in the versions of those that it refers to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rules.rule import Rule
from rules.sigma.source import Document, joined_version

Pair = tuple[Rule, Document]


def linked(pairs: Sequence[Pair]) -> list[Rule]:
    """The rules with their references resolved. Raises ConfigurationError with path, line and reason."""
    by_name = _by_name(pairs)
    resolved = {rule.id: _resolve(rule, document, by_name) for rule, document in pairs}
    documents = {rule.id: document for rule, document in pairs}
    for rule_id in resolved:
        _refuse_cycle(rule_id, resolved, documents)
    silent = _silent(resolved.values())
    versions: dict[str, str] = {}
    return [replace(rule, version=_version(rule.id, resolved, versions), emits=rule.id not in silent) for rule in resolved.values()]


def _by_name(pairs: Iterable[Pair]) -> dict[str, Rule]:
    seen: dict[str, Rule] = {}
    for rule, document in pairs:
        for name in rule.names:
            if (other := seen.get(name)) is not None:
                raise document.refuse(f"the id or name {name!r} is also that of {other.path}:{other.line}")
            seen[name] = rule
    return seen


def _references(rule: Rule) -> Iterator[tuple[str, str]]:
    """(name as written, where it stands)."""
    if rule.spec is not None:
        for name in rule.spec.members:
            if not name.endswith("#begun"):
                yield name, "portcullis.absence" if rule.section.absence else "correlation.rules"
    for name in rule.section.unless:
        yield name, "portcullis.unless"
    if rule.section.first_seen is not None:
        for name in rule.section.first_seen.learn:
            yield name, "portcullis.first_seen.learn"


def _resolve(rule: Rule, document: Document, by_name: dict[str, Rule]) -> Rule:
    refers: dict[str, str] = {}
    for name, where in _references(rule):
        found = by_name.get(name)
        if found is None:
            raise document.refuse(f"{where}: there is no rule {name!r}", *where.split("."))
        if where in ("portcullis.unless", "portcullis.first_seen.learn", "portcullis.absence") and found.expression is None:
            raise document.refuse(f"{where}: {name!r} is a correlation, a rule of single events is needed", *where.split("."))
        if where == "correlation.rules" and found.spec is not None and (found.spec.at_close or found.section.absence is not None):
            why = "fires when its window is over, and no event says then to which group of this one that belongs"
            raise document.refuse(f"{where}: {name!r} {why}", *where.split("."))
        refers[name] = found.match_id if where != "correlation.rules" else found.id
    if rule.section.absence is not None and rule.spec is not None:
        refers[rule.spec.members[0]] = rule.match_id
    return replace(rule, refers=refers)


def _plain(rule_id: str) -> str:
    return rule_id.removesuffix("#begun")


def _refuse_cycle(rule_id: str, rules: dict[str, Rule], documents: dict[str, Document]) -> None:
    """A correlation that feeds itself would never end."""
    trail: list[str] = []
    stack = [iter(_fed_by(rules[rule_id]))]
    while stack:
        following = next(stack[-1], None)
        if following is None:
            stack.pop()
            if trail:
                trail.pop()
        elif following == rule_id:
            raise documents[rule_id].refuse(f"the correlation refers to itself ({' → '.join([rule_id, *trail, rule_id])})", "correlation")
        elif len(stack) > 32:
            raise documents[rule_id].refuse("correlations are chained more than 32 deep", "correlation")
        else:
            trail.append(following)
            stack.append(iter(_fed_by(rules[following])))


def _fed_by(rule: Rule) -> list[str]:
    members = () if rule.spec is None else rule.spec.members
    return [_plain(rule.refers[name]) for name in members if not name.endswith("#begun")]


def _silent(rules: Iterable[Rule]) -> set[str]:
    """Rules that only serve correlations: referred to by one, and by none with `generate`."""
    served: set[str] = set()
    wanted: set[str] = set()
    for rule in rules:
        for reference in rule.refers.values():
            if _plain(reference) != rule.id:
                served.add(_plain(reference))
                if rule.spec is not None and rule.spec.generate:
                    wanted.add(_plain(reference))
    return served - wanted


def _version(rule_id: str, rules: dict[str, Rule], versions: dict[str, str]) -> str:
    if rule_id not in versions:
        rule = rules[rule_id]
        versions[rule_id] = rule.version
        others = sorted({_plain(one) for one in rule.refers.values()} - {rule_id})
        versions[rule_id] = joined_version(rule.version, *(_version(one, rules, versions) for one in others)) if others else rule.version
    return versions[rule_id]
