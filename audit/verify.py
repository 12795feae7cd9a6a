"""Proof that the trail is whole: recomputes every chain and compares every row with the bytes that the chain vouches for.

Every chained record must be explained by exactly one of: an event, a quarantined record, an audit record, or a repeat (the same key and
bytes stand, explained, at an earlier place of the same topic). Every row must be chained, and must say what its bytes say: the columns of
`event_rows` and all rows derived from audit records are derived again (rows.py) and compared; views must be defined as in schema.sql. So an
edit, a deletion, a swap, a duplicate or an addition shows wherever it is made. A tail cut off the chain shows against `positions`; one cut
off both, or an old copy of the file put back, shows only against a head noted elsewhere: that is what `heads` is for.

Runs in one read-only snapshot, so it may run while the recorder writes. Receive times are not hashed (D26: a rebuild must give the same
heads); chain and row hold one each, so changing one of them shows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from audit.chain import Log
from audit.database import SCHEMA_VERSION, apply_schema, check_version, connect, explain
from audit.report import Break, Full, Head, VerifyReport
from audit.walk import BYTES, DERIVED, Walk
from model.errors import FaultError

__all__ = ["Break", "Head", "Progress", "VerifyReport", "verify"]

Progress = Callable[[int, int], None]

_NOWHERE = Log("", "", -1)


def verify(
    source: Path | DuckDBPyConnection, *, progress: Progress | None = None, memory_limit: str = "1GB", inside: bool = False
) -> VerifyReport:
    """`source` is the file (take the lock first, as client.py does) or a connection of its own on an open one; with `inside`, one that has a
    transaction open, whose state is then verified. `progress(done, all)` counts chained records. Raises FaultError where the file cannot be
    read, ConfigurationError where it is no audit file of this version."""
    if isinstance(source, Path):
        con = connect(source, memory_limit=memory_limit, read_only=True)
        try:
            check_version(con, source)
            return verify(con, progress=progress)
        finally:
            con.close()
    try:
        with nullcontext() if inside else _snapshot(source):
            return _Verification(source, progress or (lambda done, total: None)).run()
    except duckdb.Error as error:
        raise FaultError(f"the audit file cannot be verified: {explain(error)}") from error


@contextmanager
def _snapshot(con: DuckDBPyConnection) -> Iterator[None]:
    """One state of the file for all queries."""
    con.execute("BEGIN TRANSACTION READ ONLY")
    try:
        yield
    finally:
        con.execute("ROLLBACK")


class _Verification:
    def __init__(self, con: DuckDBPyConnection, progress: Progress) -> None:
        self._con, self._progress = con, progress
        self._report = VerifyReport()
        self._done, self._all = 0, 0

    def run(self) -> VerifyReport:
        try:
            self._check_definitions()
            ordinals = self._ordinals()
            for log, tables in sorted(self._logs().items()):
                if log.incarnation not in ordinals:
                    self._broken(log, -1, "its incarnation is not in the table incarnations")
                Walk(self._con, log, tables, ordinals.get(log.incarnation, 0), self._report, self._tell).run()
            self._check_repeats()
            self._check_twins()
        except Full:
            self._report.complete = False
        return self._report

    def _tell(self, links: int) -> None:
        self._done += links
        self._progress(self._done, self._all)

    def _broken(self, log: Log, offset: int, what: str) -> None:
        self._report.broken(log.topic, log.partition, offset, what, log.incarnation)

    def _ask(self, sql: str) -> list[Any]:
        return self._con.execute(sql).fetchall()

    def _check_definitions(self) -> None:
        """Views may have been replaced by others that hide rows."""
        for kind, name, _ in sorted(_expected_definitions() - _definitions(self._con)):
            self._broken(_NOWHERE, -1, f"the {kind} {name} is not defined as in schema.sql")
        if self._ask("FROM meta") != [("schema", SCHEMA_VERSION)]:
            self._broken(_NOWHERE, -1, "the table meta was edited")

    def _ordinals(self) -> dict[str, int]:
        found = self._ask("SELECT incarnation, ordinal FROM incarnations ORDER BY ordinal")
        ordinals = dict(found)
        if len(ordinals) != len(found) or [ordinal for _, ordinal in found] != list(range(1, len(found) + 1)):
            self._broken(_NOWHERE, -1, "incarnations are not numbered 1, 2, 3 …")
        return ordinals

    def _logs(self) -> dict[Log, set[str]]:
        """Every log that some table speaks of → those tables."""
        logs: dict[Log, set[str]] = defaultdict(set)
        totals: Counter[str] = Counter()
        counts = (
            f"SELECT '{table}', incarnation, topic, partition, count(*) FROM {table} GROUP BY ALL"  # noqa: S608 - our own names
            for table in ("chain", "positions", *BYTES, *DERIVED)
        )
        for table, *coordinates, count in self._ask(" UNION ALL ".join(counts)):
            logs[Log(*coordinates)].add(table)
            totals[table] += count
        self._all = totals["chain"]
        self._report.counts = {name: totals[name] for name in ("chain", *BYTES, *DERIVED)}
        return logs

    def _check_repeats(self) -> None:
        self._report.counts["repeats"] = self._ask("SELECT count(*) FROM chain WHERE received IS NULL")[0][0]
        if self._report.counts["repeats"]:
            for *log, offset in self._ask(_UNVOUCHED):
                self._broken(Log(*log), offset, "no row for this record, and no earlier one with the same key and bytes")

    def _check_twins(self) -> None:
        for what, sql in _TWINS.items():
            for *log, offset in self._ask(sql):
                self._broken(Log(*log), offset, what)


#: Repeats (no receive time, no row: walk.py holds these two together) without an earlier record of the same content that has its row.
#: Between partitions (a rebuilt cluster may spread keys anew) only the incarnation says what was earlier.
_UNVOUCHED = """
    WITH placed AS (SELECT chain.*, ordinal FROM chain LEFT JOIN incarnations USING (incarnation))
    SELECT r.incarnation, r.topic, r.partition, r."offset" FROM placed r
    LEFT JOIN (FROM placed WHERE received IS NOT NULL) v
        ON v.topic = r.topic AND v.key_sha256 = r.key_sha256 AND v.value_sha256 = r.value_sha256
    WHERE r.received IS NULL GROUP BY ALL
    HAVING NOT coalesce(bool_or(
        v.ordinal < r.ordinal OR (v.ordinal = r.ordinal AND (v.partition <> r.partition OR v."offset" < r."offset"))
    ), false)
    ORDER BY ALL LIMIT 1000
"""

#: What may be there once only.
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
        WHERE id IN (SELECT id FROM records WHERE repeated) GROUP BY id, topic, key, value HAVING count(*) > 1""",
}


def _definitions(con: DuckDBPyConnection) -> set[tuple[str, str, str]]:
    ours = "NOT internal AND schema_name = 'main' AND database_name = current_database()"
    found = con.execute(
        f"SELECT 'view', view_name, sql FROM duckdb_views() WHERE {ours} "  # noqa: S608 - our own words
        f"UNION ALL SELECT 'table', table_name, sql FROM duckdb_tables() WHERE {ours}"
    )
    return set(found.fetchall())


@cache
def _expected_definitions() -> frozenset[tuple[str, str, str]]:
    con = duckdb.connect()
    try:
        apply_schema(con, Path(":memory:"))
        return frozenset(_definitions(con))
    finally:
        con.close()
