"""The `correlation:` section of a rule, checked. What is refused: what the specification does not define, and what our bounds cannot keep.

A condition that asks for more (gt, gte, all of several rules) is looked at with every event. One that more events could undo (lt, lte, eq,
neq, ranges, `not`) is looked at when its window closes: the window then begins with its first event.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sigma.correlations import (
    CorrelationConditionAND,
    CorrelationConditionItem,
    CorrelationConditionNOT,
    CorrelationConditionOR,
    SigmaCorrelationRule,
    SigmaCorrelationTimespan,
    SigmaExtendedCorrelationCondition,
    SigmaRuleReference,
)
from sigma.exceptions import SigmaError

from rules.sigma.source import Document

#: More than this many events of one group are not kept, so no rule may ask for more.
MOST_EVENTS = 50_000


class Kind(StrEnum):
    EVENT_COUNT = "event_count"
    VALUE_COUNT = "value_count"
    TEMPORAL = "temporal"
    TEMPORAL_ORDERED = "temporal_ordered"
    VALUE_SUM = "value_sum"
    VALUE_AVG = "value_avg"
    VALUE_PERCENTILE = "value_percentile"
    VALUE_MEDIAN = "value_median"

    @property
    def is_temporal(self) -> bool:
        return self in (Kind.TEMPORAL, Kind.TEMPORAL_ORDERED)


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "eq": operator.eq,
    "neq": operator.ne,
}
_MORE = {"gt", "gte"}

#: A condition over which rules were seen: positions of the spec's members → holds.
Seen = Callable[[frozenset[int]], bool]


@dataclass(frozen=True, slots=True)
class Bounds:
    """`{gt: 100, lte: 200}`: every one must hold."""

    ops: tuple[tuple[str, float], ...]

    def hold(self, value: float) -> bool:
        return all(_OPERATORS[name](value, limit) for name, limit in self.ops)

    @property
    def most(self) -> float:
        return max(limit for _, limit in self.ops)

    @property
    def only_more(self) -> bool:
        return all(name in _MORE for name, _ in self.ops)

    def __str__(self) -> str:
        return ", ".join(f"{name} {limit:g}" for name, limit in self.ops)


@dataclass(frozen=True, slots=True)
class Spec:
    """A checked correlation. `members` are names of rules as they are written; `aliases` maps an alias to {member: field}.

    `bounds` for counts, metrics and plain temporal rules; `seen` (with `at_close`) for written temporal conditions.
    """

    kind: Kind
    members: tuple[str, ...]
    span: float
    group_by: tuple[str, ...]
    aliases: dict[str, dict[str, str]]
    bounds: Bounds
    fields: tuple[str, ...] = ()
    percentile: float = 50.0
    seen: Seen | None = None
    expression: str = ""
    at_close: bool = False
    generate: bool = False
    #: Further distinct counts over the same window, all of which must hold (`portcullis.also`): (fields, bounds).
    also: tuple[tuple[tuple[str, ...], Bounds], ...] = ()


def spec_of(document: Document) -> Spec:
    """Checks a correlation document. Raises ConfigurationError with path, line and reason."""
    parsed = _parsed(document)
    raw = document.data["correlation"]
    kind = Kind(parsed.type.name.lower())
    if unknown := set(raw) - {"type", "rules", "group-by", "timespan", "condition", "aliases", "generate"}:
        raise document.refuse(f"correlation: no such key {sorted(unknown)[0]!r}", "correlation", sorted(unknown)[0])
    condition = parsed.condition
    if isinstance(condition, SigmaExtendedCorrelationCondition):
        members = tuple(one.reference for one in parsed.rules) if parsed.rules else tuple(condition.get_referenced_rules())
        seen, has_not, plain_and = _tree(condition, members)
        if kind is Kind.TEMPORAL_ORDERED and not plain_and:
            raise document.refuse("temporal_ordered has no order under `or` and `not`: name the rules joined by `and`", "correlation")
        if has_not and seen(frozenset()):
            raise document.refuse("the condition holds where nothing happened: name at least one rule that must be seen", "correlation")
        bounds = Bounds((("gte", float(len(members))),))
        return _spec(
            document, parsed, kind, members, bounds, seen=None if plain_and else seen, expression=condition.expression, close=has_not
        )
    members = tuple(one.reference for one in parsed.rules or ())
    if not members:
        raise document.refuse("correlation: `rules` is empty", "correlation", "rules")
    bounds = _bounds(document, kind, members)
    return _spec(document, parsed, kind, members, bounds, close=not bounds.only_more)


def _parsed(document: Document) -> SigmaCorrelationRule:
    """pySigma's view of the document; a range is shown to it as its first bound, since it knows one only."""
    data = {key: value for key, value in document.data.items() if key not in ("id", "portcullis", "generate")}
    section = data["correlation"]
    if not isinstance(section, dict):
        raise document.refuse("correlation: must be a mapping", "correlation")
    condition = section.get("condition")
    if isinstance(condition, dict):
        extra = [name for name in condition if name in _OPERATORS][1:]
        data["correlation"] = section | {"condition": {key: value for key, value in condition.items() if key not in extra}}
    try:
        return SigmaCorrelationRule.from_dict(data)
    except SigmaError as error:
        raise document.refuse(str(error.args[0]) if error.args else type(error).__name__, "correlation") from None
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise document.refuse(f"no Sigma correlation: {error}", "correlation") from None


def _bounds(document: Document, kind: Kind, members: tuple[str, ...]) -> Bounds:
    raw = document.data["correlation"].get("condition")
    if raw is None:
        return Bounds((("gte", float(len(members))),))
    ops: list[tuple[str, float]] = []
    for name, value in raw.items():
        if name in _OPERATORS:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise document.refuse(f"condition.{name}: {value!r} is no number", "correlation", "condition", name)
            ops.append((name, float(value)))
    bounds = Bounds(tuple(ops))
    counts = kind in (Kind.EVENT_COUNT, Kind.VALUE_COUNT)
    if counts and any(limit > MOST_EVENTS for _, limit in ops):
        raise document.refuse(f"a window keeps {MOST_EVENTS} events of a group: no count may ask for more", "correlation", "condition")
    if kind.is_temporal and any(name in _MORE and limit > len(members) for name, limit in ops):
        raise document.refuse(f"the condition asks for more rules than the {len(members)} that are named", "correlation", "condition")
    if (counts or kind.is_temporal) and bounds.only_more and bounds.hold(0):
        raise document.refuse("the condition holds where nothing happened", "correlation", "condition")
    if kind is Kind.TEMPORAL_ORDERED and ops and ops != [("gte", float(len(members)))]:
        raise document.refuse("temporal_ordered needs all of its rules: leave the condition out", "correlation", "condition")
    return bounds


def _spec(
    document: Document,
    parsed: SigmaCorrelationRule,
    kind: Kind,
    members: tuple[str, ...],
    bounds: Bounds,
    *,
    seen: Seen | None = None,
    expression: str = "",
    close: bool,
) -> Spec:
    raw = document.data["correlation"].get("condition")
    fields, percentile = _fields(document, kind, raw if isinstance(raw, dict) else {})
    aliases = {one.alias: {ref.reference: name for ref, name in one.mapping.items()} for one in parsed.aliases}
    for alias, mapping in aliases.items():
        if missing := [member for member in members if member not in mapping]:
            raise document.refuse(f"the alias {alias!r} says nothing for the rule {missing[0]!r}", "correlation", "aliases", alias)
    top = document.data.get("generate", False)
    if not isinstance(top, bool):
        raise document.refuse("generate: must be true or false", "generate")
    if len(set(members)) < len(members) and kind is not Kind.TEMPORAL_ORDERED:
        raise document.refuse("correlation: a rule is named twice", "correlation", "rules")
    return Spec(
        kind=kind,
        members=members,
        span=float(parsed.timespan.seconds),
        group_by=tuple(parsed.group_by or ()),
        aliases=aliases,
        bounds=bounds,
        fields=fields,
        percentile=percentile,
        seen=seen,
        expression=expression,
        at_close=close,
        generate=parsed.generate or top,
    )


def _fields(document: Document, kind: Kind, raw: dict[str, Any]) -> tuple[tuple[str, ...], float]:
    fields = raw.get("field")
    names = () if fields is None else tuple(fields) if isinstance(fields, list) else (fields,)
    if not all(isinstance(name, str) and name for name in names):
        raise document.refuse("condition.field: a name or a list of names", "correlation", "condition", "field")
    if names and kind in (Kind.EVENT_COUNT, Kind.TEMPORAL, Kind.TEMPORAL_ORDERED):
        raise document.refuse(f"condition.field means nothing to {kind.value}", "correlation", "condition", "field")
    if kind not in (Kind.EVENT_COUNT, Kind.VALUE_COUNT, Kind.TEMPORAL, Kind.TEMPORAL_ORDERED) and len(names) != 1:
        raise document.refuse(f"{kind.value} needs exactly one condition.field", "correlation", "condition")
    percentile = raw.get("percentile", 50)
    if isinstance(percentile, bool) or not isinstance(percentile, (int, float)) or not 0 <= percentile <= 100:
        raise document.refuse("condition.percentile: a number from 0 to 100", "correlation", "condition", "percentile")
    if "percentile" in raw and kind is not Kind.VALUE_PERCENTILE:
        raise document.refuse(f"condition.percentile means nothing to {kind.value}", "correlation", "condition", "percentile")
    if kind is Kind.VALUE_PERCENTILE and "percentile" not in raw:
        raise document.refuse("value_percentile needs condition.percentile, the percentile that is compared", "correlation", "condition")
    return names, float(percentile)


def _tree(condition: SigmaExtendedCorrelationCondition, members: tuple[str, ...]) -> tuple[Seen, bool, bool]:
    """The written condition as a function, whether it holds a `not`, and whether it is just all members joined by `and`."""
    position = {name: index for index, name in enumerate(members)}
    flags = {"not": False, "or": False}

    def build(node: CorrelationConditionItem | SigmaRuleReference) -> Seen:
        if isinstance(node, SigmaRuleReference):
            wanted = position[node.reference]
            return lambda seen: wanted in seen
        parts = [build(arg) for arg in node.args]
        if isinstance(node, CorrelationConditionNOT):
            flags["not"] = True
            inner = parts[0]
            return lambda seen: not inner(seen)
        if isinstance(node, CorrelationConditionOR):
            flags["or"] = True
            return lambda seen: any(part(seen) for part in parts)
        assert isinstance(node, CorrelationConditionAND)
        return lambda seen: all(part(seen) for part in parts)

    seen = build(condition.parsed)
    return seen, flags["not"], not flags["not"] and not flags["or"]


def seconds_of(text: str) -> float:
    """`0s`, `90s`, `10m`, `3h`, `7d`, `2w` in seconds. Raises ValueError."""
    if text == "0s":
        return 0.0
    try:
        return float(SigmaCorrelationTimespan(text).seconds)
    except SigmaError:
        raise ValueError(f"{text!r} is no time span: write 90s, 10m, 3h, 7d") from None
