"""Slack through slack_sdk's AsyncWebClient: post, update, find again. Errors mapped to ours; nothing is retried in here.

Slack knows no idempotency key, so a post carries its intent in the message metadata and is read back by it after an answer that nobody
saw (D25). The SDK's own retries are off (a repeated chat.postMessage posts twice), and so are its proxies from the environment, its
debug log of message bodies, and redirects. One message a second and channel is the queue's business; a 429 raises RateLimited.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from handlers.answers import Answer, clean, delay_of
from handlers.auth import ReadSecret
from handlers.client import INTENT_HEADER
from handlers.contract import Clock
from model.errors import (
    ConfigurationError,
    CredentialsRefused,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    Refused,
    TemporaryError,
    UnsafePlan,
)

EVENT_TYPE = "portcullis"
Blocks = Sequence[dict[str, Any]]

_CREDENTIALS = frozenset(
    [
        "invalid_auth",
        "not_authed",
        "account_inactive",
        "token_revoked",
        "token_expired",
        "missing_scope",
        "no_permission",
        "org_login_required",
    ]
)
_LIMITED = frozenset({"ratelimited", "rate_limited"})
_PASSING = frozenset(["internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"])
_READS = frozenset({"auth.test", "conversations.history", "users.lookupByEmail"})
_HISTORY_PAGES = 5

_quiet = logging.getLogger("handlers.slack.sdk")
_quiet.setLevel(logging.WARNING)


class SlackSender:
    """`url` is Slack's API root, with or without the last slash. Raises only TemporaryError and PermanentError and their children."""

    def __init__(
        self,
        read_token: ReadSecret,
        url: str,
        clock: Clock,
        *,
        timeout_s: float = 10.0,
        proxy: str | None = None,
        read_only: bool = False,
    ) -> None:
        self._read_token, self._url, self._clock = read_token, url, clock
        self._timeout, self._proxy, self._read_only = timeout_s, proxy, read_only
        self._client: AsyncWebClient | None = None
        self._session: aiohttp.ClientSession | None = None
        self._channels: dict[str, str] = {}

    async def aclose(self) -> None:
        session, self._session, self._client = self._session, None, None
        if session is not None:
            await session.close()

    async def auth_test(self) -> dict[str, Any]:
        """Slack's `team`, `user`, `bot_id`, … of our token."""
        return _data(await self._call("auth.test", {}))

    async def post(
        self,
        channel: str,
        text: str,
        blocks: Blocks,
        intent: str,
        *,
        metadata: Mapping[str, str] | None = None,
        thread_ts: str | None = None,
        broadcast: bool = False,
    ) -> str:
        """Posts and returns the message's `ts`. The intent is added to `metadata`, by which `find_by_intent` finds it."""
        body = self._message(text, blocks, intent, metadata) | {"channel": channel, "unfurl_links": False, "unfurl_media": False}
        if thread_ts is not None:
            body |= {"thread_ts": thread_ts, "reply_broadcast": broadcast}
        answer = _data(await self._call("chat.postMessage", body, intent))
        ts, where = answer.get("ts"), answer.get("channel")
        if not isinstance(ts, str):
            raise OutcomeUnknown("slack: chat.postMessage answered without a ts")
        if isinstance(where, str):
            self._channels[channel] = where
        return ts

    async def update(
        self, channel: str, ts: str, text: str, blocks: Blocks, intent: str, *, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Replaces a message of ours. Not read back: a repeat changes nothing (D25)."""
        await self._call("chat.update", self._message(text, blocks, intent, metadata) | {"channel": self._id(channel), "ts": ts}, intent)

    async def find_by_intent(self, channel: str, intent: str, *, oldest: str | None = None) -> str | None:
        """The `ts` of the message that carries this intent among the latest 500 (since `oldest`), else None."""
        params: dict[str, Any] = {"channel": self._id(channel), "include_all_metadata": True, "limit": 100}
        if oldest is not None:
            params["oldest"] = oldest
        for _ in range(_HISTORY_PAGES):
            page = _data(await self._call("conversations.history", params))
            for message in page.get("messages") or []:
                if _intent_of(message) == intent:
                    return str(message["ts"])
            cursor = (page.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return None
            params["cursor"] = cursor
        return None

    def _id(self, channel: str) -> str:
        """A channel's id where a post has taught it: only chat.postMessage accepts names."""
        return self._channels.get(channel, channel)

    @staticmethod
    def _message(text: str, blocks: Blocks, intent: str, metadata: Mapping[str, str] | None) -> dict[str, Any]:
        payload = {"intent": intent} | dict(metadata or {})
        return {"text": text, "blocks": list(blocks), "metadata": {"event_type": EVENT_TYPE, "event_payload": payload}}

    async def _call(self, method: str, body: dict[str, Any], intent: str = "") -> AsyncSlackResponse:
        mutating = method not in _READS
        if mutating and self._read_only:
            raise UnsafePlan(f"slack: a dry run makes no {method} call", "dry_run")
        client = await self._connected()
        unknown: type[TemporaryError] = OutcomeUnknown if mutating else TemporaryError
        try:
            if mutating:
                return await client.api_call(method, json=body, headers={INTENT_HEADER: intent})
            return await client.api_call(method, http_verb="GET" if method == "conversations.history" else "POST", params=body)
        except SlackApiError as error:
            self._refused(method, mutating, error)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TemporaryError(f"slack: {method}: no connection ({type(error).__name__})") from None
        except _Redirected:
            raise TemporaryError(f"slack: {method}: redirects are not followed") from None
        except (aiohttp.ClientError, TimeoutError, SlackClientError) as error:
            raise unknown(f"slack: {method}: no answer ({type(error).__name__})") from None
        except (AttributeError, TypeError, ValueError):  # the SDK on a body that is no JSON object
            raise unknown(f"slack: {method}: answered with something that is not Slack's") from None

    def _refused(self, method: str, mutating: bool, error: SlackApiError) -> NoReturn:
        response: Any = error.response
        status = int(getattr(response, "status_code", 0) or getattr(response, "status", 0) or 0)
        headers = {str(name).lower(): str(value) for name, value in dict(getattr(response, "headers", None) or {}).items()}
        data = getattr(response, "data", None)
        code = clean(str(data.get("error", "")), 80) if isinstance(data, dict) else ""
        answer = Answer(f"slack: {method}", mutating, status, headers, b"")
        if status == 429 or code in _LIMITED:
            raise RateLimited(f"slack: {method}: rate limit", delay_of(answer, self._clock.now())) from None
        if code in _CREDENTIALS:
            self._client = None  # the next call reads the token again: it may have been replaced
            raise CredentialsRefused(f"slack: {method}: {code}", code) from None
        if not code or code in _PASSING or status >= 500:
            raise answer.unsettled(f"answered {status} {code}".rstrip(), delay_of(answer, self._clock.now())) from None
        raise Refused(f"slack: {method}: {code}", code) from None

    async def _connected(self) -> AsyncWebClient:
        if self._client is None:
            await self.aclose()
            try:
                token = self._read_token().get_secret_value()
            except ConfigurationError as error:
                raise CredentialsRefused(f"slack: {error}", "no_credential") from None
            if not token.isascii() or not token.isprintable():
                raise CredentialsRefused("slack: the token holds characters that no header can carry", "no_credential")
            self._session = _session(self._timeout)
            self._client = AsyncWebClient(token=token, base_url=self._url, session=self._session, retry_handlers=[], logger=_quiet)
            self._client.proxy = self._proxy  # the SDK had filled it from the environment
        return self._client


class _Redirected(Exception):
    """Slack's API never redirects; whatever does is not Slack."""


async def _refuse_redirect(*_: object) -> None:
    raise _Redirected


def _session(timeout_s: float) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_refuse_redirect)
    timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(5.0, timeout_s))
    return aiohttp.ClientSession(
        timeout=timeout,
        trust_env=False,
        trace_configs=[trace],
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=4),
    )


def _data(response: AsyncSlackResponse) -> dict[str, Any]:
    if not isinstance(response.data, dict):
        raise PermanentError("slack: an answer that is no object", "bad_answer")
    return response.data


def _intent_of(message: object) -> str | None:
    if not isinstance(message, dict):
        return None
    metadata = message.get("metadata")
    payload = metadata.get("event_payload") if isinstance(metadata, dict) and metadata.get("event_type") == EVENT_TYPE else None
    found = payload.get("intent") if isinstance(payload, dict) else None
    return found if isinstance(found, str) else None
