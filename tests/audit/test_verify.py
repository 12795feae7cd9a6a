"""Faults 50 and A3: whatever is edited, deleted, swapped, doubled, added or cut shows, at the place where it was done."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from duckdb import DuckDBPyConnection

from audit import walk
from audit.report import MOST_BREAKS
from audit.store import AuditStore
from audit.verify import VerifyReport, verify
from model.errors import ConfigurationError, FaultError
from tests.audit.trail import AUDIT, SOURCE, Log, day, event, fill

TABLES = ("chain", "event_rows", "quarantine", "records", "classified_rows", "decision_rows", "action_rows", "incident_rows", "hold_rows")
STATE = ("notice_rows", "positions", "incarnations", "meta")
EDITS, PARTS = 1000, 8


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with two incarnations: the second is fed the first one's records again, and one more event."""
    path = tmp_path_factory.mktemp("trail") / "audit.duckdb"
    fill(path, day(), "one")
    log = Log()
    for one in day():
        if one.partition == 0:
            log.records.append(one)
    fill(path, [*log.records, log.records[0]._replace(offset=10_000, value=event("u-late"))], "two")
    return path


@pytest.fixture(scope="module")
def con(trail: Path) -> Iterator[DuckDBPyConnection]:
    with duckdb.connect(str(trail)) as opened:
        opened.execute("SET TimeZone = 'UTC'")
        yield opened


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBPyConnection]:
    """A smaller trail with the same kinds of rows, for many edits."""
    path = tmp_path_factory.mktemp("victim") / "audit.duckdb"
    records = [one for one in day() if one.partition == 0]
    fill(path, records, "one")
    fill(path, [one for one in records if one.topic == SOURCE and one.offset < 8], "two")
    with duckdb.connect(str(path), config={"threads": 1}) as opened:
        opened.execute("SET TimeZone = 'UTC'")
        opened.execute("PRAGMA disable_optimizer")  # it costs more than a few dozen rows are worth
        yield opened


@pytest.fixture
def tampered(con: DuckDBPyConnection) -> Iterator[Callable[..., VerifyReport]]:
    """Runs SQL as somebody with the file in hand would, and verifies; all is undone after the test."""
    con.execute("BEGIN")

    def tamper(*statements: str) -> VerifyReport:
        for statement in statements:
            con.execute(statement)
        return verify(con, inside=True)

    yield tamper
    con.execute("ROLLBACK")


def places(report: VerifyReport) -> set[tuple[str, int, int]]:
    return {(one.topic, one.partition, one.offset) for one in report.breaks}


def test_an_honest_trail_is_whole(con: DuckDBPyConnection) -> None:
    told: list[tuple[int, int]] = []
    report = verify(con, progress=lambda done, total: told.append((done, total)))
    assert report.ok
    assert report.complete
    assert report.counts["chain"] == told[-1][0] == told[-1][1]
    assert report.counts["event_rows"] == 27
    assert report.counts["repeats"] > 40
    assert {(head.incarnation, head.topic, head.partition) for head in report.heads} == {
        *(("one", topic, partition) for topic in (SOURCE, AUDIT) for partition in (0, 1)),
        ("two", SOURCE, 0),
        ("two", AUDIT, 0),
    }
    assert VerifyReport.from_dict(report.as_dict()) == report


def test_heads_are_those_of_the_store(trail: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.duckdb"
    shutil.copy(trail, copy)
    with AuditStore(copy, "one") as store, store.reader() as cursor:
        mine = {(head.topic, head.partition): (head.length, head.hash) for head in verify(cursor).heads if head.incarnation == "one"}
        assert mine == store.heads()


# --- each kind of damage once, with its place --------------------------------------------------------------------------------

AT_LEAVE = """ "offset" = (SELECT "offset" FROM event_rows WHERE uuid = 'u-leave') AND topic = 'okta.system-log' AND incarnation = 'one' """

DAMAGE = {
    "a byte of an event": (
        "UPDATE event_rows SET raw = replace(raw::VARCHAR, 'SUCCESS', 'FAILURE')::BLOB WHERE uuid = 'u-leave'",
        "bytes of this event were edited",
    ),
    "an event's column": ("UPDATE event_rows SET event_type = 'user.session.end' WHERE uuid = 'u-leave'", "says something else"),
    "an event's tenant": ("UPDATE event_rows SET tenant = 'other' WHERE uuid = 'u-leave'", "key or tenant of this event"),
    "an event's receive time": ("UPDATE event_rows SET received = received - INTERVAL 1 DAY WHERE uuid = 'u-leave'", "receive time"),
    "an event": ("DELETE FROM event_rows WHERE uuid = 'u-leave'", "no row for this record"),
    "an event and its chain row": (
        f"DELETE FROM event_rows WHERE uuid = 'u-leave'; DELETE FROM chain WHERE {AT_LEAVE.replace('event_rows', 'kept')}",
        "chain does not hold",
    ),
    "an event twice": ("INSERT INTO event_rows FROM event_rows WHERE uuid = 'u-leave'", "two rows for one record"),
    "a chain row": (f"DELETE FROM chain WHERE {AT_LEAVE}", "not in the chain"),
    "a chain row twice": (f"INSERT INTO chain FROM chain WHERE {AT_LEAVE}", "two chain rows"),
    "a hash": (f"UPDATE chain SET hash = repeat('x', 32)::BLOB WHERE {AT_LEAVE}", "chain does not hold"),
}


@pytest.mark.fault(50)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_where_it_was_done(con: DuckDBPyConnection, tampered: Callable[..., VerifyReport], damage: str) -> None:
    sql, what = DAMAGE[damage]
    con.execute("CREATE TEMP TABLE IF NOT EXISTS kept AS FROM event_rows")
    offset = con.execute("SELECT \"offset\" FROM event_rows WHERE uuid = 'u-leave'").fetchall()[0][0]
    found = [one for one in tampered(*sql.split(";")).breaks if what in one.what]
    assert found
    near = {offset, offset + 1}
    assert {(one.topic, one.partition, one.incarnation) for one in found} == {(SOURCE, 0, "one")}
    assert {one.offset for one in found} & near
    assert len(found) <= 2


def test_bytes_changed_together_with_their_columns_and_hashes_show(tampered: Callable[..., VerifyReport]) -> None:
    """Whoever edits bytes, columns and the chain row alike still has to rewrite every hash behind it."""
    report = tampered(
        "UPDATE event_rows SET raw = replace(raw::VARCHAR, 'SUCCESS', 'FAILURE')::BLOB, outcome = 'FAILURE' WHERE uuid = 'u-leave'",
        "UPDATE event_rows SET value_sha256 = unhex(sha256(raw)) WHERE uuid = 'u-leave'",
        "UPDATE chain SET value_sha256 = (SELECT value_sha256 FROM event_rows WHERE uuid = 'u-leave') WHERE" + AT_LEAVE,
    )
    assert {one.what[:24] for one in report.breaks if one.incarnation == "one"} == {"the chain does not hold:"}


def test_a_cut_tail_shows_against_the_stored_head(tampered: Callable[..., VerifyReport]) -> None:
    where = "topic = 'identity.outcomes' AND partition = 1"
    report = tampered(
        *(f'DELETE FROM {table} WHERE {where} AND "offset" > 0' for table in ("chain", "records", "hold_rows", "action_rows"))
    )
    assert [(one.offset, one.what[:28]) for one in report.breaks] == [(0, "the chain ends here after 1 ")]


def test_a_tail_cut_off_the_head_as_well_shows_only_against_a_head_noted_elsewhere(tampered: Callable[..., VerifyReport]) -> None:
    """The stated limit: this is what external digests are for."""
    noted = {(head.topic, head.partition, head.incarnation): head for head in tampered().heads}
    where = "topic = 'identity.outcomes' AND partition = 1"
    report = tampered(
        *(f'DELETE FROM {table} WHERE {where} AND "offset" > 0' for table in ("chain", "records", "hold_rows", "action_rows")),
        f"UPDATE positions SET next_offset = 1, length = 1, head = (SELECT hash FROM chain WHERE {where}) WHERE {where}",
    )
    assert report.ok
    changed = [head for head in report.heads if head != noted[head.topic, head.partition, head.incarnation]]
    assert [(head.topic, head.partition, head.length) for head in changed] == [(AUDIT, 1, 1)]


def test_a_view_that_hides_rows_shows(tampered: Callable[..., VerifyReport]) -> None:
    report = tampered("CREATE OR REPLACE VIEW actions AS FROM (SELECT * FROM action_rows) WHERE status <> 'failed'")
    assert [one.what for one in report.breaks] == ["the view actions is not defined as in schema.sql"]


def test_a_row_moved_to_its_repeat_shows(con: DuckDBPyConnection, tampered: Callable[..., VerifyReport]) -> None:
    """The first appearance counts: a row that stands at a later one claims another time."""
    offset = con.execute("SELECT \"offset\" FROM event_rows WHERE uuid = 'u-leave'").fetchall()[0][0]
    report = tampered(
        "UPDATE event_rows SET incarnation = 'two' WHERE uuid = 'u-leave'",
        f"UPDATE chain SET received = NULL WHERE topic = '{SOURCE}' AND \"offset\" = {offset} AND incarnation = 'one'",
        "UPDATE chain SET received = (SELECT received FROM event_rows WHERE uuid = 'u-leave') "
        f"WHERE topic = '{SOURCE}' AND \"offset\" = {offset} AND incarnation = 'two'",
    )
    assert [(one.incarnation, one.offset) for one in report.breaks] == [("one", offset)]


def test_a_forged_event_shows(tampered: Callable[..., VerifyReport]) -> None:
    report = tampered(
        "INSERT INTO event_rows SELECT * REPLACE ('forged' AS uuid, 999 AS \"offset\") FROM event_rows WHERE uuid = 'u-leave'"
    )
    assert (SOURCE, 0, 999) in places(report)


def test_a_log_that_is_nowhere_in_the_chain_shows(tampered: Callable[..., VerifyReport]) -> None:
    report = tampered("UPDATE hold_rows SET topic = 'elsewhere' WHERE id = 'h-1'")
    assert any(one.topic == "elsewhere" and "its chain is missing" in one.what for one in report.breaks)


def test_the_report_ends_when_it_names_enough(con: DuckDBPyConnection, tampered: Callable[..., VerifyReport]) -> None:
    report = tampered(
        "INSERT INTO event_rows SELECT e.* REPLACE (1000 + range AS \"offset\") FROM event_rows e, range(1200) WHERE uuid = 'u-leave'"
    )
    assert len(report.breaks) == MOST_BREAKS
    assert not report.complete
    assert not report.ok


# --- a thousand random edits ------------------------------------------------------------------------------------------------


class Vandal:
    """Makes one random change with SQL and says which; None where the dice asked for one that changes nothing."""

    def __init__(self, con: DuckDBPyConnection) -> None:
        self._con = con
        self._columns = {
            table: con.execute(f"SELECT column_name, column_type, \"null\" = 'YES' FROM (DESCRIBE {table})").fetchall()
            for table in TABLES + STATE
        }

    def strike(self, dice: random.Random) -> str | None:
        table = dice.choice(TABLES * 3 + STATE)
        deeds = [self._edit, self._edit, self._edit, self._delete, self._double, self._swap, self._swap_columns]
        return dice.choice(deeds)(dice, table)

    def _pick(self, dice: random.Random, table: str, count: int = 1) -> list[int]:
        found = [rowid for (rowid,) in self._con.execute(f"SELECT rowid FROM {table}").fetchall()]
        return dice.sample(found, min(count, len(found)))

    def _value(self, table: str, column: str, rowid: int) -> Any:
        return self._con.execute(f'SELECT "{column}" FROM {table} WHERE rowid = {rowid}').fetchall()[0][0]

    def _set(self, table: str, column: str, rowid: int, value: Any) -> None:
        self._con.execute(f'UPDATE {table} SET "{column}" = ? WHERE rowid = {rowid}', [value])

    def _edit(self, dice: random.Random, table: str) -> str:
        column, kind, nullable = dice.choice(self._columns[table])
        (rowid,) = self._pick(dice, table)
        old = self._value(table, column, rowid)
        new = None if nullable and old is not None and dice.random() < 0.2 else self._other(dice, old, kind)
        self._set(table, column, rowid, new)
        return f"{table}.{column}: {old!r} became {new!r}"

    def _other(self, dice: random.Random, old: Any, kind: str) -> Any:
        if kind == "TIMESTAMP WITH TIME ZONE":
            return self._con.execute(
                "SELECT coalesce(?::TIMESTAMPTZ, now()) + to_microseconds(?)", [old, dice.choice([1, -1, 10**6])]
            ).fetchall()[0][0]
        if kind == "BLOB":
            return _flip(dice, old or b"")
        if kind == "BOOLEAN":
            return not old
        if kind == "VARCHAR[]":
            return [*old, "00u9mal"] if not old or dice.random() < 0.5 else old[:-1]
        if kind == "VARCHAR":
            return _retype(dice, old or "")
        step = dice.choice([1, -1, 2**20])
        return old + step if 0 <= old + step < 2**31 else old - abs(step) if old >= abs(step) else old + 1

    def _delete(self, dice: random.Random, table: str) -> str | None:
        if table == "incarnations":
            return None
        (rowid,) = self._pick(dice, table)
        self._con.execute(f"DELETE FROM {table} WHERE rowid = {rowid}")
        return f"deleted a row of {table}"

    def _double(self, dice: random.Random, table: str) -> str:
        (rowid,) = self._pick(dice, table)
        self._con.execute(f"INSERT INTO {table} FROM {table} WHERE rowid = {rowid}")
        return f"doubled a row of {table}"

    def _swap(self, dice: random.Random, table: str) -> str | None:
        """One column's values of two rows."""
        return self._exchange(dice, table, [dice.choice(self._columns[table])[0]])

    def _swap_columns(self, dice: random.Random, table: str) -> str | None:
        """Two rows change places."""
        names = [name for name, _, _ in self._columns[table] if name in ("incarnation", "topic", "partition", "offset")]
        return self._exchange(dice, table, names)

    def _exchange(self, dice: random.Random, table: str, names: list[str]) -> str | None:
        picked = self._pick(dice, table, 2)
        if len(picked) < 2:
            return None
        before = self._con.execute(f"FROM {table} ORDER BY ALL").fetchall()
        values = [[self._value(table, name, rowid) for name in names] for rowid in picked]
        for rowid, taken in zip(picked, reversed(values), strict=True):
            for name, value in zip(names, taken, strict=True):
                self._set(table, name, rowid, value)
        same = before == self._con.execute(f"FROM {table} ORDER BY ALL").fetchall()
        return None if same else f"{table}: rows exchanged {names}: {values}"


def _flip(dice: random.Random, old: bytes) -> bytes:
    if not old:
        return b"x"
    where = dice.randrange(len(old))
    return old[:where] + bytes([old[where] ^ (1 << dice.randrange(8))]) + old[where + 1 :]


def _retype(dice: random.Random, old: str) -> str:
    return old + dice.choice("xyz ") if not old or dice.random() < 0.5 else old[:-1] + ("a" if old[-1] != "a" else "b")


@pytest.mark.fault(50)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_thousand_random_edits_are_all_found(victim: DuckDBPyConnection, part: int) -> None:
    vandal, done, seed = Vandal(victim), 0, part * 10**6
    while done < EDITS // PARTS:
        seed += 1
        victim.execute("BEGIN")
        try:
            deed = vandal.strike(random.Random(seed))
            if deed is not None:
                done += 1
                assert not verify(victim, inside=True).ok, f"not found: {deed} (seed {seed})"
        finally:
            victim.execute("ROLLBACK")
    assert verify(victim).ok


# --- windows, files, errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_small_windows_see_the_same(tampered: Callable[..., VerifyReport], monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(walk, "_WINDOW", size)
    monkeypatch.setattr(walk, "_next_size", lambda size, weight: size)
    assert tampered().ok
    report = tampered(f"INSERT INTO chain FROM chain WHERE {AT_LEAVE}", "DELETE FROM event_rows WHERE uuid = 'u-quiet-9'")
    assert {one.what[:22] for one in report.breaks} == {"two chain rows for one", "no row for this record", "the chain ends here af"}


def test_windows_shrink_where_records_are_large_and_grow_where_they_are_small() -> None:
    assert walk._next_size(1024, 100 << 20) == 256
    assert walk._next_size(16, 1 << 30) == 16
    assert walk._next_size(1024, 32 << 20) == 1024
    assert walk._next_size(1024, 1000) == 2048
    assert walk._next_size(4096, 1000) == 4096


def test_it_may_run_while_the_recorder_writes(store: AuditStore) -> None:
    log = Log()
    for n in range(50):
        log.source(event(f"u-{n}"))
    store.write(log.records)
    more = iter([[log.source(event(f"u-more-{n}"))] for n in range(3)])
    with store.reader() as cursor:
        report = verify(cursor, progress=lambda done, total: store.write(next(more)))
        assert report.ok
        assert report.counts["event_rows"] == 50
        assert verify(cursor).counts["event_rows"] == 51


def test_a_file_is_verified_by_its_path(trail: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.duckdb"
    shutil.copy(trail, copy)
    before = copy.read_bytes()
    assert verify(copy).ok
    assert copy.read_bytes() == before


def test_what_is_no_audit_file_is_said(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "x.duckdb")) as con:
        con.execute("CREATE TABLE t (a INTEGER)")
    with pytest.raises(ConfigurationError, match="no audit file"):
        verify(tmp_path / "x.duckdb")
    with pytest.raises(FaultError, match="cannot be opened"):
        verify(tmp_path / "absent.duckdb")
    with duckdb.connect() as empty, pytest.raises(FaultError, match="cannot be verified"):
        verify(empty)
