"""Slack: methods, errors, limits of haste; spoken to in plain HTTP and once through slack_sdk."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from simulators.slack import SlackSimulator

TOKEN = "xoxb-test"


class Time:
    def __init__(self) -> None:
        self.at = 1_780_000_000.0

    def __call__(self) -> float:
        return self.at


class Desk:
    def __init__(self, slack: SlackSimulator, time: Time, http: httpx.AsyncClient) -> None:
        self.slack, self.time, self.http = slack, time, http
        self.channel = slack.add_channel("security")

    async def post(self, method: str, args: Any = None, *, token: str | None = TOKEN, **options: Any) -> Any:
        """One call in JSON; Slack answers mistakes with 200."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = await self.http.post(f"/api/{method}", json={} if args is None else args, headers=headers, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def get(self, method: str, **args: Any) -> Any:
        return (await self.http.get(f"/api/{method}", params=args, headers={"Authorization": f"Bearer {TOKEN}"})).json()

    async def say(self, text: str = "hello", **more: Any) -> str:
        """A message that must go through, some time after the last."""
        self.time.at += 10
        body = await self.post("chat.postMessage", {"channel": self.channel, "text": text} | more)
        assert body["ok"], body
        return str(body["ts"])

    async def error(self, method: str, args: Any = None, **options: Any) -> str:
        body = await self.post(method, args, **options)
        assert body["ok"] is False
        return str(body["error"])


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    time = Time()
    slack = SlackSimulator(token=TOKEN, clock=time, per_minute=1000)
    await slack.start()
    async with httpx.AsyncClient(base_url=slack.url, trust_env=False, timeout=10) as http:
        yield Desk(slack, time, http)
    await slack.stop()
    assert slack.crashes == []


# -- who calls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auth.test", "chat.postMessage", "chat.update", "users.lookupByEmail", "conversations.history"])
async def test_every_method_wants_a_token(desk: Desk, method: str) -> None:
    assert await desk.error(method, token=None) == "not_authed"
    assert await desk.error(method, token="xoxb-forged") == "invalid_auth"


async def test_a_token_in_the_form_counts_and_is_not_listed(desk: Desk) -> None:
    answer = await desk.http.post("/api/chat.postMessage", data={"token": TOKEN, "channel": desk.channel, "text": "hi"})
    assert answer.json()["ok"] is True
    assert TOKEN not in (await desk.http.get("/_sim/calls")).text
    assert TOKEN not in (await desk.http.get("/_sim/state")).text


async def test_auth_test(desk: Desk) -> None:
    body = await desk.post("auth.test")
    assert body["ok"] is True
    assert {"url", "team", "user", "team_id", "user_id", "bot_id"} <= set(body)


async def test_unknown_methods(desk: Desk) -> None:
    assert await desk.error("chat.shout") == "unknown_method"
    assert (await desk.get("chat.postMessage", channel=desk.channel, text="by GET"))["error"] == "unknown_method"
    assert desk.slack.messages(desk.channel) == []


# -- chat.postMessage -------------------------------------------------------------------------------------------------


async def test_a_message_is_its_channel_and_its_ts(desk: Desk) -> None:
    metadata = {"event_type": "incident", "event_payload": {"intent": "i-1"}}
    args = {"channel": desk.channel, "text": "locked", "metadata": metadata, "unfurl_links": False}
    answer = await desk.http.post(
        "/api/chat.postMessage", json=args, headers={"Authorization": f"Bearer {TOKEN}", "X-Portcullis-Intent": "i-1"}
    )
    body = answer.json()
    assert (body["ok"], body["channel"], body["message"]["text"]) == (True, desk.channel, "locked")
    (stored,) = desk.slack.messages(desk.channel)
    assert (stored["ts"], stored["metadata"]) == (body["ts"], metadata)
    (call,) = (await desk.http.get("/_sim/calls")).json()
    assert (call["intent"], call["changed"], call["path"]) == ("i-1", True, "/api/chat.postMessage")
    assert call["body"]["text"] == "locked"


async def test_no_ts_twice_even_within_one_instant(desk: Desk) -> None:
    first = [(await desk.post("chat.postMessage", {"channel": desk.channel, "text": "x"}))["ts"] for _ in range(3)]
    assert len(set(first)) == 3
    assert first == sorted(first)


async def test_a_form_carries_json_in_strings(desk: Desk) -> None:
    blocks = json.dumps([{"type": "divider"}])
    form = {"channel": desk.channel, "blocks": blocks, "text": "x", "metadata": json.dumps({"event_type": "a", "event_payload": {}})}
    answer = await desk.http.post("/api/chat.postMessage", data=form, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.json()["message"]["blocks"][0]["type"] == "divider"
    answer = await desk.http.post("/api/chat.postMessage", data=form | {"blocks": "[{"}, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.json()["error"] == "invalid_blocks_format"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"channel": "C999"}, "channel_not_found"),
        ({"channel": "#security"}, "channel_not_found"),
        ({"channel": None}, "channel_not_found"),
        ({"text": ""}, "no_text"),
        ({"text": None}, "no_text"),
        ({"text": "x" * 40_001}, "msg_too_long"),
        ({"text": 7}, "invalid_arguments"),
        ({"blocks": [{"type": "sparkle"}]}, "invalid_blocks"),
        ({"blocks": {"type": "divider"}}, "invalid_blocks"),
        ({"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3000}} for _ in range(5)]}, "msg_blocks_too_long"),
        ({"attachments": [{}] * 101}, "too_many_attachments"),
        ({"attachments": "x"}, "invalid_attachments"),
        ({"metadata": {"event_type": "x"}}, "invalid_metadata_format"),
        ({"metadata": {"event_type": "with space", "event_payload": {}}}, "invalid_metadata_schema"),
        ({"metadata": {"event_type": "x", "event_payload": {"a": "x" * 9000}}}, "metadata_too_large"),
        ({"markdown_text": "both"}, "markdown_text_conflict"),
        ({"thread_ts": "1.000001"}, "thread_not_found"),
        ({"txet": "misspelt"}, "invalid_arguments"),
    ],
)
async def test_wrong_messages_are_refused_and_not_kept(desk: Desk, change: dict[str, Any], error: str) -> None:
    assert await desk.error("chat.postMessage", {"channel": desk.channel, "text": "x"} | change) == error
    assert desk.slack.messages(desk.channel) == []
    assert [call["changed"] for call in desk.slack.calls.after(0)] == [False]


async def test_where_one_may_not_post(desk: Desk) -> None:
    closed = desk.slack.add_channel("old", archived=True)
    foreign = desk.slack.add_channel("others", member=False)
    hidden = desk.slack.add_channel("hidden", private=True, member=False)
    for channel, error in ((closed, "is_archived"), (foreign, "not_in_channel"), (hidden, "channel_not_found")):
        assert await desk.error("chat.postMessage", {"channel": channel, "text": "x"}) == error


async def test_a_broken_body_is_invalid_json(desk: Desk) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    answer = await desk.http.post("/api/chat.postMessage", content=b"{", headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"ok": False, "error": "invalid_json"})


# -- haste ------------------------------------------------------------------------------------------------------------


async def test_a_message_a_second_a_channel_after_a_small_burst(desk: Desk) -> None:
    other = desk.slack.add_channel("other")
    headers = {"Authorization": f"Bearer {TOKEN}"}

    async def send(channel: str) -> httpx.Response:
        return await desk.http.post("/api/chat.postMessage", json={"channel": channel, "text": "x"}, headers=headers)

    statuses = [(await send(desk.channel)).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 200, 429]
    refused = await send(desk.channel)
    assert (refused.status_code, refused.headers["retry-after"], refused.json()) == (429, "1", {"ok": False, "error": "ratelimited"})
    assert (await send(other)).status_code == 200
    desk.time.at += 1
    assert [(await send(desk.channel)).status_code for _ in range(2)] == [200, 429]
    assert len(desk.slack.messages(desk.channel)) == 5


async def test_other_methods_have_their_minute() -> None:
    time = Time()
    slack = SlackSimulator(token=TOKEN, clock=time, per_minute=2)
    await slack.start()
    async with httpx.AsyncClient(base_url=slack.url, trust_env=False, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        answers = [await http.get("/api/users.lookupByEmail", params={"email": "a@x.com"}) for _ in range(3)]
    await slack.stop()
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "60"


async def test_an_ordered_fault_speaks_as_slack_does(desk: Desk) -> None:
    desk.slack.faults.add({"path": "/api/chat.*", "status": 429})
    answer = await desk.http.post("/api/chat.postMessage", json={})
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["error"]) == (429, "30", "ratelimited")


# -- chat.update ------------------------------------------------------------------------------------------------------


async def test_update_replaces_what_is_given_and_keeps_the_rest(desk: Desk) -> None:
    ts = await desk.say("before", blocks=[{"type": "divider"}], metadata={"event_type": "a", "event_payload": {}})
    body = await desk.post("chat.update", {"channel": desk.channel, "ts": ts, "text": "after"})
    assert (body["ok"], body["ts"], body["text"]) == (True, ts, "after")
    (stored,) = desk.slack.messages(desk.channel)
    assert (stored["text"], stored["blocks"][0]["type"], stored["metadata"]["event_type"]) == ("after", "divider", "a")
    assert "edited" in stored
    await desk.post("chat.update", {"channel": desk.channel, "ts": ts, "text": "after", "blocks": []})
    assert "blocks" not in desk.slack.messages(desk.channel)[0]


async def test_an_update_to_the_same_changes_nothing(desk: Desk) -> None:
    ts = await desk.say("same")
    await desk.post("chat.update", {"channel": desk.channel, "ts": ts, "text": "same"})
    assert desk.slack.calls.after(0)[-1]["changed"] is False


async def test_wrong_updates(desk: Desk) -> None:
    ts = await desk.say()
    theirs = desk.slack.add_message(desk.channel, "not ours")
    other = desk.slack.add_channel("other")
    for args, error in (
        ({"channel": desk.channel, "ts": "1.000001", "text": "x"}, "message_not_found"),
        ({"channel": other, "ts": ts, "text": "x"}, "message_not_found"),
        ({"channel": desk.channel, "text": "x"}, "message_not_found"),
        ({"channel": desk.channel, "ts": theirs, "text": "x"}, "cant_update_message"),
        ({"channel": "C999", "ts": ts, "text": "x"}, "channel_not_found"),
        ({"channel": desk.channel, "ts": ts}, "no_text"),
        ({"channel": desk.channel, "ts": ts, "text": ""}, "no_text"),
        ({"channel": desk.channel, "ts": ts, "text": "x", "blocks": [{"type": "sparkle"}]}, "invalid_blocks"),
        ({"channel": desk.channel, "ts": ts, "text": "x", "thread_ts": ts}, "invalid_arguments"),
    ):
        assert await desk.error("chat.update", args) == error
    assert [one["text"] for one in desk.slack.messages(desk.channel)] == ["hello", "not ours"]


# -- users.lookupByEmail ----------------------------------------------------------------------------------------------


async def test_people_are_found_by_mail_unless_deactivated(desk: Desk) -> None:
    ann = desk.slack.add_user("ann@x.com", "Ann")
    desk.slack.add_user("gone@x.com", deleted=True)
    body = await desk.get("users.lookupByEmail", email="Ann@x.com")
    assert (body["user"]["id"], body["user"]["profile"]["email"]) == (ann, "ann@x.com")
    for email in ("gone@x.com", "nobody@x.com", ""):
        assert await desk.get("users.lookupByEmail", email=email) == {"ok": False, "error": "users_not_found"}
    assert await desk.error("users.lookupByEmail", {"email": "ann@x.com"}) == "users_not_found"  # a reading method sees no JSON
    assert desk.slack.calls.count == 0


# -- conversations.history --------------------------------------------------------------------------------------------


async def test_history_is_newest_first_and_holds_metadata_on_demand(desk: Desk) -> None:
    metadata = {"event_type": "incident", "event_payload": {"intent": "i-1"}}
    stamps = [await desk.say("one", metadata=metadata), await desk.say("two")]
    plain = await desk.get("conversations.history", channel=desk.channel)
    assert [one["ts"] for one in plain["messages"]] == stamps[::-1]
    assert plain["has_more"] is False
    assert "metadata" not in plain["messages"][1]
    full = await desk.get("conversations.history", channel=desk.channel, include_all_metadata="1")
    assert full["messages"][1]["metadata"] == metadata


async def test_history_between_two_times(desk: Desk) -> None:
    stamps = [await desk.say(str(n)) for n in range(5)]

    async def texts(**bounds: Any) -> list[str]:
        body = await desk.get("conversations.history", channel=desk.channel, **bounds)
        return [one["text"] for one in body["messages"]]

    assert await texts(oldest=stamps[1], latest=stamps[4]) == ["3", "2"]
    assert await texts(oldest=stamps[1], latest=stamps[4], inclusive="true") == ["4", "3", "2", "1"]
    assert await texts(oldest="1780000025") == ["4", "3", "2"]
    assert await texts(latest=stamps[0]) == []


async def test_history_in_pages(desk: Desk) -> None:
    stamps = [await desk.say(str(n)) for n in range(5)]
    seen: list[str] = []
    args: dict[str, Any] = {"channel": desk.channel, "limit": 2}
    while True:
        body = await desk.get("conversations.history", **args)
        seen += [one["ts"] for one in body["messages"]]
        if not body["has_more"]:
            break
        args["cursor"] = body["response_metadata"]["next_cursor"]
        if len(seen) == 2:
            stamps_before = list(stamps)
            await desk.say("in between")  # shifts nothing
    assert seen == stamps_before[::-1]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"channel": "C999"}, "channel_not_found"),
        ({"limit": "0"}, "invalid_limit"),
        ({"limit": "1000"}, "invalid_limit"),
        ({"limit": "x"}, "invalid_limit"),
        ({"cursor": "bogus"}, "invalid_cursor"),
        ({"cursor": "bmV4dF90czox"}, "invalid_cursor"),
        ({"oldest": "yesterday"}, "invalid_ts_oldest"),
        ({"latest": "1e9"}, "invalid_ts_latest"),
        ({"metadata": "1"}, "invalid_arguments"),
    ],
)
async def test_wrong_questions(desk: Desk, args: dict[str, str], error: str) -> None:
    body = await desk.get("conversations.history", **({"channel": desk.channel} | args))
    assert (body["ok"], body["error"]) == (False, error)


async def test_replies_stay_in_their_thread_unless_broadcast(desk: Desk) -> None:
    root = await desk.say("root")
    await desk.say("reply", thread_ts=root)
    await desk.say("broadcast", thread_ts=root, reply_broadcast=True)
    top = await desk.get("conversations.history", channel=desk.channel)
    assert [one["text"] for one in top["messages"]] == ["broadcast", "root"]
    thread = await desk.get("conversations.replies", channel=desk.channel, ts=root)
    assert [one["text"] for one in thread["messages"]] == ["root", "reply", "broadcast"]
    assert (await desk.get("conversations.replies", channel=desk.channel, ts="1.000001"))["error"] == "thread_not_found"


# -- the real client --------------------------------------------------------------------------------------------------


async def test_slack_sdk_speaks_to_it(desk: Desk) -> None:
    client = AsyncWebClient(token=TOKEN, base_url=f"{desk.slack.url}/api/")
    desk.slack.add_user("ann@x.com")
    assert (await client.auth_test())["user_id"]
    metadata = {"event_type": "incident", "event_payload": {"intent": "i-1"}}
    body = {"channel": desk.channel, "text": "hi", "metadata": metadata}
    sent = await client.api_call("chat.postMessage", json=body, headers={"X-Portcullis-Intent": "i-1"})
    assert desk.slack.calls.after(0)[0]["intent"] == "i-1"
    await client.chat_update(channel=desk.channel, ts=sent["ts"], text="bye", blocks=[{"type": "divider"}])
    history = await client.conversations_history(channel=desk.channel, include_all_metadata=True, limit=5)
    assert history["messages"][0]["metadata"] == metadata
    assert history["messages"][0]["blocks"][0]["type"] == "divider"
    assert (await client.users_lookupByEmail(email="ann@x.com"))["user"]["id"]
    with pytest.raises(SlackApiError, match="message_not_found"):
        await client.chat_update(channel=desk.channel, ts="1.000001", text="x")
    for _ in range(3):
        await client.chat_postMessage(channel=desk.channel, text="x")
    with pytest.raises(SlackApiError) as refused:
        await client.chat_postMessage(channel=desk.channel, text="x")
    assert (refused.value.response.status_code, refused.value.response["error"]) == (429, "ratelimited")
