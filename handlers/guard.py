"""What stands between a plan and the people it is about. Below rules and targets: nothing above can talk it out of a no.

A refusal is an UnsafePlan whose `code` names the guard (`protected`, `protected_list`, `privileged`, `ours`, `hold`, `brake`,
`moved`); a case for a human is Ambiguous (`unlinked`, `linked_elsewhere`, `several`). A Hold does not refuse the whole plan: what
closes goes through, what opens or cannot be undone is withheld (D18).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from handlers.contract import HoldBook, LinkBook, Observation, RemovalBrake
from handlers.plan import FORBIDDEN_UNDER_HOLD, opens, removes, without
from handlers.protected import ProtectedList
from model.change import REMOVING, Change, ChangeKind, Plan
from model.errors import Ambiguous, UnsafePlan
from model.person import Hold

#: What may not be done to protected people and privileged accounts.
TAKING = REMOVING | {ChangeKind.END_SESSIONS}


@dataclass(frozen=True, slots=True)
class Guarded:
    """What may be applied, and what the open `holds` keep back."""

    plan: Plan
    withheld: tuple[Change, ...] = ()
    holds: tuple[Hold, ...] = ()


class Guard:
    """Guards plans of the provision lane."""

    def __init__(self, protected: ProtectedList, holds: HoldBook, links: LinkBook, brake: RemovalBrake) -> None:
        self.protected = protected
        self.holds = holds
        self.links = links
        self.brake = brake

    async def check(self, plan: Plan, observation: Observation, *, expect: str | None = None, count: bool = True) -> Guarded:
        """The plan as it may be applied. Raises UnsafePlan and Ambiguous; TemporaryError where the Holds cannot be read now.

        `expect` is the hash that an approval was given for (N5); `count` False leaves the brake out (a preview).
        """
        if expect is not None and plan.hash != expect:
            raise UnsafePlan("the plan, or the state it was computed from, is not the one that was approved", "moved")
        account = observation.account.id if observation.account else ""
        holds = await standing_holds(self.holds, plan.tenant, plan.person, plan.target, account)
        allowed = without(plan, FORBIDDEN_UNDER_HOLD) if holds else plan
        if opens(allowed) and observation.account is not None and not observation.linked:
            raise Ambiguous(f"the account {account} was there before and no link says whose it is: run `portcullis link`", "unlinked")
        refuse_taking(allowed, self.protected, observation)
        if count and removes(allowed):
            await self.brake.allow(allowed, 1)
        withheld = tuple(change for change in plan.changes if holds and change.kind in FORBIDDEN_UNDER_HOLD)
        return Guarded(allowed, withheld, holds)

    async def nothing_held(self, tenant: str, person: str, target: str, account: str) -> None:
        """The last look at the Holds before a call that opens (D11). Raises UnsafePlan("hold")."""
        if holds := await standing_holds(self.holds, tenant, person, target, account):
            raise UnsafePlan(f"held by {', '.join(hold.id for hold in holds)}", "hold")


async def standing_holds(book: HoldBook, tenant: str, person: str, target: str, account: str) -> tuple[Hold, ...]:
    """Open Holds on the person, or on the account by whomever's incident: two tenants may share one target (D18)."""
    found: dict[str, Hold] = {}
    if account:
        found |= {hold.id: hold for hold in await book.covers_account(target, account, fresh=True)}
    found |= {hold.id: hold for hold in await book.open_holds(tenant, person, fresh=True)}
    return tuple(found[key] for key in sorted(found))


def refuse_taking(plan: Plan, protected: ProtectedList, observation: Observation) -> None:
    """Nothing is taken from protected people, our own identities and privileged accounts; nor from anybody while the list is not trusted."""
    if not any(change.kind in TAKING for change in plan.changes):
        return
    if protected.is_protected(plan.tenant, plan.person):
        raise UnsafePlan(f"protected: {protected.reason(plan.tenant, plan.person)}", "protected")
    if not protected.is_trusted:
        raise UnsafePlan(f"removals hold: {protected.problem}", "protected_list")
    account = observation.account
    if account is None:
        return
    if protected.is_ours(plan.target, account.id):
        raise UnsafePlan(f"{account.id} is our own service identity", "ours")
    if account.privileged:
        raise UnsafePlan(f"{account.id} is an administrator of {plan.target}: a human must take this away", "privileged")


async def whose(links: LinkBook, tenant: str, person: str, target: str, observation: Observation) -> None:
    """Raises Ambiguous where a look matched several accounts, or one that a link gives to somebody else (a reused login)."""
    if observation.is_ambiguous:
        raise Ambiguous(f"{len(observation.candidates)} accounts match at {target}: {_some(observation.candidates)}", "several")
    if observation.account is None or observation.linked:
        return
    owner = await links.owner(target, observation.account.id)
    if owner is not None and (owner.tenant, owner.person) != (tenant, person):
        raise Ambiguous(f"the account {observation.account.id} at {target} is linked to {owner.tenant}:{owner.person}", "linked_elsewhere")


def _some(ids: Iterable[str]) -> str:
    return ", ".join(sorted(ids)[:5])
