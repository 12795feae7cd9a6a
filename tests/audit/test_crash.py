"""A kill at any moment and a full disk: what was committed stays, with its offsets; what was not is fed again."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from audit.store import AuditStore
from audit.verify import verify
from tests.audit.trail import SOURCE, contents, rows
from tests.audit.writer import feed


def writer(root: Path, path: Path, *arguments: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.audit.writer", str(path), *map(str, arguments)]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def whole(path: Path) -> int:
    """Opens what was left, checks that it is a prefix of the log, and says how far it goes."""
    with AuditStore(path, "one") as store:
        at = store.positions().get((SOURCE, 0), 0)
        assert rows(store, 'SELECT count(*), coalesce(max("offset") + 1, 0) FROM events') == [(at, at)]
        with store.reader() as cursor:
            assert verify(cursor).breaks == []
        return at


def test_kill_at_any_time_leaves_committed_rows_with_their_offsets(root: Path, path: Path) -> None:
    count, dice, told, kills = 1500, random.Random(4), 0, 0
    for _ in range(12):
        with writer(root, path, count) as process:
            assert process.stdout is not None
            for _ in range(dice.randrange(1, 12)):
                told = int(process.stdout.readline() or told)
            if told < count:
                process.kill()
                kills += 1
            process.communicate()
        assert whole(path) >= told
    with writer(root, path, count) as process:
        process.communicate()
        assert process.returncode == 0
    assert kills > 3
    assert whole(path) == count
    with AuditStore(path, "one") as killed, AuditStore(path.with_name("calm.duckdb"), "one") as calm:
        calm.write(feed(count).records)
        assert contents(killed) == contents(calm)
        assert killed.heads() == calm.heads()


@pytest.mark.fault(15)
@pytest.mark.fault(51)
@pytest.mark.parametrize("spare", [100_000, 1_000_000])
def test_a_full_disk_is_a_fault_and_loses_nothing(root: Path, path: Path, spare: int) -> None:
    with writer(root, path, 50) as process:
        process.communicate()
    before = whole(path)
    with writer(root, path, 5000, spare) as process:
        out, err = process.communicate()
    assert process.returncode == 70, err
    assert str(path) in err
    assert "Traceback" not in err
    told = int(out.split()[-1])
    assert whole(path) >= told >= before
    with writer(root, path, 5000) as process:
        process.communicate()
    assert whole(path) == 5000
