"""`script/kafka start|stop|status`: the broker of the tests, by hand and in the background.

Standard output carries `bootstrap=127.0.0.1:PORT` and nothing else, so that a script may read it; everything for people goes to
standard error. The folder holds the broker's data, its log, and `kafka.pid`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.support.kafka import ROOT, Broker, KafkaFailed, KafkaMissing
from tests.support.wire import NotServing, check_serving

DEFAULT_FOLDER = ROOT / ".cache" / "kafka" / "data"
DEFAULT_PORT = 9092


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="script/kafka", description="A real Apache Kafka (KRaft, one node) on this machine.")
    parser.add_argument("command", choices=("start", "stop", "status"))
    parser.add_argument("--port", type=int, help=f"where it listens (default {DEFAULT_PORT})")
    parser.add_argument("--dir", type=Path, default=DEFAULT_FOLDER, help="data, log and kafka.pid (default .cache/kafka/data)")
    options = parser.parse_args(argv)
    folder = options.dir.resolve()
    try:
        if options.command == "start":
            return _start(folder, options.port)
        return _stop(folder) if options.command == "stop" else _status(folder)
    except KafkaMissing as error:
        _say(str(error))
        return 2
    except KafkaFailed as error:
        _say(str(error))
        return 1


def _start(folder: Path, wanted: int | None) -> int:
    if running := _running(folder):
        pid, port = running
        if wanted not in (None, port):
            _say(f"a broker of {folder} already runs on port {port} (pid {pid}): script/kafka stop --dir {folder}")
            return 2
        print(f"bootstrap=127.0.0.1:{port}")
        return 0
    port = wanted or DEFAULT_PORT
    if _is_taken(port):
        _say(f"port {port} is taken by another program: choose one with --port")
        return 2
    broker = Broker(folder, port, tied=False)
    _say(f"starting Apache Kafka on 127.0.0.1:{port}, data in {folder}")
    broker.start()
    print(f"bootstrap={broker.bootstrap}")
    return 0


def _stop(folder: Path, timeout: float = 30.0) -> int:
    running = _running(folder)
    if running is None:
        _say(f"no broker of {folder} runs")
        _pid_file(folder).unlink(missing_ok=True)
        return 0
    pid, _ = running
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while is_broker(pid, folder):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    _pid_file(folder).unlink(missing_ok=True)
    _say("stopped")
    return 0


def _status(folder: Path) -> int:
    running = _running(folder)
    if running is None:
        _say(f"no broker of {folder} runs")
        return 1
    pid, port = running
    try:
        check_serving("127.0.0.1", port)
    except NotServing as reason:
        _say(f"pid {pid} runs and does not serve: {reason} ({folder / 'kafka.log'})")
        return 1
    print(f"bootstrap=127.0.0.1:{port}")
    return 0


def _running(folder: Path) -> tuple[int, int] | None:
    """(pid, port) of the broker that the pid file names, if that process is still a broker of this folder."""
    try:
        pid, port = (int(part) for part in _pid_file(folder).read_text().split())
    except (OSError, ValueError):
        return None
    return (pid, port) if is_broker(pid, folder) else None


def is_broker(pid: int, folder: Path) -> bool:
    """A pid may have been given to another program since; a broker names its folder in its command line."""
    if Path("/proc/self/cmdline").exists():
        try:
            shown = Path(f"/proc/{pid}/cmdline").read_text()  # empty for a process that has ended and was not waited for
        except OSError:
            return False
    else:
        shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return str(folder / "server.properties") in shown


def _is_taken(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _pid_file(folder: Path) -> Path:
    return folder / "kafka.pid"


def _say(text: str) -> None:
    print(f"kafka: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
