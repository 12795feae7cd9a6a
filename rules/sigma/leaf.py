"""One field of one search identifier with its values → a leaf: how it is asked, and what it saw where it holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sigma.modifiers import SigmaEndswithModifier, SigmaStartswithModifier
from sigma.rule import SigmaDetectionItem
from sigma.types import (
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

from rules.sigma.compare import Test
from rules.sigma.expression import EVENT_TYPE, Check, Leaf, Node, disjunction
from rules.sigma.field import MISSING, Event, Reader, every_value, leaves, reader
from rules.sigma.match import Anchor, Unsupported, any_of, one_of, single
from rules.sigma.text import text_of


def _anchor(item: SigmaDetectionItem) -> Anchor:
    return Anchor(SigmaStartswithModifier in item.modifiers, SigmaEndswithModifier in item.modifiers)


def field_leaf(item: SigmaDetectionItem, values: list[SigmaType]) -> Node:
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


def keyword_leaf(item: SigmaDetectionItem, values: list[SigmaType]) -> Node:
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
