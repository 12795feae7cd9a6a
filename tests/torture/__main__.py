"""`python -m tests.torture`: plays a company's life under kills, then compares three ledgers. Ends with 0, 1 (a finding), 2 (wrong use)."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from rich.console import Console

from tests.support.kafka import KafkaFailed, KafkaMissing
from tests.torture import sabotage
from tests.torture.plan import make_script
from tests.torture.report import is_good, show
from tests.torture.trial import Trial

VICTIMS = ("poller", "classifier", "lockdown", "provision", "recorder")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/torture", description=__doc__)
    parser.add_argument("--events", type=_count, default=1000, metavar="N", help="events of the tenant (default 1000)")
    parser.add_argument("--kills", type=_count, default=20, metavar="K", help="kill -9, over all roles in turn (default 20)")
    parser.add_argument("--broker-kills", type=_count, default=0, metavar="B", help="kill -9 of Kafka, started again on its data")
    parser.add_argument("--broker-down", type=float, default=0.0, metavar="S", help="one outage of the broker of so many seconds besides")
    parser.add_argument("--broker-cuts", type=_count, default=0, metavar="C", help="all connections to Kafka are reset, for up to 4 s")
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="processes of classifier, lockdown and provision each")
    parser.add_argument("--partitions", type=_count, default=4, metavar="N", help="partitions of a topic (default 4)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same script")
    parser.add_argument("--aim", choices=VICTIMS, action="append", default=[], help="kill this role only (may be given again)")
    parser.add_argument(
        "--slow", type=float, default=0.0, metavar="S", help="Box answers each POST so much later: more is in hand at a kill"
    )
    parser.add_argument(
        "--slow-looks", type=float, default=0.0, metavar="S", help="a look at every second person in Okta takes so much longer: others pass"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="logs and ledgers stay here")
    parser.add_argument("--dry-run", action="store_true", help="the roles run with --dry-run: no vendor may see a call")
    parser.add_argument("--sabotage", choices=sorted(sabotage.ACTS), help="take one guarantee out: the run must then fail")
    parsed = parser.parse_args(argv)
    if parsed.events < 60 or parsed.workers < 1 or parsed.partitions < parsed.workers:
        parser.error("needs at least 60 events, one worker, and a partition for each")
    if parsed.keep is not None and parsed.keep.exists() and any(parsed.keep.iterdir()):
        parser.error(f"{parsed.keep} is not empty")
    return parsed


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def main(argv: list[str] | None = None) -> int:
    asked = arguments(argv)
    console = Console(highlight=False)
    script = make_script(
        asked.seed,
        asked.events,
        asked.kills,
        asked.broker_kills,
        asked.workers,
        aim=tuple(asked.aim),
        broker_down_s=asked.broker_down,
        broker_cuts=asked.broker_cuts,
        slow_s=asked.slow,
        slow_looks_s=asked.slow_looks,
    )
    trial = Trial(script, asked.workers, asked.partitions, asked.sabotage, asked.dry_run)
    keep = asked.keep.resolve() if asked.keep is not None else None
    try:
        verdict = asyncio.run(trial.run(keep, lambda line: console.print(line, soft_wrap=True)))
    except (KafkaMissing, KafkaFailed) as error:
        print(f"torture: {error}", file=sys.stderr)
        return 2
    show(verdict, console)
    return 0 if is_good(verdict) else 1


if __name__ == "__main__":
    sys.exit(main())
