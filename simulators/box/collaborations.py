"""Collaborations: who may do what on which folder. There is no list of everything that one person reaches, as there is none at Box."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from simulators.base import json_response
from simulators.box import wire
from simulators.box.room import ACTOR, Room
from simulators.box.store import STRENGTH
from simulators.box.things import ROLES, Collaboration, Folder, Group, Json, User
from simulators.box.wire import Check, refuse

_MINI = ("type", "id")
_CREATE: dict[str, Check] = {
    "item": wire.nested({"type": wire.one_of("file", "folder"), "id": wire.text(1, 64)}, ("type", "id")),
    "accessible_by": wire.nested({"type": wire.one_of("user", "group"), "id": wire.text(1, 64), "login": wire.login}, ("type",)),
    "role": wire.one_of(*ROLES),
    "is_access_only": wire.flag,
    "can_view_path": wire.flag,
    "expires_at": wire.moment,
}
_UPDATE: dict[str, Check] = {
    "role": wire.one_of(*ROLES, "owner"),
    "status": wire.one_of("pending", "accepted", "rejected"),
    "expires_at": wire.moment,
    "can_view_path": wire.flag,
}
_MAY_INVITE = ("owner", "co-owner", "editor")
_MAY_MANAGE = ("owner", "co-owner")


class CollaborationRoom(Room):
    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [
            web.get("/2.0/collaborations", self.pending),
            web.post("/2.0/collaborations", self.create),
            web.get("/2.0/collaborations/{collaboration_id}", self.get),
            web.put("/2.0/collaborations/{collaboration_id}", self.update),
            web.delete("/2.0/collaborations/{collaboration_id}", self.delete),
            web.get("/2.0/folders/{folder_id}/collaborations", self.on_folder),
            web.get("/2.0/groups/{group_id}/collaborations", self.of_group),
        ]

    # -- reading ------------------------------------------------------------------------------------------------------

    async def pending(self, request: web.Request) -> web.Response:
        values = wire.query(request, "status", "fields", "offset", "limit")
        if values.get("status") != "pending":
            raise refuse(400, "invalid_status", "You can only get collaborations with status 'pending'")
        found = [grant for grant in self.store.collaborations_of(request[ACTOR]) if grant.status == "pending"]
        return wire.by_offset(found, values, lambda one: wire.trim(one.shown(), values, _MINI), order=False)

    async def on_folder(self, request: web.Request) -> web.Response:
        values = wire.query(request, "fields", "limit", "marker")
        if request.match_info["folder_id"] == "0":
            raise refuse(400, "collaborations_not_available_on_root_folder", "Root folder cannot be collaborated")
        folder, _ = self.folder(request, request.match_info["folder_id"])
        return wire.by_marker(self.store.collaborations_on(folder), values, lambda one: wire.trim(one.shown(), values, _MINI))

    async def of_group(self, request: web.Request) -> web.Response:
        self.admin(request)
        values = wire.query(request, "limit", "offset")
        group = self.store.groups.get(request.match_info["group_id"])
        if group is None:
            raise refuse(404)
        return wire.by_offset(list(self.store.collaborations_of(group)), values, Collaboration.shown, order=False)

    async def get(self, request: web.Request) -> web.Response:
        values = wire.query(request, "fields")
        grant, _ = self._visible(request)
        return json_response(wire.trim(grant.shown(), values, _MINI))

    def _visible(self, request: web.Request) -> tuple[Collaboration, str | None]:
        """The grant and the actor's role on its folder; the grantee sees it even while it is pending."""
        grant = self.store.collaborations.get(request.match_info["collaboration_id"])
        role = None if grant is None else self.store.access(request[ACTOR], grant.folder)
        if grant is None or (role is None and grant.grantee is not request[ACTOR]):
            raise refuse(404)
        return grant, role

    # -- writing ------------------------------------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.Response:
        values = wire.query(request, "fields", "notify")
        wire.truth(values, "notify", True)
        body = await wire.read_object(request, _CREATE, ("item", "accessible_by", "role"))
        folder, own = self._item(request, body["item"])
        if own not in _MAY_INVITE or STRENGTH[body["role"]] > STRENGTH[own]:
            raise refuse(403)
        grantee, invited = self._grantee(body["accessible_by"])
        self._check_new(folder, grantee, invited)
        expires = self._expiry(body)
        accepted = isinstance(grantee, Group) or (grantee is not None and not grantee.external)
        grant = self.store.add_collaboration(
            folder,
            grantee,
            body["role"],
            login=invited,
            status="accepted" if accepted else "pending",
            by=request[ACTOR],
            access_only=body.get("is_access_only", False),
            view_path=body.get("can_view_path", False),
            expires=expires,
        )
        self.box.changed(request)
        return json_response(wire.trim(grant.shown(), values, _MINI), 201)

    def _item(self, request: web.Request, item: Json) -> tuple[Folder, str]:
        if item["type"] != "folder":
            raise refuse(404)
        if item["id"] == "0":
            raise refuse(400, "collaborations_not_available_on_root_folder", "Root folder cannot be collaborated")
        if item["id"] not in self.store.folders:
            raise refuse(404)
        return self.folder(request, item["id"])

    def _grantee(self, who: Json) -> tuple[User | Group | None, str | None]:
        """Who is meant, and the address of an invitation where it is nobody of this enterprise."""
        if ("id" in who) == ("login" in who) or (who["type"] == "group" and "login" in who):
            raise wire.invalid(("invalid_parameter", "accessible_by", "'accessible_by' needs either an id, or for a user a login"))
        if who["type"] == "group":
            group = self.store.groups.get(who["id"])
            if group is None:
                raise refuse(404)
            return group, None
        user = self.user(who["id"]) if "id" in who else self.store.find_user(who["login"])
        if user is None:
            return None, who["login"]
        return user, user.login if user.external else None

    def _check_new(self, folder: Folder, grantee: User | Group | None, invited: str | None) -> None:
        address = (grantee.login if isinstance(grantee, User) else invited or "").lower()
        for other in self.store.collaborations_on(folder):
            same = other.grantee is not None and other.grantee is grantee
            if (same or (address and address == (other.invite_email or "").lower())) and other.status != "rejected":
                raise refuse(400, "user_already_collaborator", "User is already a collaborator")
        if grantee is folder.owner:
            raise refuse(400, "user_already_collaborator", "User is already a collaborator")

    def _expiry(self, body: Json) -> float | None:
        """Only where the enterprise's setting allows it, and only in the future."""
        if "expires_at" not in body:
            return None
        if not self.box.expiry_allowed:
            raise refuse(403, message="Collaboration expiration is not enabled for this enterprise")
        at = wire.read_time(body["expires_at"])
        if at is None or at <= self.store.clock():
            raise wire.invalid(("invalid_parameter", "expires_at", "'expires_at' must be in the future"))
        return at

    async def update(self, request: web.Request) -> web.Response:
        wire.query(request)
        body = await wire.read_object(request, _UPDATE)
        grant, own = self._visible(request)
        if "status" in body:
            self._answer(request, grant, body)
        elif own not in _MAY_MANAGE:
            raise refuse(403)
        if body.get("role") == "owner":
            return self._hand_over(request, grant, own)
        if "role" in body and (own is None or STRENGTH[body["role"]] > STRENGTH[own]):
            raise refuse(403)
        expires = self._expiry(body)
        before = (grant.role, grant.status, grant.expires, grant.view_path)
        role_before = grant.role
        grant.role, grant.status = body.get("role", grant.role), body.get("status", grant.status)
        grant.view_path = body.get("can_view_path", grant.view_path)
        if "expires_at" in body:
            self.store.date(grant, expires)
        if before != (grant.role, grant.status, grant.expires, grant.view_path):
            grant.modified = self.store.clock()
            if grant.role != role_before:
                self.store.note_role(grant, request[ACTOR])
            self.box.changed(request)
        return json_response(grant.shown())

    def _answer(self, request: web.Request, grant: Collaboration, body: Json) -> None:
        """Only the invited person accepts or rejects, and only what is pending."""
        if grant.grantee is not request[ACTOR] or set(body) != {"status"}:
            raise refuse(403)
        if grant.status != "pending" or body["status"] == "pending":
            raise refuse(400, "invalid_status", "The collaboration's status cannot be changed so")

    def _hand_over(self, request: web.Request, grant: Collaboration, own: str | None) -> web.Response:
        """A new owner: 204, the grant is gone, the old owner becomes co-owner. Only a folder in a root has an owner of its own."""
        heir = grant.grantee
        if own != "owner" or not isinstance(heir, User) or heir.external or grant.status != "accepted" or grant.folder.parent is not None:
            raise refuse(403)
        old = grant.folder.owner
        self.store.give_folder(grant.folder, heir)
        self.store.add_collaboration(grant.folder, old, "co-owner", by=request[ACTOR])
        self.box.changed(request)
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.Response:
        wire.query(request)
        grant, own = self._visible(request)
        if own not in _MAY_MANAGE and grant.grantee is not request[ACTOR]:
            raise refuse(403)
        self.store.remove_collaboration(grant, request[ACTOR])
        self.box.changed(request)
        return web.Response(status=204)
