"""E6 and the breaker at the provision lane: what fails is not asked for by everybody again, and nobody is asked while it is down."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from handlers.limits import BreakerState, Limits
from model.errors import RateLimited, TemporaryError
from stream import topics
from stream.provision import ProvisionRole
from stream.schedule import Due
from tests.handlers.fakes import TENANT, person, swap
from tests.stream.fakes import World, later, work
from tests.support.clock import FakeClock

pytestmark = pytest.mark.usefixtures("memory")

PEOPLE = 60
FLOOR = 10


class Connector:
    """Box behind real limits. `error`: what it answers now; `requests`: when it was asked, and for whom."""

    def __init__(self, world: World) -> None:
        self.clock: FakeClock = world.clock
        self.limits = Limits("box", "provision", world.clock, per_minute=1_000_000)
        self.error: Exception | None = None
        self.ill: frozenset[str] = frozenset()
        self.requests: list[tuple[float, str]] = []
        observe = world.box.observe

        async def limited(one: Any, link: Any, lane: Any) -> Any:
            async with self.limits.slot():
                self.requests.append((self.clock.monotonic(), one.id))
                if self.error is not None and (not self.ill or one.id in self.ill):
                    raise self.error
                return await observe(one, link, lane)

        swap(world.box, "observe", limited)

    def asked(self, since: float, who: Iterable[str] | None = None) -> list[float]:
        return [at for at, one in self.requests if at >= since and (who is None or one in who)]


def put_behind(role: ProvisionRole, connector: Connector) -> None:
    assert role.engine is not None
    role.use(role.engine, {TENANT: ("box",)}, [connector.limits])


def crowd(count: int = PEOPLE, name: str = "00u") -> list[str]:
    return [f"{name}{number}" for number in range(count)]


def busiest_minute(times: list[float]) -> int:
    return max((sum(begin <= at < begin + 60 for at in times) for begin in times), default=0)


@pytest.mark.fault(36)
async def test_with_a_failing_target_ten_retries_a_minute_go_out_and_no_more() -> None:
    world = World(*(person(one) for one in crowd()))
    box = Connector(world)
    async with world.provision() as role:
        put_behind(role, box)
        box.error = RateLimited("busy")  # says nothing about the connector's health, so the breaker stays out of this
        for one in crowd():
            await world.knock(one, uuid=f"e-{one}")
        await work(role)
        assert len(box.requests) == PEOPLE
        began = world.clock.monotonic() + 1
        for _ in range(60):
            await later(world, role, 5)
        retries = box.asked(began)
        assert busiest_minute(retries) == FLOOR, "the floor is used, and it is all that goes out"
        box.error = None
        for _ in range(200):
            await later(world, role, 5)
        assert world.due() == {}, "slow is not never"
        assert len(world.box.accounts) == PEOPLE


async def test_retries_stay_below_a_tenth_of_the_requests_of_a_busy_minute() -> None:
    ill, well = crowd(150, "00ill"), crowd(40, "00well")
    world = World(*(person(one) for one in (*ill, *well)))
    box = Connector(world)
    async with world.provision() as role:
        put_behind(role, box)
        box.error, box.ill = RateLimited("busy"), frozenset(ill)
        for one in ill:
            await world.knock(one, uuid=f"e-{one}")
        await work(role)
        await later(world, role, 61)
        began = world.clock.monotonic() + 1
        for step in range(24):  # two minutes in which everybody who is well is knocked every five seconds
            for one in well:
                await world.knock(one, uuid=f"e-{one}-{step}")
            await work(role)
            await later(world, role, 5)
        retries, requests = box.asked(began, ill), box.asked(began)
        assert FLOOR < busiest_minute(retries) <= 0.1 * busiest_minute(requests)


@pytest.mark.parametrize(
    ("attempts", "code", "looks"),
    [(0, "timeout", 30), (2, "remains", 30), (2, "closing", 30), (2, "BreakerOpen", 30), (1, "timeout", FLOOR)],
)
async def test_what_never_failed_is_no_retry(attempts: int, code: str, looks: int) -> None:
    """A batch that took too long, a target that lags, another lane that is asked first: nobody is kept waiting for those."""
    people = crowd(30)
    world = World(*(person(one) for one in people))
    box = Connector(world)
    async with world.provision() as role:
        put_behind(role, box)
        now = world.clock.now()
        for one in people:
            await role.schedule.put(
                Due(lane="provision", tenant=TENANT, person=one, slot="box", kind="retry", due=now, since=now, attempts=attempts, code=code)
            )
        await later(world, role, 1)
        assert len({one for _, one in box.requests}) == looks


async def test_who_was_put_off_is_still_due_after_a_restart() -> None:
    world = World(*(person(one) for one in crowd(FLOOR + 5)))
    box = Connector(world)
    async with world.provision() as role:
        put_behind(role, box)
        box.error = RateLimited("busy")
        for one in crowd(FLOOR + 5):
            await world.knock(one, uuid=f"e-{one}")
        await work(role)
        await later(world, role, 30)
        attempts = sorted(due.attempts for due in map(Due.from_bytes, world.log.state(topics.DUE).values()))
        assert attempts == [1] * 5 + [2] * FLOOR, "five were put off, and that was no attempt"
        assert role.due_before(0) == 5
    box.error = None
    async with world.provision() as role:  # its budget begins anew, as that of a process does
        await later(world, role, 0)
        assert len(world.box.accounts) == 5
        await later(world, role, 120)
        assert len(world.box.accounts) == FLOOR + 5


@pytest.mark.fault(38)
async def test_one_probe_finds_out_for_everybody_that_a_target_is_back() -> None:
    world = World(*(person(one) for one in crowd(20)))
    box = Connector(world)
    async with world.provision() as role:
        put_behind(role, box)
        box.error = TemporaryError("503")
        for one in crowd(20):
            await world.knock(one, uuid=f"e-{one}")
            await work(role)
        view = box.limits.breaker.view
        assert (view.state, len(box.requests)) == (BreakerState.OPEN, 5), "after five failures nobody asks"
        await later(world, role, view.retry_in - 0.5)
        assert len(box.requests) == 5
        await later(world, role, 1.0)
        assert (len(box.requests), box.limits.breaker.view.state) == (6, BreakerState.OPEN), "one probe, and it failed"
        assert box.limits.breaker.view.retry_in == pytest.approx(30, abs=1)
        box.error = None
        for _ in range(40):
            await later(world, role, 5)
        assert box.limits.breaker.view.state is BreakerState.CLOSED
        assert len(world.box.accounts) == 20
        assert world.due() == {}
