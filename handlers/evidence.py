"""Reading back: does an account show that a call had its effect? (E1, D25)

Where the answer never came, or the process died before writing it down, the account is looked at and the row closed. `None` means
that the effect leaves no trace in a look (ended sessions, moved content): such a row is closed as `unknown`.
Conventions of `Change`: `subject` of GRANT, REVOKE and a change of level is "<grant kind> <name>"; `after` of any other UPDATE
names attributes.
"""

from __future__ import annotations

from handlers.contract import Clock, Journal, Lane, LinkBook, Target
from handlers.creation import is_made
from model.change import Action, ActionStatus, ChangeKind
from model.errors import PermanentError
from model.person import Account, Person


def split(label: str) -> tuple[ChangeKind | None, str]:
    """(kind, subject) of a `Change.label`; (None, label) where it is none of ours."""
    word, _, subject = label.partition(" ")
    try:
        return ChangeKind(word), subject
    except ValueError:
        return None, label


#: How a row's detail begins where its answer was lost and what became of the call was found out by looking.
READ_BACK = "read back"


def may_still_land(action: Action) -> bool:
    """No effect showed when the call was read back, because its answer was lost: a vendor may yet come to work on it."""
    return action.status is ActionStatus.FAILED and action.detail.startswith(READ_BACK)


def stands(action: Action, account: Account | None) -> bool | None:
    """True or False where the look can tell whether the effect of `action` is there, else None."""
    kind, subject = split(action.change)
    match kind:
        case ChangeKind.CREATE:
            return account is not None
        case ChangeKind.DELETE:
            return account is None
        case ChangeKind.DEACTIVATE:
            return account is None or not account.active
        case ChangeKind.REVOKE:
            return account is None or subject.casefold() not in _held(account)
        case ChangeKind.ACTIVATE:
            return account is not None and account.active
        case ChangeKind.GRANT:
            return account is not None and _granted(account, subject, action)
        case ChangeKind.UPDATE if set(action.after) == {"level"}:
            return account is not None and _granted(account, subject, action)
        case ChangeKind.UPDATE if action.after:
            return account is not None and all(_value(account, name) == value for name, value in action.after.items())
        case _:
            return None


class RowCloser:
    """Closes rows that a restart found `intended`. Makes no call that mutates: what is left to do, the next look finds out."""

    def __init__(self, journal: Journal, links: LinkBook, clock: Clock) -> None:
        self.journal = journal
        self.links = links
        self.clock = clock

    async def close(self, action: Action, person: Person, target: Target, lane: Lane) -> Action:
        """The closed row, as written. Raises TemporaryError where the target cannot be read now: the row stays open."""
        account = await self._look(action, person, target, lane)
        effect = stands(action, account)
        now = self.clock.now()
        news: dict[str, object] = {
            "status": ActionStatus.UNKNOWN,
            "detail": f"{READ_BACK} after a restart: leaves no trace",
            "answered": now,
        }
        if effect is not None:
            news["status"] = ActionStatus.DONE if effect else ActionStatus.FAILED
            news["detail"] = f"{READ_BACK} after a restart" if effect else f"{READ_BACK} after a restart: no effect"
        if effect:
            news |= {"observed": now, "account": action.account or (account.id if account else "")}
        closed = action.model_copy(update=news)
        await self.journal.answered(closed)
        return closed

    async def give_up(self, action: Action, error: PermanentError) -> Action:
        """Nobody will ever be able to read this back (the target is configured no longer, or refuses us)."""
        news = {"status": ActionStatus.UNKNOWN, "detail": f"cannot be read back: {error}", "answered": self.clock.now()}
        closed = action.model_copy(update=news)
        await self.journal.answered(closed)
        return closed

    async def _look(self, action: Action, person: Person, target: Target, lane: Lane) -> Account | None:
        link = await self.links.find(action.tenant, action.person, action.target)
        if known := action.account or (link.account if link is not None and is_made(link) else ""):
            return await target.look(known, lane)
        if not (person.login or person.email):
            return None
        return (await target.observe(person, None, lane)).account


def _held(account: Account) -> dict[str, str]:
    return {f"{grant.kind} {grant.name}".casefold(): grant.level for grant in account.grants}


def _granted(account: Account, subject: str, action: Action) -> bool:
    level = _held(account).get(subject.casefold())
    return level is not None and action.after.get("level") in (None, "", level)


def _value(account: Account, name: str) -> object:
    return account.login if name == "login" else account.attributes.get(name)
