"""Box's words: paths, parameters, pages, error bodies. Nothing here decides anything.

Ids are digits and nothing else before they go into a path. Lists are read by marker where Box has markers, else by offset; a list is
given only whole, when its chain of pages has ended. Source: Box platform API 2024.0 and its guides.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from handlers.answers import Answer, Dialect, unsafe_id
from handlers.client import Client
from model.errors import TemporaryError

USER_FIELDS = "id,name,login,status,role,space_amount,space_used,job_title,phone,address,language,timezone,is_external_collab_restricted"
#: Box answers a transfer within ten minutes, finished or not.
TRANSFER_TIMEOUT_S = 11 * 60.0
_ID = re.compile(r"\d{1,20}")
_MAX_PAGES = 2_000


def _read_error(body: Mapping[str, Any]) -> tuple[str, str]:
    """`{"type": "error", "code", "message", "context_info", "request_id"}`; some endpoints answer `{"errors": [{"reason", …}]}` alone."""
    code, message, reference = body.get("code"), body.get("message"), body.get("request_id")
    details = _objects(_object(body.get("context_info")).get("errors")) or _objects(body.get("errors"))
    if not isinstance(code, str) or not code:
        code = next((one["reason"] for one in details if isinstance(one.get("reason"), str)), "")
    texts = [message, *(one.get("message") for one in details[:2]), f"(request {reference})" if reference else None]
    return code, " ".join(text for text in texts if isinstance(text, str))


BOX = Dialect(
    "Box",
    _read_error,
    scope_codes=frozenset({"insufficient_scope"}),
    busy_codes=frozenset({"operation_blocked_temporary", "name_temporarily_reserved"}),
    request_id="box-request-id",
)


class BoxApi:
    """One enterprise, as its app's service account, through one lane's client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def aclose(self) -> None:
        await self._client.aclose()

    # -- users --------------------------------------------------------------------------------------------------------

    async def me(self) -> Answer:
        return await self._client.get("/users/me", {"fields": "id,name,login,role,enterprise"})

    async def user(self, user_id: str) -> Answer:
        return await self._client.get(f"/users/{_id(user_id)}", {"fields": USER_FIELDS})

    async def users_beginning_with(self, login: str) -> list[dict[str, Any]]:
        """Managed users whose login or name begins with `login` (all where it is empty): Box has no exact search."""
        params: dict[str, str | int] = {"user_type": "managed", "fields": USER_FIELDS, "usemarker": "true"}
        if login:
            params["filter_term"] = login
        return [user async for user in self._by_marker("/users", params)]

    async def create_user(self, body: dict[str, Any], intent: str) -> Answer:
        return await self._client.mutate("POST", "/users", intent, params={"fields": USER_FIELDS}, json=body)

    async def update_user(self, user_id: str, body: dict[str, Any], intent: str) -> Answer:
        return await self._client.mutate("PUT", f"/users/{_id(user_id)}", intent, params={"fields": USER_FIELDS}, json=body)

    async def delete_user(self, user_id: str, intent: str) -> Answer:
        """Never with `force`, which would delete what the person owns."""
        return await self._client.mutate("DELETE", f"/users/{_id(user_id)}", intent, params={"force": "false", "notify": "false"})

    async def terminate_sessions(self, user_id: str, login: str, intent: str) -> Answer:
        """202: a job at Box. Both lists are required and neither may be empty; a user named in both is one user."""
        body = {"user_ids": [_id(user_id)], "user_logins": [login]}
        return await self._client.mutate("POST", "/users/terminate_sessions", intent, json=body)

    async def transfer(self, source_id: str, target_id: str, intent: str) -> Answer:
        """Everything that the source owns into a new folder of the target; minutes, one way."""
        body = {"owned_by": {"id": _id(target_id)}}
        path = f"/users/{_id(source_id)}/folders/0"
        return await self._client.mutate("PUT", path, intent, params={"notify": "false"}, json=body, timeout_s=TRANSFER_TIMEOUT_S)

    # -- groups -------------------------------------------------------------------------------------------------------

    async def groups_beginning_with(self, name: str) -> list[dict[str, Any]]:
        return [group async for group in self._by_offset("/groups", {"filter_term": name, "fields": "id,name"})]

    async def create_group(self, name: str, intent: str) -> Answer:
        return await self._client.mutate("POST", "/groups", intent, params={"fields": "id,name"}, json={"name": name})

    async def memberships(self, user_id: str) -> list[dict[str, Any]]:
        return [one async for one in self._by_offset(f"/users/{_id(user_id)}/memberships", {})]

    async def add_membership(self, user_id: str, group_id: str, intent: str) -> Answer:
        body = {"user": {"id": _id(user_id)}, "group": {"id": _id(group_id)}, "role": "member"}
        return await self._client.mutate("POST", "/group_memberships", intent, json=body)

    async def remove_membership(self, membership_id: str, intent: str) -> Answer:
        return await self._client.mutate("DELETE", f"/group_memberships/{_id(membership_id)}", intent)

    # -- folders and collaborations -----------------------------------------------------------------------------------

    async def root_items(self, as_user: str = "") -> list[dict[str, Any]]:
        """What stands in the root of the service account, or of `as_user`."""
        params: dict[str, str | int] = {"fields": "id,type,name,owned_by", "usemarker": "true"}
        headers = {"As-User": _id(as_user)} if as_user else None
        return [item async for item in self._by_marker("/folders/0/items", params, headers)]

    async def collaborations(self, folder_id: str) -> list[dict[str, Any]]:
        """Direct collaborations on a folder, pending ones too; inherited ones stand on its ancestors."""
        return [one async for one in self._by_marker(f"/folders/{_id(folder_id)}/collaborations", {"fields": "accessible_by,role"})]

    async def add_collaboration(self, folder_id: str, user_id: str, role: str, intent: str) -> Answer:
        body = {
            "item": {"type": "folder", "id": _id(folder_id)},
            "accessible_by": {"type": "user", "id": _id(user_id)},
            "role": role,
        }
        return await self._client.mutate("POST", "/collaborations", intent, params={"notify": "false"}, json=body)

    async def set_role(self, collaboration_id: str, role: str, intent: str) -> Answer:
        return await self._client.mutate("PUT", f"/collaborations/{_id(collaboration_id)}", intent, json={"role": role})

    async def remove_collaboration(self, collaboration_id: str, intent: str) -> Answer:
        return await self._client.mutate("DELETE", f"/collaborations/{_id(collaboration_id)}", intent)

    # -- pages --------------------------------------------------------------------------------------------------------

    async def _by_marker(
        self, path: str, params: Mapping[str, str | int], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        query, seen = {"limit": 1000} | dict(params), {""}
        while True:
            answer = await self._client.get(path, query, headers)
            page = answer.object()
            for one in _entries(answer, page):
                yield one
            marker = page.get("next_marker")
            if not marker:
                return
            if not isinstance(marker, str) or marker in seen or len(seen) > _MAX_PAGES:
                raise TemporaryError(f"{answer.what}: the pages lead in a circle")
            seen.add(marker)
            query["marker"] = marker

    async def _by_offset(self, path: str, params: Mapping[str, str | int]) -> AsyncIterator[dict[str, Any]]:
        offset = 0
        while True:
            answer = await self._client.get(path, {"limit": 1000, "offset": offset} | dict(params))
            page = answer.object()
            for one in _entries(answer, page):
                yield one
            step, total = page.get("limit"), page.get("total_count")
            if not isinstance(total, int) or not isinstance(step, int) or step < 1:
                raise answer.unsettled("answered with a page that does not say how long the list is")
            offset += step
            if offset >= total:
                return


def _entries(answer: Answer, page: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not isinstance(page.get("entries"), list):
        raise answer.unsettled("answered without entries")
    return _objects(page["entries"])


def _id(value: str) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise unsafe_id("a Box object")
    return value


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
