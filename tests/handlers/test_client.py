"""The one HTTP client: credentials, deadlines, what goes out and what never does, and each error mapped to ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from pydantic import SecretStr

from handlers.answers import clean
from handlers.auth import BoxClientCredentials, PrivateKeyJwt, StaticToken, read_private_key
from handlers.box.api import BOX
from handlers.client import Client
from handlers.contract import Lane, last_word
from model.errors import (
    BreakerOpen,
    ConfigurationError,
    CredentialsRefused,
    Fenced,
    OutcomeUnknown,
    PermanentError,
    PortcullisError,
    RateLimited,
    Refused,
    TemporaryError,
    UnsafePlan,
)
from tests.handlers.wire import BASE, Wire, box_error, client, limits, okta_error
from tests.support.canary import Canaries
from tests.support.clock import FakeClock

OK = httpx.Response(200, json={})
HTML = {"content-type": "text/html"}


async def get(one: Client) -> object:
    return (await one.get("/x")).data()


async def put(one: Client) -> object:
    return (await one.mutate("PUT", "/x", "intent-1", json={"a": 1})).data()


# -- what goes out ----------------------------------------------------------------------------------------------------


async def test_a_mutating_call_carries_its_intent_and_a_read_does_not(clock: FakeClock) -> None:
    wire = Wire(OK, OK)
    one = client(wire, clock)
    await one.get("/x", {"limit": 2})
    await one.mutate("POST", "/y", "in-7")
    read, write = wire.requests
    assert "x-portcullis-intent" not in read.headers
    assert write.headers["x-portcullis-intent"] == "in-7"
    assert write.headers["content-length"] == "0"
    assert read.headers["authorization"] == write.headers["authorization"] == "SSWS the-token"
    assert read.headers["user-agent"].startswith("Portcullis/")


@pytest.mark.parametrize("intent", ["", "a b", "a\r\nX-Evil: 1", "é", "x" * 201])
async def test_a_crafted_intent_never_becomes_a_header(clock: FakeClock, intent: str) -> None:
    wire = Wire()
    with pytest.raises(PermanentError, match="intent"):
        await client(wire, clock).mutate("POST", "/y", intent)
    assert wire.requests == []


@pytest.mark.parametrize(
    "url", ["http://example.com", "ftp://127.0.0.1", "https://user:pw@example.com", "example.com", "http://127.0.0.1.evil.example"]
)
def test_plain_http_goes_to_loopback_only(clock: FakeClock, url: str) -> None:
    with pytest.raises(ConfigurationError):
        client(Wire(), clock, base=url)


async def test_a_dry_run_reads_and_never_mutates(clock: FakeClock) -> None:
    wire = Wire(OK)
    one = client(wire, clock, read_only=True)
    await get(one)
    with pytest.raises(UnsafePlan) as refused:
        await put(one)
    assert refused.value.code == "dry_run"
    assert wire.asked == ["GET /x"]


@pytest.mark.fault(34)
async def test_a_call_that_waited_while_its_worker_was_fenced_does_not_go_out(clock: FakeClock) -> None:
    """Its turn comes after the wait for the rate budget; what it was allowed before says nothing any more."""
    wire = Wire(OK, OK, OK)
    one = client(wire, clock, limits=limits(clock, per_minute=20.0))
    await put(one)
    await put(one)  # the third must wait
    fenced = False

    def fence() -> None:
        if fenced:
            raise Fenced("not ours any more")

    token = last_word.set(fence)
    sleep = clock.sleep

    async def stopped(seconds: float) -> None:
        nonlocal fenced
        await sleep(seconds)
        fenced = True

    clock.sleep = stopped  # type: ignore[method-assign]
    with pytest.raises(Fenced):
        await put(one)
    last_word.reset(token)
    assert len(wire.requests) == 2
    await put(one)
    assert len(wire.requests) == 3, "the breaker thinks no worse of the vendor"


async def test_redirects_are_not_followed(clock: FakeClock) -> None:
    wire = Wire(httpx.Response(302, headers={"location": "https://evil.example/"}))
    with pytest.raises(TemporaryError, match="redirects are not followed"):
        await get(client(wire, clock))
    assert len(wire.requests) == 1


async def test_cookies_are_not_kept(clock: FakeClock) -> None:
    wire = Wire(httpx.Response(200, json={}, headers={"set-cookie": "sid=1; Path=/"}), OK)
    one = client(wire, clock)
    await get(one)
    await get(one)
    assert "cookie" not in wire.requests[1].headers


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/x",
        "http://127.0.0.1:10/x",
        "https://127.0.0.1:9/x",
        "//evil.example/x",
        "http://127.0.0.1:9@evil.example/x",
        "http://me:pw@127.0.0.1:9/x",
        "http://evil.example\\@127.0.0.1:9/x",
        "http://[::1/x",
    ],
)
async def test_a_page_link_to_another_origin_is_refused_before_anything_is_sent(clock: FakeClock, url: str) -> None:
    wire = Wire()
    with pytest.raises(PermanentError) as refused:
        await client(wire, clock).follow(url)
    assert refused.value.code == "foreign_next"
    assert wire.requests == []


async def test_a_page_link_is_followed_verbatim(clock: FakeClock) -> None:
    wire = Wire(OK)
    tail = "/api/v1/logs?since=2026-01-05T09%3A00%3A00.000Z&after=a%2Fb%2B%3D_1&limit=1000"
    await client(wire, clock).follow(BASE + tail)
    assert wire.requests[0].url.raw_path.decode() == tail


# -- errors, mapped once ----------------------------------------------------------------------------------------------

MAPPED: list[tuple[Callable[[], httpx.Response | Exception], type[PortcullisError], type[PortcullisError], str]] = [
    # answer, for a GET, for a mutating call, code
    (lambda: okta_error(400, "E0000001"), Refused, Refused, "E0000001"),
    (lambda: okta_error(403, "E0000006"), Refused, Refused, "E0000006"),
    (
        lambda: okta_error(403, "E0000006", www_authenticate='Bearer error="insufficient_scope"'),
        CredentialsRefused,
        CredentialsRefused,
        "E0000006",
    ),
    (lambda: okta_error(401, "E0000011"), CredentialsRefused, CredentialsRefused, "E0000011"),
    (lambda: okta_error(404, "E0000007"), Refused, Refused, "not_found"),
    (lambda: httpx.Response(404, text="<html>no such host</html>", headers=HTML), TemporaryError, TemporaryError, ""),
    (lambda: httpx.Response(403, text="<html>blocked by proxy</html>", headers=HTML), TemporaryError, TemporaryError, ""),
    (lambda: httpx.Response(404), TemporaryError, TemporaryError, ""),
    (lambda: okta_error(409, "E0000112"), TemporaryError, TemporaryError, ""),
    (lambda: okta_error(412, "E0000231"), Refused, Refused, "E0000231"),
    (lambda: httpx.Response(408), TemporaryError, TemporaryError, ""),
    (lambda: httpx.Response(425), TemporaryError, TemporaryError, ""),
    (lambda: okta_error(429, "E0000047"), RateLimited, RateLimited, ""),
    (lambda: okta_error(500, "E0000009"), TemporaryError, OutcomeUnknown, ""),
    (lambda: httpx.Response(502, text="<html/>"), TemporaryError, OutcomeUnknown, ""),
    (lambda: okta_error(503, "E0000010"), TemporaryError, OutcomeUnknown, ""),
    (lambda: httpx.Response(200, text="<html>sign in</html>", headers=HTML), TemporaryError, OutcomeUnknown, ""),
    (lambda: httpx.Response(200, content=b'{"id": "1", "na'), TemporaryError, OutcomeUnknown, ""),
    (lambda: httpx.ReadTimeout("slow"), TemporaryError, OutcomeUnknown, ""),
    (lambda: httpx.WriteTimeout("slow"), TemporaryError, OutcomeUnknown, ""),
    (lambda: httpx.DecodingError("gzip"), TemporaryError, OutcomeUnknown, ""),
    (lambda: httpx.PoolTimeout("full"), TemporaryError, TemporaryError, ""),
]


@pytest.mark.parametrize("number", range(len(MAPPED)))
@pytest.mark.fault(36)
async def test_each_answer_means_one_thing(clock: FakeClock, number: int) -> None:
    step, for_get, for_put, code = MAPPED[number]
    for verb, expected in ((get, for_get), (put, for_put)):
        with pytest.raises(PortcullisError) as raised:
            await verb(client(Wire(step(), step()), clock))
        assert type(raised.value) is expected or (expected is TemporaryError and type(raised.value).__mro__[1] is TemporaryError)
        assert isinstance(raised.value, OutcomeUnknown) == (expected is OutcomeUnknown)
        assert getattr(raised.value, "code", "") == code


@pytest.mark.parametrize(
    ("answer", "expected", "code"),
    [
        (box_error(409, "operation_blocked_temporary"), TemporaryError, ""),
        (box_error(409, "name_temporarily_reserved"), TemporaryError, ""),
        (box_error(409, "user_login_already_used"), Refused, "user_login_already_used"),
        (box_error(403, "insufficient_scope"), CredentialsRefused, "insufficient_scope"),
        (box_error(403, "access_denied_insufficient_permissions"), Refused, "access_denied_insufficient_permissions"),
        (
            httpx.Response(400, json={"errors": [{"reason": "invalid_parameter", "name": "email", "message": "no"}]}),
            Refused,
            "invalid_parameter",
        ),
    ],
)
async def test_box_codes(clock: FakeClock, answer: httpx.Response, expected: type[Exception], code: str) -> None:
    with pytest.raises(expected) as raised:
        await put(client(Wire(answer), clock, dialect=BOX))
    assert getattr(raised.value, "code", "") == code


async def test_the_request_id_is_kept(clock: FakeClock) -> None:
    wire = Wire(httpx.Response(200, json={}, headers={"x-okta-request-id": "abc"}), okta_error(403, "E0000006", x_okta_request_id="def"))
    one = client(wire, clock)
    assert (await one.get("/x")).request_id == "abc"
    with pytest.raises(Refused, match="request def"):
        await one.get("/x")


async def test_a_4xx_about_an_object_does_not_open_the_breaker(clock: FakeClock) -> None:
    one = client(Wire(*(okta_error(404, "E0000007") for _ in range(20))), clock)
    for _ in range(20):
        with pytest.raises(Refused):
            await get(one)


async def test_strangers_pages_open_the_breaker(clock: FakeClock) -> None:
    one = client(Wire(*(httpx.Response(404, text="<html/>") for _ in range(5))), clock)
    for _ in range(5):
        with pytest.raises(TemporaryError):
            await get(one)
    with pytest.raises(BreakerOpen):
        await get(one)


# -- nothing went out, or nobody knows --------------------------------------------------------------------------------


async def test_a_get_is_repeated_once_after_a_lost_connection_and_no_more(clock: FakeClock) -> None:
    for lost in (
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.RemoteProtocolError("closed"),
        httpx.ReadError("reset"),
    ):
        again = Wire(lost, OK)
        await get(client(again, clock))
        assert len(again.requests) == 2
        never = Wire(lost, lost)
        with pytest.raises(TemporaryError):
            await get(client(never, clock))
        assert len(never.requests) == 2


@pytest.mark.parametrize(("lane", "requests"), [("provision", 30 + 10), ("lockdown", 30 + 30)])
async def test_that_repeat_is_a_retry_like_any_other(clock: FakeClock, lane: Lane, requests: int) -> None:
    """E6: a host that is down is not asked twice by everybody. Lockdown is exempt."""
    down = Wire(*[httpx.ConnectError("refused")] * 100)
    one = client(down, clock, lane=lane, limits=limits(clock, lane=lane, per_minute=6000))
    for _ in range(30):
        with pytest.raises(TemporaryError):
            await get(one)
        one.limits.breaker.succeeded(probe=True)  # another call's good answer: the breaker stays out of this
    assert len(down.requests) == requests


@pytest.mark.fault(35)
@pytest.mark.parametrize("lost", [httpx.RemoteProtocolError("closed"), httpx.ReadError("reset"), httpx.WriteError("reset")])
async def test_a_mutating_call_that_may_have_gone_out_is_unknown_and_not_repeated(clock: FakeClock, lost: Exception) -> None:
    wire = Wire(lost)
    with pytest.raises(OutcomeUnknown):
        await put(client(wire, clock))
    assert len(wire.requests) == 1


@pytest.mark.parametrize("lost", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow")])
async def test_a_mutating_call_that_never_left_is_only_temporary(clock: FakeClock, lost: Exception) -> None:
    wire = Wire(lost)
    with pytest.raises(TemporaryError) as raised:
        await put(client(wire, clock))
    assert not isinstance(raised.value, OutcomeUnknown)
    assert len(wire.requests) == 1


async def test_a_body_over_the_cap_is_refused(clock: FakeClock) -> None:
    big = httpx.Response(200, content=b"[" + b"1," * 600 + b"1]")
    with pytest.raises(PermanentError) as raised:
        await get(client(Wire(big), clock, max_body=1000))
    assert raised.value.code == "body_too_large"
    with pytest.raises(OutcomeUnknown):
        await put(client(Wire(httpx.Response(200, content=b"x" * 2000)), clock, max_body=1000))


# -- how long to wait -------------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
DATE = format_datetime(NOW, usegmt=True)


def at(seconds: float) -> str:
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


def epoch(seconds: float) -> str:
    return str(int(NOW.timestamp() + seconds))


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-1"}, 0),
        ({"retry-after": "86400"}, 300),
        ({"retry-after": "99999999999999999999"}, 1),
        ({"retry-after": "abc"}, 1),
        ({"retry-after": "nan"}, 1),
        ({"retry-after": "inf"}, 1),
        ({"retry-after": at(40), "date": DATE}, 40),
        ({"retry-after": at(-40), "date": DATE}, 0),
        ({"retry-after": at(90000), "date": DATE}, 300),
        ({}, 1),
    ],
)
async def test_retry_after(clock: FakeClock, headers: dict[str, str], delay: float) -> None:
    with pytest.raises(RateLimited) as raised:
        await get(client(Wire(box_error(429, "rate_limit_exceeded", **headers)), clock, dialect=BOX))
    assert raised.value.delay == pytest.approx(delay)


@pytest.mark.parametrize(
    ("reset", "delay"),
    [(epoch(30), 31), (epoch(-100), 0), (epoch(5000), 300), ("garbage", 1)],
)
async def test_oktas_reset_counts_against_the_servers_clock_and_not_ours(clock: FakeClock, reset: str, delay: float) -> None:
    clock.shift(3600)  # our clock is an hour off
    answer = okta_error(429, "E0000047", x_rate_limit_limit="600", x_rate_limit_remaining="0", x_rate_limit_reset=reset, date=DATE)
    with pytest.raises(RateLimited) as raised:
        await get(client(Wire(answer), clock))
    assert raised.value.delay == pytest.approx(delay)


@pytest.mark.fault(7)
async def test_too_many_calls_at_a_time_back_off_within_bounds_whatever_reset_says(clock: FakeClock) -> None:
    crowded = [
        okta_error(429, "E0000047", x_rate_limit_limit="0", x_rate_limit_remaining="0", x_rate_limit_reset=epoch(9000), date=DATE)
        for _ in range(8)
    ]
    one = client(Wire(*crowded[:7], OK, crowded[7]), clock)
    delays = []
    for _ in range(9):
        try:
            await get(one)
        except RateLimited as limited:
            delays.append(limited.delay)
        clock.shift(400)
    assert delays == [1, 2, 4, 8, 16, 30, 30, 1]


async def test_the_delay_is_jittered(clock: FakeClock) -> None:
    with pytest.raises(RateLimited) as raised:
        await get(client(Wire(box_error(429, "rate_limit_exceeded", retry_after="7")), clock, jitter=lambda: 0.5))
    assert raised.value.delay == pytest.approx(7.5)


async def test_a_503_that_says_when_is_heeded(clock: FakeClock) -> None:
    with pytest.raises(OutcomeUnknown) as raised:
        await put(client(Wire(box_error(503, "unavailable", retry_after="12")), clock, dialect=BOX))
    assert raised.value.delay == 12


# -- credentials ------------------------------------------------------------------------------------------------------


def token(number: int, **more: object) -> httpx.Response:
    return httpx.Response(200, json={"access_token": f"t{number}", "expires_in": 3600, "token_type": "bearer"} | more)


def box_auth(clock: FakeClock, secret: str = "s3cr3t") -> BoxClientCredentials:
    return BoxClientCredentials(clock, f"{BASE}/oauth2/token", "app", lambda: SecretStr(secret), "900001")


async def test_a_token_is_fetched_once_and_kept_until_shortly_before_its_end(clock: FakeClock) -> None:
    wire = Wire(token(1), OK, OK, token(2), OK)
    one = client(wire, clock, dialect=BOX, auth=box_auth(clock))
    await get(one)
    clock.shift(3500)
    await get(one)
    clock.shift(60)
    await get(one)
    assert wire.asked == ["POST /oauth2/token", "GET /x", "GET /x", "POST /oauth2/token", "GET /x"]
    assert wire.requests[4].headers["authorization"] == "Bearer t2"
    assert "authorization" not in wire.requests[0].headers
    assert wire.requests[0].content.decode() == (
        "grant_type=client_credentials&client_id=app&client_secret=s3cr3t&box_subject_type=enterprise&box_subject_id=900001"
    )


async def test_after_a_401_one_new_token_and_one_repeat(clock: FakeClock) -> None:
    wire = Wire(token(1), box_error(401, "unauthorized"), token(2), OK)
    await put(client(wire, clock, dialect=BOX, auth=box_auth(clock)))
    assert wire.asked == ["POST /oauth2/token", "PUT /x", "POST /oauth2/token", "PUT /x"]
    stubborn = Wire(token(1), box_error(401, "unauthorized"), token(2), box_error(401, "unauthorized"))
    one = client(stubborn, clock, dialect=BOX, auth=box_auth(clock))
    with pytest.raises(CredentialsRefused):
        await put(one)
    with pytest.raises(BreakerOpen):
        await put(one)


async def test_many_callers_share_one_new_token(clock: FakeClock) -> None:
    issued = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal issued
        if request.url.path == "/oauth2/token":
            issued += 1
            return token(issued)
        return OK if request.headers["authorization"] == "Bearer t2" else box_error(401, "unauthorized")

    wire = Wire(*[answer] * 100)
    one = client(wire, clock, dialect=BOX, auth=box_auth(clock))
    await asyncio.gather(*(get(one) for _ in range(30)))
    assert issued == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(400, json={"error": "invalid_grant", "error_description": "Grant credentials are invalid"}), CredentialsRefused),
        (httpx.Response(401, json={"error": "invalid_client"}), CredentialsRefused),
        (httpx.Response(503), TemporaryError),
        (httpx.Response(429), RateLimited),
        (httpx.Response(200, text="<html/>"), TemporaryError),
        (httpx.Response(200, json={"token_type": "bearer"}), TemporaryError),
        (httpx.Response(200, json={"access_token": "a\r\nb"}), TemporaryError),
        (httpx.Response(404, text="<html/>"), TemporaryError),
        (httpx.ReadTimeout("slow"), TemporaryError),
    ],
)
async def test_a_token_endpoint_that_gives_none(clock: FakeClock, answer: httpx.Response | Exception, expected: type[Exception]) -> None:
    wire = Wire(answer)
    with pytest.raises(expected) as raised:
        await put(client(wire, clock, dialect=BOX, auth=box_auth(clock)))
    assert not isinstance(raised.value, OutcomeUnknown), "the call itself never went out"
    assert wire.asked == ["POST /oauth2/token"]


async def test_a_rotated_static_token_is_picked_up_after_a_401(clock: FakeClock) -> None:
    stored = ["old", "new"]
    auth = StaticToken("SSWS", lambda: SecretStr(stored.pop(0) if len(stored) > 1 else stored[0]))
    wire = Wire(okta_error(401, "E0000011"), OK)
    await get(client(wire, clock, auth=auth))
    assert [request.headers["authorization"] for request in wire.requests] == ["SSWS old", "SSWS new"]


async def test_a_static_token_that_stayed_the_same_is_not_tried_twice(clock: FakeClock) -> None:
    wire = Wire(okta_error(401, "E0000011"))
    with pytest.raises(CredentialsRefused):
        await get(client(wire, clock))
    assert len(wire.requests) == 1


async def test_a_secret_that_cannot_be_read_is_a_refused_credential(clock: FakeClock) -> None:
    def read() -> SecretStr:
        raise ConfigurationError("okta.acme.token: cannot read /gone: No such file")

    with pytest.raises(CredentialsRefused, match=r"okta\.acme\.token"):
        await get(client(Wire(), clock, auth=StaticToken("SSWS", read)))


@pytest.mark.parametrize("kind", ["rsa-jwk", "rsa-pem", "ec-jwk", "ec-pem"])
async def test_an_assertion_is_signed_for_the_token_endpoint(clock: FakeClock, kind: str) -> None:
    key: RSAKey | ECKey = RSAKey.generate_key(2048, {"kid": "k1"}) if "rsa" in kind else ECKey.generate_key("P-256", {"kid": "k1"})
    text = key.as_pem(private=True).decode() if "pem" in kind else json.dumps(key.as_dict(private=True))
    auth = PrivateKeyJwt(clock, f"{BASE}/oauth2/v1/token", "0oaApp", lambda: SecretStr(text), ("okta.logs.read", "okta.users.manage"))
    wire = Wire(token(1), OK)
    await get(client(wire, clock, auth=auth))
    form = dict(httpx.QueryParams(wire.requests[0].content.decode()))
    assert form["scope"] == "okta.logs.read okta.users.manage"
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    decoded = jwt.decode(form["client_assertion"], key, algorithms=["RS256", "ES256"])
    now = int(clock.now().timestamp())
    assert decoded.claims | {"jti": ""} == {
        "iss": "0oaApp",
        "sub": "0oaApp",
        "aud": f"{BASE}/oauth2/v1/token",
        "iat": now,
        "exp": now + 300,
        "jti": "",
    }
    assert decoded.header.get("kid") == ("k1" if "jwk" in kind else None)


def test_a_key_that_is_none_is_refused_without_being_quoted(canary: Canaries) -> None:
    public = RSAKey.generate_key(2048).as_pem(private=False).decode()
    for text in (canary("broken-key"), f'{{"kty": "RSA", "n": "{canary("broken-key")}"}}', public, "{not json"):
        with pytest.raises(ConfigurationError) as raised:
            read_private_key(SecretStr(text))
        assert canary("broken-key") not in str(raised.value)


# -- secrets ----------------------------------------------------------------------------------------------------------


async def test_no_secret_stands_in_an_error(clock: FakeClock, canary: Canaries) -> None:
    """A vendor that echoes what it was sent, header and body, does not make us repeat it."""
    secret = canary("box-client-secret")
    bearer = canary("bearer-token") + "x" * 40

    def echo(request: httpx.Request) -> httpx.Response:
        return box_error(400, "bad_request", f"you sent {request.headers['authorization']} see https://reset.example/{bearer}")

    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error": "invalid_grant", "error_description": "no"})

    good = Wire(token(1, access_token=bearer), echo)
    for wire in (good, Wire(refuse)):
        with pytest.raises(PortcullisError) as raised:
            await put(client(wire, clock, dialect=BOX, auth=box_auth(clock, secret)))
        for text in (str(raised.value), repr(raised.value)):
            assert secret not in text
            assert bearer not in text
        assert raised.value.__cause__ is None
    assert "secret" not in repr(box_auth(clock, secret))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb\x1b[31mc\x00", "a b [31mc"),
        ("see https://x.example/reset?token=1 now", "see [link] now"),
        ("\u202egnp.exe", "gnp.exe"),
        ("x" * 39, "x" * 39),
        ("x" * 40, "[…]"),
        ("ab " * 200, ("ab " * 200)[:199] + "…"),
        (None, ""),
    ],
)
def test_a_vendors_text_is_cleaned(text: str | None, shown: str) -> None:
    assert clean(text) == shown


# -- on a real socket -------------------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async def good(request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" ")
            await asyncio.sleep(0.02)
        return response

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "100"})
        await response.prepare(request)
        await response.write(b'{"ok": ')
        assert request.transport is not None
        request.transport.close()
        return response

    app = web.Application()
    app.router.add_route("*", "/good", good)
    app.router.add_route("*", "/drip", drip)
    app.router.add_route("*", "/cut", cut)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_proxies_of_the_environment_are_ignored(server: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    one = client(Wire(), clock, base=server, transport=None)
    assert (await one.get("/good")).data() == {"ok": True}
    await one.aclose()


async def test_a_vendor_that_drips_is_given_up_after_the_deadline(server: str, clock: FakeClock) -> None:
    one = client(Wire(), clock, base=server, transport=None, timeout_s=0.2)
    with pytest.raises(OutcomeUnknown, match="no answer within"):
        await one.mutate("PUT", "/drip", "i")
    with pytest.raises(TemporaryError, match="no answer within"):
        await one.get("/drip")
    await one.aclose()


@pytest.mark.fault(12)
async def test_a_cut_body_is_no_answer(server: str, clock: FakeClock) -> None:
    one = client(Wire(), clock, base=server, transport=None)
    with pytest.raises(TemporaryError):
        await one.get("/cut")
    with pytest.raises(OutcomeUnknown):
        await one.mutate("PUT", "/cut", "i")
    await one.aclose()


async def test_a_closed_port_is_no_connection(clock: FakeClock) -> None:
    one = client(Wire(), clock, base="http://127.0.0.1:1", transport=None)
    with pytest.raises(TemporaryError, match="no connection") as raised:
        await one.mutate("PUT", "/x", "i")
    assert not isinstance(raised.value, OutcomeUnknown)
    await one.aclose()
