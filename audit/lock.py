"""Who may open the audit file (D28): DuckDB lets one process own it, and even a reader would stop the recorder from starting.

An advisory lock beside the file (`audit.duckdb.lock`) is taken before the file is opened, by the recorder for as long as it lives and by
a reader for one question. The kernel drops it when its holder dies, however it dies, so there is nothing stale to clean up. The recorder
yields to nobody: while it waits it lays down `audit.duckdb.wanted`, at whose sight a reader breaks off. Rejected: a pid file (a pid is
reused), DuckDB's own lock (it names nobody, and a reader cannot learn that the recorder waits).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from model.errors import FaultError

_MARK_LIVES_S = 3.0


class Held(FaultError):
    """Somebody else has the lock; the message names them."""


class FileLock:
    """Exclusive among processes and among locks of one process. Use as a context manager, or `acquire`/`release`.

    `who` is what others read when they have to wait, e.g. `recorder` or `audit sql`. `wait_s` bounds the wait for another holder.
    `urgent` asks readers to break off.
    """

    def __init__(
        self,
        path: Path,
        who: str,
        *,
        wait_s: float = 1.0,
        urgent: bool = False,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._file = lock_path(path)
        self._wanted = path.with_name(path.name + ".wanted")
        self._who, self._wait_s, self._urgent = who, wait_s, urgent
        self._sleep, self._monotonic = sleep, monotonic
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises `Held` with the holder's name and process when the wait is over."""
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait(fd)
        except BaseException:
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps({"who": self._who, "pid": os.getpid()}).encode(), 0)
        self._fd = fd

    def _wait(self, fd: int) -> None:
        give_up = self._monotonic() + self._wait_s
        try:
            while not _try(fd):
                if self._urgent:
                    self._wanted.touch(mode=0o600)
                if self._monotonic() >= give_up:
                    raise Held(f"{self.path} is in use by {holder(self.path)}: wait for it to end, or end it")
                self._sleep(0.02)
        finally:
            if self._urgent:
                self._wanted.unlink(missing_ok=True)

    def release(self) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def is_wanted(self) -> bool:
        """True while a recorder waits for what we hold. A mark that nobody renews was left by one that died waiting."""
        try:
            return time.time() - self._wanted.stat().st_mtime < _MARK_LIVES_S
        except FileNotFoundError:
            return False

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def holder(path: Path) -> str:
    """Who wrote their name into the lock, for messages: `recorder (process 4711)`."""
    try:
        told: Any = json.loads(lock_path(path).read_bytes())
        return f"{told['who']} (process {told['pid']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def is_held(path: Path) -> bool:
    """True where some process holds the lock now."""
    try:
        fd = os.open(lock_path(path), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try(fd)
    finally:
        os.close(fd)
