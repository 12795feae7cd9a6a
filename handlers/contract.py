"""The words between the engine (plan, guard, converge, lockdown) and a target, and the ports that the outside must fill.

A target is three facts and three verbs: `name`, `kind`, `capabilities`; `observe`, `apply`, and the pure `closing`/`restoring` plans.
The engine never sees a vendor's JSON, a target never sees a Hold or a brake. Ports (Journal, HoldBook, LinkBook, Fence, RemovalBrake)
are protocols because their truth lives in Kafka, which only `stream/` knows; tests fill them with dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol

from model.change import Action, Change, Plan
from model.decision import Scope
from model.person import Account, Desired, Hold, Link, Person

Lane = Literal["lockdown", "provision"]


class Clock(Protocol):
    """Injected time. `now` is aware UTC; `monotonic` and `sleep` in seconds."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class Capability(StrEnum):
    """What a target can do; the value is what documentation shows. Each target declares the permission it needs for each."""

    CREATE = "create"
    DEACTIVATE = "deactivate"
    ACTIVATE = "activate"
    UPDATE = "update"
    END_SESSIONS = "end sessions"
    GROUPS = "groups"
    FOLDERS = "folders"
    TRANSFER = "transfer"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at one target. `account` None with `candidates` empty: no account. More than one candidate: nobody may guess.
    `exact` is True where the one match is by link or by exact canonical key (closing may use it; opening needs a link, D21)."""

    account: Account | None
    candidates: tuple[str, ...] = ()
    linked: bool = False
    request_id: str | None = None

    @property
    def is_ambiguous(self) -> bool:
        return self.account is None and len(self.candidates) > 1


@dataclass(frozen=True, slots=True)
class Applied:
    """What a target answered to one change. `already` means the wish was true before the call. `account` is the id that now stands
    for the person (a created account's new id)."""

    account: str = ""
    already: bool = False
    after: dict[str, Any] = field(default_factory=dict)
    request_id: str | None = None


class Target(Protocol):
    """Raises only TemporaryError and PermanentError (and their children); never a vendor's or httpx's exception."""

    name: str
    kind: str
    capabilities: frozenset[Capability]

    async def observe(self, person: Person, link: Link | None, lane: Lane) -> Observation:
        """By the link's account id where there is a link, else by exact, unique canonical key (login = work e-mail, lower case)."""

    async def look(self, account_id: str, lane: Lane) -> Account | None:
        """One GET by immutable id; None where it is gone."""

    def closing(self, account: Account, scope: Scope) -> tuple[Change, ...]:
        """The constant plan of a lockdown: for `full` suspend, then end sessions; for `sessions` only end sessions (D14, D15)."""

    def restoring(self, account: Account, saved: dict[str, Any]) -> tuple[Change, ...]:
        """What brings the account back to `saved` (the state before it was closed), except what changed since (C72)."""

    def saved(self, account: Account) -> dict[str, Any]:
        """What `restoring` needs, taken from the look before the first closing call."""

    def changes(self, desired: Desired, observed: Account | None, person: Person) -> tuple[Change, ...]:
        """Pure: the calls that make `observed` equal `desired`, each with what it needs in `args`; unordered (the plan orders)."""

    async def apply(self, change: Change, intent: str, lane: Lane) -> Applied:
        """One call (with what it must read first). Already so is success. The header X-Portcullis-Intent carries `intent`."""


class Listing(Protocol):
    """A target that can list its accounts, for links to accounts that were there before (D21)."""

    async def accounts(self, lane: Lane) -> tuple[tuple[str, str], ...]:
        """(id, login) of every account, complete, or an error."""


class Journal(Protocol):
    """Durable record of what we are about to do and what came of it (E1). Both return only when Kafka has acknowledged (acks=all)."""

    async def intended(self, action: Action) -> None: ...
    async def answered(self, action: Action) -> None: ...


class HoldBook(Protocol):
    """Holds as the lockdown lane wrote them. `fresh=True` waits until the follower has reached the topic's end (D11)."""

    async def open_holds(self, tenant: str, person: str, *, fresh: bool = False) -> tuple[Hold, ...]: ...
    async def covers_account(self, target: str, account_id: str, *, fresh: bool = False) -> tuple[Hold, ...]: ...


class ClosingMarks(Protocol):
    """Which closing of a leaver the lockdown lane began last (D33): provisioning opens nothing on a look that is older than that."""

    async def begun(self, tenant: str, person: str) -> str:
        """The id of the order whose closing began last, as current as the last fresh look at the Holds; "" where there was none."""


class ClosingBook(ClosingMarks, Protocol):
    """The lockdown lane's own pen."""

    async def is_unfinished(self, tenant: str, person: str) -> bool:
        """Begun, and not ended: a crash or a failed call stands between, so the sessions may be open."""

    async def begin(self, tenant: str, person: str, order: str) -> None:
        """Durable before the first call of a closing."""

    async def end(self, tenant: str, person: str) -> None:
        """Nothing is left to call for."""


class LinkBook(Protocol):
    """Links as the provision lane wrote them (D21)."""

    async def find(self, tenant: str, person: str, target: str) -> Link | None: ...
    async def owner(self, target: str, account_id: str) -> Link | None: ...
    async def make(self, link: Link) -> None: ...


class Fence(Protocol):
    """Raises Fenced where this worker no longer owns the person's partition or its heartbeat is too old (D12)."""

    def check(self, tenant: str, person: str) -> None: ...


#: The fence of the call that is being made, for the client to ask right before the bytes go out: a call may wait at the gate, and a
#: process that was stopped meanwhile must not send it when it wakes (34). Whoever performs a call sets it around `Target.apply`.
last_word: ContextVar[Callable[[], None] | None] = ContextVar("last_word", default=None)


class RemovalBrake(Protocol):
    """Counts durable intents to remove, over all workers (D19). `allow` raises UnsafePlan(code="brake") when the limit is reached."""

    async def allow(self, plan: Plan, people: int) -> None: ...


class Directory(Protocol):
    """Okta as the source of truth."""

    async def person(self, tenant: str, person_id: str, lane: Lane) -> Person:
        """Status ABSENT where Okta answers 404. Raises Temporary/PermanentError."""

    async def find_active(self, tenant: str, id_or_login: str, lane: Lane) -> Person | None:
        """Exactly one ACTIVE user with that id or login (D22), else None."""

    async def members(self, tenant: str, group_id: str, lane: Lane) -> tuple[str, ...]: ...


class Ending(StrEnum):
    """What became of one look at one person at one target; stream/step.py acts on it."""

    CONVERGED = "converged"
    RETRY = "retry"
    PARKED = "parked"
    REFUSED = "refused"
    HELD = "held"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`delay` only with RETRY (None: the policy decides). `pending` seconds until something is due again although all is well
    (a transfer after its hold period)."""

    ending: Ending
    target: str
    reason: str = ""
    code: str = ""
    delay: float | None = None
    pending: float | None = None
    plan: Plan | None = None
    actions: tuple[Action, ...] = ()
