"""Commands as processes, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMAND = Path(sys.executable).with_name("portcullis")


class House:
    """One folder with one configuration. `start` runs a command in the background, `run` waits for one; `close` ends what is left."""

    def __init__(self, folder: Path, bootstrap: str | None = None) -> None:
        self.folder, self.config = folder, folder / "portcullis.toml"
        self._env = {key: value for key, value in os.environ.items() if key != "KAFKA_BOOTSTRAP"}
        if bootstrap is not None:
            self._env["KAFKA_BOOTSTRAP"] = bootstrap
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *args: str) -> None:
        with self.log(name).open("ab") as output:
            self.processes[name] = subprocess.Popen([str(COMMAND), *args], stdout=output, stderr=output, env=self._env, cwd=self.folder)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def simulate(self, *args: str) -> None:
        """Returns when the configuration stands: everything listens then."""
        self.start("simulate", "simulate", "--write-config", str(self.config), *args)
        for _ in range(400):
            if self.config.exists():
                return
            assert self.processes["simulate"].poll() is None, self.log("simulate").read_text()
            time.sleep(0.05)
        raise AssertionError("the simulators did not come up")

    def role(self, name: str) -> None:
        self.start(name, "run", "--config", str(self.config), "--role", name)

    def wait_until_running(self, name: str, within: float = 60.0) -> None:
        """Returns when the role says that it runs."""
        until = time.monotonic() + within
        while b"running: " not in self.log(name).read_bytes():
            assert self.processes[name].poll() is None, self.log(name).read_text()
            assert time.monotonic() < until, f"{name} does not run after {within:.0f} s"
            time.sleep(0.05)

    def kill(self, name: str) -> None:
        process = self.processes[name]
        process.kill()
        process.wait()

    def terminate(self, name: str, within: float = 30.0) -> int:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(within)

    def run(self, *args: str, timeout: float = 100.0, ok: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run([str(COMMAND), *args], capture_output=True, env=self._env, cwd=self.folder, timeout=timeout, check=False)
        assert done.returncode in ok, (args, done.returncode, done.stdout[-2000:], done.stderr[-4000:])
        return done

    def sql(self, query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.run("audit", "sql", "--config", str(self.config), query, "--json").stdout)
        return rows

    def calls(self, url: str) -> list[dict[str, Any]]:
        parts = urlsplit(url)
        with urllib.request.urlopen(f"{parts.scheme}://{parts.netloc}/_sim/calls", timeout=10) as answer:
            calls: list[dict[str, Any]] = json.load(answer)
        return calls

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
