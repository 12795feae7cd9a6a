"""Retries and parking as a state machine: whatever fails, dies, is asked again or is redriven, in any order, the end is policy's.

Held at every step: no effect that was acknowledged is made twice, nobody is told twice that the same thing is parked, and nothing is
both parked and acted on. At the end faults cease and a human redrives what is parked: the account is as policy asks, no entry and no
intent is left, every row is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from model.change import ActionStatus
from model.errors import TemporaryError
from stream import topics
from stream.provision import ProvisionRole
from tests.handlers.fakes import TENANT, Killed, person
from tests.stream import memory
from tests.stream.fakes import World, in_memory, settled

PEOPLE = ("00uann", "00ubob")
WHO = st.sampled_from(PEOPLE)
FAULTS = st.sampled_from([None, "503", "503_after", "timeout_before", "timeout_after", "429", "403", "kill_before", "kill_after"])


class Lane(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.patches = contextlib.ExitStack()
        self.patches.enter_context(in_memory())
        self.running: AsyncExitStack | None = None
        self.world = self._run(self._build())
        self.told = 0
        self.commands = 0
        self._start()

    async def _build(self) -> World:
        return World(*(person(who) for who in PEOPLE), settings={"give_up_s": 600})

    def teardown(self) -> None:
        try:
            self._settle()
        finally:
            self._run(self._close())
            self.patches.close()
            self.loop.close()

    # --- what may happen ------------------------------------------------------------------------------------------------

    @rule(who=WHO, department=st.sampled_from(["Sales", "Finance", "Engineering"]))
    def moves(self, who: str, department: str) -> None:
        self.world.directory.set(who, department=department)
        self.knocks(who)

    @rule(who=WHO)
    def knocks(self, who: str) -> None:
        self.told += 1
        self._run(self.world.knock(who, uuid=f"e-{self.told}"))
        self._work()

    @rule(faults=st.lists(FAULTS, min_size=1, max_size=4))
    def box_will_fail(self, faults: list[Any]) -> None:
        self.world.box.faults.extend(faults)

    @rule(delay=st.sampled_from([None, 3.0, 200.0]))
    def a_look_will_fail(self, delay: float | None) -> None:
        self.world.box.look_faults.append(TemporaryError("500", delay))

    @rule(seconds=st.sampled_from([1, 15, 150, 2000]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.shift(seconds)
        self._work()

    @rule(writes=st.integers(0, 12), who=WHO)
    def is_killed_on_the_way(self, writes: int, who: str) -> None:
        self.world.log.kill_after = writes
        self.knocks(who)
        self.restarts()

    @rule()
    def restarts(self) -> None:
        self._run(self._close())
        self._start()
        self._work()

    @rule(kind=st.sampled_from(["redrive", "redrive", "drop"]), who=WHO)
    def a_human_decides(self, kind: str, who: str) -> None:
        self.commands += 1
        self._run(self.world.command(kind, who, id=f"c-{self.commands}", lane="provision", slot="box"))
        self._work()

    # --- what must hold -------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_acknowledged_was_done_twice(self) -> None:
        standing: set[tuple[str, str]] = set()
        opposite = {"grant": "revoke", "revoke": "grant"}
        for one in self.world.box.effects:
            kind, subject = one.change.kind.value, f"{one.change.account} {one.change.subject}"
            if kind in ("create", *opposite):
                assert not (one.changed and (kind, subject) in standing), f"{one.change.label} was done twice"
                if self.world.log.rows[one.intent].status in (ActionStatus.DONE, ActionStatus.ALREADY):
                    standing.add((kind, subject))
                standing.discard((opposite.get(kind, ""), subject))

    @invariant()
    def one_account_a_person(self) -> None:
        logins = [state.login for state in self.world.box.accounts.values()]
        assert len(logins) == len(set(logins))

    @invariant()
    def everything_that_is_parked_was_told(self) -> None:
        parked = [due for due in self._entries() if due.kind == "parked"]
        told = {(one.person, one.target) for one in self.world.log.notices("parked")}
        assert all((due.person, due.slot) in told for due in parked)

    # --- the ends -------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        world = self.world
        world.box.faults.clear()
        world.box.look_faults.clear()
        world.log.kill_after = None
        self.restarts()
        for due in [due for due in self._entries() if due.kind == "parked"]:
            self.a_human_decides("redrive", due.person)
        for who in PEOPLE:
            self.moves(who, "Finance")
        self.time_passes(5000)
        self.time_passes(5000)
        for who in PEOPLE:
            (account,) = [state for state in world.box.accounts.values() if state.login == f"{who}@acme.test"]
            desired = world.directory.people[TENANT, who]
            assert ("group", desired.department) in account.grants
            assert ("folder", "Sales") not in account.grants
        assert self._entries() == []
        assert not world.log.state(topics.INTENTS)
        assert not [row for row in world.log.rows.values() if row.status is ActionStatus.INTENDED]

    # --- how ------------------------------------------------------------------------------------------------------------

    def _entries(self) -> list[Any]:
        from stream.schedule import Due

        return [Due.from_bytes(value) for value in self.world.log.state(topics.DUE).values()]

    def _start(self) -> None:
        """What is due runs at once, and may kill this one as well."""

        async def start() -> ProvisionRole | None:
            self.running = AsyncExitStack()
            with contextlib.suppress(Killed):
                return cast(ProvisionRole, await self.running.enter_async_context(self.world.provision()))
            return None

        while (role := self._run(start())) is None:
            pass
        self.role = role

    async def _close(self) -> None:
        if self.running is not None:
            await self.running.aclose()

    def _work(self) -> None:
        """Where the process died on the way, another one takes over."""

        async def work() -> bool:
            with contextlib.suppress(Killed):
                self.role.schedule.rescan()
                await settled(self.role)
                await cast(memory.Worker, self.role.worker).drain()
                await settled(self.role)
                return True
            return False

        while not self._run(work()) or self.role.schedule.failure is not None:
            self.world.log.dead = False
            self._run(self._close())
            self._start()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)


TestLane = Lane.TestCase
TestLane.settings = settings(
    deadline=None, max_examples=25, stateful_step_count=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
