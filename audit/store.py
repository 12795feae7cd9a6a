"""The one writer of the audit file: a batch of records becomes rows, positions and chain links in one transaction.

What a kill leaves behind is therefore always a prefix of the log, and `positions()` says where it ends. Repeats are found without an index:
each event and each audit record carries 64 bits of its identity, a column that is scanned for a whole batch at once (3 ns a row), and only
hits are compared in full. Rejected: a primary key (0.5k rows/s, and index bugs in 2.0), an in-memory set (does not survive, grows without
end), UPDATEs of `events` when the classifier's word arrives (views join it instead).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb
from duckdb import DuckDBPyConnection

from audit.chain import GENESIS, Log, link, prefix
from audit.database import apply_schema, connect, explain, faults
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

_PRESSURE_TRIES = 5
_PRESSURE_PAUSE_S = 0.2


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


class _Head(NamedTuple):
    next_offset: int
    length: int
    hash: bytes


class AuditStore:
    """Owns the file. One thread at a time writes; readers take cursors of their own (`reader`). Take the lock (lock.py) before.

    `incarnation` names the present log (D9): another one than before starts at its beginning. Raises FaultError where the file cannot be
    used, ConfigurationError where it is of another version.
    """

    def __init__(self, path: Path, incarnation: str, *, memory_limit: str = "1GB") -> None:
        self.path, self.incarnation = path, incarnation
        self._writing = threading.Lock()
        self._broken: str | None = None
        self._readers: set[DuckDBPyConnection] = set()
        self._con = connect(path, memory_limit=memory_limit)
        try:
            apply_schema(self._con, path)
            with faults(path, "cannot read positions"):
                self.ordinal = self._enter_incarnation()
                self._heads = self._read_heads()
        except BaseException:
            self._con.close()
            raise
        self._prefixes: dict[Log, bytes] = {}

    def positions(self) -> dict[tuple[str, int], int]:
        """(topic, partition) → the next offset to read, in this incarnation. What is absent is read from its beginning."""
        return {(log.topic, log.partition): head.next_offset for log, head in self._heads.items()}

    def heads(self) -> dict[tuple[str, int], tuple[int, str]]:
        """(topic, partition) → (length of its chain, hash of its last record in hex), in this incarnation."""
        return {(log.topic, log.partition): (head.length, head.hash.hex()) for log, head in self._heads.items()}

    def write(self, batch: Batch) -> None:
        """All of it or nothing, durable on return. Blocking. Offsets of a partition must rise (gaps are fine); raises FaultError where they
        do not and for everything that DuckDB cannot do, after which the store refuses further writes: restart the process."""
        if not batch:
            return
        with self._writing:
            if self._broken:
                raise FaultError(f"{self.path}: {self._broken}")
            self._write_under_pressure(batch)

    def _write_under_pressure(self, batch: Batch) -> None:
        """Memory is shared with the readers, and the recorder yields to nobody: where it runs short, they are broken off."""
        for left in reversed(range(_PRESSURE_TRIES)):
            try:
                self._write(batch)
                return
            except duckdb.OutOfMemoryException as error:
                self._abandon()
                if not left:
                    raise self._fault(error) from error
                self.interrupt_readers()
                threading.Event().wait(_PRESSURE_PAUSE_S)
            except (duckdb.Error, MemoryError) as error:
                self._abandon()
                raise self._fault(error) from error
            except BaseException:
                self._abandon()
                raise

    def _fault(self, error: BaseException) -> FaultError:
        self._broken = f"cannot write: {explain(error)}"
        return FaultError(f"{self.path}: {self._broken}")

    def _abandon(self) -> None:
        with suppress(duckdb.Error):
            self._con.rollback()

    def _write(self, batch: Batch) -> None:
        work = _Work(self, batch)
        self._con.begin()
        work.find_repeats(self._con)
        for table, rows in work.rows().items():
            appender = self._con.appender(table)
            appender.append_rows(rows)
            appender.flush()
        self._store_heads(work.heads)
        self._con.commit()
        self._heads.update(work.heads)

    def _store_heads(self, heads: dict[Log, _Head]) -> None:
        for log, head in heads.items():
            if log in self._heads:
                self._con.execute(
                    "UPDATE positions SET next_offset = ?, length = ?, head = ? WHERE incarnation = ? AND topic = ? AND partition = ?",
                    [*head, *log],
                )
            else:
                self._con.execute("INSERT INTO positions VALUES (?, ?, ?, ?, ?, ?)", [*log, *head])

    def _enter_incarnation(self) -> int:
        row = self._con.execute("SELECT ordinal FROM incarnations WHERE incarnation = ?", [self.incarnation]).fetchone()
        if row is None:
            row = self._con.execute(
                "INSERT INTO incarnations SELECT coalesce(max(ordinal), 0) + 1, ? FROM incarnations RETURNING ordinal", [self.incarnation]
            ).fetchone()
        assert row is not None
        return int(row[0])

    def _read_heads(self) -> dict[Log, _Head]:
        found = self._con.execute(
            "SELECT topic, partition, next_offset, length, head FROM positions WHERE incarnation = ?", [self.incarnation]
        ).fetchall()
        return {Log(self.incarnation, topic, partition): _Head(*rest) for topic, partition, *rest in found}

    def log_prefix(self, log: Log) -> bytes:
        known = self._prefixes.get(log)
        if known is None:
            known = self._prefixes[log] = prefix(log)
        return known

    @contextmanager
    def reader(self) -> Iterator[DuckDBPyConnection]:
        """A connection of its own on the same file, for one question in one thread."""
        with faults(self.path, "cannot open a cursor"):
            cursor = self._con.cursor()
        self._readers.add(cursor)
        try:
            yield cursor
        finally:
            self._readers.discard(cursor)
            cursor.close()

    def interrupt_readers(self) -> None:
        for cursor in list(self._readers):
            with suppress(duckdb.Error):
                cursor.interrupt()

    def close(self) -> None:
        """Breaks off readers, waits for a write under way, checkpoints and closes the file. Raises FaultError (committed rows are safe)."""
        self.interrupt_readers()
        with self._writing:
            self._broken = "closed"
            with faults(self.path, "cannot be closed cleanly"):
                self._con.close()

    def __enter__(self) -> AuditStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


class _Work:
    """One batch on its way: chain links and rows are computed first, repeats are looked up once, then everything is laid down."""

    def __init__(self, store: AuditStore, batch: Batch) -> None:
        self.heads: dict[Log, _Head] = {}
        self._store = store
        self._chain: list[Row] = []
        self._events: list[_Event] = []
        self._audits: list[_Audit] = []
        self._quarantine: list[tuple[tuple[str, bytes, str], Row]] = []
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
        store = self._store
        log = Log(store.incarnation, record.topic, record.partition)
        head = self.heads.get(log) or store._heads.get(log) or _Head(0, 0, GENESIS)
        if record.offset < head.next_offset:
            raise store._fault(
                FaultError(f"{record.topic}/{record.partition} went backwards: offset {record.offset} after {head.next_offset - 1}")
            )
        key_sha256 = sha256(key).digest()
        new = link(head.hash, key_sha256, value_sha256, store.log_prefix(log), record.offset)
        self.heads[log] = _Head(record.offset + 1, head.length + 1, new)
        self._chain.append((*log, record.offset, when, key_sha256, value_sha256, new))

    def _coordinates(self, record: LogRecord) -> Row:
        return self._store.incarnation, record.topic, record.partition, record.offset

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
        projected = project(parsed, place(self._store.ordinal, record.offset))
        row = (one.key, record.value, one.received, text(parsed.id), parsed.kind)
        self._audits.append(_Audit(one, row[3], identity(row[3]), row, projected))

    def _reject(self, one: _Incoming, reason: str) -> None:
        record, digest = one.record, one.value_sha256.hex()
        tenant = tenant_of_record(one.key, record.kind)
        row = (tenant, reason, record.value, len(record.value), digest, one.received, one.key, *self._coordinates(record))
        self._quarantine.append(((record.topic, one.key, digest), row))

    def find_repeats(self, con: DuckDBPyConnection) -> None:
        """What of this batch the file holds already."""
        for row in _find(con, "event_rows", "tenant, uuid, value_sha256", [one.identity for one in self._events]):
            self._known_events[row[0], row[1]] = row[2]
        for row in _find(con, "records", "id, key, value", [one.identity for one in self._audits]):
            self._known_audits.setdefault(row[0], set()).add((row[1], sha256(row[2]).digest()))
        self._settle_events()
        if self._quarantine:
            digests = [digest for (_, _, digest), _ in self._quarantine]
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
        tables: dict[str, list[Row]] = {"chain": self._chain}
        if self._events:
            tables["event_rows"] = [one.row for one in self._events]
        for one in self._audits:
            self._lay_down(one, tables)
        for content, row in self._quarantine:
            if content not in self._known_quarantine:
                self._known_quarantine.add(content)
                tables.setdefault("quarantine", []).append(row)
        return tables

    def _lay_down(self, one: _Audit, tables: dict[str, list[Row]]) -> None:
        known = self._known_audits.setdefault(one.id, set())
        content = one.incoming.key, one.incoming.value_sha256
        if content in known:
            return
        repeated = bool(known)
        known.add(content)
        coordinates = self._coordinates(one.incoming.record)
        tables.setdefault("records", []).append((*one.row, repeated, one.identity, *coordinates))
        if not repeated:
            for table, row in one.projected:
                tables.setdefault(table, []).append((*row, *coordinates))


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
