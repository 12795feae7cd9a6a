"""A fence around the process's memory while strange queries run.

DuckDB's memory_limit does not count what scalar functions build: `len(range(500000000))` took 16 GB under a limit of 512 MB, and DuckDB
noticed an interrupt 45 s later. With the data segment limited, that allocation fails at once, the query ends with an error, and everybody
else goes on (measured on 2.0).
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MemoryFence:
    """Limits the process's data segment while at least one question runs. Linux only; elsewhere DuckDB's own limit stands alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = (0, 0)

    @contextmanager
    def limited(self, growth: int) -> Iterator[None]:
        self._enter(growth)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, growth: int) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._before = resource.getrlimit(resource.RLIMIT_DATA)
            now = data_segment()
            if now is None:
                return
            soft, hard = now + growth, self._before[1]
            highest = [one for one in self._before if one != resource.RLIM_INFINITY]
            resource.setrlimit(resource.RLIMIT_DATA, (min([soft, *highest]), hard))

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                resource.setrlimit(resource.RLIMIT_DATA, self._before)


def data_segment() -> int | None:
    """Bytes of writable memory that this process has reserved; None where the kernel does not say."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmData:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


memory = MemoryFence()
