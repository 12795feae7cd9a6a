"""Closing one person's account at one target, as fast as it can be done without guessing: one look, then the constant plan (D14).

The account is found by its immutable id where that is known (Okta's own, or a link), else by the exact key; only then is Okta asked
who the person is. A look that fails, or takes too long, does not hold up a known id: it is closed unseen. A failed call does not
hold up the next: sessions are ended whatever became of the suspension (D16). What release needs is written into the Hold together
with the intent of the first call, so the record costs no time of its own and is durable before anything changes.
Rejected: writing it after the calls (a crash between would forget what was there), and one write for all targets (the slowest
target's look would hold up the others).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from handlers.containment import HoldWriter, TargetResult
from handlers.contract import Clock, LinkBook, RemovalBrake, Target
from handlers.creation import is_made
from handlers.evidence import READ_BACK
from handlers.look import observe
from handlers.perform import About, Attempt, Performer
from handlers.plan import make_plan
from handlers.protected import ProtectedList
from model.change import ActionStatus, Change, ChangeKind
from model.decision import Scope
from model.errors import PermanentError, TemporaryError, UnsafePlan
from model.person import Account, Hold, Person

OKTA = "okta"
#: A look that takes longer does not hold up the closing of a known account.
LOOK_PATIENCE_S = 3.0
#: When to look whether the effect shows, after the calls were answered (a vendor's directory may lag by a second).
CONFIRM_AFTER_S = (0.0, 0.7, 1.4)

T = TypeVar("T")


class HoldKeeper:
    """One Hold while it is being filled: every write holds all that is known, and writes keep their order."""

    def __init__(self, hold: Hold, writer: HoldWriter) -> None:
        self.hold = hold
        self._writer = writer
        self._turn = asyncio.Lock()

    async def write(self) -> None:
        async with self._turn:
            await self._writer.write(self.hold)

    async def remember(self, target: str, account: Account, saved: dict[str, Any]) -> None:
        """Adds what a target held before it was closed. What stands there already is older, so truer, and stays; but an account that
        is open and was never seen (`{}`) was not closed by us yet."""
        accounts = dict.fromkeys((*self.hold.accounts, (target, account.id)))
        older = self.hold.restore.get(target)
        restore = self.hold.restore | {target: older if older or (older is not None and not account.active) else saved}
        if tuple(accounts) != self.hold.accounts or restore != self.hold.restore:
            self.hold = self.hold.model_copy(update={"accounts": tuple(accounts), "restore": restore})
            await self.write()


@dataclass(frozen=True, slots=True)
class Found:
    """`account` None: there is none. `seen` False: the look failed and the id alone is known."""

    account: Account | None
    seen: bool = True


#: What is called for at an account that a look shows shut. The constant plan of a new lockdown: all of it, whatever a look says (D14).
ALL = frozenset(ChangeKind)
#: A repeat (a retry, a redelivered order): what leaves no trace goes out once more (D25), what shows is not called for twice.
SESSIONS = frozenset({ChangeKind.END_SESSIONS})
NOTHING: frozenset[ChangeKind] = frozenset()


@dataclass(slots=True)
class Closure:
    """What one containment shares between its targets. `person` is read once, and only if some target needs it. `brake`: a leaver's
    closing is counted as a removal, a lockdown is not (D19). `begin` is durable together with the first intent at each target, as the
    Hold's restore state is. `at_shut`: see ALL. `suspended`: targets that acknowledged the suspension to an earlier try: it is not called
    for again, whatever a look says (a directory may lag). `blind`: a known account whose look fails is closed unseen; a leaver's is not,
    since what another order has closed would be called for twice. `looks`: how many must fail before that; a repeat makes two, since
    what it would call for may stand already."""

    about: About
    scope: Scope
    person: Callable[[], Awaitable[Person]]
    keeper: HoldKeeper | None = None
    brake: RemovalBrake | None = None
    begin: Callable[[], Awaitable[None]] | None = None
    at_shut: frozenset[ChangeKind] = ALL
    suspended: frozenset[str] = frozenset()
    blind: bool = True
    looks: int = 1


class AccountCloser:
    """The lockdown lane's hands. Raises Fenced and what the journal raises; everything else stands in the TargetResult."""

    def __init__(self, performer: Performer, links: LinkBook, protected: ProtectedList, clock: Clock) -> None:
        self.performer = performer
        self.links = links
        self.protected = protected
        self.clock = clock

    async def close(
        self, target: Target, closure: Closure, report: Callable[[TargetResult], Awaitable[None]] | None = None
    ) -> TargetResult:
        """Looks, closes, reports as soon as the calls are answered, then looks whether the effect shows."""
        started = self.clock.now()
        try:
            found = await self.find(target, closure)
        except (TemporaryError, PermanentError) as error:
            result = failed(target.name, error, started)
        else:
            result = await self._close_found(target, closure, found, started)
        if report is not None:
            await report(result)
        return await self._confirmed(target, closure, result)

    async def find(self, target: Target, closure: Closure) -> Found:
        """The person's account at this target. Raises Ambiguous where nobody may guess, Temporary- and PermanentError."""
        about = closure.about
        if target.kind == OKTA:
            return await self._by_id(target, about.person, "", closure.looks)
        link = await self.links.find(about.tenant, about.person, target.name)
        if link is not None and is_made(link):
            found = await self._by_id(target, link.account, link.login, closure.looks)
            if found.account is not None:
                return found
        seen = await observe(await closure.person(), None, target, self.links, "lockdown")
        return Found(seen.account)

    async def _by_id(self, target: Target, account_id: str, login: str, looks: int) -> Found:
        for _ in range(looks):
            with contextlib.suppress(TemporaryError, PermanentError):
                return Found(await self._patiently(target.look(account_id, "lockdown")))
        return Found(Account(target=target.name, id=account_id, login=login, active=True, status="unknown"), seen=False)

    async def _patiently(self, look: Coroutine[Any, Any, T]) -> T:
        task, alarm = asyncio.ensure_future(look), asyncio.ensure_future(self.clock.sleep(LOOK_PATIENCE_S))
        try:
            await asyncio.wait({task, alarm}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise TemporaryError(f"no answer to a look within {LOOK_PATIENCE_S:g} s")
            return task.result()
        finally:
            task.cancel()
            alarm.cancel()

    async def _close_found(self, target: Target, closure: Closure, found: Found, started: datetime) -> TargetResult:
        account, looked = found.account, self.clock.now()
        if account is None:
            return TargetResult(target.name, "nothing", reason="no account", started=started, looked=looked)
        result = TargetResult(target.name, "closed", account.id, started=started, looked=looked if found.seen else None)
        if self.protected.is_ours(target.name, account.id):
            return replace(result, state="refused", code="ours", reason="our own service identity", page=True)
        if not (found.seen or closure.blind):
            return replace(result, state="failed", code="unread", reason="no answer to a look", retry=True)
        changes = target.closing(account, closure.scope)
        if target.name in closure.suspended:
            changes = tuple(change for change in changes if change.kind is not ChangeKind.DEACTIVATE)
        elif found.seen and not account.active:
            changes = tuple(change for change in changes if change.kind in closure.at_shut)
        if not changes:
            return replace(result, reason="shut already")
        if account.privileged:
            changes = tuple(change for change in changes if change.kind is ChangeKind.END_SESSIONS)
        if closure.brake is not None:
            try:
                await closure.brake.allow(make_plan(closure.about.tenant, closure.about.person, target.name, changes, account), 1)
            except UnsafePlan as error:
                return replace(result, state="refused", code=error.code, reason=str(error), page=True)
        attempts = await self._calls(target, closure, changes, account, target.saved(account) if found.seen else {})
        result = replace(result, answered=self.clock.now(), actions=tuple(one.action for one in attempts))
        if account.privileged and closure.scope is Scope.FULL:
            reason = "an administrator: sessions ended, a human must suspend"
            return replace(judged(result, attempts), state="refused", code="privileged", reason=reason, page=True)
        return judged(result, attempts)

    async def _calls(
        self, target: Target, closure: Closure, changes: tuple[Change, ...], account: Account, saved: dict[str, Any]
    ) -> list[Attempt]:
        async def keep() -> None:
            if closure.keeper is not None:
                await closure.keeper.remember(target.name, account, saved)
            if closure.begin is not None:
                await closure.begin()

        attempts: list[Attempt] = []
        for change in changes:
            attempt = await self.performer.attempt(target, change, closure.about, alongside=None if attempts else keep)
            attempts.append(await self._read_back(target, attempt, account))
        return attempts

    async def _read_back(self, target: Target, attempt: Attempt, account: Account) -> Attempt:
        """A suspension that was refused, or whose answer was lost, may stand all the same (35, D16)."""
        if attempt.error is None or attempt.change.kind is not ChangeKind.DEACTIVATE or self.performer.dry_run:
            return attempt
        try:
            now = await self._patiently(target.look(account.id, "lockdown"))
        except (TemporaryError, PermanentError):
            return attempt
        if now is not None and now.active:
            return attempt
        at = self.clock.now()
        detail = f"{READ_BACK} after: {attempt.action.detail}"
        action = attempt.action.model_copy(update={"status": ActionStatus.DONE, "observed": at, "detail": detail})
        await self.performer.journal.answered(action)
        return Attempt(attempt.change, action, attempt.applied, None)

    async def _confirmed(self, target: Target, closure: Closure, result: TargetResult) -> TargetResult:
        """Sets `observed` when an independent read shows the account shut (N2). Not seen yet is no failure: the read-back comes."""
        if result.state != "closed" or closure.scope is not Scope.FULL or self.performer.dry_run:
            return result
        for pause in CONFIRM_AFTER_S:
            if pause:
                await self.clock.sleep(pause)
            try:
                account = await self._patiently(target.look(result.account, "lockdown"))
            except (TemporaryError, PermanentError):
                return result
            if account is None or not account.active:
                return await self._observed(result, self.clock.now())
        return result

    async def _observed(self, result: TargetResult, at: datetime) -> TargetResult:
        actions = []
        for action in result.actions:
            if action.observed is None and action.change.startswith(ChangeKind.DEACTIVATE.value):
                action = action.model_copy(update={"observed": at})
                await self.performer.journal.answered(action)
            actions.append(action)
        return replace(result, observed=at, actions=tuple(actions))


def failed(target: str, error: TemporaryError | PermanentError, started: datetime) -> TargetResult:
    temporary = isinstance(error, TemporaryError)
    return TargetResult(
        target,
        "failed" if temporary else "refused",
        code=getattr(error, "code", "") or type(error).__name__,
        reason=str(error),
        started=started,
        retry=temporary,
        delay=error.delay if isinstance(error, TemporaryError) else None,
        page=not temporary,
    )


def judged(result: TargetResult, attempts: list[Attempt]) -> TargetResult:
    """The state that a target's calls add up to. A suspension that failed is paged at once; it is tried again where that may help."""
    errors = [one for one in attempts if one.error is not None]
    if not errors:
        planned = bool(attempts) and all(one.action.status is ActionStatus.PLANNED for one in attempts)
        return replace(result, state="planned") if planned else result
    temporary = [one.error for one in errors if isinstance(one.error, TemporaryError)]
    worst = next((one.error for one in errors if isinstance(one.error, PermanentError)), errors[0].error)
    delays = [error.delay for error in temporary if error.delay is not None]
    return replace(
        result,
        state="failed" if temporary else "refused",
        code=getattr(worst, "code", "") or type(worst).__name__,
        reason="; ".join(f"{one.change.label}: {one.error}" for one in errors),
        retry=bool(temporary),
        delay=max(delays, default=None),
        page=not temporary or any(one.change.kind is ChangeKind.DEACTIVATE for one in errors),
    )
