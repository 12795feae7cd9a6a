"""The Box simulator: wiring, credentials, the rate limit, who acts, and seeding for scenarios.

Users and groups are run by the service account (a co-admin's rights) or a co-admin acted for; folders are reached only by who owns
them or holds a grant, the service account included: an enterprise's admin rights open no folder, as at Box.
Not simulated: files, shared links, web links, Shield, Governance, device pins, `provenance`'s lock (it binds the web app only).
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from aiohttp import web

from simulators.base import Clock, RateWindow, Simulator, Tokens, bearer, iso
from simulators.box import wire
from simulators.box.collaborations import CollaborationRoom
from simulators.box.events import EventRoom
from simulators.box.folders import FolderRoom
from simulators.box.groups import GroupRoom
from simulators.box.oauth import OAuthRoom
from simulators.box.room import ACTOR
from simulators.box.store import Store
from simulators.box.things import Collaboration, Folder, Group, Role, User
from simulators.box.transfer import TransferRoom
from simulators.box.users import UserRoom


class BoxSimulator(Simulator):
    """Base URL `{url}/2.0`, tokens at `{url}/oauth2/token`.

    Knobs: `transfer_s` (a content transfer's length) and `transfer_answer_s` (Box answers after 10 minutes although it goes on);
    `job_delay_s` (from `terminate_sessions` to its effect); `retention` (forced deletion is refused); `expiry_allowed` (the enterprise
    lets collaborations expire); `tracking_codes` (names that the Admin Console knows).
    """

    name = "box"
    unlisted = ("/oauth2/*",)

    def __init__(
        self,
        *,
        client_id: str = "box-client",
        client_secret: str = "box-secret",
        enterprise_id: str = "900001",
        clock: Clock = time.time,
        latency_s: float = 0.0,
        rate_per_minute: int = 1000,
        token_life_s: float = 3600.0,
    ) -> None:
        super().__init__(clock=clock, latency_s=latency_s)
        self.client_id, self.client_secret = client_id, client_secret
        self.store = Store(clock, enterprise_id)
        self.tokens = Tokens(clock, token_life_s)
        self.rate = RateWindow(clock, rate_per_minute)
        self.transfer_s, self.transfer_answer_s = 0.0, 600.0
        self.job_delay_s = 0.0
        self.retention = False
        self.expiry_allowed = False
        self.tracking_codes = {"department", "title", "cost_center", "location", "manager"}
        self.app.on_response_prepare.append(_number)
        rooms = (UserRoom, GroupRoom, FolderRoom, CollaborationRoom, TransferRoom, EventRoom, OAuthRoom)
        self.rooms = [room(self) for room in rooms]
        for one in self.rooms:
            self.app.router.add_routes(one.routes())

    # -- Simulator's hooks --------------------------------------------------------------------------------------------

    def error_for(self, request: web.Request, status: int) -> web.Response:
        headers = {"retry-after": "100"} if status == 429 else None
        return wire.error(status, headers=headers)

    async def admit(self, request: web.Request) -> web.Response | None:
        """Token, rate, and for whom (`as-user`)."""
        self.settle()
        if not request.path.startswith("/2.0/"):
            return None
        subject = self.tokens.subject(bearer(request))
        if subject is None:
            told = 'Bearer realm="Service", error="invalid_token", error_description="The access token provided is invalid."'
            return wire.error(401, headers={"WWW-Authenticate": told})
        rate = self.rate.take(subject)
        if not rate.allowed:
            return wire.error(429, headers={"retry-after": str(rate.retry_after)})
        actor = self._actor(request.headers.get("as-user"))
        if actor is None:
            return wire.error(403)
        request[ACTOR] = actor
        return None

    def _actor(self, as_user: str | None) -> User | None:
        """Who acts. Another co-admin, the admin, an inactive or a foreign user cannot be acted for."""
        if as_user is None or as_user == self.store.service.id:
            return self.store.service
        user = self.store.users.get(as_user)
        return None if user is None or user.privileged or user.external or user.status == "inactive" else user

    def settle(self) -> None:
        """What time has brought: expired grants, ended jobs."""
        self.store.expire()
        for one in self.rooms:
            one.settle()

    async def stop(self) -> None:
        await super().stop()
        for one in self.rooms:
            await one.close()

    def state(self) -> dict[str, Any]:
        self.settle()
        store = self.store
        return {
            "users": {user.id: store.shown(user) | {"is_external": user.external} for user in store.users.values()},
            "groups": {group.id: group.full() for group in store.groups.values()},
            "group_memberships": {one.id: one.shown() for one in store.memberships.values()},
            "folders": {folder.id: self._folder_state(folder) for folder in store.folders.values()},
            "collaborations": {grant.id: grant.shown(truth=True) for grant in store.collaborations.values()},
            "sessions": {user.id: _sessions(user) for user in store.users.values()},
            "email_aliases": {user.id: user.aliases for user in store.users.values() if user.aliases},
            "transfers": {entry["folder"]: entry for entry in store.transfers},
        }

    def _folder_state(self, folder: Folder) -> dict[str, Any]:
        parent = folder.parent.mini() if folder.parent else None
        return folder.mini() | {"owned_by": folder.owner.mini(), "parent": parent, "is_hidden": folder.owner.status == "inactive"}

    # -- seeding, by id, for scenarios and tests ----------------------------------------------------------------------

    def add_user(
        self, login: str, name: str = "", *, role: Role = "user", status: str = "active", external: bool = False, **values: Any
    ) -> str:
        """A person who was there before; returns the id. `values`: other fields of Box's user (job_title, space_amount, …)."""
        return self.store.add_user(login, name, role=role, status=status, external=external, **values).id

    def add_foreign_login(self, login: str) -> None:
        """An address that another enterprise owns: no lookup finds it, creating it is refused."""
        self.store.foreign_logins.add(login.lower())

    def add_group(self, name: str, *, members: tuple[str, ...] = (), **values: Any) -> str:
        return self.store.add_group(name, members=[self.store.users[user] for user in members], **values).id

    def add_membership(self, user: str, group: str, role: str = "member") -> str:
        return self.store.add_membership(self.store.users[user], self.store.groups[group], role).id

    def add_folder(self, name: str, *, owner: str | None = None, parent: str | None = None) -> str:
        """Within `parent`, else in `owner`'s root (the service account's where none is given)."""
        store = self.store
        above = store.folders[parent] if parent else None
        return store.add_folder(name, owner=store.users[owner] if owner else None, parent=above).id

    def add_collaboration(
        self, folder: str, *, user: str | None = None, group: str | None = None, login: str | None = None, role: str = "editor"
    ) -> str:
        """Exactly one of `user`, `group` (accepted) and `login` (an invitation, pending)."""
        assert [user, group, login].count(None) == 2
        grantee: User | Group | None = self.store.users[user] if user else self.store.groups[group] if group else None
        return self.store.add_collaboration(self.store.folders[folder], grantee, role, login=login).id

    def add_email_alias(self, user: str, email: str, *, confirmed: bool = True) -> str:
        alias = {"type": "email_alias", "id": self.store.new_id("alias"), "email": email, "is_confirmed": confirmed}
        self.store.users[user].aliases.append(alias)
        return str(alias["id"])

    def set_user(self, user: str, **values: Any) -> None:
        """A human changes somebody in the Admin Console (drift, for instance)."""
        self.store.update_user(self.store.users[user], values)

    def confirm_user(self, user: str) -> None:
        """The person has answered the welcome mail."""
        self.store.users[user].confirmed = True

    def accept(self, collaboration: str) -> Collaboration:
        """The invited person accepts."""
        grant = self.store.collaborations[collaboration]
        if grant.grantee is None:
            assert grant.invite_email is not None
            grantee = self.store.find_user(grant.invite_email) or self.store.add_user(grant.invite_email, external=True)
            self.store.bind(grant, grantee)
        grant.status = "accepted"
        return grant

    def find_user(self, login: str) -> dict[str, Any] | None:
        """The user with exactly this login (case does not count), as `state` shows it."""
        user = self.store.find_user(login)
        return None if user is None else self.store.shown(user)


def _sessions(user: User) -> dict[str, Any]:
    return {"live": user.live, "ended": user.ended, "at": None if user.ended_at is None else iso(user.ended_at)}


async def _number(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer carries an id that Box's support could trace."""
    response.headers.setdefault("box-request-id", secrets.token_hex(8))
