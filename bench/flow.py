"""`python -m bench.flow`: how fast events go through the house, on a real Kafka that it starts itself; some minutes.

Throughput: the product's classifier worker beside a stock Faust agent, bare aiokafka and a bare confluent-kafka loop, all with the same
rules over the same log (hits published; everything published), each a process on one core, the broker on the others.
Delay: from an event's hand-over to Kafka until the target acknowledged what it asked for, through real roles and vendors that answer
after 50 ms; the first events of a fresh house, idle, and at a full page of 1,000 events a second.

A table, then one JSON object as the last line. Missed targets do not fail it unless `--judge` asks for that: on a machine that does
other work as well the figures by the wall clock say little (`load` stands beside them; CPU µs an event say more).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.common import Target, cores, finish, machine, number, pin, show, show_targets
from bench.flow_delay import LOCK_OKTA, WAYS, Delays
from bench.flow_delay import measure as measure_delay
from bench.flow_log import PARTITIONS, clear
from bench.flow_speed import RUNS, Run
from bench.flow_speed import measure as measure_speed
from tests.support.kafka import Broker, KafkaMissing

#: What is promised: events a second and core with hits published, and the delay of an idle house beyond the vendors' own time.
LEAST_RATE = 30_000.0
MOST_DELAY_MS = 30.0


@dataclass(slots=True)
class Found:
    """All figures of one call; the parts that were not asked for stay empty."""

    runs: list[Run] = field(default_factory=list)
    event_bytes: float = 0.0
    delays: dict[str, Delays] = field(default_factory=dict)

    def targets(self) -> list[Target]:
        judged = []
        for run in self.runs:
            if (run.name, run.everything, run.tenants) == ("portcullis", False, PARTITIONS):
                judged.append(Target("events/s a core, hits published, eight tenants", run.rate, "events/s", least=LEAST_RATE))
        if "idle" in self.delays:
            idle = self.delays["idle"]
            ours = idle.figures(LOCK_OKTA)["p99"] - LOCK_OKTA.simulators_ms
            judged.append(Target("p99 idle, lockdown, beyond the vendor's answers", ours, "ms", most=MOST_DELAY_MS))
            judged.append(Target("events whose effect never came", sum(one.lost for one in self.delays.values()), "events", most=0.0))
        return judged

    def to_json(self) -> dict[str, Any]:
        runs = [
            {
                "name": run.name,
                "published": "everything" if run.everything else "hits",
                "tenants": run.tenants,
                "events": run.events,
                "rate": number(run.rate),
                "cpu_us": number(run.cpu, 2),
                "per_cpu_second": number(run.per_cpu_second),
                "memory": run.memory,
            }
            for run in self.runs
        ]
        delays = {
            load: {way.name: {name: number(value, 2) for name, value in one.figures(way).items()} for way in WAYS} | {"lost": one.lost}
            for load, one in self.delays.items()
        }
        simulators = {way.name: way.simulators_ms for way in WAYS}
        return {"event_bytes": number(self.event_bytes, 0), "throughput": runs, "delay": delays, "simulators_ms": simulators}


def main(argv: list[str] | None = None) -> int:
    asked = _asked(argv)
    console = Console(quiet=asked.json_only, highlight=False, width=None if sys.stdout.isatty() else 120)
    before = machine()
    try:
        found = measure(asked, lambda line: console.print(f"[dim]{line}[/dim]"))
    except KafkaMissing as missing:
        print(f"bench.flow: {missing}", file=sys.stderr)
        return 2
    _show(console, found, before)
    return finish({"bench": "flow", "machine": before} | found.to_json(), found.targets(), asked.judge)


def measure(asked: argparse.Namespace, say: Callable[[str], None]) -> Found:
    """Starts a broker of its own and runs what was asked for. Raises KafkaMissing where there is none to be had."""
    found, usable = Found(), cores()
    with tempfile.TemporaryDirectory(prefix="bench-flow-") as name:
        folder = Path(name)
        broker = Broker(folder / "kafka")
        pin(*(usable[:-1] or usable))  # the broker stays off the contenders' core
        try:
            broker.start()
            if asked.only != "delay":
                found.runs, found.event_bytes = measure_speed(
                    broker.bootstrap, folder, asked.runs, asked.events, asked.seconds, usable[-1], say
                )
        finally:
            pin(*usable)
            broker.close()
        if asked.only == "speed":
            return found
        broker = Broker(folder / "kafka-for-delay")
        try:
            broker.start()
            clear(broker.bootstrap)
            found.delays = asyncio.run(measure_delay(folder, broker.bootstrap, asked.singles, asked.pages, say))
        finally:
            broker.close()
    return found


def _show(console: Console, found: Found, before: dict[str, Any]) -> None:
    if found.runs:
        rows = [
            (
                run.name,
                "everything" if run.everything else "hits",
                str(run.tenants),
                f"{run.rate:,.0f}",
                f"{run.per_cpu_second:,.0f}",
                f"{run.cpu:.1f}",
                f"{run.memory / 1e6:,.0f} MB",
            )
            for run in found.runs
        ]
        title = f"Throughput on one core, {found.event_bytes:,.0f} bytes an event"
        show(console, title, ("", "published", "tenants", "events/s", "events/CPU-s", "CPU µs/event", "memory"), rows)
    if found.delays:
        delays = [
            (way.says, load, f"{figures['n']}", *(f"{figures[name]:.1f}" for name in ("p50", "p99", "max")), f"{way.simulators_ms:.0f}")
            for way in WAYS
            for load, one in found.delays.items()
            for figures in (one.figures(way),)
        ]
        show(console, "Published → acknowledged, ms", ("", "load", "n", "p50", "p99", "max", "vendors alone"), delays)
    show_targets(console, found.targets())
    console.print(f"[dim]{before['cores']} cores, load {before['load']} before the start, Python {before['python']}[/dim]")


def _asked(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.flow", description="Throughput and delay on a real Kafka.")
    parser.add_argument("--events", type=int, default=160_000, help="events in the log (default 160,000)")
    parser.add_argument("--seconds", type=float, default=8.0, help="the longest that one contender is measured (default 8)")
    parser.add_argument("--singles", type=int, default=100, help="threats, and newcomers, sent one by one (default 100)")
    parser.add_argument("--pages", type=int, default=15, help="full pages, one a second (default 15)")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS, metavar="RUN", help=f"throughput of these only: {', '.join(RUNS)}")
    parser.add_argument("--only", choices=("speed", "delay"), help="half of it")
    parser.add_argument("--judge", action="store_true", help="end with 1 where a target is missed")
    parser.add_argument("--json-only", action="store_true", help="no tables")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
