"""The day and its proof: demo, verify-day."""

from __future__ import annotations

from pathlib import Path

import click

from model.settings import load
from simulators.verify import Check, addresses, verify_day
from simulators.verify import as_json as to_json
from stream import demo as demonstration
from stream.cli.common import CONFIG, JSON, good, print_json, run_async, table


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("demo-out"), show_default=True, help="Where results go."
)
@click.option("--pace", type=click.FloatRange(min=0.05), default=1.0, show_default=True, help="0.5 plays the day twice as fast.")
def demo(out: Path, pace: float) -> None:
    """A whole day in under a minute: embedded broker, simulated Okta, Box and Slack, all roles.

    Ends with 0 when every expected effect stands at the simulators. OUT then holds audit.duckdb, slack.txt, slack.jsonl, report.txt
    and report.json.
    """
    if not run_async(lambda: demonstration.demo(out, pace=pace)):
        raise SystemExit(1)


@click.command("verify-day")
@CONFIG
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, help="Wait so many seconds for what is not yet so.")
@JSON
def verify(config: Path, wait_s: float, as_json: bool) -> None:
    """Compare the simulators' state with what the scenario `day` must have caused."""
    where = addresses(load(config))
    checks = run_async(lambda: verify_day(where.okta, where.box, where.slack, wait_s))
    show_checks(checks, as_json)
    if not all(check.ok for check in checks):
        raise SystemExit(1)


def show_checks(checks: list[Check], as_json: bool) -> None:
    if as_json:
        print_json({"ok": all(check.ok for check in checks), "checks": to_json(checks)})
        return
    rows = [(good(one.ok), one.name, one.person, one.target, one.expected, "" if one.ok else one.actual) for one in checks]
    table("The day", ("", "what", "person", "target", "expected", "found instead"), rows)


COMMANDS = (demo, verify)
