"""Okta as the source of truth (contract.Directory): who somebody is now, for every tenant.

An answer about another id than the one asked for is refused: Okta answers to logins, short names and `me` as well. A status that
we do not know reads as UNKNOWN and opens nothing. The lockdown lane reads no groups: containment asks who somebody is, not what they
hold, and must not wait for a second answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from handlers.contract import Lane
from handlers.okta.api import OktaApi, checked_id
from model.errors import PermanentError, Refused
from model.event import is_safe_id, parse_time
from model.person import Person, PersonStatus


class OktaDirectory:
    """`apis` maps a tenant to its API on each lane. `clients` maps a tenant to the OAuth client id it acts as, if it does."""

    def __init__(self, apis: Mapping[str, Mapping[Lane, OktaApi]], clients: Mapping[str, str] | None = None) -> None:
        self._apis, self._clients = apis, dict(clients or {})

    async def person(self, tenant: str, person_id: str, lane: Lane) -> Person:
        """Status ABSENT where Okta says 404. `groups` is read on the provision lane only, and not of the deprovisioned."""
        api = self._api(tenant, lane)
        try:
            user = checked_id(await api.user(person_id), person_id)
            groups = await self._groups(api, user, lane)
        except Refused as error:
            if error.code == "not_found":
                return Person(tenant=tenant, id=person_id, status=PersonStatus.ABSENT)
            raise
        return to_person(tenant, user, groups)

    async def find_active(self, tenant: str, id_or_login: str, lane: Lane) -> Person | None:
        """The one ACTIVE user whose id or full login this is, without groups; short names do not count (D22)."""
        api = self._api(tenant, lane)
        try:
            user = (await api.user_by_login(id_or_login)).object()
        except PermanentError as error:
            if error.code in ("not_found", "unsafe_id"):  # a crafted manager is nobody; it must not hold up the leaver
                return None
            raise
        found = to_person(tenant, user, ())
        is_asked = found.id == id_or_login or found.login.lower() == id_or_login.lower()
        return found if is_asked and is_safe_id(found.id) and found.status is PersonStatus.ACTIVE else None

    async def members(self, tenant: str, group_id: str, lane: Lane) -> tuple[str, ...]:
        """Ids of a group's members; nothing is returned of a listing whose chain of pages did not end."""
        api = self._api(tenant, lane)
        return tuple([user["id"] async for user in api.group_members(group_id) if is_safe_id(user.get("id"))])

    async def everyone(self, tenant: str, lane: Lane) -> tuple[Person, ...]:
        """Every user but the deprovisioned, without groups; nothing of a listing whose chain of pages did not end."""
        api = self._api(tenant, lane)
        return tuple([to_person(tenant, user, ()) async for user in api.users() if is_safe_id(user.get("id"))])

    async def statuses(self, tenant: str, lane: Lane) -> dict[str, PersonStatus]:
        """Id → status of every user but the deprovisioned; nothing of a listing whose chain of pages did not end."""
        api = self._api(tenant, lane)
        return {user["id"]: read_status(user) async for user in api.users() if is_safe_id(user.get("id"))}

    async def own_actor(self, tenant: str, lane: Lane) -> str:
        """Who our own calls are in the log (D5): the client id of a service app, else the owner of the token."""
        if client_id := self._clients.get(tenant):
            return client_id
        return to_person(tenant, (await self._api(tenant, lane).me()).object(), ()).id

    async def aclose(self) -> None:
        await asyncio.gather(*(api.aclose() for lanes in self._apis.values() for api in lanes.values()))

    async def _groups(self, api: OktaApi, user: dict[str, Any], lane: Lane) -> tuple[tuple[str, str], ...]:
        if lane == "lockdown" or read_status(user) is PersonStatus.DEPROVISIONED:
            return ()
        pairs = [(group.get("id"), _object(group.get("profile")).get("name")) for group in await api.user_groups(user["id"])]
        return tuple(sorted((key, name) for key, name in pairs if isinstance(key, str) and isinstance(name, str)))

    def _api(self, tenant: str, lane: Lane) -> OktaApi:
        try:
            return self._apis[tenant][lane]
        except KeyError:
            raise PermanentError(f"no Okta tenant named {tenant}: add [okta.{tenant}] to the configuration", "unknown_tenant") from None


def read_status(user: Mapping[str, Any]) -> PersonStatus:
    """Okta's status; DEPROVISIONED from the moment it is ordered (`transitioningToStatus`), since nothing calls it back."""
    if user.get("transitioningToStatus") == PersonStatus.DEPROVISIONED:
        return PersonStatus.DEPROVISIONED
    status = user.get("status")
    if not isinstance(status, str) or status not in PersonStatus.__members__ or status == PersonStatus.ABSENT:
        return PersonStatus.UNKNOWN
    return PersonStatus(status)


def to_person(tenant: str, user: Mapping[str, Any], groups: tuple[tuple[str, str], ...]) -> Person:
    profile = _object(user.get("profile"))
    return Person(
        tenant=tenant,
        id=_text(user.get("id")),
        status=read_status(user),
        login=_text(profile.get("login")),
        email=_text(profile.get("email")),
        first_name=_text(profile.get("firstName")),
        last_name=_text(profile.get("lastName")),
        department=_text(profile.get("department")),
        title=_text(profile.get("title")),
        user_type=_text(profile.get("userType")),
        manager_id=_text(profile.get("managerId")),
        last_updated=parse_time(user.get("lastUpdated")),
        status_changed=parse_time(user.get("statusChanged")),
        groups=groups,
        profile=profile,
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
