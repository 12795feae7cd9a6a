"""The tests' own tools: what they promise is tested like anything else."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.canary import Canaries
from tests.support.clock import START, FakeClock
from tests.support.network import LOG_VARIABLE, Guard, NetworkClosed, child_environment, is_loopback


async def test_sleepers_wake_in_the_order_of_their_deadlines(clock: FakeClock) -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.monotonic()))

    await asyncio.gather(sleeper("slow", 3600), sleeper("quick", 1, 1, 1), sleeper("second", 2.5))
    assert woken == [("quick", 1), ("quick", 2), ("second", 2.5), ("quick", 3), ("slow", 3600)]
    assert (clock.now() - START).total_seconds() == 3600
    assert clock.slept == [3600, 1, 2.5, 1, 1]


async def test_without_auto_time_moves_only_by_hand() -> None:
    clock = FakeClock(auto=False)
    sleeper = asyncio.create_task(clock.sleep(10))
    await clock.advance(9.9)
    assert not sleeper.done()
    assert clock.sleepers == 1
    await clock.advance(0.1)
    assert sleeper.done()
    assert clock.sleepers == 0


async def test_a_cancelled_sleeper_does_not_hold_time_up(clock: FakeClock) -> None:
    gone = asyncio.create_task(clock.sleep(50))
    await asyncio.sleep(0)
    gone.cancel()
    await clock.sleep(100)
    assert clock.monotonic() == 100


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST", "::1%lo"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "example.com", "localhost.example.com", "0.0.0.0", "", "::"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def _leave_loopback() -> None:
    with socket.socket() as sock:
        sock.connect(("192.0.2.1", 80))


def test_leaving_loopback_is_refused(network_guard: Guard) -> None:
    with pytest.raises(NetworkClosed):
        _leave_loopback()
    with pytest.raises(NetworkClosed):
        socket.getaddrinfo("example.com", 443)
    with socket.socket() as sock, pytest.raises(NetworkClosed):
        sock.bind(("0.0.0.0", 0))
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(NetworkClosed):
        sock.sendto(b"x", ("192.0.2.1", 53))
    assert [line.split()[0] for line in network_guard.take()] == ["socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"]


def test_loopback_is_open(network_guard: Guard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert network_guard.take() == []


def test_children_are_closed_as_well(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import socket\ntry:\n    socket.create_connection(('192.0.2.1', 80), 1)\nexcept RuntimeError as error:\n    print(type(error).__name__)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | child_environment(log), capture_output=True, text=True, check=True)
    assert done.stdout == "NetworkClosed\n"
    assert "192.0.2.1" in log.read_text()


def test_a_canary_is_found_wherever_it_was_written(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()
    canaries = Canaries(vault)
    token = canaries("token")
    assert canaries("token") == token != canaries("other")
    assert canaries.file("token").read_text().strip() == token
    assert canaries.file("token").stat().st_mode & 0o077 == 0
    assert canaries.search(tmp_path) == []

    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log.txt").write_text(f"Authorization: SSWS {token}")
    for shift in range(3):
        basic = base64.b64encode(b"i" * shift + b":" + token.encode() + b":rest").decode()
        (tmp_path / f"basic{shift}").write_text(basic)
    (tmp_path / "across").write_bytes(b"x" * ((1 << 20) - 10) + token.encode())
    canaries.listen("a failure", f"expected {token}")
    places = {hit.removeprefix("token: ") for hit in canaries.search(tmp_path)}
    expected = {str(tmp_path / name) for name in ("deep/log.txt", "basic0", "basic1", "basic2", "across")} | {"a failure"}
    assert places == expected


def _inner(tmp_path: Path, *tests: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs misbehaving tests under the real conftest, in a pytest of their own."""
    file = Path(__file__).parent / "support" / "inner" / "leaks.py"
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            f"--basetemp={tmp_path / 'inner'}",
            *(f"{file}::{test}" for test in tests),
        ],
        env={name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONPATH", LOG_VARIABLE)} | environment,
        cwd=file.parents[3],
        capture_output=True,
        text=True,
    )


def test_a_leak_fails_the_session_and_names_the_canary_only(tmp_path: Path) -> None:
    done = _inner(tmp_path, "test_writes_a_secret_to_a_file", "test_prints_a_secret", "test_keeps_a_secret_where_it_may")
    assert done.returncode == 1
    assert "3 passed" in done.stdout
    leaks = [line for line in done.stdout.splitlines() if line.startswith("FAILED a secret leaked")]
    assert len(leaks) == 2
    assert "token-in-file: " in done.stdout
    assert "token-printed: " in done.stdout
    assert "token-kept" not in done.stdout


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("test_swallows_the_refusal", "left loopback: socket.connect '192.0.2.1'"),
        ("test_child_leaves_loopback", "a child process left loopback: socket.getaddrinfo 'example.com'"),
        ("test_forgets_a_socket", "ResourceWarning: unclosed"),
    ],
)
def test_misbehaviour_is_found(tmp_path: Path, test: str, words: str) -> None:
    done = _inner(tmp_path, test)
    assert done.returncode == 1
    assert words in done.stdout


def test_what_is_missing_skips_at_home_and_fails_in_ci(tmp_path: Path) -> None:
    at_home = _inner(tmp_path, "test_misses_something", "test_is_innocent")
    assert at_home.returncode == 0
    assert "1 passed, 1 skipped" in at_home.stdout
    in_ci = _inner(tmp_path, "test_misses_something", "test_is_innocent", CI="true")
    assert in_ci.returncode == 1
    assert "1 failed, 1 passed" in in_ci.stdout
    assert "under CI it must be there" in in_ci.stdout
