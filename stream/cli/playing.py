"""Commands that play rules over what was: rules backtest, rules promotion. Nothing is called and nothing is kept."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from audit.client import ask
from audit.query import QueryRefused, QueryStopped
from model.errors import PortcullisError
from model.event import parse_time
from model.settings import BrakeSettings
from rules.backtest import House, Past, Report, backtest
from rules.ruleset import RuleSet
from rules.shadow import Promotion, promotions
from stream.cli.common import JSON, console, errors, inert, print_json, table
from stream.cli.place import CONFIG, RULES, Place, place_of
from stream.clock import SystemClock
from stream.judge import LockdownBrake
from stream.past import Trail, firings, from_file, incidents

#: Rows shown of a list; --json has them all.
_MOST_SHOWN = 20


class When(click.ParamType):
    """A time: ISO 8601, `now`, or so long ago (`-7d`, `-12h`)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        now = SystemClock().now()
        if ago := re.fullmatch(r"-(\d{1,5})([dh])", value):
            return now - timedelta(**{"d": {"days": int(ago[1])}, "h": {"hours": int(ago[1])}}[ago[2]])
        moment = now if value == "now" else parse_time(value)
        if moment is None:
            self.fail(f"{value!r} is no time: write 2026-01-31T00:00:00Z, now, -7d or -12h", param, ctx)
        return moment


SINCE = click.option("--since", type=When(), metavar="T", help="From the audit trail: from this time (2026-01-31T00:00:00Z, -7d, -12h).")
UNTIL = click.option("--until", type=When(), metavar="T", default="now", show_default=True, help="Until before this time.")
ACTIVE = click.option("--active", type=click.IntRange(min=1), help="How many active people a brake's percentage counts from.")


@click.command("backtest")
@CONFIG
@click.option("--events", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A file of System Log events (JSON Lines).")
@SINCE
@UNTIL
@RULES
@click.option("--tenant", default="", help="Whose log the file is (for the protected list and the guards).")
@ACTIVE
@JSON
def rules_backtest(
    config: Path | None,
    events: Path | None,
    since: datetime | None,
    until: datetime,
    folder: Path | None,
    tenant: str,
    active: int | None,
    as_json: bool,
) -> None:
    """Play past events through candidate rules (--rules), as if they had been in force: what fires, who would be locked, which brakes would
    trip, and what is other than with the rules of today.

    No event is too old here. Without --rules the rules of today are played. Nothing is called and nothing is kept.
    """
    place = place_of(config)
    if (events is None) == (since is None):
        raise click.UsageError("give either --events FILE or --since T")
    past: Iterable[Past] = (
        from_file(events, tenant or next(iter(place.settings.okta), "default")) if events else _trail(place, since, until)
    )
    protected = place.protected
    current = place.ruleset()
    candidate = place.ruleset(folder) if folder else current
    house = House(_brake(place.settings.safety.brakes), protected.is_protected if protected else _nobody, active)
    unit, total = ("bytes", events.stat().st_size) if events else ("events", len(past))  # type: ignore[arg-type]  # a Trail has a length
    with _bar(unit, total, quiet=as_json) as progress:
        task = progress.add_task("playing", total=total)
        report = backtest(
            past,
            place.make(candidate, protected),
            house,
            current=place.make(current, protected) if folder else None,
            progress=lambda done, size: progress.update(task, completed=size if events else done),
        )
    if as_json:
        print_json(report.as_dict())
    else:
        _show_backtest(report, candidate, compared=folder is not None)
    if protected is not None and not protected.is_trusted:
        errors.print(Text(inert(f"{protected.problem}: until then every lockdown waits for approval"), style="yellow"), soft_wrap=True)


def _nobody(tenant: str, person: str) -> bool:
    return False


def _brake(settings: BrakeSettings) -> Callable[[str], LockdownBrake]:
    return lambda tenant: LockdownBrake(settings)


def _trail(place: Place, since: datetime | None, until: datetime) -> Trail:
    if since is None or since >= until:
        raise click.UsageError("--since must be before --until")
    return Trail(partial(_ask, place), since, until)


def _ask(place: Place, query: str) -> list[dict[str, Any]]:
    settings = place.settings.audit
    try:
        return ask(settings.path, query, timeout_s=settings.sql_timeout_s, memory_limit=settings.memory_limit)
    except (QueryRefused, QueryStopped) as error:
        raise PortcullisError(f"the audit trail does not answer: {error}") from None


def _bar(unit: str, total: int, *, quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    return Progress(*columns, console=errors, transient=True, disable=quiet or not sys.stderr.isatty())


def _show_backtest(report: Report, ruleset: RuleSet, *, compared: bool) -> None:
    found = report.as_dict()
    rows = []
    for rule_id, count in found["fired"].items():
        rule, outcomes = ruleset.get(rule_id), report.outcomes[rule_id]
        rows.append((rule_id, rule.title if rule else "", count, *(outcomes[one] or "" for one in _OUTCOMES)))
    table("Fired", ("rule", "title", "times", *_OUTCOMES), rows, empty="no rule fired")
    lockdowns = [(one["at"], one["person"], one["rule"], one["scope"], one["tenant"]) for one in found["lockdowns"]]
    table("Would be locked", ("when", "person", "rule", "scope", "tenant"), lockdowns[:_MOST_SHOWN], empty="nobody")
    _more(report.lockdowns.total)
    if found["brakes"]:
        brakes = [(one["brake"], one["tripped"], one["locked_before"], one["held"]) for one in found["brakes"]]
        table("Brakes that would trip", ("brake", "when", "people locked before", "lockdowns held back after"), brakes)
    if compared:
        for what, title in (("added", "New findings"), ("removed", "Findings that would be gone"), ("changed", "Other responses")):
            rows = [(one["at"], one["rule"], one["person"], one.get("before", ""), one["response"], one["event"]) for one in found[what]]
            table(title, ("when", "rule", "person", "before", "response", "event"), rows[:_MOST_SHOWN], empty="none")
            _more(found["totals"][what])
    span = f", {found['first']} to {found['last']}" if report.first else ""
    bad = (
        f"; {report.malformed.total} lines are no events, the first is number {report.malformed.rows[0]['number']}"
        if report.malformed.total
        else ""
    )
    console.print(Text(f"{report.events} events{span}{bad}", style="dim"))


_OUTCOMES = ("alert", "approve", "lockdown", "shadow")


def _more(total: int) -> None:
    if total > _MOST_SHOWN:
        console.print(Text(f"and {total - _MOST_SHOWN} more: --json has them", style="dim"))


@click.command("promotion")
@CONFIG
@click.option("--since", type=When(), metavar="T", default="-7d", show_default=True, help="From this time.")
@UNTIL
@RULES
@ACTIVE
@JSON
def rules_promotion(config: Path | None, since: datetime, until: datetime, folder: Path | None, active: int | None, as_json: bool) -> None:
    """Report on rules on trial (`shadow: true`) from the audit trail: how often, for whom, what would have been done, and how many known
    incidents coincide."""
    place = place_of(config)
    if since >= until:
        raise click.UsageError("--since must be before --until")
    asking = partial(_ask, place)
    ruleset = place.ruleset(folder)
    found = promotions(
        firings(asking, since, until),
        list(incidents(asking, since, until)),
        ruleset.shadowed,
        _brake(place.settings.safety.brakes),
        active,
    )
    if as_json:
        print_json({"since": since.isoformat(), "until": until.isoformat(), "rules": [one.as_dict() for one in found]})
        return
    table(
        f"On trial, {since:%F %H:%M} to {until:%F %H:%M}",
        ("rule", "fired", "people", "would", "brakes tripped", "known incidents", "without one", "lowered because"),
        (_promotion(one, ruleset) for one in found),
        empty="no rule is on trial, and none was",
    )


def _promotion(one: Promotion, ruleset: RuleSet) -> tuple[object, ...]:
    rule = ruleset.get(one.rule)
    changed = " (changed meanwhile)" if len(one.versions) > 1 or (rule is not None and any(v != rule.version for v in one.versions)) else ""
    most = ", ".join(f"{who} ({count})" for who, count in one.people.most_common(3))
    return (
        one.rule + changed,
        one.fired,
        f"{len(one.people)}: {most}" if one.people else "nobody",
        ", ".join(f"{count} {response}" for response, count in one.would.most_common()),
        len(one.brakes),
        len(one.incidents),
        one.fired - one.with_incident,
        "; ".join(f"{reason} ({count})" for reason, count in one.reasons.most_common(3)),
    )


COMMANDS = (rules_backtest, rules_promotion)
