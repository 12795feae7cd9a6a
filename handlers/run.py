"""One look's memory: which calls went out, what came of them, what is left to do, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from handlers.contract import Ending, Journal, Outcome, Target
from handlers.evidence import READ_BACK
from handlers.perform import About, Attempt
from model.change import IRREVERSIBLE, REPEATABLE, Action, ActionStatus, Plan
from model.errors import CredentialsRefused, Fenced, PermanentError, PortcullisError, TemporaryError, UnsafePlan
from model.person import Person

_NEVER_OUT = (ActionStatus.PLANNED, ActionStatus.REFUSED, ActionStatus.PARKED)
_UNANSWERED = (ActionStatus.FAILED, ActionStatus.UNKNOWN)


@dataclass(slots=True)
class Run:
    """`opened`: an opening call went out, so a Hold that appears meanwhile means that containment runs again. `account` is the id
    that stands for the person, once there is one. `plan` is the first that had changes. `mark`: the closing that had begun last when
    this look began."""

    about: About
    person: Person
    target: Target
    attempts: list[Attempt] = field(default_factory=list)
    opened: bool = False
    account: str = ""
    plan: Plan | None = None
    mark: str = ""

    @property
    def actions(self) -> tuple[Action, ...]:
        return tuple(attempt.action for attempt in self.attempts)

    @property
    def acknowledged(self) -> set[str]:
        return {one.change.label for one in self.attempts if one.action.status in (ActionStatus.DONE, ActionStatus.ALREADY)}

    @property
    def parked(self) -> dict[str, PermanentError]:
        """What never succeeds as it is. A guard's no and refused credentials concern the moment, not the change."""
        errors = {one.change.label: one.error for one in self.attempts}
        return {
            label: error
            for label, error in errors.items()
            if isinstance(error, PermanentError) and not isinstance(error, UnsafePlan | CredentialsRefused)
        }

    def left(self, plan: Plan) -> Plan:
        """What may still be done: not what was parked, and never twice what cannot be undone (the vendor may still be at it)."""
        self.plan = self.plan or (plan if plan.changes else None)
        parked, done = self.parked, self.acknowledged
        changes = (one for one in plan.changes if one.label not in parked)
        kept = tuple(one for one in changes if not (one.kind in IRREVERSIBLE and one.label in done))
        return plan.model_copy(update={"changes": kept})

    def todo(self, plan: Plan) -> Plan:
        """Without what was acknowledged: a target that does not show it yet is looked at again, not called again."""
        done = self.acknowledged
        return plan.model_copy(update={"changes": tuple(one for one in plan.changes if one.label not in done)})

    async def settle(self, plan: Plan, journal: Journal, now: datetime) -> None:
        """Closes rows by a new look: what its plan no longer asks for is there; what it asks for again, after no answer, is not."""
        wanted = {change.label for change in plan.changes}
        for at, one in enumerate(self.attempts):
            settled = self._settled(one, one.change.label in wanted, now)
            if settled is not None:
                await journal.answered(settled)
                self.attempts[at] = replace(one, action=settled)

    def _settled(self, attempt: Attempt, still_wanted: bool, now: datetime) -> Action | None:
        action = attempt.action
        if action.observed is not None or action.status in _NEVER_OUT or attempt.change.kind in REPEATABLE:
            return None  # ended sessions leave no trace: done is done, unknown stays unknown
        if still_wanted:
            if action.status is not ActionStatus.UNKNOWN:
                return None
            return action.model_copy(update={"status": ActionStatus.FAILED, "detail": f"{READ_BACK}, no effect, after: {action.detail}"})
        news: dict[str, object] = {"observed": now}
        if action.status in _UNANSWERED:
            detail = f"{READ_BACK} after: {action.detail}"
            news |= {"status": ActionStatus.DONE, "detail": detail, "account": action.account or self.account}
        return action.model_copy(update=news)


def ended(error: PortcullisError, target: str, run: Run | None) -> Outcome:
    """The Outcome that an error means. What is none of the two words (a fault, wrong configuration) is raised on."""
    actions, plan = (run.actions, run.plan) if run else ((), None)
    match error:
        case Fenced():
            return Outcome(Ending.FENCED, target, str(error), "fenced", plan=plan, actions=actions)
        case TemporaryError():
            return Outcome(Ending.RETRY, target, str(error), code_of(error), error.delay, plan=plan, actions=actions)
        case CredentialsRefused():  # the breaker holds the connector (D23): these people wait, they are not parked one by one
            return Outcome(Ending.RETRY, target, str(error), "credentials", plan=plan, actions=actions)
        case UnsafePlan(code="hold"):
            return Outcome(Ending.HELD, target, str(error), "hold", plan=plan, actions=actions)
        case UnsafePlan():
            return Outcome(Ending.REFUSED, target, str(error), error.code, plan=plan, actions=actions)
        case PermanentError():
            return Outcome(Ending.PARKED, target, str(error), code_of(error), plan=plan, actions=actions)
        case _:
            raise error


def code_of(error: PortcullisError) -> str:
    return getattr(error, "code", "") or type(error).__name__
