"""Somebody changes while they are looked at: profile and groups are two answers of the directory, and a person who never was must be
given nothing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.contract import Ending, Lane
from model.change import ChangeKind
from model.person import Person
from tests.handlers.fakes import NOON, FakeDirectory, person
from tests.handlers.house import House

CONTRACTORS = (("00gcontractors", "Contractors"),)
#: (department, is a contractor). Whoever is one gets no department's folder; nobody here was ever in Finance without being one.
HISTORY = (("Finance", True), ("Sales", True), ("Sales", False), ("Engineering", False))


class MovingDirectory(FakeDirectory):
    """A person's history goes on by as many steps as `steps` says at each of the two answers that a reading takes."""

    def __init__(self, history: tuple[tuple[str, bool], ...], steps: list[int]) -> None:
        super().__init__()
        self.history, self.steps, self.at = history, steps, 0

    async def person(self, tenant: str, person_id: str, lane: Lane) -> Person:
        self.reads += 1
        department = self._now()[0]
        at = self._profile_changed()
        self._go_on()
        groups = CONTRACTORS if self._now()[1] else ()
        self._go_on()
        return person(person_id, department=department, groups=groups, last_updated=at)

    def _now(self) -> tuple[str, bool]:
        return self.history[self.at]

    def _profile_changed(self) -> object:
        """`lastUpdated` is the profile's: groups do not move it."""
        changes = sum(self.history[at][0] != self.history[at + 1][0] for at in range(self.at))
        return NOON.replace(microsecond=changes)

    def _go_on(self) -> None:
        self.at = min(self.at + (self.steps.pop(0) if self.steps else 0), len(self.history) - 1)


def granted(house: House) -> set[str]:
    return {one.change.subject for one in house.box.effects if one.change.kind is ChangeKind.GRANT}


def moving(steps: list[int], history: tuple[tuple[str, bool], ...] = HISTORY) -> House:
    house = House()
    house.directory = MovingDirectory(history, steps)
    house.rewire()
    return house


@pytest.mark.fault(40)
async def test_what_the_directory_never_asked_for_is_not_granted() -> None:
    """The profile before the first of three acts, the groups after the second."""
    house = moving([2, 1])
    outcome = await house.look()
    assert outcome.ending is Ending.CONVERGED
    assert granted(house) == {"group Everyone", "folder Company", "group Engineering", "folder Engineering"}


async def test_whoever_never_stands_still_is_looked_at_again_later_and_nothing_is_called() -> None:
    house = moving([1] * 40, HISTORY * 10)
    outcome = await house.look()
    assert (outcome.ending, outcome.code) == (Ending.RETRY, "moved")
    assert house.box.effects == []
    assert house.brake.asked == []


async def test_a_look_that_changes_nothing_reads_once() -> None:
    house = House()
    await house.look()
    before = house.directory.reads
    await house.look()
    assert house.directory.reads == before + 1


@given(steps=st.lists(st.integers(0, 2), max_size=8))
def test_every_grant_is_one_that_some_moment_asked_for(steps: list[int]) -> None:
    house = moving(list(steps))
    asyncio.run(_look_until_settled(house))
    possible = set()
    for department, contractor in HISTORY:
        still = House(people=(person(department=department, groups=CONTRACTORS if contractor else ()),))
        asyncio.run(_look_until_settled(still))
        possible.add(frozenset(granted(still)))
    assert granted(house) in possible


async def _look_until_settled(house: House) -> None:
    while (await house.look()).ending is not Ending.CONVERGED:
        pass
