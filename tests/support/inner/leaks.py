"""Tests that misbehave on purpose; `tests/test_support.py` runs them in a pytest of their own and looks at how that ends."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.canary import Canaries
from tests.support.missing import missing


def test_writes_a_secret_to_a_file(canary: Canaries, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(canary("token-in-file"))


def test_prints_a_secret(canary: Canaries) -> None:
    print(canary("token-printed"))


def test_keeps_a_secret_where_it_may(canary: Canaries, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"token_file = {str(canary.file('token-kept'))!r}")


def test_swallows_the_refusal() -> None:
    with contextlib.suppress(Exception), socket.socket() as sock:
        sock.connect(("192.0.2.1", 80))


def test_child_leaves_loopback() -> None:
    subprocess.run([sys.executable, "-c", "import socket; socket.getaddrinfo('example.com', 1)"], stderr=subprocess.DEVNULL)


def test_misses_something() -> None:
    missing("a thing is absent")


async def test_forgets_a_socket() -> None:
    forgotten: list[object] = [socket.socket()]
    forgotten.append(forgotten)  # a cycle: only the collector finds it


def test_is_innocent() -> None:
    pass
