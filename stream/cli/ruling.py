"""Commands about rules: rules list, show, lint, test, backtest, promotion, refresh-catalogue. None of them calls anything or changes anything but
the catalogue's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from model.errors import ConfigurationError
from rules import reach
from rules.cases import CaseResult, run_cases
from rules.catalogue import Catalogue
from rules.catalogue import refresh as refresh_catalogue
from rules.explain import explain
from rules.lifecycle import Lifecycle
from rules.lint import Report as LintReport
from rules.lint import lint as lint_rules
from rules.reload import version_of
from rules.rule import Rule
from rules.ruleset import RuleSet
from stream.cli import playing
from stream.cli.common import JSON, console, inert, print_json, table
from stream.cli.place import CONFIG, RULES, place_of
from stream.clock import SystemClock

#: Rows shown of a list; --json has them all.
_MOST_SHOWN = 20


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


for command in playing.COMMANDS:
    rules.add_command(command)

COMMANDS = (rules,)
