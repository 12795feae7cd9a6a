"""Pure: the bytes of a record become rows. The writer stores them and the verifier compares them, so a row says nothing that its bytes do not.

Column order is that of schema.sql, without the coordinates, which every table ends with. Text that UTF-8 cannot carry (a lone surrogate)
is escaped as `\\udXXX`; NUL stays as it is; the exact bytes stand in `raw` and `value`. Times are aware UTC.
Objects are kept as JSON text, not as DuckDB's JSON or VARIANT, which refuse what Okta and attackers send.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from pydantic import ValidationError

from model.change import Action
from model.errors import MalformedEvent
from model.event import decode, parse_time
from model.records import (
    ActionTaken,
    AuditRecord,
    Classified,
    Decision,
    HoldChanged,
    IncidentChanged,
    Notice,
    Quarantined,
    read_record,
)

Row = tuple[Any, ...]
Rows = list[tuple[str, Row]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = int((datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) / timedelta(milliseconds=1))
_ORDINAL_SHIFT = 44


class BadRecord(Exception):
    """Bytes on the audit topic that are no audit record."""


class EventFields(NamedTuple):
    """What of an event stands in columns."""

    uuid: str
    published: datetime | None
    event_type: str
    severity: str | None
    outcome: str | None
    actor_id: str | None


def event_fields(raw: bytes) -> EventFields:
    """Raises `MalformedEvent` in the sense of D1."""
    data = decode(raw)
    outcome, actor = data.get("outcome"), data.get("actor")
    return EventFields(
        data["uuid"],
        parse_time(data.get("published")),
        data["eventType"],
        _maybe(data.get("severity")),
        _maybe(outcome.get("result")) if isinstance(outcome, dict) else None,
        _maybe(actor.get("id")) if isinstance(actor, dict) else None,
    )


def tenant_of_event(key: bytes) -> str:
    """The source topic's key is the tenant. Raises `MalformedEvent("no_tenant")`: an event of nobody knows cannot be told from another's."""
    try:
        tenant = key.decode()
    except UnicodeDecodeError:
        tenant = ""
    if not tenant:
        raise MalformedEvent("no_tenant")
    return tenant


def tenant_of_record(key: bytes, kind: str) -> str:
    """For quarantine: the key's tenant, readable whatever the bytes are. The audit topic's keys are `tenant` or `tenant:person`."""
    readable = key.decode("utf-8", "backslashreplace")
    return readable if kind == "event" else readable.partition(":")[0]


def identity(*parts: str) -> int:
    """64 bits that find a row again; equality is then decided on the texts themselves."""
    return int.from_bytes(sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()[:8], "big")


def place(ordinal: int, offset: int) -> int:
    """Orders the records about one subject, which all stand in one partition, over the incarnations of the log."""
    return ordinal << _ORDINAL_SHIFT | offset


def received(timestamp_ms: int) -> datetime:
    """A record's timestamp; what no calendar holds is moved to its nearest end."""
    if not 0 <= timestamp_ms <= _LATEST_MS:
        timestamp_ms = -1 if timestamp_ms < 0 else _LATEST_MS
    return _EPOCH + timedelta(milliseconds=timestamp_ms)


def text(value: str) -> str:
    """`value` as UTF-8 can carry it."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def _maybe(value: object) -> str | None:
    return text(value) if isinstance(value, str) else None


def _json(value: object) -> str:
    return text(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def utc(value: datetime | None) -> datetime | None:
    """Aware UTC; a time without a zone is read as UTC."""
    if value is None:
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        return value.replace(tzinfo=UTC)


def parse_record(value: bytes) -> AuditRecord:
    """Raises `BadRecord`."""
    try:
        return read_record(value)
    except (ValidationError, ValueError, RecursionError):
        raise BadRecord from None


def project(record: AuditRecord, where: int) -> Rows:
    """The rows that one audit record stands for, each with its table. `where` is its `place`. Raises `BadRecord` where a number has no column
    that holds it."""
    rows = _PROJECTIONS[type(record)](record, where)
    if any(type(value) is int and value.bit_length() > 63 for _, row in rows for value in row):
        raise BadRecord
    return rows


def _classified(record: Classified, where: int) -> Rows:
    rows: Rows = [
        (
            "classified_rows",
            (text(record.tenant), text(record.event.uuid), record.moment.value, [text(one) for one in record.people], where),
        )
    ]
    decisions = {one.id: one for one in reversed(record.decisions)}
    rows.extend(("decision_rows", (*_decision(one), where)) for one in reversed(decisions.values()))
    return rows


def _decision(one: Decision) -> Row:
    return (
        text(one.id),
        text(one.tenant),
        text(one.event_uuid),
        _maybe(one.person),
        text(one.rule),
        text(one.rule_version),
        text(one.title),
        one.asked.value,
        one.response.value,
        one.severity.value,
        one.scope.value,
        one.downstream,
        one.expired,
        text(one.why),
        _json(one.matched),
        text(one.runbook),
        utc(one.decided),
    )


def _action(record: ActionTaken, where: int) -> Rows:
    one: Action = record.action
    row = (
        text(one.intent),
        one.attempt,
        text(one.lane),
        _maybe(one.incident),
        text(one.tenant),
        text(one.person),
        text(one.target),
        text(one.account),
        text(one.change),
        _json(one.before),
        _json(one.after),
        one.status.value,
        text(one.detail),
        _maybe(one.request_id),
        _maybe(one.event_uuid),
        utc(one.intended),
        utc(one.called),
        utc(one.answered),
        utc(one.observed),
        where,
    )
    return [("action_rows", row)]


def _incident(record: IncidentChanged, where: int) -> Rows:
    event = record.event
    row = (
        text(record.incident),
        text(record.tenant),
        text(record.person),
        record.state,
        text(record.title),
        record.severity.value,
        None if event is None else text(event.uuid),
        None if event is None else utc(event.received),
        utc(record.opened),
        utc(record.contained),
        utc(record.closed),
        _json(record.targets),
        where,
    )
    return [("incident_rows", row)]


def _hold(record: HoldChanged, where: int) -> Rows:
    hold = record.hold
    row = (
        text(hold.id),
        text(hold.tenant),
        text(hold.person),
        text(hold.incident),
        hold.state.value,
        utc(hold.since),
        utc(hold.released),
        _maybe(hold.released_by),
        text(hold.reason),
        _json(hold.accounts),
        _json(hold.restore),
        where,
    )
    return [("hold_rows", row)]


def _oversize(record: Quarantined, where: int) -> Rows:
    return [
        ("quarantine", (text(record.tenant), text(record.reason), None, record.size, text(record.sha256), utc(record.at), b"", "audit"))
    ]


def _notice(record: Notice, where: int) -> Rows:
    row = (
        text(record.id),
        text(record.tenant),
        utc(record.at),
        record.topic,
        record.severity.value,
        _maybe(record.person),
        _maybe(record.target),
        _maybe(record.incident),
        text(record.text),
        text(record.remedy),
        _json(record.facts),
        where,
    )
    return [("notice_rows", row)]


_PROJECTIONS: dict[type[Any], Callable[[Any, int], Rows]] = {
    Classified: _classified,
    ActionTaken: _action,
    IncidentChanged: _incident,
    HoldChanged: _hold,
    Quarantined: _oversize,
    Notice: _notice,
}
