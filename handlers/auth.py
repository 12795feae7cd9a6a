"""How a client proves who it is: a static token, Okta's private_key_jwt, Box's client credentials.

A secret is read through a callable when it is needed, so a rotated file is picked up after the first 401 without a restart; it
lives in SecretStr until the header is built. Tokens are fetched single flight: a hundred callers that meet one 401 cause one
request. Rejected: httpx's own auth flow (it repeats the request inside the transport, unseen by limits and intents).
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from pydantic import SecretStr

from handlers.contract import Clock
from model.errors import ConfigurationError, TemporaryError

#: Posts a form to a token endpoint and gives the JSON object of a 200; everything else is raised, mapped.
PostForm = Callable[[str, dict[str, str]], Awaitable[dict[str, Any]]]
ReadSecret = Callable[[], SecretStr]

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#: A token is renewed this long before it ends, so that none ends on its way.
_EARLY_S = 60.0


class Auth(Protocol):
    async def header(self, post: PostForm) -> str:
        """The value of `Authorization`."""

    async def renew(self, refused: str, post: PostForm) -> bool:
        """After a 401 to `refused`: True where another value is worth one more try."""


class StaticToken:
    """`<scheme> <token>`; after a 401 the secret is read again, which pays off where it was rotated."""

    def __init__(self, scheme: str, read: ReadSecret) -> None:
        self._scheme, self._read = scheme, read
        self._token: SecretStr | None = None

    async def header(self, post: PostForm) -> str:
        if self._token is None:
            self._token = self._read()
        token = self._token.get_secret_value()
        if not token.isascii() or not token.isprintable():
            self._token = None
            raise ConfigurationError("the token holds characters that no header can carry: store the token alone")
        return f"{self._scheme} {token}"

    async def renew(self, refused: str, post: PostForm) -> bool:
        self._token = None
        return await self.header(post) != refused


class _Fetched(ABC):
    """A bearer token that is fetched, kept until shortly before its end, and fetched again once after a 401."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token: SecretStr | None = None
        self._until = 0.0

    async def header(self, post: PostForm) -> str:
        async with self._lock:
            if self._token is None or self._clock.monotonic() >= self._until:
                await self._fetch(post)
            return self._value()

    async def renew(self, refused: str, post: PostForm) -> bool:
        async with self._lock:
            if self._token is None or self._value() == refused:
                await self._fetch(post)
            return self._value() != refused

    def _value(self) -> str:
        assert self._token is not None
        return f"Bearer {self._token.get_secret_value()}"

    async def _fetch(self, post: PostForm) -> None:
        self._token = None
        answer = await self._ask(post)
        token, lifetime = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise TemporaryError("the token endpoint answered without an access token")
        seconds = float(lifetime) if isinstance(lifetime, int | float) and lifetime > 0 else 600.0
        self._token = SecretStr(token)
        self._until = self._clock.monotonic() + max(seconds - _EARLY_S, seconds / 2)

    @abstractmethod
    async def _ask(self, post: PostForm) -> dict[str, Any]:
        """The token endpoint's answer."""


class BoxClientCredentials(_Fetched):
    """Client Credentials Grant: a token of the app's service account, without a refresh token."""

    def __init__(self, clock: Clock, token_url: str, client_id: str, read: ReadSecret, enterprise_id: str) -> None:
        super().__init__(clock)
        self._url, self._client_id, self._read, self._enterprise = token_url, client_id, read, enterprise_id

    async def _ask(self, post: PostForm) -> dict[str, Any]:
        return await post(
            self._url,
            {
                "grant_type": "client_credentials",
                "client_id": self._client_id,
                "client_secret": self._read().get_secret_value(),
                "box_subject_type": "enterprise",
                "box_subject_id": self._enterprise,
            },
        )


class PrivateKeyJwt(_Fetched):
    """Okta's org authorization server: client_credentials with a signed assertion, the only way to Okta's API scopes.

    The key file holds a private JWK (with its `kid`) or PEM. Each assertion lives five minutes and carries its own `jti`.
    """

    def __init__(self, clock: Clock, token_url: str, client_id: str, read: ReadSecret, scopes: tuple[str, ...]) -> None:
        super().__init__(clock)
        self._url, self._client_id, self._read, self._scopes = token_url, client_id, read, scopes

    async def _ask(self, post: PostForm) -> dict[str, Any]:
        return await post(
            self._url,
            {
                "grant_type": "client_credentials",
                "scope": " ".join(self._scopes),
                "client_assertion_type": _ASSERTION_TYPE,
                "client_assertion": self._assertion(),
            },
        )

    def _assertion(self) -> str:
        key, algorithm = read_private_key(self._read())
        now = int(self._clock.now().timestamp())
        header = {"alg": algorithm} | ({"kid": key.kid} if key.kid else {})
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._url,
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_urlsafe(24),
        }
        return jwt.encode(header, claims, key, algorithms=[algorithm])


def read_private_key(secret: SecretStr) -> tuple[RSAKey | ECKey, str]:
    """A private key and the algorithm that goes with it. Raises ConfigurationError, which never quotes the key."""
    text = secret.get_secret_value()
    try:
        material = orjson.loads(text) if text.lstrip().startswith("{") else text
        kinds = (ECKey,) if isinstance(material, dict) and material.get("kty") == "EC" else (RSAKey, ECKey)
        for kind in kinds:
            try:
                key = kind.import_key(material)
                break
            except (JoseError, ValueError, TypeError, KeyError):
                continue
        else:
            raise ValueError
        if not key.is_private:
            raise ValueError
    except (JoseError, ValueError, TypeError, KeyError):
        raise ConfigurationError("the OAuth key is no private RSA or EC key: store a private JWK or PEM in key_file") from None
    if isinstance(key, RSAKey):
        return key, "RS256"
    return key, {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}.get(key.curve_name, "ES256")
