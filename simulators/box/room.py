"""What the rooms of Box share: the simulator, its store, who acts, and finding a thing or answering 404."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from simulators.box.things import Folder, User
from simulators.box.wire import refuse

if TYPE_CHECKING:
    from simulators.box.server import BoxSimulator

ACTOR = web.RequestKey("actor", User)


class Room(ABC):
    """A family of Box's endpoints."""

    def __init__(self, box: BoxSimulator) -> None:
        self.box, self.store = box, box.store

    @abstractmethod
    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """What this room answers to."""

    def settle(self) -> None:  # noqa: B027 - most rooms have nothing that falls due
        """Called before each request and each look at the state: what was due has happened."""

    async def close(self) -> None:  # noqa: B027 - most rooms run nothing in the background
        """The server has stopped: what still runs in the background comes to its end."""

    def admin(self, request: web.Request) -> User:
        """Who acts, if they may manage the enterprise. Raises Refusal (403)."""
        actor = request[ACTOR]
        if not actor.privileged:
            raise refuse(403)
        return actor

    def user(self, user_id: str) -> User:
        user = self.store.users.get(user_id)
        if user is None:
            raise refuse(
                404, context={"errors": [{"reason": "invalid_parameter", "name": "user", "message": f"Invalid value '{user_id}'."}]}
            )
        return user

    def manageable(self, user_id: str) -> User:
        """A managed user without admin rights. Raises Refusal: 404, or 403 for admins, co-admins and outsiders."""
        user = self.user(user_id)
        if user.privileged or user.external:
            raise refuse(403)
        return user

    def folder(self, request: web.Request, folder_id: str) -> tuple[Folder, str]:
        """The folder and the actor's role on it. Raises Refusal: 405 for what is no id, 404 for what the actor may not see."""
        if not re.fullmatch(r"\d{1,20}", folder_id):
            raise refuse(405, message=f"The folder id '{folder_id}' is not in a recognized format")
        folder = self.store.folders.get(folder_id)
        role = None if folder is None else self.store.access(request[ACTOR], folder)
        if folder is None or role is None:
            raise refuse(
                404, context={"errors": [{"reason": "invalid_parameter", "name": "folder", "message": f"Invalid value 'd_{folder_id}'."}]}
            )
        return folder, role
