"""`portcullis plan PERSON`: the converger's own plan for one person, from a process that may call nothing that mutates.

Links are read from Kafka where a broker is configured; with the embedded one there are none beside the running process, and the
preview says so by what the guard would refuse.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from handlers.converge import Converger, Preview
from handlers.okta.directory import OktaDirectory
from model.change import Action, Plan
from model.errors import ConfigurationError, UnsafePlan
from model.event import is_safe_id
from model.person import Hold, Link
from model.settings import Settings
from stream import topics
from stream.books import HoldIndex, Holds, Links
from stream.broker import Broker, Publisher
from stream.clock import SystemClock
from stream.house import House, build_house, policy_of
from stream.state import Follower, State


class Nothing:
    """Ports of a process that must not act: a defect that tries is stopped here."""

    async def intended(self, action: Action) -> None:
        raise UnsafePlan("a preview acts on nothing", "preview")

    async def answered(self, action: Action) -> None:
        raise UnsafePlan("a preview acts on nothing", "preview")

    def check(self, tenant: str, person: str) -> None:
        raise UnsafePlan("a preview acts on nothing", "preview")

    async def allow(self, plan: Plan, people: int) -> None:
        return None

    async def open_holds(self, tenant: str, person: str, *, fresh: bool = False) -> tuple[Hold, ...]:
        return ()

    async def covers_account(self, target: str, account_id: str, *, fresh: bool = False) -> tuple[Hold, ...]:
        return ()

    async def find(self, tenant: str, person: str, target: str) -> Link | None:
        return None

    async def owner(self, target: str, account_id: str) -> Link | None:
        return None

    async def make(self, link: Link) -> None:
        raise UnsafePlan("a preview acts on nothing", "preview")


@contextlib.asynccontextmanager
async def books(broker: Broker) -> AsyncIterator[tuple[Any, Any]]:
    """(Holds, links) as they stand in the log; empty ones where there is no broker to ask."""
    if broker.embedded:
        yield Nothing(), Nothing()
        return
    await broker.start()
    publisher = Publisher(broker)
    await publisher.start()
    index = HoldIndex()
    latches = Follower(broker, topics.HOLDS, index.changed)
    links_state = State(broker, publisher, topics.LINKS, lambda key, value: links.changed(key, value))
    links = Links(links_state)
    await latches.start()
    await links_state.start()
    try:
        yield Holds(latches, index), links
    finally:
        await links_state.stop()
        await latches.stop()
        await publisher.stop()


async def previews(settings: Settings, person: str, tenant: str | None) -> list[dict[str, Any]]:
    """One dict a target: target, changes, hash, problem. Raises ConfigurationError where nobody, or no tenant, is meant."""
    name = _tenant(settings, tenant)
    settings = settings.model_copy(update={"dry_run": True})
    broker, clock, policy = Broker(settings.kafka), SystemClock(), policy_of(settings)
    house: House = await build_house(settings, broker, clock, ["provision"], policy=policy)
    nothing = Nothing()
    try:
        async with books(broker) as (holds, links):
            directory = house.directory
            assert directory is not None
            converger = Converger(
                house.fleet(), directory, policy, nothing, holds, links, nothing, nothing, house.protected, clock,
                transfer_hold_s=settings.safety.transfer_hold_s, dry_run=True,
            )  # fmt: skip
            found = await converger.plan(name, await _person_id(directory, name, person))
            return [_shown(one) for one in found]
    finally:
        await house.close()
        await broker.stop()


def _tenant(settings: Settings, tenant: str | None) -> str:
    if tenant is None and len(settings.okta) == 1:
        return next(iter(settings.okta))
    if tenant in settings.okta:
        return str(tenant)
    raise ConfigurationError(f"which tenant? --tenant is one of: {', '.join(settings.okta) or 'none is configured'}")


async def _person_id(directory: OktaDirectory, tenant: str, person: str) -> str:
    if "@" not in person and is_safe_id(person):
        return person
    found = await directory.find_active(tenant, person, "provision")
    if found is None:
        raise ConfigurationError(f"no active person with the login {person!r} at {tenant}: give the Okta id")
    return found.id


def _shown(one: Preview) -> dict[str, Any]:
    changes = one.plan.changes if one.plan is not None else ()
    return {
        "target": one.target,
        "changes": [change.model_dump(mode="json") for change in changes],
        "withheld": [change.label for change in one.withheld],
        "hash": one.plan.hash if one.plan is not None else None,
        "problem": one.problem,
        "pending": one.pending,
    }
