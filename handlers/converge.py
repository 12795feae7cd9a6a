"""Make one target agree about one person: look → guard → apply → look again (level-triggered; an event only says whom to look at).

The second look is what closes the first: it settles every call (seen, or not seen), and it is the read-back after a time-out, a 503
or a lost answer, so there is one way to find out and not three. A change that was acknowledged is never called for again in the
same run, whatever the look after it says: a lagging directory must not cause doubles.
Rejected: retrying the call itself after an unknown outcome (two effects), and retrying an old plan later (a stale wish).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from handlers.contract import (
    Clock,
    ClosingMarks,
    Directory,
    Ending,
    Fence,
    HoldBook,
    Journal,
    LinkBook,
    Observation,
    Outcome,
    RemovalBrake,
    Target,
)
from handlers.creation import Creations, is_pending
from handlers.evidence import RowCloser
from handlers.guard import Guard, Guarded, standing_holds
from handlers.look import LANE, AccessPolicy, Fleet, Looker, View, find_target, read_person
from handlers.perform import About, Attempt, Performer
from handlers.plan import FORBIDDEN_UNDER_HOLD
from handlers.protected import ProtectedList
from handlers.run import Run, code_of, ended
from model.change import CLOSING, OPENING, REPEATABLE, Action, Change, ChangeKind, Plan
from model.errors import CredentialsRefused, PermanentError, PortcullisError, TemporaryError, UnsafePlan
from model.person import Desired, Person, PersonStatus

#: Rounds of applying in one look; a target whose first round brings up a second (a new account, then its grants) needs two.
ROUNDS = 2
#: Readings of a person who changes while being looked at; then the look comes again by the schedule.
READINGS = 4
MOVED = "moved"
#: Seconds until a target is looked at again that did not yet show what it had acknowledged.
REMAINS_DELAY_S = 2.0
_NO_LEAVE = "suspended under a Hold, which is no leave"


class Preview(NamedTuple):
    """What would change at one target (`portcullis plan`). `problem` is set where a guard would refuse, or a look failed."""

    target: str
    plan: Plan | None
    desired: Desired | None
    observation: Observation | None
    problem: str = ""
    withheld: tuple[Change, ...] = ()
    pending: float | None = None


class Converger:
    """The provision lane's engine. `transfer_hold_s`: C50; `dry_run`: plans are written as `planned` and nothing is called.

    With `closings` an open account of somebody who is gone is left to the lockdown lane (RETRY `closing`: order it, then look again):
    two lanes that close would both call. And nothing is opened for somebody whose closing began since this look did.
    """

    def __init__(
        self,
        targets: Fleet,
        directory: Directory,
        policy: AccessPolicy,
        journal: Journal,
        holds: HoldBook,
        links: LinkBook,
        fence: Fence,
        brake: RemovalBrake,
        protected: ProtectedList,
        clock: Clock,
        *,
        transfer_hold_s: float,
        dry_run: bool = False,
        closings: ClosingMarks | None = None,
    ) -> None:
        self.targets = targets
        self.directory = directory
        self.journal = journal
        self.holds = holds
        self.links = links
        self.clock = clock
        self.dry_run = dry_run
        self.closings = closings
        self.guard = Guard(protected, holds, links, brake)
        self.looker = Looker(directory, policy, links, clock, timedelta(seconds=transfer_hold_s))
        self.creations = Creations(links, clock)
        self.closer = RowCloser(journal, links, clock)
        self.performer = Performer(LANE, journal, fence, clock, dry_run=dry_run)

    async def look(
        self,
        tenant: str,
        person_id: str,
        target_name: str,
        *,
        reason: str = "",
        event_uuid: str | None = None,
        event_at: datetime | None = None,
        attempt: int = 1,
        incident: str | None = None,
        expect: str | None = None,
    ) -> Outcome:
        """Never raises but for cancellation, FaultError and defects; what happened is the Outcome.

        Codes worth knowing: CONVERGED `stale` (an `event_at` was given and the look found nothing to do, or a person older than the
        event: look once more, D6), `no_policy`, `no_manager`, `no_manager_account` (a case); HELD `hold` (something was withheld) and
        `contain_again` (a Hold appeared while we opened: containment must run again, D11); REFUSED: the guard's code; RETRY `remains`,
        `closing` (the lockdown lane must close the account first), `moved` (the person changed while being looked at).
        """
        about = About(tenant, person_id, attempt, incident, event_uuid)
        run: Run | None = None
        try:
            target = find_target(self.targets, tenant, target_name)
            mark = await self._closing(about)
            person = await read_person(self.directory, tenant, person_id, LANE)
            for _ in range(READINGS):
                run = Run(about, person, target, mark=mark)
                outcome = await self._run(run, expect)
                if outcome.code != MOVED:
                    break
                person = run.person
        except PortcullisError as error:
            outcome = ended(error, target_name, run)
        outcome = await self._last_word(outcome, run)
        if outcome.ending is Ending.CONVERGED and run is not None and _is_stale(run, outcome, event_at):
            outcome = replace(outcome, code="stale", reason=outcome.reason or "the directory may lag the log")
        return outcome if outcome.reason or not reason else replace(outcome, reason=reason)

    async def plan(self, tenant: str, person_id: str) -> list[Preview]:
        """What would change for a person at every target of the tenant. Calls nothing that mutates, makes no link, counts no brake."""
        person = await read_person(self.directory, tenant, person_id, LANE)
        return [await self._preview(person, target) for target in self.targets.get(tenant, {}).values()]

    async def resume(self, action: Action) -> Action:
        """Closes a row found `intended` after a restart by reading back; returns the closed row, which is written (E1).

        Makes no call that mutates: whether anything is left to do, the next look finds out. Raises TemporaryError where the target
        cannot be read now: the row stays open. Where it never can be, the row is closed as `unknown`.
        """
        try:
            target = find_target(self.targets, action.tenant, action.target)
            person = await read_person(self.directory, action.tenant, action.person, LANE)
            return await self.closer.close(action, person, target, LANE)
        except PermanentError as error:
            return await self.closer.give_up(action, error)

    # --- the run ------------------------------------------------------------------------------------------------------

    async def _run(self, run: Run, expect: str | None) -> Outcome:
        name = run.target.name
        if await self._is_held_shut(run.person, name):
            return Outcome(Ending.HELD, name, _NO_LEAVE, "hold")
        trouble: PortcullisError | None = None
        for number in range(ROUNDS + 1):
            try:
                view = await self._view(run)
            except PortcullisError:
                if trouble is not None:
                    raise trouble from None  # what failed first says more than the look that could not tell
                raise
            if view is None:
                return Outcome(Ending.CONVERGED, name, code="no_policy", actions=run.actions)
            await run.settle(view.plan, self.journal, self.clock.now())
            plan = run.left(view.plan)
            if not plan.changes:
                return self._finish(run, view)
            if trouble is not None:
                raise trouble
            todo = run.todo(plan)
            if number == ROUNDS or not todo.changes:
                return Outcome(Ending.RETRY, name, _names(plan.changes), "remains", REMAINS_DELAY_S, plan=run.plan, actions=run.actions)
            if number == 0 and await self._has_moved(run):
                return Outcome(Ending.RETRY, name, "changed while being looked at", MOVED)
            guarded = await self.guard.check(todo, view.observation, expect=None if number else expect, count=not self.dry_run)
            if self._is_for_lockdown(guarded.plan):
                return Outcome(Ending.RETRY, name, _names(plan.changes), "closing", plan=run.plan, actions=run.actions)
            trouble = await self._apply(run, guarded)
            if self.dry_run or not guarded.plan.changes:
                return self._finish(run, view, guarded)
        raise AssertionError("unreachable: the last round returns")

    async def _is_held_shut(self, person: Person, target: str) -> bool:
        """Suspended by a lockdown, not by a leave (D5): nothing is taken that release would have to give back."""
        return person.status is PersonStatus.SUSPENDED and bool(await standing_holds(self.holds, person.tenant, person.id, target, ""))

    async def _has_moved(self, run: Run) -> bool:
        """Profile and groups are two answers; changes between them would make a person who never was. So before anything is called the
        person is read once more: two equal readings are one moment. Takes the newer reading over. A look that calls nothing saves it."""
        before = run.person
        run.person = await read_person(self.directory, run.about.tenant, run.about.person, LANE)
        return run.person != before

    async def _view(self, run: Run) -> View | None:
        view = await self.looker.view(run.person, run.target)
        if view is not None and view.observation.account is not None:
            run.account = view.observation.account.id
            if view.link is not None and is_pending(view.link) and not self.dry_run:
                await self.creations.adopt(view.link, run.account)
        return view

    async def _apply(self, run: Run, guarded: Guarded) -> PortcullisError | None:
        """Applies in order. A parked change does not stop the others; a temporary error, or a missing account, does."""
        for change in guarded.plan.changes:
            attempt = await self._change(run, change)
            if change.kind in REPEATABLE and isinstance(attempt.error, TemporaryError):
                run.attempts.append(attempt)  # no later look would ask for it again: one repeat now (D25)
                attempt = await self._change(run, change)
            run.attempts.append(attempt)
            if isinstance(attempt.error, TemporaryError | CredentialsRefused | UnsafePlan):
                return attempt.error
            if change.kind is ChangeKind.CREATE and attempt.error is not None:
                return attempt.error
        return None

    async def _change(self, run: Run, change: Change) -> Attempt:
        if change.kind is ChangeKind.CREATE and not self.dry_run:
            attempt = await self.creations.create(run.person, change, partial(self._call, run))
            if attempt.applied is not None:
                run.account = attempt.applied.account
            return attempt
        return await self._call(run, change if change.account or self.dry_run else change.model_copy(update={"account": run.account}))

    async def _call(self, run: Run, change: Change, intent: str = "") -> Attempt:
        about = run.about

        async def not_held() -> None:
            await self.guard.nothing_held(about.tenant, about.person, change.target, change.account)
            if await self._closing(about) != run.mark:
                raise TemporaryError("a closing began since this look: looked at anew")
            run.opened = run.opened or change.kind in OPENING

        last_check = not_held if change.kind in FORBIDDEN_UNDER_HOLD else None
        return await self.performer.attempt(run.target, change, about, intent=intent, last_check=last_check)

    async def _closing(self, about: About) -> str:
        return "" if self.closings is None else await self.closings.begun(about.tenant, about.person)

    def _is_for_lockdown(self, plan: Plan) -> bool:
        return self.closings is not None and not self.dry_run and any(change.kind in CLOSING for change in plan.changes)

    def _finish(self, run: Run, view: View, guarded: Guarded | None = None) -> Outcome:
        name, code, text = run.target.name, *view.case
        if guarded is not None and guarded.withheld:
            holds = ", ".join(hold.id for hold in guarded.holds)
            return Outcome(
                Ending.HELD, name, f"withheld under {holds}: {_names(guarded.withheld)}", "hold", plan=run.plan, actions=run.actions
            )
        if run.parked:
            label, error = next(iter(run.parked.items()))
            return Outcome(Ending.PARKED, name, f"{label}: {error}", code_of(error), plan=run.plan, actions=run.actions)
        return Outcome(Ending.CONVERGED, name, text, code, pending=view.pending, plan=run.plan, actions=run.actions)

    async def _last_word(self, outcome: Outcome, run: Run | None) -> Outcome:
        """After opening anything the Holds are read once more: the last word is lockdown's (D11)."""
        if run is None or not run.opened or outcome.ending is Ending.FENCED:
            return outcome
        try:
            holds = await standing_holds(self.holds, run.about.tenant, run.about.person, run.target.name, run.account)
        except TemporaryError as error:
            return replace(outcome, ending=Ending.RETRY, code="holds", reason=f"the Holds cannot be read: {error}", delay=error.delay)
        if not holds:
            return outcome
        return replace(outcome, ending=Ending.HELD, code="contain_again", reason=f"{holds[0].id} appeared while access was opened")

    # --- previews -------------------------------------------------------------------------------------------------------

    async def _preview(self, person: Person, target: Target) -> Preview:
        view: View | None = None
        try:
            if await self._is_held_shut(person, target.name):
                return Preview(target.name, None, None, None, _NO_LEAVE)
            view = await self.looker.view(person, target)
            if view is None:
                return Preview(target.name, None, None, None, "policy does not speak of this target for this person")
            guarded = await self.guard.check(view.plan, view.observation, count=False)
        except (TemporaryError, PermanentError) as error:
            plan, desired, seen = (view.plan, view.desired, view.observation) if view else (None, None, None)
            return Preview(target.name, plan, desired, seen, str(error))
        return Preview(target.name, guarded.plan, view.desired, view.observation, view.case[1], guarded.withheld, view.pending)


def _is_stale(run: Run, outcome: Outcome, event_at: datetime | None) -> bool:
    if event_at is None or outcome.code:
        return False
    seen = run.person.last_updated
    return not run.attempts or seen is None or seen < event_at


def _names(changes: tuple[Change, ...]) -> str:
    return ", ".join(change.label for change in changes)
