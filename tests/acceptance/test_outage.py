"""The broker is gone for a while in the middle of the day: every role waits and goes on by itself, and the day ends as it must."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.settings import load
from simulators.verify import addresses
from tests.acceptance.house import House
from tests.support.kafka import Broker

ROLES = ("recorder", "lockdown", "provision", "classifier", "poller")
#: Longer than any session of a group, shorter than producers are patient.
AWAY_S = 25.0


@pytest.fixture
def house(tmp_path: Path, kafka_broker: Broker) -> Iterator[House]:
    """The day has begun, and every role runs as a process of its own."""
    one = House(tmp_path, kafka_broker.bootstrap)
    try:
        one.simulate("--scenario", "day")
        for role in ROLES:
            one.role(role)
        for role in ROLES:
            one.wait_until_running(role)
        yield one
    finally:
        one.close()


@pytest.mark.kafka
@pytest.mark.fault(32)
@pytest.mark.timeout(240)
def test_the_broker_is_killed_and_comes_back_and_nobody_is_started_again(house: House, kafka_broker: Broker) -> None:
    time.sleep(3)
    kafka_broker.kill()
    time.sleep(AWAY_S)
    kafka_broker.restart()
    verdict = json.loads(house.run("verify-day", "--config", str(house.config), "--wait", "100", "--json", ok=(0, 1), timeout=130).stdout)
    assert {role: house.processes[role].poll() for role in ROLES} == dict.fromkeys(ROLES), "a role ended"
    assert verdict["ok"], [check for check in verdict["checks"] if not check["ok"]]
    time.sleep(1.5)
    known = {row["intent"] for row in house.sql("SELECT DISTINCT intent FROM actions")}
    where = addresses(load(house.config))
    for url in (where.okta, where.box, where.slack):
        assert [call for call in house.calls(url) if call["intent"] not in known] == []


@pytest.mark.kafka
@pytest.mark.fault(33)
@pytest.mark.timeout(180)
def test_sigterm_while_the_broker_is_away_ends_every_role_within_half_a_minute_with_zero(house: House, kafka_broker: Broker) -> None:
    time.sleep(5)
    kafka_broker.kill()
    time.sleep(2)
    processes = {role: house.processes[role] for role in ROLES}
    began = time.monotonic()
    for process in processes.values():
        process.terminate()
    ends = {role: process.wait(60) for role, process in processes.items()}
    assert ends == dict.fromkeys(ROLES, 0)
    assert time.monotonic() - began < 30
