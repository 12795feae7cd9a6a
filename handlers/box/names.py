"""Names of policy ↔ ids of Box, for groups and folders. Ids are kept; a name that is missing is looked up again.

Box compares names without regard to case, so do we. Several things under one name are never guessed between (Ambiguous).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from handlers.box.api import BoxApi
from handlers.contract import Clock, Lane
from model.errors import Ambiguous, Refused

#: How often at most the root is listed again for a folder that is not there.
_LIST_AGAIN_S = 30.0


class Folders:
    """The managed folders: by exact name in the service account's root, or `id:123`."""

    def __init__(self, target: str, names: tuple[str, ...], apis: Mapping[Lane, BoxApi], clock: Clock) -> None:
        self.names = names
        self._target, self._apis, self._clock = target, apis, clock
        self._ids: dict[str, tuple[str, ...]] = {}
        self._listed = float("-inf")
        self._lock = asyncio.Lock()

    async def known(self, lane: Lane) -> list[tuple[str, str]]:
        """(name, id) of every managed folder that exists."""
        if any(not self._find(name) for name in self.names):
            await self._list(lane)
        return [(name, key) for name in self.names for key in self._find(name)]

    async def one(self, name: str, lane: Lane) -> str:
        """The id of the folder called `name`. Raises Ambiguous("folder_missing") or Ambiguous("folder_ambiguous")."""
        if not self._find(name):
            await self._list(lane)
        ids = self._find(name)
        if not ids:
            raise Ambiguous(
                f"{self._target}: no folder {name!r} in the service account's root: create it, or invite the service account as co-owner",
                "folder_missing",
            )
        if len(ids) > 1:
            raise Ambiguous(f"{self._target}: {len(ids)} folders are called {name!r}: name one as id:…", "folder_ambiguous")
        return ids[0]

    def forget(self) -> None:
        """An id turned out to be gone: the next look lists anew."""
        self._ids, self._listed = {}, float("-inf")

    def _find(self, name: str) -> tuple[str, ...]:
        return (name[3:],) if name.startswith("id:") else self._ids.get(name.casefold(), ())

    async def _list(self, lane: Lane) -> None:
        async with self._lock:
            if self._clock.monotonic() - self._listed < _LIST_AGAIN_S:
                return
            found: dict[str, tuple[str, ...]] = {}
            for item in await self._apis[lane].root_items():
                if item.get("type") == "folder" and isinstance(item.get("name"), str) and isinstance(item.get("id"), str):
                    key = item["name"].casefold()
                    found[key] = (*found.get(key, ()), item["id"])
            self._ids, self._listed = found, self._clock.monotonic()


class Groups:
    """Box groups by name; one that policy names and that does not exist is created when somebody needs it."""

    def __init__(self, target: str, apis: Mapping[Lane, BoxApi]) -> None:
        self._target, self._apis = target, apis
        self._ids: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def one(self, name: str, intent: str, lane: Lane) -> str:
        """The id of the group called `name`, created under `intent` where there is none. Raises Ambiguous("group_ambiguous")."""
        async with self._lock:
            if known := self._ids.get(name.casefold()):
                return known
            api = self._apis[lane]
            found = await self._search(api, name) or await self._create(api, name, intent)
            self._ids[name.casefold()] = found
            return found

    def forget(self, name: str) -> None:
        self._ids.pop(name.casefold(), None)

    async def _search(self, api: BoxApi, name: str) -> str:
        exact = [group for group in await api.groups_beginning_with(name) if str(group.get("name")).casefold() == name.casefold()]
        if len(exact) > 1:
            raise Ambiguous(f"{self._target}: {len(exact)} groups are called {name!r}", "group_ambiguous")
        return str(exact[0].get("id", "")) if exact else ""

    async def _create(self, api: BoxApi, name: str, intent: str) -> str:
        try:
            answer = await api.create_group(name, intent)
        except Refused as error:
            if error.code != "conflict":
                raise
            if found := await self._search(api, name):
                return found
            raise
        return str(answer.object().get("id", ""))
