"""Due work: bytes come back as they went in, delays are what was asked or more, and of stale entries only the newest counts."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from model.settings import SafetySettings
from stream import topics
from stream.schedule import Due, RetryPolicy, Schedule, as_payload
from stream.worker import Chains
from tests.handlers.fakes import NOON, TENANT
from tests.stream.fakes import ANN
from tests.stream.memory import Log, Publisher, State
from tests.support.clock import FakeClock

SAFETY = SafetySettings(retry_first_s=2, retry_longest_s=900, give_up_s=3600)


def due(slot: str = "box", seconds: float = 0, **facts: Any) -> Due:
    base = {"lane": "provision", "tenant": TENANT, "person": ANN, "slot": slot, "kind": "retry", "since": NOON}
    return Due.model_validate(base | {"due": NOON + timedelta(seconds=seconds)} | facts)


@given(
    raw=st.binary(max_size=200)
    | st.text(max_size=50).map(str.encode)
    | st.sampled_from([b"base64:", b"base64:eA==", b"\x00", b"\xed\xa0\x80"])
)
def test_any_bytes_come_back_through_the_log_as_they_were(raw: bytes) -> None:
    """P3: parked with the original bytes."""
    kept = Due.from_bytes(due(payload=as_payload(raw)).to_bytes())
    assert kept.original == raw


def test_text_stays_readable() -> None:
    assert due(payload=as_payload('{"a": "é"}'.encode())).payload == '{"a": "é"}'


@given(attempts=st.integers(0, 10**6), asked=st.none() | st.floats(0, 86400), dice=st.floats(0, 1))
def test_a_retry_comes_no_sooner_than_asked_and_its_own_share_is_bounded(attempts: int, asked: float | None, dice: float) -> None:
    policy = RetryPolicy(SAFETY, lambda: dice)
    delay = policy.delay(attempts, asked)
    own = min(900.0, 2.0 * 2.0 ** max(attempts - 1, 0)) if attempts < 30 else 900.0
    assert delay >= max(asked or 0.0, own / 2)
    assert delay <= max(asked or 0.0, own)


def test_backoff_doubles_to_a_longest_and_gives_up_in_the_end() -> None:
    policy = RetryPolicy(SAFETY, lambda: 1.0)
    assert [policy.delay(attempts, None) for attempts in (1, 2, 3, 4)] == [2, 4, 8, 16]
    assert policy.delay(50, None) == 900
    assert not policy.gives_up(NOON, NOON + timedelta(seconds=3600))
    assert policy.gives_up(NOON, NOON + timedelta(seconds=3601))


class Site:
    def __init__(self) -> None:
        self.log, self.clock, self.chains = Log(), FakeClock(NOON, auto=False), Chains()
        self.ran: list[Due] = []
        self.owned = True
        self.again: list[Due] = []
        self.gate: asyncio.Event | None = None

    async def open(self) -> Schedule:
        publisher = Publisher(self.log)
        state = State(self.log, publisher, topics.DUE, lambda key, value: self.schedule.changed(key, value))
        self.schedule = Schedule(cast(Any, state), "provision", lambda tenant, person: self.owned, self.chains, self._run, self.clock)
        await state.start()
        return self.schedule

    async def _run(self, one: Due) -> None:
        self.ran.append(one)
        if self.gate is not None:
            await self.gate.wait()
        if self.again:
            await self.schedule.put(self.again.pop(0))
        await self.schedule.done(one)

    async def turn(self) -> float:
        wait = self.schedule._start_due()
        for _ in range(20):
            await asyncio.sleep(0)
        return wait


async def test_what_is_due_runs_once_late_rather_than_never_and_what_is_not_waits() -> None:
    site = Site()
    schedule = await site.open()
    await schedule.put(due("past", -86400))
    await schedule.put(due("now"))
    await schedule.put(due("later", 30))
    assert await site.turn() == 30
    assert [one.slot for one in site.ran] == ["past", "now"]
    site.clock.shift(31)
    await site.turn()
    assert [one.slot for one in site.ran] == ["past", "now", "later"]
    assert site.log.state(topics.DUE) == {}


async def test_an_entry_that_was_put_off_runs_at_its_new_time_only() -> None:
    site = Site()
    schedule = await site.open()
    await schedule.put(due(seconds=10))
    await schedule.put(due(seconds=50))
    site.clock.shift(20)
    await site.turn()
    assert site.ran == []
    site.clock.shift(31)
    await site.turn()
    assert len(site.ran) == 1


async def test_work_that_puts_itself_off_is_not_dropped_by_its_end() -> None:
    site = Site()
    schedule = await site.open()
    await schedule.put(due())
    site.again.append(due(seconds=5, attempts=1))
    await site.turn()
    assert [one.attempts for one in schedule.entries()] == [1]
    site.clock.shift(6)
    await site.turn()
    assert len(site.ran) == 2
    assert schedule.entries() == []


async def test_dropped_parked_and_foreign_entries_do_not_run() -> None:
    site = Site()
    schedule = await site.open()
    await schedule.put(due("dropped"))
    await schedule.drop(TENANT, ANN, "dropped")
    await schedule.put(due("parked", kind="parked"))
    site.log.put(topics.DUE.name, b"lockdown:x", due("other", lane="lockdown").to_bytes())
    await site.turn()
    assert site.ran == []
    site.owned = False
    await schedule.put(due("not ours"))
    await site.turn()
    assert (site.ran, schedule.due_before(100)) == ([], 0)
    site.owned = True
    schedule.rescan()
    await site.turn()
    assert [one.slot for one in site.ran] == ["not ours"]


async def test_a_persons_entries_run_in_their_chain_behind_what_is_under_way() -> None:
    """P2."""
    site = Site()
    schedule = await site.open()
    gate = asyncio.Event()
    site.chains.add((TENANT, ANN), gate.wait)
    await schedule.put(due("a"))
    await schedule.put(due("b"))
    await site.turn()
    assert site.ran == []
    assert schedule.due_before(0) >= 2
    gate.set()
    await site.turn()
    assert [one.slot for one in site.ran] == ["a", "b"]


async def test_what_was_changed_while_it_waited_its_turn_is_not_run_as_it_was() -> None:
    site = Site()
    schedule = await site.open()
    gate = asyncio.Event()
    site.chains.add((TENANT, ANN), gate.wait)
    await schedule.put(due())
    await site.turn()
    await schedule.put(due(seconds=60, attempts=7))
    gate.set()
    await site.turn()
    assert site.ran == []
    site.clock.shift(61)
    await site.turn()
    assert [one.attempts for one in site.ran] == [7]


async def test_what_has_no_place_yet_stays_out_of_its_persons_chain_and_runs_when_one_is_free() -> None:
    """A fresh knock must not wait behind work that is not even begun."""
    site = Site()
    schedule = await site.open()
    schedule._at_once = 2
    gate = asyncio.Event()
    for number in range(5):
        await schedule.put(due("box", number - 10, person=f"00u{number}"))
    site.gate = gate
    await site.turn()
    assert ([one.person for one in site.ran], len(site.chains)) == (["00u0", "00u1"], 2)
    gate.set()
    while schedule.entries():
        await site.turn()
    assert [one.person for one in site.ran] == ["00u0", "00u1", "00u2", "00u3", "00u4"]
