"""Commands that stay: run, simulate."""

from __future__ import annotations

from pathlib import Path

import click

from model.settings import load
from simulators.serve import Simulation, SimulationOptions, parse_log_option, serve
from stream import run as running
from stream.cli.common import CONFIG, console, errors, run_async
from stream.house import ROLES


@click.command()
@CONFIG
@click.option("--role", type=click.Choice([*ROLES, "all"]), default="all", show_default=True, help="What this process does.")
@click.option("--until-idle", type=click.FloatRange(min=0), metavar="SECONDS", help="End with 0 when nothing was left to do for so long.")
@click.option("--dry-run", is_flag=True, help="Plan and record, call nothing that changes anything, post nothing.")
def run(config: Path, role: str, until_idle: float | None, dry_run: bool) -> None:
    """Run the pipeline, or one role of it.

    Without [kafka] bootstrap in the configuration the embedded broker is used: one process, memory only, for evaluation.
    """
    settings = load(config)
    if dry_run:
        settings = settings.model_copy(update={"dry_run": True})
    roles = ROLES if role == "all" else (role,)
    run_async(lambda: running.run(settings, roles, until_idle, say=lambda line: errors.print(line)))


@click.command()
@click.option("--port-base", type=click.IntRange(0, 65000), default=0, help="Okta's port; Box +1, Slack +2, further tenants +6… (0: any)")
@click.option("--okta-log", "okta_logs", multiple=True, metavar="[TENANT=]FILE", help="System Log events, one JSON object a line.")
@click.option("--scenario", type=click.Choice(["day", "quiet"]), help="What happens once the configuration is written.")
@click.option("--write-config", type=click.Path(path_type=Path, dir_okay=False), help="Write a configuration for `portcullis run`.")
@click.option("--rate", type=click.IntRange(min=1), default=120, show_default=True, help="Requests a minute that the log allows.")
@click.option("--tenant", "tenants", multiple=True, help="A further tenant, without a log.")
@click.option("--pace", type=click.FloatRange(min=0.05), default=1.0, show_default=True, help="0.5 plays the day twice as fast.")
def simulate(
    port_base: int,
    okta_logs: tuple[str, ...],
    scenario: str | None,
    write_config: Path | None,
    rate: int,
    tenants: tuple[str, ...],
    pace: float,
) -> None:
    """Simulated Okta, Box and Slack, strict and stateful, on loopback: to try rules and policies without a tenant."""
    options = SimulationOptions(
        port_base=port_base,
        okta_logs=tuple(parse_log_option(text) for text in okta_logs),
        tenants=tenants,
        scenario=scenario,  # type: ignore[arg-type]  # click has checked it
        write_config=write_config,
        rate=rate,
        pace=pace,
    )

    def announce(simulation: Simulation) -> None:
        for name, url in simulation.urls.items():
            console.print(f"{name:12} {url}")
        if write_config is not None:
            console.print(f"configuration written: portcullis run --config {write_config}")

    run_async(lambda: serve(options, announce))


COMMANDS = (run, simulate)
