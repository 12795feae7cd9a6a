"""Plays a script: acts, log elements, faults and kills at their times, then waits until nothing is left to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer

from model.settings import load
from stream import topics
from stream.desk import Desk, desk
from stream.schedule import Due
from tests.torture.ledgers import Crash
from tests.torture.noise import STEADY, Element
from tests.torture.plan import Act, Entries, Garbage, Script, Step, Strike, Taken, Trouble
from tests.torture.processes import Fleet
from tests.torture.world import TENANT, World

#: All is to be quiet after so long at most.
QUIET_S = 240.0
#: So many looks in a row must find nothing to do.
_LOOKS = 4
_LOOK_S = 0.5

Say = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """`recovery_s`: from the last kill until no role had anything left to read (Slack aside, which takes a message a second); None where
    that did not come. `left`: what was still due when patience ended."""

    kills: int = 0
    broker_kills: int = 0
    crashes: list[Crash] = field(default_factory=list)
    last_kill: float = 0.0
    recovery_s: float | None = None
    quiet: bool = False
    left: list[str] = field(default_factory=list)


class Conductor:
    def __init__(self, script: Script, fleet: Fleet, world: World, say: Say) -> None:
        self._script, self._fleet, self._world, self._say = script, fleet, world, say
        self._began = 0.0
        self._told = 0.0
        self._played = 0
        self.outcome = Outcome()

    async def play(self) -> Outcome:
        """Everything of the script, then fair weather."""
        self._began = time.time()
        strikes = [asyncio.create_task(self._strike(strike)) for strike in self._script.strikes]
        try:
            for step in self._script.steps:
                await self._until(step.at)
                await self._step(step)
                self._progress()
            await asyncio.gather(*strikes)
        finally:
            for task in strikes:
                task.cancel()
        await self._world.fair_weather()
        self._say(f"{self._elapsed():5.0f} s  all {self._played} events and {len(strikes)} strikes are played: waiting for quiet")
        return self.outcome

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, self._began + at - time.time()))

    async def _step(self, step: Step) -> None:
        match step:
            case Act():
                await self._world.act(step, time.time())
                self._played += 1
            case Entries():
                await self._world.log([self._filled(one) for one in step.elements])
                self._played += len(step.elements)
            case Taken():
                await self._world.take(step)
            case Trouble():
                await self._world.fault(step.vendor, step.order)
            case Garbage():
                await self._garbage(step)

    def _filled(self, element: Element) -> bytes:
        """The same bytes whenever it is sent, so that a repeat is one."""
        at = datetime.fromtimestamp(self._began + element.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        raw = element.template.replace(b"@AT@", at.encode())
        for who in (*STEADY, "sofia.marin"):
            raw = raw.replace(f"@ID:{who}@".encode(), self._world.id_of(who).encode())
        return raw

    async def _garbage(self, step: Garbage) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._fleet.bootstrap, acks="all", enable_idempotence=True)
        while True:
            try:
                await producer.start()
                break
            except Exception:  # the broker may be down just now
                await asyncio.sleep(0.5)
        try:
            await producer.send_and_wait(step.topic, step.raw, key=topics.person_key(TENANT, self._world.id_of(step.who)))
        finally:
            await producer.stop()

    async def _strike(self, strike: Strike) -> None:
        await self._until(strike.at)
        now = time.time()
        await self._fleet.strike(strike)
        self.outcome.crashes.append(Crash(now, strike.role, time.time() - now))
        if strike.how == "kill":
            self.outcome.last_kill = max(self.outcome.last_kill, now)
            if strike.role == "broker":
                self.outcome.broker_kills += 1
            else:
                self.outcome.kills += 1

    def _progress(self) -> None:
        if self._elapsed() - self._told >= 10:
            self._told = self._elapsed()
            done = self.outcome
            self._say(
                f"{self._told:5.0f} s  {self._played}/{self._script.events} events, {done.kills} kills, {done.broker_kills} of the broker, "
                f"{sum(end.is_fault for end in self._fleet.ends)} restarts after a fault"
            )

    def _elapsed(self) -> float:
        return time.time() - self._began

    # -- until nothing is left -------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Waits for quiet: nothing to read in any role, nothing due, nothing to tell Slack."""
        settings = load(self._fleet.recorder_config)
        give_up, calm = time.time() + QUIET_S, 0
        async with desk(settings) as one:
            notes = (self._fleet.folder / "settling.log").open("w")
            while calm < _LOOKS and time.time() < give_up:
                await asyncio.sleep(_LOOK_S)
                busy = await self._busy(one)
                calm = 0 if busy else calm + 1
                notes.write(f"{self._elapsed():.1f} {'; '.join(busy)}\n")
                if time.time() - self._began - self._told >= 10:
                    self._told = self._elapsed()
                    self._say(f"{self._told:5.0f} s  not quiet yet: {', '.join(busy[:4]) or 'almost'}")
                self.outcome.left = busy
        self.outcome.quiet = calm >= _LOOKS

    async def _busy(self, one: Desk) -> list[str]:
        lags = await self._fleet.lags()
        behind = [f"{name} {'does not say' if lag is None else f'lags {lag}'}" for name, lag in sorted(lags.items()) if lag != 0]
        caught_up = not [name for name in behind if "notifier" not in name]
        if caught_up and self.outcome.recovery_s is None:
            self.outcome.recovery_s = time.time() - (self.outcome.last_kill or self._began + self._script.length_s)
        return behind or await self._due(one)

    @staticmethod
    async def _due(one: Desk) -> list[str]:
        entries = [Due.from_bytes(value) for value in (await one.snapshot(topics.DUE)).values()]
        return [f"{due.key} is due for {due.kind}: {due.code or due.reason}" for due in entries if due.kind != "parked"]
