"""Reasoning over a rule's expression without an event: which types it can match, whether it can hold at all, what it always demands.

Sound but not complete: "never" is said only where it is certain; a regular expression that nothing fits is not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

from rules import known
from rules.catalogue import Catalogue
from rules.correlation.spec import MOST_EVENTS, Bounds, Spec
from rules.rule import Rule
from rules.sigma.expression import And, Const, Leaf, Node, Not, Or, named_types

#: What is known of single-valued fields: the (folded) texts that they may still have.
Allowed = Mapping[str, frozenset[str]]
#: Which of more members can fire together is not worked out: all of them may.
_MOST_MEMBERS = 12


def types_named(rule: Rule) -> frozenset[str] | None:
    """The types (folded) outside of which a rule of single events cannot hold; None: it names none."""
    return None if rule.expression is None else named_types(rule.expression.root)


def types_matched(rule: Rule, catalogue: Catalogue) -> dict[str, Node]:
    """Event types of the catalogue that a rule of single events can match → what it still asks of them."""
    if rule.expression is None:
        return {}
    named = types_named(rule)
    types = catalogue.event_types if named is None else {catalogue.folded[one] for one in named if one in catalogue.folded}
    left = {one: node for one in sorted(types) if (node := rule.expression.for_type(one)) is not None}
    return {one: node for one, node in left.items() if not never(node)}


def never(node: Node, allowed: Allowed | None = None) -> bool:
    """Certain that no event satisfies the node, where single-valued fields hold what `allowed` says."""
    allowed = allowed or {}
    if isinstance(node, Const):
        return not node.value
    if isinstance(node, Or):
        return all(never(child, allowed) for child in node.children)
    if isinstance(node, And):
        narrowed = _narrowed(node.children, allowed)
        return narrowed is None or any(never(child, narrowed) for child in node.children)
    if isinstance(node, Not):
        return always(node.child, allowed)
    field, values = _domain(node)
    return field is not None and field in allowed and not values & allowed[field]


def always(node: Node, allowed: Allowed) -> bool:
    """Certain that every event satisfies the node, of those whose fields hold what `allowed` says."""
    if isinstance(node, Const):
        return node.value
    if isinstance(node, Or):
        return any(always(child, allowed) for child in node.children)
    if isinstance(node, And):
        return all(always(child, allowed) for child in node.children)
    if isinstance(node, Not):
        return never(node.child, allowed)
    field, values = _domain(node)
    return field is not None and field in allowed and allowed[field] <= values


def _narrowed(children: Iterable[Node], allowed: Allowed) -> dict[str, frozenset[str]] | None:
    """What all the children together leave of each field; None where one field is left with nothing, or a child contradicts another."""
    narrowed = dict(allowed)
    nodes = list(children)
    for child in nodes:
        field, values = _domain(child)
        if field is not None:
            narrowed[field] = narrowed.get(field, values) & values
    for child in nodes:
        if isinstance(child, Not):
            denied = child.child.children if isinstance(child.child, And) else (child.child,)
            if all(one in nodes for one in denied):
                return None
            field, values = _domain(child.child)
            if field in narrowed:
                narrowed[field] -= values
    return narrowed if all(narrowed.values()) else None


def _domain(node: Node) -> tuple[str | None, frozenset[str]]:
    """(field, texts) where the node holds exactly if a single-valued field has one of some texts."""
    if isinstance(node, Leaf):
        if node.values is not None and node.name is not None and known.is_single(node.name):
            return node.name, node.values
    elif isinstance(node, Or):
        parts = [_domain(child) for child in node.children]
        if len({field for field, _ in parts}) == 1:
            return parts[0][0], frozenset().union(*(values for _, values in parts))
    return None, frozenset()


def demands_success(node: Node) -> bool:
    """Whether every event that satisfies the node succeeded."""
    if isinstance(node, Leaf):
        return node.name == "outcome.result" and node.values is not None and node.values <= known.SUCCESSES
    if isinstance(node, And):
        return any(demands_success(child) for child in node.children)
    if isinstance(node, Or):
        return all(demands_success(child) for child in node.children)
    return isinstance(node, Const) and not node.value


def fires(rule: Rule, rules: Mapping[str, Rule], alive: Mapping[str, bool]) -> bool:
    """Whether a correlation can fire, given which rules of single events can match (`alive`, by id)."""
    spec = rule.spec
    if spec is None or rule.section.absence is not None:
        return alive.get(rule.id, True)
    members = [rules.get(rule.refers.get(name, "")) for name in spec.members]
    able = [one is None or fires(one, rules, alive) for one in members]
    if spec.kind.is_temporal:
        return completes(spec, [at for at, can in enumerate(able) if can])
    return any(able) and (not spec.kind.value.endswith("_count") or _satisfiable(spec.bounds))


def completes(spec: Spec, members: list[int]) -> bool:
    """Whether a temporal condition can hold with events of these members alone (positions)."""
    if len(members) > _MOST_MEMBERS:
        return True
    sets = (frozenset(some) for size in range(1, len(members) + 1) for some in combinations(members, size))
    return any(spec.seen(some) if spec.seen is not None else spec.bounds.hold(len(some)) for some in sets)


def _satisfiable(bounds: Bounds) -> bool:
    """Whether some whole number satisfies all bounds."""
    near = {int(limit) + step for _, limit in bounds.ops for step in (-1, 0, 1)} | {0}
    return any(bounds.hold(number) for number in near if 0 <= number <= MOST_EVENTS + 1)
