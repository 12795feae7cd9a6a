"""How values of an event read as text, and what structure hides inside texts.

Okta writes structure into strings: `"{level=HIGH, reasons=New IP, New Device}"` (commas inside a value) and JSON. A path of a
rule may go on inside such a text. All of it is chosen by others: nothing here raises, nothing recurses without a bound.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

import orjson

#: A longer text is no structure to us (Okta's own are far below; parsing time stays bounded).
LONGEST_STRUCTURE = 65_536
#: Longer ones are read anew each time, so that what is remembered stays small.
_LONGEST_REMEMBERED = 4_096
#: Lists inside lists deeper than this hold nothing for a rule.
DEEPEST = 32

_KEY = re.compile(r"(?:^|,)\s*([A-Za-z_][\w .\-]*?)=")
#: `Risk{level=LOW}` is written as well.
_NAMED = re.compile(r"^[A-Za-z]\w{0,63}\{")
_OPEN, _CLOSE = "{[(", "}])"


def text_of(value: object) -> str | None:
    """The text of one value as Sigma compares it: `true`, `12`, `1.5`; an object as compact JSON; None for null and lists."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if -(2**63) <= value < 2**64 else None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, dict):
        return json_text(value)
    return None


def json_text(value: object) -> str | None:
    """Compact JSON of a value that came from JSON; None where it is too deep or too odd to be written again."""
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return None


def structure_of(text: str) -> dict[str, Any] | list[Any] | None:
    """The object or list that a text holds, as JSON or as `{key=value, key=value}`; None where it holds none.

    The result is shared between callers: read it, never change it. A key that occurs twice holds the list of its values.
    """
    return _remembered(text) if len(text) <= _LONGEST_REMEMBERED else _read(text)


def _read(text: str) -> dict[str, Any] | list[Any] | None:
    if len(text) > LONGEST_STRUCTURE:
        return None
    stripped = _NAMED.sub("{", text.strip(), count=1)
    if not stripped or stripped[0] not in "{[" or stripped[-1] not in "}]":
        return None
    try:
        found = orjson.loads(stripped)
    except ValueError:
        return _java_map(stripped[1:-1]) if stripped[0] == "{" else None
    return found if isinstance(found, (dict, list)) else None


_remembered = lru_cache(maxsize=4096)(_read)


def _java_map(inner: str) -> dict[str, Any] | None:
    """`a=b, c={d=e}, f=x, y` → {a: "b", c: "{d=e}", f: "x, y"}: a key begins where `, name=` stands outside brackets."""
    depth_at = _depths(inner)
    starts = [found for found in _KEY.finditer(inner) if depth_at[found.start()] == 0]
    if not starts or starts[0].start() != 0:
        return None
    ends = [found.start() for found in starts[1:]] + [len(inner)]
    result: dict[str, Any] = {}
    for found, end in zip(starts, ends, strict=True):
        key, value = found.group(1), inner[found.end() : end].strip()
        if key not in result:
            result[key] = value
        elif isinstance(result[key], list):
            result[key].append(value)
        else:
            result[key] = [result[key], value]
    return result


def _depths(text: str) -> list[int]:
    """For each position the number of brackets open before it."""
    depths, depth = [], 0
    for char in text:
        depths.append(depth)
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE and depth:
            depth -= 1
    depths.append(depth)
    return depths
