"""Groups and their memberships."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from simulators.base import json_response
from simulators.box import wire
from simulators.box.room import ACTOR, Room
from simulators.box.things import GROUP_MINI, GROUP_STANDARD, Group, Json, Membership
from simulators.box.wire import Check, refuse

_LEVEL = wire.one_of("admins_only", "admins_and_members", "all_managed_users")
_GROUP: dict[str, Check] = {
    "name": wire.text(1, 255),
    "provenance": wire.text(0, 255),
    "external_sync_identifier": wire.text(0, 255),
    "description": wire.text(0, 255),
    "invitability_level": _LEVEL,
    "member_viewability_level": _LEVEL,
}
_PERMISSIONS = ("can_run_reports", "can_instant_login", "can_create_accounts", "can_edit_accounts")
_CHANGE: dict[str, Check] = {
    "role": wire.one_of("member", "admin"),
    "configurable_permissions": wire.nested(dict.fromkeys(_PERMISSIONS, wire.flag), null=True),
}
_MEMBER = _CHANGE | {"user": wire.ref, "group": wire.ref}


class GroupRoom(Room):
    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [
            web.get("/2.0/groups", self.search),
            web.post("/2.0/groups", self.create),
            web.get("/2.0/groups/{group_id}", self.get),
            web.put("/2.0/groups/{group_id}", self.update),
            web.delete("/2.0/groups/{group_id}", self.delete),
            web.get("/2.0/groups/{group_id}/memberships", self.members),
            web.get("/2.0/users/{user_id}/memberships", self.memberships),
            web.post("/2.0/group_memberships", self.join),
            web.get("/2.0/group_memberships/{membership_id}", self.membership),
            web.put("/2.0/group_memberships/{membership_id}", self.change),
            web.delete("/2.0/group_memberships/{membership_id}", self.leave),
        ]

    def _group(self, group_id: str) -> Group:
        group = self.store.groups.get(group_id)
        if group is None:
            raise refuse(404)
        return group

    def _shown(self, group: Group, values: dict[str, str]) -> Json:
        return wire.trim(group.full(), values, GROUP_MINI, GROUP_STANDARD)

    def _check_name(self, name: str, but: Group | None = None) -> None:
        taken = self.store.find_group(name)
        if taken is not None and taken is not but:
            raise refuse(409, "conflict", "A resource with this value already exists", {"errors": [_taken(name)]})

    async def search(self, request: web.Request) -> web.Response:
        self.admin(request)
        values = wire.query(request, "filter_term", "fields", "limit", "offset")
        term = values.get("filter_term", "").lower()
        found = [group for group in self.store.groups.values() if group.name.lower().startswith(term)]
        return wire.by_offset(found, values, lambda group: self._shown(group, values))

    async def create(self, request: web.Request) -> web.Response:
        actor, values = self.admin(request), wire.query(request, "fields")
        body = await wire.read_object(request, _GROUP, ("name",))
        self._check_name(body["name"])
        group = self.store.add_group(body.pop("name"), by=actor, **body)
        self.box.changed(request)
        return json_response(self._shown(group, values), 201)

    async def get(self, request: web.Request) -> web.Response:
        self.admin(request)
        values = wire.query(request, "fields")
        return json_response(self._shown(self._group(request.match_info["group_id"]), values))

    async def update(self, request: web.Request) -> web.Response:
        actor, values = self.admin(request), wire.query(request, "fields")
        body = await wire.read_object(request, _GROUP)
        group = self._group(request.match_info["group_id"])
        before = (group.name, dict(group.values))
        if "name" in body:
            self._check_name(body["name"], but=group)
            group.name = body.pop("name")
        group.values |= body
        if before != (group.name, group.values):
            group.modified = self.store.clock()
            self.store.record("GROUP_EDITED", actor, {"group_id": group.id, "group_name": group.name})
            self.box.changed(request)
        return json_response(self._shown(group, values))

    async def delete(self, request: web.Request) -> web.Response:
        actor = self.admin(request)
        wire.query(request)
        self.store.delete_group(self._group(request.match_info["group_id"]), actor)
        self.box.changed(request)
        return web.Response(status=204)

    # -- memberships --------------------------------------------------------------------------------------------------

    async def members(self, request: web.Request) -> web.Response:
        self.admin(request)
        values = wire.query(request, "limit", "offset")
        group = self._group(request.match_info["group_id"])
        return wire.by_offset(list(self.store.memberships_of(group)), values, Membership.shown)

    async def memberships(self, request: web.Request) -> web.Response:
        values = wire.query(request, "limit", "offset")
        user = self.user(request.match_info["user_id"])
        if user is not request[ACTOR]:
            self.admin(request)
        return wire.by_offset(list(self.store.memberships_of(user)), values, Membership.shown)

    async def join(self, request: web.Request) -> web.Response:
        actor, values = self.admin(request), wire.query(request, "fields")
        body = await wire.read_object(request, _MEMBER, ("user", "group"))
        user, group = self.user(body["user"]["id"]), self._group(body["group"]["id"])
        if user.external:
            raise refuse(404)
        if any(one.group is group for one in self.store.memberships_of(user)):
            raise refuse(409, "conflict", "The user is already a member of the group", {"errors": [_taken(user.id)]})
        membership = self.store.add_membership(user, group, body.get("role", "member"), actor)
        self.box.changed(request)
        return json_response(wire.trim(membership.shown(), values, ("type", "id")), 201)

    def _membership(self, request: web.Request) -> Membership:
        membership = self.store.memberships.get(request.match_info["membership_id"])
        if membership is None:
            raise refuse(404)
        return membership

    async def membership(self, request: web.Request) -> web.Response:
        self.admin(request)
        values = wire.query(request, "fields")
        return json_response(wire.trim(self._membership(request).shown(), values, ("type", "id")))

    async def change(self, request: web.Request) -> web.Response:
        self.admin(request)
        values = wire.query(request, "fields")
        body = await wire.read_object(request, _CHANGE)
        membership = self._membership(request)
        if body.get("role", membership.role) != membership.role:
            membership.role, membership.modified = body["role"], self.store.clock()
            self.box.changed(request)
        return json_response(wire.trim(membership.shown(), values, ("type", "id")))

    async def leave(self, request: web.Request) -> web.Response:
        actor = self.admin(request)
        wire.query(request)
        self.store.remove_membership(self._membership(request), actor)
        self.box.changed(request)
        return web.Response(status=204)


def _taken(value: str) -> Json:
    return {
        "reason": "invalid_parameter",
        "name": "name",
        "message": f"Invalid value '{value}'. A resource with value '{value}' already exists",
    }
