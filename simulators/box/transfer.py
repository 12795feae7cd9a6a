"""`PUT /users/{id}/folders/0`: everything that somebody owns goes into a new folder in somebody else's root.

Box works on it while the caller waits, answers after ten minutes at the latest and then goes on alone; meanwhile nobody reaches the
content, and nothing tells when it is done. A repeat moves what is left, which may be nothing: then an empty folder appears.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from simulators.base import json_response
from simulators.box import wire
from simulators.box.folders import FolderRoom
from simulators.box.room import Room
from simulators.box.things import FOLDER_MINI, Folder, Json, User, stamp
from simulators.box.wire import refuse

if TYPE_CHECKING:
    from simulators.box.server import BoxSimulator


class TransferRoom(Room):
    def __init__(self, box: BoxSimulator) -> None:
        super().__init__(box)
        self._background: set[asyncio.Task[None]] = set()

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [web.put("/2.0/users/{user_id}/folders/0", self.transfer)]

    async def close(self) -> None:
        await asyncio.gather(*self._background)

    async def transfer(self, request: web.Request) -> web.Response:
        actor, values = self.admin(request), wire.query(request, "fields", "notify")
        wire.truth(values, "notify", True)
        body = await wire.read_object(request, {"owned_by": wire.ref}, ("owned_by",))
        source, target = self.user(request.match_info["user_id"]), self.user(body["owned_by"]["id"])
        self._check(actor, source, target)
        content = [folder for folder in self.store.folders.values() if folder.owner is source and folder.parent is None]
        made = self.store.add_folder(self._name(source, target), owner=target, by=actor)
        entry: Json = {"from": source.id, "to": target.id, "folder": made.id, "at": stamp(self.store.clock()), "state": "running"}
        self.store.transfers.append(entry)
        for folder in content:
            folder.moving = True
        self.box.changed(request)
        task = asyncio.create_task(self._work(content, made, target, entry))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        await asyncio.wait([task], timeout=self.box.transfer_answer_s)
        full = FolderRoom(self.box).full(made)
        return json_response(wire.trim(full, values, FOLDER_MINI))

    def _check(self, actor: User, source: User, target: User) -> None:
        if source is target or source.external or target.external:
            raise wire.invalid(("invalid_parameter", "owned_by", "The new owner must be another managed user"))
        if any(one.privileged and one is not actor for one in (source, target)):
            raise refuse(403, "forbidden", "Cannot transfer files from/to higher privileged accounts")
        if target.status == "inactive":
            raise refuse(500)
        if any(folder.moving for folder in self.store.folders.values() if folder.owner is source):
            raise refuse(409, "operation_blocked_temporary", "The operation is blocked by another on-going operation")

    def _name(self, source: User, target: User) -> str:
        """`{name}'s Files and Folders`, numbered where the target has that already."""
        plain = f"{source.name}'s Files and Folders"
        taken = {folder.name.lower() for folder in self.store.root_of(target)}
        names = [plain, *(f"{plain} ({n})" for n in range(1, len(taken) + 1))]
        return next(name for name in names if name.lower() not in taken)

    async def _work(self, content: list[Folder], made: Folder, target: User, entry: Json) -> None:
        await self.box.pause(self.box.transfer_s)
        for folder in content:
            folder.moving = False
            self.store.move_folder(folder, made)
            self.store.give_folder(folder, target)
        entry["state"] = "done"
