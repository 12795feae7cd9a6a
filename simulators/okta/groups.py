"""The routes of `/api/v1/groups`."""

from __future__ import annotations

from aiohttp import web

from simulators.base import json_response
from simulators.okta import errors
from simulators.okta.directory import Group
from simulators.okta.door import Door
from simulators.okta.filters import FilterError, compile_filter
from simulators.okta.links import limit_of, listing, paged

_EQ = frozenset({"eq"})
_TIME = frozenset({"eq", "gt", "ge", "lt", "le"})
FILTER = {"id": _EQ, "type": _EQ, "lastUpdated": _TIME, "lastMembershipUpdated": _TIME}
SEARCH = {**FILTER, "created": _TIME, "profile.name": frozenset({"eq", "sw", "co"})}


class Groups:
    def __init__(self, door: Door) -> None:
        self.door = door
        route = door.route
        route("GET", "/api/v1/groups", "okta.groups.read", self.index)
        route("POST", "/api/v1/groups", "okta.groups.manage", self.create)
        route("GET", "/api/v1/groups/{group}", "okta.groups.read", self.get)
        route("GET", "/api/v1/groups/{group}/users", "okta.groups.read", self.members)
        route("PUT", "/api/v1/groups/{group}/users/{id}", "okta.groups.manage", self.add)
        route("DELETE", "/api/v1/groups/{group}/users/{id}", "okta.groups.manage", self.remove)

    async def index(self, request: web.Request) -> web.Response:
        q = request.query.get("q")
        page, following = paged(request, self._selected(request), limit_of(request, 300 if q else 10_000, 10_000))
        origin = self.door.origin(request)
        return listing(request, [group.to_json(origin) for group in page], {} if q else following)

    def _selected(self, request: web.Request) -> list[Group]:
        groups = list(self.door.org.directory.read().groups.values())
        search, narrow = request.query.get("search"), request.query.get("filter")
        if search or narrow:
            try:
                test = compile_filter(search or narrow or "", SEARCH if search else FILTER, fold=True)
            except FilterError as error:
                raise errors.bad_search(str(error)) from None
            groups = [group for group in groups if test(group.to_json(""))]
        q = request.query.get("q", "").lower()
        return [group for group in groups if group.name.lower().startswith(q)]

    async def get(self, request: web.Request) -> web.Response:
        return json_response(self._seen(request).to_json(self.door.origin(request)))

    async def members(self, request: web.Request) -> web.Response:
        group, view = self._seen(request), self.door.org.directory.read()
        rows = [view.users[user_id] for user_id in view.members[group.id]]
        page, following = paged(request, rows, limit_of(request, 1000, 1000))
        origin = self.door.origin(request)
        return listing(request, [user.to_json(origin) for user in page], following)

    async def create(self, request: web.Request) -> web.Response:
        profile = (await self.door.body(request)).get("profile")
        name = profile.get("name") if isinstance(profile, dict) else None
        if not isinstance(name, str) or not name:
            raise errors.invalid("name", "name: The field cannot be left blank")
        group = self.door.org.create_group(self.door.caller(request), name, signal=self.door.signal(request))
        return json_response(group.to_json(self.door.origin(request)))

    async def add(self, request: web.Request) -> web.Response:
        self.door.org.add_member(
            self.door.caller(request), request.match_info["group"], self.door.user_id(request), signal=self.door.signal(request)
        )
        return web.Response(status=204)

    async def remove(self, request: web.Request) -> web.Response:
        self.door.org.remove_member(
            self.door.caller(request), request.match_info["group"], self.door.user_id(request), signal=self.door.signal(request)
        )
        return web.Response(status=204)

    def _seen(self, request: web.Request) -> Group:
        group_id = request.match_info["group"]
        group = self.door.org.directory.read().groups.get(group_id)
        if group is None:
            raise errors.not_found(group_id, "UserGroup")
        return group
