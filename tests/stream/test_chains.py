"""Chains keep the order of each key and let keys run beside one another; the watchdog sees each partition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import FaultError
from stream.worker import Chains, Watchdog

Work = Callable[[], Awaitable[None]]


class Site:
    """Work that notes when it begins and ends, and fails the test where two of a key overlap."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.busy: dict[str, int] = {}
        self.most = 0

    def work(self, key: str, name: str, turns: int = 3, fails: bool = False, gate: asyncio.Event | None = None) -> Work:
        async def run() -> None:
            assert not self.busy.get(key), f"two works of {key} at once"
            self.busy[key] = 1
            self.most = max(self.most, sum(self.busy.values()))
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
                if gate is not None:
                    await gate.wait()
                self.log.append(name)
                if fails:
                    raise ZeroDivisionError(name)
            finally:
                self.busy[key] = 0

        return run


async def test_one_key_in_order_and_different_keys_at_once() -> None:
    chains, site = Chains(), Site()
    tasks = [chains.add(key, site.work(key, f"{key}{number}", turns=9 - number)) for number in range(3) for key in "ab"]
    assert len(chains) == 2
    await asyncio.gather(*tasks)
    await asyncio.sleep(0)
    assert [name for name in site.log if name[0] == "a"] == ["a0", "a1", "a2"]
    assert [name for name in site.log if name[0] == "b"] == ["b0", "b1", "b2"]
    assert site.most == 2
    await asyncio.sleep(0)
    assert len(chains) == 0


async def test_work_that_fails_does_not_hold_up_what_comes_behind_it() -> None:
    chains, site = Chains(), Site()
    first = chains.add("a", site.work("a", "fails", fails=True))
    second = chains.add("a", site.work("a", "goes on"))
    await asyncio.wait([first, second])
    assert isinstance(first.exception(), ZeroDivisionError)
    assert site.log == ["fails", "goes on"]


async def test_a_link_that_is_cancelled_while_it_waits_lets_nobody_overtake() -> None:
    """P2: the third must wait for the first, although the second, for which it waited, is gone."""
    chains, site, gate = Chains(), Site(), asyncio.Event()
    first = chains.add("a", site.work("a", "first", gate=gate))
    second = chains.add("a", site.work("a", "second"))
    third = chains.add("a", site.work("a", "third"))
    await asyncio.sleep(0)
    second.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert site.log == []
    gate.set()
    await asyncio.gather(first, third)
    assert site.log == ["first", "third"]


async def test_cancelling_waits_until_nothing_moves_and_leaves_other_keys_alone() -> None:
    chains, site, gate = Chains(), Site(), asyncio.Event()
    ended: list[str] = []

    async def stubborn() -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append("stubborn")
            raise

    chains.add("a", stubborn)
    waiting = chains.add("a", site.work("a", "never"))
    other = chains.add("b", site.work("b", "other", gate=gate))
    await asyncio.sleep(0)
    await chains.cancel(lambda key: key == "a")
    assert ended == ["stubborn"]
    assert waiting.cancelled()
    assert not other.done()
    gate.set()
    await other
    assert site.log == ["other"]
    await chains.cancel()
    assert len(chains) == 0


@given(
    plan=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.sampled_from(["works", "fails", "is cancelled"])), max_size=20),
    turns=st.integers(0, 6),
)
def test_whatever_fails_or_is_cancelled_the_order_of_a_key_stands(plan: list[tuple[str, int, str]], turns: int) -> None:
    async def play() -> Site:
        chains, site = Chains(), Site()
        tasks = []
        for number, (key, length, fate) in enumerate(plan):
            tasks.append(chains.add(key, site.work(key, f"{key}{number:02}", length, fate == "fails")))
            if number % 4 == 3:
                for _ in range(turns):
                    await asyncio.sleep(0)
            if fate == "is cancelled":
                tasks[-1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await chains.cancel()
        assert len(chains) == 0
        return site

    site = asyncio.run(play())
    for key in "abc":
        mine = [name for name in site.log if name[0] == key]
        assert mine == sorted(mine)
        wanted = {f"{key}{number:02}" for number, (one, _, fate) in enumerate(plan) if one == key and fate != "is cancelled"}
        assert wanted <= set(mine)


# --- the watchdog -----------------------------------------------------------------------------------------------------------

TP0, TP1 = "t[0]", "t[1]"


def test_a_partition_that_stands_still_with_work_in_hand_is_a_fault() -> None:
    """P4."""
    dog = Watchdog(120)
    look = partial(dog.look, {TP0: (5, True)})
    look(0)
    look(120)
    with pytest.raises(FaultError, match=r"t\[0\] made no progress for 120 s with work in hand, at 5"):
        look(121)


def test_a_busy_partition_does_not_hide_one_that_stands_still() -> None:
    dog = Watchdog(120)
    for second in range(0, 121, 10):
        dog.look({TP0: (5, True), TP1: (second, True)}, second)
    with pytest.raises(FaultError, match=r"t\[0\]"):
        dog.look({TP0: (5, True), TP1: (999, True)}, 121)


def test_progress_idleness_a_new_assignment_and_an_absent_broker_begin_the_time_anew() -> None:
    dog = Watchdog(120)
    dog.look({TP0: (5, True)}, 0)
    dog.look({TP0: (6, True)}, 100)
    dog.look({TP0: (6, False)}, 200)
    dog.look({TP0: (6, True)}, 300)
    dog.look({}, 310)
    dog.look({TP0: (6, True)}, 330)
    dog.look({TP0: (6, True)}, 450)
    dog.forget()
    dog.look({TP0: (6, True)}, 600)
    dog.look({TP0: (6, True)}, 720)
    with pytest.raises(FaultError):
        dog.look({TP0: (6, True)}, 721)
