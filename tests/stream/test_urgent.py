"""A lockdown does not wait for the rest of its page, and memory is kept in small portions of time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from faust.types import TP

from model.records import Order
from stream import topics
from tests.handlers.fakes import NOON
from tests.stream.memory import Log, Record
from tests.stream.test_classify import Rules, classifier, event, feed, orders
from tests.stream.test_minds import taken

pytestmark = pytest.mark.usefixtures("memory")
PAGE = TP(topics.SYSTEM_LOG.name, 0)


class Noting(Rules):
    """Notes what was asked, and what stood in the log then."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log
        self.ordered: dict[str, int] = {}

    def verdict(self, event: dict[str, Any]) -> Any:
        self.ordered[event["uuid"]] = len(self.log.of(topics.THREATS))
        return super().verdict(event)


def page(log: Log) -> Any:
    return [record for records in list(log.records.values()) for record in records if record.topic == topics.SYSTEM_LOG.name]


async def test_a_lockdown_is_with_kafka_before_the_rest_of_its_page_is_looked_at() -> None:
    log = Log()
    rules = Noting(log)
    async with classifier(log, rules) as role:
        feed(log, event("e-1", x="alert"), event("e-2", x="lockdown"), event("e-3", x="approve"), event("e-4", moment="move"))
        await (await role.begin(PAGE, page(log)))
    assert rules.ordered == {"e-1": 0, "e-2": 0, "e-3": 1, "e-4": 1}
    assert [one.event.uuid for one in orders(log)] == ["e-2", "e-3"]
    assert [one.event.uuid for one in log.classified()] == ["e-1", "e-2", "e-3", "e-4"]


async def test_an_assignment_meanwhile_leaves_the_rest_of_the_page_to_its_next_reading() -> None:
    """What is remembered after an assignment does not know the page's beginning: its end must not be entered there."""
    log = Log()
    rules = Noting(log)
    async with classifier(log, rules) as role:
        feed(log, event("e-1", x="lockdown"), event("e-2", x="alert"))
        records = page(log)

        def take_away(record: Record) -> None:
            if record.topic == topics.THREATS.name:
                role._assignment += 1

        log.on_write = take_away
        await (await role.begin(PAGE, records))
        assert list(rules.ordered) == ["e-1"]
        log.on_write = lambda record: None
        await (await role.begin(PAGE, records))
    assert list(rules.ordered) == ["e-1", "e-2"]
    assert len({Order.from_bytes(record.value or b"").id for record in log.of(topics.THREATS)}) == 1


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def read(self) -> float:
        return self.time


async def test_one_memory_is_kept_at_a_time_the_one_that_waited_longest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    one, hand = await taken(Log()), Hand()
    monkeypatch.setattr(one, "_monotonic", hand.read)
    for at, tenant in enumerate(("early", "late")):
        hand.time = float(at)
        one.observe(tenant, 0, at, {"uuid": f"e-{at}", "eventType": "x"}, NOON)
    assert one.snapshots() == []
    hand.time = 10.0
    assert [[tenant for tenant, _ in one.snapshots()] for _ in range(3)] == [["early"], ["late"], []]


async def test_keeping_memory_takes_a_fiftieth_of_the_time_whatever_it_takes_and_everybody_has_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second every five, for each of three tenants, would be more than half of a worker's time."""
    one, hand = await taken(Log()), Hand()
    monkeypatch.setattr(one, "_monotonic", hand.read)

    def pack(mind: object) -> bytes:
        hand.time += 1.0
        return b"large"

    monkeypatch.setattr("stream.minds._packed", pack)
    kept: list[tuple[str, float]] = []
    for second in range(300):
        for tenant in "abc":
            one.observe(tenant, 0, second, {"uuid": f"{tenant}-{second}", "eventType": "x"}, NOON)
        kept += [(tenant, hand.time) for tenant, _ in one.snapshots()]
        hand.time += 1.0
    assert [tenant for tenant, _ in kept] == ["a", "b", "c", "a", "b", "c"]
    assert all(51.0 <= after - before <= 52.0 for (_, before), (_, after) in pairwise(kept))
