"""What every route of the org needs: who calls, whether they may, the body, and the moment at which state changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from aiohttp import web

from simulators.okta import errors
from simulators.okta.auth import Credential
from simulators.okta.events import Caller, entity, user_entity
from simulators.okta.org import Org, Signal

CREDENTIAL = web.RequestKey("credential", Credential)
Answer = Callable[[web.Request], Awaitable[web.Response]]


class _Host(Protocol):
    """The simulator, as far as routes see it."""

    app: web.Application

    def changed(self, request: web.Request) -> None: ...


class Door:
    def __init__(self, host: _Host, org: Org) -> None:
        self._host, self.org = host, org

    def route(self, method: str, path: str, scope: str, answer: Answer) -> None:
        """An OAuth token needs `scope`; an SSWS token may what its admin may."""

        async def checked(request: web.Request) -> web.StreamResponse:
            if not request[CREDENTIAL].may(scope):
                raise errors.forbidden()
            return await answer(request)

        self._host.app.router.add_route(method, path, checked)

    def signal(self, request: web.Request) -> Signal:
        return lambda: self._host.changed(request)

    def origin(self, request: web.Request) -> str:
        return str(request.url.origin())

    def user_id(self, request: web.Request) -> str:
        """The id or login of the path; `me` is the admin who owns the token, and nobody for a service app."""
        given = request.match_info["id"]
        token = request[CREDENTIAL].token
        return token.owner if given == "me" and token is not None else given

    def caller(self, request: web.Request) -> Caller:
        """How the log will show this caller."""
        credential = request[CREDENTIAL]
        common = {"ip": request.remote or "127.0.0.1", "agent": request.headers.get("User-Agent", "Unknown"), "uri": request.path}
        if credential.app is not None:
            client = credential.app.client_id
            actor = entity("PublicClientAppEntity", client, client, credential.app.label)
            return Caller(actor, client_id=client, detail={"requestApiTokenClientId": client}, **common)
        assert credential.token is not None
        owner = self.org.user(credential.token.owner)
        return Caller(user_entity(owner), detail={"requestApiTokenId": credential.token.id}, **common)

    async def body(self, request: web.Request) -> dict[str, Any]:
        """Raises OktaError 400 where it is no JSON object."""
        try:
            value = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            raise errors.ill_formed() from None
        if not isinstance(value, dict):
            raise errors.ill_formed()
        return value
