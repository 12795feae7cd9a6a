"""The shared half of every simulator: side door, faults, list of calls, limits, tokens."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from simulators.base import RateWindow, Refusal, Simulator, TokenBucket, Tokens, bearer, json_response
from simulators.calls import HIDDEN, CallLog


class Counter(Simulator):
    """A vendor whose only state is a number."""

    name = "counter"
    unlisted = ("/oauth2/token",)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.number = 0
        self.arrived, self.gate, self.worked = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.app.router.add_get("/number", self.read)
        self.app.router.add_post("/number", self.add)
        self.app.router.add_post("/slow", self.slow)
        self.app.router.add_post("/oauth2/token", self.read)
        self.app.router.add_post("/refused", self.refused)
        self.app.router.add_post("/broken", self.broken)

    def state(self) -> dict[str, Any]:
        return {"number": self.number}

    async def admit(self, request: web.Request) -> web.Response | None:
        return json_response({"error": "who are you"}, 401) if request.headers.get("X-Bad") else None

    def error_for(self, request: web.Request, status: int) -> web.Response:
        return json_response({"vendor": status}, status)

    async def read(self, request: web.Request) -> web.Response:
        return json_response({"number": self.number, "padding": "x" * 100})

    async def add(self, request: web.Request) -> web.Response:
        self.number += 1
        self.changed(request)
        self.worked.set()
        return json_response({"number": self.number})

    async def slow(self, request: web.Request) -> web.Response:
        self.arrived.set()
        await self.gate.wait()
        return await self.add(request)

    async def refused(self, request: web.Request) -> web.Response:
        raise Refusal(json_response({"vendor": "no"}, 409))

    async def broken(self, request: web.Request) -> web.Response:
        raise RuntimeError("a defect")


@pytest.fixture
async def sim() -> AsyncIterator[Counter]:
    counter = Counter()
    await counter.start()
    yield counter
    await counter.stop()


@pytest.fixture
async def http(sim: Counter) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sim.url, timeout=5, trust_env=False) as client:
        yield client


async def order(http: httpx.AsyncClient, **keys: Any) -> httpx.Response:
    return await http.post("/_sim/faults", json=keys)


async def calls(http: httpx.AsyncClient, after: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await http.get("/_sim/calls", params={"after": after})).json()
    return found


async def test_a_mutating_call_is_listed_with_its_body_intent_and_effect(http: httpx.AsyncClient) -> None:
    await http.post("/number?notify=false", json={"by": 1}, headers={"X-Portcullis-Intent": "i-1", "Authorization": "Bearer canary"})
    listed = await http.get("/_sim/calls")
    assert "canary" not in listed.text
    (call,) = listed.json()
    assert call.pop("at").endswith("Z")
    assert call == {
        "n": 1,
        "method": "POST",
        "path": "/number",
        "query": {"notify": "false"},
        "body": {"by": 1},
        "status": 200,
        "intent": "i-1",
        "changed": True,
    }


async def test_reads_and_token_requests_are_not_listed(http: httpx.AsyncClient) -> None:
    await http.get("/number")
    await http.post("/oauth2/token", data={"client_secret": "canary"})
    assert await calls(http) == []


async def test_a_call_without_effect_is_listed_as_unchanged(sim: Counter, http: httpx.AsyncClient) -> None:
    assert (await http.post("/refused", json={})).json() == {"vendor": "no"}
    assert (await http.post("/nowhere", content=b"\xff")).json() == {"vendor": 404}
    assert (await http.delete("/number")).json() == {"vendor": 405}
    assert (await http.post("/number", headers={"X-Bad": "1"})).status_code == 401
    assert [(c["status"], c["changed"], c["intent"]) for c in await calls(http)] == [
        (409, False, None),
        (404, False, None),
        (405, False, None),
        (401, False, None),
    ]
    assert sim.number == 0
    assert [c["body"] for c in await calls(http)] == [{}, None, None, None]


async def test_after_gives_the_rest_only(http: httpx.AsyncClient) -> None:
    for _ in range(3):
        await http.post("/number")
    assert [call["n"] for call in await calls(http, after=2)] == [3]
    assert await calls(http, after=9) == []
    assert (await http.get("/_sim/calls?after=-1")).status_code == 400


async def test_secrets_in_bodies_and_forms_are_hidden(http: httpx.AsyncClient) -> None:
    await http.post("/number", json={"credentials": {"password": {"value": "canary"}}, "users": [{"token": "canary"}]})
    await http.post("/number?token=canary", data={"token": "canary", "channel": "C1"})
    listed = await http.get("/_sim/calls")
    assert "canary" not in listed.text
    assert listed.json()[1]["body"] == {"token": HIDDEN, "channel": "C1"}


async def test_calls_stand_in_the_order_of_their_effects(sim: Counter, http: httpx.AsyncClient) -> None:
    slow = asyncio.create_task(http.post("/slow"))
    await sim.arrived.wait()
    await http.post("/number")
    sim.gate.set()
    await slow
    assert [call["path"] for call in await calls(http)] == ["/number", "/slow"]


async def test_a_defect_of_the_simulator_is_seen(sim: Counter, http: httpx.AsyncClient) -> None:
    answer = await http.post("/broken")
    assert (answer.status_code, answer.json()) == (500, {"vendor": 500})
    assert sim.crashes == ["POST /broken: RuntimeError('a defect')"]


@pytest.mark.parametrize(
    "bad",
    [
        {"status": 503, "tymes": 2},
        {"method": "GET"},
        {"status": "503"},
        {"status": 99},
        {"status": True},
        {"delay_s": -1},
        {"delay_s": "1"},
        {"hang": False},
        {"hang": True, "reset": True},
        {"reset": True, "status": 500},
        {"status": 500, "times": 0},
        {"status": 500, "when": "during"},
        {"headers": {"A": "b\r\nC: d"}},
        {"headers": {"A": 1}},
        {"path": 1, "status": 500},
    ],
)
async def test_a_wrong_order_is_refused_and_stands_nowhere(http: httpx.AsyncClient, bad: dict[str, Any]) -> None:
    answer = await order(http, **bad)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert (await http.get("/_sim/faults")).json() == []


async def test_an_order_that_is_no_object_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.post("/_sim/faults", json=[{"status": 500}])).status_code == 400
    assert (await http.post("/_sim/faults", content=b"{")).status_code == 400


async def test_times_are_spent_and_paths_are_globs(sim: Counter, http: httpx.AsyncClient) -> None:
    await order(http, method="post", path="/num*", times=2, status=503)
    assert (await http.get("/number")).status_code == 200
    assert [(await http.post("/number")).status_code for _ in range(3)] == [503, 503, 200]
    assert sim.number == 1
    assert [c["changed"] for c in await calls(http)] == [False, False, True]


async def test_times_null_lasts_until_it_is_taken_away(http: httpx.AsyncClient) -> None:
    await order(http, status=500, times=None)
    assert {(await http.get("/number")).status_code for _ in range(5)} == {500}
    assert (await http.get("/_sim/state")).status_code == 200  # the side door knows no faults
    assert (await http.delete("/_sim/faults")).status_code == 204
    assert (await http.get("/number")).status_code == 200


async def test_a_status_after_the_change_hides_that_it_happened(sim: Counter, http: httpx.AsyncClient) -> None:
    await order(http, status=503, when="after")
    assert (await http.post("/number")).status_code == 503
    assert sim.number == 1
    assert [(c["status"], c["changed"]) for c in await calls(http)] == [(503, True)]


async def test_body_and_headers_replace_the_answer(http: httpx.AsyncClient) -> None:
    await order(http, body="<html>proxy</html>", headers={"Content-Type": "text/html"})
    answer = await http.get("/number")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "<html>proxy</html>", "text/html")
    await order(http, status=429, body={"slow": True}, headers={"Retry-After": "86400"})
    answer = await http.get("/number")
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (429, {"slow": True}, "86400")
    await order(http, headers={"X-More": "1"})
    answer = await http.get("/number")
    assert (answer.json()["number"], answer.headers["x-more"]) == (0, "1")


@pytest.mark.parametrize(("when", "number"), [("before", 0), ("after", 1)])
async def test_reset_ends_the_connection(sim: Counter, http: httpx.AsyncClient, when: str, number: int) -> None:
    await order(http, reset=True, when=when, path="/number")
    with pytest.raises(httpx.ReadError):
        await http.post("/number")
    assert sim.number == number
    assert [(c["status"], c["changed"]) for c in await calls(http)] == [(None, bool(number))]


@pytest.mark.parametrize(("when", "number"), [("before", 0), ("after", 1)])
async def test_hang_answers_nothing(sim: Counter, http: httpx.AsyncClient, when: str, number: int) -> None:
    await order(http, hang=True, when=when, path="/number")
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/number", timeout=0.3)
    assert sim.number == number
    assert [(c["status"], c["changed"]) for c in await calls(http)] == [(None, bool(number))]


async def test_hanging_requests_do_not_hold_up_the_end(sim: Counter, http: httpx.AsyncClient) -> None:
    await order(http, hang=True)
    hanging = asyncio.create_task(http.get("/number"))
    for _ in range(100):
        if not (await http.get("/_sim/faults")).json():
            break
    await asyncio.wait_for(sim.stop(), 2)
    with pytest.raises(httpx.TransportError):
        await hanging


@pytest.mark.parametrize(("method", "when", "number"), [("GET", "before", 0), ("POST", "before", 0), ("POST", "after", 1)])
async def test_cut_body_promises_more_than_it_sends(sim: Counter, http: httpx.AsyncClient, method: str, when: str, number: int) -> None:
    await order(http, cut_body=True, when=when, path="/number")
    async with http.stream(method, "/number") as answer:
        promised, got = int(answer.headers["content-length"]), b""
        with contextlib.suppress(httpx.RemoteProtocolError):
            async for chunk in answer.aiter_raw():
                got += chunk
            pytest.fail("the answer was whole")
    assert 0 < len(got) < promised
    assert sim.number == number


async def test_delay_before_holds_the_change_back_and_after_only_the_answer(sim: Counter, http: httpx.AsyncClient) -> None:
    for when, number in (("before", 0), ("after", 1)):
        sim.number = 0
        sim.worked.clear()
        await order(http, delay_s=0.5, when=when)
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/number", timeout=0.1)
        assert sim.number == number
        await asyncio.wait_for(sim.worked.wait(), 5)  # the delayed request is worked on all the same
        assert sim.number == 1


async def test_it_starts_again_on_its_port_with_its_state(sim: Counter, http: httpx.AsyncClient) -> None:
    await http.post("/number")
    port = sim.port
    await sim.stop()
    with pytest.raises(httpx.ConnectError):
        await http.get("/_sim/state")
    await sim.start(port)
    assert (await http.get("/_sim/state")).json() == {"number": 1}


async def test_a_taken_port_is_an_error(sim: Counter) -> None:
    with pytest.raises(OSError, match="in use"):
        await Counter().start(sim.port)


async def test_latency_delays_answers() -> None:
    slow = Counter(latency_s=0.2)
    await slow.start()
    try:
        async with httpx.AsyncClient(base_url=slow.url, trust_env=False) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/number", timeout=0.05)
            assert (await client.get("/number", timeout=5)).status_code == 200
    finally:
        await slow.stop()


def test_the_list_of_calls_is_bounded_and_numbers_go_on() -> None:
    log = CallLog(clock=lambda: 0.0, kept=10)
    for _ in range(25):
        log.settle(log.open("POST", "/x", {}, None, None))
    numbers = [call["n"] for call in log.after(0)]
    assert numbers == list(range(numbers[0], 26))
    assert 9 <= len(numbers) <= 10
    assert [call["n"] for call in log.after(24)] == [25]
    log.settle(log.open("POST", "/x", {}, {"big": "x" * 100_000}, None))
    assert log.after(25)[0]["body"] is None


class Time:
    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


def test_a_window_refuses_what_exceeds_it_until_it_ends() -> None:
    clock = Time()
    window = RateWindow(clock, limit=2)
    assert [window.take("a").remaining for _ in range(2)] == [1, 0]
    clock.at += 59.5
    refused = window.take("a")
    assert (refused.allowed, refused.retry_after, refused.reset) == (False, 1, 1_060.0)
    assert window.take("b").allowed
    clock.at += 0.5
    assert window.take("a").allowed


def test_a_bucket_refills_steadily() -> None:
    clock = Time()
    bucket = TokenBucket(clock, per_second=1, burst=3)
    assert [bucket.take("a").allowed for _ in range(4)] == [True, True, True, False]
    assert bucket.take("a").retry_after == 1
    clock.at += 1
    assert [bucket.take("a").allowed for _ in range(2)] == [True, False]
    clock.at += 100
    assert [bucket.take("a").allowed for _ in range(4)] == [True, True, True, False]


def test_tokens_end() -> None:
    clock = Time()
    tokens = Tokens(clock, lifetime_s=60)
    token = tokens.issue("e")
    tokens.add("static", "me")
    assert (tokens.subject(token), tokens.subject("static"), tokens.subject("x"), tokens.subject(None)) == ("e", "me", None, None)
    clock.at += 60
    assert tokens.subject(token) is None
    clock.at = math.inf
    assert tokens.subject("static") is None
    assert tokens.revoke("static")
    assert not tokens.revoke("static")


@pytest.mark.parametrize(
    ("header", "token"), [("Bearer abc", "abc"), ("bearer abc", "abc"), ("SSWS abc", None), ("Bearer ", None), ("Bearer", None)]
)
async def test_bearer_reads_its_scheme_only(header: str, token: str | None) -> None:
    assert bearer(make_mocked_request("GET", "/", headers={"Authorization": header})) == token
