"""The one writer of the audit file: a batch of records becomes rows, positions and chain links in one transaction.

What a kill leaves behind is therefore always a prefix of the log, and `positions()` says where it ends. Rejected: UPDATEs of `events` when the
classifier's word arrives (views join it instead), a transaction for each topic (a decision without its event would be seen).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from audit.chain import Log
from audit.database import apply_schema, connect, explain, faults
from audit.intake import Batch, Head, Intake, LogRecord
from model.errors import FaultError

__all__ = ["AuditStore", "Batch", "LogRecord"]

_PRESSURE_TRIES = 5
_PRESSURE_PAUSE_S = 0.2


class AuditStore:
    """Owns the file. One thread at a time writes; readers take cursors of their own (`reader`). Take the lock (lock.py) before.

    `incarnation` names the present log (D9): another one than before starts at its beginning. Raises FaultError where the file cannot be
    used, ConfigurationError where it is of another version.
    """

    def __init__(self, path: Path, incarnation: str, *, memory_limit: str = "1GB") -> None:
        self.path, self.incarnation = path, incarnation
        self._writing, self._door = threading.Lock(), threading.Lock()
        self._broken: str | None = None
        self._readers: set[DuckDBPyConnection] = set()
        self._con = connect(path, memory_limit=memory_limit)
        try:
            apply_schema(self._con, path)
            with faults(path, "cannot read positions"):
                self._ordinal = self._enter_incarnation()
                self._heads = self._read_heads()
                self._doorman = self._con.cursor()  # never busy: readers' connections are made from it
        except BaseException:
            self._con.close()
            raise

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
        intake = Intake(batch, self.incarnation, self._ordinal, self._heads)
        self._con.begin()
        intake.find_repeats(self._con)
        for table, rows in intake.rows().items():
            appender = self._con.appender(table)
            appender.append_rows(rows)
            appender.flush()
        heads = intake.heads
        self._store_heads(heads)
        self._con.commit()
        self._heads.update(heads)

    def _store_heads(self, heads: dict[Log, Head]) -> None:
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

    def _read_heads(self) -> dict[Log, Head]:
        found = self._con.execute(
            "SELECT topic, partition, next_offset, length, head FROM positions WHERE incarnation = ?", [self.incarnation]
        ).fetchall()
        return {Log(self.incarnation, topic, partition): Head(*rest) for topic, partition, *rest in found}

    @contextmanager
    def reader(self) -> Iterator[DuckDBPyConnection]:
        """A connection of its own on the same file, for one question in one thread."""
        with self._door, faults(self.path, "cannot open a cursor"):
            cursor = self._doorman.cursor()
            self._readers.add(cursor)
        try:
            yield cursor
        finally:
            with self._door:
                self._readers.discard(cursor)
            cursor.close()

    def interrupt_readers(self) -> None:
        with self._door:
            for cursor in self._readers:
                with suppress(duckdb.Error):
                    cursor.interrupt()

    def close(self) -> None:
        """Breaks off readers, waits for a write under way, checkpoints and closes the file. Raises FaultError (committed rows are safe)."""
        self.interrupt_readers()
        with self._writing:
            self._broken = "closed"
            with self._door, faults(self.path, "cannot be closed cleanly"):
                self._doorman.close()
                self._con.close()

    def __enter__(self) -> AuditStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
