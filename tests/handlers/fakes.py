"""Strict stand-ins for what the engine meets: a target with real state and scripted faults, and ports that check their own rules.

A fake fails the test when the engine breaks a promise: a call without a durable intent, an intent used twice, a call for an account
that is not there, an answer to a row that was never intended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from handlers.contract import Applied, Capability, Lane, Observation
from model.change import OPENING, Action, ActionStatus, Change, ChangeKind, Plan
from model.decision import Scope
from model.errors import (
    Ambiguous,
    CredentialsRefused,
    Fenced,
    OutcomeUnknown,
    PermanentError,
    PortcullisError,
    RateLimited,
    Refused,
    TemporaryError,
    UnsafePlan,
)
from model.person import Account, Desired, Grant, Hold, Link, Person, PersonStatus

TENANT = "acme"
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class Killed(BaseException):
    """kill -9: nothing of ours runs any more, so no row is answered."""


#: What may become of a call: without effect, or with effect but without a good answer.
Fault = Literal[
    "503", "503_after", "timeout_before", "timeout_after", "429", "403", "401", "crash_before", "crash_after", "kill_before", "kill_after"
]


def person(id: str = "00u1", **facts: Any) -> Person:
    base: dict[str, Any] = {
        "tenant": TENANT,
        "id": id,
        "status": PersonStatus.ACTIVE,
        "login": f"{id}@acme.test",
        "email": f"{id}@acme.test",
        "department": "Sales",
        "last_updated": NOON,
        "status_changed": NOON,
    }
    return Person(**(base | facts))


@dataclass
class State:
    """One account at the fake target."""

    login: str
    active: bool = True
    privileged: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    grants: dict[tuple[str, str], str] = field(default_factory=dict)
    content: int = 0
    sessions: int = 1


@dataclass(frozen=True)
class Effect:
    """One call that reached the target. `changed`: its state was not so before."""

    intent: str
    lane: str
    change: Change
    changed: bool


class FakeTarget:
    """A target with accounts, groups, folders and content. `faults` are taken by mutating calls, `look_faults` by looks, in order."""

    capabilities = frozenset(Capability)

    def __init__(self, name: str, journal: FakeJournal, kind: str = "box") -> None:
        self.name = name
        self.kind = kind
        self.journal = journal
        self.accounts: dict[str, State] = {}
        self.effects: list[Effect] = []
        self.faults: deque[Fault | None] = deque()
        self.look_faults: deque[PermanentError | TemporaryError] = deque()
        self.looks = 0
        self.delay = 0
        self.look_hangs = False
        self.refuses: dict[str, str] = {}
        self.on_call: Callable[[Change], None] = lambda change: None
        self.lag: deque[dict[str, State]] = deque()
        self._next = 100

    def add(self, login: str, id: str = "", **facts: Any) -> str:
        self._next += 1
        id = id or str(self._next)
        self.accounts[id] = State(login, **facts)
        return id

    # --- looking --------------------------------------------------------------------------------------------------

    async def observe(self, person: Person, link: Link | None, lane: Lane) -> Observation:
        if link is not None:
            assert link.account, "a link without an account reached the target"
            return Observation(await self.look(link.account, lane), linked=True)
        await self._looked()
        found = [id for id, state in self.accounts.items() if state.login.lower() == person.login.lower()]
        if len(found) != 1:
            return Observation(None, tuple(found))
        return Observation(self._account(found[0]))

    async def look(self, account_id: str, lane: Lane) -> Account | None:
        await self._looked()
        return self._account(account_id) if account_id in self.accounts else None

    async def _looked(self) -> None:
        self.looks += 1
        await asyncio.sleep(0)
        if self.look_hangs:
            await asyncio.Event().wait()
        if self.look_faults:
            raise self.look_faults.popleft()

    def _account(self, id: str) -> Account:
        state = self.accounts[id]
        return Account(
            target=self.name,
            id=id,
            login=state.login,
            active=state.active,
            status="active" if state.active else "inactive",
            privileged=state.privileged,
            attributes=dict(state.attributes) | {"content": state.content},
            grants=tuple(Grant(kind=kind, name=name, level=level) for (kind, name), level in state.grants.items()),
        )

    # --- planning -------------------------------------------------------------------------------------------------

    def closing(self, account: Account, scope: Scope) -> tuple[Change, ...]:
        off = self._change(ChangeKind.DEACTIVATE, account.id, account.login)
        end = self._change(ChangeKind.END_SESSIONS, account.id, "sessions")
        return (off, end) if scope is Scope.FULL else (end,)

    def saved(self, account: Account) -> dict[str, Any]:
        return {"status": account.status}

    def restoring(self, account: Account, saved: dict[str, Any]) -> tuple[Change, ...]:
        if saved.get("status") != "active" or account.active:
            return ()
        return (self._change(ChangeKind.ACTIVATE, account.id, account.login),)

    def changes(self, desired: Desired, observed: Account | None, person: Person) -> tuple[Change, ...]:
        if observed is None:
            if not desired.active:
                return ()
            create = self._change(ChangeKind.CREATE, "", person.login, args={"login": person.login, "attributes": desired.attributes})
            return (*(self._grant("", one) for one in reversed(desired.grants)), create)
        found: list[Change] = []
        if desired.active is not None and desired.active != observed.active:
            found.extend(
                [self._change(ChangeKind.ACTIVATE, observed.id, observed.login)] if desired.active else self.closing(observed, Scope.FULL)
            )
        moved = {name: value for name, value in desired.attributes.items() if observed.attributes.get(name) != value}
        if moved:
            found.append(self._change(ChangeKind.UPDATE, observed.id, ", ".join(sorted(moved)), args=moved, after=moved))
        held = {(one.kind, one.name): one.level for one in observed.grants}
        wanted = {(one.kind, one.name): one for one in desired.grants}
        found.extend(self._grant(observed.id, one) for key, one in wanted.items() if held.get(key) != one.level)
        found.extend(
            self._change(ChangeKind.REVOKE, observed.id, f"{kind} {name}", args={"kind": kind, "name": name})
            for kind, name in held
            if (kind, name) in desired.managed and (kind, name) not in wanted
        )
        if desired.transfer_to and observed.attributes["content"]:
            found.append(self._change(ChangeKind.TRANSFER, observed.id, "content", args={"to": desired.transfer_to}))
        return tuple(reversed(found))

    def _grant(self, account: str, grant: Grant) -> Change:
        args = {"kind": grant.kind, "name": grant.name, "level": grant.level}
        return self._change(ChangeKind.GRANT, account, f"{grant.kind} {grant.name}", args=args, after={"level": grant.level})

    def _change(self, kind: ChangeKind, account: str, subject: str, **more: Any) -> Change:
        return Change(kind=kind, target=self.name, account=account, subject=subject, **more)

    # --- calls ----------------------------------------------------------------------------------------------------

    async def apply(self, change: Change, intent: str, lane: Lane) -> Applied:
        row = self.journal.rows.get(intent)
        assert row is not None, "a call without an intent"
        assert row.status is ActionStatus.INTENDED, "a call whose intent was answered"
        assert row.change == change.label
        assert all(one.intent != intent for one in self.effects), "one intent, two calls"
        assert change.kind is ChangeKind.CREATE or change.account in self.accounts, f"{change.label} for an account that is not there"
        for _ in range(self.delay):
            await asyncio.sleep(0)
        if code := self.refuses.get(change.label, self.refuses.get(change.kind.value)):
            raise Refused(f"{self.name} refuses {change.label}", code)
        self.on_call(change)
        fault = self.faults.popleft() if self.faults else None
        match fault:
            case "503":
                raise TemporaryError("503")
            case "429":
                raise RateLimited("429", delay=7.0)
            case "403":
                raise Refused("403", "forbidden")
            case "401":
                raise CredentialsRefused("401")
            case "timeout_before":
                raise OutcomeUnknown("no answer")
            case "crash_before":
                raise asyncio.CancelledError
            case "kill_before":
                raise Killed
        applied = self._effect(change, intent, lane)
        match fault:
            case "503_after":
                raise TemporaryError("503")
            case "timeout_after":
                raise OutcomeUnknown("no answer")
            case "crash_after":
                raise asyncio.CancelledError
            case "kill_after":
                raise Killed
        return applied

    def _effect(self, change: Change, intent: str, lane: Lane) -> Applied:
        before = repr(self.accounts)
        account = change.account
        if change.kind is ChangeKind.CREATE:
            taken = [id for id, state in self.accounts.items() if state.login == change.args["login"]]
            if taken and not change.args.get("adopt"):
                raise Ambiguous("the login is taken", "account_exists")
            account = taken[0] if taken else self.add(change.args["login"], attributes=dict(change.args["attributes"]))
        else:
            self._change_state(self.accounts[account], change)
        changed = repr(self.accounts) != before
        self.effects.append(Effect(intent, lane, change, changed))
        return Applied(
            account=account, already=not changed and change.kind is not ChangeKind.END_SESSIONS, request_id=f"r{len(self.effects)}"
        )

    def _change_state(self, state: State, change: Change) -> None:
        match change.kind:
            case ChangeKind.DEACTIVATE:
                state.active = False
            case ChangeKind.ACTIVATE:
                state.active = True
            case ChangeKind.END_SESSIONS:
                state.sessions = 0
            case ChangeKind.UPDATE:
                state.attributes.update(change.args)
            case ChangeKind.GRANT:
                state.grants[change.args["kind"], change.args["name"]] = change.args["level"]
            case ChangeKind.REVOKE:
                state.grants.pop((change.args["kind"], change.args["name"]), None)
            case ChangeKind.TRANSFER:
                heir = self.accounts[change.args["to"]]
                heir.content, state.content = heir.content + state.content, 0
            case _:
                raise AssertionError(change.kind)

    def labels(self) -> list[str]:
        return [one.change.label for one in self.effects]

    def openings(self) -> list[Effect]:
        return [one for one in self.effects if one.change.kind in OPENING]


class FakeJournal:
    """`rows` is what the audit trail would show; `history` every status in order."""

    def __init__(self) -> None:
        self.rows: dict[str, Action] = {}
        self.history: list[tuple[str, ActionStatus]] = []
        self.on_intended: Callable[[], None] = lambda: None

    async def intended(self, action: Action) -> None:
        await asyncio.sleep(0)
        assert action.status is ActionStatus.INTENDED
        assert action.intent not in self.rows, "an intent used twice"
        self.rows[action.intent] = action
        self.history.append((action.intent, action.status))
        self.on_intended()

    async def answered(self, action: Action) -> None:
        await asyncio.sleep(0)
        if action.status is ActionStatus.PLANNED:
            assert action.intent not in self.rows
        else:
            assert action.intent in self.rows, "an answer to a row that nobody intended"
            assert action.status is not ActionStatus.INTENDED
        self.rows[action.intent] = action
        self.history.append((action.intent, action.status))

    def open(self) -> list[Action]:
        return [row for row in self.rows.values() if row.status is ActionStatus.INTENDED]

    def statuses(self) -> dict[str, str]:
        return {row.change: row.status.value for row in self.rows.values()}


class FakeHolds:
    """HoldBook and HoldWriter on one dictionary. `appear_after` opens a Hold after that many fresh reads; `dead`: the follower is."""

    def __init__(self) -> None:
        self.holds: dict[str, Hold] = {}
        self.written: list[Hold] = []
        self.reads = 0
        self.appear_after: dict[int, Hold] = {}
        self.dead = False

    async def open_holds(self, tenant: str, person: str, *, fresh: bool = False) -> tuple[Hold, ...]:
        await self._read(fresh)
        return tuple(one for one in self.holds.values() if one.is_open and (one.tenant, one.person) == (tenant, person))

    async def covers_account(self, target: str, account_id: str, *, fresh: bool = False) -> tuple[Hold, ...]:
        await self._read(fresh)
        return tuple(one for one in self.holds.values() if one.is_open and (target, account_id) in one.accounts)

    async def _read(self, fresh: bool) -> None:
        assert fresh, "a Hold was looked up in a follower that may lag"
        await asyncio.sleep(0)
        if self.dead:
            raise TemporaryError("the follower of the Holds is dead")
        self.reads += 1
        for at in [at for at in self.appear_after if at <= self.reads]:
            hold = self.appear_after.pop(at)
            self.holds[hold.id] = hold

    async def write(self, hold: Hold) -> None:
        await asyncio.sleep(0)
        self.holds[hold.id] = hold
        self.written.append(hold)


class FakeLinks:
    def __init__(self) -> None:
        self.links: dict[tuple[str, str, str], Link] = {}

    async def find(self, tenant: str, person: str, target: str) -> Link | None:
        return self.links.get((tenant, person, target))

    async def owner(self, target: str, account_id: str) -> Link | None:
        return next((one for one in self.links.values() if account_id and (one.target, one.account) == (target, account_id)), None)

    async def make(self, link: Link) -> None:
        await asyncio.sleep(0)
        self.links[link.tenant, link.person, link.target] = link

    def link(self, person: str, account: str, target: str = "box", tenant: str = TENANT) -> None:
        self.links[tenant, person, target] = Link(
            tenant=tenant, person=person, target=target, account=account, login=f"{person}@acme.test", made_by="link:test", at=NOON
        )


class FakeFence:
    """Lost after `left` more checks (None: never)."""

    def __init__(self) -> None:
        self.left: int | None = None

    def check(self, tenant: str, person: str) -> None:
        if self.left is None:
            return
        if self.left <= 0:
            raise Fenced("another generation owns this partition")
        self.left -= 1


class FakeBrake:
    def __init__(self) -> None:
        self.tripped = False
        self.asked: list[Plan] = []

    async def allow(self, plan: Plan, people: int) -> None:
        assert people == 1
        self.asked.append(plan)
        if self.tripped:
            raise UnsafePlan("25 removals within an hour", "brake")


class FakeDirectory:
    """Okta. Whoever is not there is ABSENT. `faults` are raised by reads, in order."""

    def __init__(self, *people: Person) -> None:
        self.people = {(one.tenant, one.id): one for one in people}
        self.faults: deque[PortcullisError] = deque()
        self.reads = 0

    def put(self, who: Person) -> None:
        self.people[who.tenant, who.id] = who

    def set(self, id: str, **facts: Any) -> None:
        self.put(self.people[TENANT, id].model_copy(update=facts))

    async def person(self, tenant: str, person_id: str, lane: Lane) -> Person:
        self.reads += 1
        await asyncio.sleep(0)
        if self.faults:
            raise self.faults.popleft()
        return self.people.get((tenant, person_id)) or Person(tenant=tenant, id=person_id, status=PersonStatus.ABSENT)

    async def find_active(self, tenant: str, id_or_login: str, lane: Lane) -> Person | None:
        found = [
            one
            for one in self.people.values()
            if one.tenant == tenant and id_or_login in (one.id, one.login) and one.status is PersonStatus.ACTIVE
        ]
        return found[0] if len(found) == 1 else None

    async def members(self, tenant: str, group_id: str, lane: Lane) -> tuple[str, ...]:
        raise AssertionError("the engine asks for no members")


def swap(thing: object, name: str, new: object) -> Any:
    """Puts `new` in a fake's place of `name`; returns what was there."""
    old = getattr(thing, name)
    setattr(thing, name, new)
    return old


def hold(id: str = "h1", person: str = "00u1", **facts: Any) -> Hold:
    return Hold.model_validate({"id": id, "tenant": TENANT, "person": person, "incident": f"i-{id}", "since": NOON} | facts)
