"""`portcullis run`: readiness, idleness, faults, and an end within half a minute whatever hangs."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from aiokafka.errors import KafkaConnectionError

from audit.client import ask
from model.errors import ConfigurationError, FaultError
from model.settings import Settings, load
from stream.house import ROLES
from stream.poller import Poller
from stream.run import Running
from tests.handlers.fakes import swap
from tests.stream.backstage import Backstage, backstage
from tests.stream.stations import until
from tests.support.clock import FakeClock

COMMAND = Path(sys.executable).with_name("portcullis")


class Fake:
    """A role. `lags` are given in order, the last one for ever."""

    def __init__(self, *lags: int | Exception, error: BaseException | None = None, stop_error: Exception | None = None) -> None:
        self.lags, self.error, self.stop_error = list(lags) or [0], error, stop_error
        self.log: list[str] = []

    async def start(self) -> None:
        self.log.append("start")

    async def stop(self) -> None:
        self.log.append("stop")
        if self.stop_error is not None:
            raise self.stop_error

    async def failed(self) -> None:
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()

    async def lag(self) -> int:
        lag = self.lags.pop(0) if len(self.lags) > 1 else self.lags[0]
        if isinstance(lag, Exception):
            raise lag
        return lag


def running(clock: FakeClock, **roles: Fake) -> Running:
    one = Running(Settings(), ROLES, clock=clock)
    one.roles = cast(Any, roles)
    return one


# --- watching -----------------------------------------------------------------------------------------------------------------------


async def test_a_role_that_cannot_go_on_ends_all_of_them(clock: FakeClock) -> None:
    with pytest.raises(FaultError, match="the log is gone"):
        await running(clock, good=Fake(), bad=Fake(error=FaultError("the log is gone"))).wait()
    with pytest.raises(ConfigurationError, match="no start"):
        await running(clock, bad=Fake(error=ConfigurationError("no start"))).wait()
    with pytest.raises(FaultError, match="ZeroDivisionError"):
        await running(clock, bad=Fake(error=ZeroDivisionError("a defect"))).wait()


async def test_it_waits_until_it_is_asked_to_stop(clock: FakeClock) -> None:
    one = running(clock, good=Fake())
    waiting = asyncio.create_task(one.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    one.stopping.set()
    await asyncio.wait_for(waiting, 5)


async def test_idle_means_nobody_behind_for_the_whole_time(clock: FakeClock) -> None:
    await asyncio.wait_for(running(clock, one=Fake(0, 0, 0, 5, 0), two=Fake(0)).wait(until_idle=2.0), 5)
    assert clock.monotonic() == pytest.approx(4 * 0.25 + 2.0)


async def test_a_broker_that_cannot_say_is_not_idle_and_no_end(clock: FakeClock) -> None:
    await asyncio.wait_for(running(clock, one=Fake(0, 0, KafkaConnectionError(), TimeoutError(), 0)).wait(until_idle=1.0), 5)
    assert clock.monotonic() == pytest.approx(4 * 0.25 + 1.0)


async def test_idle_is_a_fault_where_a_tenant_could_not_be_read(clock: FakeClock) -> None:
    one = running(clock)
    one.roles["poller"] = poller = Poller.__new__(Poller)  # no clients: nothing of it is started here
    poller.stopped = {"globex": "its checkpoint is damaged"}
    for name in ("lag", "failed"):
        setattr(poller, name, getattr(Fake(), name))
    with pytest.raises(FaultError, match="globex is not read: its checkpoint is damaged"):
        await one.wait(until_idle=3)


async def test_one_role_that_does_not_stop_cleanly_keeps_no_other_from_stopping(clock: FakeClock) -> None:
    one = running(clock)
    roles = [Fake(), Fake(stop_error=RuntimeError("stuck")), Fake()]
    one._started = cast(Any, list(roles))
    await one._stop()
    assert [role.log for role in roles] == [["stop"]] * 3


# --- the whole --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Backstage]:
    with backstage(tmp_path, scenario="quiet", rate=6000) as one:
        yield one


async def test_it_is_ready_when_all_roles_run_and_idle_when_the_log_is_read(stage: Backstage) -> None:
    settings = load(stage.config)
    people = [user["id"] for user in stage.simulation.okta.state()["users"].values()]
    events = [
        json.dumps({"uuid": f"e-{number}", "eventType": "user.session.start", "actor": {"type": "User", "id": person}}).encode()
        for number, person in enumerate(people)
    ]
    stage.simulation.okta.org.log.extend(events)
    one = Running(settings, ROLES)
    health = settings.data / "health-all.json"
    starting = asyncio.create_task(one.__aenter__())
    await until(health.exists)
    url = json.loads(health.read_text())["url"]
    assert url.startswith("http://127.0.0.1:")
    async with httpx.AsyncClient(trust_env=False, base_url=url) as http:
        assert (await http.get("/ready")).status_code == 503
        await starting
        try:
            assert (await http.get("/ready")).json() == {"ready": True}
            await asyncio.wait_for(one.wait(until_idle=1.0), 40)
            poller = cast(Poller, one.roles["poller"])
            poller.stopped["globex"] = "its checkpoint is damaged"
            assert (await http.get("/ready")).json() == {"ready": False, "why": ["globex is not read: its checkpoint is damaged"]}
            poller.stopped.clear()
            live = (await http.get("/live")).json()
            assert live["live"] is True
            assert set(live["lag"]) >= set(ROLES)
            assert not any(live["lag"].values())
            rows = await asyncio.to_thread(ask, settings.audit.path, "SELECT count(*) AS n FROM events")
            assert rows[0]["n"] == stage.simulation.okta.state()["events"]

            async def stuck() -> dict[str, int]:
                raise KafkaConnectionError

            assert one._health is not None
            swap(one._health, "_lags", stuck)
            assert (await http.get("/live")).status_code == 503
        finally:
            await one.__aexit__(None, None, None)
    assert not health.exists()


async def test_without_a_real_broker_there_is_no_single_role() -> None:
    with pytest.raises(ConfigurationError, match="run --role all"):
        Running(Settings(), ["poller"])


@pytest.mark.fault(33)
def test_sigterm_ends_it_within_half_a_minute_with_zero_although_a_vendor_hangs(stage: Backstage) -> None:
    """What it had in flight is delivered again to whoever comes next."""
    process = subprocess.Popen(
        [str(COMMAND), "run", "--config", str(stage.config)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stderr is not None
        assert any(line.startswith("running:") for line in process.stderr)
        for path in ("/2.0/users*", "/2.0/folders*", "/2.0/groups*"):
            stage.simulation.box.faults.add({"path": path, "hang": True, "times": None})
        stage.simulation.okta.acts.do(
            {"action": "hire", "login": "late@corp.example", "firstName": "L", "lastName": "T", "department": "Sales", "title": "x"}
        )
        time.sleep(2.0)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
        assert time.monotonic() - began <= 30
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def test_a_fault_ends_it_with_seventy(stage: Backstage) -> None:
    """A supervisor should start it again."""
    settings = load(stage.config)
    settings.data.mkdir(exist_ok=True)
    settings.audit.path.mkdir()
    done = subprocess.run([str(COMMAND), "run", "--config", str(stage.config)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 70, done.stderr
    assert "audit.duckdb" in done.stderr
    assert "Traceback" not in done.stderr
