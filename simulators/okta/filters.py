"""The SCIM-style filters of `/logs`, `/users` and `/groups`: a strict subset, compiled to a test on a dict.

Okta's grammar is larger; what is not here is refused with an error, because a filter that is quietly ignored returns people whom
nobody asked for. Rejected: a SCIM library (the three endpoints differ in fields, operators and case).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Test = Callable[[Mapping[str, Any]], bool]
#: Field path → operators allowed on it.
Fields = Mapping[str, frozenset[str]]

_TOKEN = re.compile(r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<mark>[()])|(?P<word>[^\s()"]+))')
_COMPARE: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda have, want: have == want,
    "sw": lambda have, want: have.startswith(want),
    "ew": lambda have, want: have.endswith(want),
    "co": lambda have, want: want in have,
    "gt": lambda have, want: have > want,
    "ge": lambda have, want: have >= want,
    "lt": lambda have, want: have < want,
    "le": lambda have, want: have <= want,
}


class FilterError(ValueError):
    """The filter cannot be honoured; the message says which part."""


def compile_filter(text: str, fields: Fields, *, fold: bool = False) -> Test:
    """`fold` ignores case in values. A path that meets a list holds where one of its elements does. Raises FilterError."""
    tokens = _tokens(text)
    if not tokens:
        raise FilterError("an empty filter")
    parser = _Parser(tokens, fields, fold)
    test = parser.any_of()
    if parser.rest:
        raise FilterError(f"unexpected {parser.rest[0]!r}")
    return test


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise FilterError(f"unreadable at {text[at : at + 20]!r}")
        found.append(match.group().strip())
        at = match.end()
    return found


class _Parser:
    def __init__(self, tokens: list[str], fields: Fields, fold: bool) -> None:
        self.rest, self.fields, self.fold = tokens, fields, fold

    def any_of(self) -> Test:
        tests = [self.all_of()]
        while self.rest and self.rest[0].lower() == "or":
            self.take()
            tests.append(self.all_of())
        return lambda value: any(test(value) for test in tests)

    def all_of(self) -> Test:
        tests = [self.one()]
        while self.rest and self.rest[0].lower() == "and":
            self.take()
            tests.append(self.one())
        return lambda value: all(test(value) for test in tests)

    def one(self) -> Test:
        if self.rest and self.rest[0] == "(":
            self.take()
            inner = self.any_of()
            if self.take() != ")":
                raise FilterError("a bracket is not closed")
            return inner
        return self.comparison()

    def comparison(self) -> Test:
        path, operator, value = self.take(), self.take().lower(), self.take()
        if path not in self.fields:
            raise FilterError(f"unknown field {path}")
        if operator not in self.fields[path]:
            raise FilterError(f"operator {operator} is not supported on {path}")
        if len(value) < 2 or not value.startswith('"'):
            raise FilterError(f"the value of {path} must stand in double quotes")
        wanted = re.sub(r"\\(.)", r"\1", value[1:-1])
        wanted = wanted.casefold() if self.fold else wanted
        keys, holds, fold = path.split("."), _COMPARE[operator], self.fold

        def test(event: Mapping[str, Any]) -> bool:
            return any(holds(have.casefold() if fold else have, wanted) for have in _texts(event, keys))

        return test

    def take(self) -> str:
        if not self.rest:
            raise FilterError("it ends too early")
        return self.rest.pop(0)


def _texts(value: Any, keys: list[str]) -> list[str]:
    for at, key in enumerate(keys):
        if isinstance(value, list):
            return [text for item in value for text in _texts(item, keys[at:])]
        if not isinstance(value, Mapping):
            return []
        value = value.get(key)
    return [value] if isinstance(value, str) else []
