"""The lanes over Kafka in memory, with the real engines and the strict targets of tests/handlers: only network and time are not real."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, TypeVar, cast

import pytest

from handlers.converge import Converger
from handlers.lockdown import Lockdown
from handlers.protected import ProtectedList
from model.decision import Moment, Response, Scope, Severity
from model.errors import PermanentError, TemporaryError
from model.person import Person
from model.records import Command, Decision, EventRef, Knock, Order
from model.settings import Settings
from rules.policy import Policy
from stream import topics
from stream.books import Links
from stream.lane import LaneRole
from stream.lockdown import LockdownRole
from stream.provision import ProvisionRole
from stream.topics import person_key
from tests.handlers.fakes import NOON, TENANT, FakeDirectory, FakeJournal, FakeTarget, Killed, person
from tests.handlers.house import NOBODY
from tests.stream import memory
from tests.stream.memory import Log
from tests.support.clock import FakeClock

ANN = "00uann"
R = TypeVar("R", bound=LaneRole)


@contextlib.contextmanager
def in_memory() -> Iterator[None]:
    """The lanes' Kafka is a dictionary."""
    with pytest.MonkeyPatch.context() as patch:
        for module, names in {
            "lane": ("Publisher", "State", "Worker"),
            "lockdown": ("State", "Follower"),
            "provision": ("State", "Follower"),
            "classify": ("Publisher", "State", "Follower", "Worker"),
        }.items():
            for name in names:
                patch.setattr(f"stream.{module}.{name}", getattr(memory, name))
        yield


class Directory(FakeDirectory):
    """With groups. `member_faults` are raised by readings of a group."""

    def __init__(self, *people: Person) -> None:
        super().__init__(*people)
        self.groups: dict[str, tuple[str, ...]] = {}
        self.member_faults: list[TemporaryError | PermanentError] = []

    async def members(self, tenant: str, group_id: str, lane: str) -> tuple[str, ...]:
        await asyncio.sleep(0)
        if self.member_faults:
            raise self.member_faults.pop(0)
        return self.groups[group_id]


class World:
    """What survives a restart: the log, the vendors, the directory, the time."""

    def __init__(self, *people: Person, settings: dict[str, Any] | None = None) -> None:
        self.log, self.clock = Log(), FakeClock(NOON)
        people = people or (person(ANN),)
        self.directory = Directory(*people)
        journal = cast(FakeJournal, self.log)
        self.box, self.okta = FakeTarget("box", journal), FakeTarget("okta", journal, kind="okta")
        for one in people:
            self.okta.add(one.login, id=one.id)
        safety = {"retry_first_s": 10, "retry_longest_s": 100, "read_back_after_s": 60, "second_look_s": 5, "give_up_s": 3600}
        self.settings = Settings.model_validate({"safety": safety | (settings or {})})
        self.protected: ProtectedList = NOBODY

    @property
    def fleet(self) -> dict[str, dict[str, FakeTarget]]:
        return {TENANT: {"okta": self.okta, "box": self.box}}

    def employ(self, login: str = f"{ANN}@acme.test", id: str = "200") -> str:
        """An account at Box that was there before, open."""
        return self.box.add(login, id=id)

    @contextlib.asynccontextmanager
    async def lockdown(self, *, dry_run: bool = False) -> AsyncIterator[LockdownRole]:
        role = LockdownRole(cast(Any, self.log), self.settings, self.clock)
        links_state = memory.State(self.log, cast(Any, role.publisher), topics.LINKS, lambda key, value: links.changed(key, value))
        links = Links(cast(Any, links_state))
        role.more.append(cast(Any, links_state))
        role.engine = Lockdown(
            self.fleet, self.directory, role.journal, role.keeper, role.keeper, links, role.worker, role.removals, self.protected,
            self.clock, dry_run=dry_run,
        )  # fmt: skip
        async with self._running(role):
            yield role

    @contextlib.asynccontextmanager
    async def provision(self, policy: Policy | None = None) -> AsyncIterator[ProvisionRole]:
        role = ProvisionRole(cast(Any, self.log), self.settings, self.directory, self.clock)
        engine = Converger(
            self.fleet, self.directory, policy or Policy.load(), role.journal, role.holds, role.links, role.worker, role.removals,
            self.protected, self.clock, transfer_hold_s=3600,
        )  # fmt: skip
        role.use(engine, {TENANT: ("box",)})
        async with self._running(role):
            yield role

    @contextlib.asynccontextmanager
    async def _running(self, role: LaneRole) -> AsyncIterator[None]:
        self.log.dead = False
        await role.start()
        try:
            await settled(role)
            yield
        finally:
            self.log.kill_after = None
            await role.stop()

    # --- what is sent -------------------------------------------------------------------------------------------------------

    async def order(self, who: str = ANN, uuid: str = "e-1", kind: str = "lockdown", **facts: Any) -> Order:
        one = make_order(who, uuid, kind, at=facts.pop("at", self.clock.now()), **facts)
        self.log.put(topics.THREATS.name, person_key(TENANT, who), one.to_bytes())
        return one

    async def knock(self, who: str = ANN, uuid: str | None = "e-1", **facts: Any) -> Knock:
        event = EventRef(uuid=uuid, event_type="user.lifecycle.create", received=self.clock.now()) if uuid else None
        one = Knock(id=f"k-{uuid}-{who}", tenant=TENANT, person=who, moment=Moment.JOIN, event=event, **facts)
        self.log.put(topics.KNOCKS.name, person_key(TENANT, who), one.to_bytes())
        return one

    async def command(self, kind: str, who: str = ANN, id: str = "c-1", key: bytes | None = None, **args: Any) -> Command:
        one = make_command(kind, who, id, **args)
        self.log.put(topics.COMMANDS.name, key or person_key(TENANT, who), one.to_bytes())
        return one

    # --- what is seen -------------------------------------------------------------------------------------------------------

    def due(self) -> dict[str, Any]:
        """Slot → entry, of one person's worth of work."""
        from stream.schedule import Due

        return {due.slot: due for due in map(Due.from_bytes, self.log.state(topics.DUE).values())}

    def states(self) -> list[str]:
        return [one.state for one in self.log.incidents()]


async def work(role: LaneRole) -> None:
    """Hands over everything that waits, and lets all of it end."""
    await cast(memory.Worker, role.worker).drain()
    await settled(role)
    await cast(memory.Worker, role.worker).drain()


async def later(world: World, role: LaneRole, seconds: float) -> None:
    """So much time passes; what is due by then runs."""
    world.clock.shift(seconds)
    role.schedule.rescan()
    await settled(role)


async def settled(role: LaneRole) -> None:
    quiet = 0
    while quiet < 60:
        await asyncio.sleep(0)
        quiet = 0 if len(role.chains) else quiet + 1
    if isinstance(role.schedule.failure, Killed):
        raise Killed
    assert role.schedule.failure is None, role.schedule.failure


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """For what real time brings about."""
    for _ in range(int(timeout_s / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about in time")


async def killed(world: World, running: AbstractAsyncContextManager[LaneRole], writes: int | None = None) -> None:
    """Works until the process is killed at the n-th write (or by a fault of a target); at the latest when all is done."""
    with contextlib.suppress(Killed):
        async with running as role:
            world.log.kill_after = writes
            await work(role)


def make_order(who: str = ANN, uuid: str = "e-1", kind: str = "lockdown", *, at: Any = NOON, **facts: Any) -> Order:
    event = EventRef(uuid=uuid, event_type="user.risk.detect", received=at, published=at)
    decision = Decision(
        id=f"d-{uuid}", tenant=TENANT, event_uuid=uuid, person=who, rule="r-1", rule_version="1", title="Risk is high",
        asked=Response.LOCKDOWN, response=Response.LOCKDOWN, severity=Severity.CRITICAL, scope=Scope.FULL, decided=at,
    )  # fmt: skip
    base: dict[str, Any] = {"id": f"o-{kind}-{uuid}", "kind": kind, "tenant": TENANT, "person": who, "event": event}
    return Order.model_validate(base | ({"decisions": (decision,)} if kind in ("lockdown", "approve") else {}) | facts)


def make_command(kind: str, who: str = ANN, id: str = "c-1", **args: Any) -> Command:
    base = {"id": id, "kind": kind, "tenant": TENANT, "person": who, "actor": "cara", "reason": "cleared", "args": args, "at": NOON}
    return Command.model_validate(base)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)
