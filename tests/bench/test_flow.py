"""The bench of the flow, small: every contender and every way through the house once, on a real Kafka of its own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from bench import flow
from bench.common import ROOT, Target, finish, percentile
from bench.flow_delay import LOCK_OKTA, WAYS, Delays
from bench.flow_log import PARTITIONS, events, tenant_names
from bench.flow_speed import Run
from stream.topics import partition_of


@pytest.mark.kafka
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("jvm")
def test_it_runs_and_ends_with_one_json_object() -> None:
    argv = ["--events", "800", "--seconds", "0.3", "--singles", "1", "--pages", "1", "--runs", "portcullis:hits:8", "confluent:hits:8"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.flow", *argv], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *shown, last = done.stdout.splitlines()
    assert any("Throughput on one core" in line for line in shown)
    found = json.loads(last)
    assert [(one["name"], one["tenants"]) for one in found["throughput"]] == [("portcullis", 8), ("confluent", 8)]
    assert all(one["events"] > 0 and one["cpu_us"] > 0 and one["memory"] > 10_000_000 for one in found["throughput"])
    for load, count in (("first", 10), ("idle", 1), ("page", 4)):
        assert found["delay"][load]["lost"] == 0
        for way in WAYS:
            figures = found["delay"][load][way.name]
            assert figures["n"] == count
            assert way.simulators_ms < figures["p50"] <= figures["max"], "nobody is quicker than the vendor's own answers"
    assert len(found["targets"]) == 3


def test_each_tenant_has_a_partition_of_its_own() -> None:
    names = tenant_names(PARTITIONS)
    assert {partition_of(name.encode(), PARTITIONS) for name in names} == set(range(PARTITIONS))
    assert len(tenant_names(1)) == 1


def test_the_log_is_the_same_for_every_contender_and_ends_now() -> None:
    now = datetime(2026, 3, 2, 12, tzinfo=UTC)
    tenants = tenant_names(8)
    one, two = list(events(160, tenants, now)), list(events(160, tenants, now))
    assert one == two
    assert len(one) == 160
    assert len({json.loads(raw)["uuid"] for tenant, raw in one if tenant == tenants[0]}) == 20
    assert all(datetime.fromisoformat(json.loads(raw)["published"]) <= now for _, raw in one)


def run_of(rate: float, tenants: int = 8, everything: bool = False) -> Run:
    return Run("portcullis", everything, tenants, 1000, rate, 30.0, 1)


def idle(*milliseconds: float, lost: int = 0) -> Delays:
    found = Delays(lost=lost)
    found.found[LOCK_OKTA.name] = list(milliseconds)
    return found


@pytest.mark.parametrize(
    ("rate", "delays", "met"),
    [
        (30_000.0, idle(110.0, 130.0), [True, True, True]),
        (29_999.0, idle(110.0, 130.0), [False, True, True]),
        (30_000.0, idle(110.0, 130.1), [True, False, True]),
        (30_000.0, idle(110.0, lost=1), [True, True, False]),
        (30_000.0, idle(lost=1), [True, False, False]),
    ],
)
def test_what_is_judged(rate: float, delays: Delays, met: list[bool], capsys: pytest.CaptureFixture[str]) -> None:
    """Eight tenants with hits published, and the idle house; other runs stand beside them."""
    found = flow.Found([run_of(1.0, tenants=1), run_of(1.0, everything=True), run_of(rate)], 2700.0, {"idle": delays})
    targets = found.targets()
    assert [one.is_met for one in targets] == met
    assert finish(found.to_json(), targets, judge=False) == 0
    assert finish(found.to_json(), targets, judge=True) == (0 if all(met) else 1)
    for line in capsys.readouterr().out.splitlines():
        assert [one["met"] for one in json.loads(line)["targets"]] == met


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50.0, 99.0, 100.0)
    assert percentile([7.0], 99) == 7.0
    assert math.isnan(percentile([], 50))
    assert not Target("x", math.nan, "ms", most=1.0).is_met
