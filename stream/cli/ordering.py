"""Commands by which a human orders something of the running system: release, parked, brakes, link. All name an actor and a reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from model.errors import ConfigurationError
from model.settings import BrakeSettings, Settings, load
from stream import linking, topics
from stream.cli.common import CONFIG, JSON, console, print_json, run_async, table
from stream.desk import Desk, desk
from stream.judge import BrakeState
from stream.sweep import Swept

ACTOR = click.option("--actor", required=True, help="Who orders this (kept in the audit trail).")
REASON = click.option("--reason", required=True, help="Why (kept in the audit trail).")


def at_desk(settings: Settings, work: Callable[[Desk], Awaitable[Any]]) -> Any:
    async def sit() -> Any:
        async with desk(settings) as one:
            return await work(one)

    return run_async(sit)


@click.command()
@CONFIG
@click.argument("subject")
@ACTOR
@REASON
def release(config: Path, subject: str, actor: str, reason: str) -> None:
    """Release the open Holds of SUBJECT: a Hold's id, or TENANT:PERSON. What was there before is restored."""

    async def work(one: Desk) -> list[str]:
        found = [hold for key, latch in (await one.latches()).items() for hold in latch.open_holds if subject in (hold.id, key)]
        if not found:
            raise ConfigurationError(f"no open Hold is {subject!r}: the table holds of the audit trail lists them (state open)")
        for hold in found:
            await one.order("release", hold.tenant, hold.person, actor, reason, holds=[hold.id])
        return [hold.id for hold in found]

    for hold in at_desk(load(config), work):
        console.print(f"release of {hold} ordered")


@click.group()
def parked() -> None:
    """Work that waits for a human: list, show, redrive, drop."""


@parked.command("list")
@CONFIG
@JSON
def parked_list(config: Path, as_json: bool) -> None:
    """What is parked, and why."""
    found = at_desk(load(config), lambda one: one.parked())
    if as_json:
        print_json([due.model_dump(mode="json") for due in found])
    else:
        table(
            "Parked",
            ("id", "since", "attempts", "code", "reason"),
            ((d.key, f"{d.since:%F %T}", d.attempts, d.code, d.reason) for d in found),
        )


@parked.command("show")
@CONFIG
@click.argument("parked_id")
def parked_show(config: Path, parked_id: str) -> None:
    """One parked entry whole, with the bytes that caused it."""
    print_json((at_desk(load(config), lambda one: _find(one, parked_id))).model_dump(mode="json"))


def _ordering(kind: Any, help_text: str) -> click.Command:
    @click.command(kind, help=help_text)
    @CONFIG
    @click.argument("parked_id")
    @ACTOR
    @REASON
    def command(config: Path, parked_id: str, actor: str, reason: str) -> None:
        async def work(one: Desk) -> None:
            due = await _find(one, parked_id)
            await one.order(kind, due.tenant, due.person, actor, reason, lane=due.lane, slot=due.slot)

        at_desk(load(config), work)
        console.print(f"{kind} of {parked_id} ordered")

    return command


async def _find(one: Desk, parked_id: str) -> Any:
    for due in await one.parked():
        if due.key == parked_id:
            return due
    raise ConfigurationError(f"nothing is parked as {parked_id!r}: portcullis parked list")


parked.add_command(_ordering("redrive", "Look again now: what was superseded meanwhile is skipped."))
parked.add_command(_ordering("drop", "Forget a parked entry."))


@click.group()
def brakes() -> None:
    """The brakes on lockdowns and removals, and on what a listing of people says: see and reset."""


@brakes.command("list")
@CONFIG
@JSON
def brakes_list(config: Path, as_json: bool) -> None:
    """Each brake, how many people it counts now, and whether it is tripped."""
    settings = load(config)
    rows = at_desk(settings, lambda one: _brakes(one, settings.safety.brakes, datetime.now(UTC)))
    if as_json:
        print_json(rows)
    else:
        table("Brakes", ("brake", "people", "tripped"), ((row["brake"], row["people"], row["tripped"] or "no") for row in rows))


@brakes.command("reset")
@CONFIG
@click.argument("brake")
@ACTOR
@REASON
def brakes_reset(config: Path, brake: str, actor: str, reason: str) -> None:
    """Reset BRAKE (as `brakes list` names it): counting begins anew."""
    kind, _, rest = brake.partition(":")
    tenant = rest.partition(":")[0]
    if kind not in ("lockdown", "removal", "source") or not tenant:
        raise ConfigurationError(f"no brake is called {brake!r}: portcullis brakes list")
    key = topics.person_key(tenant, "") if kind == "source" else tenant.encode()
    at_desk(load(config), lambda one: one.order("reset_brake", tenant, "", actor, reason, key=key, brake=brake))
    console.print(f"reset of {brake} ordered")


async def _brakes(one: Desk, settings: BrakeSettings, now: datetime) -> list[dict[str, Any]]:
    """People within each brake's window; whoever left it stands on the topic still and counts no more."""
    locked_since = now - timedelta(seconds=settings.lockdown_window_s)
    removed_since = now - timedelta(seconds=settings.removal_window_s)
    rows: dict[str, dict[str, Any]] = {}
    for key, value in (await one.snapshot(topics.BRAKES)).items():
        kind, _, rest = key.partition(":")
        if kind == "lockdown":
            state: BrakeState = BrakeState.from_bytes(value)
            tripped = state.tripped.isoformat() if state.tripped else None
            rows[key] = {"brake": key, "people": sum(when > locked_since for _, when in state.locks), "tripped": tripped}
        elif kind in ("removal", "tripped"):
            scope = rest if kind == "tripped" else rest.rpartition(":")[0]
            row = rows.setdefault(f"removal:{scope}", {"brake": f"removal:{scope}", "people": 0, "tripped": None})
            if kind == "tripped":
                row["tripped"] = value.decode()
            else:
                row["people"] += datetime.fromisoformat(value.decode()) > removed_since
    for key, value in (await one.snapshot(topics.COUNTS)).items():
        if key.endswith(":last"):
            swept: Swept = Swept.from_bytes(value)
            brake = f"source:{key.removesuffix(':last')}"
            rows[brake] = {"brake": brake, "people": swept.size, "tripped": swept.refused_at.isoformat() if swept.refused_at else None}
    return sorted(rows.values(), key=lambda row: str(row["brake"]))


@click.command()
@CONFIG
@click.option("--apply", "apply", is_flag=True, help="Make the links that the plan shows.")
@click.option("--actor", default="", help="Who orders this (with --apply).")
@click.option("--reason", default="", help="Why (with --apply).")
@JSON
def link(config: Path, apply: bool, actor: str, reason: str, as_json: bool) -> None:
    """Plan links between people and the accounts that were there before Portcullis; make them with --apply.

    Only an exact, unique match on the canonical key (the work e-mail) is linked; everything else is a case for a human.
    """
    plans = run_async(lambda: linking.link(load(config), apply=apply, actor=actor, reason=reason))
    if as_json:
        print_json(plans)
        return
    for plan in plans:
        table(f"{plan['tenant']} at {plan['target']}: {'ordered' if apply else 'to link'}", ("person", "account", "login"), plan["links"])
        table("Cases for a human", ("what", "who"), plan["cases"])
        console.print(
            f"{plan['standing']} already linked, {plan['without_account']} people without an account, {plan['orphans']} accounts of nobody"
        )


COMMANDS = (release, parked, brakes, link)
