"""All simulators together: ports, tenants, logs, the configuration as a sign of readiness, and an orderly end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from handlers.protected import load_protected
from model.errors import ConfigurationError
from model.settings import load
from simulators.company import BOX_FOLDERS, BOX_GROUPS
from simulators.serve import Simulation, SimulationOptions, parse_log_option
from simulators.verify import addresses


def write_log(path: Path, count: int, prefix: str = "e") -> Path:
    user = {"type": "User", "id": f"00u{prefix}", "alternateId": f"{prefix}@corp.example", "displayName": "Ed Vent"}
    with path.open("w") as file:
        for number in range(count):
            event = {"uuid": f"{prefix}{number}", "eventType": "user.session.start", "actor": user, "published": "2020-01-01T00:00:00Z"}
            file.write(json.dumps(event) + "\n")
    return path


def free_base() -> int:
    """A base whose next nine ports were free a moment ago."""
    for base in range(21_000, 32_000, 37):
        sockets = [socket.socket() for _ in range(9)]
        try:
            for offset, one in enumerate(sockets):
                one.bind(("127.0.0.1", base + offset))
            return base
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise AssertionError("no nine free ports in a row")


async def test_ports_are_where_the_contract_says(tmp_path: Path) -> None:
    base = free_base()
    logs = (("default", write_log(tmp_path / "a.jsonl", 3)), ("emea", write_log(tmp_path / "b.jsonl", 2, "f")))
    simulation = Simulation(SimulationOptions(base, okta_logs=logs, tenants=("apac",)))
    await simulation.start()
    try:
        ports = {name: int(url.rpartition(":")[2]) - base for name, url in simulation.urls.items()}
        assert ports == {"okta": 0, "box": 1, "slack": 2, "okta.emea": 6, "okta.apac": 7}
        async with httpx.AsyncClient(trust_env=False) as client:
            events = {name: (await client.get(f"{simulation.urls[name]}/_sim/state")).json()["events"] for name in ports if "okta" in name}
        assert events == {"okta": 3, "okta.emea": 2, "okta.apac": 0}
    finally:
        await simulation.stop()


@pytest.mark.parametrize(
    ("logs", "scenario", "names"),
    [
        ((), None, ("default",)),
        (("acme",), None, ("acme",)),
        (("acme",), "day", ("default", "acme")),
        (("acme", "default", "acme"), None, ("default", "acme")),
        (("b", "a"), None, ("b", "a")),
    ],
)
def test_which_tenants_there_are_and_in_which_order(logs: tuple[str, ...], scenario: str | None, names: tuple[str, ...]) -> None:
    options = SimulationOptions(okta_logs=tuple((name, Path("x")) for name in logs), scenario=scenario)  # type: ignore[arg-type]
    assert options.tenant_names == names


def test_an_option_may_name_its_tenant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_log_option("log.jsonl") == ("default", Path("log.jsonl"))
    assert parse_log_option("emea=dir/log=1.jsonl") == ("emea", Path("dir/log=1.jsonl"))
    assert parse_log_option("dir/a=b.jsonl") == ("default", Path("dir/a=b.jsonl"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.jsonl").touch()
    assert parse_log_option("a=b.jsonl") == ("default", Path("a=b.jsonl"))


# -- the configuration ------------------------------------------------------------------------------------------------


async def test_the_configuration_loads_and_its_secrets_open_the_doors(tmp_path: Path) -> None:
    place = tmp_path / "new" / "portcullis.toml"
    logs = (("default", write_log(tmp_path / "a.jsonl", 3)), ("emea", write_log(tmp_path / "b.jsonl", 2, "f")))
    simulation = Simulation(SimulationOptions(okta_logs=logs, write_config=place))
    await simulation.start()
    try:
        settings = load(place)
        assert list(settings.okta) == ["default", "emea"]
        assert {name: target.tenant for name, target in settings.targets.items()} == {"okta": "default", "okta-emea": "emea", "box": None}
        assert addresses(settings).okta == simulation.urls["okta"]
        async with httpx.AsyncClient(trust_env=False) as client:
            for okta in settings.okta.values():
                assert okta.start == "beginning"
                headers = {"Authorization": f"SSWS {okta.token.read('x').get_secret_value()}"}
                me = (await client.get(f"{okta.url}/api/v1/users/me", headers=headers)).json()
                assert me["profile"]["login"] == "portcullis@corp.example"
            box, slack = settings.targets["box"], settings.slack
            assert slack is not None
            form = {
                "grant_type": "client_credentials",
                "client_id": box.client_id,
                "client_secret": box.secret.read("x").get_secret_value(),
            }
            form |= {"box_subject_type": "enterprise", "box_subject_id": box.enterprise_id}
            token = (await client.post(str(box.token_url), data=form)).json()["access_token"]
            items = await client.get(f"{box.url}/folders/0/items", headers={"Authorization": f"Bearer {token}"})
            assert {item["name"] for item in items.json()["entries"]} == set(BOX_FOLDERS)
            groups = await client.get(f"{box.url}/groups", headers={"Authorization": f"Bearer {token}"})
            assert {group["name"] for group in groups.json()["entries"]} == set(BOX_GROUPS)
            headers = {"Authorization": f"Bearer {slack.token.read('x').get_secret_value()}"}
            history = await client.get(f"{slack.url}/conversations.history", params={"channel": slack.channel}, headers=headers)
            assert history.json()["ok"]
    finally:
        await simulation.stop()


async def test_secrets_lie_beside_it_for_the_owner_only_and_nowhere_else(tmp_path: Path) -> None:
    place = tmp_path / "portcullis.toml"
    (tmp_path / "slack.token").write_text("old")
    (tmp_path / "slack.token").chmod(0o644)
    simulation = Simulation(SimulationOptions(write_config=place))
    await simulation.start()
    shown = repr(simulation._scene())
    await simulation.stop()
    files = [tmp_path / name for name in os.listdir(tmp_path)]
    names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert set(names) == {"portcullis.toml", "protected.toml", "okta-default.token", "box.secret", "slack.token"}
    assert {mode for name, mode in names.items() if not name.endswith(".toml")} == {0o600}
    secrets = [path.read_text().strip() for path in files if path.suffix != ".toml"]
    shown += place.read_text() + (tmp_path / "protected.toml").read_text()
    assert all(len(secret) > 20 and secret not in shown for secret in secrets)


async def test_the_protected_list_names_break_glass_and_ourselves(tmp_path: Path) -> None:
    simulation = Simulation(SimulationOptions(tenants=("default", "emea"), write_config=tmp_path / "c.toml"))
    await simulation.start()
    await simulation.stop()
    protected = load_protected(load(tmp_path / "c.toml").safety.protected)
    assert protected.is_trusted
    users = {tenant: okta.org.directory.now.users for tenant, okta in simulation.oktas.items()}
    named = {(tenant, users[tenant][person].login) for tenant, person in protected.people}
    logins = ("break.glass@corp.example", "portcullis@corp.example")
    assert named == {(tenant, login) for tenant in ("default", "emea") for login in logins}


@pytest.mark.parametrize(("rate", "interval"), [(120, 0.83), (60, 1.67), (100_000, 0.25)])
async def test_the_pace_of_the_poller_fits_the_bucket(tmp_path: Path, rate: int, interval: float) -> None:
    simulation = Simulation(SimulationOptions(write_config=tmp_path / "c.toml", rate=rate))
    await simulation.start()
    await simulation.stop()
    okta = load(tmp_path / "c.toml").okta["default"]
    assert okta.poll_interval_s == interval
    assert rate < 240 or 60 / okta.poll_interval_s < rate


async def test_when_the_configuration_is_there_everything_listens_and_the_day_runs(tmp_path: Path) -> None:
    place = tmp_path / "c.toml"
    simulation = Simulation(SimulationOptions(scenario="day", write_config=place, pace=0.05))
    starting = asyncio.create_task(simulation.start())
    while not place.exists():  # noqa: ASYNC110 - a file gives no event
        await asyncio.sleep(0)
    where = addresses(load(place))
    await starting
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            for url in (where.okta, where.box, where.slack):
                assert (await client.get(url.removesuffix("/2.0").removesuffix("/api") + "/_sim/state")).status_code == 200
            assert (await client.get(f"{where.okta}/_sim/state")).json()["scenario"] == "running"
            await asyncio.wait_for(simulation.finished(), 20)
            state = (await client.get(f"{where.okta}/_sim/state")).json()
        assert state["scenario"] == "done"
        assert state["events"] > 30
    finally:
        await simulation.stop()


async def test_in_quiet_the_company_stands_there_and_nothing_happens() -> None:
    simulation = Simulation(SimulationOptions(scenario="quiet"))
    await simulation.start()
    await simulation.finished()
    await simulation.stop()
    assert simulation.okta.scenario is None
    assert len(simulation.okta.org.log) == 0
    assert simulation.box.find_user("tom.becker@corp.example") is not None


async def test_a_day_that_fails_says_so() -> None:
    simulation = Simulation(SimulationOptions(scenario="day", pace=0.0))
    assert simulation.day is None
    await simulation.start()
    assert simulation.day is not None
    simulation.day.ids.clear()
    with pytest.raises(KeyError):
        await simulation.finished()
    assert simulation.okta.state()["scenario"] == "failed"
    await simulation.stop()


# -- refusals ---------------------------------------------------------------------------------------------------------


async def test_a_bad_line_refuses_before_anything_listens(tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.jsonl", 4)
    log.write_text(log.read_text() + "[]\n")
    simulation = Simulation(SimulationOptions(okta_logs=(("default", log),), write_config=tmp_path / "c.toml"))
    with pytest.raises(ConfigurationError, match=r"a\.jsonl: line 5"):
        await simulation.start()
    assert not (tmp_path / "c.toml").exists()


async def test_a_taken_port_refuses_and_leaves_none_open(tmp_path: Path) -> None:
    base = free_base()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + 2))
        taken.listen()
        simulation = Simulation(SimulationOptions(base, write_config=tmp_path / "c.toml"))
        with pytest.raises(ConfigurationError, match=rf"slack cannot listen on 127\.0\.0\.1:{base + 2}.*--port-base"):
            await simulation.start()
    assert not (tmp_path / "c.toml").exists()
    with socket.socket() as free:
        free.bind(("127.0.0.1", base))


async def test_a_place_that_cannot_be_written_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="choose another place"):
        await Simulation(SimulationOptions(write_config=tmp_path / "file" / "c.toml")).start()


@pytest.mark.parametrize("options", [{"port_base": 65_535}, {"port_base": -1}, {"rate": 0}, {"tenants": ("a b",)}, {"tenants": ("",)}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        Simulation(SimulationOptions(**options))  # type: ignore[arg-type]


# -- size and end -----------------------------------------------------------------------------------------------------


async def test_two_hundred_thousand_events_are_read_to_the_end(tmp_path: Path) -> None:
    log = write_log(tmp_path / "big.jsonl", 200_000)
    simulation = Simulation(SimulationOptions(okta_logs=(("default", log),), rate=100_000))
    await simulation.start()
    try:
        headers = {"Authorization": f"SSWS {simulation._tokens['default']}"}
        async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
            url, size, pages = f"{simulation.okta.url}/api/v1/logs?since=2025-12-01T00:00:00Z&limit=1000", 0, 0
            while True:
                answer = await client.get(url.replace("2025-12-01", _recently()) if pages == 0 else url)
                if len(answer.content) == 2:
                    break
                size, pages = size + len(answer.content), pages + 1
                url = next(link for link in answer.headers.get_list("link") if "next" in link).partition("<")[2].partition(">")[0]
        assert pages == 200
        assert size == log.stat().st_size + 200, "the lines, a comma or a bracket for each line feed, and a bracket a page"
    finally:
        await simulation.stop()


def _recently() -> str:
    return (datetime.now(UTC) - timedelta(days=90)).date().isoformat()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_on_a_signal_with_0(tmp_path: Path, root: Path, number: signal.Signals) -> None:
    place = tmp_path / "c.toml"
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom simulators.serve import SimulationOptions, serve\n"
        "asyncio.run(serve(SimulationOptions(scenario='day', write_config=Path(sys.argv[1]))))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    process = await asyncio.create_subprocess_exec(sys.executable, "-W", "error", "-c", program, str(place), env=environment)
    try:
        async with asyncio.timeout(30):
            while not place.exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)
            process.send_signal(number)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
