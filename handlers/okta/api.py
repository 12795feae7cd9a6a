"""Okta's words: paths, parameters, pages, error bodies. Nothing here decides anything.

An id goes into a path only after `is_safe_id`; a login is quoted, and refused where its shape could leave its segment.
Pages are followed by their `next` links, verbatim and on the same origin only. Source: Okta management API 2026.06, System Log query.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from handlers.answers import Answer, Dialect, delay_of, error_of, unsafe_id
from handlers.client import Client
from model.errors import MalformedEvent, PermanentError, TemporaryError
from model.event import is_safe_id, split_page


def _read_error(body: Mapping[str, Any]) -> tuple[str, str]:
    code, summary = body.get("errorCode"), body.get("errorSummary")
    if not isinstance(code, str) or not code:
        return "", ""
    causes = [one["errorSummary"] for one in _objects(body.get("errorCauses")) if isinstance(one.get("errorSummary"), str)]
    return code, ": ".join([summary if isinstance(summary, str) else "", *causes[:2]])


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


#: E0000112: the user is still being activated; E0000195: a conflict with a change under way. Both pass.
OKTA = Dialect("Okta", _read_error, busy_codes=frozenset({"E0000112", "E0000195"}), request_id="x-okta-request-id")

_LOGIN = re.compile(r"[^\s/\\?#%\x00-\x1f\x7f\ud800-\udfff]{1,100}")
_MAX_PAGES = 10_000


@dataclass(frozen=True, slots=True)
class LogPage:
    """One answer of `/api/v1/logs`, whatever its status. `body` is the JSON array as it came, `events` its elements' exact bytes
    (both empty unless 200). `next` is the checkpoint: the link to ask next, of our origin. `limit`, `remaining`, `reset` (epoch
    seconds) are the rate headers; `date` is the server's clock; `retry_after` seconds, 0 … 300, by Retry-After or Reset."""

    status: int
    body: bytes = field(default=b"", repr=False)
    events: tuple[bytes, ...] = field(default=(), repr=False)
    next: str | None = None
    date: datetime | None = None
    limit: int | None = None
    remaining: int | None = None
    reset: int | None = None
    retry_after: float | None = None
    error_code: str = ""
    request_id: str | None = None


class UnreadablePage(TemporaryError):
    """200, and no whole array: `body` as it came."""

    def __init__(self, message: str, body: bytes) -> None:
        super().__init__(message)
        self.body = body


class OktaApi:
    """One tenant through one lane's client; `url` is the org's."""

    def __init__(self, client: Client, url: str) -> None:
        self._client, self._url = client, url.rstrip("/")

    async def aclose(self) -> None:
        await self._client.aclose()

    # -- people -------------------------------------------------------------------------------------------------------

    async def user(self, user_id: str) -> Answer:
        return await self._client.get(_user(user_id))

    async def user_by_login(self, login: str) -> Answer:
        """By full login; Okta also answers to an unambiguous short name, so the caller compares."""
        if not _LOGIN.fullmatch(login) or login.lower() in ("me", ".", ".."):
            raise unsafe_id("a login")
        return await self._client.get(f"/api/v1/users/{quote(login, safe='@')}")

    async def me(self) -> Answer:
        """The administrator whose token we hold."""
        return await self._client.get("/api/v1/users/me")

    async def users(self, limit: int = 200) -> AsyncIterator[dict[str, Any]]:
        """Every user but the deprovisioned ones; ends only when the chain of pages has ended."""
        async for user in self._pages("/api/v1/users", {"limit": limit}):
            yield user

    async def user_groups(self, user_id: str) -> list[dict[str, Any]]:
        return [group async for group in self._pages(f"{_user(user_id)}/groups", None)]

    async def group_members(self, group_id: str, limit: int = 200) -> AsyncIterator[dict[str, Any]]:
        if not is_safe_id(group_id):
            raise unsafe_id("a group")
        async for user in self._pages(f"/api/v1/groups/{group_id}/users", {"limit": limit}):
            yield user

    # -- containment --------------------------------------------------------------------------------------------------

    async def suspend(self, user_id: str, intent: str) -> Answer:
        """Only from ACTIVE; 400 otherwise."""
        return await self._client.mutate("POST", f"{_user(user_id)}/lifecycle/suspend", intent)

    async def unsuspend(self, user_id: str, intent: str) -> Answer:
        """Only from SUSPENDED; 400 otherwise."""
        return await self._client.mutate("POST", f"{_user(user_id)}/lifecycle/unsuspend", intent)

    async def clear_sessions(self, user_id: str, intent: str) -> Answer:
        """Ends sessions at Okta, revokes OAuth tokens, forgets remembered devices."""
        params = {"oauthTokens": "true", "forgetDevices": "true"}
        return await self._client.mutate("DELETE", f"{_user(user_id)}/sessions", intent, params=params)

    # -- the log ------------------------------------------------------------------------------------------------------

    def first_log_url(self, since: str, limit: int, until: str | None = None) -> str:
        """Where a tail begins. Without `until` it is a polling query (order of persistence, endless); with it a bounded one."""
        query = {"since": since, "until": until, "sortOrder": "ASCENDING", "limit": str(limit)}
        return f"{self._url}/api/v1/logs?" + urlencode({name: value for name, value in query.items() if value is not None})

    async def log_page(self, url: str) -> LogPage:
        """One page by a URL of `first_log_url` or by a `next` link, verbatim. Never raises for an HTTP status.

        Raises TemporaryError where no whole array came (transport; UnreadablePage: HTML, a cut body), PermanentError("foreign_next") for
        a link to another origin (asked for, before the token is sent; or offered, so that it never becomes a checkpoint),
        PermanentError("body_too_large"), CredentialsRefused where no credential can be had.
        """
        answer = await self._client.raw(url)
        page = LogPage(
            status=answer.status,
            date=answer.date,
            limit=answer.number("x-rate-limit-limit"),
            remaining=answer.number("x-rate-limit-remaining"),
            reset=answer.number("x-rate-limit-reset"),
            retry_after=delay_of(answer, self._client.now()),
            error_code=error_of(answer, OKTA)[0] if answer.status != 200 else "",
            request_id=answer.request_id,
        )
        if answer.status != 200:
            return page
        try:
            events = split_page(answer.body)
        except MalformedEvent:
            kind = "HTML" if answer.body.lstrip()[:1] == b"<" else "a cut or broken body"
            error = answer.unsettled(f"answered 200 with {kind} instead of events")
            raise UnreadablePage(str(error), answer.body) from None
        following = answer.next_link()
        if following is not None:
            self._client.same_origin(following)
        return replace(page, body=answer.body, events=tuple(events), next=following)

    async def _pages(self, path: str, params: Mapping[str, str | int] | None) -> AsyncIterator[dict[str, Any]]:
        answer = await self._client.get(path, params)
        seen: set[str] = set()
        while True:
            page = answer.data()
            if not isinstance(page, list):
                raise answer.unsettled("answered without the JSON array that was expected")
            for one in _objects(page):
                yield one
            following = answer.next_link()
            if following is None:
                return
            if following in seen or len(seen) >= _MAX_PAGES:
                raise TemporaryError(f"{answer.what}: the pages lead in a circle")
            seen.add(following)
            answer = await self._client.follow(following)


def _user(user_id: str) -> str:
    if not is_safe_id(user_id):
        raise unsafe_id("a user")
    return f"/api/v1/users/{user_id}"


def checked_id(answer: Answer, wanted: str) -> dict[str, Any]:
    """The user object of an answer, only if it is the user that was asked for. Raises PermanentError("id_mismatch")."""
    user = answer.object()
    if user.get("id") != wanted:
        raise PermanentError(f"{answer.what} answered about somebody else", "id_mismatch")
    return user
