"""Rate budget, breaker, retry budget and the slot that joins them: what goes out, what waits, what is refused."""

from __future__ import annotations

import asyncio

import pytest

from handlers.limits import Breaker, BreakerState, BreakerView, Limits, RateBudget, RetryBudget
from model.errors import BreakerOpen, CredentialsRefused, OutcomeUnknown, RateLimited, Refused, TemporaryError
from tests.support.clock import FakeClock

# -- rate budget ------------------------------------------------------------------------------------------------------


async def test_a_burst_goes_at_once_and_the_rest_evenly(clock: FakeClock) -> None:
    budget = RateBudget(clock, per_minute=60, burst=3, max_wait_s=10)
    times = []
    for _ in range(6):
        await budget.take()
        times.append(clock.monotonic())
    assert times == [0, 0, 0, 1, 2, 3]


async def test_over_any_minute_no_more_than_rate_and_burst_go_out(clock: FakeClock) -> None:
    budget = RateBudget(clock, per_minute=600, max_wait_s=60)
    times = []
    while clock.monotonic() < 180:
        await budget.take()
        times.append(clock.monotonic())
    for start in range(0, 120, 10):
        assert sum(start <= at < start + 60 for at in times) <= 600 + 60


async def test_a_long_wait_is_left_to_the_durable_schedule(clock: FakeClock) -> None:
    budget = RateBudget(clock, per_minute=6, burst=1, max_wait_s=5)
    await budget.take()
    with pytest.raises(RateLimited) as refused:
        await budget.take()
    assert refused.value.delay == pytest.approx(10)
    assert clock.slept == []


async def test_after_a_vendors_pause_nothing_goes_early_and_there_is_no_stampede(clock: FakeClock) -> None:
    budget = RateBudget(clock, per_minute=60, burst=10, max_wait_s=30)
    budget.hold_off(20)
    times = []
    for _ in range(3):
        await budget.take()
        times.append(clock.monotonic())
    assert times == [20, 21, 22]


# -- breaker ----------------------------------------------------------------------------------------------------------


def breaker(clock: FakeClock, seen: list[BreakerView] | None = None) -> Breaker:
    return Breaker(
        "box", "provision", clock, threshold=3, cooldown_s=10, max_cooldown_s=30, on_change=None if seen is None else seen.append
    )


def test_it_opens_after_consecutive_failures_only(clock: FakeClock) -> None:
    one = breaker(clock)
    for _ in range(4):
        one.failed(False, "503")
        one.failed(False, "503")
        one.succeeded(False)
    assert one.view.state == "closed"
    for _ in range(3):
        one.failed(False, "503")
    assert one.view.state == "open"
    with pytest.raises(BreakerOpen) as refused:
        one.admit()
    assert refused.value.delay == pytest.approx(10)


def test_one_probe_at_a_time_and_a_failed_one_doubles_the_pause(clock: FakeClock) -> None:
    one = breaker(clock)
    one.failed(False, "401", at_once=True)
    for pause in (20, 30, 30):
        clock.shift(one.view.retry_in)
        assert one.admit() is True
        with pytest.raises(BreakerOpen):
            one.admit()
        one.failed(True, "401 again")
        assert one.view.retry_in == pytest.approx(pause)
    clock.shift(30)
    assert one.admit() is True
    one.succeeded(True)
    assert one.view == BreakerView("box", "provision", BreakerState.CLOSED, 0, "", 0.0)
    assert one.admit() is False


def test_what_began_before_it_opened_does_not_close_it(clock: FakeClock) -> None:
    one = breaker(clock)
    one.failed(False, "401", at_once=True)
    one.succeeded(False)
    assert one.view.state is BreakerState.OPEN


def test_a_probe_that_was_cancelled_lets_the_next_one_through(clock: FakeClock) -> None:
    one = breaker(clock)
    one.failed(False, "401", at_once=True)
    clock.shift(10)
    assert one.admit() is True
    one.undecided(True)
    assert one.admit() is True


def test_each_move_is_told_with_its_reason(clock: FakeClock) -> None:
    seen: list[BreakerView] = []
    one = breaker(clock, seen)
    one.failed(False, "401 invalid token", at_once=True)
    clock.shift(10)
    one.succeeded(one.admit())
    assert [(view.state.value, view.reason) for view in seen] == [
        ("open", "401 invalid token"),
        ("half_open", "401 invalid token"),
        ("closed", ""),
    ]


# -- retry budget (E6) ------------------------------------------------------------------------------------------------


def test_retries_have_a_floor_of_ten_a_minute(clock: FakeClock) -> None:
    budget = RetryBudget(clock)
    assert [budget.try_retry() for _ in range(10)] == [0.0] * 10
    clock.shift(20)
    assert budget.try_retry() == pytest.approx(40)
    clock.shift(40)
    assert budget.try_retry() == 0.0


def test_above_the_floor_retries_stay_below_a_tenth_of_the_requests(clock: FakeClock) -> None:
    budget = RetryBudget(clock)
    for _ in range(500):
        budget.note_request()
    granted = sum(budget.try_retry() == 0.0 for _ in range(500))
    assert granted == 50
    clock.shift(61)
    assert sum(budget.try_retry() == 0.0 for _ in range(100)) == 10


def test_lockdown_is_exempt(clock: FakeClock) -> None:
    limits = Limits("box", "lockdown", clock, per_minute=600)
    assert {limits.retries.try_retry() for _ in range(1000)} == {0.0}


# -- the slot ---------------------------------------------------------------------------------------------------------


async def pass_through(limits: Limits, error: BaseException | None = None) -> None:
    async with limits.slot():
        if error is not None:
            raise error


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (TemporaryError("503"), BreakerState.OPEN),
        (OutcomeUnknown("timeout"), BreakerState.OPEN),
        (Refused("404", "not_found"), BreakerState.CLOSED),
        (RateLimited("429"), BreakerState.CLOSED),
        (asyncio.CancelledError(), BreakerState.CLOSED),
    ],
)
async def test_what_leaves_the_slot_tells_how_the_connector_is(clock: FakeClock, error: BaseException, state: BreakerState) -> None:
    limits = Limits("box", "provision", clock, per_minute=6000)
    for _ in range(5):
        with pytest.raises(type(error)):
            await pass_through(limits, error)
    assert limits.breaker.view.state is state


async def test_refused_credentials_open_at_once(clock: FakeClock) -> None:
    limits = Limits("box", "provision", clock, per_minute=6000)
    with pytest.raises(CredentialsRefused):
        await pass_through(limits, CredentialsRefused("401", "unauthorized"))
    with pytest.raises(BreakerOpen):
        await pass_through(limits)


async def test_the_lanes_break_apart(clock: FakeClock) -> None:
    provision = Limits("box", "provision", clock, per_minute=600, share=0.7)
    lockdown = Limits("box", "lockdown", clock, per_minute=600, share=0.3)
    with pytest.raises(CredentialsRefused):
        await pass_through(provision, CredentialsRefused("403", "insufficient_scope"))
    await pass_through(lockdown)
    assert lockdown.breaker.view.state is BreakerState.CLOSED


async def test_provisioning_leaves_lockdowns_share_of_the_vendors_bucket(clock: FakeClock) -> None:
    provision = Limits("okta", "provision", clock, per_minute=6000, share=0.7, reserve=0.3)
    lockdown = Limits("okta", "lockdown", clock, per_minute=6000, share=0.3, reserve=0.0)
    for limits in (provision, lockdown):
        limits.heed(600, 179, 42.0)
    with pytest.raises(RateLimited) as waits:
        await pass_through(provision)
    assert waits.value.delay == pytest.approx(42)
    await pass_through(lockdown)
    provision.heed(600, 181, 42.0)


async def test_no_more_calls_at_a_time_than_allowed_and_long_ones_apart(clock: FakeClock) -> None:
    limits = Limits("box", "provision", clock, per_minute=6000, concurrency=3, long_calls=1)
    gate, now, most = asyncio.Event(), 0, 0

    async def call(long: bool) -> None:
        nonlocal now, most
        async with limits.slot(long=long):
            if not long:
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.001)
                now -= 1
            else:
                await gate.wait()

    transfer = asyncio.create_task(call(True))
    await asyncio.gather(*(call(False) for _ in range(20)))
    assert (most, transfer.done()) == (3, False)
    gate.set()
    await transfer


async def test_a_429_pauses_everybody_in_the_lane(clock: FakeClock) -> None:
    limits = Limits("box", "provision", clock, per_minute=600)
    with pytest.raises(RateLimited):
        await pass_through(limits, RateLimited("429", delay=100))
    with pytest.raises(RateLimited) as waits:
        await pass_through(limits)
    assert waits.value.delay == pytest.approx(100)
