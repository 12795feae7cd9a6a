"""A plan is data: changes in the order in which they are applied, with a hash that an approval can bind to.

Take away before giving; the order lives in the change (`stage`), as octoDNS does it.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Any

from model.person import Word


class ChangeKind(StrEnum):
    DEACTIVATE = "deactivate"
    END_SESSIONS = "end_sessions"
    REVOKE = "revoke"
    TRANSFER = "transfer"
    DELETE = "delete"
    CREATE = "create"
    ACTIVATE = "activate"
    UPDATE = "update"
    GRANT = "grant"
    NOTIFY = "notify"


#: The order of application: closing, then taking away, then opening, then giving.
STAGE = {
    ChangeKind.DEACTIVATE: 10,
    ChangeKind.END_SESSIONS: 20,
    ChangeKind.REVOKE: 30,
    ChangeKind.TRANSFER: 40,
    ChangeKind.DELETE: 50,
    ChangeKind.CREATE: 60,
    ChangeKind.ACTIVATE: 65,
    ChangeKind.UPDATE: 70,
    ChangeKind.GRANT: 80,
    ChangeKind.NOTIFY: 90,
}

#: The closing half of a leave, and all of a lockdown: reversible, and the lockdown lane's (D33).
CLOSING = frozenset({ChangeKind.DEACTIVATE, ChangeKind.END_SESSIONS})
#: Opens or widens access: refused under a Hold. TRANSFER and DELETE are refused there as irreversible.
OPENING = frozenset({ChangeKind.CREATE, ChangeKind.ACTIVATE, ChangeKind.GRANT, ChangeKind.UPDATE})
IRREVERSIBLE = frozenset({ChangeKind.TRANSFER, ChangeKind.DELETE})
#: Counted by the brakes as removals.
REMOVING = frozenset({ChangeKind.DEACTIVATE, ChangeKind.REVOKE, ChangeKind.TRANSFER, ChangeKind.DELETE})
#: Effects that cannot be read back (D25): at most one repeat a crash.
REPEATABLE = frozenset({ChangeKind.END_SESSIONS, ChangeKind.NOTIFY})


class Change(Word):
    """One call to one target about one account. `subject` names what is granted, revoked or updated (stable, for people);
    `args` is what the target needs; `before`/`after` are for the record."""

    kind: ChangeKind
    target: str
    account: str = ""
    subject: str = ""
    args: dict[str, Any] = {}
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}

    @property
    def stage(self) -> int:
        return STAGE[self.kind]

    @property
    def label(self) -> str:
        return f"{self.kind.value} {self.subject}".strip()


class Plan(Word):
    """Changes for one person at one target, and a fingerprint of the state they were computed from."""

    tenant: str
    person: str
    target: str
    changes: tuple[Change, ...] = ()
    observed: str = ""

    @property
    def hash(self) -> str:
        # Not orjson: what a vendor or a person wrote may hold lone surrogates and integers beyond 64 bits.
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class ActionStatus(StrEnum):
    PLANNED = "planned"
    INTENDED = "intended"
    DONE = "done"
    ALREADY = "already"
    FAILED = "failed"
    PARKED = "parked"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Action(Word):
    """One attempt at one change, as it stands in the audit trail: written `intended` before the call, again after it.
    `intent` goes out in the header `X-Portcullis-Intent` (D25); (intent, attempt) identifies the row."""

    intent: str
    attempt: int = 1
    lane: str = ""
    incident: str | None = None
    tenant: str
    person: str
    target: str
    account: str = ""
    change: str
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    status: ActionStatus
    detail: str = ""
    request_id: str | None = None
    event_uuid: str | None = None
    intended: datetime | None = None
    called: datetime | None = None
    answered: datetime | None = None
    observed: datetime | None = None
