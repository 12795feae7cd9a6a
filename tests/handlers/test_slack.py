"""The Slack sender against a strict Slack: posts with their intent, finds them again, and tells trouble in our words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from handlers.slack import SlackSender
from model.errors import (
    ConfigurationError,
    CredentialsRefused,
    OutcomeUnknown,
    PortcullisError,
    RateLimited,
    Refused,
    TemporaryError,
    UnsafePlan,
)
from simulators.slack import SlackSimulator
from tests.support.canary import Canaries
from tests.support.clock import FakeClock

BLOCKS = [{"type": "section", "text": {"type": "plain_text", "text": "hello"}}]


@pytest.fixture
async def slack(canary: Canaries) -> AsyncIterator[SlackSimulator]:
    slack = SlackSimulator(token=canary("slack-token"), post_burst=100, per_minute=1000)
    slack.add_channel("secops", id="C1")
    await slack.start()
    yield slack
    await slack.stop()
    assert slack.crashes == []


@pytest.fixture
async def sender(slack: SlackSimulator, clock: FakeClock, canary: Canaries) -> AsyncIterator[SlackSender]:
    sender = SlackSender(lambda: SecretStr(canary("slack-token")), f"{slack.url}/api", clock, timeout_s=0.5)
    yield sender
    await sender.aclose()


async def test_a_post_carries_its_intent_and_is_found_by_it(slack: SlackSimulator, sender: SlackSender) -> None:
    ts = await sender.post("C1", "hello", BLOCKS, "in-1", metadata={"incident": "inc-1"})
    other = await sender.post("C1", "later", BLOCKS, "in-2")
    assert await sender.find_by_intent("C1", "in-1") == ts
    assert await sender.find_by_intent("C1", "in-2") == other
    assert await sender.find_by_intent("C1", "in-3") is None
    (message, _) = slack.messages("C1")
    assert (message["text"], message["metadata"]["event_payload"]) == ("hello", {"intent": "in-1", "incident": "inc-1"})
    assert [(call["intent"], call["changed"]) for call in slack.calls.after(0)] == [("in-1", True), ("in-2", True)]


async def test_it_is_found_among_many_messages_of_others(slack: SlackSimulator, sender: SlackSender) -> None:
    ts = await sender.post("C1", "hello", BLOCKS, "in-1")
    for n in range(250):
        slack.add_message("C1", f'{{"intent": "in-1"}} {n}')
    assert await sender.find_by_intent("C1", "in-1") == ts


async def test_an_update_replaces_the_message_in_place(slack: SlackSimulator, sender: SlackSender) -> None:
    ts = await sender.post("C1", "open", BLOCKS, "in-1")
    await sender.update("C1", ts, "contained", BLOCKS, "in-2")
    (message,) = slack.messages("C1")
    assert message["text"] == "contained"
    assert slack.calls.after(1)[0]["intent"] == "in-2"


async def test_a_reply_goes_into_the_thread(slack: SlackSimulator, sender: SlackSender) -> None:
    ts = await sender.post("C1", "open", BLOCKS, "in-1")
    await sender.post("C1", "step", BLOCKS, "in-2", thread_ts=ts)
    assert slack.messages("C1")[1]["thread_ts"] == ts


async def test_who_we_are(sender: SlackSender) -> None:
    assert (await sender.auth_test())["user"] == "portcullis"


@pytest.mark.fault(35)
async def test_a_post_without_an_answer_is_unknown_read_back_and_not_repeated(slack: SlackSimulator, sender: SlackSender) -> None:
    for fault in ({"reset": True}, {"status": 503}, {"cut_body": True}, {"delay_s": 2}):
        slack.faults.add({"method": "POST", "path": "/api/chat.postMessage", "when": "after"} | fault)
        before = len(slack.messages("C1"))
        intent = f"in-{before}"
        with pytest.raises(OutcomeUnknown):
            await sender.post("C1", "hello", BLOCKS, intent)
        assert len(slack.messages("C1")) == before + 1, "one effect, nothing repeated behind our back"
        assert await sender.find_by_intent("C1", intent) == slack.messages("C1")[-1]["ts"]


@pytest.mark.fault(37)
@pytest.mark.parametrize(("header", "delay"), [("30", 30), ("86400", 300), ("-1", 0), ("abc", None)])
async def test_a_429_is_left_to_the_queue(slack: SlackSimulator, sender: SlackSender, header: str, delay: float | None) -> None:
    slack.faults.add({"path": "/api/*", "status": 429, "headers": {"Retry-After": header}})
    with pytest.raises(RateLimited) as limited:
        await sender.post("C1", "hello", BLOCKS, "in-1")
    assert limited.value.delay == delay
    assert len(slack.calls.after(0)) == 1


async def test_slacks_own_limit_a_channel_is_met_as_rate_limited(slack: SlackSimulator, sender: SlackSender) -> None:
    slack.posts = type(slack.posts)(slack.clock, 1.0, 2)
    for n in range(2):
        await sender.post("C1", "hello", BLOCKS, f"in-{n}")
    with pytest.raises(RateLimited) as limited:
        await sender.post("C1", "hello", BLOCKS, "in-2")
    assert limited.value.delay == 1


@pytest.mark.parametrize(
    ("body", "expected", "code"),
    [
        ({"ok": False, "error": "invalid_auth"}, CredentialsRefused, "invalid_auth"),
        ({"ok": False, "error": "missing_scope", "needed": "chat:write"}, CredentialsRefused, "missing_scope"),
        ({"ok": False, "error": "channel_not_found"}, Refused, "channel_not_found"),
        ({"ok": False, "error": "not_in_channel"}, Refused, "not_in_channel"),
        ({"ok": False, "error": "ratelimited"}, RateLimited, ""),
        ({"ok": False, "error": "internal_error"}, OutcomeUnknown, ""),
        ({"ok": False}, OutcomeUnknown, ""),
        ({"ok": True}, OutcomeUnknown, ""),
        ([], OutcomeUnknown, ""),
        ("<html>sign in</html>", OutcomeUnknown, ""),
        ("", OutcomeUnknown, ""),
    ],
)
async def test_each_answer_means_one_thing(
    slack: SlackSimulator, sender: SlackSender, body: Any, expected: type[PortcullisError], code: str
) -> None:
    kind = {"headers": {"content-type": "text/html"}} if isinstance(body, str) else {}
    slack.faults.add({"path": "/api/chat.postMessage", "status": 200, "body": body, **kind})
    with pytest.raises(expected) as raised:
        await sender.post("C1", "hello", BLOCKS, "in-1")
    assert isinstance(raised.value, OutcomeUnknown) is (expected is OutcomeUnknown)
    assert getattr(raised.value, "code", "") == code


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/gzip"])
async def test_a_body_that_is_no_slack_is_unknown(slack: SlackSimulator, sender: SlackSender, kind: str) -> None:
    slack.faults.add({"path": "/api/chat.postMessage", "status": 200, "body": "not json {", "headers": {"content-type": kind}})
    with pytest.raises(PortcullisError):
        await sender.post("C1", "hello", BLOCKS, "in-1")


async def test_a_slack_that_is_away_is_only_temporary(clock: FakeClock) -> None:
    sender = SlackSender(lambda: SecretStr("t"), "http://127.0.0.1:1/api/", clock)
    with pytest.raises(TemporaryError, match="no connection") as raised:
        await sender.post("C1", "hello", BLOCKS, "in-1")
    assert not isinstance(raised.value, OutcomeUnknown)
    await sender.aclose()


async def test_redirects_are_not_followed(clock: FakeClock) -> None:
    asked: list[str] = []

    async def move(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"location": "/elsewhere"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", move)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sender = SlackSender(lambda: SecretStr("t"), f"http://127.0.0.1:{runner.addresses[0][1]}/api/", clock)
    with pytest.raises(TemporaryError, match="redirects"):
        await sender.post("C1", "hello", BLOCKS, "in-1")
    assert asked == ["/api/chat.postMessage"]
    await sender.aclose()
    await runner.cleanup()


async def test_proxies_of_the_environment_are_ignored(
    slack: SlackSimulator, clock: FakeClock, canary: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    sender = SlackSender(lambda: SecretStr(canary("slack-token")), f"{slack.url}/api/", clock)
    assert await sender.post("C1", "hello", BLOCKS, "in-1")
    await sender.aclose()


async def test_a_rotated_token_is_picked_up(slack: SlackSimulator, clock: FakeClock, canary: Canaries) -> None:
    stored = [canary("slack-token-old"), canary("slack-token")]
    sender = SlackSender(lambda: SecretStr(stored.pop(0)), f"{slack.url}/api/", clock)
    with pytest.raises(CredentialsRefused):
        await sender.post("C1", "hello", BLOCKS, "in-1")
    assert await sender.post("C1", "hello", BLOCKS, "in-2")
    await sender.aclose()


async def test_a_token_that_cannot_be_read_is_a_refused_credential(clock: FakeClock) -> None:
    def gone() -> SecretStr:
        raise ConfigurationError("slack.token: cannot read it")

    for read in (gone, lambda: SecretStr("a\nb")):
        with pytest.raises(CredentialsRefused):
            await SlackSender(read, "http://127.0.0.1:1/", clock).post("C1", "x", BLOCKS, "in-1")


async def test_a_dry_run_reads_and_never_posts(slack: SlackSimulator, clock: FakeClock, canary: Canaries) -> None:
    sender = SlackSender(lambda: SecretStr(canary("slack-token")), f"{slack.url}/api/", clock, read_only=True)
    await sender.auth_test()
    for call in (sender.post("C1", "x", BLOCKS, "in-1"), sender.update("C1", "1.0", "x", BLOCKS, "in-1")):
        with pytest.raises(UnsafePlan):
            await call
    assert slack.calls.after(0) == []
    await sender.aclose()


async def test_a_channel_by_name_is_read_back_by_the_id_that_the_post_taught(slack: SlackSimulator, sender: SlackSender) -> None:
    slack.channels["#secops"] = slack.channels["C1"]  # chat.postMessage takes names, history only ids
    ts = await sender.post("#secops", "hello", BLOCKS, "in-1")
    del slack.channels["#secops"]
    assert await sender.find_by_intent("#secops", "in-1") == ts
    await sender.update("#secops", ts, "bye", BLOCKS, "in-2")
