"""Tokens by client credentials. Errors have OAuth's shape, not that of the API; every wrong credential reads the same."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from aiohttp import web

from simulators.base import json_response, read_body
from simulators.box.room import Room


def _oauth_error(error: str, description: str) -> web.Response:
    return json_response({"error": error, "error_description": description}, 400)


class OAuthRoom(Room):
    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [web.post("/oauth2/token", self.token), web.post("/oauth2/revoke", self.revoke)]

    async def token(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if form is None or not form.get("grant_type"):
            return _oauth_error("invalid_request", "Invalid grant_type parameter or parameter missing")
        if form["grant_type"] != "client_credentials":
            return _oauth_error("unsupported_grant_type", "The grant type is not allowed for this app")
        if not self._is_ours(form) or not self._is_allowed(form):
            return _oauth_error("invalid_grant", "Grant credentials are invalid")
        token = self.box.tokens.issue(f"enterprise:{form['box_subject_id']}")
        body = {"access_token": token, "expires_in": int(self.box.tokens.lifetime_s), "restricted_to": [], "token_type": "bearer"}
        return json_response(body)

    async def revoke(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if form is None or not self._is_ours(form):
            return _oauth_error("invalid_client", "The client credentials are invalid")
        self.box.tokens.revoke(form.get("token", ""))
        return web.Response()

    async def _form(self, request: web.Request) -> dict[str, str] | None:
        if request.content_type != "application/x-www-form-urlencoded":
            return None
        form = read_body(await request.read(), request.content_type)
        return form if isinstance(form, dict) else None

    def _is_ours(self, form: dict[str, str]) -> bool:
        return form.get("client_id") == self.box.client_id and hmac.compare_digest(
            form.get("client_secret", "").encode(), self.box.client_secret.encode()
        )

    def _is_allowed(self, form: dict[str, str]) -> bool:
        """The app may act for its enterprise; user tokens were not granted to it."""
        return form.get("box_subject_type") == "enterprise" and form.get("box_subject_id") == self.store.enterprise
