"""One change, one intent, one call: fence → intent durable → last checks → call → answer durable (E1, D12, D25).

Every call gets an intent id of its own (random). Rejected: ids derived from person and change; after a crash or a repeated
delivery the same id would go out twice and one row would stand for two calls. What repeats is the look, never the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from handlers.contract import Applied, Clock, Fence, Journal, Lane, Target, last_word
from model.change import Action, ActionStatus, Change
from model.errors import Fenced, OutcomeUnknown, PermanentError, PortcullisError, TemporaryError, UnsafePlan

#: How long a cancelled call may take to note that its outcome is unknown.
LAST_WORDS_S = 2.0


def new_intent() -> str:
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class About:
    """On whose behalf and why: what every row of one look shares."""

    tenant: str
    person: str
    attempt: int = 1
    incident: str | None = None
    event_uuid: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call and what came of it. `error` None: done (or already so, or only planned in a dry run)."""

    change: Change
    action: Action
    applied: Applied | None = None
    error: PortcullisError | None = None


Check = Callable[[], Awaitable[None]]


class Performer:
    """Makes the calls of one lane. `dry_run`: writes the row as `planned` and calls nothing (D31, E8)."""

    def __init__(self, lane: Lane, journal: Journal, fence: Fence, clock: Clock, *, dry_run: bool = False) -> None:
        self.lane = lane
        self.journal = journal
        self.fence = fence
        self.clock = clock
        self.dry_run = dry_run

    async def attempt(
        self,
        target: Target,
        change: Change,
        about: About,
        *,
        intent: str = "",
        alongside: Check | None = None,
        last_check: Check | None = None,
    ) -> Attempt:
        """Never raises for a target's error (it stands in the Attempt); raises Fenced, and whatever the journal raises.

        `alongside` is made durable together with the intent; `last_check` runs after that, immediately before the call, and
        refuses by raising UnsafePlan.
        """
        action = self._row(change, about, intent or new_intent())
        if self.dry_run:
            await self.journal.answered(action)
            return Attempt(change, action)
        self.fence.check(about.tenant, about.person)
        await self._durable(action, alongside)
        try:
            if last_check is not None:
                await last_check()
            self.fence.check(about.tenant, about.person)
        except Fenced:
            raise  # the row stays open: the next owner reads back
        except PortcullisError as error:
            status = ActionStatus.REFUSED if isinstance(error, UnsafePlan) else ActionStatus.FAILED
            return await self._answer(change, action, status, error=error)
        return await self._call(target, change, action.model_copy(update={"called": self.clock.now()}))

    async def _durable(self, action: Action, alongside: Check | None) -> None:
        if alongside is None:
            await self.journal.intended(action)
        else:
            await asyncio.gather(self.journal.intended(action), alongside())

    async def _call(self, target: Target, change: Change, action: Action) -> Attempt:
        fence = last_word.set(partial(self.fence.check, action.tenant, action.person))
        try:
            applied = await target.apply(change, action.intent, self.lane)
        except Fenced:
            raise  # as above: nothing went out, and a worker that is fenced writes nothing
        except OutcomeUnknown as error:
            return await self._answer(change, action, ActionStatus.UNKNOWN, error=error)
        except TemporaryError as error:
            return await self._answer(change, action, ActionStatus.FAILED, error=error)
        except PermanentError as error:
            return await self._answer(change, action, ActionStatus.PARKED, error=error)
        except asyncio.CancelledError:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._answer(change, action, ActionStatus.UNKNOWN, detail="cancelled while the call was out")
            raise
        except Exception as error:  # a defect of ours: the row must not claim anything, the defect must be seen
            await self._answer(change, action, ActionStatus.UNKNOWN, detail=f"{type(error).__name__} while the call was out")
            raise
        finally:
            last_word.reset(fence)
        return await self._answer(change, action, ActionStatus.ALREADY if applied.already else ActionStatus.DONE, applied=applied)

    async def _answer(
        self,
        change: Change,
        action: Action,
        status: ActionStatus,
        *,
        applied: Applied | None = None,
        error: PortcullisError | None = None,
        detail: str = "",
    ) -> Attempt:
        news: dict[str, object] = {"status": status, "detail": detail or (str(error) if error else ""), "answered": self.clock.now()}
        if applied is not None:
            news |= {"account": applied.account or action.account, "after": applied.after or action.after, "request_id": applied.request_id}
        answered = action.model_copy(update=news)
        await self.journal.answered(answered)
        return Attempt(change, answered, applied, error)

    def _row(self, change: Change, about: About, intent: str) -> Action:
        return Action(
            intent=intent,
            attempt=about.attempt,
            lane=self.lane,
            incident=about.incident,
            tenant=about.tenant,
            person=about.person,
            target=change.target,
            account=change.account,
            change=change.label,
            before=change.before,
            after=change.after,
            status=ActionStatus.PLANNED if self.dry_run else ActionStatus.INTENDED,
            event_uuid=about.event_uuid,
            intended=self.clock.now(),
        )
