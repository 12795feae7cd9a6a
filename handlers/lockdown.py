"""The lockdown lane's engine: all targets at the same time, none waiting for another (D14).

contain    an order from a rule: Hold durable, then one look and the constant plan per target
close      the closing half of a leave (D33): Okta is asked once whether the person is gone; no Hold, no incident
read_back  whoever is open again under a Hold is closed again, once, and paged (N12); also finds what was created meanwhile
release    (handlers.release) a human lifts the Hold: what was there before stands again (C72)

A Hold is durable before the first call, and names the accounts that links know; what a look adds is durable before that target's
first call. Every retry names its Hold and dies with it (D15).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import TypeVar

from handlers.closing import ALL, NOTHING, OKTA, SESSIONS, AccountCloser, Closure, HoldKeeper
from handlers.containment import ContainmentResult, Drift, DriftResult, HoldWriter, TargetResult, summed
from handlers.contract import Clock, ClosingBook, Directory, Fence, HoldBook, Journal, LinkBook, RemovalBrake, Target
from handlers.creation import is_made
from handlers.evidence import RowCloser
from handlers.look import Fleet, find_target, read_person
from handlers.perform import About, Performer
from handlers.protected import ProtectedList
from handlers.release import Releaser
from model.change import Action
from model.decision import Scope
from model.errors import Fenced, PermanentError, TemporaryError
from model.person import Hold, Person, PersonStatus
from model.records import Order

OnTarget = Callable[[TargetResult], Awaitable[None]]
T = TypeVar("T")


class Lockdown:
    """`on_target` is awaited when a target's calls are answered, in whatever order that happens; it must not raise."""

    def __init__(
        self,
        targets: Fleet,
        directory: Directory,
        journal: Journal,
        holds: HoldBook,
        writer: HoldWriter,
        links: LinkBook,
        fence: Fence,
        brake: RemovalBrake,
        protected: ProtectedList,
        clock: Clock,
        *,
        dry_run: bool = False,
        closings: ClosingBook | None = None,
    ) -> None:
        self.targets = targets
        self.directory = directory
        self.holds = holds
        self.closings = closings
        self.writer = writer
        self.links = links
        self.fence = fence
        self.brake = brake
        self.protected = protected
        self.dry_run = dry_run
        performer = Performer("lockdown", journal, fence, clock, dry_run=dry_run)
        self.closer = AccountCloser(performer, links, protected, clock)
        self.rows = RowCloser(journal, links, clock)
        self.releaser = Releaser(targets, directory, holds, writer, performer, clock)

    async def contain(
        self,
        order: Order,
        hold: Hold | None,
        incident: str,
        on_target: OnTarget | None = None,
        *,
        only: Collection[str] | None = None,
        suspended: Collection[str] = (),
        attempt: int = 1,
    ) -> ContainmentResult:
        """Contains one person. `hold` is needed with scope `full` and must be None with `sessions` (D15). `only` names the targets of
        a retry, `suspended` what the tries before it have achieved (`result.suspended`). `attempt` > 1, a retry or an order that was
        delivered once more, does not suspend again what a look shows shut, and looks twice before it closes unseen. An order `again`
        (D11) closes what provisioning opened before it saw the Hold, and nothing else: never Okta, which it does not open.
        Raises Fenced, and what journal and writer raise (nothing was called at a target whose intent is not durable).
        """
        if order.kind not in ("lockdown", "again") or (hold is not None) != (order.scope is Scope.FULL):
            raise ValueError("contain takes orders of kind lockdown or again, with a Hold exactly where the scope is full")
        if refusal := self._refusal(order.tenant, order.person):
            return refusal
        repeated = attempt > 1 or order.kind == "again"
        if hold is not None and repeated and not await self._stands(hold):
            return ContainmentResult("superseded", hold=hold, reason="the Hold was released")
        spared = order.downstream or order.kind == "again"
        targets = [one for one in self._targets(order.tenant) if not (spared and one.kind == OKTA)]
        keeper = None
        if hold is not None and not self.dry_run:
            self.fence.check(order.tenant, order.person)
            hold = await self._with_known_accounts(hold, targets)
            keeper = HoldKeeper(hold, self.writer)
            await keeper.write()
        about = About(order.tenant, order.person, attempt, incident, order.event.uuid)
        chosen = [one for one in targets if only is None or one.name in only]
        closure = self._closure(about, order.scope)
        closure.keeper = keeper
        closure.at_shut = NOTHING if order.kind == "again" else SESSIONS if attempt > 1 else ALL
        closure.suspended, closure.looks = frozenset(suspended), 2 if repeated else 1
        results = await _all(self.closer.close(one, closure, on_target) for one in chosen)
        return summed(results, keeper.hold if keeper else hold)

    async def close(
        self,
        order: Order,
        on_target: OnTarget | None = None,
        *,
        only: Collection[str] | None = None,
        suspended: Collection[str] = (),
        attempt: int = 1,
    ) -> ContainmentResult:
        """Closes a leaver everywhere but in Okta. Superseded where the person is back (`stale` where Okta's directory may lag its log:
        worth another look, D6), or suspended by a Hold of ours (D5). What is shut already stays uncalled; where a closing had begun and
        not ended (a retry, a crash), sessions are ended once more (D25).

        Raises TemporaryError where Okta cannot be asked: without that look nobody is closed.
        """
        if order.kind != "close":
            raise ValueError("close takes orders of kind close")
        if refusal := self._refusal(order.tenant, order.person):
            return refusal
        person = await read_person(self.directory, order.tenant, order.person, "lockdown")
        if not person.status.is_gone:
            code = "stale" if _is_older(person, order) else ""
            return ContainmentResult("superseded", code=code, reason=f"{person.status.value} in Okta now")
        if person.status is PersonStatus.SUSPENDED and await self.holds.open_holds(order.tenant, order.person, fresh=True):
            return ContainmentResult("superseded", code="hold", reason="suspended under a Hold, which is no leave")
        chosen = [one for one in self._targets(order.tenant) if one.kind != OKTA and (only is None or one.name in only)]
        about = About(order.tenant, order.person, attempt, None, order.event.uuid)
        closure = self._closure(about, Scope.FULL, person)
        closure.brake = None if self.dry_run else self.brake
        unfinished = attempt > 1
        if self.closings is not None and not self.dry_run:
            unfinished = await self.closings.is_unfinished(order.tenant, order.person)
            closure.begin = _once(partial(self.closings.begin, order.tenant, order.person, order.id))
        closure.at_shut = SESSIONS if unfinished else NOTHING
        closure.suspended, closure.blind = frozenset(suspended), False
        result = summed(await _all(self.closer.close(one, closure, on_target) for one in chosen))
        if self.closings is not None and not result.retry:
            await self.closings.end(order.tenant, order.person)
        return result

    async def read_back(self, hold: Hold, *, closed_before: Collection[str] = (), unfinished: Collection[str] = ()) -> DriftResult:
        """Looks at every target that the Hold speaks of. `closed_before`: targets that an earlier read-back has closed again; open
        once more there, they are paged and left to a human. `unfinished`: targets where sessions are still to be ended, although they
        show shut. Does nothing for a Hold that stands no longer."""
        if not await self._stands(hold):
            return DriftResult(hold=hold)
        keeper = HoldKeeper(hold, self.writer)
        about = About(hold.tenant, hold.person, 1, hold.incident)
        closure = self._closure(about, Scope.FULL)
        closure.keeper = keeper
        closure.at_shut = SESSIONS
        drifts = await _all(self._drift(one, closure, one.name in closed_before, one.name in unfinished) for one in self._spoken_of(hold))
        return DriftResult(tuple(drifts), keeper.hold)

    async def release(
        self, hold: Hold, *, actor: str, reason: str, only: Collection[str] | None = None, attempt: int = 1
    ) -> ContainmentResult:
        """Lifts a Hold: see `handlers.release`. The stream knocks afterwards."""
        return await self.releaser.release(hold, actor=actor, reason=reason, only=only, attempt=attempt)

    async def resume(self, action: Action) -> Action:
        """Closes a row of this lane found `intended` after a restart, by reading back. Raises TemporaryError: the row stays open."""
        person = Person(tenant=action.tenant, id=action.person, status=PersonStatus.UNKNOWN)
        try:
            return await self.rows.close(action, person, find_target(self.targets, action.tenant, action.target), "lockdown")
        except PermanentError as error:
            return await self.rows.give_up(action, error)

    # ------------------------------------------------------------------------------------------------------------------

    def _refusal(self, tenant: str, person: str) -> ContainmentResult | None:
        if self.protected.is_protected(tenant, person):
            reason = f"protected: {self.protected.reason(tenant, person)}"
            return ContainmentResult("refused", code="protected", reason=reason, page=True)
        if not self.protected.is_trusted:
            return ContainmentResult("refused", code="protected_list", reason=self.protected.problem, page=True)
        return None

    def _targets(self, tenant: str) -> list[Target]:
        return list(self.targets.get(tenant, {}).values())

    def _spoken_of(self, hold: Hold) -> list[Target]:
        """Every target, whether it had an account or not; an Okta only where the Hold covers it."""
        named = {target for target, _ in hold.accounts}
        return [one for one in self._targets(hold.tenant) if one.kind != OKTA or one.name in named]

    async def _stands(self, hold: Hold) -> bool:
        return any(one.id == hold.id for one in await self.holds.open_holds(hold.tenant, hold.person, fresh=True))

    async def _with_known_accounts(self, hold: Hold, targets: Iterable[Target]) -> Hold:
        """What links know, so that the Hold covers the accounts from its first moment (D18)."""
        known = list(hold.accounts)
        for target in targets:
            if target.kind == OKTA:
                known.append((target.name, hold.person))
            elif (link := await self.links.find(hold.tenant, hold.person, target.name)) is not None and is_made(link):
                known.append((target.name, link.account))
        return hold.model_copy(update={"accounts": tuple(dict.fromkeys(known))})

    def _closure(self, about: About, scope: Scope, person: Person | None = None) -> Closure:
        async def given() -> Person:
            return person if person is not None else await self.directory.person(about.tenant, about.person, "lockdown")

        return Closure(about, scope, _once(given))

    async def _drift(self, target: Target, closure: Closure, closed_before: bool, unfinished: bool) -> Drift:
        try:
            found = await self.closer.find(target, closure)
        except (TemporaryError, PermanentError) as error:
            return Drift(target.name, "unread", reason=str(error), is_unfinished=unfinished)
        if found.account is None:
            return Drift(target.name, "shut", reason="no account")
        account = found.account.id
        if not found.seen:
            return Drift(target.name, "unread", account, "no answer to a look", is_unfinished=unfinished)
        if found.account.active and closed_before:
            return Drift(target.name, "open", account, "opened again after it was closed again")
        if not (found.account.active or unfinished):
            return Drift(target.name, "shut", account)
        result = await self.closer.close(target, closure)
        if not found.account.active:
            return Drift(target.name, "shut", account, result.reason, result, is_unfinished=result.retry)
        shut = result.state == "closed" or result.is_suspended
        reason = result.reason or "was open under a Hold"
        return Drift(target.name, "closed_again" if shut else "open", account, reason, result, is_unfinished=shut and result.retry)


def _is_older(person: Person, order: Order) -> bool:
    """What the directory shows may be older than the event that ordered the closing."""
    at = order.event.published or order.event.received
    return person.last_updated is None or person.last_updated < at


def _once(read: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    """The same answer for everybody who asks; the first asks for it. A cancelled asker does not take it from the others."""
    task: asyncio.Task[T] | None = None

    async def start() -> T:
        return await read()

    async def ask() -> T:
        nonlocal task
        if task is None:
            task = asyncio.ensure_future(start())
        return await asyncio.shield(task)

    return ask


async def _all(works: Iterable[Awaitable[T]]) -> list[T]:
    """All at the same time; one that raises does not stop the others. Then the gravest is raised: Fenced before anything else."""
    ended = await asyncio.gather(*works, return_exceptions=True)
    errors = [one for one in ended if isinstance(one, BaseException)]
    if errors:
        raise next((one for one in errors if isinstance(one, Fenced)), errors[0])
    return [one for one in ended if not isinstance(one, BaseException)]
