"""Releasing a Hold: a human's decision, durable first, then carried out (N4, C72).

The Hold is written as released before anything is opened, so a crash between leaves a decision that is repeated, never an opened
account under a Hold. Nothing is opened where another Hold stands (E7), nor anywhere but in Okta for somebody who left meanwhile.
Okta goes first: whether the person is here again decides about the rest. What changed since the closing is left as it is; that is
the target's judgement (`Target.restoring`). Rejected: restoring by policy alone (it would forget a state that policy does not know,
such as a Box account that may only read).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace

from handlers.closing import OKTA, failed, judged
from handlers.containment import ContainmentResult, HoldWriter, TargetResult, summed
from handlers.contract import Clock, Directory, HoldBook, Target
from handlers.guard import standing_holds
from handlers.look import Fleet, read_person
from handlers.perform import About, Attempt, Performer
from model.errors import PermanentError, TemporaryError, UnsafePlan
from model.person import Hold, HoldState


class Releaser:
    def __init__(
        self, targets: Fleet, directory: Directory, holds: HoldBook, writer: HoldWriter, performer: Performer, clock: Clock
    ) -> None:
        self.targets = targets
        self.directory = directory
        self.holds = holds
        self.writer = writer
        self.performer = performer
        self.clock = clock

    async def release(self, hold: Hold, *, actor: str, reason: str, only: Collection[str] | None, attempt: int) -> ContainmentResult:
        """released: all that is to be restored stands. partial / failed: some targets must be tried again (`retry`), with the released
        Hold. still_held: another Hold of this person stands, so nothing was opened. Raises Fenced, and what writer and journal raise."""
        self.performer.fence.check(hold.tenant, hold.person)
        if hold.is_open:
            if self.performer.dry_run:
                return ContainmentResult("superseded", hold=hold, reason="dry run: no Hold is released")
            news = {"state": HoldState.RELEASED, "released": self.clock.now(), "released_by": actor, "reason": reason or hold.reason}
            hold = hold.model_copy(update=news)
            await self.writer.write(hold)
        if others := [one.id for one in await self.holds.open_holds(hold.tenant, hold.person, fresh=True) if one.id != hold.id]:
            return ContainmentResult("still_held", hold=hold, code="hold", reason=f"held by {', '.join(others)}")
        about = About(hold.tenant, hold.person, attempt, hold.incident)
        wanted = [one for name, one in self.targets.get(hold.tenant, {}).items() if name in hold.restore and (only is None or name in only)]
        okta = [await self._restore(one, hold, about) for one in wanted if one.kind == OKTA]
        rest = [one for one in wanted if one.kind != OKTA]
        stay = await self._stays_shut(hold, okta) if rest else None
        if stay is None:
            okta += await asyncio.gather(*(self._restore(one, hold, about) for one in rest))
        else:
            okta += [replace(stay, target=one.name) for one in rest]
        return _summed(okta, hold)

    async def _stays_shut(self, hold: Hold, okta: list[TargetResult]) -> TargetResult | None:
        """None where the rest may be opened; else what is said of each of the rest: the person left meanwhile, or nobody knows yet."""
        if any(one.retry for one in okta):
            return TargetResult("", "failed", code="okta_first", reason="waits for Okta", retry=True)
        if any(one.state == "restored" for one in okta):
            return None  # Okta just took the person back; its directory may lag behind that
        try:
            person = await read_person(self.directory, hold.tenant, hold.person, "lockdown")
        except TemporaryError as error:
            return TargetResult("", "failed", code="okta_first", reason=str(error), retry=True, delay=error.delay)
        if person.status.is_present:
            return None
        return TargetResult("", "left", code="gone", reason=f"{person.status.value} in Okta now: stays shut")

    async def _restore(self, target: Target, hold: Hold, about: About) -> TargetResult:
        started = self.clock.now()
        saved, account_id = hold.restore[target.name], dict(hold.accounts).get(target.name, "")
        result = TargetResult(target.name, "nothing", account_id, started=started)
        if not saved:
            return replace(result, state="left", code="unseen", reason="closed unseen: what was there before is not known")
        try:
            account = await target.look(account_id, "lockdown")
            if account is None:
                return replace(result, state="left", code="absent", reason="the account is gone")
            result = replace(result, looked=self.clock.now())
            changes = target.restoring(account, saved)
        except (TemporaryError, PermanentError) as error:
            return replace(failed(target.name, error, started), account=account_id)
        if not changes:
            return replace(result, reason="as it was, or changed since")

        async def not_held() -> None:
            if holds := await standing_holds(self.holds, hold.tenant, hold.person, target.name, account_id):
                raise UnsafePlan(f"held by {', '.join(one.id for one in holds)}", "hold")

        attempts: list[Attempt] = [await self.performer.attempt(target, one, about, last_check=not_held) for one in changes]
        actions = tuple(one.action for one in attempts)
        result = replace(result, state="restored", answered=self.clock.now(), actions=actions)
        return judged(result, attempts)


def _summed(targets: Iterable[TargetResult], hold: Hold) -> ContainmentResult:
    results = tuple(targets)
    total = summed(results, hold)
    return total if total.state != "contained" else replace(total, state="released")
