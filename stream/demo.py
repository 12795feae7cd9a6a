"""`portcullis demo`: a working day in under a minute, every part real but the vendors: embedded broker, all roles, strict simulators.

It shows progress while it runs, and ends with what happened per person and target and where everything lies. It fails where an expected
effect is missing at the simulators: the same check as `portcullis verify-day`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from audit.client import ask
from handlers.messages import render_text
from model.settings import Settings, load
from simulators.serve import Simulation, SimulationOptions
from simulators.verify import Check, as_json, verify_day
from stream.cli.common import console, inert
from stream.house import ROLES
from stream.run import Running

log = logging.getLogger(__name__)

#: After the last step: read-backs, the transfer after its hold period, the last Slack message.
SETTLE_S = 30.0
KEPT = ("audit.duckdb", "slack.jsonl", "slack.txt", "report.txt", "report.json")

ACTIONS = """
SELECT tenant, person, target, change, status, count(*) AS times, min(answered) AS first
FROM actions WHERE target <> 'slack' GROUP BY ALL ORDER BY person, first
"""
INCIDENTS = """
SELECT id, person, state, opened, contained, epoch_ms(contained) - epoch_ms(opened) AS took_ms FROM incidents ORDER BY opened
"""


async def demo(out: Path, *, pace: float = 1.0) -> bool:
    """Plays the day into `out`. True when everything that had to happen happened."""
    began = time.monotonic()
    work = _fresh(out)
    logging.getLogger("stream").setLevel(logging.WARNING)
    config = work / "portcullis.toml"
    simulation = Simulation(SimulationOptions(scenario="day", write_config=config, pace=pace))
    console.print("[bold]Portcullis demo[/]: embedded broker (memory only), simulated Okta, Box and Slack, all roles in one process")
    try:
        settings = await _begin(simulation, config, out)
        async with Running(settings, ROLES) as running:
            checks = await _watch(simulation, running, began)
            await _settled(running)
            report = await _report(settings, simulation, checks, began)
    finally:
        await simulation.stop()
    _write(out, simulation, report)
    _show(report, out)
    shutil.rmtree(work, ignore_errors=True)
    return bool(report["ok"])


def _fresh(out: Path) -> Path:
    """The folder for results, without those of an earlier demo; and a folder for secrets and configuration that does not stay."""
    out.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        (out / name).unlink(missing_ok=True)
    for stray in out.glob("audit.*"):
        stray.unlink()
    work = out / ".work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    return work


async def _begin(simulation: Simulation, config: Path, out: Path) -> Settings:
    """The day begins with the configuration, so the roles are told of it at once."""
    await simulation.start()
    settings = load(config)
    audit = settings.audit.model_copy(update={"path": (out / "audit.duckdb").resolve()})
    return settings.model_copy(update={"audit": audit})


async def _watch(simulation: Simulation, running: Running, began: float) -> list[Check]:
    """Shows the day until every check holds (or time is over); a role that fails ends it at once."""
    watching = asyncio.create_task(running.wait())
    checks: list[Check] = []
    until: float | None = None
    try:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            while True:
                await asyncio.sleep(0.25)
                if watching.done():
                    watching.result()
                urls = simulation.urls
                checks = await verify_day(urls["okta"], urls["box"], urls["slack"])
                live.update(_progress(simulation, checks, await running.lags(), time.monotonic() - began))
                if all(check.ok for check in checks):
                    return checks
                if simulation.okta.scenario == "done":
                    until = until or time.monotonic() + SETTLE_S
                    if time.monotonic() > until:
                        return checks
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _progress(simulation: Simulation, checks: list[Check], lags: dict[str, int], seconds: float) -> Table:
    grid = Table.grid(padding=(0, 2))
    done = sum(check.ok for check in checks)
    grid.add_row(Text(f"{seconds:4.0f} s", style="bold"), Text(f"{done} of {len(checks)} effects seen at the vendors"))
    grid.add_row("", Text("behind: " + ", ".join(f"{name} {lag}" for name, lag in lags.items()), style="dim"))
    for step in (simulation.day.played if simulation.day else [])[-6:]:
        grid.add_row("", Text(f"· {step.title}"))
    return grid


async def _settled(running: Running) -> None:
    """The trail is complete when nobody is behind any more."""
    for _ in range(40):
        if not any((await running.lags()).values()):
            return
        await asyncio.sleep(0.25)


async def _report(settings: Settings, simulation: Simulation, checks: list[Check], began: float) -> dict[str, Any]:
    path = settings.audit.path
    counts = "SELECT (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM decisions) AS decisions, "
    counts += "(SELECT count(*) FROM actions) AS actions, (SELECT count(*) FROM quarantine) AS quarantined"
    loop = asyncio.get_running_loop()
    actions, incidents, totals = [await loop.run_in_executor(None, ask, path, query) for query in (ACTIONS, INCIDENTS, counts)]
    names = {user["id"]: str(user["profile"].get("login", "")) for user in simulation.okta.state()["users"].values()}
    return {
        "ok": all(check.ok for check in checks) and not simulation.crashes,
        "seconds": round(time.monotonic() - began, 1),
        "totals": totals[0],
        "checks": as_json(checks),
        "actions": [row | {"login": names.get(row["person"], "")} for row in actions],
        "incidents": [row | {"login": names.get(row["person"], "")} for row in incidents],
        "crashes": simulation.crashes,
    }


def _write(out: Path, simulation: Simulation, report: dict[str, Any]) -> None:
    said = simulation.slack.messages(simulation.channel)
    (out / "slack.jsonl").write_text("".join(json.dumps(message, ensure_ascii=True) + "\n" for message in said))
    texts = [render_text(message.get("text", ""), message.get("blocks", [])) for message in said]
    (out / "slack.txt").write_text(f"\n\n{'─' * 80}\n\n".join(texts) + "\n")
    (out / "report.json").write_text(json.dumps(report, indent=1, default=str) + "\n")
    with (out / "report.txt").open("w") as file:
        _print(Console(file=file, width=140, no_color=True, highlight=False), report)


def _show(report: dict[str, Any], out: Path) -> None:
    _print(console, report)
    console.print(f"\nOK in {report['seconds']} s" if report["ok"] else f"\n[bold red]Not everything happened[/] ({report['seconds']} s)")
    console.print(f"  what SecOps saw in Slack   {out / 'slack.txt'}")
    console.print(f"  the audit trail (DuckDB)   {out / 'audit.duckdb'}")
    console.print(f"  this report                {out / 'report.txt'}, {out / 'report.json'}")


def _print(where: Console, report: dict[str, Any]) -> None:
    shown = Table(title="What happened, per person and target", title_justify="left")
    for column in ("person", "target", "what was done", "result"):
        shown.add_column(column, overflow="fold")
    for (login, target), rows in _grouped(report["actions"]).items():
        done = ", ".join(f"{row['change']}" + (f" ×{row['times']}" if row["times"] > 1 else "") for row in rows)
        shown.add_row(*(Text(inert(cell)) for cell in (login, target, done, "/".join(dict.fromkeys(row["status"] for row in rows)))))
    where.print(shown)
    for row in report["incidents"]:
        took = f"{row['took_ms']} ms after its order" if row["took_ms"] is not None else "not contained"
        where.print(Text(inert(f"Incident of {row['login'] or row['person']}: {row['state']}, {took}")))
    missing = [check for check in report["checks"] if not check["ok"]]
    where.print(f"{len(report['checks']) - len(missing)} of {len(report['checks'])} expected effects stand at the vendors")
    for check in missing:
        where.print(Text(inert(f"  missing: {check['name']} {check['person']} {check['target']}: {check['expected']} / {check['actual']}")))
    totals = ", ".join(f"{count} {name}" for name, count in report["totals"].items())
    where.print(f"Audit trail: {totals}")


def _grouped(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row["login"] or row["person"], row["target"]), []).append(row)
    return grouped
