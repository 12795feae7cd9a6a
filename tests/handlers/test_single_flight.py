"""A reading that many ask for is made once, is never staler than one's own, and nobody can spoil it for the others."""

from __future__ import annotations

import asyncio

import pytest

from handlers.single_flight import SingleFlight


class Reading:
    """Counts how often it was begun and ends when it is let."""

    def __init__(self) -> None:
        self.begun = 0
        self.let = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        mine = self.begun
        await self.let.acquire()
        if self.error is not None:
            raise self.error
        return mine


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_those_who_ask_while_one_reads_share_the_next_reading_and_never_the_one_under_way() -> None:
    reading = Reading()
    flight = SingleFlight(reading)
    first = asyncio.create_task(flight())
    await settle()
    later = [asyncio.create_task(flight()) for _ in range(5)]
    await settle()
    assert reading.begun == 1
    reading.let.release()
    reading.let.release()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 5
    assert reading.begun == 2


async def test_who_is_cancelled_takes_nobody_elses_reading_away() -> None:
    reading = Reading()
    flight = SingleFlight(reading)
    gone, stays = asyncio.create_task(flight()), asyncio.create_task(flight())
    await settle()
    gone.cancel()
    await settle()
    reading.let.release()
    assert await stays == 1
    assert gone.cancelled()


async def test_an_error_goes_to_all_who_shared_it_and_to_nobody_after() -> None:
    reading = Reading()
    flight = SingleFlight(reading)
    reading.error = RuntimeError("cut")
    reading.let.release()
    for outcome in await asyncio.gather(flight(), flight(), return_exceptions=True):
        assert str(outcome) == "cut"
    reading.error = None
    reading.let.release()
    assert await flight() == 2


async def test_an_error_that_nobody_waits_for_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    reading = Reading()
    reading.error = RuntimeError("cut")
    alone = asyncio.create_task(SingleFlight(reading)())
    await settle()
    alone.cancel()
    reading.let.release()
    await settle()
    assert not caplog.records
