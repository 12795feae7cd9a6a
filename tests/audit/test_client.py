"""D28: whoever has the file is asked; errors say who that is and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from audit.client import ask, verify_trail
from audit.lock import FileLock, is_held
from audit.query import Limits, QueryRefused, QueryStopped
from audit.service import AuditService, address_path
from audit.store import AuditStore
from model.errors import ConfigurationError, FaultError
from tests.audit.trail import day, fill

BOMB = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE (a.range * b.range) % 7 = 3"


@pytest.fixture
def left(path: Path) -> Path:
    """A file whose recorder has ended."""
    fill(path, day())
    return path


@pytest.fixture
async def running(path: Path) -> AsyncIterator[AuditService]:
    """A recorder, as far as audit sees it."""
    with FileLock(path, "recorder", urgent=True), AuditStore(path, "one") as store:
        store.write(day())
        service = AuditService(store, limits=Limits(timeout_s=1.5))
        await service.start()
        yield service
        await service.stop()


async def test_the_running_recorder_is_asked(running: AuditService, path: Path) -> None:
    rows = await asyncio.to_thread(ask, path, "SELECT id FROM holds ORDER BY id")
    assert rows == [{"id": "h-0"}, {"id": "h-1"}]
    assert rows.notice is None


async def test_its_errors_are_the_same_as_here(running: AuditService, path: Path) -> None:
    with pytest.raises(QueryRefused, match="exactly one statement"):
        await asyncio.to_thread(ask, path, "SELECT 1; SELECT 2")
    with pytest.raises(QueryStopped, match=r"stopped after 1\.5 s"):
        await asyncio.to_thread(ask, path, BOMB)
    with pytest.raises(QueryRefused, match="late"):
        await asyncio.to_thread(ask, path, "SELECT repeat('x', 1000), CASE WHEN range = 30000 THEN error('late') END FROM range(100000)")


async def test_it_proves_its_trail_with_progress(running: AuditService, path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = await asyncio.to_thread(verify_trail, path, progress=lambda done, total: told.append((done, total)))
    assert report.ok
    assert len(report.heads) == 4
    assert told[-1][0] == told[-1][1] == report.counts["chain"]


def test_without_a_recorder_the_file_is_opened_and_let_go(left: Path) -> None:
    before = left.read_bytes()
    assert ask(left, "SELECT id FROM holds ORDER BY id") == [{"id": "h-0"}, {"id": "h-1"}]
    assert verify_trail(left).ok
    assert not is_held(left)
    assert left.read_bytes() == before


def test_a_cut_answer_says_so(left: Path) -> None:
    rows = ask(left, "FROM range(100)", limits=Limits(rows=3))
    assert len(rows) == 3
    assert rows.notice is not None
    assert rows.notice.startswith("cut after 3 rows")


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("DROP TABLE chain", QueryRefused),
        ("SELECT * FROM read_text('/etc/passwd')", QueryRefused),
        ("WITH gone AS (DELETE FROM chain RETURNING *) SELECT * FROM gone", QueryRefused),
        (BOMB, QueryStopped),
        ("SELECT len(range(500000000))", QueryStopped),
    ],
)
def test_the_walls_stand_here_as_well(left: Path, query: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        ask(left, query, timeout_s=0.3)
    assert ask(left, "SELECT 1 AS one") == [{"one": 1}]


def test_no_file_yet_says_what_to_do(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no audit file yet: start the recorder"):
        ask(path, "SELECT 1")
    assert not path.exists()


def test_a_stale_address_is_no_recorder(left: Path) -> None:
    address_path(left).write_text(json.dumps({"url": "http://127.0.0.1:9", "token": "x", "pid": 1}))
    assert ask(left, "SELECT 1 AS one") == [{"one": 1}]


@pytest.mark.parametrize("junk", ["", "{", "[]", '{"url": 3}', '{"url": "https://example.com", "token": "x"}', '{"url": "", "token": ""}'])
def test_a_broken_address_is_no_recorder(left: Path, junk: str) -> None:
    address_path(left).write_text(junk)
    assert ask(left, "SELECT 1 AS one") == [{"one": 1}]


async def test_somebody_elses_service_on_the_old_port_is_no_recorder(running: AuditService, tmp_path: Path) -> None:
    other = tmp_path / "other" / "audit.duckdb"
    await asyncio.to_thread(fill, other, day()[:1])
    address_path(other).write_text(json.dumps({"url": running.url, "token": "of another time", "pid": 1}))
    assert await asyncio.to_thread(ask, other, "SELECT count(*) AS n FROM events") == [{"n": 1}]


@pytest.mark.parametrize("address", [None, "http://127.0.0.1:9"])
def test_a_recorder_that_does_not_answer_is_named(left: Path, address: str | None) -> None:
    if address:
        address_path(left).write_text(json.dumps({"url": address, "token": "x", "pid": 1}))
    with FileLock(left, "recorder"), pytest.raises(FaultError) as caught:
        ask(left, "SELECT 1", patience_s=0.2)
    assert f"in use by recorder (process {os.getpid()})" in str(caught.value)
    assert (f"does not answer at {address}" if address else "has not said yet where") in str(caught.value)


def test_another_reader_is_waited_for(left: Path) -> None:
    lock = FileLock(left, "audit verify")
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    assert ask(left, "SELECT 1 AS one") == [{"one": 1}]


@pytest.fixture
def recorder_that_starts(left: Path) -> Iterator[threading.Thread]:
    """Wants the file while somebody reads it, then serves."""
    waited: list[float] = []

    async def serve() -> None:
        start = time.monotonic()
        lock = FileLock(left, "recorder", urgent=True)
        await asyncio.to_thread(lock.acquire)
        waited.append(time.monotonic() - start)
        with AuditStore(left, "one") as store:
            service = AuditService(store, limits=Limits(timeout_s=0.3))
            await service.start()
            await asyncio.to_thread(done.wait, 20)
            await service.stop()
        lock.release()

    done = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    yield thread
    done.set()
    thread.join()
    assert waited
    assert waited[0] < 1.0


@pytest.mark.fault(52)
def test_a_reader_gives_way_to_a_starting_recorder_and_then_asks_it(left: Path, recorder_that_starts: threading.Thread) -> None:
    timer = threading.Timer(0.3, recorder_that_starts.start)
    timer.start()
    with pytest.raises(QueryStopped, match=r"stopped after 0\.3 s"):  # the recorder's limit, not ours: it was asked in the end
        ask(left, BOMB, timeout_s=60)
    timer.join()


def test_a_file_left_by_a_killed_recorder_is_readable(left: Path, tmp_path: Path) -> None:
    """Its last rows are still in the write-ahead log."""
    killed = tmp_path / "killed" / "audit.duckdb"
    killed.parent.mkdir()
    with AuditStore(left, "one") as store:
        store.write([day()[0]._replace(offset=9_000, value=b'{"uuid": "u-last", "eventType": "x"}')])
        for suffix in ("", ".wal"):
            killed.with_name(killed.name + suffix).write_bytes(left.with_name(left.name + suffix).read_bytes())
    assert killed.with_name(killed.name + ".wal").stat().st_size
    assert ask(killed, "SELECT count(*) AS n FROM events WHERE uuid = 'u-last'") == [{"n": 1}]
    assert verify_trail(killed).ok
