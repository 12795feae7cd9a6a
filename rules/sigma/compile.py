"""pySigma's parsed detections → our expression. What cannot be honoured is refused here, never guessed.

A placeholder that nobody defined is accepted only where it excludes (under `not`): an empty list of exceptions excepts nobody.
In a selection it would make the rule dead without a word, so it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from sigma.conditions import ConditionAND, ConditionIdentifier, ConditionNOT, ConditionOR, ConditionSelector, SigmaCondition
from sigma.modifiers import (
    SigmaBase64Modifier,
    SigmaBase64OffsetModifier,
    SigmaEndswithModifier,
    SigmaStartswithModifier,
)
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaDetections
from sigma.types import (
    Placeholder,
    SigmaBool,
    SigmaCasedString,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaString,
    SigmaType,
)

from rules.sigma.expression import EVENT_TYPE, FALSE, Check, Expression, Leaf, Node, conjunction, disjunction, negate
from rules.sigma.field import MISSING, Event, Reader, every_value, leaves, reader
from rules.sigma.match import Anchor, Test, Unsupported, any_of, one_of, single
from rules.sigma.text import text_of

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
        make = _keyword_leaf if item.field is None else _field_leaf
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


# --- leaves -------------------------------------------------------------------------------------------------------------


def _anchor(item: SigmaDetectionItem) -> Anchor:
    return Anchor(SigmaStartswithModifier in item.modifiers, SigmaEndswithModifier in item.modifiers)


def _field_leaf(item: SigmaDetectionItem, values: list[SigmaType]) -> Node:
    field = item.field or ""
    read = _reader(field)
    references = [value for value in values if isinstance(value, SigmaFieldReference)]
    exists = [value for value in values if isinstance(value, SigmaExists)]
    rest = [value for value in values if not isinstance(value, (SigmaFieldReference, SigmaExists))]
    nodes: list[Node] = [_exists_leaf(field, read, value.exists) for value in exists]
    nodes += [_reference_leaf(field, read, value) for value in references]
    if rest:
        nodes.append(_value_leaf(field, read, rest, _anchor(item)))
    return disjunction(nodes)


def _reader(field: str) -> Reader:
    try:
        return reader(field)
    except ValueError as error:
        raise Unsupported(str(error)) from None


def _value_leaf(field: str, read: Reader, values: list[SigmaType], anchor: Anchor) -> Leaf:
    texts = _plain_values(values)
    if texts is not None:
        return _exact_leaf(field, texts)
    test = any_of(values, anchor)
    on_missing = any(isinstance(value, SigmaNull) for value in values)
    return Leaf(
        field,
        _value_check(read, test, on_missing),
        lambda event: _matching(read(event), test),
        cost=4,
        type_only=field == EVENT_TYPE,
    )


@lru_cache(maxsize=4096)
def _exact_leaf(field: str, texts: frozenset[str]) -> Leaf:
    """A field that must be one of some texts, the most frequent question. The same question is the same leaf in every rule."""
    read = reader(field)
    test = one_of(texts)
    slow = _value_check(read, test, False)
    keys = field.split(".")
    check = _exact_check(keys[0], keys[1], texts, slow) if len(keys) == 2 and "[" not in field else slow
    return Leaf(field, check, lambda event: _matching(read(event), test), type_only=field == EVENT_TYPE, values=texts)


def _exact_check(first: str, second: str, texts: frozenset[str], slow: Check) -> Check:
    """`slow` for two keys, without a call where an object, or a list of objects, holds a text."""
    wanted = texts | {upper for text in texts if (upper := text.upper()).casefold() == text}

    def check(event: Event) -> bool:
        node = event.get(first)
        for one in (node,) if node.__class__ is dict else node if node.__class__ is list else (None,):
            value = one.get(second) if one.__class__ is dict else None
            if value.__class__ is not str:
                return slow(event)
            if value in wanted or value.casefold() in texts:
                return True
        return False

    return check


def _plain_values(values: list[SigmaType]) -> frozenset[str] | None:
    """The values as whole texts without case (true and false are texts); None where one is more than that."""
    plain: set[str] = set()
    for value in values:
        if isinstance(value, SigmaBool):
            plain.add("true" if value.boolean else "false")
        elif (
            isinstance(value, SigmaCasedString) or not isinstance(value, SigmaString) or not all(isinstance(part, str) for part in value.s)
        ):
            return None
        else:
            plain.add("".join(str(part) for part in value.s).casefold())
    return frozenset(plain)


def _value_check(read: Reader, test: Test, on_missing: bool) -> Check:
    def check(event: Event) -> bool:
        value = read(event)
        if value.__class__ is str:
            return test(value)
        if value is MISSING:
            return on_missing
        if value.__class__ is list:
            return _any_leaf(value, test, on_missing)
        return test(value)

    return check


def _any_leaf(value: list[Any], test: Test, on_missing: bool) -> bool:
    for one in value:
        if one.__class__ is list:
            break
        if test(one):
            return True
    else:
        return on_missing and not value
    found = [test(leaf) for leaf in leaves(value)]
    return any(found) if found else on_missing


def _matching(value: Any, test: Test) -> Any:
    """What of a field's value matched: the value itself, or the elements of a list that did."""
    if value is MISSING:
        return None
    if not isinstance(value, list):
        return value
    found = [leaf for leaf in leaves(value) if test(leaf)]
    return found[0] if len(found) == 1 else found


def _exists_leaf(field: str, read: Reader, wanted: bool) -> Leaf:
    def evidence(event: Event) -> Any:
        return None if (value := read(event)) is MISSING else value

    return Leaf(field, lambda event: (read(event) is not MISSING) is wanted, evidence, type_only=field == EVENT_TYPE)


def _reference_leaf(field: str, read: Reader, reference: SigmaFieldReference) -> Leaf:
    """Some value of one field equals (begins with, ends with, contains) some value of another; null equals nothing."""
    other = _reader(reference.field)
    compare = _REFERENCE[(reference.starts_with, reference.ends_with)]

    def texts(value: Any) -> list[str]:
        return [text.casefold() for leaf in leaves(value) if (text := text_of(leaf)) is not None]

    def check(event: Event) -> bool:
        theirs = texts(other(event))
        return bool(theirs) and any(compare(mine, one) for mine in texts(read(event)) for one in theirs)

    return Leaf(field, check, lambda event: read(event), cost=6, fields=(reference.field,))


_REFERENCE: dict[tuple[bool, bool], Callable[[str, str], bool]] = {
    (False, False): lambda mine, theirs: mine == theirs,
    (True, False): lambda mine, theirs: mine.startswith(theirs),
    (False, True): lambda mine, theirs: mine.endswith(theirs),
    (True, True): lambda mine, theirs: theirs in mine,
}


def _keyword_leaf(item: SigmaDetectionItem, values: list[SigmaType]) -> Node:
    """Keywords are looked for inside every value of the event (`all`: each of them somewhere)."""
    test = _either([_keyword_test(value, _anchor(item)) for value in values])

    def check(event: Event) -> bool:
        return any(test(value) for value in every_value(event))

    return Leaf(None, check, lambda event: next((value for value in every_value(event) if test(value)), None), cost=50)


def _keyword_test(value: SigmaType, anchor: Anchor) -> Test:
    if isinstance(value, SigmaExpansion):
        return _either([_keyword_test(one, anchor) for one in value.values])
    if isinstance(value, SigmaNumber):
        value = SigmaString(str(value.number))
    if isinstance(value, SigmaString):
        kind = SigmaCasedString if isinstance(value, SigmaCasedString) else SigmaString
        inside = kind()
        inside.s = [*SigmaString("*").s, *value.s, *SigmaString("*").s]
        return single(inside)
    if isinstance(value, SigmaRegularExpression):
        return single(value, anchor)
    what = "null" if isinstance(value, SigmaNull) else "a boolean" if isinstance(value, SigmaBool) else type(value).__name__
    raise Unsupported(f"{what} cannot be a keyword: bind it to a field")


def _either(tests: list[Test]) -> Test:
    return tests[0] if len(tests) == 1 else lambda given: any(test(given) for test in tests)
