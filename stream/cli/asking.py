"""Commands that only ask: audit sql, audit verify, classify, plan, check."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.progress import Progress
from rich.text import Text

from audit.client import ask, verify_trail
from audit.query import QueryRefused, QueryStopped
from model.errors import ConfigurationError
from model.settings import load
from rules.classify import Classifier
from rules.lifecycle import Lifecycle
from rules.offline import classify_lines
from rules.ruleset import RuleSet
from stream import check as checking
from stream import preview
from stream.cli.common import CONFIG, JSON, console, errors, inert, print_csv, print_json, run_async, table


@click.group()
def audit() -> None:
    """Ask and verify the audit trail."""


@audit.command("sql", context_settings={"ignore_unknown_options": True})
@CONFIG
@click.argument("query")
@JSON
@click.option("--csv", "as_csv", is_flag=True, help="CSV for spreadsheets: what would be a formula there is text.")
def audit_sql(config: Path, query: str, as_json: bool, as_csv: bool) -> None:
    """Run one SELECT over the audit trail: asks the running recorder, or opens the file where none runs.

    \b
    portcullis audit sql "SELECT person, target, change, status FROM actions ORDER BY intended DESC LIMIT 20"
    """
    if as_json and as_csv:
        raise ConfigurationError("--json or --csv, not both")
    settings = load(config).audit
    try:
        rows = ask(settings.path, query, timeout_s=settings.sql_timeout_s, memory_limit=settings.memory_limit)
    except QueryRefused as error:
        raise ConfigurationError(str(error)) from None
    except QueryStopped as error:
        errors.print(Text(f"portcullis: {error}", style="red"))
        raise SystemExit(1) from None
    if rows.notice:
        errors.print(Text(rows.notice, style="yellow"))
    if as_json:
        print_json(list(rows))
    elif as_csv:
        print_csv(rows)
    else:
        table("", list(rows[0]) if rows else (), (row.values() for row in rows), empty="no rows")


@audit.command("verify")
@CONFIG
@JSON
def audit_verify(config: Path, as_json: bool) -> None:
    """Recompute the hash chains and compare every kept byte with them. Ends with 1 where something is broken."""
    settings = load(config).audit
    with Progress(console=errors, transient=True, disable=as_json or not sys.stderr.isatty()) as progress:
        task = progress.add_task("verifying", total=None)
        report = verify_trail(
            settings.path,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            memory_limit=settings.memory_limit,
        )
    if as_json:
        print_json(report.as_dict())
    else:
        heads = [(one["topic"], one["partition"], one["length"], one["hash"][:16] + "…") for one in report.as_dict()["heads"]]
        table("Chains", ("topic", "partition", "records", "head"), heads)
        breaks = [(one["topic"], one["partition"], one["offset"], one["what"]) for one in report.as_dict()["breaks"]]
        if breaks:
            table("Broken", ("topic", "partition", "offset", "what"), breaks)
        console.print(Text("the trail is whole", style="green") if report.ok else Text("the trail is broken", style="bold red"))
    if not report.ok:
        raise SystemExit(1)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--rules", "folder", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Sigma files instead of our own.")
@JSON
def classify(file: Path, folder: Path | None, as_json: bool) -> None:
    """Say what the rules make of a file of System Log events (JSON Lines). Nothing is called, nothing is kept.

    With --json exactly one line per input line, in input order.
    """
    ruleset = RuleSet.load(folder)
    if ruleset.skipped:
        first = ruleset.skipped[0]
        said = f"{len(ruleset)} rules; {len(ruleset.skipped)} for other products left out, e.g. {first.path}: {first.reason}"
        errors.print(Text(said, style="dim"), soft_wrap=True)
    classifier = Classifier(ruleset, Lifecycle.load())
    shown = 0
    rows = []
    with file.open("rb") as lines:
        for row in classify_lines((line.rstrip(b"\r\n") for line in lines), classifier):
            shown += 1
            if as_json:
                print_json(row)
            elif row["decisions"] or row["moment"] != "none" or row["error"]:
                found = "; ".join(f"{one['rule']} {one['title']} ({one['response']})" for one in row["decisions"])
                rows.append((row["line"], row["event_type"] or row["error"], row["moment"], ", ".join(row["people"]), found))
    if not as_json:
        table("", ("line", "event", "moment", "people", "rules"), rows, empty=f"{shown} events, none of them asks for anything")


@click.command()
@CONFIG
@click.argument("person")
@click.option("--tenant", help="Which tenant, where there are several.")
@JSON
def plan(config: Path, person: str, tenant: str | None, as_json: bool) -> None:
    """Show what would change for PERSON (an Okta id or login) at every target. Calls nothing that changes anything."""
    previews = run_async(lambda: preview.previews(load(config), person, tenant))
    if as_json:
        print_json(previews)
        return
    rows = [
        (one["target"], change["kind"], change["subject"], change["account"], one["problem"])
        for one in previews
        for change in one["changes"] or [{"kind": "no change", "subject": "", "account": ""}]
    ]
    table(f"Plan for {inert(person)}", ("target", "change", "what", "account", "problem"), rows)


@click.command()
@CONFIG
@JSON
def check(config: Path, as_json: bool) -> None:
    """Check configuration, rules, credentials and reachability: each line is ok, or says what to do."""
    results = run_async(lambda: checking.check(config))
    if as_json:
        print_json({"ok": all(one.ok for one in results), "checks": [one.as_dict() for one in results]})
    else:
        for one in results:
            console.print(
                Text("ok      ", style="green") if one.ok else Text("to do   ", style="bold red"), Text(inert(f"{one.what}: {one.said}"))
            )
    if not all(one.ok for one in results):
        raise SystemExit(1)


COMMANDS = (audit, classify, plan, check)
