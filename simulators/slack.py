"""A strict, stateful Slack: what Portcullis uses of the Web API, with Slack's limits and errors.

Slack answers 200 with `ok: false` to nearly every mistake, 429 to haste. A method takes its arguments as JSON (writing methods only), as
a form, or as a query (reading methods only); arguments that it does not know are refused, where the real one ignores them.
`client_msg_id` removes no duplicates here: nothing promises that it does at Slack.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from simulators.base import Clock, RateWindow, Refusal, Simulator, TokenBucket, Tokens, bearer, json_response, read_body
from simulators.slack_args import Json, content_of, fail, page_of, truth
from simulators.slack_text import render_text

__all__ = ["SlackSimulator", "render_text"]

_CONTENT = ("text", "blocks", "attachments", "metadata", "markdown_text", "parse", "link_names", "reply_broadcast")
_POST = ("channel", *_CONTENT, "thread_ts", "unfurl_links", "unfurl_media", "mrkdwn", "client_msg_id", "username", "icon_emoji", "icon_url")
_HISTORY = ("channel", "include_all_metadata", "oldest", "latest", "inclusive", "limit", "cursor")


@dataclass(slots=True)
class Channel:
    """`member`: our app was invited. Messages by ts, oldest first (ts only ever grows)."""

    id: str
    name: str
    private: bool = False
    member: bool = True
    archived: bool = False
    messages: dict[str, Json] = field(default_factory=dict)


class SlackSimulator(Simulator):
    """Base URL `{url}/api/`. Knobs: `post_per_second` and `post_burst` a channel, `per_minute` for every other method."""

    name = "slack"
    unlisted = ("/api/auth.test", "/api/conversations.history", "/api/conversations.replies", "/api/users.lookupByEmail")

    def __init__(
        self,
        *,
        token: str = "xoxb-simulated",
        clock: Clock = time.time,
        latency_s: float = 0.0,
        post_per_second: float = 1.0,
        post_burst: int = 4,
        per_minute: int = 50,
    ) -> None:
        super().__init__(clock=clock, latency_s=latency_s)
        self.tokens = Tokens(clock)
        self.tokens.add(token, "bot")
        self.channels: dict[str, Channel] = {}
        self.users: dict[str, Json] = {}
        self.posts = TokenBucket(clock, post_per_second, post_burst)
        self.others = RateWindow(clock, per_minute)
        self._ids = itertools.count(1)
        self._last_ts = 0
        self._methods: dict[str, tuple[Callable[[web.Request, Json], Awaitable[Json]], tuple[str, ...], bool]] = {
            "auth.test": (self._auth_test, (), True),
            "chat.postMessage": (self._post_message, _POST, True),
            "chat.update": (self._update, ("channel", "ts", *_CONTENT), True),
            "users.lookupByEmail": (self._lookup, ("email",), False),
            "conversations.history": (self._history, _HISTORY, False),
            "conversations.replies": (self._replies, ("ts", *_HISTORY), False),
        }
        self.app.router.add_route("*", "/api/{method}", self._call)

    # -- seeding ------------------------------------------------------------------------------------------------------

    def add_channel(self, name: str, *, id: str | None = None, private: bool = False, member: bool = True, archived: bool = False) -> str:
        channel = Channel(id or f"C{next(self._ids):010d}", name, private, member, archived)
        self.channels[channel.id] = channel
        return channel.id

    def add_user(self, email: str, name: str = "", *, id: str | None = None, deleted: bool = False) -> str:
        user_id = id or f"U{next(self._ids):010d}"
        profile = {"email": email, "real_name": name or email, "display_name": name or email}
        self.users[user_id] = {
            "id": user_id,
            "team_id": "T0000000001",
            "name": email.partition("@")[0],
            "deleted": deleted,
            "profile": profile,
        }
        return user_id

    def add_message(self, channel: str, text: str, *, user: str = "U0OTHER0001") -> str:
        """Somebody else's message; returns its ts."""
        ts = self._new_ts()
        self.channels[channel].messages[ts] = {"type": "message", "user": user, "text": text, "ts": ts}
        return ts

    def messages(self, channel: str) -> list[Json]:
        """As stored, oldest first; `render_text` shows them to people."""
        return list(self.channels[channel].messages.values())

    def state(self) -> dict[str, Any]:
        return {
            "channels": {
                one.id: {"id": one.id, "name": one.name, "is_private": one.private, "is_member": one.member, "is_archived": one.archived}
                | {"messages": list(one.messages.values())}
                for one in self.channels.values()
            },
            "users": self.users,
        }

    # -- the door -----------------------------------------------------------------------------------------------------

    def error_for(self, request: web.Request, status: int) -> web.Response:
        words = {404: "unknown_method", 429: "ratelimited", 500: "internal_error", 503: "service_unavailable"}
        headers = {"Retry-After": "30"} if status == 429 else None
        return json_response({"ok": False, "error": words.get(status, "fatal_error")}, status, headers)

    async def _call(self, request: web.Request) -> web.Response:
        name = request.match_info["method"]
        if name not in self._methods or request.method not in ("GET", "POST"):
            raise fail("unknown_method")
        method, known, takes_json = self._methods[name]
        args = await self._arguments(request, takes_json)
        self._authenticate(request, args)
        if name.startswith("chat.") and request.method != "POST":
            raise fail("unknown_method")
        self._take(name, args)
        if unknown := sorted(set(args) - set(known)):
            raise fail("invalid_arguments", *(f"[ERROR] unknown argument: {one}" for one in unknown))
        return json_response({"ok": True} | await method(request, args))

    async def _arguments(self, request: web.Request, takes_json: bool) -> Json:
        """Arguments wherever they stand. A reading method does not see a JSON body."""
        args: Json = dict(request.query)
        body = read_body(await request.read(), request.content_type) if request.method == "POST" else None
        if request.content_type == "application/json" and request.method == "POST":
            if not isinstance(body, dict):
                raise fail("invalid_json")
            return args | body if takes_json else args
        return args | (body if isinstance(body, dict) else {})

    def _authenticate(self, request: web.Request, args: Json) -> None:
        token = bearer(request) or args.get("token")
        args.pop("token", None)
        if not token:
            raise fail("not_authed")
        if self.tokens.subject(str(token)) is None:
            raise fail("invalid_auth")

    def _take(self, name: str, args: Json) -> None:
        rate = self.posts.take(str(args.get("channel"))) if name == "chat.postMessage" else self.others.take(name)
        if not rate.allowed:
            raise Refusal(json_response({"ok": False, "error": "ratelimited"}, 429, {"Retry-After": str(rate.retry_after)}))

    # -- methods ------------------------------------------------------------------------------------------------------

    async def _auth_test(self, request: web.Request, args: Json) -> Json:
        shown = {"url": "https://simulated.slack.com/", "team": "Simulated", "user": "portcullis", "team_id": "T0000000001"}
        return shown | {"user_id": "U0BOT000001", "bot_id": "B0BOT000001", "is_enterprise_install": False}

    async def _post_message(self, request: web.Request, args: Json) -> Json:
        channel = self._channel(args, writing=True)
        content = content_of(args)
        if not any(content.get(key) for key in ("text", "blocks", "attachments")):
            raise fail("no_text")
        thread = args.get("thread_ts")
        if thread is not None and thread not in channel.messages:
            raise fail("thread_not_found")
        message = {"type": "message", "user": "U0BOT000001", "bot_id": "B0BOT000001", "app_id": "A0APP000001", "team": "T0000000001"}
        message |= {"text": "", "ts": self._new_ts()} | content | ({"thread_ts": thread} if thread else {})
        if thread and truth(args.get("reply_broadcast")):
            message["subtype"] = "thread_broadcast"
        channel.messages[message["ts"]] = message
        self.changed(request)
        return {"channel": channel.id, "ts": message["ts"], "message": message}

    async def _update(self, request: web.Request, args: Json) -> Json:
        """What is not given stays as it was; an empty list or object takes it away."""
        channel = self._channel(args, writing=True)
        message = channel.messages.get(str(args.get("ts")))
        if message is None:
            raise fail("message_not_found")
        if message.get("bot_id") != "B0BOT000001":
            raise fail("cant_update_message")
        content = content_of(args)
        if not {"text", "blocks", "attachments"} & set(content):
            raise fail("no_text")
        after = {key: value for key, value in (message | content).items() if value or key == "text"}
        if not any(after.get(key) for key in ("text", "blocks", "attachments")):
            raise fail("no_text")
        if after != message:
            after["edited"] = {"user": "U0BOT000001", "ts": self._new_ts()}
            channel.messages[message["ts"]] = after
            self.changed(request)
        return {"channel": channel.id, "ts": message["ts"], "text": after["text"], "message": after}

    async def _lookup(self, request: web.Request, args: Json) -> Json:
        email = str(args.get("email", "")).lower()
        for user in self.users.values():
            if user["profile"]["email"].lower() == email and not user["deleted"]:
                return {"user": user}
        raise fail("users_not_found")

    async def _history(self, request: web.Request, args: Json) -> Json:
        """Newest first; replies in threads stay in their threads unless they were broadcast."""
        channel = self._channel(args)
        top = [one for one in channel.messages.values() if "thread_ts" not in one or one.get("subtype") == "thread_broadcast"]
        return page_of(list(reversed(top)), args)

    async def _replies(self, request: web.Request, args: Json) -> Json:
        """A thread, its first message first."""
        channel = self._channel(args)
        root = args.get("ts")
        if root not in channel.messages:
            raise fail("thread_not_found")
        return page_of([one for one in channel.messages.values() if root in (one["ts"], one.get("thread_ts"))], args)

    def _channel(self, args: Json, writing: bool = False) -> Channel:
        """By id; a private channel without us in it does not exist for us."""
        channel = self.channels.get(str(args.get("channel")))
        if channel is None or (channel.private and not channel.member):
            raise fail("channel_not_found")
        if writing and channel.archived:
            raise fail("is_archived")
        if not channel.member:
            raise fail("not_in_channel")
        return channel

    def _new_ts(self) -> str:
        """The time in microseconds, and never the same twice: it is the message's identity."""
        self._last_ts = max(self._last_ts + 1, int(self.clock() * 1_000_000))
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"
