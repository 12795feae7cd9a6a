"""Okta as a target of lockdown: the account is the user itself, its id the Okta id.

Okta is the source of truth, so policy never changes anything here (`changes` is empty). Okta suspends only ACTIVE users (D16): a 400 is
answered by a look at the status. Every change of `closing` stands alone: sessions are ended whatever became of the suspension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.answers import Answer
from handlers.contract import Applied, Capability, Lane, Observation
from handlers.okta.api import OktaApi, checked_id
from handlers.okta.directory import read_status, to_person
from model.change import Change, ChangeKind
from model.decision import Scope
from model.errors import PermanentError, Refused, TemporaryError
from model.person import Account, Desired, Link, Person, PersonStatus

#: What each capability needs of the service app (besides an admin role that may manage the people concerned).
PERMISSIONS = {
    Capability.DEACTIVATE: "okta.users.manage",
    Capability.ACTIVATE: "okta.users.manage",
    Capability.END_SESSIONS: "okta.users.manage",
}
_NO_PERMISSION = "E0000006"
_CLOSED = frozenset({PersonStatus.SUSPENDED, PersonStatus.DEPROVISIONED, PersonStatus.ABSENT})


class OktaTarget:
    """One tenant. People of other tenants have no account here."""

    kind = "okta"
    capabilities = frozenset(PERMISSIONS)
    permissions: Mapping[Capability, str] = PERMISSIONS

    def __init__(self, name: str, tenant: str, apis: Mapping[Lane, OktaApi]) -> None:
        self.name, self.tenant, self._apis = name, tenant, apis

    async def aclose(self) -> None:
        for api in self._apis.values():
            await api.aclose()

    async def observe(self, person: Person, link: Link | None, lane: Lane) -> Observation:
        if person.tenant != self.tenant:
            return Observation(account=None)
        answer = await self._read(person.id, lane)
        if answer is None:
            return Observation(account=None)
        return Observation(account=self._account(answer, person.id), linked=True, request_id=answer.request_id)

    async def look(self, account_id: str, lane: Lane) -> Account | None:
        answer = await self._read(account_id, lane)
        return None if answer is None else self._account(answer, account_id)

    def closing(self, account: Account, scope: Scope) -> tuple[Change, ...]:
        sessions = Change(kind=ChangeKind.END_SESSIONS, target=self.name, account=account.id, subject="sessions and tokens")
        if scope is Scope.SESSIONS:
            return (sessions,)
        suspend = Change(
            kind=ChangeKind.DEACTIVATE,
            target=self.name,
            account=account.id,
            subject=account.login,
            before={"status": account.status},
            after={"status": PersonStatus.SUSPENDED.value},
        )
        return (suspend, sessions)

    def restoring(self, account: Account, saved: dict[str, Any]) -> tuple[Change, ...]:
        """Only what we suspended, and only while nobody else has moved it on."""
        if saved.get("status") != PersonStatus.ACTIVE or account.status != PersonStatus.SUSPENDED:
            return ()
        change = Change(
            kind=ChangeKind.ACTIVATE,
            target=self.name,
            account=account.id,
            subject=account.login,
            before={"status": account.status},
            after={"status": PersonStatus.ACTIVE.value},
        )
        return (change,)

    def saved(self, account: Account) -> dict[str, Any]:
        return {"status": account.status}

    def changes(self, desired: Desired, observed: Account | None, person: Person) -> tuple[Change, ...]:
        return ()

    async def apply(self, change: Change, intent: str, lane: Lane) -> Applied:
        api = self._apis[lane]
        try:
            if change.kind is ChangeKind.DEACTIVATE:
                return await self._suspend(api, change.account, intent)
            if change.kind is ChangeKind.ACTIVATE:
                return await self._unsuspend(api, change.account, intent)
            if change.kind is ChangeKind.END_SESSIONS:
                answer = await api.clear_sessions(change.account, intent)
                return Applied(account=change.account, request_id=answer.request_id)
        except Refused as error:
            if error.code == "not_found" and change.kind is not ChangeKind.ACTIVATE:
                return Applied(account=change.account, already=True, after={"status": PersonStatus.ABSENT.value})
            raise
        raise PermanentError(f"{self.name}: Okta is no target for {change.kind.value}", "not_supported")

    async def _suspend(self, api: OktaApi, user_id: str, intent: str) -> Applied:
        try:
            answer = await api.suspend(user_id, intent)
        except Refused as error:
            if error.code in ("not_found", _NO_PERMISSION):
                raise
            status = await self._status(api, user_id)
            if status in _CLOSED:
                return Applied(account=user_id, already=True, after={"status": status.value})
            raise TemporaryError(
                f"{self.name}: Okta refused to suspend ({error.code}), which it does for ACTIVE users only; now {status.value}"
            ) from None
        return Applied(account=user_id, after={"status": PersonStatus.SUSPENDED.value}, request_id=answer.request_id)

    async def _unsuspend(self, api: OktaApi, user_id: str, intent: str) -> Applied:
        try:
            answer = await api.unsuspend(user_id, intent)
        except Refused:
            status = await self._status(api, user_id)
            if status is PersonStatus.ACTIVE:
                return Applied(account=user_id, already=True, after={"status": status.value})
            raise
        return Applied(account=user_id, after={"status": PersonStatus.ACTIVE.value}, request_id=answer.request_id)

    async def _status(self, api: OktaApi, user_id: str) -> PersonStatus:
        return read_status(checked_id(await api.user(user_id), user_id))

    async def _read(self, user_id: str, lane: Lane) -> Answer | None:
        try:
            return await self._apis[lane].user(user_id)
        except Refused as error:
            if error.code == "not_found":
                return None
            raise

    def _account(self, answer: Answer, user_id: str) -> Account:
        person = to_person(self.tenant, checked_id(answer, user_id), ())
        return Account(
            target=self.name,
            id=person.id,
            login=person.login,
            active=person.status not in _CLOSED,
            status=person.status.value,
            attributes={"name": person.display_name},
        )
