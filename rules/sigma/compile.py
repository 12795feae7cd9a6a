"""pySigma's parsed detections → our expression. What cannot be honoured is refused here, never guessed.

A placeholder that nobody defined is accepted only where it excludes (under `not`): an empty list of exceptions excepts nobody.
In a selection it would make the rule dead without a word, so it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sigma.conditions import ConditionAND, ConditionIdentifier, ConditionNOT, ConditionOR, ConditionSelector, SigmaCondition
from sigma.modifiers import (
    SigmaBase64Modifier,
    SigmaBase64OffsetModifier,
)
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaDetections
from sigma.types import (
    Placeholder,
    SigmaCasedString,
    SigmaExpansion,
    SigmaRegularExpression,
    SigmaString,
    SigmaType,
)

from rules.sigma.expression import FALSE, Expression, Node, conjunction, disjunction, negate
from rules.sigma.leaf import field_leaf, keyword_leaf
from rules.sigma.match import Unsupported

Placeholders = Mapping[str, tuple[str, ...]]

_BASE64 = {SigmaBase64Modifier, SigmaBase64OffsetModifier}


class Refused(Unsupported):
    """Unsupported, and where: the search identifier and the field."""

    def __init__(self, message: str, identifier: str = "", field: str | None = None) -> None:
        super().__init__(message)
        self.identifier, self.field = identifier, field


class Compiler:
    """Compiles the detections of one rule. `undefined` holds the placeholders that were left empty under a `not`."""

    def __init__(self, detections: SigmaDetections, placeholders: Placeholders) -> None:
        self._detections = detections
        self._placeholders = placeholders
        self._identifier = ""
        self.undefined: set[str] = set()
        self.used: set[str] = set()
        self.referenced: set[str] = set()

    def expression(self) -> Expression:
        """The rule's condition (several conditions: any of them). Raises Refused or pySigma's SigmaError."""
        if not all(isinstance(one, str) for one in self._detections.condition):
            raise Refused("a condition must be a text")
        roots = [SigmaCondition(one, self._detections).parse(postprocess=False) for one in self._detections.condition]
        return Expression(disjunction([self._condition(root, True) for root in roots]))

    def named(self, identifier: str) -> Node:
        """One search identifier alone. Raises Refused."""
        return self._named(identifier, True)

    def _condition(self, item: Any, positive: bool) -> Node:
        if isinstance(item, ConditionNOT):
            return negate(self._condition(item.args[0], not positive))
        if isinstance(item, ConditionSelector):
            names = [one.identifier for one in item.resolve_referenced_detections(self._detections)]
            if not names:
                raise Refused(f"'{item.args[0]} of {item.pattern}' fits none of the search identifiers")
            parts = [self._named(name, positive) for name in names]
            return conjunction(parts) if item.cond_class is ConditionAND else disjunction(parts)
        if isinstance(item, ConditionIdentifier):
            return self._named(item.identifier, positive)
        if isinstance(item, (ConditionAND, ConditionOR)):
            parts = [self._condition(arg, positive) for arg in item.args]
            return conjunction(parts) if isinstance(item, ConditionAND) else disjunction(parts)
        raise Refused(f"the condition holds {type(item).__name__}, which is not known")

    def _named(self, name: str, positive: bool) -> Node:
        if name not in self._detections.detections:
            raise Refused(f"the condition names {name!r}, which is no search identifier of this rule")
        self.referenced.add(name)
        self._identifier = name
        return self._detection(self._detections.detections[name], positive)

    def _detection(self, detection: SigmaDetection, positive: bool) -> Node:
        parts = [
            self._detection(one, positive) if isinstance(one, SigmaDetection) else self._item(one, positive)
            for one in detection.detection_items
        ]
        return conjunction(parts) if detection.item_linking is ConditionAND else disjunction(parts)

    def _item(self, item: SigmaDetectionItem, positive: bool) -> Node:
        try:
            node = self._values(item, positive is not item.negated)
        except Refused:
            raise
        except Unsupported as error:
            raise Refused(str(error), self._identifier, item.field) from None
        return negate(node) if item.negated else node

    def _values(self, item: SigmaDetectionItem, positive: bool) -> Node:
        if not item.value:
            raise Unsupported("an empty list of values matches nothing: write null, '' or leave the field out")
        values = list(self._resolved(item, positive))
        make = keyword_leaf if item.field is None else field_leaf
        if item.value_linking is ConditionAND:
            return conjunction(make(item, list(group)) if group else FALSE for group in values)
        flat = [value for group in values for value in group]
        return make(item, flat) if flat else FALSE

    def _resolved(self, item: SigmaDetectionItem, positive: bool) -> Iterator[tuple[SigmaType, ...]]:
        """For each written value what it stands for: itself, or what its placeholders hold."""
        base64 = bool(_BASE64.intersection(item.modifiers))
        for value in item.value:
            if isinstance(value, (SigmaString, SigmaRegularExpression)) and value.contains_placeholder():
                yield tuple(self._filled(value, positive))
            else:
                yield (_exact_case(value) if base64 else value,)

    def _filled(self, value: SigmaString | SigmaRegularExpression, positive: bool) -> Iterable[SigmaType]:
        pattern = value.regexp if isinstance(value, SigmaRegularExpression) else value
        names = [part.name for part in pattern.s if isinstance(part, Placeholder)]
        self.used.update(names)
        for name in names:
            if name in self._placeholders:
                continue
            if positive:
                raise Unsupported(f"the placeholder %{name}% is not defined: give it values under [placeholders] of the guards file")
            self.undefined.add(name)
            return ()
        if isinstance(value, SigmaRegularExpression):
            return value.replace_placeholders(lambda one: iter(self._placeholders[one.name]))
        return value.replace_placeholders(lambda one: iter(SigmaString(text) for text in self._placeholders[one.name]))


def _exact_case(value: SigmaType) -> SigmaType:
    """Base64 in another case is another text, so it is compared with its case."""
    if isinstance(value, SigmaExpansion):
        return SigmaExpansion([_exact_case(one) for one in value.values])
    return SigmaCasedString.from_sigma_string(value) if isinstance(value, SigmaString) else value
