"""One look at one person at one target: who they are, what policy asks, what the target holds, and so what would change.

Nothing here mutates anything; the engine (`converge`) and the preview (`portcullis plan`) look through the same eyes (N5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from handlers.contract import Clock, Directory, Lane, LinkBook, Observation, Target
from handlers.creation import is_made, is_pending
from handlers.guard import whose
from handlers.plan import make_plan
from model.change import ChangeKind, Plan
from model.errors import PermanentError
from model.person import Account, Desired, Link, Person, PersonStatus

#: Tenant → target name → target. A target that several tenants share stands in each; an Okta stands in its own tenant only.
Fleet = Mapping[str, Mapping[str, Target]]

LANE: Lane = "provision"


class AccessPolicy(Protocol):
    """What `rules.policy.Policy` gives (this floor does not know rules)."""

    def desired(
        self, person: Person, target: str, kind: str, *, manager: Person | None = None, transfer_due: bool = False
    ) -> Desired | None: ...


@dataclass(frozen=True, slots=True)
class View:
    """`case`: (code, text) of what a human must settle although the rest may go on; `pending`: seconds until a transfer is due."""

    desired: Desired
    observation: Observation
    plan: Plan
    link: Link | None = None
    case: tuple[str, str] = ("", "")
    pending: float | None = None


def find_target(targets: Fleet, tenant: str, name: str) -> Target:
    try:
        return targets[tenant][name]
    except KeyError:
        raise PermanentError(f"no target {name} is configured for the tenant {tenant}", "no_target") from None


async def read_person(directory: Directory, tenant: str, person_id: str, lane: Lane) -> Person:
    """Absence is proven by a direct read, twice (N7)."""
    person = await directory.person(tenant, person_id, lane)
    return await directory.person(tenant, person_id, lane) if person.status is PersonStatus.ABSENT else person


async def observe(person: Person, link: Link | None, target: Target, links: LinkBook, lane: Lane) -> Observation:
    """By link, else by key; without either (a person whom Okta forgot) nothing can be found. Raises Ambiguous where nobody may guess."""
    if not is_made(link) and not (person.login or person.email):
        return Observation(account=None)
    seen = await target.observe(person, link if is_made(link) else None, lane)
    await whose(links, person.tenant, person.id, target.name, seen)
    return seen


class Looker:
    """Computes Views. `transfer_hold` is the time from deactivation to the transfer of content (C50)."""

    def __init__(self, directory: Directory, policy: AccessPolicy, links: LinkBook, clock: Clock, transfer_hold: timedelta) -> None:
        self.directory = directory
        self.policy = policy
        self.links = links
        self.clock = clock
        self.transfer_hold = transfer_hold

    async def view(self, person: Person, target: Target) -> View | None:
        """None where policy does not speak of this target. Raises Ambiguous (a case), Temporary- and PermanentError."""
        desired = self.policy.desired(person, target.name, target.kind)
        if desired is None:
            return None
        link = await self.links.find(person.tenant, person.id, target.name)
        observation = await observe(person, link, target, self.links, LANE)
        if is_pending(link) and observation.account is not None:
            observation = replace(observation, linked=True)  # what our own intent created (adopted by the engine)
        view = View(desired, observation, make_plan(person.tenant, person.id, target.name, (), None), link)
        view = await self._with_transfer(view, person, target)
        changes = target.changes(view.desired, observation.account, person)
        return replace(view, plan=make_plan(person.tenant, person.id, target.name, changes, observation.account))

    async def _with_transfer(self, view: View, person: Person, target: Target) -> View:
        """Adds the manager's account once the hold period is over, or says when it will be, or why nobody gets the content (D22)."""
        account = view.observation.account
        if account is None or not self._would_transfer(person, target, account):
            return view
        if (wait := self._until_due(person)) > 0:
            return replace(view, pending=wait)
        manager = await self.directory.find_active(person.tenant, person.manager_id, LANE) if person.manager_id else None
        if manager is None:
            return replace(view, case=("no_manager", "content stays: managerId names nobody who is ACTIVE"))
        heir = await self._account_of(manager, target)
        if heir is None:
            return replace(view, case=("no_manager_account", f"content stays: {manager.id} has no open account at {target.name}"))
        desired = self.policy.desired(person, target.name, target.kind, manager=manager, transfer_due=True) or view.desired
        return replace(view, desired=desired.model_copy(update={"transfer_to": heir}))

    def _would_transfer(self, person: Person, target: Target, account: Account) -> bool:
        """Asks policy and target with a stand-in for the manager: is there content, and does policy hand it over?"""
        if person.status is not PersonStatus.DEPROVISIONED:
            return False
        probe = self.policy.desired(person, target.name, target.kind, manager=person, transfer_due=True)
        if probe is None or probe.transfer_to is None:
            return False
        return any(change.kind is ChangeKind.TRANSFER for change in target.changes(probe, account, person))

    def _until_due(self, person: Person) -> float:
        since = person.status_changed or person.last_updated
        if since is None:  # nobody knows when they left: wait the whole period, then look again
            return max(self.transfer_hold.total_seconds(), 1.0)
        return (since + self.transfer_hold - self.clock.now()).total_seconds()

    async def _account_of(self, manager: Person, target: Target) -> str | None:
        link = await self.links.find(manager.tenant, manager.id, target.name)
        seen = await observe(manager, link, target, self.links, LANE)
        return seen.account.id if seen.account is not None and seen.account.active else None
