"""From the calls that the simulators received to effects: whose account, what about it, what it is now.

An effect has a key (`account`, `space`, `group Sales`, `folder Company`, `sessions`, `content`, a Slack message) and a value; a later
effect on the same key stands in the place of an earlier one. Which membership a DELETE ends is told by its row in `actions` alone (a vendor's
list shows what is there, not what was), so a row that lies about it shows in the person's end state.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.torture.weather import PATIENCE_S

Json = dict[str, Any]

#: Keys whose calls leave nothing that could be read back: declared repeatable, once a crash (D25).
REPEATABLE = frozenset({"sessions", "update"})
#: What may lie between a lane's last look at what the other one intends and its own call.
_BETWEEN_S = 0.1
_DONE = frozenset({"done", "already"})


@dataclass(frozen=True, slots=True)
class Call:
    """One row of `/_sim/calls`, `at` in epoch seconds."""

    vendor: str
    n: int
    at: float
    method: str
    path: str
    body: Any
    status: int | None
    intent: str | None
    changed: bool

    @property
    def is_good(self) -> bool:
        """The vendor worked on it and said so, or said that it is so already. Whether we heard it is another matter."""
        return self.status is not None and (self.status < 300 or self.status in (404, 409))

    def __str__(self) -> str:
        return f"{self.vendor} #{self.n} {self.method} {self.path} → {self.status}{' changed' if self.changed else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of `actions`."""

    intent: str
    person: str
    target: str
    lane: str
    change: str
    status: str
    incident: str | None = None
    event: str | None = None
    #: When the call was sent (epoch seconds); where a crash kept that from being written, when it was intended.
    called: float = 0.0
    #: The answer never came: what became of the call was found out by looking.
    read_back: bool = False

    @property
    def is_done(self) -> bool:
        return self.status in _DONE

    @property
    def cause(self) -> str:
        return self.incident or self.event or ""


@dataclass(frozen=True, slots=True)
class Effect:
    """What one call does to one thing. `who` is an Okta id, or what a message is about; `value` None takes away."""

    call: Call
    who: str
    key: str
    value: Any
    row: Row | None = None

    @property
    def counts(self) -> bool:
        """It happened, or repeats what had happened: a call that the network ate did neither."""
        return self.call.changed or self.call.is_good

    @property
    def lane(self) -> str:
        return self.row.lane if self.row is not None else ""

    def knew(self, earlier: Effect) -> bool:
        """Whether it could know of `earlier`: calls of two lanes that are out at the same time are concurrent, nobody can order them."""
        return self.lane == earlier.lane or self.row is None or earlier.call.at + _BETWEEN_S <= self.row.called

    @property
    def came_late(self) -> bool:
        """The vendor worked on it only after its caller's time-out, and its answer was lost: nobody can say any more when it lands."""
        return self.row is not None and self.row.read_back and self.call.at - self.row.called > PATIENCE_S

    @property
    def is_acknowledged(self) -> bool:
        return self.call.is_good and self.row is not None and self.row.is_done and not self.row.read_back

    def __str__(self) -> str:
        told = f"{self.row.lane} {self.row.change} [{self.row.status}]" if self.row else "no row"
        return f"{self.who} {self.key} = {self.value}: {self.call} ({told})"


@dataclass(frozen=True, slots=True)
class Names:
    """Vendors' ids as people know them. `owners`: Box account id → Okta id of the person whose login it carries."""

    owners: Mapping[str, str]
    logins: Mapping[str, str]
    groups: Mapping[str, str]
    folders: Mapping[str, str]


def effects_of(calls: Sequence[Call], rows: Mapping[str, Row], names: Names) -> list[Effect]:
    """In the order in which the calls took effect, vendor by vendor."""
    return [effect for call in calls for effect in _read(call, rows.get(call.intent or ""), names)]


def _read(call: Call, row: Row | None, names: Names) -> Iterator[Effect]:
    body = call.body if isinstance(call.body, dict) else {}
    if call.vendor == "slack":
        yield _message(call, body, row)
    elif call.vendor == "okta":
        yield from _okta(call, row)
    else:
        for who, key, value in _box(call, body, row, names):
            yield Effect(call, who, key, value, row)


def _okta(call: Call, row: Row | None) -> Iterator[Effect]:
    match call.path.split("/")[3:]:
        case ["users", who, "lifecycle", "suspend"]:
            yield Effect(call, who, "account", "SUSPENDED", row)
        case ["users", who, "lifecycle", "unsuspend"]:
            yield Effect(call, who, "account", "ACTIVE", row)
        case ["users", who, "sessions"]:
            yield Effect(call, who, "sessions", "ended", row)
        case _:
            yield Effect(call, row.person if row else "", f"{call.method} {call.path}", None, row)


def _box(call: Call, body: Json, row: Row | None, names: Names) -> Iterator[tuple[str, str, Any]]:
    person = row.person if row else ""
    match (call.method, *call.path.split("/")[2:]):
        case ("POST", "users"):
            who = names.logins.get(str(body.get("login", "")).lower(), person)
            yield who, "account", "active"
            yield who, "space", body.get("space_amount")
        case ("POST", "users", "terminate_sessions"):
            yield names.owners.get(str((body.get("user_ids") or [""])[0]), person), "sessions", "ended"
        case ("PUT", "users", account, "folders", "0"):
            yield names.owners.get(account, person), "content", str((body.get("owned_by") or {}).get("id"))
        case ("PUT", "users", account):
            who = names.owners.get(account, person)
            if "status" in body:
                yield who, "account", body["status"]
            if "space_amount" in body:
                yield who, "space", body["space_amount"]
        case ("POST", "group_memberships"):
            yield names.owners.get(_id(body, "user"), person), f"group {names.groups.get(_id(body, 'group'), '?')}", "member"
        case ("POST", "collaborations"):
            folder = names.folders.get(_id(body, "item"), "?")
            yield names.owners.get(_id(body, "accessible_by"), person), f"folder {folder}", body.get("role")
        case ("PUT", "collaborations", _):
            yield person, _subject(row), body.get("role")
        case ("DELETE", "group_memberships" | "collaborations", _):
            yield person, _subject(row), None
        case _:
            yield person, f"{call.method} {call.path}", None


def _id(body: Json, key: str) -> str:
    held = body.get(key)
    return str(held.get("id", "")) if isinstance(held, dict) else ""


def _subject(row: Row | None) -> str:
    """`revoke group Sales` → `group Sales`."""
    return row.change.partition(" ")[2] if row else "?"


def _message(call: Call, body: Json, row: Row | None) -> Effect:
    if call.path.endswith("chat.update"):  # all that it says: the same heading over other news is no repeat
        return Effect(call, str(body.get("ts", "")), "update", f"{body.get('text')} ({_short(body.get('blocks'))})", row)
    return Effect(call, _subject_of(call, body), "post", "posted", row)


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _subject_of(call: Call, body: Json) -> str:
    """What a message is about: an incident, else heading, target, code and hour, since that is told once an hour."""
    text = json.dumps(body.get("blocks"))
    if incident := re.search(r'"elements": \[{"type": "plain_text", "text": "incident (\w+)"', text):
        return f"incident {incident[1]}"
    heading = re.search(r'"type": "header", "text": {[^}]*"text": "([^"]*)"', text)
    target, code = re.search(r"Target\*?\\n([\w.-]+)", text), re.search(r"\\ncode: ([\w-]+)", text)
    hour = datetime.fromtimestamp(call.at).astimezone().strftime("%H")
    return " / ".join([*(found[1] if found else "" for found in (heading, target, code)), hour])
