"""What travels on our own topics, and what the audit topic holds. Every audit record carries a `kind` and an `id`:
a repeat (a redelivery, another incarnation of the log) falls on the id (D9).

Rejected: one schema registry more to run. The words are pydantic models; JSON is what an auditor can read with any tool.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from model.change import Action
from model.decision import Moment, Response, Scope, Severity
from model.person import Hold, Word


class EventRef(Word):
    """Where an event stands in the log (D8): its bytes stay there."""

    uuid: str
    event_type: str
    topic: str = ""
    partition: int = -1
    offset: int = -1
    published: datetime | None = None
    received: datetime


class Decision(Word):
    """One finding for one person, judged once (D3): `expired` means older than `max_action_age` at classification, and
    `response` is what remained after age and brakes; `asked` is what the rule asked for, `why` says what lowered it."""

    id: str
    tenant: str
    event_uuid: str
    person: str | None
    rule: str
    rule_version: str
    title: str
    asked: Response
    response: Response
    severity: Severity
    scope: Scope
    downstream: bool = False
    expired: bool = False
    why: str = ""
    matched: dict[str, Any] = {}
    runbook: str = ""
    decided: datetime
    #: What the event calls the person: for people's eyes only.
    who: str = ""
    #: Of a rule on trial: recorded with what it asked for, told to nobody, acted on by nobody. `why` begins with "shadow".
    shadow: bool = False


def called(decisions: Iterable[Decision]) -> str:
    """What their events call the person. So a message has a name without asking anybody before somebody is told."""
    return next((one.who for one in decisions if one.who), "")


class Knock(Word):
    """Somebody changed: look at them (identity.knocks, key `tenant:person`). `group` set: knock every member of that group."""

    id: str
    tenant: str
    person: str
    group: str | None = None
    moment: Moment
    event: EventRef | None = None
    reason: str = ""
    #: Looked at once more after a delay where the directory lagged the log (D6).
    second_look: bool = False


class Order(Word):
    """An order to the lockdown lane (identity.threats, key `tenant:person`). `lockdown` and `approve` come from rules;
    `close` is the closing half of a leave (D33): no Hold, no incident. `again`: provisioning met a Hold too late (D11)."""

    id: str
    kind: Literal["lockdown", "approve", "close", "again"]
    tenant: str
    person: str
    scope: Scope = Scope.FULL
    downstream: bool = False
    decisions: tuple[Decision, ...] = ()
    event: EventRef


class Command(Word):
    """A human's order to the running system (portcullis.commands, D30)."""

    id: str
    kind: Literal["release", "redrive", "drop", "reset_brake", "link"]
    tenant: str
    person: str = ""
    actor: str
    reason: str
    args: dict[str, Any] = {}
    at: datetime


# --- the audit topic --------------------------------------------------------------------------------------------------


class _Record(Word):
    id: str
    tenant: str
    at: datetime


class Classified(_Record):
    """The classifier's word on one event; silent events have none. `people` and `moment` fill the row in `events`."""

    kind: Literal["classified"] = "classified"
    event: EventRef
    moment: Moment
    people: tuple[str, ...]
    decisions: tuple[Decision, ...] = ()


class ActionTaken(_Record):
    kind: Literal["action"] = "action"
    action: Action


IncidentState = Literal["open", "pending_approval", "contained", "partial", "released", "closed"]


class IncidentChanged(_Record):
    """State of an incident as of `at`; the last record of an incident is its row. `seen` is the log's `received` time."""

    kind: Literal["incident"] = "incident"
    incident: str
    person: str
    state: IncidentState
    title: str = ""
    severity: Severity = Severity.HIGH
    event: EventRef | None = None
    decisions: tuple[Decision, ...] = ()
    opened: datetime | None = None
    contained: datetime | None = None
    closed: datetime | None = None
    targets: dict[str, dict[str, Any]] = {}


class HoldChanged(_Record):
    kind: Literal["hold"] = "hold"
    hold: Hold


class Quarantined(_Record):
    """An event that could not enter the log (over 8 MB): size and hash only. Everything else the recorder quarantines itself."""

    kind: Literal["quarantine"] = "quarantine"
    reason: str
    size: int
    sha256: str


class Notice(_Record):
    """Anything else a human may need: a case, a gap, a cursor fall-back, a tripped brake, a parked change, a command taken."""

    kind: Literal["notice"] = "notice"
    topic: Literal[
        "case",
        "gap",
        "cursor",
        "brake",
        "parked",
        "command",
        "drift",
        "breaker",
        "page",
        "clock",
        "source",
        "rules",
    ]
    severity: Severity = Severity.MEDIUM
    person: str | None = None
    target: str | None = None
    incident: str | None = None
    text: str
    remedy: str = ""
    facts: dict[str, Any] = {}


AuditRecord = Classified | ActionTaken | IncidentChanged | HoldChanged | Quarantined | Notice
_adapter: TypeAdapter[AuditRecord] = TypeAdapter(Annotated[AuditRecord, Field(discriminator="kind")])


def read_record(raw: bytes) -> AuditRecord:
    """Raises pydantic's ValidationError for bytes that are no record."""
    return _adapter.validate_json(raw)
