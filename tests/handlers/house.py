"""A whole engine over fakes, wired as the stream wires it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from handlers.contract import Outcome
from handlers.converge import Converger
from handlers.lockdown import Lockdown
from handlers.protected import ProtectedList
from model.person import Person
from model.records import EventRef, Order
from rules.policy import Policy
from tests.handlers.fakes import NOON, TENANT, FakeBrake, FakeDirectory, FakeFence, FakeHolds, FakeJournal, FakeLinks, FakeTarget, person
from tests.support.clock import FakeClock

NOBODY = ProtectedList("loaded", {(TENANT, "00ubreakglass"): "break glass"})
TRANSFER_HOLD_S = 3600.0


@dataclass
class House:
    """`box` is the target that policy speaks of; `okta` holds the same people under their own ids."""

    people: tuple[Person, ...] = (person(),)
    protected: ProtectedList = NOBODY
    dry_run: bool = False
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOON))

    def __post_init__(self) -> None:
        self.journal, self.holds, self.links = FakeJournal(), FakeHolds(), FakeLinks()
        self.fence, self.brake, self.directory = FakeFence(), FakeBrake(), FakeDirectory(*self.people)
        self.box, self.okta = FakeTarget("box", self.journal), FakeTarget("okta", self.journal, kind="okta")
        for one in self.people:
            self.okta.add(one.login, id=one.id)
        self.policy = Policy.load()
        self.rewire()

    def rewire(self, **targets: FakeTarget) -> None:
        fleet = {TENANT: {"okta": self.okta, "box": self.box} | targets}
        ports = (self.fence, self.brake, self.protected, self.clock)
        self.converger = Converger(
            fleet,
            self.directory,
            self.policy,
            self.journal,
            self.holds,
            self.links,
            *ports,
            transfer_hold_s=TRANSFER_HOLD_S,
            dry_run=self.dry_run,
        )
        self.lockdown = Lockdown(fleet, self.directory, self.journal, self.holds, self.holds, self.links, *ports, dry_run=self.dry_run)

    async def look(self, who: str = "00u1", **more: Any) -> Outcome:
        return await self.converger.look(TENANT, who, "box", **more)

    def account(self, who: str = "00u1") -> Any:
        """The state of a person's account at Box, found as a bystander would: by login."""
        found = [state for state in self.box.accounts.values() if state.login == f"{who}@acme.test"]
        assert len(found) == 1, f"{who} has {len(found)} accounts"
        return found[0]


def order(kind: str = "lockdown", who: str = "00u1", **facts: Any) -> Order:
    event = EventRef(uuid="e-1", event_type="user.risk.change", received=NOON)
    return Order.model_validate({"id": "o-1", "kind": kind, "tenant": TENANT, "person": who, "event": event} | facts)
