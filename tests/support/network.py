"""The network is closed while tests run: only loopback and Unix sockets are reached, in this process and in Python children.

An audit hook sees every connect, send, bind and name look-up of Python's socket module, whoever makes it; it cannot be taken off
by the code under test. Each refusal is also written down, so that code that swallows the exception still fails its test.
Children get the same through `child/sitecustomize.py` on PYTHONPATH. What does not use Python's sockets (uvloop, librdkafka, the
JVM) is not seen here; `script/test` therefore also takes the network away by the kernel where it may (`unshare`).
This file imports nothing of ours, because `child/sitecustomize.py` loads it by path.
"""

from __future__ import annotations

import ipaddress
import os
import sys
import threading
from pathlib import Path
from typing import Any

#: Children append what they were refused to this file.
LOG_VARIABLE = "PORTCULLIS_TEST_NETWORK_LOG"

_AF_INET = {2, 10, 23, 28, 30}  # AF_INET, and AF_INET6 on Linux, Windows, FreeBSD, macOS
_WATCHED = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"}
_LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}


class NetworkClosed(RuntimeError):
    """Not an OSError on purpose: nothing should take it for a vendor that is down and try again."""


class Guard:
    """Installed once a process; each attempt is one line, kept for `take` and, in children, appended to `log`."""

    def __init__(self, log: str | None = None) -> None:
        self._log = log
        self._refused: list[str] = []
        self._busy = threading.local()

    def install(self) -> None:
        sys.addaudithook(self._hook)

    def take(self) -> list[str]:
        """What was refused since the last call."""
        taken, self._refused = self._refused, []
        return taken

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event in _WATCHED:
            if getattr(args[0], "family", None) in _AF_INET and isinstance(args[1], tuple):
                self._check(event, args[1][0], any_is_refused=True)
        elif event in _LOOKUPS:
            self._check(event, args[0], any_is_refused=False)

    def _check(self, event: str, host: object, *, any_is_refused: bool) -> None:
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
        if name is None or is_loopback(str(name)) or (name in ("", "0.0.0.0", "::") and not any_is_refused):
            return
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            line = f"{event} {name!r} (pid {os.getpid()})"
            self._refused.append(line)
            if self._log:
                with Path(self._log).open("a") as file:
                    file.write(line + "\n")
        finally:
            self._busy.now = False
        raise NetworkClosed(f"tests reach loopback only: {event} {name!r}")


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def child_environment(log: Path) -> dict[str, str]:
    """What to put into the environment so that Python children are closed as well."""
    here = str(Path(__file__).parent / "child")
    rest = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != here]
    return {"PYTHONPATH": os.pathsep.join([here, *rest]), LOG_VARIABLE: str(log)}
