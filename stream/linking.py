"""`portcullis link`: people meet the accounts that were there before (D21). The plan is shown; --apply orders each link of the provision
lane, which alone writes links and refuses an account that is linked to somebody else.
"""

from __future__ import annotations

from typing import Any, cast

from handlers.contract import Listing
from handlers.links import Known, LinkPlan, link_plan
from model.errors import ConfigurationError
from model.settings import Settings
from stream.broker import Broker
from stream.clock import SystemClock
from stream.desk import desk
from stream.house import House, build_house, policy_of
from stream.preview import books


async def link(settings: Settings, *, apply: bool, actor: str = "", reason: str = "") -> list[dict[str, Any]]:
    """One dict a tenant and target: links, cases, standing, orphans. Raises ConfigurationError for --apply without actor and reason."""
    if apply and not (actor.strip() and reason.strip()):
        raise ConfigurationError("--apply needs --actor and --reason: both are kept in the audit trail")
    broker = Broker(settings.kafka)
    house = await build_house(
        settings.model_copy(update={"dry_run": True}), broker, SystemClock(), ["provision"], policy=policy_of(settings)
    )
    try:
        async with books(broker) as (_, links):
            plans = [plan async for plan in _plans(house, links)]
    finally:
        await house.close()
        await broker.stop()
    if apply:
        await _order(settings, plans, actor, reason)
    return [_shown(plan) for plan in plans]


async def _plans(house: House, links: Any) -> Any:
    assert house.directory is not None
    for tenant, targets in house.fleet().items():
        people = await house.directory.everyone(tenant, "provision")
        for name, target in targets.items():
            if target.kind != "okta" and hasattr(target, "accounts"):
                accounts = await cast(Listing, target).accounts("provision")
                yield await link_plan(tenant, name, people, [Known(*one) for one in accounts], links)


async def _order(settings: Settings, plans: list[LinkPlan], actor: str, reason: str) -> None:
    async with desk(settings) as one:
        for plan in plans:
            for person, account, login in plan.new:
                await one.order("link", plan.tenant, person, actor, reason, target=plan.target, account=account, login=login)


def _shown(plan: LinkPlan) -> dict[str, Any]:
    missing = sum(case.why == "no_account" for case in plan.cases)
    real = [case for case in plan.cases if case.why != "no_account"]
    cases = [(case.why, f"{case.key} (people {', '.join(case.people)}; accounts {', '.join(case.accounts) or 'none'})") for case in real]
    return {
        "tenant": plan.tenant,
        "target": plan.target,
        "links": [list(one) for one in plan.new],
        "cases": [list(case) for case in cases],
        "without_account": missing,
        "standing": plan.standing,
        "orphans": len(plan.orphans),
    }
