"""An event of Okta's System Log: how bytes become a dict, what makes one malformed, and whom it names.

Rules read plain dicts (`decode`), because building a pydantic model costs ten times as much as reading JSON; `OktaEvent` is
built only for what is acted on or shown. An event is a knock, never an order: nothing here says what to do.
Rejected: strict models from Okta's OpenAPI (real events carry null almost everywhere), and people found by index (order varies).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import orjson
from pydantic import BaseModel, ConfigDict

from model.errors import MalformedEvent

PersonRule = Literal["target", "target-or-actor", "actor", "none"]

#: What may stand in a vendor's URL. "me" is refused because Okta would answer with ourselves.
_ID = re.compile(r"[0-9A-Za-z_-]{1,128}")

_split_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode


def is_safe_id(value: object) -> bool:
    """True for an Okta id that may be put into a URL: no path, no query, no escapes, not `me`."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None and value.lower() != "me"


def split_page(body: bytes) -> list[bytes]:
    """The elements of a JSON array as their exact bytes, undecoded.

    Falls back to a scanner over strings and brackets where msgspec refuses the whole page for one element
    (a lone surrogate, deep nesting). Raises `MalformedEvent("not_an_array")` where the brackets do not close.
    """
    try:
        return [bytes(raw) for raw in _split_raw(body)]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError):
        return _scan_page(body)


def _scan_page(body: bytes) -> list[bytes]:
    text = body.strip()
    if not (text.startswith(b"[") and text.endswith(b"]")):
        raise MalformedEvent("not_an_array")
    elements: list[bytes] = []
    depth, start, in_string, escaped = 0, 1, False, False
    for at, byte in enumerate(text):
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
        elif byte in b"]}":
            depth -= 1
            if depth < 0 or (depth == 0 and at != len(text) - 1):
                raise MalformedEvent("not_an_array")
        elif byte == 0x2C and depth == 1:
            elements.append(text[start:at].strip())
            start = at + 1
    if depth != 0 or in_string:
        raise MalformedEvent("not_an_array")
    last = text[start:-1].strip()
    if last or elements:
        elements.append(last)
    if not all(elements):
        raise MalformedEvent("not_an_array")
    return elements


def decode(raw: bytes) -> dict[str, Any]:
    """One event's bytes as a dict with a string `uuid` and a string `eventType`; raises `MalformedEvent` (D1)."""
    try:
        value = orjson.loads(raw)
    except ValueError:
        try:
            value = json.loads(raw, parse_float=_finite, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise MalformedEvent("unreadable") from None
    if not isinstance(value, dict):
        raise MalformedEvent("not_an_object")
    if not _is_name(value.get("uuid")):
        raise MalformedEvent("no_uuid")
    if not _is_name(value.get("eventType")):
        raise MalformedEvent("no_event_type")
    return value


def _is_name(value: object) -> bool:
    """A non-empty string that UTF-8 can carry (a lone surrogate cannot name anything)."""
    return isinstance(value, str) and value != "" and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(text)
    return number


def _refuse(text: str) -> float:
    raise ValueError(text)


def parse_time(value: object) -> datetime | None:
    """An RFC 3339 / ISO 8601 time as aware UTC, or None where it is no time (a 31st of September, a leap second)."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (OverflowError, ValueError):
        return None


def people(event: Mapping[str, Any], how: PersonRule) -> tuple[str, ...]:
    """Ids of the persons an event names under a person rule (D2), in order, each once. Only type `User` names a person."""
    if how == "none":
        return ()
    found = () if how == "actor" else _users(event.get("target"))
    if not found and how in ("actor", "target-or-actor"):
        found = _users([event.get("actor")])
    return found


def _users(entities: object) -> tuple[str, ...]:
    if not isinstance(entities, list):
        return ()
    ids = (one["id"] for one in entities if isinstance(one, dict) and one.get("type") == "User" and is_safe_id(one.get("id")))
    return tuple(dict.fromkeys(ids))


def name_in(event: Mapping[str, Any], person: str) -> str:
    """What an event calls a person (display name, login), for people's eyes only: others chose it, and it identifies nobody."""
    targets = event.get("target")
    for one in [*(targets if isinstance(targets, list) else ()), event.get("actor")]:
        if isinstance(one, dict) and one.get("type") == "User" and one.get("id") == person:
            texts = (one.get("displayName"), one.get("alternateId"))
            return ", ".join(dict.fromkeys(text[:100] for text in texts if isinstance(text, str) and text and text != "unknown"))
    return ""


def digest(*parts: str) -> str:
    """A short stable id from its parts: 32 hex digits of SHA-256 over the parts joined by NUL."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


class OktaEvent(BaseModel):
    """A frozen, tolerant view of one event, with its exact bytes. Unknown keys and nulls are fine; nothing is coerced away."""

    model_config = ConfigDict(frozen=True)

    uuid: str
    event_type: str
    raw: bytes
    published: datetime | None = None
    severity: str | None = None
    outcome: str | None = None
    reason: str | None = None
    display_message: str | None = None
    actor_id: str | None = None
    actor_type: str | None = None
    data: dict[str, Any]

    @classmethod
    def from_raw(cls, raw: bytes) -> OktaEvent:
        """Raises `MalformedEvent` in the sense of D1."""
        data = decode(raw)
        outcome, actor = _object(data.get("outcome")), _object(data.get("actor"))
        return cls(
            uuid=data["uuid"],
            event_type=data["eventType"],
            raw=raw,
            published=parse_time(data.get("published")),
            severity=_text(data.get("severity")),
            outcome=_text(outcome.get("result")),
            reason=_text(outcome.get("reason")),
            display_message=_text(data.get("displayMessage")),
            actor_id=_text(actor.get("id")),
            actor_type=_text(actor.get("type")),
            data=data,
        )

    def people(self, how: PersonRule) -> tuple[str, ...]:
        return people(self.data, how)


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
