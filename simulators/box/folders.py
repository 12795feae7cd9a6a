"""Folders: create, read, list. Only who owns them or holds a grant sees them; for everybody else they are 404."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from simulators.base import json_response
from simulators.box import wire
from simulators.box.room import ACTOR, Room
from simulators.box.things import FOLDER_MINI, ROOT_MINI, Folder, Json, User, stamp
from simulators.box.wire import Check, refuse

_CREATE: dict[str, Check] = {
    "name": wire.text(1, 255),
    "parent": wire.ref,
    "folder_upload_email": wire.nested({"access": wire.one_of("open", "collaborators")}, null=True),
    "sync_state": wire.one_of("synced", "not_synced", "partially_synced"),
}
#: Only with `fields` (Folder--Full).
_FULL_ONLY = ("has_collaborations", "is_externally_owned", "can_non_owners_invite")
_MAY_ADD = ("owner", "co-owner", "editor", "viewer uploader", "previewer uploader", "uploader")


class FolderRoom(Room):
    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [
            web.post("/2.0/folders", self.create),
            web.get("/2.0/folders/{folder_id}", self.get),
            web.get("/2.0/folders/{folder_id}/items", self.items),
        ]

    async def create(self, request: web.Request) -> web.Response:
        actor, values = request[ACTOR], wire.query(request, "fields")
        body = await wire.read_object(request, _CREATE, ("name", "parent"))
        name, parent = body["name"], None
        if body["parent"]["id"] != "0":
            parent, role = self.folder(request, body["parent"]["id"])
            if role not in _MAY_ADD:
                raise refuse(403)
        if "/" in name or "\\" in name or name.strip() != name or name in (".", ".."):
            raise refuse(400, "item_name_invalid", "Item name invalid")
        beside = self.store.inside(parent) if parent else self.store.root_of(actor)
        for other in beside:
            if other.name.lower() == name.lower():
                raise refuse(409, "item_name_in_use", "Item with the same name already exists", {"conflicts": [other.mini()]})
        folder = self.store.add_folder(name, owner=actor, parent=parent, by=actor)
        self.box.changed(request)
        return json_response(self._trimmed(self.full(folder), values), 201)

    async def get(self, request: web.Request) -> web.Response:
        values = wire.query(request, "fields", "sort", "direction", "offset", "limit")
        if request.match_info["folder_id"] == "0":
            return json_response(self._trimmed(self._root(request[ACTOR]), values))
        folder, _ = self.folder(request, request.match_info["folder_id"])
        if request.headers.get("if-none-match") == str(folder.etag):
            return web.Response(status=304)
        return json_response(self._trimmed(self.full(folder), values))

    async def items(self, request: web.Request) -> web.Response:
        values = wire.query(request, "fields", "usemarker", "marker", "offset", "limit", "sort", "direction")
        if request.match_info["folder_id"] == "0":
            found = self.store.root_of(request[ACTOR])
        else:
            folder, _ = self.folder(request, request.match_info["folder_id"])
            found = self.store.inside(folder)
        if wire.truth(values, "usemarker", False):
            return wire.by_marker(found, values, lambda one: self._entry(one, values))
        if "marker" in values:
            raise wire.invalid(("invalid_parameter", "marker", "A marker needs usemarker=true"))
        return wire.by_offset(found, values, lambda one: self._entry(one, values))

    def _entry(self, folder: Folder, values: dict[str, str]) -> Json:
        return wire.trim(self.full(folder), values, FOLDER_MINI, ()) if "fields" in values else folder.mini()

    def _trimmed(self, full: Json, values: dict[str, str]) -> Json:
        return wire.trim(full, values, FOLDER_MINI, tuple(key for key in full if key not in _FULL_ONLY))

    def _root(self, user: User) -> Json:
        """The root has no times, no owner's etag and no parent."""
        inside = self.store.root_of(user)
        shown = ROOT_MINI | {"created_at": None, "modified_at": None, "owned_by": user.mini(), "parent": None, "item_status": "active"}
        return shown | {"size": 0, "path_collection": {"total_count": 0, "entries": []}, "item_collection": _collection(inside)}

    def full(self, folder: Folder) -> Json:
        above = [ROOT_MINI, *(one.mini() for one in reversed(folder.line()[1:]))]
        created, modified = stamp(folder.created), stamp(folder.modified)
        return folder.mini() | {
            "created_at": created,
            "modified_at": modified,
            "content_created_at": created,
            "content_modified_at": modified,
            "description": "",
            "size": 0,
            "path_collection": {"total_count": len(above), "entries": above},
            "created_by": folder.creator.mini(),
            "modified_by": folder.creator.mini(),
            "trashed_at": None,
            "purged_at": None,
            "owned_by": folder.owner.mini(),
            "shared_link": None,
            "folder_upload_email": None,
            "parent": above[-1],
            "item_status": "active",
            "item_collection": _collection(self.store.inside(folder)),
            "has_collaborations": any(True for _ in self.store.collaborations_on(folder)),
            "is_externally_owned": folder.owner.external,
            "can_non_owners_invite": True,
        }


def _collection(inside: list[Folder]) -> Json:
    entries = [one.mini() for one in inside[: wire.DEFAULT_LIMIT]]
    order = [{"by": "type", "direction": "ASC"}, {"by": "name", "direction": "ASC"}]
    return {"total_count": len(inside), "limit": wire.DEFAULT_LIMIT, "offset": 0, "order": order, "entries": entries}
