"""One chain of the trail, walked from its first record to its head: links recomputed, rows compared with what the links vouch for.

Windows of offsets keep memory flat: their size follows the size of the records.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from duckdb import DuckDBPyConnection

from audit.chain import GENESIS, Log, link, prefix
from audit.report import Head, VerifyReport
from audit.rows import BadRecord, Row, event_fields, identity, parse_record, place, project, tenant_of_event, tenant_of_record, text
from model.errors import MalformedEvent

#: Tables whose rows stand at a chained record's coordinates: these hold its bytes …
BYTES = ("event_rows", "quarantine", "records")
#: … and these are derived from `records`. (`quarantine` holds derived rows as well: those without bytes.)
DERIVED = ("classified_rows", "decision_rows", "action_rows", "incident_rows", "hold_rows", "notice_rows")

_FIRST, _LAST = -(2**63), 2**63 - 1
_WINDOW, _WINDOW_MIN, _WINDOW_MAX = 1024, 16, 4096
_WINDOW_BYTES = 64 << 20

_EVENT_COLUMNS = "raw, epoch_us(received), tenant, uuid, published, event_type, severity, outcome, actor_id, value_sha256, identity"
_QUARANTINE_COLUMNS = "raw, epoch_us(received), key, kind, tenant, reason, size, sha256"
_RECORD_COLUMNS = "value, epoch_us(received), key, id, kind, repeated, identity"


class _Link(NamedTuple):
    """What the chain says of one record. `received` in microseconds; None for a repeat, which has no row."""

    received: int | None
    key_sha256: bytes
    value_sha256: bytes


class Walk:
    """`tables` are those that hold rows of this log; `ordinal` numbers its incarnation; `tell` is called with the links of each window."""

    def __init__(
        self, con: DuckDBPyConnection, log: Log, tables: Iterable[str], ordinal: int, report: VerifyReport, tell: Callable[[int], None]
    ) -> None:
        self._con, self._log, self._tables = con, log, frozenset(tables)
        self._ordinal, self._report, self._tell = ordinal, report, tell
        self._prefix = prefix(log) if log.partition >= 0 else b""
        self._previous, self._end, self._length = GENESIS, -1, 0

    def run(self) -> None:
        """Raises Full."""
        low, size, last = _FIRST, _WINDOW, False
        while not last:
            links = self._ask(
                'SELECT "offset", epoch_us(received), key_sha256, value_sha256, hash FROM chain '
                'WHERE incarnation = ? AND topic = ? AND partition = ? AND "offset" >= ? ORDER BY "offset" LIMIT ?',
                low,
                size + 1,
            )
            last = len(links) <= size
            links = links if last else _whole_offsets(links)
            high = _LAST if last else links[-1][0]
            weight = self._compare(self._follow(links), low, high)
            self._tell(len(links))
            low, size = high + 1, _next_size(size, weight)
        self._check_head()

    def _ask(self, sql: str, *parameters: Any) -> list[Any]:
        return self._con.execute(sql, [*self._log, *parameters]).fetchall()

    def _broken(self, offset: int, what: str) -> None:
        self._report.broken(self._log.topic, self._log.partition, offset, what, self._log.incarnation)

    def _follow(self, links: list[Any]) -> dict[int, _Link]:
        """Recomputes the hashes. After a break it goes on from the stored hash, so that one edit is one break."""
        chained: dict[int, _Link] = {}
        for offset, received, key_sha256, value_sha256, stored in links:
            if offset in chained:
                self._broken(offset, "two chain rows for one record")
            elif offset < 0 or stored != link(self._previous, key_sha256, value_sha256, self._prefix, offset):
                self._broken(offset, "the chain does not hold: this row or the one before it was edited, deleted or added")
            chained[offset] = _Link(received, key_sha256, value_sha256)
            self._previous, self._end, self._length = stored, offset, self._length + 1
        return chained

    def _check_head(self) -> None:
        found = self._ask("SELECT next_offset, length, head FROM positions WHERE incarnation = ? AND topic = ? AND partition = ?")
        if not self._length:
            self._broken(-1, "its chain is missing")
        if found != [(self._end + 1, self._length, self._previous)]:
            what = f"the chain ends here after {self._length} records, positions says otherwise: its tail was cut, or that entry edited"
            self._broken(self._end, what)
        self._report.heads.append(Head(*self._log, self._end, self._length, self._previous.hex()))

    def _compare(self, chained: dict[int, _Link], low: int, high: int) -> int:
        """Compares one window's rows with its links. Returns how many bytes were read."""
        weight = 0
        explained: Counter[int] = Counter()
        expected: dict[str, Counter[tuple[int, Row]]] = defaultdict(Counter)
        for offset, raw, derived in self._byte_rows(chained, low, high):
            weight += len(raw)
            explained[offset] += 1
            for table, row in derived:
                expected[table][offset, _hashable(row)] += 1
        for offset, count in explained.items():
            if count > 1:
                self._broken(offset, "two rows for one record")
        for offset, one in chained.items():
            if one.received is not None and offset not in explained:
                self._broken(offset, "no row for this record: deleted")
        for table in ("quarantine", *DERIVED):
            self._compare_derived(table, expected[table], low, high)
        return weight

    def _window(self, table: str, columns: str, low: int, high: int, extra: str = "") -> list[Any]:
        if table not in self._tables:
            return []
        return self._ask(
            f'SELECT "offset", {columns} FROM {table} WHERE incarnation = ? AND topic = ? AND partition = ? '  # noqa: S608 - our own names
            f'AND "offset" BETWEEN ? AND ? {extra} ORDER BY "offset"',
            low,
            high,
        )

    def _byte_rows(self, chained: dict[int, _Link], low: int, high: int) -> Iterator[tuple[int, bytes, Iterable[tuple[str, Row]]]]:
        """(offset, bytes, rows that these bytes stand for) of each row that holds bytes, itself compared on the way."""
        for offset, raw, received, tenant, *columns in self._window("event_rows", _EVENT_COLUMNS, low, high):
            self._check_link(chained, offset, tenant.encode(), raw, received, "event")
            if columns != _event_columns(raw, tenant):
                self._broken(offset, "a column of this event says something else than its bytes")
            yield offset, raw, ()
        for offset, raw, received, key, *columns in self._window("quarantine", _QUARANTINE_COLUMNS, low, high, "AND raw IS NOT NULL"):
            self._check_link(chained, offset, key, raw, received, "quarantined record")
            if columns != _quarantine_columns(raw, key, columns[0]):
                self._broken(offset, "a column of this quarantined record says something else than its bytes")
            yield offset, raw, ()
        for offset, value, received, key, *columns in self._window("records", _RECORD_COLUMNS, low, high):
            self._check_link(chained, offset, key, value, received, "audit record")
            yield offset, value, self._derive(offset, value, columns)

    def _check_link(self, chained: dict[int, _Link], offset: int, key: bytes, raw: bytes, received: int, what: str) -> None:
        known = chained.get(offset)
        if known is None:
            self._broken(offset, f"this {what} is not in the chain: added, or its chain row deleted")
        elif known.value_sha256 != sha256(raw).digest():
            self._broken(offset, f"the bytes of this {what} were edited")
        elif known.key_sha256 != sha256(key).digest():
            self._broken(offset, f"the key or tenant of this {what} was edited")
        elif known.received != received:
            self._broken(offset, f"the receive time of this {what} was edited")

    def _derive(self, offset: int, value: bytes, columns: list[Any]) -> Iterable[tuple[str, Row]]:
        record_id, kind, repeated, record_identity = columns
        try:
            parsed = parse_record(value)
            rows = project(parsed, place(self._ordinal, max(offset, 0)))
        except BadRecord:
            self._broken(offset, "these bytes are no audit record")
            return ()
        if [record_id, kind, record_identity] != [text(parsed.id), parsed.kind, identity(text(parsed.id))]:
            self._broken(offset, "a column of this audit record says something else than its bytes")
        return () if repeated else rows

    def _compare_derived(self, table: str, expected: Counter[tuple[int, Row]], low: int, high: int) -> None:
        extra = "AND raw IS NULL" if table == "quarantine" else ""
        rows = self._window(table, '* EXCLUDE (incarnation, topic, partition, "offset")', low, high, extra)
        found = Counter((row[0], _hashable(row[1:])) for row in rows)
        if found == expected:
            return
        for offset, _ in found - expected:
            self._broken(offset, f"a row of {table} says something else than the record that it is derived from, or was added")
        for offset, _ in expected - found:
            self._broken(offset, f"a row of {table} is missing or was edited")


def _hashable(row: Iterable[Any]) -> Row:
    return tuple(tuple(value) if isinstance(value, list) else value for value in row)


def _event_columns(raw: bytes, tenant: str) -> list[Any] | None:
    try:
        fields = event_fields(raw)
    except MalformedEvent:
        return None
    return [*fields, sha256(raw).digest(), identity(tenant, fields.uuid)]


def _quarantine_columns(raw: bytes, key: bytes, kind: str) -> list[Any]:
    known = kind if kind in ("event", "audit") else None
    return [known, tenant_of_record(key, kind), _reason(raw, key, kind), len(raw), sha256(raw).hexdigest()]


def _reason(raw: bytes, key: bytes, kind: str) -> str | None:
    """Why these bytes must be in quarantine."""
    if kind == "event":
        try:
            event_fields(raw)
            tenant_of_event(key)
        except MalformedEvent as error:
            return error.reason
        return "uuid_conflict"
    try:
        project(parse_record(raw), 0)
    except BadRecord:
        return "bad_record"
    return None


def _whole_offsets(links: list[Any]) -> list[Any]:
    """Cuts a window of one row more than wanted so that rows of one offset stay together."""
    return [one for one in links if one[0] < links[-1][0]] or links


def _next_size(size: int, weight: int) -> int:
    if weight > _WINDOW_BYTES:
        return max(_WINDOW_MIN, size // 4)
    return min(_WINDOW_MAX, size * 2) if weight < _WINDOW_BYTES // 4 else size
