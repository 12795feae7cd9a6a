"""The routes of `/api/v1/users`: reads answer the lagged directory, writes are checked against the present (Org)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from simulators.base import json_response
from simulators.okta import errors
from simulators.okta.directory import User
from simulators.okta.door import Door
from simulators.okta.filters import FilterError, compile_filter
from simulators.okta.links import limit_of, listing, paged

_EQ = frozenset({"eq"})
_TIME = frozenset({"eq", "gt", "ge", "lt", "le"})
_TEXT = frozenset({"eq", "sw", "co"})
FILTER = {
    "id": _EQ,
    "status": _EQ,
    "lastUpdated": _TIME,
    "profile.login": _EQ,
    "profile.email": _EQ,
    "profile.firstName": _EQ,
    "profile.lastName": _EQ,
}
_PROFILE = (
    "login email firstName lastName displayName department division organization title userType "
    "manager managerId employeeNumber costCenter city countryCode"
)
SEARCH = {
    "id": _EQ,
    "status": _EQ,
    **dict.fromkeys(("created", "activated", "statusChanged", "lastUpdated"), _TIME),
    **{f"profile.{name}": _TEXT for name in _PROFILE.split()},
}


class Users:
    """Handlers; `door` gives the caller, the org and the body."""

    def __init__(self, door: Door) -> None:
        self.door = door
        route = door.route
        route("GET", "/api/v1/users", "okta.users.read", self.index)
        route("POST", "/api/v1/users", "okta.users.manage", self.create)
        route("GET", "/api/v1/users/{id}", "okta.users.read", self.get)
        route("POST", "/api/v1/users/{id}", "okta.users.manage", self.update)
        route("DELETE", "/api/v1/users/{id}", "okta.users.manage", self.delete)
        route("GET", "/api/v1/users/{id}/groups", "okta.users.read", self.groups)
        route("GET", "/api/v1/users/{id}/roles", "okta.roles.read", self.roles)
        route("GET", "/api/v1/users/{id}/risk", "okta.userRisk.read", self.risk)
        route("PUT", "/api/v1/users/{id}/risk", "okta.userRisk.manage", self.put_risk)
        route("DELETE", "/api/v1/users/{id}/sessions", "okta.users.manage", self.end_sessions)
        route("POST", "/api/v1/users/{id}/lifecycle/{step}", "okta.users.manage", self.lifecycle)

    # -- reads ----------------------------------------------------------------------------------------------------------

    async def index(self, request: web.Request) -> web.Response:
        rows, limit = self._selected(request), limit_of(request, 10 if request.query.get("q") else 200, 200)
        page, following = paged(request, rows, limit)
        origin = self.door.origin(request)
        return listing(request, [user.to_json(origin) for user in page], {} if request.query.get("q") else following)

    def _selected(self, request: web.Request) -> list[User]:
        users = list(self.door.org.directory.read().users.values())
        search, narrow = request.query.get("search"), request.query.get("filter")
        if search and narrow:
            raise errors.OktaError(400, "E0000033", "Invalid search criteria. Can not combine 'search' and 'filter'.")
        if search or narrow:
            try:
                test = compile_filter(search or narrow or "", SEARCH if search else FILTER, fold=True)
            except FilterError as error:
                raise errors.bad_search(str(error)) from None
            return _sorted([user for user in users if test(user.to_json(""))], request, bool(search))
        present = [user for user in users if user.status != "DEPROVISIONED"]
        if q := request.query.get("q", "").lower():
            names = ("firstName", "lastName", "email")
            return [user for user in present if any(str(user.profile.get(name, "")).lower().startswith(q) for name in names)]
        return present

    async def get(self, request: web.Request) -> web.Response:
        user = self.seen(request)
        return json_response(user.to_json(self.door.origin(request)), headers={"ETag": user.etag})

    async def groups(self, request: web.Request) -> web.Response:
        user, view = self.seen(request), self.door.org.directory.read()
        origin = self.door.origin(request)
        return listing(request, [view.groups[group_id].to_json(origin) for group_id in view.groups_of.get(user.id, {})], {})

    async def roles(self, request: web.Request) -> web.Response:
        user, view = self.seen(request), self.door.org.directory.read()
        return json_response([role.to_json(self.door.origin(request), user.id) for role in view.roles.get(user.id, ())])

    async def risk(self, request: web.Request) -> web.Response:
        user, view = self.seen(request), self.door.org.directory.read()
        level, reason = view.risks.get(user.id, ("NONE", None))
        return json_response(self._risk(request, user.id, level, reason))

    def seen(self, request: web.Request) -> User:
        """The user of the path as reads see them. Raises OktaError 404."""
        wanted = self.door.user_id(request)
        user = self.door.org.directory.read().find(wanted)
        if user is None:
            raise errors.not_found(wanted, "User")
        return user

    # -- writes ---------------------------------------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.Response:
        body = await self.door.body(request)
        credentials = body.get("credentials")
        password = credentials.get("password") if isinstance(credentials, dict) else None
        groups = body.get("groupIds", [])
        if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
            raise errors.ill_formed()
        user = self.door.org.create_user(
            self.door.caller(request),
            _profile(body, required=True),
            activate=_flag(request, "activate", True),
            has_password=isinstance(password, dict) and bool(password.get("value") or password.get("hash")),
            group_ids=tuple(groups),
            signal=self.door.signal(request),
        )
        return json_response(user.to_json(self.door.origin(request)))

    async def update(self, request: web.Request) -> web.Response:
        body = await self.door.body(request)
        user_id = self.door.user_id(request)
        expected = request.headers.get("If-Match")
        if expected is not None and expected not in ("*", self.door.org.user(user_id).etag):
            raise errors.for_status(412)
        user = self.door.org.update_profile(
            self.door.caller(request), user_id, _profile(body, required=False), signal=self.door.signal(request)
        )
        return json_response(user.to_json(self.door.origin(request)), headers={"ETag": user.etag})

    async def delete(self, request: web.Request) -> web.Response:
        self.door.org.delete(self.door.caller(request), self.door.user_id(request), signal=self.door.signal(request))
        return web.Response(status=204)

    async def end_sessions(self, request: web.Request) -> web.Response:
        tokens = _flag(request, "oauthTokens", False)
        _flag(request, "forgetDevices", True)
        self.door.org.end_sessions(
            self.door.caller(request), self.door.user_id(request), oauth_tokens=tokens, signal=self.door.signal(request)
        )
        return web.Response(status=204)

    async def lifecycle(self, request: web.Request) -> web.Response:
        org = self.door.org
        steps = {
            "suspend": org.suspend,
            "unsuspend": org.unsuspend,
            "activate": org.activate,
            "reactivate": org.reactivate,
            "deactivate": org.deactivate,
            "unlock": org.unlock,
            "expire_password": org.expire_password,
        }
        step = steps.get(request.match_info["step"])
        if step is None:
            raise web.HTTPNotFound
        user = step(self.door.caller(request), self.door.user_id(request), signal=self.door.signal(request))
        return json_response(user.to_json(self.door.origin(request)) if isinstance(user, User) else {})

    async def put_risk(self, request: web.Request) -> web.Response:
        body = await self.door.body(request)
        level, reason = body.get("riskLevel"), body.get("riskReason", "override.by.admin")
        if not isinstance(level, str) or not isinstance(reason, str):
            raise errors.invalid("riskLevel", "riskLevel: The field cannot be left blank")
        user = self.door.org.user(self.door.user_id(request))
        fresh = self.door.org.raise_risk(self.door.caller(request), user.id, level, reason=reason, signal=self.door.signal(request))
        return json_response(self._risk(request, user.id, level, reason), 201 if fresh else 200)

    def _risk(self, request: web.Request, user_id: str, level: str, reason: str | None) -> dict[str, Any]:
        href = f"{self.door.origin(request)}/api/v1/users/{user_id}"
        links = {
            "self": {"href": f"{href}/risk", "hints": {"allow": ["GET", "PUT"]}},
            "user": {"href": href, "hints": {"allow": ["GET"]}},
        }
        return {"riskLevel": level, **({"reason": reason} if reason else {}), "_links": links}


def _profile(body: Mapping[str, Any], required: bool) -> dict[str, Any]:
    profile = body.get("profile", None if required else {})
    if not isinstance(profile, dict):
        raise errors.invalid("profile", "profile: The field cannot be left blank")
    return profile


def _flag(request: web.Request, name: str, default: bool) -> bool:
    text = request.query.get(name, str(default)).lower()
    if text not in ("true", "false"):
        raise errors.invalid(name, f"{name}: must be true or false")
    return text == "true"


def _sorted(users: list[User], request: web.Request, is_search: bool) -> list[User]:
    by = request.query.get("sortBy")
    if by is None or not is_search:
        return users
    if by not in SEARCH:
        raise errors.bad_search(f"unknown field {by}")

    def key(user: User) -> str:
        value: Any = user.to_json("")
        for name in by.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return str(value or "")

    return sorted(users, key=key, reverse=request.query.get("sortOrder", "asc").lower().startswith("desc"))
