"""Intake of one batch: what its records mean, which of them are repeats, and the rows and chain links that they become.

Chain links and rows are computed first, repeats are looked up once for the whole batch, then everything is laid down by store.py. Repeats
are found without an index: each event and each audit record carries 64 bits of its identity, a column that is scanned (3 ns a row), and only
hits are compared in full. Rejected: a primary key (0.5k rows/s, and index bugs in 2.0), an in-memory set (it grows without end).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from duckdb import DuckDBPyConnection

from audit.chain import GENESIS, Log, link, prefix
from audit.rows import (
    BadRecord,
    Row,
    Rows,
    event_fields,
    identity,
    parse_record,
    place,
    project,
    received,
    tenant_of_event,
    tenant_of_record,
    text,
)
from model.errors import FaultError, MalformedEvent


class LogRecord(NamedTuple):
    """One record as the log holds it. `timestamp_ms` is the receive time (D8); `kind` says which of the two chained topics it is of."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    kind: Literal["event", "audit"]


Batch = Sequence[LogRecord]


class Head(NamedTuple):
    """Where a log is read to, and the end of its chain."""

    next_offset: int
    length: int
    hash: bytes


_BEGINNING = Head(0, 0, GENESIS)


class _Tail:
    """A chain while this batch is added to it."""

    __slots__ = ("hash", "length", "log", "next_offset", "prefix")

    def __init__(self, log: Log, next_offset: int, length: int, hash_: bytes) -> None:
        self.log, self.prefix = log, prefix(log)
        self.next_offset, self.length, self.hash = next_offset, length, hash_


class _Incoming(NamedTuple):
    record: LogRecord
    key: bytes
    value_sha256: bytes
    received: datetime


class _Event(NamedTuple):
    incoming: _Incoming
    tenant: str
    uuid: str
    identity: int
    row: Row


class _Audit(NamedTuple):
    incoming: _Incoming
    id: str
    identity: int
    row: Row
    projected: Rows


class Intake:
    """One batch on its way: chain links and rows are computed first, repeats are looked up once, then everything is laid down."""

    def __init__(self, batch: Batch, incarnation: str, ordinal: int, heads: Mapping[Log, Head]) -> None:
        """Raises FaultError where offsets go backwards. `heads` are those before this batch."""
        self._incarnation, self._ordinal, self._before = incarnation, ordinal, heads
        self._tails: dict[tuple[str, int], _Tail] = {}
        self._key_hashes: dict[bytes, bytes] = {}
        self._chain: list[tuple[Any, ...]] = []
        self._events: list[_Event] = []
        self._audits: list[_Audit] = []
        self._quarantine: list[tuple[tuple[str, bytes, str], LogRecord, Row]] = []
        self._known_events: dict[tuple[str, str], bytes] = {}
        self._known_audits: dict[str, set[tuple[bytes, bytes]]] = {}
        self._known_quarantine: set[tuple[str, bytes, str]] = set()
        for record in batch:
            self._take(record)

    def _take(self, record: LogRecord) -> None:
        one = _Incoming(record, record.key or b"", sha256(record.value).digest(), received(record.timestamp_ms))
        self._link(one)
        try:
            if record.kind == "event":
                self._take_event(one)
            else:
                self._take_audit(one)
        except MalformedEvent as error:
            self._reject(one, error.reason)
        except BadRecord:
            self._reject(one, "bad_record")

    def _link(self, one: _Incoming) -> None:
        record, key, value_sha256, when = one
        tail = self._tails.get((record.topic, record.partition)) or self._open_tail(record)
        if record.offset < tail.next_offset:
            raise FaultError(f"{record.topic}/{record.partition} went backwards: offset {record.offset} after {tail.next_offset - 1}")
        key_sha256 = self._key_hashes.get(key)
        if key_sha256 is None:
            key_sha256 = self._key_hashes[key] = sha256(key).digest()
        tail.hash = link(tail.hash, key_sha256, value_sha256, tail.prefix, record.offset)
        tail.next_offset = record.offset + 1
        tail.length += 1
        self._chain.append((tail.log, record.offset, when, key_sha256, value_sha256, tail.hash))

    def _open_tail(self, record: LogRecord) -> _Tail:
        log = Log(self._incarnation, record.topic, record.partition)
        tail = self._tails[record.topic, record.partition] = _Tail(log, *self._before.get(log, _BEGINNING))
        return tail

    @property
    def heads(self) -> dict[Log, Head]:
        """The logs of this batch, read to its end."""
        return {tail.log: Head(tail.next_offset, tail.length, tail.hash) for tail in self._tails.values()}

    def _coordinates(self, record: LogRecord) -> Row:
        return self._incarnation, record.topic, record.partition, record.offset

    def _take_event(self, one: _Incoming) -> None:
        record = one.record
        fields = event_fields(record.value)
        tenant = tenant_of_event(one.key)
        who = identity(tenant, fields.uuid)
        coordinates = self._coordinates(record)
        row = (tenant, fields.uuid, fields.published, one.received, *fields[2:], record.value, one.value_sha256, who, *coordinates)
        self._events.append(_Event(one, tenant, fields.uuid, who, row))

    def _take_audit(self, one: _Incoming) -> None:
        record = one.record
        parsed = parse_record(record.value)
        projected = project(parsed, place(self._ordinal, record.offset))
        row = (one.key, record.value, one.received, text(parsed.id), parsed.kind)
        self._audits.append(_Audit(one, row[3], identity(row[3]), row, projected))

    def _reject(self, one: _Incoming, reason: str) -> None:
        record, digest = one.record, one.value_sha256.hex()
        tenant = tenant_of_record(one.key, record.kind)
        row = (tenant, reason, record.value, len(record.value), digest, one.received, one.key, record.kind, *self._coordinates(record))
        self._quarantine.append(((record.topic, one.key, digest), record, row))

    def find_repeats(self, con: DuckDBPyConnection) -> None:
        """What of this batch the file holds already."""
        for row in _find(con, "event_rows", "tenant, uuid, value_sha256", [one.identity for one in self._events]):
            self._known_events[row[0], row[1]] = row[2]
        for row in _find(con, "records", "id, key, value", [one.identity for one in self._audits]):
            self._known_audits.setdefault(row[0], set()).add((row[1], sha256(row[2]).digest()))
        self._settle_events()
        if self._quarantine:
            digests = [digest for (_, _, digest), _, _ in self._quarantine]
            found = con.execute(
                "SELECT topic, key, sha256 FROM quarantine WHERE raw IS NOT NULL AND sha256 IN (SELECT unnest(?::VARCHAR[]))", [digests]
            ).fetchall()
            self._known_quarantine.update(found)

    def _settle_events(self) -> None:
        """The first of a (tenant, uuid) stays; the same bytes again are a repeat, other bytes a conflict."""
        fresh = []
        for one in self._events:
            mine = one.incoming.value_sha256
            known = self._known_events.setdefault((one.tenant, one.uuid), mine)
            if known is mine:
                fresh.append(one)
            elif known != mine:
                self._reject(one.incoming, "uuid_conflict")
        self._events = fresh

    def rows(self) -> dict[str, list[Row]]:
        """Table → rows to append."""
        tables: dict[str, list[Row]] = {"event_rows": [one.row for one in self._events]}
        kept = {_where(one.incoming.record) for one in self._events}
        for audit in self._audits:
            if self._lay_down(audit, tables):
                kept.add(_where(audit.incoming.record))
        for content, record, row in self._quarantine:
            if content not in self._known_quarantine:
                self._known_quarantine.add(content)
                tables.setdefault("quarantine", []).append(row)
                kept.add(_where(record))
        tables["chain"] = [
            (*log, offset, when if (log.topic, log.partition, offset) in kept else None, *hashes)
            for log, offset, when, *hashes in self._chain
        ]
        return {table: rows for table, rows in tables.items() if rows}

    def _lay_down(self, one: _Audit, tables: dict[str, list[Row]]) -> bool:
        """False for a repeat. The same id with other bytes is kept for the chain's sake, and says nothing."""
        known = self._known_audits.setdefault(one.id, set())
        content = one.incoming.key, one.incoming.value_sha256
        if content in known:
            return False
        repeated = bool(known)
        known.add(content)
        coordinates = self._coordinates(one.incoming.record)
        tables.setdefault("records", []).append((*one.row, repeated, one.identity, *coordinates))
        if not repeated:
            for table, row in one.projected:
                tables.setdefault(table, []).append((*row, *coordinates))
        return True


def _where(record: LogRecord) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


def _find(con: DuckDBPyConnection, table: str, columns: str, identities: list[int]) -> list[Any]:
    """Rows of these identities. First the hash column alone, then, between the first and the last hit, what is needed to compare."""
    if not identities:
        return []
    hits = con.execute(
        f"SELECT rowid, identity FROM {table} WHERE identity IN (SELECT unnest(?::UBIGINT[]))",  # noqa: S608 - our own names
        [identities],
    ).fetchall()
    if not hits:
        return []
    rowids = [rowid for rowid, _ in hits]
    return con.execute(
        f"SELECT {columns} FROM {table} WHERE rowid BETWEEN ? AND ? AND identity IN (SELECT unnest(?::UBIGINT[]))",  # noqa: S608
        [min(rowids), max(rowids), list({one for _, one in hits})],
    ).fetchall()
