"""The scenario `day` on real Kafka, every role a process of its own, and each of them killed once in the middle of it."""

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
KILLED = ("poller", "classifier", "lockdown", "provision", "recorder")


@pytest.fixture
def house(tmp_path: Path, kafka_broker: Broker) -> Iterator[House]:
    one = House(tmp_path, kafka_broker.bootstrap)
    yield one
    one.close()


@pytest.mark.kafka
@pytest.mark.timeout(200)
@pytest.mark.parametrize("kills", [False, True], ids=["undisturbed", "each role killed once"])
def test_the_day_ends_as_it_must(house: House, kills: bool) -> None:
    house.simulate("--scenario", "day")
    for role in ROLES:
        house.role(role)
    if kills:
        time.sleep(6)
        for role in KILLED:
            house.kill(role)
            time.sleep(0.5)
            house.role(role)
            time.sleep(1.5)
    verdict = json.loads(house.run("verify-day", "--config", str(house.config), "--wait", "90", "--json", ok=(0, 1)).stdout)
    assert verdict["ok"], [check for check in verdict["checks"] if not check["ok"]]

    time.sleep(1.5)  # the recorder's last commit
    known = {row["intent"] for row in house.sql("SELECT DISTINCT intent FROM actions")}
    where = addresses(load(house.config))
    for url in (where.okta, where.box, where.slack):
        assert [call for call in house.calls(url) if call["intent"] not in known] == []
    assert json.loads(house.run("audit", "verify", "--config", str(house.config), "--json").stdout)["ok"]

    codes = {role: house.terminate(role) for role in ROLES}
    assert codes == dict.fromkeys(ROLES, 0)
    if not kills:
        said = "".join(house.log(role).read_text() for role in ROLES)
        assert [line for line in said.splitlines() if " ERROR " in line or "Traceback" in line] == []
