"""One HTTP client per (connector, lane): credentials, limits, deadlines, intent header; errors mapped once (handlers.answers).

A client never follows a redirect, never sends a token to another origin, ignores proxy variables of the environment, keeps no
cookies and reads no more of a body than its cap. It repeats a request in two cases only: once after a 401 with a renewed credential
(a refused call has no effect), and once for a GET whose connection failed. Every other retry is the durable schedule's.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import httpx
import orjson

from handlers.answers import MAX_DELAY_S, Answer, Dialect, check_connector, check_object, check_token, delay_of
from handlers.auth import Auth
from handlers.contract import Clock, last_word
from handlers.limits import Limits
from model.errors import ConfigurationError, CredentialsRefused, OutcomeUnknown, PermanentError, TemporaryError, UnsafePlan
from model.settings import checked_url

INTENT_HEADER = "X-Portcullis-Intent"
USER_AGENT = "Portcullis/0.1"
_NOTHING_WENT_OUT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_INTENT = re.compile(r"[\x21-\x7e]{1,200}")
_CONCURRENCY_BACKOFF_S = 30.0


class Client:
    """`base_url` is https, or http to a loopback address. `read_only` refuses every mutating call (a dry run).

    Raises only TemporaryError (RateLimited, OutcomeUnknown, BreakerOpen) and PermanentError (CredentialsRefused, Refused, UnsafePlan).
    """

    def __init__(
        self,
        dialect: Dialect,
        base_url: str,
        auth: Auth,
        limits: Limits,
        clock: Clock,
        *,
        timeout_s: float = 15.0,
        max_body: int = 32 * 1024 * 1024,
        read_only: bool = False,
        proxy: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        try:
            self._base = checked_url(base_url)
        except ValueError as error:
            raise ConfigurationError(f"{limits.connector}: {error}") from None
        self._dialect, self._auth, self.limits, self._clock = dialect, auth, limits, clock
        self._timeout, self._max_body, self._read_only, self._jitter = timeout_s, max_body, read_only, jitter
        self._crowded = 0
        self._http = httpx.AsyncClient(
            timeout=_deadlines(timeout_s),
            limits=httpx.Limits(max_connections=limits.connections, max_keepalive_connections=limits.connections, keepalive_expiry=15),
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
            follow_redirects=False,
            trust_env=False,
            verify=_tls(),
            proxy=proxy,
            transport=transport,
        )
        self._http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    async def aclose(self) -> None:
        await self._http.aclose()

    def now(self) -> datetime:
        return self._clock.now()

    async def get(self, path: str, params: Mapping[str, str | int] | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """A read of our own origin; `path` begins with / and holds only checked or quoted segments."""
        return await self._call("GET", self._url(path, params), headers=headers)

    async def follow(self, url: str) -> Answer:
        """A page link of the vendor, verbatim; another origin raises PermanentError("foreign_next") before anything goes out."""
        return await self._call("GET", self.same_origin(url))

    async def mutate(
        self,
        method: str,
        path: str,
        intent: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """A call that changes something, in the name of `intent`. With `timeout_s` it queues at the gate of long calls."""
        if self._read_only:
            raise UnsafePlan(f"{self.limits.connector}: a dry run makes no {method} call", "dry_run")
        if not _INTENT.fullmatch(intent):
            raise PermanentError("an intent's id must be 1 to 200 printable ASCII characters", "unsafe_intent")
        return await self._call(method, self._url(path, params), {INTENT_HEADER: intent}, json, timeout_s, mutating=True)

    async def raw(self, url: str) -> Answer:
        """A GET of our own origin whose HTTP status is the caller's business (the log: its poller paces itself). Neither budget
        nor breaker stand before it; a 401 renews the credential once. Raises TemporaryError where no whole answer came."""
        return await self._authorized(_Outgoing("GET", self.same_origin(url), {}, None, mutating=False), self._timeout)

    def same_origin(self, url: str) -> httpx.URL:
        """`url` parsed by the very parser that will send it. Raises PermanentError("foreign_next")."""
        base = httpx.URL(self._base)
        try:
            link = base.join(url)
        except (httpx.InvalidURL, ValueError, TypeError):
            raise PermanentError("a page link cannot be read as a URL", "foreign_next") from None
        if (link.scheme, link.host, _port(link)) != (base.scheme, base.host, _port(base)) or link.userinfo or "\\" in url:
            raise PermanentError(f"a page link leads away from {base.host}: refused before the token was sent", "foreign_next")
        return link

    def _url(self, path: str, params: Mapping[str, str | int] | None) -> httpx.URL:
        return httpx.URL(self._base + path, params=dict(params) if params else None)

    async def _call(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        timeout_s: float | None = None,
        *,
        mutating: bool = False,
    ) -> Answer:
        outgoing = _Outgoing(method, url, dict(headers or {}), None if json is None else orjson.dumps(json), mutating)
        async with self.limits.slot(long=timeout_s is not None):
            answer = await self._authorized(outgoing, timeout_s or self._timeout)
            delay = self._heed(answer)
            check_connector(answer, self._dialect, delay)
        check_object(answer, self._dialect, delay)
        return answer

    async def _authorized(self, outgoing: _Outgoing, timeout_s: float) -> Answer:
        try:
            header = await self._auth.header(self._post_form)
            answer = await self._send_patiently(outgoing, header, timeout_s)
            if answer.status == 401 and await self._auth.renew(header, self._post_form):
                renewed = await self._auth.header(self._post_form)
                answer = await self._send_patiently(outgoing, renewed, timeout_s)
        except ConfigurationError as error:
            raise CredentialsRefused(f"{self.limits.connector}: {error}", "no_credential") from None
        return answer

    async def _send_patiently(self, outgoing: _Outgoing, authorization: str, timeout_s: float) -> Answer:
        headers = outgoing.headers | {"Authorization": authorization}
        if outgoing.content is not None:
            headers["Content-Type"] = "application/json"
        request = self._http.build_request(
            outgoing.method, outgoing.url, headers=headers, content=outgoing.content, timeout=_deadlines(timeout_s)
        )
        if outgoing.mutating and (fence := last_word.get()) is not None:
            fence()
        try:
            return await self._send(request, timeout_s, mutating=outgoing.mutating)
        except _ConnectionLost:
            if outgoing.mutating or self.limits.retries.try_retry() > 0:
                raise
            return await self._send(request, timeout_s, mutating=False)

    async def _send(self, request: httpx.Request, timeout_s: float, *, mutating: bool) -> Answer:
        what = f"{self.limits.connector}: {request.method} {request.url.path}"
        unknown: type[TemporaryError] = OutcomeUnknown if mutating else TemporaryError
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(request, what, mutating)
        except _NOTHING_WENT_OUT as error:
            raise _ConnectionLost(f"{what}: no connection ({type(error).__name__})") from None
        except (TimeoutError, httpx.TimeoutException):
            raise unknown(f"{what}: no answer within {timeout_s:.0f} s") from None
        except (httpx.ReadError, httpx.RemoteProtocolError) as error:
            lost: type[TemporaryError] = OutcomeUnknown if mutating else _ConnectionLost
            raise lost(f"{what}: the connection broke ({type(error).__name__})") from None
        except httpx.HTTPError as error:
            raise unknown(f"{what}: no whole answer ({type(error).__name__})") from None

    async def _exchange(self, request: httpx.Request, what: str, mutating: bool) -> Answer:
        response = await self._http.send(request, stream=True)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > self._max_body:
                    raise _too_large(what, self._max_body, mutating)
        finally:
            await response.aclose()
        headers = {name.lower(): value for name, value in response.headers.items()}
        request_id = headers.get(self._dialect.request_id) or None
        links = tuple(response.headers.get_list("link"))
        return Answer(what, mutating, response.status_code, headers, bytes(body), links, request_id)

    async def _post_form(self, url: str, form: dict[str, str]) -> dict[str, Any]:
        request = self._http.build_request("POST", url, data=form)
        answer = await self._send(request, self._timeout, mutating=False)
        return check_token(answer, self._clock.now())

    def _heed(self, answer: Answer) -> float | None:
        """Seconds that the vendor asks for. Its own count of what is left slows this lane; a 429 that names no time (too many
        calls at a time) doubles a bounded pause."""
        delay = delay_of(answer, self._clock.now())
        if answer.status != 429:
            self._crowded = 0
            self.limits.heed(answer.number("x-rate-limit-limit"), answer.number("x-rate-limit-remaining"), delay)
            return delay
        if delay is None:
            delay = min(2.0**self._crowded, _CONCURRENCY_BACKOFF_S)
            self._crowded = min(self._crowded + 1, 10)
        return min(delay + self._jitter(), MAX_DELAY_S)


@cache
def _tls() -> ssl.SSLContext:
    """Reading the certificate authorities takes 20 ms: once a process, not once a client."""
    return httpx.create_ssl_context(trust_env=False)


def _deadlines(timeout_s: float) -> httpx.Timeout:
    return httpx.Timeout(timeout_s, connect=min(5.0, timeout_s))


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A request before its credential is put on, since a 401 may ask for another one."""

    method: str
    url: httpx.URL
    headers: dict[str, str]
    content: bytes | None = field(repr=False)
    mutating: bool


class _ConnectionLost(TemporaryError):
    """Nothing went out, or a GET's connection broke: one quick repeat of a GET is harmless."""


def _too_large(what: str, cap: int, mutating: bool) -> Exception:
    message = f"{what} answered with more than {cap} bytes"
    return OutcomeUnknown(message) if mutating else PermanentError(message, "body_too_large")


def _port(url: httpx.URL) -> int | None:
    return url.port or {"https": 443, "http": 80}.get(url.scheme)
