"""What the lanes remember about people: Latches (Holds, handled events, incidents), links, open intents, removal counts.

The ports of handlers/contract.py, filled from compacted topics. One writer a key (D11): Latches the lockdown lane, links the provision
lane, intents and due work the lane they name. Several keys of the brakes have two writers; they write the same fact.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta

from handlers.contract import Clock
from model.change import Action, ActionStatus, Plan
from model.decision import Severity
from model.errors import FaultError, TemporaryError, UnsafePlan
from model.event import digest
from model.person import Hold, Link, Word
from model.records import ActionTaken, HoldChanged, IncidentChanged, Notice
from model.settings import BrakeSettings
from stream import topics
from stream.broker import Publisher
from stream.state import Follower, State

#: How long an event's uuid is remembered against acting on it again (the source topic keeps a week).
REMEMBER = timedelta(days=14)


class Latch(Word):
    """All that the lockdown lane keeps of one person (key `tenant:person`)."""

    holds: tuple[Hold, ...] = ()
    incidents: tuple[IncidentChanged, ...] = ()
    handled: tuple[tuple[str, datetime], ...] = ()
    #: The orders whose closing of a leaver began last, and ended last (contract.ClosingBook).
    closing: str = ""
    closed: str = ""

    @property
    def open_holds(self) -> tuple[Hold, ...]:
        return tuple(hold for hold in self.holds if hold.is_open)

    def has_handled(self, uuid: str) -> bool:
        return any(one == uuid for one, _ in self.handled)

    def with_handled(self, uuid: str, now: datetime) -> Latch:
        kept = tuple(one for one in self.handled if one[0] != uuid and now - one[1] < REMEMBER)[-500:]
        return self.model_copy(update={"handled": (*kept, (uuid, now))})

    def with_hold(self, hold: Hold) -> Latch:
        others = tuple(one for one in self.holds if one.id != hold.id)
        return self.model_copy(update={"holds": (*others, hold)})

    def with_incident(self, incident: IncidentChanged) -> Latch:
        others = tuple(one for one in self.incidents if one.incident != incident.incident)[-20:]
        return self.model_copy(update={"incidents": (*others, incident)})

    def incident(self, incident: str) -> IncidentChanged | None:
        return next((one for one in self.incidents if one.incident == incident), None)


class HoldIndex:
    """Open Holds by the account they cover, kept by a follower of the Latches."""

    def __init__(self) -> None:
        self._accounts: dict[str, set[tuple[str, str]]] = {}
        self._by_account: dict[tuple[str, str], set[str]] = defaultdict(set)

    def changed(self, key: str, value: bytes | None) -> None:
        for account in self._accounts.pop(key, ()):
            self._by_account[account].discard(key)
        if value is None:
            return
        latch: Latch = Latch.from_bytes(value)
        covered = {account for hold in latch.open_holds for account in hold.accounts}
        if covered:
            self._accounts[key] = covered
            for account in covered:
                self._by_account[account].add(key)

    def people(self, target: str, account: str) -> set[str]:
        return self._by_account.get((target, account), set())


class Holds:
    """contract.HoldBook and the reading side of contract.ClosingBook over a follower of the Latches."""

    def __init__(self, follower: Follower, index: HoldIndex) -> None:
        self._follower, self._index = follower, index

    def latch(self, tenant: str, person: str) -> Latch:
        return self._latch(f"{tenant}:{person}")

    def _latch(self, key: str) -> Latch:
        value = self._follower.values.get(key)
        return Latch.from_bytes(value) if value else Latch()

    async def open_holds(self, tenant: str, person: str, *, fresh: bool = False) -> tuple[Hold, ...]:
        await self._current(fresh)
        return self.latch(tenant, person).open_holds

    async def covers_account(self, target: str, account_id: str, *, fresh: bool = False) -> tuple[Hold, ...]:
        await self._current(fresh)
        people = self._index.people(target, account_id)
        return tuple(hold for key in people for hold in self._latch(key).open_holds if (target, account_id) in hold.accounts)

    async def begun(self, tenant: str, person: str) -> str:
        return self.latch(tenant, person).closing

    async def is_unfinished(self, tenant: str, person: str) -> bool:
        latch = self.latch(tenant, person)
        return latch.closing != latch.closed

    async def _current(self, fresh: bool) -> None:
        if fresh or self._follower.dead is not None:
            try:
                await self._follower.caught_up(timeout_s=10)
            except FaultError as error:
                raise TemporaryError(f"Holds cannot be known now: {error}") from error


class LatchKeeper(Holds):
    """The lockdown lane's own pen: Latches are written here and nowhere else. contract.HoldWriter is `write`."""

    def __init__(self, state: State, index: HoldIndex, publisher: Publisher, clock: Clock) -> None:
        super().__init__(state, index)
        self._state, self._publisher, self._clock = state, publisher, clock
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def keep(self, tenant: str, person: str, change: Callable[[Latch], Latch]) -> Latch:
        """Read, change, write, one at a time a person (an incident is told while its Hold is written)."""
        key = f"{tenant}:{person}"
        async with self._turns[key]:
            latch = change(self.latch(tenant, person))
            await self._state.write(key, latch.to_bytes())
        return latch

    async def write(self, hold: Hold) -> None:
        await asyncio.gather(self.keep(hold.tenant, hold.person, lambda latch: latch.with_hold(hold)), self._tell(hold))

    async def begin(self, tenant: str, person: str, order: str) -> None:
        await self.keep(tenant, person, lambda latch: latch.model_copy(update={"closing": order}))

    async def end(self, tenant: str, person: str) -> None:
        if await self.is_unfinished(tenant, person):
            await self.keep(tenant, person, lambda latch: latch.model_copy(update={"closed": latch.closing}))

    async def _tell(self, hold: Hold) -> None:
        now = self._clock.now()
        record = HoldChanged(id=digest("hold", hold.id, now.isoformat()), tenant=hold.tenant, at=now, hold=hold)
        await self._publisher.send(topics.OUTCOMES, topics.person_key(hold.tenant, hold.person), record.to_bytes())


class Links:
    """contract.LinkBook over the links' topic."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._owners: dict[tuple[str, str], Link] = {}

    @staticmethod
    def key(tenant: str, person: str, target: str) -> str:
        return f"{tenant}:{person}:{target}"

    def changed(self, key: str, value: bytes | None) -> None:
        if value is None:
            return
        link: Link = Link.from_bytes(value)
        for account, owner in list(self._owners.items()):
            if (owner.tenant, owner.person, owner.target) == (link.tenant, link.person, link.target):
                del self._owners[account]
        if link.account:
            self._owners[(link.target, link.account)] = link

    async def find(self, tenant: str, person: str, target: str) -> Link | None:
        value = self._state.values.get(self.key(tenant, person, target))
        return Link.from_bytes(value) if value else None

    async def owner(self, target: str, account_id: str) -> Link | None:
        return self._owners.get((target, account_id))

    def people(self, tenant: str) -> dict[str, datetime]:
        """Whoever has an account somewhere by a link, and since when."""
        found: dict[str, datetime] = {}
        for link in self._owners.values():
            if link.tenant == tenant:
                found[link.person] = min(link.at, found.get(link.person, link.at))
        return found

    async def make(self, link: Link) -> None:
        await self._state.write(self.key(link.tenant, link.person, link.target), link.to_bytes())


class KafkaJournal:
    """contract.Journal: each row into the audit topic, and open intents into their own compacted topic, so that a restart finds them.

    Both are acknowledged before a call goes out (E1), one after the other: a kill between two writes that go out together would leave
    a row that nobody closes. So the open intent is written first and erased last."""

    def __init__(self, publisher: Publisher, intents: State, lane: str, clock: Clock) -> None:
        self._publisher, self._intents, self._lane, self._clock = publisher, intents, lane, clock

    async def intended(self, action: Action) -> None:
        await self._intents.write(self._key(action), action.to_bytes())
        await self._tell(action)

    async def answered(self, action: Action) -> None:
        key = self._key(action)
        await self._tell(action)
        if action.status not in (ActionStatus.INTENDED, ActionStatus.UNKNOWN) and key in self._intents.values:
            await self._intents.erase(key)

    async def close(self, action: Action) -> None:
        """Nothing more will be found out about it: a row that stays `unknown` (ended sessions leave no trace) is open no longer."""
        if (key := self._key(action)) in self._intents.values:
            await self._intents.erase(key)

    def open(self, tenant: str, person: str) -> list[Action]:
        """Intents of this lane for that person that nobody has closed."""
        prefix = f"{self._lane}:{tenant}:{person}:"
        return [Action.from_bytes(value) for key, value in list(self._intents.values.items()) if key.startswith(prefix)]

    def all_open(self) -> list[Action]:
        return [Action.from_bytes(value) for key, value in list(self._intents.values.items()) if key.startswith(f"{self._lane}:")]

    def people_with_open(self) -> set[tuple[str, str]]:
        rows = [key.split(":") for key in self._intents.values if key.startswith(f"{self._lane}:")]
        return {(row[1], row[2]) for row in rows}

    def _key(self, action: Action) -> str:
        return f"{self._lane}:{action.tenant}:{action.person}:{action.target}:{action.intent}"

    async def _tell(self, action: Action) -> None:
        now = self._clock.now()
        record_id = digest("action", action.intent, str(action.attempt), action.status, now.isoformat())
        record = ActionTaken(id=record_id, tenant=action.tenant, at=now, action=action)
        await self._publisher.send(topics.OUTCOMES, topics.person_key(action.tenant, action.person), record.to_bytes())


class Removals:
    """contract.RemovalBrake: people from whom something is taken, counted over all workers by what they wrote (D19).

    What may overshoot is what is in flight at the moment of the last admission: at most one person a partition's worker."""

    def __init__(self, state: State, counts: Follower, settings: BrakeSettings, publisher: Publisher, clock: Clock) -> None:
        self._state, self._counts, self._settings, self._publisher, self._clock = state, counts, settings, publisher, clock
        self._when: dict[str, dict[str, datetime]] = defaultdict(dict)

    def changed(self, key: str, value: bytes | None) -> None:
        kind, _, rest = key.partition(":")
        if kind != "removal":
            return
        scope, _, person = rest.rpartition(":")
        if value is None:
            self._when[scope].pop(person, None)
        else:
            self._when[scope][person] = datetime.fromisoformat(value.decode())

    async def allow(self, plan: Plan, people: int) -> None:
        scope, now = f"{plan.tenant}:{plan.target}", self._clock.now()
        since = now - timedelta(seconds=self._settings.removal_window_s)
        standing = {person for person, when in self._when[scope].items() if when > since}
        if plan.person in standing:
            return
        if f"tripped:{scope}" in self._state.values:
            raise UnsafePlan(f"the removal brake of {scope} is tripped", "brake")
        if self._over(len(standing) + people, plan.tenant):
            await self._trip(scope, plan, len(standing), now)
            raise UnsafePlan(f"the removal brake of {scope} tripped after {len(standing)} people", "brake")
        await self._state.write(f"removal:{scope}:{plan.person}", now.isoformat().encode())

    def _over(self, count: int, tenant: str) -> bool:
        if count > self._settings.removal_count:
            return True
        active = self._counts.values.get(tenant, b"")
        return active.isdigit() and int(active) > 0 and count >= 5 and count * 100 > self._settings.removal_percent * int(active)

    async def _trip(self, scope: str, plan: Plan, count: int, now: datetime) -> None:
        await self._state.write(f"tripped:{scope}", now.isoformat().encode())
        notice = Notice(
            id=digest("brake", scope, now.isoformat()),
            tenant=plan.tenant,
            at=now,
            topic="brake",
            severity=Severity.CRITICAL,
            target=plan.target,
            text=f"the removal brake of {scope} tripped after {count} people: removals hold",
            remedy=f"look at who is leaving, then: portcullis brakes reset removal:{scope} --actor YOU --reason WHY",
            facts={"people": count},
        )
        await self._publisher.send(topics.OUTCOMES, topics.person_key(plan.tenant, ""), notice.to_bytes())

    async def reset(self, scope: str) -> None:
        for person in list(self._when[scope]):
            await self._state.erase(f"removal:{scope}:{person}")
        await self._state.erase(f"tripped:{scope}")
