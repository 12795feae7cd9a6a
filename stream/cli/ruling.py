"""Commands about rules: rules list, show, lint, test, backtest, promotion, refresh-catalogue. None of them calls anything or changes anything but
the catalogue's file."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from audit.client import ask
from audit.query import QueryRefused, QueryStopped
from handlers.protected import ProtectedList, load_protected
from model.errors import ConfigurationError, PortcullisError
from model.event import parse_time
from model.settings import BrakeSettings, Settings, load
from rules import reach
from rules.backtest import House, Make, Past, Report, backtest
from rules.cases import CaseResult, run_cases
from rules.catalogue import Catalogue
from rules.catalogue import refresh as refresh_catalogue
from rules.classify import Classifier
from rules.explain import explain
from rules.guards import GuardSettings, OwnActor
from rules.lifecycle import Lifecycle
from rules.lint import Report as LintReport
from rules.lint import lint as lint_rules
from rules.lower import Guards
from rules.reload import version_of
from rules.rule import Rule
from rules.ruleset import RuleSet
from rules.shadow import Promotion, promotions
from stream.cli.common import JSON, console, errors, inert, print_json, table
from stream.clock import SystemClock
from stream.judge import LockdownBrake
from stream.past import Trail, firings, from_file, incidents

_USUAL = Path("portcullis.toml")
#: Rows shown of a list; --json has them all.
_MOST_SHOWN = 20

CONFIG = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="The configuration (default: portcullis.toml where there is one)."
)
RULES = click.option("--rules", "folder", type=click.Path(path_type=Path, exists=True), help="Sigma files instead of the configured ones.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command runs: a configuration, or none."""

    settings: Settings
    configured: bool

    @property
    def guards(self) -> GuardSettings:
        return GuardSettings.load(self.settings.rules.guards)

    def ruleset(self, folder: Path | None = None) -> RuleSet:
        return RuleSet.load(folder or self.settings.rules.detections, self.guards.sigma_placeholders())

    @property
    def protected(self) -> ProtectedList | None:
        return load_protected(self.settings.safety.protected) if self.configured else None

    def make(self, ruleset: RuleSet, protected: ProtectedList | None) -> Make:
        """tenant → a classifier with the house's guards, as the classifier's role has it but for our own actor, which only Okta knows."""
        guards, lifecycle = self.guards, Lifecycle.load()

        def made(tenant: str) -> Classifier:
            ids = [person for where, person in protected.people if where == tenant] if protected else []
            return Classifier(ruleset, lifecycle, Guards(guards, ids, OwnActor()))

        return made


def place_of(config: Path | None) -> Place:
    if config is None and not _USUAL.is_file():
        return Place(Settings(), False)
    return Place(load(config or _USUAL), True)


@click.group()
def rules() -> None:
    """The rules: what there is, what is wrong with it, what it would have done."""


# --- what there is --------------------------------------------------------------------------------------------------------


@rules.command("list")
@CONFIG
@RULES
@JSON
def rules_list(config: Path | None, folder: Path | None, as_json: bool) -> None:
    """Every rule that findings can name."""
    ruleset = place_of(config).ruleset(folder)
    found = sorted(ruleset.reported, key=lambda rule: rule.id)
    if as_json:
        print_json([_row(rule) for rule in found])
        return
    table("", ("rule", "title", "severity", "response", "events"), (_cells(rule) for rule in found))
    console.print(Text(f"{len(found)} rules, version {version_of(ruleset)}", style="dim"))


def _cells(rule: Rule) -> tuple[object, ...]:
    response = rule.response.value + (f" ({rule.scope.value})" if rule.response.value == "lockdown" else "")
    response += ", on trial" if rule.section.shadow else ""
    return rule.id, rule.title, rule.severity.value, response, "several" if rule.spec is not None else "one"


def _row(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "title": rule.title,
        "version": rule.version,
        "severity": rule.severity.value,
        "response": rule.response.value,
        "scope": rule.scope.value,
        "person": rule.person,
        "shadow": rule.section.shadow,
        "events": "several" if rule.spec is not None else "one",
        "path": str(rule.path),
        "line": rule.line,
    }


@rules.command("show")
@CONFIG
@RULES
@click.argument("rule_id", metavar="RULE")
@JSON
def rules_show(config: Path | None, folder: Path | None, rule_id: str, as_json: bool) -> None:
    """One rule: what it asks, of which events, what follows, and what a human must do."""
    ruleset = place_of(config).ruleset(folder)
    rule = next((one for one in ruleset if rule_id in one.names), None)
    if rule is None:
        raise ConfigurationError(f"no rule is called {rule_id!r}: portcullis rules list")
    types = sorted(reach.types_matched(rule, Catalogue.load())) if rule.expression is not None else []
    shown = _row(rule) | {
        "name": rule.name,
        "sigma_id": rule.sigma_id,
        "status": rule.status,
        "description": rule.description.strip(),
        "event_types": types,
        "refers": {name: reference.removesuffix("#begun") for name, reference in rule.refers.items()},
        "window_s": rule.spec.span if rule.spec is not None else None,
        "guards": list(rule.section.guards),
        "tags": list(rule.tags),
        "references": list(rule.references),
        "falsepositives": list(rule.falsepositives),
        "basis": rule.section.basis,
        "after_approval": rule.section.after_approval,
        "runbook": rule.runbook.strip(),
    }
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        if value not in (None, "", [], {}):
            console.print(Text(f"{name:15} ", style="bold") + Text(_told(value)), soft_wrap=True)


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(inert(f"{key} → {one}" if key != one else key) for key, one in value.items())
    return ", ".join(map(inert, value)) if isinstance(value, list) else inert(value)


# --- what is wrong with it ----------------------------------------------------------------------------------------------------


@rules.command("lint")
@CONFIG
@RULES
@click.option("--catalogue", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Another catalogue of event types.")
@click.option("--errors-only", is_flag=True, help="Warnings are shown and end with 0.")
@JSON
def rules_lint(config: Path | None, folder: Path | None, catalogue: Path | None, errors_only: bool, as_json: bool) -> None:
    """Look for what is wrong with rules: each finding with its place and what to do. Ends with 1 where there is one."""
    place = place_of(config)
    known = Catalogue.load(catalogue)
    guards = place.guards if place.settings.rules.guards else None
    report = lint_rules(folder or place.settings.rules.detections, guards, known, SystemClock().now())
    if as_json:
        print_json(report.as_dict() | {"catalogue": known.release})
    else:
        _show_lint(report, known)
    if report.errors if errors_only else report.problems:
        raise SystemExit(1)


def _show_lint(report: LintReport, known: Catalogue) -> None:
    styles = {"error": "bold red", "warning": "yellow"}
    for one in report.problems:
        console.print(
            Text(inert(f"{one.path}:{one.line}: ")) + Text(one.grade, style=styles[one.grade]) + Text(inert(f" [{one.code}] {one.text}")),
            soft_wrap=True,
        )
        console.print(Text(inert(f"    {one.remedy}"), style="dim"), soft_wrap=True)
    for note in report.notes:
        console.print(Text(inert(f"note: {note}"), style="dim"), soft_wrap=True)
    left = f", {report.skipped} for other products left out" if report.skipped else ""
    count = f"{report.rules} rules{left}, catalogue {known.release}: "
    found = f"{report.errors} errors, {len(report.problems) - report.errors} warnings" if report.problems else "nothing is wrong"
    console.print(Text(count + found, style="" if report.problems else "green"))


@rules.command("test")
@CONFIG
@RULES
@JSON
def rules_test(config: Path | None, folder: Path | None, as_json: bool) -> None:
    """Run the cases that stand beside the rules (NAME.cases.jsonl beside NAME.yml). Ends with 1 where one is not as it must be."""
    ruleset = place_of(config).ruleset(folder)
    results = list(run_cases(ruleset, Lifecycle.load()))
    failed = [one for one in results if not one.ok]
    if as_json:
        print_json({"cases": len(results), "failed": [_failure(one, ruleset) for one in failed]})
    else:
        for one in failed:
            told = _failure(one, ruleset)
            console.print(Text(inert(f"{told['path']}:{told['line']}: "), style="bold red") + Text(inert(told["case"])), soft_wrap=True)
            console.print(Text(inert(f"    {told['problem']}")), soft_wrap=True)
            for line in told["because"]:
                console.print(Text(inert(f"    {line}"), style="dim"), soft_wrap=True)
        if not results:
            console.print(Text("no rule here has cases: nothing was shown", style="yellow"))
        else:
            words = f"{len(results) - len(failed)} of {len(results)} cases are as they must be"
            console.print(Text(words, style="bold red" if failed else "green"))
    if failed:
        raise SystemExit(1)


def _failure(one: CaseResult, ruleset: RuleSet) -> dict[str, Any]:
    missing = [rule for rule_id in sorted(one.case.fires - one.fired) if (rule := ruleset.get(rule_id)) is not None]
    unknown = sorted(rule_id for rule_id in one.case.fires if ruleset.get(rule_id) is None)
    because = [f"{rule_id}: there is no such rule" for rule_id in unknown]
    because += [f"{rule.id}: {line}" for rule in missing for line in explain(rule, ruleset, one.case.events)]
    return {
        "path": str(one.case.path),
        "line": one.case.line,
        "case": one.case.name,
        "problem": one.problem,
        "expected": sorted(one.case.fires),
        "fired": sorted(one.fired),
        "because": because,
    }


@rules.command("refresh-catalogue")
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write there, not into the installed catalogue.")
def rules_refresh(source: Path, out: Path | None) -> None:
    """Take over Okta's list of event types from FILE, the CSV that Okta publishes (developer.okta.com/docs/okta-event-types.csv)."""
    changed = refresh_catalogue(source, out)
    console.print(f"release {changed.before} → {changed.after}: {len(changed.added)} new, {len(changed.gone)} gone")
    for sign, names in (("+", changed.added), ("-", changed.gone)):
        for name in names[:_MOST_SHOWN]:
            console.print(Text(f"{sign} {inert(name)}"))
        if len(names) > _MOST_SHOWN:
            console.print(Text(f"{sign} and {len(names) - _MOST_SHOWN} more", style="dim"))


# --- what it would have done ----------------------------------------------------------------------------------------------------


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


@rules.command("backtest")
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


@rules.command("promotion")
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


COMMANDS = (rules,)
