"""`portcullis run`: starts roles, watches them, ends them.

Nobody else ends the process of a crashed Faust app, so we watch: a role that cannot go on ends all, with exit code 70. SIGTERM and
SIGINT stop within 30 seconds with 0. `until_idle` ends with 0 when the logs are read to their ends and no stage that runs here had lag,
or work due before now + S, for S seconds.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiokafka.errors import KafkaError

from handlers.contract import Clock
from model.errors import ConfigurationError, FaultError, PortcullisError
from model.settings import Settings
from rules.policy import Policy
from rules.ruleset import RuleSet
from stream.breakers import shown
from stream.broker import Broker
from stream.clock import SystemClock
from stream.health import HealthService
from stream.house import ROLES, House, Role, build_house, build_roles, load_rules, policy_of
from stream.lane import LaneRole
from stream.poller import Poller

log = logging.getLogger(__name__)

STOP_S = 28.0
#: Objects made before the youngest are looked through, and how often the older generations join in.
COLLECT_AFTER = (50_000, 20, 50)


class Running:
    """Roles of one process. `async with` starts and stops them; `wait` returns when asked to stop, idle, or raises a fault."""

    def __init__(
        self,
        settings: Settings,
        roles: Iterable[str],
        *,
        clock: Clock | None = None,
        policy: Policy | None = None,
        ruleset: RuleSet | None = None,
    ) -> None:
        self.settings = settings
        self.names = tuple(name for name in ROLES if name in set(roles))
        self._clock = clock or SystemClock()
        self._policy = policy or policy_of(settings)
        self._ruleset = load_rules(settings) if ruleset is None and "classifier" in self.names else ruleset
        if settings.kafka.bootstrap is None and set(self.names) != set(ROLES):
            raise ConfigurationError(
                "no broker is configured and the embedded one lives in one process: run --role all, or set [kafka] bootstrap"
            )
        self.broker = Broker(settings.kafka)
        self.house: House | None = None
        self.roles: dict[str, Role] = {}
        self._started: list[Role] = []
        self._health: HealthService | None = None
        self.stopping = asyncio.Event()

    async def __aenter__(self) -> Running:
        try:
            await self._start()
        except KafkaError as error:  # it answered a moment ago: from the beginning, where we wait for it
            await self._stop()
            raise FaultError(f"the broker went away while {', '.join(self.names)} started ({type(error).__name__})") from error
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _start(self) -> None:
        name = "-".join(self.names) if len(self.names) < len(ROLES) else "all"
        self._health = HealthService(self.settings, name, self.lags, lambda: shown(self.house.limits) if self.house else [], self.troubles)
        await self._health.start()
        await self.broker.start()
        self.house = await build_house(self.settings, self.broker, self._clock, self.names, policy=self._policy)
        self.roles = build_roles(self.house, self.names, self._policy, self._ruleset)
        self._started = list(self.roles.values())
        await self._start_roles()
        self._health.ready = True

    async def _start_roles(self) -> None:
        """Where one cannot start, the others are let go of before they are stopped."""
        starting = [asyncio.create_task(self._start_role(name, role)) for name, role in self.roles.items()]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            raise

    async def _start_role(self, name: str, role: Role) -> None:
        """All at once: a Faust app takes seconds to join its group, and none needs another to be there first."""
        await role.start()
        log.info("%s is running", name)

    async def _stop(self) -> None:
        """In reverse: writers before readers."""
        if self._health is not None:
            self._health.ready = False
        for role in reversed(self._started):
            try:
                async with asyncio.timeout(STOP_S):
                    await role.stop()
            except (Exception, asyncio.CancelledError) as error:  # what is cancelled inside a client comes out of its `stop`
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                log.warning("a role did not stop cleanly, what it had not finished is delivered again: %r", error)
        self._started.clear()
        if self.house is not None:
            await self.house.close()
        await self.broker.stop()
        if self._health is not None:
            await self._health.stop()

    async def lags(self) -> dict[str, int]:
        """Role → records not yet worked through."""
        return {name: await role.lag() for name, role in self.roles.items()}

    async def wait(self, until_idle: float | None = None, on_tick: Callable[[dict[str, int]], None] | None = None) -> None:
        """Raises FaultError where a role cannot go on."""
        watching: dict[str, asyncio.Task[Any]] = {f"watch {n}": asyncio.create_task(role.failed()) for n, role in self.roles.items()}
        stop = asyncio.create_task(self.stopping.wait())
        idle = asyncio.create_task(self._until_idle(until_idle, on_tick))
        try:
            done, _ = await asyncio.wait({stop, idle, *watching.values()}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop, idle}:
                error = task.exception()
                if isinstance(error, PortcullisError):
                    raise error
                raise FaultError(f"a role ended: {error!r}") from error
            if idle in done:
                idle.result()
                if troubles := self.troubles():  # idle is not done
                    raise FaultError("; ".join(troubles))
        finally:
            for task in (stop, idle, *watching.values()):
                task.cancel()
            await asyncio.gather(stop, idle, *watching.values(), return_exceptions=True)

    def troubles(self) -> list[str]:
        """What keeps a role that runs from a part of its work."""
        poller = self.roles.get("poller")
        return [f"{tenant} is not read: {why}" for tenant, why in poller.stopped.items()] if isinstance(poller, Poller) else []

    async def _until_idle(self, seconds: float | None, on_tick: Callable[[dict[str, int]], None] | None) -> None:
        quiet = 0.0
        while True:
            await self._clock.sleep(0.25)
            if seconds is None and on_tick is None:
                continue
            try:
                lags = await self.lags()
            except (TimeoutError, KafkaError):  # nobody can say now: then it is not idle
                quiet = 0.0
                continue
            if on_tick is not None:
                on_tick(lags)
            if seconds is None:
                continue
            lanes = [role for role in self.roles.values() if isinstance(role, LaneRole)]
            is_busy = any(lags.values()) or any(role.due_before(seconds) for role in lanes)
            quiet = 0.0 if is_busy else quiet + 0.25
            if quiet >= seconds:
                return


def listen_to_signals(stop: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stop)


def settle_memory() -> None:
    """Called once when everything is built. What stands then is never walked again, and the rest seldom: the classifier remembers
    hundreds of thousands of small objects, next to nothing of ours is a cycle, and left alone the collector took 40 % of its time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def run(settings: Settings, roles: Iterable[str], until_idle: float | None = None, say: Callable[[str], None] = log.info) -> None:
    """Until a signal, idleness, or a fault (raised)."""
    running = Running(settings, roles)
    listen_to_signals(running.stopping.set)
    if settings.kafka.bootstrap is None:
        say("no broker is configured: using the embedded one (memory only, for evaluation)")
    starting: Awaitable[Running] = running.__aenter__()
    start = asyncio.ensure_future(starting)
    stop = asyncio.create_task(running.stopping.wait())
    await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not start.done():
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        stop.cancel()
        return
    stop.cancel()
    await start
    settle_memory()
    try:
        say(f"running: {', '.join(running.roles)} (stop with Ctrl-C)")
        await running.wait(until_idle)
        say("stopping")
    finally:
        await running.__aexit__(None, None, None)
