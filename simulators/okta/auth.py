"""Who calls the org: an SSWS token (its admin's rights) or a service app's OAuth token (its scopes).

The token endpoint checks an assertion as Okta does: signature by a registered public key chosen by `kid`, `iss` = `sub` = client id,
`aud` = the token URL, `exp` ahead by an hour at most, a `jti` only once. Rejected: accepting any signed token; a client whose
assertion is wrong in one claim would pass here and fail at the first real org.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization

from simulators.base import Clock, Tokens, bearer, json_response
from simulators.okta import errors

ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TOKEN_LIFETIME_S = 3600


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An SSWS token: `id` is what the log shows, `owner` the Okta id of the admin who made it."""

    value: str
    id: str
    owner: str

    def __repr__(self) -> str:
        return f"ApiToken(id={self.id!r}, owner={self.owner!r})"


@dataclass(frozen=True, slots=True)
class ServiceApp:
    """An API service app: public keys as a JWK set, scopes that an admin granted it."""

    client_id: str
    jwks: KeySetSerialization
    scopes: frozenset[str]
    label: str = "Portcullis"


@dataclass(frozen=True, slots=True)
class Credential:
    """What one request may do. `scopes` None: all that the admin may."""

    token: ApiToken | None = None
    app: ServiceApp | None = None
    scopes: frozenset[str] | None = None

    def may(self, scope: str) -> bool:
        """`x.manage` includes `x.read`."""
        return self.scopes is None or scope in self.scopes or scope.removesuffix(".read") + ".manage" in self.scopes


class Gate:
    """All credentials of one org."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._api_tokens: dict[str, ApiToken] = {}
        self._apps: dict[str, ServiceApp] = {}
        self._tokens = Tokens(clock, TOKEN_LIFETIME_S)
        self._granted: dict[str, Credential] = {}
        self._used: dict[tuple[str, str], float] = {}

    def add_token(self, token: ApiToken) -> None:
        self._api_tokens[token.value] = token

    def add_app(self, app: ServiceApp) -> None:
        self._apps[app.client_id] = app

    def revoke_all(self) -> None:
        """Every credential that was given out ends: what an admin does after a leak."""
        self._api_tokens.clear()
        self._tokens.revoke_all()

    def credential(self, request: web.BaseRequest) -> Credential:
        """Raises OktaError 401 where the header names no valid token."""
        if (ssws := bearer(request, "SSWS")) is not None and ssws in self._api_tokens:
            return Credential(token=self._api_tokens[ssws])
        if (subject := self._tokens.subject(bearer(request))) is not None:
            return self._granted[subject]
        raise errors.invalid_token()

    def grant(self, form: Mapping[str, Any], token_url: str) -> web.Response:
        """The answer of `POST /oauth2/v1/token`."""
        if form.get("grant_type") != "client_credentials":
            return _oauth_error(400, "unsupported_grant_type", "The authorization grant type is not supported by the authorization server.")
        if form.get("client_assertion_type") != ASSERTION_TYPE or not form.get("client_assertion"):
            return _oauth_error(401, "invalid_client", "The client secret supplied for a confidential client is invalid.")
        app, why = self._authenticate(str(form["client_assertion"]), token_url)
        if app is None:
            return _oauth_error(401, "invalid_client", why)
        wanted = frozenset(str(form.get("scope", "")).split())
        if not wanted:
            return _oauth_error(400, "invalid_scope", "The 'scope' parameter is missing.")
        if refused := sorted(wanted - app.scopes):
            return _oauth_error(400, "invalid_scope", f"One or more scopes are not configured for the client: {', '.join(refused)}")
        subject = f"{app.client_id} {' '.join(sorted(wanted))}"
        self._granted[subject] = Credential(app=app, scopes=wanted)
        token = self._tokens.issue(subject)
        body = {"token_type": "Bearer", "expires_in": TOKEN_LIFETIME_S, "access_token": token, "scope": " ".join(sorted(wanted))}
        return json_response(body, headers={"Cache-Control": "no-store"})

    def _authenticate(self, assertion: str, token_url: str) -> tuple[ServiceApp | None, str]:
        app = self._apps.get(_claimed_client(assertion))
        if app is None:
            return None, "Invalid value for 'client_id' parameter."
        try:
            token = jwt.decode(assertion, KeySet.import_key_set(app.jwks), algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            return None, "The client_assertion signature is invalid."
        why = self._wrong_claim(token.claims, app, token_url)
        return (None, why) if why else (app, "")

    def _wrong_claim(self, claims: Mapping[str, Any], app: ServiceApp, token_url: str) -> str:
        now = self.clock()
        if claims.get("iss") != app.client_id or claims.get("sub") != app.client_id:
            return "The client_assertion token must have 'iss' and 'sub' claims that are the client id."
        if claims.get("aud") != token_url and claims.get("aud") != [token_url]:
            return "The audience claim for client_assertion must be the endpoint invoked for the request."
        expiry = claims.get("exp")
        if isinstance(expiry, bool) or not isinstance(expiry, int | float):
            return "The client_assertion token must have an 'exp' claim."
        if expiry <= now:
            return "The client_assertion token is expired."
        if expiry > now + 3600:
            return "The client_assertion token has an expiration too far into the future."
        return self._spend(app.client_id, claims.get("jti"), float(expiry))

    def _spend(self, client_id: str, jti: object, expiry: float) -> str:
        if jti is None:
            return ""
        now = self.clock()
        self._used = {key: end for key, end in self._used.items() if end > now}
        key = (client_id, str(jti))
        if key in self._used:
            return "The client_assertion token has already been used: its 'jti' is not unique."
        self._used[key] = expiry
        return ""


def _claimed_client(assertion: str) -> str:
    """The `sub` that the assertion claims; nothing is believed before the signature is checked against that client's keys."""
    try:
        part = assertion.split(".")[1]
        claims = orjson.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return str(claims.get("sub", "")) if isinstance(claims, dict) else ""
    except (IndexError, ValueError):
        return ""


def _oauth_error(status: int, error: str, description: str) -> web.Response:
    return json_response({"error": error, "error_description": description}, status)
