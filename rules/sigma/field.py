"""From a field's name to its values in an event: `target.displayName`, `debugContext.debugData.risk.level`, `target[type=User].id`.

Names are Okta's, case included. A list on the way means any of its elements (`target.0.id` the first, `target[type=User].id` those whose
type is User: an extension of ours, since targets come in any order); a text on the way is read as JSON or `{k=v}`. Most fields are two or three dicts deep, so these have readers of their own that do nothing else until they meet something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from rules.sigma.text import DEEPEST, structure_of

Event = dict[str, Any]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


#: The field is not in the event (null is there, and empty).
MISSING: Final = _Missing()

#: Reads a field: MISSING, a scalar, a dict, or the list of values found (nested lists possible: see `leaves`).
Reader = Callable[[Event], Any]


@dataclass(frozen=True, slots=True)
class Only:
    """A step of a path that keeps the elements of a list (or the one object) whose key has a value."""

    key: str
    value: str


Key = str | Only
_STEP = re.compile(r"([^.\[\]]+)((?:\[[^\[\]=]+=[^\[\]]*\])*)(?:\.|$)")
_FILTER = re.compile(r"\[([^\[\]=]+)=([^\[\]]*)\]")


def path_of(field: str) -> tuple[Key, ...]:
    """The steps of a field's name. Raises ValueError where it is none."""
    keys: list[Key] = []
    at = 0
    while at < len(field):
        step = _STEP.match(field, at)
        if step is None:
            raise ValueError(f"{field!r} is no field name")
        keys.append(step.group(1))
        keys.extend(Only(key, value) for key, value in _FILTER.findall(step.group(2)))
        at = step.end()
    if not keys or field.endswith("."):
        raise ValueError(f"{field!r} is no field name")
    return tuple(keys)


def reader(field: str) -> Reader:
    """A function that reads the field from an event; it never raises. Raises ValueError where the name is none."""
    keys = path_of(field)
    if any(isinstance(key, Only) for key in keys):
        first, *rest = keys
        if len(rest) == 2 and isinstance(rest[0], Only) and isinstance(rest[1], str):
            return _chosen(keys, str(first), rest[0], rest[1])
        return lambda event: walk(event, keys, 0)
    if len(keys) == 1:
        return _one(str(keys[0]))
    if len(keys) == 2:
        return _two(keys)
    if len(keys) == 3:
        return _three(keys)
    return _deep(keys)


def _one(key: str) -> Reader:
    return lambda event: event.get(key, MISSING)


def _two(keys: tuple[Key, ...]) -> Reader:
    first, second = (str(key) for key in keys)

    def read(event: Event) -> Any:
        node = event.get(first, MISSING)
        if node.__class__ is dict:
            return node.get(second, MISSING)
        if node.__class__ is list:
            return _plucked(node, second, keys)
        return walk(node, keys, 1)

    return read


def _plucked(node: list[Any], name: str, keys: tuple[Key, ...]) -> Any:
    """One field of each object of a list, as `walk` gives it, for the lists that Okta writes."""
    found = []
    for one in node:
        if one.__class__ is not dict:
            return walk(node, keys, 1)
        value = one.get(name, MISSING)
        if value is not MISSING:
            found.append(value)
    return MISSING if not found or name.isdigit() else found


def _chosen(keys: tuple[Key, ...], first: str, only: Only, last: str) -> Reader:
    """`target[type=User].id`: nearly always one object of the list has it, and its value comes alone."""
    key, wanted = only.key, only.value

    def read(event: Event) -> Any:
        node = event.get(first)
        if node.__class__ is not list:
            return walk(event, keys, 0)
        found = MISSING
        for one in node:
            if one.__class__ is not dict:
                return walk(event, keys, 0)
            if one.get(key) == wanted:
                value = one.get(last, MISSING)
                if value is not MISSING:
                    if found is not MISSING:
                        return walk(event, keys, 0)
                    found = value
        return found

    return read


def _three(keys: tuple[Key, ...]) -> Reader:
    first, second, third = (str(key) for key in keys)

    def read(event: Event) -> Any:
        node = event.get(first, MISSING)
        if node.__class__ is dict:
            node = node.get(second, MISSING)
            if node.__class__ is dict:
                return node.get(third, MISSING)
            return walk(node, keys, 2)
        return walk(node, keys, 1)

    return read


def _deep(keys: tuple[Key, ...]) -> Reader:
    names = tuple(str(key) for key in keys)

    def read(event: Event) -> Any:
        node: Any = event
        for at, name in enumerate(names):
            if node.__class__ is str:
                node = structure_of(node)
            if node.__class__ is not dict:
                return MISSING if node is MISSING or node is None else walk(node, keys, at)
            node = node.get(name, MISSING)
        return node

    return read


def walk(node: Any, keys: tuple[Key, ...], at: int, depth: int = 0) -> Any:
    """Follows `keys[at:]` from a node. A list gives the list of what its elements give; numbers index a list."""
    while at < len(keys):
        key = keys[at]
        if isinstance(node, str):
            node = structure_of(node)
        if isinstance(node, list):
            return _walk_list(node, keys, at, depth)
        if not isinstance(node, dict):
            return MISSING
        if isinstance(key, Only):
            if node.get(key.key) != key.value:
                return MISSING
        else:
            node = node.get(key, MISSING)
        at += 1
    return node


def _walk_list(node: list[Any], keys: tuple[Key, ...], at: int, depth: int) -> Any:
    if depth >= DEEPEST:
        return MISSING
    key = keys[at]
    if isinstance(key, str) and key.isascii() and key.isdigit():
        index = int(key[:9])
        return walk(node[index], keys, at + 1, depth + 1) if index < len(node) else MISSING
    found = [value for element in node if (value := walk(element, keys, at, depth + 1)) is not MISSING]
    return found or MISSING


def leaves(value: Any) -> Iterator[Any]:
    """The scalars and objects of what a reader gave: lists opened (to a bounded depth), MISSING gives none."""
    if value is MISSING:
        return
    if not isinstance(value, list):
        yield value
        return
    stack: list[tuple[Iterator[Any], int]] = [(iter(value), 1)]
    while stack:
        elements, depth = stack[-1]
        for element in elements:
            if isinstance(element, list):
                if depth < DEEPEST:
                    stack.append((iter(element), depth + 1))
                    break
            else:
                yield element
        else:
            stack.pop()


def every_value(event: Event) -> Iterator[Any]:
    """All scalars of an event, in no order: what a keyword is looked for in."""
    stack: list[Any] = [event]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
        else:
            yield node
