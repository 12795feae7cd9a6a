"""D28: one holder, named; a recorder waits for at most a second and is not kept waiting by readers."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from audit.lock import FileLock, Held, holder, is_held, lock_path

CHILD = """
import sys
from pathlib import Path
from audit.lock import FileLock
FileLock(Path(sys.argv[1]), "audit sql").acquire()
print("held", flush=True)
sys.stdin.read()
"""


class Time:
    """Sleeping is what makes it pass."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps: list[Path] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def held_by_another(root: Path, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_it_is_free_again_after_use(path: Path) -> None:
    assert not is_held(path)
    with FileLock(path, "recorder"):
        assert is_held(path)
        assert holder(path) == f"recorder (process {os.getpid()})"
    assert not is_held(path)
    assert holder(path) == "another process"
    with FileLock(path, "recorder"):
        assert stat.S_IMODE(lock_path(path).stat().st_mode) == 0o600


@pytest.mark.fault(52)
def test_a_starting_recorder_waits_a_second_and_names_the_holder(root: Path, path: Path) -> None:
    time = Time()
    with held_by_another(root, path) as process:
        lock = FileLock(path, "recorder", urgent=True, sleep=time.sleep, monotonic=time.monotonic)
        with pytest.raises(Held, match=rf"in use by audit sql \(process {process.pid}\)"):
            lock.acquire()
        assert 1.0 <= time.now < 1.1
        process.communicate()


@pytest.mark.fault(52)
def test_a_killed_holder_holds_nothing(root: Path, path: Path) -> None:
    with held_by_another(root, path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with FileLock(path, "recorder", wait_s=0):
            assert holder(path) == f"recorder (process {os.getpid()})"


def test_a_reader_sees_that_it_is_in_the_way(path: Path) -> None:
    reader = FileLock(path, "audit sql")
    reader.acquire()
    assert not reader.is_wanted()
    time = Time()
    seen: list[bool] = []

    def sleep(seconds: float) -> None:
        seen.append(reader.is_wanted())
        reader.release()
        time.sleep(seconds)

    with FileLock(path, "recorder", urgent=True, sleep=sleep, monotonic=time.monotonic) as recorder:
        assert seen == [True]
        assert not recorder.is_wanted()
    assert time.now < 0.1


def test_a_reader_waits_without_chasing_others_away(path: Path) -> None:
    time = Time()
    with FileLock(path, "audit sql") as first:
        second = FileLock(path, "audit verify", wait_s=0.1, sleep=time.sleep, monotonic=time.monotonic)
        with pytest.raises(Held):
            second.acquire()
        assert not first.is_wanted()
        assert not path.with_name(path.name + ".wanted").exists()


def test_a_mark_left_by_a_killed_recorder_chases_nobody(path: Path) -> None:
    with FileLock(path, "audit sql") as reader:
        mark = path.with_name(path.name + ".wanted")
        mark.touch()
        assert reader.is_wanted()
        os.utime(mark, (1, 1))
        assert not reader.is_wanted()


def test_the_lock_does_not_outlive_a_failed_wait(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    with FileLock(path, "recorder"):
        for _ in range(5):
            with pytest.raises(Held):
                FileLock(path, "audit sql", wait_s=0).acquire()
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
