"""A file of LogEvents, one a line, as it goes into the log: the lines' own bytes, and the people whom they name.

Lines are cut at the line feed alone; what else is white space in JSON stays what it is inside a line and is no part of the element at
its ends. An element that is an object but that Python cannot read (100,000 levels, 5,000 digits) is served all the same: readers of
the log have to cope with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from model.errors import ConfigurationError, MalformedEvent
from model.event import is_safe_id, split_page

_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"


class NotAnObject(ValueError):
    """The bytes are no JSON object; the message says why."""


@dataclass(frozen=True, slots=True)
class Named:
    """Somebody whom an event names as type User."""

    id: str
    login: str
    first_name: str
    last_name: str


def read_file(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each event's bytes and, where Python can read it, its value. Blank lines are no events.

    Raises ConfigurationError that names the file and the number of the line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                raw = (line.removeprefix(_BOM) if number == 1 else line).strip(_SPACE)
                if not raw:
                    continue
                try:
                    yield raw, read_object(raw)
                except NotAnObject as error:
                    raise ConfigurationError(f"{path}: line {number} is no JSON object: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None


def read_object(raw: bytes) -> dict[str, Any] | None:
    """The object, or None where it is one that Python cannot read. Raises NotAnObject."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _read_tolerantly(raw)
        if value is None:
            return None
    if not isinstance(value, dict):
        raise NotAnObject(f"it is a {_NAMES.get(type(value), 'null')}")
    return value


_NAMES = {list: "list", str: "text", int: "number", float: "number", bool: "truth value"}


def _read_tolerantly(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except json.JSONDecodeError as error:
        raise NotAnObject(f"{error.msg} at column {error.colno}") from None
    except UnicodeDecodeError:
        raise NotAnObject("it is not UTF-8") from None
    except (ValueError, RecursionError):
        if raw.startswith(b"{") and _is_one_element(raw):
            return None
        raise NotAnObject("its brackets do not match") from None


def _is_one_element(raw: bytes) -> bool:
    try:
        return split_page(b"[" + raw + b"]") == [raw]
    except MalformedEvent:
        return False


def split_body(body: bytes) -> list[bytes]:
    """The events of a request body, a JSON array or one object, as their exact bytes.

    Elements of an array are taken as they are, whatever they are: a test orders its poison here. Raises NotAnObject.
    """
    body = body.strip(_SPACE)
    if not body.startswith(b"["):
        read_object(body)
        return [body]
    try:
        return split_page(body)
    except MalformedEvent:
        raise NotAnObject("it is no JSON array") from None


def gather(event: Mapping[str, Any] | None, found: dict[str, Named]) -> None:
    """Adds everybody named as actor or target of type User with a usable id; the first login that is an e-mail address wins."""
    for one in _entities(event or {}):
        known = found.get(one["id"])
        if known is None or ("@" not in known.login and "@" in _clean(one.get("alternateId"))):
            found[one["id"]] = _named(one)


def _entities(event: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    targets = event.get("target")
    for one in [event.get("actor"), *(targets if isinstance(targets, list) else ())]:
        if isinstance(one, dict) and one.get("type") == "User" and is_safe_id(one.get("id")):
            yield one


def _named(one: Mapping[str, Any]) -> Named:
    login, name = _clean(one.get("alternateId")), _clean(one.get("displayName"))
    first, _, last = name.partition(" ")
    return Named(one["id"], login if login not in ("", "unknown") else one["id"], first or "Unknown", last or "Unknown")


def _clean(value: object) -> str:
    """A text that UTF-8 can carry: a directory holds no lone surrogate, whatever the log says."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
