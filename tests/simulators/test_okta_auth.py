"""Credentials of the simulated org: SSWS, service apps with private_key_jwt, scopes, and how each caller stands in the log."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from simulators.okta import ServiceApp
from simulators.okta.auth import ASSERTION_TYPE
from tests.simulators.okta_org import START, TOKEN, OrgUnderTest, running

CLIENT = "0oaPortcullis"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
OTHER = RSAKey.generate_key(2048, {"kid": "one"})
ELLIPTIC = ECKey.generate_key("P-256", {"kid": "two"})
SCOPES = frozenset({"okta.logs.read", "okta.users.manage", "okta.groups.read"})


@pytest.fixture
async def org() -> AsyncIterator[OrgUnderTest]:
    async with running(lag=0.0) as under_test:
        jwks: Any = {"keys": [KEY.as_dict(private=False), ELLIPTIC.as_dict(private=False)]}
        under_test.simulator.add_app(ServiceApp(CLIENT, jwks, SCOPES))
        yield under_test


def assertion(url: str, key: Any = KEY, alg: str = "RS256", kid: str = "one", **claims: Any) -> str:
    whole = {
        "iss": CLIENT,
        "sub": CLIENT,
        "aud": f"{url}/oauth2/v1/token",
        "exp": int(START) + 300,
        "iat": int(START),
        "jti": "j1",
    } | claims
    return jwt.encode({"alg": alg, "kid": kid}, {name: value for name, value in whole.items() if value is not None}, key, algorithms=[alg])


async def ask(org: OrgUnderTest, signed: str | None = None, **form: str) -> httpx.Response:
    whole = {
        "grant_type": "client_credentials",
        "scope": "okta.logs.read okta.users.manage",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": signed or assertion(org.simulator.url),
    } | form
    return await org.client.post("/oauth2/v1/token", data=whole, headers={"Authorization": ""})


async def token(org: OrgUnderTest, scope: str = "okta.logs.read okta.users.manage") -> dict[str, str]:
    answer = await ask(org, scope=scope)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


# -- SSWS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "SSWS wrong", f"Bearer {TOKEN}", TOKEN, "SSWS"])
async def test_without_a_valid_token_everything_is_401(org: OrgUnderTest, header: str) -> None:
    for path in ("/api/v1/logs", "/api/v1/users/me", "/api/v1/nowhere"):
        answer = await org.client.get(path, headers={"Authorization": header})
        assert (answer.status_code, answer.json()["errorCode"]) == (401, "E0000011")
    answer = await org.client.post("/api/v1/users/it.admin/lifecycle/suspend", headers={"Authorization": header})
    assert answer.status_code == 401
    assert (await org.state())["users"][org.simulator.admin.id]["status"] == "ACTIVE"


async def test_tokens_can_be_revoked(org: OrgUnderTest) -> None:
    bearer = await token(org)
    org.simulator.gate.revoke_all()
    assert (await org.get("/api/v1/users/me")).status_code == 401
    assert (await org.client.get("/api/v1/logs", headers=bearer)).status_code == 401


async def test_a_post_without_a_length_is_411(org: OrgUnderTest) -> None:
    request = org.client.build_request("POST", "/api/v1/users/it.admin/lifecycle/suspend")
    del request.headers["Content-Length"]
    assert (await org.client.send(request)).status_code == 411
    assert (await org.state())["users"][org.simulator.admin.id]["status"] == "ACTIVE"
    assert (await org.client.post("/api/v1/users/it.admin/lifecycle/suspend")).status_code == 200


async def test_a_call_by_ssws_stands_in_the_log_as_its_admin(org: OrgUnderTest) -> None:
    user = await org.hire("ann@corp.example")
    await org.client.post(f"/api/v1/users/{user}/lifecycle/suspend")
    [event] = await org.events("user.lifecycle.suspend")
    me = (await org.get("/api/v1/users/me")).json()
    assert (event["actor"]["type"], event["actor"]["id"]) == ("User", me["id"])
    assert event["transaction"]["detail"]["requestApiTokenId"].startswith("00T")
    assert event["client"]["id"] is None
    assert event["client"]["userAgent"]["rawUserAgent"] == "portcullis-test/1"
    assert event["debugContext"]["debugData"]["requestUri"] == f"/api/v1/users/{user}/lifecycle/suspend"
    assert TOKEN not in json.dumps(event)


def test_a_token_shows_in_no_repr(org: OrgUnderTest) -> None:
    assert TOKEN not in repr(org.simulator.gate._api_tokens[TOKEN])


# -- service apps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "alg", "kid"), [(KEY, "RS256", "one"), (KEY, "RS512", "one"), (ELLIPTIC, "ES256", "two")])
async def test_a_signed_assertion_gives_a_token_for_an_hour(org: OrgUnderTest, key: Any, alg: str, kid: str) -> None:
    answer = await ask(org, assertion(org.simulator.url, key, alg, kid))
    body = answer.json()
    assert (answer.status_code, body["token_type"], body["expires_in"]) == (200, "Bearer", 3600)
    assert body["scope"].split() == ["okta.logs.read", "okta.users.manage"]
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    assert (await org.client.get("/api/v1/logs", headers=headers)).status_code == 200
    org.clock.now += 3599
    assert (await org.client.get("/api/v1/logs", headers=headers)).status_code == 200
    org.clock.now += 1
    assert (await org.client.get("/api/v1/logs", headers=headers)).json()["errorCode"] == "E0000011"
    assert (await org.client.get("/_sim/calls")).json() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "0oaOther"},
        {"sub": "0oaOther"},
        {"aud": "http://elsewhere/oauth2/v1/token"},
        {"aud": None},
        {"exp": None},
        {"exp": int(START)},
        {"exp": int(START) + 3601},
        {"exp": "soon"},
        {"key": OTHER},
        {"kid": "three"},
        {"kid": "two"},
    ],
)
async def test_a_wrong_assertion_is_refused(org: OrgUnderTest, wrong: dict[str, Any]) -> None:
    answer = await ask(org, assertion(org.simulator.url, **wrong))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_unsigned_and_broken_assertions_are_refused(org: OrgUnderTest) -> None:
    signed = assertion(org.simulator.url)
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for broken in (f"{head}.{signed.split('.')[1]}.", "x", "a.b.c", signed[:-4], "é.é.é"):
        assert (await ask(org, broken)).json()["error"] == "invalid_client"


async def test_a_jti_is_good_once(org: OrgUnderTest) -> None:
    signed = assertion(org.simulator.url)
    assert (await ask(org, signed)).status_code == 200
    assert (await ask(org, signed)).json()["error"] == "invalid_client"
    assert (await ask(org, assertion(org.simulator.url, jti="j2"))).status_code == 200


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_assertion_type": "secret"}, 401, "invalid_client"),
        ({"scope": ""}, 400, "invalid_scope"),
        ({"scope": "okta.logs.read okta.apps.manage"}, 400, "invalid_scope"),
    ],
)
async def test_a_wrong_form_is_refused(org: OrgUnderTest, form: dict[str, str], status: int, error: str) -> None:
    answer = await ask(org, **form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


async def test_scopes_are_enforced_and_manage_includes_read(org: OrgUnderTest) -> None:
    users = await token(org, "okta.users.manage")
    assert (await org.client.get("/api/v1/users/it.admin", headers=users)).status_code == 200
    assert (await org.client.delete("/api/v1/users/it.admin/sessions", headers=users)).status_code == 204
    for method, path in (
        ("GET", "/api/v1/logs"),
        ("GET", "/api/v1/groups"),
        ("GET", "/api/v1/users/it.admin/roles"),
        ("PUT", "/api/v1/users/it.admin/risk"),
    ):
        answer = await org.client.request(method, path, headers=users)
        assert (answer.status_code, answer.json()["errorCode"]) == (403, "E0000006"), path


async def test_me_is_nobody_for_a_service_app(org: OrgUnderTest) -> None:
    answer = await org.client.get("/api/v1/users/me", headers=await token(org))
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "E0000007")


async def test_a_call_by_a_service_app_stands_in_the_log_as_that_app(org: OrgUnderTest) -> None:
    user = await org.hire("ann@corp.example")
    await org.client.post(f"/api/v1/users/{user}/lifecycle/suspend", headers=await token(org))
    [event] = await org.events("user.lifecycle.suspend")
    assert (event["actor"]["type"], event["actor"]["id"]) == ("PublicClientAppEntity", CLIENT)
    assert event["transaction"]["detail"] == {"requestApiTokenClientId": CLIENT}
    assert event["client"]["id"] == CLIENT
