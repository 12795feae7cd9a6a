"""One Sigma value → a test of one value of an event. Tests never raise and take linear time, whatever stands in the event.

Regular expressions and wildcards run on RE2 (which pySigma brings): no backtracking, so nobody can stall a classifier with a
crafted user agent. What RE2 cannot honour (look-around, back-references) is refused at load. Rejected: Python's `re`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

from sigma.policy.regex_engine import RE2RegexEngine, RegexPattern
from sigma.types import (
    Placeholder,
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExpansion,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaRegularExpressionFlag,
    SigmaString,
    SigmaTimestampPart,
    SigmaType,
    SpecialChars,
)

from rules.sigma.compare import Test, comparison, network, number, timestamp
from rules.sigma.text import text_of

_re2 = RE2RegexEngine()
_META = frozenset(".*+?^$[](){}\\|/-#&~ \t\r\n\v\f\0")


class Unsupported(Exception):
    """A value that cannot be honoured; the message says why."""


class Anchor:
    """How a regular expression is held: `re` alone searches anywhere, `re|startswith` and `re|endswith` hold one end."""

    def __init__(self, start: bool = False, end: bool = False) -> None:
        self.start, self.end = start, end


def any_of(values: Iterable[SigmaType], anchor: Anchor | None = None) -> Test:
    """A test that holds where one of the values matches; plain texts of any number cost one look into a set."""
    exact: set[str] = set()
    others: list[Test] = []
    for value in values:
        text = _plain_text(value)
        if text is not None:
            exact.add(text.casefold())
        else:
            others.append(single(value, anchor))
    if exact:
        others.insert(0, one_of(frozenset(exact)))
    return _either(others)


def single(value: SigmaType, anchor: Anchor | None = None) -> Test:
    """The test of one value. Raises Unsupported."""
    if isinstance(value, SigmaCasedString):
        return _string(value, cased=True)
    if isinstance(value, SigmaString):
        return _string(value, cased=False)
    if isinstance(value, SigmaBool):
        return one_of(frozenset({"true" if value.boolean else "false"}))
    if isinstance(value, SigmaTimestampPart):
        return timestamp(value, operator.eq)
    if isinstance(value, SigmaNumber):
        return number(value.number)
    if isinstance(value, SigmaNull):
        return lambda given: given is None
    if isinstance(value, SigmaRegularExpression):
        return _regular_expression(value, anchor or Anchor())
    if isinstance(value, SigmaCIDRExpression):
        return network(value)
    if isinstance(value, SigmaCompareExpression):
        return comparison(value)
    if isinstance(value, SigmaExpansion):
        return any_of(value.values, anchor)
    raise Unsupported(f"values of kind {type(value).__name__} cannot be matched")


def _either(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda given: first(given) or second(given)
    frozen = tuple(tests)
    return lambda given: any(test(given) for test in frozen)


# --- texts --------------------------------------------------------------------------------------------------------------


def _plain_text(value: SigmaType) -> str | None:
    """The text of a value that is compared whole and without case, else None."""
    if isinstance(value, SigmaString) and not isinstance(value, SigmaCasedString) and all(isinstance(part, str) for part in value.s):
        return "".join(str(part) for part in value.s)
    return None


def one_of(folded: frozenset[str]) -> Test:
    """One of some texts (folded), whole and without case."""

    def test(given: Any) -> bool:
        if given.__class__ is not str:
            given = text_of(given)
            if given is None:
                return False
        return given in folded or given.casefold() in folded

    return test


def _string(value: SigmaString, *, cased: bool) -> Test:
    parts = _merged(value)
    plain = [part for part in parts if isinstance(part, str)]
    if not all(isinstance(part, str) or part is SpecialChars.WILDCARD_MULTI for part in parts) or len(plain) > 1:
        return _pattern(parts, cased)
    text = plain[0] if plain else ""
    if not plain:
        return _text_test(lambda _: True, cased=True) if parts else _text_test(lambda given: given == "", cased=True)
    wanted = text if cased else text.casefold()
    at_start, at_end = isinstance(parts[0], str), isinstance(parts[-1], str)
    if at_start and at_end:
        return _text_test(lambda given: given == wanted, cased)
    if at_start:
        return _text_test(lambda given: given.startswith(wanted), cased)
    if at_end:
        return _text_test(lambda given: given.endswith(wanted), cased)
    return _text_test(lambda given: wanted in given, cased)


def _text_test(holds: Callable[[str], bool], cased: bool) -> Test:
    def test(given: Any) -> bool:
        text = given if given.__class__ is str else text_of(given)
        return text is not None and holds(text)

    def test_folded(given: Any) -> bool:
        text = given if given.__class__ is str else text_of(given)
        return text is not None and holds(text.casefold())

    return test if cased else test_folded


def _merged(value: SigmaString) -> list[str | SpecialChars]:
    """The parts of a string with neighbours joined: texts with texts, `**` into `*`."""
    parts: list[str | SpecialChars] = []
    for part in value.s:
        if isinstance(part, Placeholder):
            raise Unsupported(f"the placeholder %{part.name}% is not defined")
        if isinstance(part, str):
            if part and parts and isinstance(last := parts[-1], str):
                parts[-1] = last + part
            elif part:
                parts.append(part)
        elif not (parts and part is SpecialChars.WILDCARD_MULTI and parts[-1] is part):
            parts.append(part)
    return parts


def _pattern(parts: list[str | SpecialChars], cased: bool) -> Test:
    wild = {SpecialChars.WILDCARD_MULTI: ".*", SpecialChars.WILDCARD_SINGLE: "."}
    body = "".join(_escaped(part) if isinstance(part, str) else wild[part] for part in parts)
    return _search(_compiled(f"(?s{'' if cased else 'i'})\\A(?:{body})\\z"))


def _escaped(text: str) -> str:
    return "".join(f"\\x{{{ord(char):x}}}" if char in _META else char for char in text)


# --- regular expressions ------------------------------------------------------------------------------------------------


def _regular_expression(value: SigmaRegularExpression, anchor: Anchor) -> Test:
    letters = {
        SigmaRegularExpressionFlag.IGNORECASE: "i",
        SigmaRegularExpressionFlag.MULTILINE: "m",
        SigmaRegularExpressionFlag.DOTALL: "s",
    }
    if any(isinstance(part, Placeholder) for part in value.regexp.s):
        raise Unsupported("a placeholder in this regular expression is not defined")
    flags = "".join(sorted(letters[flag] for flag in value.flags))
    body = f"{chr(92)}A" * anchor.start + f"(?:{value.regexp.to_plain_regex()})" + f"{chr(92)}z" * anchor.end
    return _search(_compiled(f"(?{flags}){body}" if flags else body))


def _compiled(pattern: str) -> RegexPattern:
    try:
        return _re2.compile(pattern)
    except _re2.error as error:
        raise Unsupported(f"the regular expression cannot be honoured (RE2: {error})") from None


def _search(pattern: RegexPattern) -> Test:
    search = pattern.search

    def test(given: Any) -> bool:
        text = given if given.__class__ is str else text_of(given)
        if text is None:
            return False
        try:
            return search(text) is not None
        except UnicodeEncodeError:  # a lone surrogate: RE2 wants UTF-8
            return search(text.encode("utf-8", "replace").decode()) is not None

    return test
