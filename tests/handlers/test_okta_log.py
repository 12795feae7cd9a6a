"""The log's pages as the poller gets them: raw bytes, rate headers, the next link, and what is never a page."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import httpx
import pytest
from pydantic import SecretStr

from handlers.auth import StaticToken
from handlers.okta.api import LogPage, OktaApi
from model.errors import CredentialsRefused, PermanentError, TemporaryError
from simulators.okta import OktaSimulator
from tests.handlers.wire import BASE, Wire, client, okta_error
from tests.support.clock import FakeClock

SELF, NEXT = ("link", f'<{BASE}/api/v1/logs?limit=2>; rel="self"'), ("link", f'<{BASE}/api/v1/logs?after=1_2&limit=2>; rel="next"')
DATE = ("date", "Mon, 05 Jan 2026 09:00:00 GMT")
RATE = [
    ("x-rate-limit-limit", "120"),
    ("x-rate-limit-remaining", "7"),
    ("x-rate-limit-reset", str(int(datetime(2026, 1, 5, 9, 0, 30, tzinfo=UTC).timestamp()))),
]


def api(clock: FakeClock, *steps: httpx.Response | Exception) -> tuple[OktaApi, Wire]:
    wire = Wire(*steps)
    return OktaApi(client(wire, clock), BASE), wire


async def ask(clock: FakeClock, step: httpx.Response | Exception) -> LogPage:
    one, _ = api(clock, *[step] * 2)
    return await one.log_page(one.first_log_url("2026-01-05T00:00:00Z", 2))


def test_a_tail_begins_as_a_polling_query_and_a_re_read_as_a_bounded_one(clock: FakeClock) -> None:
    one, _ = api(clock)
    tail = httpx.URL(one.first_log_url("2026-01-05T09:00:00.000Z", 1000))
    assert dict(tail.params) == {"since": "2026-01-05T09:00:00.000Z", "sortOrder": "ASCENDING", "limit": "1000"}
    again = httpx.URL(one.first_log_url("2026-01-05T09:00:00Z", 100, until="2026-01-05T10:00:00Z"))
    assert again.params["until"] == "2026-01-05T10:00:00Z"


async def test_a_page_keeps_every_byte_and_tells_the_rate(clock: FakeClock) -> None:
    body = b'[{"uuid":"1",  "a":1.50},\n {"uuid":"2","b":"\\ud800"}]'
    page = await ask(clock, httpx.Response(200, content=body, headers=[SELF, NEXT, DATE, *RATE, ("x-okta-request-id", "r1")]))
    assert (page.status, page.body, page.error_code, page.request_id) == (200, body, "", "r1")
    assert page.events == (b'{"uuid":"1",  "a":1.50}', b'{"uuid":"2","b":"\\ud800"}')
    assert page.next == f"{BASE}/api/v1/logs?after=1_2&limit=2"
    assert page.date == datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
    assert (page.limit, page.remaining, page.reset, page.retry_after) == (120, 7, int(RATE[2][1]), 31.0)


async def test_links_in_one_header_are_told_apart(clock: FakeClock) -> None:
    joined = f'<{BASE}/api/v1/logs?a,b>; rel="self", <{BASE}/api/v1/logs?after=1,2>; rel="next"'
    page = await ask(clock, httpx.Response(200, content=b"[]", headers={"link": joined}))
    assert page.next == f"{BASE}/api/v1/logs?after=1,2"
    assert (await ask(clock, httpx.Response(200, content=b"[]", headers=[SELF]))).next is None


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (okta_error(400, "E0000053"), 400, "E0000053"),
        (okta_error(401, "E0000011"), 401, "E0000011"),
        (okta_error(403, "E0000006"), 403, "E0000006"),
        (okta_error(429, "E0000047"), 429, "E0000047"),
        (okta_error(500, "E0000009"), 500, "E0000009"),
        (httpx.Response(502, text="<html/>"), 502, ""),
        (httpx.Response(302, headers={"location": "https://evil.example"}), 302, ""),
    ],
)
async def test_a_status_is_the_pollers_business(clock: FakeClock, answer: httpx.Response, status: int, code: str) -> None:
    page = await ask(clock, answer)
    assert (page.status, page.error_code, page.body, page.events, page.next) == (status, code, b"", (), None)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"x-rate-limit-limit": "120", "x-rate-limit-remaining": "0", "x-rate-limit-reset": "1", "date": DATE[1]}, 0.0),
        ({"x-rate-limit-limit": "0", "x-rate-limit-remaining": "0", "x-rate-limit-reset": "9999999999", "date": DATE[1]}, None),
        ({"retry-after": "86400"}, 300.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
@pytest.mark.fault(6)
@pytest.mark.fault(7)
@pytest.mark.fault(8)
async def test_how_long_a_429_asks_to_wait(clock: FakeClock, headers: dict[str, str], wait: float | None) -> None:
    page = await ask(clock, okta_error(429, "E0000047", **headers))
    assert page.retry_after == wait


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>sign in</html>"),
        httpx.Response(200, content=b""),
        httpx.Response(200, content=b'[{"uuid":"1"},{"uuid":"2","target":[{"id":"3"}]'),
        httpx.Response(200, content=b'[{"uuid":"1","target":[]'),
        httpx.Response(200, content=b'{"errorCode": "E0000009"}'),
        httpx.ReadTimeout("slow"),
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("cut"),
    ],
)
@pytest.mark.fault(11)
@pytest.mark.fault(12)
async def test_what_is_no_whole_array_is_asked_for_again(clock: FakeClock, answer: httpx.Response | Exception) -> None:
    with pytest.raises(TemporaryError):
        await ask(clock, answer)


async def test_the_token_never_leaves_its_origin(clock: FakeClock) -> None:
    one, wire = api(clock)
    for url in (
        "https://evil.example/api/v1/logs?after=1",
        "http://127.0.0.1:9@evil.example/api/v1/logs",
        "http://localhost:9/api/v1/logs",
    ):
        with pytest.raises(PermanentError) as refused:
            await one.log_page(url)
        assert refused.value.code == "foreign_next"
    assert wire.requests == []


async def test_a_next_link_that_leads_away_never_becomes_a_checkpoint(clock: FakeClock) -> None:
    away = ("link", '<https://evil.example/api/v1/logs?after=1>; rel="next"')
    with pytest.raises(PermanentError) as refused:
        await ask(clock, httpx.Response(200, content=b"[]", headers=[SELF, away]))
    assert refused.value.code == "foreign_next"


async def test_neither_breaker_nor_budget_stand_before_the_log(clock: FakeClock) -> None:
    one, wire = api(clock, *[okta_error(401, "E0000011")] * 30)
    for _ in range(30):
        assert (await one.log_page(f"{BASE}/api/v1/logs?after=1")).status == 401
    assert len(wire.requests) == 30
    assert clock.slept == []


async def test_a_token_that_cannot_be_had_is_told(clock: FakeClock) -> None:
    from model.errors import ConfigurationError

    def gone() -> SecretStr:
        raise ConfigurationError("okta.acme.token: cannot read it")

    with pytest.raises(CredentialsRefused):
        await OktaApi(client(Wire(), clock, auth=StaticToken("SSWS", gone)), BASE).log_page(f"{BASE}/api/v1/logs")


async def test_against_the_simulator_every_event_comes_once_in_order(clock: FakeClock) -> None:
    okta = OktaSimulator(lag=0.0, rate=100_000)
    okta.add_token("00t")
    raws = [b'{"uuid": "u%d", "eventType": "user.session.start", "published": "2017-01-01T00:00:00.000Z"}' % n for n in range(25)]
    okta.org.log.extend(raws)
    await okta.start()
    one = OktaApi(client(Wire(), clock, base=okta.url, auth=StaticToken("SSWS", lambda: SecretStr("00t")), transport=None), okta.url)
    since = datetime.fromtimestamp(time.time() - 86400, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    url = one.first_log_url(since, 10)
    got: list[bytes] = []
    for _ in range(5):
        page = await one.log_page(url)
        assert page.status == 200
        assert page.next is not None
        got += page.events
        url = page.next
    assert got == raws
    assert page.events == ()
    await one.aclose()
    await okta.stop()
