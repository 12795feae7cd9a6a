"""The processes of a run: Kafka, the simulators, one process a role and worker; whoever dies is started again, as a supervisor would.

An end that nobody ordered is remembered: exit code 70 is what a supervisor is for, anything else is a finding. Children die with
this process, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

from tests.support.faultproxy import FaultProxy
from tests.support.kafka import ROOT, Broker, free_port
from tests.torture import settings
from tests.torture.plan import Strike

PORTCULLIS = Path(sys.executable).with_name("portcullis")
ROLES = ("recorder", "lockdown", "provision", "classifier", "poller")
#: Roles of which there may be several; the recorder owns a file, the poller's lease has one holder.
MANY = ("classifier", "lockdown", "provision")
START_S = 60.0
STOP_S = 30.0
_PAUSE_S = 0.05
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:  # pragma: no cover - runs in the child
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def until(is_so: Callable[[], bool], patience_s: float = float("inf")) -> bool:
    """Polls; False where patience ended first."""
    give_up = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(_PAUSE_S)
    return True


@dataclass(frozen=True, slots=True)
class End:
    """One end of one process. `ordered`: the exit codes that our signal may lead to, none where we sent none."""

    name: str
    code: int
    ordered: tuple[int, ...]
    at: float

    @property
    def is_fault(self) -> bool:
        return not self.ordered and self.code == 70

    @property
    def is_wrong(self) -> bool:
        return self.code not in self.ordered and not self.is_fault


@dataclass(slots=True)
class Process:
    """One supervised process. `health` is the file that says where it can be asked (None: the simulators)."""

    name: str
    argv: list[str]
    log: Path
    health: Path | None = None
    ends: list[End] = field(default_factory=list)
    _child: subprocess.Popen[bytes] | None = None
    _ordered: tuple[int, ...] = ()
    _stopping: bool = False
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._supervise(), name=f"supervise {self.name}")

    async def _supervise(self) -> None:
        while not self._stopping:
            self._ordered = ()
            with self.log.open("ab") as log:
                self._child = self._spawn(log)
            code = await self._ended()
            self.ends.append(End(self.name, code, self._ordered, time.time()))
            if not self._stopping:
                await asyncio.sleep(0.2)

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, preexec_fn=_die_with_parent)

    async def _ended(self) -> int:
        """The exit code, once there is one. Polled: a child that is signalled by number must not be reaped by anybody else."""
        assert self._child is not None
        await until(lambda: self._child is not None and self._child.poll() is not None)
        return int(self._child.returncode)

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    async def strike(self, strike: Strike) -> None:
        """Waits until there is somebody to strike."""
        await until(lambda: self.pid is not None)
        if strike.how == "kill":
            self._signal(signal.SIGKILL, -signal.SIGKILL)
        elif strike.how == "stop":
            self._terminate()
        else:
            self._signal(signal.SIGSTOP)
            await asyncio.sleep(strike.seconds)
            self._signal(signal.SIGCONT)

    def _terminate(self) -> None:
        """A process that is only just starting has not heard of signals yet, and ends as any other does."""
        self._signal(signal.SIGTERM, *((0,) if self.health is None or self.address() else (0, -signal.SIGTERM)))

    def _signal(self, number: int, *ordered: int) -> None:
        assert self._child is not None
        self._ordered = (*self._ordered, *ordered)
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(number)

    async def stop(self) -> float:
        """SIGTERM; returns the seconds until the end. After STOP_S SIGKILL, which is remembered as a wrong end."""
        self._stopping = True
        began = time.monotonic()
        if self._child is not None and self._child.poll() is None:
            self._terminate()
            if not await until(lambda: self.pid is None, STOP_S):
                self._child.kill()
        if self._task is not None:
            await self._task
        return time.monotonic() - began

    def address(self) -> str | None:
        """Where the running process can be asked; None while it has not said so."""
        try:
            told = json.loads(self.health.read_bytes()) if self.health is not None else {}
        except (OSError, ValueError):
            return None
        return str(told["url"]) if told.get("pid") == self.pid and self.pid is not None else None


class Fleet:
    """All processes of a run under one folder. `wired`: they reach Kafka through a wire that can be cut."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        partitions: int = 4,
        sabotage: str | None = None,
        dry_run: bool = False,
        wired: bool = False,
    ) -> None:
        self.folder = folder
        self._workers, self._partitions, self._sabotage, self._dry_run = workers, partitions, sabotage, dry_run
        port = free_port() if wired else None
        self.broker = Broker(folder / "kafka", advertised=port)
        self._wire = FaultProxy("127.0.0.1", self.broker.port, listen_port=port) if port is not None else None
        self.written = folder / "config" / "portcullis.toml"
        self.simulators = self._simulators()
        self.roles: dict[tuple[str, int], Process] = {}
        self._http = httpx.AsyncClient(trust_env=False, timeout=15)

    def _simulators(self) -> Process:
        argv = [str(PORTCULLIS), "simulate", "--port-base", "0", "--scenario", "quiet", "--rate", "6000", "--write-config"]
        return Process("simulators", [*argv, str(self.written)], self.folder / "simulators.log")

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.simulators.start()
        await asyncio.to_thread(self.broker.start)
        if self._wire is not None:
            await self._wire.start()
        await self._wait(self.written.exists, "the simulators did not start")
        access = settings.write_access(self.folder / "access")
        for role in ROLES:
            for index in range(self._workers if role in MANY else 1):
                self.roles[role, index] = self._role(role, index, access)
        for process in self.roles.values():
            process.start()
        await self._wait(lambda: all(process.address() for process in self.roles.values()), "a role did not start")

    async def _wait(self, is_so: Callable[[], bool], otherwise: str) -> None:
        if not await until(is_so, START_S):
            raise RuntimeError(f"{otherwise} within {START_S:.0f} s: see the logs in {self.folder}")

    def _role(self, role: str, index: int, access: Path) -> Process:
        name = f"{role}-{index + 1}" if role in MANY else role
        config = settings.write_config(self.written, name, self.bootstrap, access, partitions=self._partitions, dry_run=self._dry_run)
        run = ["run", "--config", str(config), "--role", role]
        argv = [str(PORTCULLIS), *run]
        if self._sabotage is not None:
            argv = [sys.executable, "-m", "tests.torture.role", self._sabotage, *run]
        return Process(name, argv, self.folder / f"{name}.log", config.parent / name / f"health-{role}.json")

    @property
    def bootstrap(self) -> str:
        return self._wire.address if self._wire is not None else self.broker.bootstrap

    @property
    def recorder_config(self) -> Path:
        return self.written.with_name("recorder.toml")

    async def strike(self, strike: Strike) -> None:
        if strike.how == "cut":
            assert self._wire is not None
            await self._wire.refuse()
            await asyncio.sleep(strike.seconds)
            await self._wire.heal()
        elif strike.role == "broker":
            await asyncio.to_thread(self.broker.kill)
            await asyncio.sleep(strike.seconds)
            await asyncio.to_thread(self.broker.start)
        else:
            await self.roles[strike.role, strike.index].strike(strike)

    async def lags(self) -> dict[str, int | None]:
        """Process and role → records not yet worked through; None where it cannot say."""
        found: dict[str, int | None] = {}
        for process, told in zip(self.roles.values(), await asyncio.gather(*map(self._lag, self.roles.values())), strict=True):
            found |= {f"{process.name}/{role}": lag for role, lag in told.items()} if told else {process.name: None}
        return found

    async def _lag(self, process: Process) -> dict[str, int] | None:
        address = process.address()
        if address is None:
            return None
        try:
            answer = await self._http.get(f"{address}/lag")
            told = answer.json()["lag"]
        except (httpx.HTTPError, ValueError, KeyError):
            return None
        return told if isinstance(told, dict) else None

    async def stop_roles(self) -> dict[str, float]:
        """Name → seconds from SIGTERM to the end."""
        took = await asyncio.gather(*(process.stop() for process in self.roles.values()))
        return {process.name: seconds for process, seconds in zip(self.roles.values(), took, strict=True)}

    async def close(self) -> None:
        await self.stop_roles()
        await self.simulators.stop()
        await self._http.aclose()
        if self._wire is not None:
            await self._wire.stop()
        await asyncio.to_thread(self.broker.close)

    @property
    def ends(self) -> list[End]:
        return [end for process in (self.simulators, *self.roles.values()) for end in process.ends]
