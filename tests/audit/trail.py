"""Builders of what the recorder is fed, and a small day with one of everything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from audit.store import AuditStore, LogRecord
from model.change import Action, ActionStatus
from model.decision import Moment, Response, Scope, Severity
from model.person import Hold, HoldState
from model.records import (
    ActionTaken,
    AuditRecord,
    Classified,
    Decision,
    EventRef,
    HoldChanged,
    IncidentChanged,
    Notice,
    Quarantined,
)

SOURCE, AUDIT = "okta.system-log", "identity.outcomes"
START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
PERSON, LEAVER, ADMIN = "00u1ann", "00u2bob", "00u3adm"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def event(uuid: str, event_type: str = "user.session.start", seconds: float = 0, **more: Any) -> bytes:
    body = {
        "uuid": uuid,
        "eventType": event_type,
        "published": at(seconds).isoformat().replace("+00:00", "Z"),
        "severity": "INFO",
        "outcome": {"result": "SUCCESS", "reason": None},
        "actor": {"id": ADMIN, "type": "User", "alternateId": "adm@example.com"},
        "target": [{"id": PERSON, "type": "User"}],
    }
    return json.dumps(body | more).encode()


class Log:
    """Appends records as a log would: rising offsets per partition."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []
        self._next: dict[tuple[str, int], int] = {}

    def source(self, value: bytes, *, key: bytes | None = b"default", partition: int = 0, seconds: float = 0) -> LogRecord:
        return self._append(SOURCE, partition, seconds, key, value, "event")

    def audit(self, record: AuditRecord | bytes, *, partition: int = 0, key: bytes | None = None, seconds: float = 0) -> LogRecord:
        value = record if isinstance(record, bytes) else record.to_bytes()
        person = "" if isinstance(record, bytes) else getattr(record, "person", None) or ""
        return self._append(AUDIT, partition, seconds, key if key is not None else f"default:{person}".encode(), value, "audit")

    def gap(self, topic: str, partition: int = 0, of: int = 1) -> None:
        """What a control record of a transaction leaves."""
        self._next[topic, partition] = self._next.get((topic, partition), 0) + of

    def _append(self, topic: str, partition: int, seconds: float, key: bytes | None, value: bytes, kind: Any) -> LogRecord:
        offset = self._next.get((topic, partition), 0)
        self._next[topic, partition] = offset + 1
        record = LogRecord(topic, partition, offset, ms(at(seconds)), key, value, kind)
        self.records.append(record)
        return record


def ref(uuid: str, event_type: str, seconds: float = 0) -> EventRef:
    return EventRef(uuid=uuid, event_type=event_type, topic=SOURCE, partition=0, offset=0, published=at(seconds), received=at(seconds + 1))


def decision(uuid: str, *, rule: str = "risk_raised", response: Response = Response.LOCKDOWN, seconds: float = 0, **more: Any) -> Decision:
    return Decision(
        id=more.pop("id", f"d-{uuid}-{rule}"),
        tenant="default",
        event_uuid=uuid,
        person=more.pop("person", PERSON),
        rule=rule,
        rule_version="abc123",
        title="Risk raised to high",
        asked=response,
        response=response,
        severity=Severity.HIGH,
        scope=Scope.FULL,
        matched=more.pop("matched", {"debugContext.debugData.risk": "HIGH"}),
        decided=at(seconds),
        **more,
    )


def classified(uuid: str, moment: Moment, people: Iterable[str], *decisions: Decision, seconds: float = 0, **more: Any) -> Classified:
    event_type = more.pop("event_type", "user.risk.change")
    return Classified(
        id=more.pop("id", f"c-{uuid}"),
        tenant="default",
        at=at(seconds),
        event=ref(uuid, event_type, seconds),
        moment=moment,
        people=tuple(people),
        decisions=decisions,
    )


def action(
    intent: str, status: ActionStatus, change: str, *, person: str = PERSON, target: str = "box", seconds: float = 0, **more: Any
) -> ActionTaken:
    attempt = more.pop("attempt", 1)
    return ActionTaken(
        id=f"a-{intent}-{attempt}-{status.value}",
        tenant="default",
        at=at(seconds),
        action=Action(intent=intent, attempt=attempt, tenant="default", person=person, target=target, change=change, status=status, **more),
    )


def called(log: Log, intent: str, change: str, *, seconds: float, ending: ActionStatus = ActionStatus.DONE, **more: Any) -> None:
    """The two records of one attempt: intended before the call, answered after it."""
    log.audit(action(intent, ActionStatus.INTENDED, change, seconds=seconds, intended=at(seconds), **more), seconds=seconds)
    after = more.pop("after", {"status": "inactive"})
    log.audit(
        action(
            intent,
            ending,
            change,
            seconds=seconds + 1,
            intended=at(seconds),
            called=at(seconds + 0.1),
            answered=at(seconds + 0.5),
            observed=at(seconds + 0.9),
            request_id=f"req-{intent}",
            after=after,
            **more,
        ),
        seconds=seconds + 1,
    )


def incident(state: Any, seconds: float, **more: Any) -> IncidentChanged:
    return IncidentChanged(
        id=f"i-1-{state}",
        tenant="default",
        at=at(seconds),
        incident="inc-1",
        person=PERSON,
        state=state,
        title="Credentials stolen",
        event=ref("u-risk", "user.risk.change", 100),
        opened=at(101),
        **more,
    )


def day() -> list[LogRecord]:
    """A hire, a leaver, a risk, a privilege, poison, a conflict, repeats and an unanswered intent, on two partitions of each topic."""
    log = Log()
    for n in range(20):
        log.source(event(f"u-quiet-{n}", seconds=n * 400), seconds=n * 400 + 1)
    log.source(event("u-hire", "user.lifecycle.create", 10), seconds=11)
    log.source(event("u-risk", "user.risk.change", 100), seconds=101)
    log.gap(SOURCE)
    log.source(event("u-leave", "user.lifecycle.deactivate", 200, target=[{"id": LEAVER, "type": "User"}]), seconds=201)
    log.source(event("u-priv", "user.account.privilege.grant", 300), seconds=301)
    log.source(b'{"uuid": "u-poison"', seconds=302)
    log.source(b"[1, 2]", seconds=303)
    log.source(event("u-hire", "user.lifecycle.create", 10), seconds=304)
    log.source(event("u-hire", "user.lifecycle.delete", 10), seconds=305)
    log.source(event("u-other", seconds=50), key=b"second", partition=1, seconds=51)
    log.source(event("u-hire", "user.lifecycle.create", 10), key=b"second", partition=1, seconds=52)

    log.audit(classified("u-hire", Moment.JOIN, [PERSON], event_type="user.lifecycle.create", seconds=11), seconds=11)
    log.audit(classified("u-risk", Moment.THREAT, [PERSON], decision("u-risk", seconds=102), seconds=102), seconds=102)
    log.audit(
        classified(
            "u-priv", Moment.NONE, [PERSON], decision("u-priv", rule="admin_granted", response=Response.ALERT, seconds=301), seconds=301
        ),
        seconds=301,
    )
    called(log, "in-create", "create", seconds=12, account="box-1")
    called(log, "in-grant", "grant folder Sales", seconds=14, account="box-1", after={"role": "editor"})
    called(log, "in-suspend", "deactivate", target="okta", seconds=103, incident="inc-1", lane="lockdown", event_uuid="u-risk")
    called(log, "in-box", "deactivate", seconds=104, incident="inc-1", lane="lockdown", account="box-1", event_uuid="u-risk")
    called(log, "in-leave", "deactivate", person=LEAVER, seconds=202, account="box-2", event_uuid="u-leave", before={"status": "active"})
    called(log, "in-admin", "grant Super admins", person=PERSON, target="okta", seconds=310, ending=ActionStatus.FAILED)
    log.audit(
        action("in-open", ActionStatus.INTENDED, "revoke folder Sales", seconds=400, intended=at(400), person=LEAVER),
        partition=1,
        seconds=400,
    )
    log.audit(incident("open", 102, targets={"okta": {}, "box": {}}), seconds=102)
    log.audit(incident("contained", 106, contained=at(105.5), targets={"okta": {"status": "done"}, "box": {"status": "done"}}), seconds=106)
    hold = Hold(id="h-1", tenant="default", person=PERSON, incident="inc-1", since=at(102), reason="risk", accounts=(("box", "box-1"),))
    log.audit(HoldChanged(id="hr-1", tenant="default", at=at(102), hold=hold), seconds=102)
    old = Hold(id="h-0", tenant="default", person=LEAVER, incident="inc-0", since=at(1), reason="drill")
    log.audit(HoldChanged(id="hr-2", tenant="default", at=at(1), hold=old), partition=1, seconds=1)
    lifted = old.model_copy(update={"state": HoldState.RELEASED, "released": at(50), "released_by": "sec@example.com"})
    log.audit(HoldChanged(id="hr-3", tenant="default", at=at(50), hold=lifted), partition=1, seconds=50)
    log.audit(Quarantined(id="q-1", tenant="default", at=at(500), reason="too_large", size=9_000_000, sha256="ab" * 32), seconds=500)
    log.audit(
        Notice(id="n-1", tenant="default", at=at(310), topic="parked", text="grant failed", target="okta", person=PERSON), seconds=310
    )
    log.audit(b"{not a record", key=b"default:x", seconds=501)
    # A redelivery: the same record again, and the same id with another time in it.
    log.audit(classified("u-hire", Moment.JOIN, [PERSON], event_type="user.lifecycle.create", seconds=11), seconds=502)
    log.audit(classified("u-hire", Moment.NONE, [], event_type="user.lifecycle.create", seconds=503), seconds=503)
    return log.records


def fill(path: Path, records: Sequence[LogRecord], incarnation: str = "one", size: int = 7) -> None:
    with AuditStore(path, incarnation) as store:
        for start in range(0, len(records), size):
            store.write(records[start : start + size])


def rows(store: AuditStore, sql: str) -> list[tuple[Any, ...]]:
    with store.reader() as cursor:
        return cursor.execute(sql).fetchall()


#: Everything that a query can see, without what names an incarnation.
CONTENTS = {
    "events": 'SELECT * EXCLUDE (incarnation, topic, partition, "offset", received) FROM events ORDER BY ALL',
    "decisions": "SELECT * FROM decisions ORDER BY ALL",
    "actions": "SELECT * FROM actions ORDER BY ALL",
    "incidents": "SELECT * FROM incidents ORDER BY ALL",
    "holds": "SELECT * FROM holds ORDER BY ALL",
    "notices": "SELECT * FROM notices ORDER BY ALL",
    "quarantine": 'SELECT * EXCLUDE (incarnation, topic, partition, "offset", received) FROM quarantine ORDER BY ALL',
    "records": "SELECT key, value, id, kind, repeated FROM records ORDER BY ALL",
}


def contents(store: AuditStore) -> dict[str, list[tuple[Any, ...]]]:
    return {name: rows(store, sql) for name, sql in CONTENTS.items()}
