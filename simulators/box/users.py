"""Users: find, create, change, delete, end their sessions, list their aliases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from simulators.base import json_response
from simulators.box import wire
from simulators.box.room import ACTOR, Room
from simulators.box.things import STATUSES, USER_MINI, USER_STANDARD, Json, User
from simulators.box.wire import Check, refuse

if TYPE_CHECKING:
    from simulators.box.server import BoxSimulator

_TRACKING: dict[str, Check] = {"type": wire.one_of("tracking_code"), "name": wire.text(1, 255), "value": wire.text(0, 255)}
_COMMON: dict[str, Check] = {
    "name": wire.text(1, 50),
    "login": wire.login,
    "role": wire.one_of("coadmin", "user"),
    "language": wire.text(2, 10),
    "is_sync_enabled": wire.flag,
    "job_title": wire.text(0, 100),
    "phone": wire.text(0, 100),
    "address": wire.text(0, 255),
    "space_amount": wire.whole(-1),
    "tracking_codes": wire.list_of(wire.nested(_TRACKING, ("name", "value"))),
    "can_see_managed_users": wire.flag,
    "timezone": wire.text(1, 64),
    "is_external_collab_restricted": wire.flag,
    "is_exempt_from_device_limits": wire.flag,
    "is_exempt_from_login_verification": wire.flag,
    "status": wire.one_of(*STATUSES),
    "external_app_user_id": wire.text(1, 255),
}
_CREATE = _COMMON | {"is_platform_access_only": wire.flag}
_UPDATE = _COMMON | {
    "enterprise": wire.is_null,
    "notify": wire.flag,
    "is_password_reset_required": wire.flag,
    "notification_email": wire.nested({"email": wire.login}, ("email",), null=True),
}
_ACCEPTED = "Request is successful, please check the admin events for the status of the job"


class UserRoom(Room):
    def __init__(self, box: BoxSimulator) -> None:
        super().__init__(box)
        #: Ends of sessions that are under way: (due, whose, by whom).
        self._jobs: list[tuple[float, User, User]] = []

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [
            web.get("/2.0/users", self.search),
            web.post("/2.0/users", self.create),
            web.post("/2.0/users/terminate_sessions", self.terminate_sessions),
            web.get("/2.0/users/me", self.me),
            web.get("/2.0/users/{user_id}", self.get),
            web.put("/2.0/users/{user_id}", self.update),
            web.delete("/2.0/users/{user_id}", self.delete),
            web.get("/2.0/users/{user_id}/email_aliases", self.email_aliases),
        ]

    # -- reading ------------------------------------------------------------------------------------------------------

    async def search(self, request: web.Request) -> web.Response:
        self.admin(request)
        known = ("filter_term", "user_type", "external_app_user_id", "fields", "offset", "limit", "usemarker", "marker")
        values = wire.query(request, *known)
        kind = values.get("user_type", "managed")
        if kind not in ("all", "managed", "external"):
            raise wire.invalid(("invalid_parameter", "user_type", f"Invalid value '{kind}'"))
        found = self._found(values.get("filter_term", ""), kind)
        if "external_app_user_id" in values:
            found = [
                user for user in found if user.platform_only and user.values.get("external_app_user_id") == values["external_app_user_id"]
            ]
        if wire.truth(values, "usemarker", False):
            return wire.by_marker(found, values, lambda user: self._shown(user, values))
        if "marker" in values:
            raise wire.invalid(("invalid_parameter", "marker", "A marker needs usemarker=true"))
        return wire.by_offset(found, values, lambda user: self._shown(user, values))

    def _found(self, term: str, kind: str) -> list[User]:
        """Prefix match on name or login among managed users; among others only the exact login."""
        managed = [user for user in self.store.users_with_prefix(term) if not user.external]
        exact = self.store.find_user(term)
        external = [exact] if exact is not None and exact.external else []
        return {"managed": managed, "external": external, "all": managed + external}[kind]

    def _shown(self, user: User, values: dict[str, str]) -> Json:
        full = self.store.shown(user)
        if user.external:
            full = {key: full[key] for key in ("type", "id", "name", "login", "created_at", "modified_at", "status", "avatar_url")}
        return wire.trim(full, values, USER_MINI, USER_STANDARD)

    async def me(self, request: web.Request) -> web.Response:
        return json_response(self._shown(request[ACTOR], wire.query(request, "fields")))

    async def get(self, request: web.Request) -> web.Response:
        values = wire.query(request, "fields")
        user = self.user(request.match_info["user_id"])
        if user is not request[ACTOR]:
            self.admin(request)
        return json_response(self._shown(user, values))

    async def email_aliases(self, request: web.Request) -> web.Response:
        self.admin(request)
        wire.query(request)
        aliases = self.user(request.match_info["user_id"]).aliases
        return json_response({"total_count": len(aliases), "entries": aliases})

    # -- writing ------------------------------------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.Response:
        actor, values = self.admin(request), wire.query(request, "fields")
        body = await wire.read_object(request, _CREATE, ("name",))
        if not body.get("is_platform_access_only") and "login" not in body:
            raise wire.invalid(("missing_parameter", "login", "'login' is required"))
        self._check_common(body)
        login = body.pop("login", f"AppUser_{self.store.enterprise}_{self.store.new_id('alias')}@boxdevedition.com")
        if self.store.login_taken(login):
            raise refuse(409, "user_login_already_used", "User with the specified login already exists")
        name, status = body.pop("name"), body.pop("status", "active")
        body.pop("role", None)
        user = self.store.add_user(login, name, status=status, confirmed="is_platform_access_only" in body, by=actor, **body)
        self.box.changed(request)
        return json_response(self._shown(user, values), 201)

    def _check_common(self, body: Json) -> None:
        """What depends on the enterprise: who may make a co-admin (only the admin), which tracking codes exist."""
        if body.get("role") == "coadmin":
            raise refuse(403)
        unknown = [code["name"] for code in body.get("tracking_codes", []) if code["name"] not in self.box.tracking_codes]
        if unknown:
            raise wire.invalid(("invalid_parameter", "tracking_codes", f"Unknown tracking code '{unknown[0]}'"))

    async def update(self, request: web.Request) -> web.Response:
        actor, values = self.admin(request), wire.query(request, "fields")
        body = await wire.read_object(request, _UPDATE)
        user = self.manageable(request.match_info["user_id"])
        self._check_common(body)
        if "notify" in body and "enterprise" not in body:
            raise wire.invalid(("invalid_parameter", "notify", "'notify' needs 'enterprise'"))
        body.pop("notify", None)
        if "enterprise" in body:
            self.store.roll_out(user, actor)
            self.box.changed(request)
            return json_response(self._shown(user, values))
        self._check_login(user, body)
        if isinstance(body.get("notification_email"), dict):
            body["notification_email"] = body["notification_email"] | {"is_confirmed": False}
        if self.store.update_user(user, body, actor):
            self.box.changed(request)
        return json_response(self._shown(user, values))

    def _check_login(self, user: User, body: Json) -> None:
        wanted = body.get("login", user.login)
        if wanted.lower() == user.login.lower():
            return
        if not user.confirmed:
            raise refuse(403, message="The user's email address is not confirmed yet")
        if self.store.login_taken(wanted):
            raise refuse(409, "user_login_already_used", "User with the specified login already exists")

    async def delete(self, request: web.Request) -> web.Response:
        actor, values = self.admin(request), wire.query(request, "force", "notify")
        force = wire.truth(values, "force", False)
        wire.truth(values, "notify", True)
        user = self.manageable(request.match_info["user_id"])
        if self.store.owns_content(user) and not force:
            raise refuse(403, "forbidden", "User cannot be deleted while they own content. Please transfer user content first")
        if force and self.box.retention:
            raise refuse(403, "forbidden", "User cannot be deleted due to retention policies. Please transfer user content first")
        self.store.delete_user(user, actor)
        self.box.changed(request)
        return web.Response(status=204)

    # -- sessions -----------------------------------------------------------------------------------------------------

    async def terminate_sessions(self, request: web.Request) -> web.Response:
        """Accepts and makes a job for each person; the effect shows in the admin events after `job_delay_s`."""
        actor = self.admin(request)
        if request.content_type != "application/json":
            raise refuse(400, "bad_request", "Supported payload format is JSON")
        anything: Check = lambda value: None  # noqa: E731 - judged below, with this endpoint's own words
        body = await wire.read_object(request, {"user_ids": anything, "user_logins": anything}, ("user_ids", "user_logins"))
        users = self._named(body["user_ids"], body["user_logins"])
        if any(user.privileged for user in users):
            raise refuse(403)
        due = self.store.clock() + self.box.job_delay_s
        self._jobs += [(due, user, actor) for user in users]
        if any(user.live for user in users):
            self.box.changed(request)
        self.settle()
        return json_response({"message": _ACCEPTED}, 202)

    def _named(self, ids: Any, logins: Any) -> list[User]:
        if not isinstance(ids, list) or not isinstance(logins, list) or not ids or not logins:
            raise refuse(400, "bad_request", "Users can not be NULL or EMPTY")
        if not all(isinstance(one, str) and re.fullmatch(r"\d+", one) for one in ids) or not all(isinstance(one, str) for one in logins):
            raise refuse(400, "bad_request", "User id format is string")
        found = [self.store.users.get(one) for one in ids] + [self.store.find_user(one) for one in logins]
        users = {user.id: user for user in found if user is not None and not user.external}
        if None in found or len(users) == 0:
            raise refuse(404)
        return list(users.values())

    def settle(self) -> None:
        now = self.store.clock()
        due = [job for job in self._jobs if job[0] <= now]
        self._jobs = [job for job in self._jobs if job[0] > now]
        for _, user, actor in due:
            self.store.end_sessions(user, actor)
