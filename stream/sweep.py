"""The sweep: every so often each tenant's people are listed and looked at, because events can be missed, and accounts be changed by hand.

It is no second way of doing anything: it only knocks, and the lane does what it does for every knock. What it concludes by itself is
the number of active people (for the brakes' percentages, D19), and who is gone without a trace: never from a listing alone. A listing
counts when its chain of pages ended and it is not much shorter than the last good one (handlers.source); who has a link and is missing
is asked for directly, twice with a pause, before anybody is looked at as absent (N7).

It keeps out of the way: some people a second, in another order each time, and none while the lane has work of its own. A tenant is swept
by the worker that owns the key `tenant:`. Rejected: a queue of its own with a group of its own (a person's work must stay in one order).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol

from aiokafka.errors import KafkaError

from handlers import source
from handlers.contract import Clock, Lane
from model.decision import Moment, Severity
from model.errors import Fenced, PermanentError, TemporaryError
from model.event import digest
from model.person import Person, PersonStatus, Word
from model.records import Knock
from model.settings import SafetySettings
from stream import topics
from stream.provision import ProvisionRole

log = logging.getLogger(__name__)

LANE: Lane = "provision"
#: How often it is looked whether a sweep is due, or the tenant ours.
LOOK_S = 5.0
#: A sweep that could not be is tried again after so long at the latest.
AGAIN_S = 300.0
#: Records that wait in the lane, beyond which the sweep waits.
BUSY = 10
BUSY_PAUSE_S = 1.0


class People(Protocol):
    """handlers.okta.directory.OktaDirectory."""

    async def statuses(self, tenant: str, lane: Lane) -> dict[str, PersonStatus]: ...
    async def person(self, tenant: str, person_id: str, lane: Lane) -> Person: ...


class Swept(Word):
    """What is kept of the last good listing (key `tenant:last` beside the count). `refused`: the size of one that was not believed."""

    size: int
    active: int
    at: datetime
    done: datetime | None = None
    refused: int | None = None
    refused_at: datetime | None = None


def state_key(tenant: str) -> str:
    return f"{tenant}:last"


class Sweep:
    def __init__(
        self,
        lane: ProvisionRole,
        people: People,
        tenants: Iterable[str],
        settings: SafetySettings,
        clock: Clock,
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        self._lane, self._people, self._tenants = lane, people, tuple(tenants)
        self._settings, self._clock, self._shuffle = settings, clock, shuffle
        self._every, self._after = timedelta(seconds=settings.sweep_every_s), timedelta(seconds=settings.sweep_after_s)
        self._started = clock.now()
        self._not_before: dict[str, datetime] = {}
        self._told: set[tuple[str, str]] = set()

    async def run_forever(self) -> None:
        """Runs beside the lane; each tenant by itself, so that a large one keeps none waiting."""
        await asyncio.gather(*(self._run(tenant) for tenant in self._tenants))

    async def _run(self, tenant: str) -> None:
        while True:
            wait = (self.due(tenant) - self._clock.now()).total_seconds()
            if wait > 0 or not self._is_ours(tenant):
                await self._clock.sleep(min(max(wait, 1.0), LOOK_S))
                continue
            self._not_before[tenant] = self._clock.now() + timedelta(seconds=min(AGAIN_S, self._settings.sweep_every_s))
            try:
                await self.sweep(tenant)
            except Fenced as error:
                log.info("%s", error)
            except KafkaError as error:
                log.warning("the sweep of %s was broken off: %s", tenant, type(error).__name__)

    def due(self, tenant: str) -> datetime:
        """Soon after our start, then a period after the end of the last one, whoever made it."""
        last, due = self._last(tenant), self._started + self._after
        if last is not None and last.done is not None and last.done >= self._started:
            due = max(due, last.done + self._every)
        return max(due, self._not_before.get(tenant, due))

    def _last(self, tenant: str) -> Swept | None:
        value = self._lane.counts.values.get(state_key(tenant))
        return Swept.from_bytes(value) if value else None

    def _is_ours(self, tenant: str) -> bool:
        return self._lane.worker.owns(tenant, "")

    # --- one sweep --------------------------------------------------------------------------------------------------------

    async def sweep(self, tenant: str) -> None:
        """Lists, counts, knocks. Raises Fenced where the tenant became another worker's; that one begins anew."""
        began = self._clock.now()
        try:
            listed = await self._people.statuses(tenant, LANE)
        except (TemporaryError, PermanentError) as error:
            await self._distrust(
                tenant, "listing", f"the people of {tenant} cannot be listed whole: {error}", "check Okta and our credential"
            )
            return
        if not await self._is_believed(tenant, listed):
            return
        self._check_owner(tenant)
        swept = await self._count(tenant, listed, began)
        absent = await self._visit(tenant, listed, began)
        self._check_owner(tenant)
        await self._lane.counts.write(state_key(tenant), swept.model_copy(update={"done": self._clock.now()}).to_bytes())
        log.info("%s was swept: %d listed, %d active, %d absent", tenant, swept.size, swept.active, absent)

    async def _is_believed(self, tenant: str, listed: dict[str, PersonStatus]) -> bool:
        last = self._last(tenant)
        doubt = source.doubt(len(listed), last.size if last else None, self._settings.listing_least_percent)
        if not doubt:
            self._told -= {(tenant, "listing"), (tenant, "short")}
            return True
        self._check_owner(tenant)
        if last is not None:
            news = {"refused": len(listed), "refused_at": self._clock.now()}
            await self._lane.counts.write(state_key(tenant), last.model_copy(update=news).to_bytes())
        remedy = f"see that our role at Okta still shows everybody; if so many left: portcullis brakes reset source:{tenant} --actor YOU --reason WHY"
        await self._distrust(tenant, "short", f"{tenant}: {doubt}: nothing is concluded from it", remedy)
        return False

    async def _count(self, tenant: str, listed: dict[str, PersonStatus], began: datetime) -> Swept:
        active = sum(status.is_present for status in listed.values())
        swept = Swept(size=len(listed), active=active, at=began)
        await self._lane.counts.write(state_key(tenant), swept.to_bytes())
        await self._lane.counts.write(tenant, str(active).encode())
        return swept

    async def _visit(self, tenant: str, listed: dict[str, PersonStatus], began: datetime) -> int:
        """Knocks everybody; returns how many were proven absent."""
        missing = [person for person, at in self._lane.links.people(tenant).items() if person not in listed and at < began]
        suspects = await self._first_proof(tenant, missing)
        proven = self._clock.now()
        order = list(listed)
        self._shuffle(order)
        for person in order:
            await self._turn(tenant)
            await self._knock(tenant, person, began, "sweep", Moment.MOVE)
        if suspects:
            await self._clock.sleep(max(0.0, self._settings.absence_pause_s - (self._clock.now() - proven).total_seconds()))
        return await self._second_proof(tenant, suspects, began)

    async def _first_proof(self, tenant: str, missing: list[str]) -> list[str]:
        """Who is absent by a direct look. Whom Okta still knows is knocked like anybody; those who are at work should have been listed."""
        suspects, unlisted = [], 0
        for person in missing:
            await self._turn(tenant)
            status = await self._status(tenant, person)
            if status is PersonStatus.ABSENT:
                suspects.append(person)
            elif status is not None:
                unlisted += status.is_present
                await self._knock(tenant, person, self._clock.now(), "sweep", Moment.MOVE)
        if unlisted:
            text = f"{tenant}: {unlisted} people whom Okta knows were missing from its listing"
            await self._distrust(tenant, "unlisted", text, "nothing was taken from them; if it goes on, ask Okta", Severity.MEDIUM)
        return suspects

    async def _second_proof(self, tenant: str, suspects: list[str], began: datetime) -> int:
        absent = 0
        for person in suspects:
            await self._turn(tenant)
            if await self._status(tenant, person) is PersonStatus.ABSENT:
                await self._knock(tenant, person, began, "absent", Moment.LEAVE)
                absent += 1
        return absent

    async def _status(self, tenant: str, person: str) -> PersonStatus | None:
        """By a direct look; None where that says nothing today."""
        try:
            return (await self._people.person(tenant, person, LANE)).status
        except (TemporaryError, PermanentError) as error:
            log.info("whether %s:%s is absent is not known: %s", tenant, person, error)
            return None

    # --- pace -------------------------------------------------------------------------------------------------------------

    async def _turn(self, tenant: str) -> None:
        """The next of so many a second, once the lane has next to nothing else to do."""
        await self._clock.sleep(1 / self._settings.sweep_per_s)
        while await self._is_busy():
            await self._clock.sleep(BUSY_PAUSE_S)
        self._check_owner(tenant)

    async def _is_busy(self) -> bool:
        try:
            return await self._lane.lag() > BUSY
        except KafkaError:
            return True

    def _check_owner(self, tenant: str) -> None:
        if not self._is_ours(tenant):
            raise Fenced(f"the sweep of {tenant} goes on at another worker")

    async def _knock(self, tenant: str, person: str, began: datetime, reason: str, moment: Moment) -> None:
        knock_id = digest("sweep", tenant, person, began.isoformat(), reason)
        knock = Knock(id=knock_id, tenant=tenant, person=person, moment=moment, reason=reason)
        await self._lane.publisher.send(topics.KNOCKS, topics.person_key(tenant, person), knock.to_bytes())

    async def _distrust(self, tenant: str, code: str, text: str, remedy: str, severity: Severity = Severity.HIGH) -> None:
        """Told once while its cause lasts."""
        if (tenant, code) in self._told:
            return
        self._told.add((tenant, code))
        log.warning("%s", text)
        facts: dict[str, Any] = {"code": code}
        await self._lane.tell(tenant, "source", text, severity=severity, remedy=remedy, facts=facts)
