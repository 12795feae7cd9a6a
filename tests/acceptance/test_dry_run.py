"""E8: the whole day in a dry run. Everything is read, judged and planned; no vendor sees a call that changes anything."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.settings import load
from simulators.verify import addresses
from tests.acceptance.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    one = House(tmp_path)
    yield one
    one.close()


def scenario(url: str) -> str:
    with urllib.request.urlopen(f"{url}/_sim/state", timeout=10) as answer:
        return str(json.load(answer)["scenario"])


@pytest.mark.timeout(150)
def test_a_dry_run_of_the_day_plans_it_and_calls_nothing(house: House) -> None:
    house.simulate("--scenario", "day")
    house.start("all", "run", "--config", str(house.config), "--dry-run")
    where = addresses(load(house.config))
    until = time.monotonic() + 90
    while scenario(where.okta) != "done":
        assert time.monotonic() < until, house.log("all").read_text()[-2000:]
        time.sleep(0.5)
    time.sleep(8)  # retries, second looks and read-backs would come now
    for url in (where.okta, where.box, where.slack):
        assert house.calls(url) == []
    planned = house.sql(
        "SELECT status, count(*) AS n, count(DISTINCT person) AS people, list(DISTINCT target) AS targets FROM actions GROUP BY status"
    )
    (row,) = planned
    assert row["status"] == "planned"
    assert row["people"] >= 5, "joins, moves, leaves and a lockdown"
    assert set(row["targets"]) == {"okta", "box"}
    assert house.sql("SELECT count(*) AS n FROM holds")[0]["n"] == 0
    assert house.terminate("all") == 0
