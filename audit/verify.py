"""Proof that the trail is whole: recomputes every chain and compares every row with the bytes that the chain vouches for.

Every chained record must be explained by exactly one of: an event, a quarantined event, an audit record, or a repeat (the same key and bytes
stand, explained, elsewhere in the same topic). Every row must be chained, and must say what its bytes say: the columns of `event_rows` and
all rows derived from audit records are derived again (rows.py) and compared. So an edit, a deletion, a swap, a duplicate, or an addition
shows wherever it is made. A tail cut off the chain shows against `positions`; one cut off both, or an old copy of the file put back, shows
only against a head noted elsewhere: that is what `heads` is for.

Flat memory: chains are walked in windows of offsets whose size follows the size of the records. Runs in one read-only snapshot, so it
may run while the recorder writes. Receive times are not hashed (D26); chain and row hold one each, so changing one shows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from audit.chain import GENESIS, Log, link, prefix
from audit.database import apply_schema, check_version, connect, explain
from audit.rows import BadRecord, Row, event_fields, identity, parse_record, place, project, tenant_of_event, tenant_of_record, text
from model.errors import FaultError, MalformedEvent

#: Tables whose rows stand at a chained record's coordinates. The first three hold bytes, the others are derived from `records`.
_BYTES = ("event_rows", "quarantine", "records")
_DERIVED = ("classified_rows", "decision_rows", "action_rows", "incident_rows", "hold_rows", "notice_rows")
_COORDINATES = 'incarnation = ? AND topic = ? AND partition = ? AND "offset" BETWEEN ? AND ?'

_FIRST, _LAST = -(2**63), 2**63 - 1
_WINDOW, _WINDOW_MIN, _WINDOW_MAX = 1024, 16, 4096
_WINDOW_BYTES = 64 << 20
_MOST_BREAKS = 1000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Break:
    """One place where the trail is not whole. `partition` and `offset` are -1 where the damage belongs to no record."""

    topic: str
    partition: int
    offset: int
    what: str
    incarnation: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "what": self.what,
            "incarnation": self.incarnation,
        }


@dataclass(frozen=True, slots=True)
class Head:
    """The end of one chain: note it elsewhere, and a cut tail or an old copy shows."""

    incarnation: str
    topic: str
    partition: int
    offset: int
    length: int
    hash: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "incarnation": self.incarnation,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "length": self.length,
            "hash": self.hash,
        }


@dataclass(slots=True)
class VerifyReport:
    """`counts`: rows looked at, by table, and `repeats`. After a thousand breaks the search ends (`complete` is then False)."""

    heads: list[Head] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    complete: bool = True

    @property
    def ok(self) -> bool:
        return not self.breaks

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "heads": [one.as_dict() for one in self.heads],
            "breaks": [one.as_dict() for one in self.breaks],
            "counts": self.counts,
            "complete": self.complete,
        }

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> VerifyReport:
        return cls(
            heads=[Head(**one) for one in told["heads"]],
            breaks=[Break(**one) for one in told["breaks"]],
            counts=told["counts"],
            complete=told["complete"],
        )


def verify(source: Path | DuckDBPyConnection, *, progress: Progress | None = None, memory_limit: str = "1GB") -> VerifyReport:
    """`source` is the file (take the lock first: client.py does) or a connection of its own on an open one. `progress(done, all)` counts
    chained records. Raises FaultError where the file cannot be read, ConfigurationError where it is no audit file of this version."""
    if isinstance(source, Path):
        con = connect(source, memory_limit=memory_limit, read_only=True)
        try:
            check_version(con, source)
            return verify(con, progress=progress)
        finally:
            con.close()
    try:
        with _snapshot(source):
            return _Verifier(source, progress or (lambda done, total: None)).run()
    except duckdb.Error as error:
        raise FaultError(f"the audit file cannot be verified: {explain(error)}") from error


@contextmanager
def _snapshot(con: DuckDBPyConnection) -> Iterator[None]:
    """One state of the file for all queries; joins a transaction that is already open."""
    try:
        con.execute("BEGIN TRANSACTION READ ONLY")
    except duckdb.TransactionException:
        yield
        return
    try:
        yield
    finally:
        con.rollback()


class _Enough(Exception):
    """The report is full."""


class _Verifier:
    def __init__(self, con: DuckDBPyConnection, progress: Progress) -> None:
        self._con, self._progress = con, progress
        self.report = VerifyReport()
        self._done, self._all = 0, 0
        self._log = Log("", "", -1)

    def run(self) -> VerifyReport:
        try:
            self._check_definitions()
            ordinals = self._ordinals()
            for log, tables in sorted(self._logs().items()):
                self._log = log
                self._walk(tables, ordinals.get(log.incarnation, 0))
            self._check_repeats()
            self._check_twins()
        except _Enough:
            self.report.complete = False
        return self.report

    def _broken(self, offset: int, what: str, log: Log | None = None) -> None:
        at = log or self._log
        self.report.breaks.append(Break(at.topic, at.partition, offset, what, at.incarnation))
        if len(self.report.breaks) >= _MOST_BREAKS:
            raise _Enough

    def _ask(self, sql: str, *parameters: Any) -> list[Any]:
        return self._con.execute(sql, list(parameters)).fetchall()

    # --- what belongs to no single record ---------------------------------------------------------------------------

    def _check_definitions(self) -> None:
        """Views may have been replaced by others that hide rows."""
        nowhere = Log("", "", -1)
        for kind, name, sql in sorted(_expected_definitions() - _definitions(self._con)):
            self._broken(-1, f"the {kind} {name} is not defined as it should be: {' '.join(sql.split())[:60]}…", nowhere)

    def _ordinals(self) -> dict[str, int]:
        found = self._ask("SELECT incarnation, ordinal FROM incarnations ORDER BY ordinal")
        ordinals = dict(found)
        if len(ordinals) != len(found) or [ordinal for _, ordinal in found] != list(range(1, len(found) + 1)):
            self._broken(-1, "incarnations are not numbered 1, 2, 3 …", Log("", "", -1))
        return ordinals

    def _logs(self) -> dict[Log, dict[str, int]]:
        """Every log that any table speaks of → rows by table."""
        logs: dict[Log, dict[str, int]] = defaultdict(dict)
        totals: Counter[str] = Counter()
        for table in ("chain", "positions", *_BYTES, *_DERIVED):
            for incarnation, topic, partition, count in self._ask(
                f"SELECT incarnation, topic, partition, count(*) FROM {table} GROUP BY ALL"  # noqa: S608 - our own names
            ):
                logs[Log(incarnation or "", topic or "", -1 if partition is None else partition)][table] = count
                totals[table] += count
        self._all = totals["chain"]
        self.report.counts = {name: totals[name] for name in ("chain", *_BYTES, *_DERIVED)}
        return logs

    def _check_repeats(self) -> None:
        """A chained record without a row of its own is a repeat: the same key and bytes must stand with a row in the same topic."""
        explained = " UNION ALL ".join(
            f'SELECT incarnation, topic, partition, "offset" FROM {table}'  # noqa: S608
            + (" WHERE raw IS NOT NULL" if table == "quarantine" else "")
            for table in _BYTES
        )
        common = f"""
            WITH explained AS ({explained}),
            bare AS (SELECT * FROM chain ANTI JOIN explained USING (incarnation, topic, partition, "offset"))
        """  # noqa: S608
        (count,) = self._ask(f"{common} SELECT count(*) FROM bare")[0]  # noqa: S608
        self.report.counts["repeats"] = count
        if not count:
            return
        for incarnation, topic, partition, offset in self._ask(
            f"""{common}, vouched AS (
                SELECT DISTINCT topic, key_sha256, value_sha256 FROM chain SEMI JOIN explained USING (incarnation, topic, partition, "offset")
            )
            SELECT incarnation, topic, partition, "offset" FROM bare ANTI JOIN vouched USING (topic, key_sha256, value_sha256)
            ORDER BY ALL LIMIT {_MOST_BREAKS}"""  # noqa: S608
        ):
            self._broken(offset, "no row for this record: deleted", Log(incarnation, topic, partition))

    def _check_twins(self) -> None:
        """What must be there once only: an event by (tenant, uuid), quarantined bytes, an audit record's first appearance."""
        for what, sql in _TWINS.items():
            for incarnation, topic, partition, offset in self._ask(sql):
                self._broken(offset, what, Log(incarnation, topic, partition))

    # --- one chain ----------------------------------------------------------------------------------------------------

    def _walk(self, tables: dict[str, int], ordinal: int) -> None:
        if not ordinal:
            self._broken(-1, "its incarnation is not in the table incarnations")
        log_prefix = prefix(self._log) if self._log.partition >= 0 else b""
        previous, offset, length, size = GENESIS, None, 0, _WINDOW
        low = _FIRST
        while True:
            links = self._ask(
                'SELECT "offset", epoch_ms(received), key_sha256, value_sha256, hash FROM chain '
                f'WHERE incarnation = ? AND topic = ? AND partition = ? AND "offset" >= ? ORDER BY "offset" LIMIT {size + 1}',
                *self._log,
                low,
            )
            last = len(links) <= size
            links = links[:size] if last else _whole_offsets(links)
            high = _LAST if last else links[-1][0]
            chained: dict[int, Row] = {}
            for at, when, key_sha256, value_sha256, stored in links:
                if at in chained:
                    self._broken(at, "two chain rows for one record")
                elif at < 0 or stored != link(previous, key_sha256, value_sha256, log_prefix, at):
                    self._broken(at, "the chain does not hold: this row or the one before it was edited, deleted or added")
                chained[at] = (when, key_sha256, value_sha256)
                previous, offset, length = stored, at, length + 1
            weight = self._compare(chained, low, high, tables, ordinal)
            self._done += len(links)
            self._progress(self._done, self._all)
            if last:
                break
            low = high + 1
            size = _next_size(size, weight)
        self._check_head(offset, length, previous)

    def _check_head(self, offset: int | None, length: int, head: bytes) -> None:
        found = self._ask(
            "SELECT next_offset, length, head FROM positions WHERE incarnation = ? AND topic = ? AND partition = ?", *self._log
        )
        end = -1 if offset is None else offset
        if offset is None:
            self._broken(-1, "its whole chain is missing")
        if found != [(end + 1, length, head)]:
            self._broken(
                end, f"the chain ends here after {length} records, `positions` says otherwise: the tail was cut, or its entry edited"
            )
        self.report.heads.append(Head(*self._log, end, length, head.hex()))

    def _compare(self, chained: dict[int, Row], low: int, high: int, tables: dict[str, int], ordinal: int) -> int:
        """Compares one window's rows with the chain. Returns the bytes that were read."""
        weight, bytes_at = 0, Counter[int]()
        expected: dict[str, Counter[tuple[int, Row]]] = defaultdict(Counter)
        for offset, raw, derived in self._byte_rows(chained, low, high, tables, ordinal):
            weight += len(raw)
            bytes_at[offset] += 1
            for table, row in derived:
                expected[table][offset, _hashable(row)] += 1
        for offset, count in bytes_at.items():
            if count > 1:
                self._broken(offset, "two rows for one record")
        for table in ("quarantine", *_DERIVED):
            if table in tables:
                self._compare_derived(table, expected[table], low, high)
        return weight

    def _window(self, table: str, columns: str, low: int, high: int, extra: str = "") -> list[Any]:
        return self._ask(
            f'SELECT "offset", {columns} FROM {table} WHERE {_COORDINATES} {extra} ORDER BY "offset"',  # noqa: S608 - our own names
            *self._log,
            low,
            high,
        )

    def _byte_rows(
        self, chained: dict[int, Row], low: int, high: int, tables: dict[str, int], ordinal: int
    ) -> Iterator[tuple[int, bytes, Iterable[tuple[str, Row]]]]:
        """(offset, bytes, rows that these bytes stand for) of each row that holds bytes, itself compared on the way."""
        if "event_rows" in tables:
            for offset, raw, *columns in self._window("event_rows", f"raw, {_EVENT_COLUMNS}", low, high):
                self._against_chain(chained, offset, _key_of_tenant(columns[0]), raw, columns[2], "event")
                if columns[1:2] + columns[3:] != _event_columns(raw, columns[0]):
                    self._broken(offset, "a column of this event says something else than its bytes")
                yield offset, raw, ()
        if "quarantine" in tables:
            for offset, raw, *columns in self._window("quarantine", f"raw, {_QUARANTINE_COLUMNS}", low, high, "AND raw IS NOT NULL"):
                self._against_chain(chained, offset, columns[0], raw, columns[1], "quarantined record")
                self._check_quarantine(offset, raw, *columns)
                yield offset, raw, ()
        if "records" in tables:
            for offset, value, *columns in self._window("records", f"value, {_RECORD_COLUMNS}", low, high):
                self._against_chain(chained, offset, columns[0], value, columns[1], "audit record")
                yield offset, value, self._derive(offset, value, columns, ordinal)

    def _against_chain(self, chained: dict[int, Row], offset: int, key: bytes, raw: bytes, when: int, what: str) -> None:
        known = chained.get(offset)
        if known is None:
            self._broken(offset, f"this {what} is not in the chain: added, or its chain row deleted")
        elif known[2] != sha256(raw).digest():
            self._broken(offset, f"the bytes of this {what} were edited")
        elif known[1] != sha256(key).digest():
            self._broken(offset, f"the key or tenant of this {what} was edited")
        elif known[0] != when:
            self._broken(offset, f"the receive time of this {what} was edited")

    def _check_quarantine(self, offset: int, raw: bytes, key: bytes, _when: int, tenant: str, reason: str, size: int, digest: str) -> None:
        if size != len(raw) or digest != sha256(raw).hexdigest() or reason not in _reasons(raw, key):
            self._broken(offset, "a column of this quarantined record says something else than its bytes")
        if tenant not in (tenant_of_record(key, "event"), tenant_of_record(key, "audit")):
            self._broken(offset, "the tenant of this quarantined record was edited")

    def _derive(self, offset: int, value: bytes, columns: list[Any], ordinal: int) -> Iterable[tuple[str, Row]]:
        _key, _when, record_id, kind, repeated, record_identity = columns
        try:
            parsed = parse_record(value)
            rows = project(parsed, place(ordinal, max(offset, 0)))
        except BadRecord:
            self._broken(offset, "these bytes are no audit record")
            return ()
        if [record_id, kind, record_identity] != [text(parsed.id), parsed.kind, identity(text(parsed.id))]:
            self._broken(offset, "a column of this audit record says something else than its bytes")
        return () if repeated else rows

    def _compare_derived(self, table: str, expected: Counter[tuple[int, Row]], low: int, high: int) -> None:
        columns, extra = ('* EXCLUDE (incarnation, topic, partition, "offset")', "AND raw IS NULL" if table == "quarantine" else "")
        found = Counter((row[0], _hashable(row[1:])) for row in self._window(table, columns, low, high, extra))
        for offset, _ in (found - expected) or ():
            self._broken(offset, f"a row of {table} says something else than the record it is derived from, or was added")
        for offset, _ in (expected - found) or ():
            self._broken(offset, f"a row of {table} is missing or was edited")


_EVENT_COLUMNS = "tenant, uuid, epoch_ms(received), published, event_type, severity, outcome, actor_id, value_sha256, identity"
_QUARANTINE_COLUMNS = "key, epoch_ms(received), tenant, reason, size, sha256"
_RECORD_COLUMNS = "key, epoch_ms(received), id, kind, repeated, identity"


def _hashable(row: Iterable[Any]) -> Row:
    return tuple(tuple(value) if isinstance(value, list) else value for value in row)


def _key_of_tenant(tenant: str) -> bytes:
    return tenant.encode()


def _event_columns(raw: bytes, tenant: str) -> list[Any] | None:
    try:
        fields = event_fields(raw)
    except MalformedEvent:
        return None
    return [*fields, sha256(raw).digest(), identity(tenant, fields.uuid)]


def _reasons(raw: bytes, key: bytes) -> set[str]:
    """Why these bytes may be in quarantine: as an event or as an audit record (which topic they came on is not known here)."""
    reasons = set()
    try:
        event_fields(raw)
        tenant_of_event(key)
        reasons.add("uuid_conflict")
    except MalformedEvent as error:
        reasons.add(error.reason)
    try:
        project(parse_record(raw), 0)
    except BadRecord:
        reasons.add("bad_record")
    return reasons


def _whole_offsets(links: list[Any]) -> list[Any]:
    """Cuts a window of one row more than wanted so that rows of one offset stay together."""
    over = links[-1][0]
    kept = [one for one in links if one[0] < over]
    return kept or links


def _next_size(size: int, weight: int) -> int:
    if weight > _WINDOW_BYTES:
        return max(_WINDOW_MIN, size // 4)
    return min(_WINDOW_MAX, size * 2) if weight < _WINDOW_BYTES // 4 else size


_TWINS = {
    "a second row for this event": """
        SELECT incarnation, topic, partition, "offset" FROM event_rows
        WHERE identity IN (SELECT identity FROM event_rows GROUP BY identity HAVING count(*) > 1)
        QUALIFY row_number() OVER (PARTITION BY tenant, uuid ORDER BY received, "offset") > 1""",
    "a second quarantined row for these bytes": """
        SELECT incarnation, topic, partition, "offset" FROM quarantine WHERE raw IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY topic, key, sha256 ORDER BY received, "offset") > 1""",
    "an audit record's first appearance is marked as a repeat, or a repeat as the first": """
        SELECT any_value(incarnation), any_value(topic), any_value(partition), min("offset") FROM records
        GROUP BY id HAVING count(*) FILTER (WHERE NOT repeated) <> 1""",
    "a second row for this audit record": """
        SELECT any_value(incarnation), any_value(topic), any_value(partition), max("offset") FROM records
        GROUP BY id, topic, key, value HAVING count(*) > 1""",
}


def _definitions(con: DuckDBPyConnection) -> set[tuple[str, str, str]]:
    found = con.execute(
        "SELECT 'view', view_name, sql FROM duckdb_views() WHERE NOT internal AND schema_name = 'main' AND database_name = current_database() "
        "UNION ALL SELECT 'table', table_name, sql FROM duckdb_tables() WHERE NOT internal AND schema_name = 'main' "
        "AND database_name = current_database()"
    ).fetchall()
    return set(found)


@cache
def _expected_definitions() -> frozenset[tuple[str, str, str]]:
    con = duckdb.connect()
    try:
        apply_schema(con, Path(":memory:"))
        return frozenset(_definitions(con))
    finally:
        con.close()
