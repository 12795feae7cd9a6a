"""All simulators together: `portcullis simulate`, the demo, and tests that want the whole house.

Ports: Okta N, Box N+1, Slack N+2 (Microsoft 365 N+3, iOffice N+4, SCIM N+5 are kept free for them), further tenants' Okta from N+6 on;
N = 0 takes any free ones. Logs are read before anything listens, so that a bad line refuses at once; the configuration is written when
everything listens, and the day begins with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.errors import ConfigurationError
from simulators import written
from simulators.base import Simulator
from simulators.box import BoxSimulator
from simulators.company import SERVICE_LOGIN
from simulators.okta import OktaSimulator
from simulators.okta.buckets import LOGS_A_MINUTE
from simulators.scenario import Day, Name
from simulators.seeding import seed_box, seed_box_people, seed_break_glass, seed_people, seed_slack
from simulators.slack import SlackSimulator

DEFAULT_TENANT = "default"
_FURTHER = 6
_BOX_A_MINUTE = 1000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """`okta_logs`: (tenant, file of LogEvents, one a line), in order; `tenants`: more of them, without a log. `rate` is the log's bucket a
    minute; above the vendor's it raises the other limits in proportion. `pace` 0.5 plays the day twice as fast."""

    port_base: int = 0
    okta_logs: tuple[tuple[str, Path], ...] = ()
    tenants: tuple[str, ...] = ()
    scenario: Name | None = None
    write_config: Path | None = None
    rate: int = LOGS_A_MINUTE
    lag_s: float = 0.5
    pace: float = 1.0
    host: str = "127.0.0.1"

    @property
    def tenant_names(self) -> tuple[str, ...]:
        """In the order of their ports. A scenario plays in the default tenant, which is then the first."""
        named = dict.fromkeys([*(tenant for tenant, _ in self.okta_logs), *self.tenants])
        if self.scenario is not None or not named or DEFAULT_TENANT in named:
            named = {DEFAULT_TENANT: None} | named
        return tuple(named)


class Simulation:
    """`oktas` by tenant; `day` is what a scenario plays, None without one; `channel` the id of the Slack channel that is configured.
    Start once."""

    def __init__(self, options: SimulationOptions) -> None:
        _check(options)
        self.options = options
        self.oktas = {name: OktaSimulator(tenant=name, lag=options.lag_s, rate=options.rate) for name in options.tenant_names}
        self._tokens = {name: f"00{secrets.token_urlsafe(30)}" for name in self.oktas}
        self._protected: dict[str, tuple[tuple[str, str], ...]] = {}
        self._slack_token = f"xoxb-{secrets.token_urlsafe(24)}"
        a_minute = int(_BOX_A_MINUTE * max(1.0, options.rate / LOGS_A_MINUTE))
        self.box = BoxSimulator(client_secret=secrets.token_urlsafe(24), rate_per_minute=a_minute)
        self.slack = SlackSimulator(token=self._slack_token)
        self.channel = ""
        self.day: Day | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def okta(self) -> OktaSimulator:
        """The first tenant's org, in which a scenario plays."""
        return next(iter(self.oktas.values()))

    @property
    def urls(self) -> dict[str, str]:
        """`okta`, `box`, `slack`, and `okta.NAME` of each further tenant."""
        further = {f"okta.{name}": okta.url for name, okta in list(self.oktas.items())[1:]}
        return {"okta": self.okta.url, "box": self.box.url, "slack": self.slack.url} | further

    @property
    def crashes(self) -> list[str]:
        """Defects of the simulators themselves: requests whose handler raised."""
        return [crash for one in self._all() for crash in one.crashes]

    async def start(self) -> None:
        """Raises ConfigurationError for a log that cannot be read, a port that is taken, a configuration that cannot be written."""
        self._seed()
        try:
            await self._listen()
            if self.options.write_config is not None:
                written.write(self.options.write_config, self._scene())
        except BaseException:
            await self.stop()
            raise
        if self.day is not None:
            self._task = asyncio.create_task(self._play(self.day))

    async def stop(self) -> None:
        """Ends the day, closes every port. State can still be read from the objects."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._task
        for one in self._all():
            await one.stop()

    async def finished(self) -> None:
        """Returns when the scenario has been played (at once where there is none). Raises what stopped it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _seed(self) -> None:
        for name, okta in self.oktas.items():
            service = okta.add_token(self._tokens[name], SERVICE_LOGIN)
            glass = seed_break_glass(okta)
            self._protected[name] = ((glass.id, "break-glass"), (service.id, "Portcullis' own service account"))
        for tenant, path in self.options.okta_logs:
            self.oktas[tenant].load(path)
        seed_box(self.box)
        self.channel = seed_slack(self.slack)
        if self.options.scenario is not None:
            ids = seed_people(self.okta)
            seed_box_people(self.box)
            if self.options.scenario == "day":
                self.day = Day(self.okta, ids, pace=self.options.pace)

    async def _listen(self) -> None:
        base, host = self.options.port_base, self.options.host
        places: list[tuple[Simulator, int]] = [(self.okta, 0), (self.box, 1), (self.slack, 2)]
        places += [(okta, _FURTHER + at) for at, okta in enumerate(list(self.oktas.values())[1:])]
        for one, offset in places:
            port = base + offset if base else 0
            try:
                await one.start(port, host)
            except OSError as error:
                raise ConfigurationError(
                    f"the simulated {one.name} cannot listen on {host}:{port}: {error.strerror}: choose another --port-base"
                ) from None

    def _scene(self) -> written.Scene:
        tenants = [written.Tenant(name, okta.url, self._tokens[name], self._protected[name]) for name, okta in self.oktas.items()]
        return written.Scene(
            tenants=tuple(tenants),
            box_url=self.box.url,
            box_client=self.box.client_id,
            box_secret=self.box.client_secret,
            enterprise=self.box.store.enterprise,
            slack_url=self.slack.url,
            slack_token=self._slack_token,
            channel=self.channel,
            rate=self.options.rate,
            calls_a_minute=self.box.rate.limit,
        )

    async def _play(self, day: Day) -> None:
        try:
            await day.play()
        except Exception:
            self.okta.scenario = "failed"
            _log.exception("the day stopped")
            raise

    def _all(self) -> list[Simulator]:
        return [*self.oktas.values(), self.box, self.slack]


async def serve(options: SimulationOptions, announce: Callable[[Simulation], None] = lambda _: None) -> None:
    """Runs until SIGTERM or SIGINT. `announce` is called once everything listens. Raises what `Simulation.start` raises."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stopping.set)
    simulation = Simulation(options)
    try:
        await simulation.start()
        announce(simulation)
        await stopping.wait()
    finally:
        await simulation.stop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(one)


def _check(options: SimulationOptions) -> None:
    if options.port_base and not 1 <= options.port_base <= 65535 - _FURTHER - len(options.tenant_names):
        raise ConfigurationError(f"--port-base {options.port_base}: choose one from 1 to {65535 - _FURTHER - len(options.tenant_names)}")
    if options.rate < 1:
        raise ConfigurationError(f"--rate {options.rate}: the log must answer at least once a minute")
    for name in options.tenant_names:
        if not name or not all(char.isalnum() or char in "-_" for char in name):
            raise ConfigurationError(f"the tenant name {name!r} may hold letters, digits, - and _ only")


def parse_log_option(text: str) -> tuple[str, Path]:
    """`[TENANT=]FILE`. A file of that whole name is the file; else what stands before the first `=` is a tenant if it looks like one."""
    name, found, path = text.partition("=")
    if not Path(text).exists() and found and path and name and all(char.isalnum() or char in "-_" for char in name):
        return name, Path(path)
    return DEFAULT_TENANT, Path(text)
