"""Box in our words: observe an account, plan its closing, restoring and changes, apply one change.

The lockdown lane makes one GET and reads no grants: closing needs none. The provision lane reads memberships and, since Box cannot
list what one person collaborates on, the collaborations of each folder that policy names. A link is followed by id and never by
login: a login that changed hands does not move the link (D21).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from handlers.box import diff
from handlers.box.api import BoxApi
from handlers.box.apply import BoxCalls, find_exact, owns_content
from handlers.box.names import Folders, Groups
from handlers.contract import Applied, Capability, Clock, Lane, Observation
from handlers.single_flight import SingleFlight
from model.change import Change
from model.decision import Scope
from model.errors import PermanentError, Refused
from model.person import Account, Desired, Grant, Link, Person


class BoxTarget:
    """One Box enterprise. `folders` are the folders that policy names: a name in the service account's root, or `id:123`."""

    kind = "box"
    capabilities = frozenset(diff.PERMISSIONS)
    permissions: Mapping[Capability, str] = diff.PERMISSIONS

    def __init__(self, name: str, apis: Mapping[Lane, BoxApi], clock: Clock, folders: tuple[str, ...] = ()) -> None:
        self.name, self._apis = name, apis
        self._folders = Folders(name, folders, apis, clock)
        self._calls = BoxCalls(name, apis, self._folders, Groups(name, apis))
        #: Folder's id → its collaborations, by the id of the user who holds them: whoever is looked at needs the same listing.
        self._held: dict[str, SingleFlight[dict[str, list[dict[str, Any]]]]] = {}

    async def aclose(self) -> None:
        for api in self._apis.values():
            await api.aclose()

    async def observe(self, person: Person, link: Link | None, lane: Lane) -> Observation:
        if link is not None:
            account = await self.look(link.account, lane)
            return Observation(account, linked=True)
        login = diff.canonical_login(person)
        found = await find_exact(self._apis[lane], login) if login else []
        if len(found) != 1:
            return Observation(account=None, candidates=tuple(str(user["id"]) for user in found))
        return Observation(await self._account(found[0], lane))

    async def look(self, account_id: str, lane: Lane) -> Account | None:
        """One GET; on the provision lane the grants as well, so that what is planned from it is planned from the truth."""
        try:
            answer = await self._apis[lane].user(account_id)
        except Refused as error:
            if error.code == "not_found":
                return None
            raise
        user = answer.object()
        if user.get("id") != account_id:
            raise PermanentError(f"{answer.what} answered about somebody else", "id_mismatch")
        return await self._account(user, lane)

    async def accounts(self, lane: Lane) -> tuple[tuple[str, str], ...]:
        """(id, login) of every managed user; complete, or an error."""
        return tuple((str(user["id"]), str(user.get("login") or "")) for user in await self._apis[lane].users_beginning_with(""))

    def closing(self, account: Account, scope: Scope) -> tuple[Change, ...]:
        return diff.closing(self.name, account) if scope is Scope.FULL else (diff.end_sessions(self.name, account),)

    def restoring(self, account: Account, saved: dict[str, Any]) -> tuple[Change, ...]:
        """The very status from before (it may have been `cannot_delete_edit`), unless somebody changed it since."""
        before = saved.get("status")
        if account.status != "inactive" or not isinstance(before, str) or before == "inactive":
            return ()
        return (diff.activate(self.name, account, before),)

    def saved(self, account: Account) -> dict[str, Any]:
        return {"status": account.status}

    def changes(self, desired: Desired, observed: Account | None, person: Person) -> tuple[Change, ...]:
        return diff.changes(self.name, desired, observed, person)

    async def apply(self, change: Change, intent: str, lane: Lane) -> Applied:
        return await self._calls.apply(change, intent, lane)

    async def _account(self, user: dict[str, Any], lane: Lane) -> Account:
        status = str(user.get("status", ""))
        attributes = {name: user[name] for name in diff.ATTRIBUTES if name in user}
        grants: tuple[Grant, ...] = ()
        if lane == "provision":
            groups, folders, owns = await asyncio.gather(
                self._groups_of(str(user["id"])), self._folders_of(str(user["id"])), self._owns(user, status)
            )
            grants = groups + folders
            attributes |= owns
        return Account(
            target=self.name,
            id=str(user["id"]),
            login=str(user.get("login", "")),
            active=status != "inactive",
            status=status,
            privileged=user.get("role") in ("admin", "coadmin"),
            attributes=attributes,
            grants=grants,
        )

    async def _owns(self, user: dict[str, Any], status: str) -> dict[str, bool]:
        """Asked of inactive accounts only: theirs is what may have to be handed over."""
        return {"owns_content": await owns_content(self._apis["provision"], user)} if status == "inactive" else {}

    async def _groups_of(self, user_id: str) -> tuple[Grant, ...]:
        return tuple(
            Grant(
                kind="group",
                name=str(group.get("name", "")),
                id=str(group.get("id", "")),
                level=str(one.get("role", "")),
                key=str(one["id"]),
            )
            for one in await self._apis["provision"].memberships(user_id)
            if isinstance(group := one.get("group"), dict)
        )

    async def _folders_of(self, user_id: str) -> tuple[Grant, ...]:
        known = await self._folders.known("provision")
        found = await asyncio.gather(*(self._collaborations(name, folder_id, user_id) for name, folder_id in known))
        return tuple(grant for grants in found for grant in grants)

    async def _collaborations(self, name: str, folder_id: str, user_id: str) -> list[Grant]:
        if folder_id not in self._held:
            self._held[folder_id] = SingleFlight(partial(self._list_holders, folder_id))
        try:
            held = await self._held[folder_id]()
        except Refused as error:
            if error.code != "not_found":
                raise
            self._folders.forget()
            return []
        return [
            Grant(kind="folder", name=name, id=folder_id, level=str(one.get("role", "")), key=str(one["id"]))
            for one in held.get(user_id, ())
        ]

    async def _list_holders(self, folder_id: str) -> dict[str, list[dict[str, Any]]]:
        held: dict[str, list[dict[str, Any]]] = {}
        for one in await self._apis["provision"].collaborations(folder_id):
            if isinstance(grantee := one.get("accessible_by"), dict) and grantee.get("type") == "user":
                held.setdefault(str(grantee.get("id")), []).append(one)
        return held
