"""Conditions as a small tree: known in part from the event's type alone, then turned into closures.

`given_type` asks: knowing only the event's type, is this true, false, or what remains to be asked? From that the index by event type
follows for every rule, patterns and negations included, and what the type answers is never asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rules.sigma.field import Event

Check = Callable[[Event], bool]
#: What a leaf saw where it holds: the value, for the record.
Evidence = Callable[[Event], Any]

EVENT_TYPE = "eventType"


@dataclass(frozen=True, slots=True)
class Const:
    value: bool


@dataclass(frozen=True, slots=True)
class Leaf:
    """One field (None: keywords in the whole event) and its check. `cost` orders an `and`; `type_only` asks for nothing but the type.
    `values` are the whole texts it accepts where it is only that (folded), for lint; `fields` names other fields it reads."""

    name: str | None
    check: Check
    evidence: Evidence
    cost: int = 1
    type_only: bool = False
    values: frozenset[str] | None = None
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Not:
    child: Node


@dataclass(frozen=True, slots=True)
class And:
    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    children: tuple[Node, ...]


Node = Const | Leaf | Not | And | Or
TRUE, FALSE = Const(True), Const(False)


def negate(node: Node) -> Node:
    if isinstance(node, Const):
        return FALSE if node.value else TRUE
    return node.child if isinstance(node, Not) else Not(node)


def conjunction(nodes: Iterable[Node]) -> Node:
    return _joined(nodes, And, TRUE, FALSE)


def disjunction(nodes: Iterable[Node]) -> Node:
    return _joined(nodes, Or, FALSE, TRUE)


def _joined(nodes: Iterable[Node], kind: type[And] | type[Or], neutral: Const, absorbing: Const) -> Node:
    children: list[Node] = []
    for node in nodes:
        if node == absorbing:
            return absorbing
        if isinstance(node, kind):
            children.extend(node.children)
        elif node != neutral:
            children.append(node)
    if not children:
        return neutral
    return children[0] if len(children) == 1 else kind(tuple(children))


def given_type(node: Node, event_type: str) -> Node:
    """What remains to be asked once the type is known: Const where that settles it."""
    if isinstance(node, Leaf):
        return Const(node.check({EVENT_TYPE: event_type})) if node.type_only else node
    if isinstance(node, Not):
        return negate(given_type(node.child, event_type))
    if isinstance(node, And):
        return conjunction(given_type(child, event_type) for child in node.children)
    if isinstance(node, Or):
        return disjunction(given_type(child, event_type) for child in node.children)
    return node


def named_types(node: Node) -> frozenset[str] | None:
    """The event types (folded) outside of which the node cannot hold; None where it names none, or names them by pattern."""
    if isinstance(node, Leaf):
        return node.values if node.type_only else None
    if isinstance(node, Const):
        return None if node.value else frozenset()
    if isinstance(node, And):
        known = [types for child in node.children if (types := named_types(child)) is not None]
        return frozenset.intersection(*known) if known else None
    if isinstance(node, Or):
        parts = [named_types(child) for child in node.children]
        return None if None in parts else frozenset().union(*(part for part in parts if part is not None))
    return None


def leaves_of(node: Node, positive: bool = True) -> Iterator[tuple[Leaf, bool]]:
    """Every leaf, and whether it stands under an even number of `not`."""
    if isinstance(node, Leaf):
        yield node, positive
    elif isinstance(node, Not):
        yield from leaves_of(node.child, not positive)
    elif isinstance(node, (And, Or)):
        for child in node.children:
            yield from leaves_of(child, positive)


def evidence_of(node: Node, event: Event) -> Iterator[tuple[str, Any]]:
    """(field, value) for every leaf that made the node hold."""
    for leaf, positive in leaves_of(node):
        if positive and leaf.check(event):
            yield leaf.name or "keywords", leaf.evidence(event)


def _cost(node: Node) -> int:
    if isinstance(node, Leaf):
        return node.cost
    if isinstance(node, Not):
        return _cost(node.child)
    return sum(_cost(child) for child in node.children) if isinstance(node, (And, Or)) else 0


def compiled(node: Node) -> Check:
    """The node as one function of an event; cheap questions first."""
    if isinstance(node, Leaf):
        return node.check
    if isinstance(node, Const):
        value = node.value
        return lambda event: value
    if isinstance(node, Not):
        inner = compiled(node.child)
        return lambda event: not inner(event)
    checks = tuple(compiled(child) for child in sorted(node.children, key=_cost))
    return _all(checks) if isinstance(node, And) else _any(checks)


def _all(checks: tuple[Check, ...]) -> Check:
    if len(checks) == 2:
        first, second = checks
        return lambda event: first(event) and second(event)

    def check(event: Event) -> bool:
        for one in checks:  # noqa: SIM110 - a loop is twice as fast as all() with a generator
            if not one(event):
                return False
        return True

    return check


def _any(checks: tuple[Check, ...]) -> Check:
    if len(checks) == 2:
        first, second = checks
        return lambda event: first(event) or second(event)

    def check(event: Event) -> bool:
        for one in checks:  # noqa: SIM110 - a loop is twice as fast as any() with a generator
            if one(event):
                return True
        return False

    return check


@dataclass(frozen=True, slots=True)
class Expression:
    """The condition of a rule. `matches` is for one-off use; hot paths go through `for_type`."""

    root: Node
    matches: Check = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "matches", compiled(self.root))

    def for_type(self, event_type: str) -> Node | None:
        """What remains to be asked of events of this type; None where none of them can match. Equal rules give equal nodes."""
        node = given_type(self.root, event_type)
        return None if node == FALSE else node
