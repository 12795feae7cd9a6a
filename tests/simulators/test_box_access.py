"""Box: tokens, the rate limit, who acts for whom, and the form of errors."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.simulators.box_desk import Desk, open_desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def test_a_token_comes_in_oauths_shape(desk: Desk) -> None:
    body = (await desk.sign_in()).json()
    assert set(body) == {"access_token", "expires_in", "restricted_to", "token_type"}
    assert (body["expires_in"], body["token_type"]) == (3600, "bearer")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_secret": "wrong"}, "invalid_grant"),
        ({"client_id": "wrong"}, "invalid_grant"),
        ({"box_subject_id": "1"}, "invalid_grant"),
        ({"box_subject_type": "user"}, "invalid_grant"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "invalid_request"),
    ],
)
async def test_wrong_credentials_get_oauths_error(desk: Desk, changes: dict[str, str], error: str) -> None:
    answer = await desk.sign_in(**changes)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "error_description"}
    assert answer.json()["error"] == error


async def test_the_words_of_a_refused_grant_are_boxs(desk: Desk) -> None:
    answer = await desk.sign_in(client_secret="wrong")
    assert answer.json() == {"error": "invalid_grant", "error_description": "Grant credentials are invalid"}


async def test_a_token_request_in_json_is_refused(desk: Desk) -> None:
    answer = await desk.http.post("/oauth2/token", json={"grant_type": "client_credentials"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_no_token_no_answer(desk: Desk) -> None:
    desk.token = "forged"
    assert await desk.error("GET", "/users") == (401, "unauthorized")
    assert await desk.error("GET", "/users", headers={"Authorization": "Basic x"}) == (401, "unauthorized")
    assert await desk.error("GET", "/nowhere") == (401, "unauthorized")


async def test_tokens_end_and_are_revoked(desk: Desk) -> None:
    desk.time.at += 3599
    await desk.ok("GET", "/users/me")
    desk.time.at += 1
    assert await desk.error("GET", "/users/me") == (401, "unauthorized")
    await desk.sign_in()
    form = {"client_id": desk.box.client_id, "client_secret": "wrong", "token": desk.token}
    assert (await desk.http.post("/oauth2/revoke", data=form)).status_code == 400
    await desk.ok("GET", "/users/me")
    answer = await desk.http.post("/oauth2/revoke", data=form | {"client_secret": desk.box.client_secret})
    assert (answer.status_code, answer.content) == (200, b"")
    assert await desk.error("GET", "/users/me") == (401, "unauthorized")


async def test_a_thousand_requests_a_minute_and_no_more() -> None:
    async with open_desk(rate_per_minute=3) as desk:
        for _ in range(3):
            await desk.ok("GET", "/users/me")
        desk.time.at += 20
        await desk.sign_in()  # another token of the same subject shares the bucket
        answer = await desk.call("GET", "/users/me")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "40")
        assert await desk.error("GET", "/users/me") == (429, "rate_limit_exceeded")
        desk.time.at += 40
        await desk.ok("GET", "/users/me")


async def test_a_refused_call_is_listed_without_effect() -> None:
    async with open_desk(rate_per_minute=0) as desk:
        assert await desk.error("POST", "/groups", {"name": "Sales"}) == (429, "rate_limit_exceeded")
        assert desk.last_call() == (429, False)
        assert desk.box.state()["groups"] == {}


async def test_unknown_paths_and_methods_answer_as_box_does(desk: Desk) -> None:
    assert await desk.error("GET", "/nowhere") == (404, "not_found")
    assert await desk.error("PATCH", "/users/1", {}) == (405, "method_not_allowed")
    answer = await desk.http.get("/users")  # without /2.0
    assert answer.json()["code"] == "not_found"


async def test_an_ordered_fault_speaks_as_box_does(desk: Desk) -> None:
    desk.box.faults.add({"status": 503, "times": 2})
    assert await desk.error("GET", "/users") == (503, "unavailable")
    desk.box.faults.add({"status": 429})
    assert await desk.error("GET", "/users") == (503, "unavailable")
    answer = await desk.call("GET", "/users")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "100")


async def test_acting_for_others(desk: Desk) -> None:
    ann = desk.box.add_user("ann@example.com")
    gone = desk.box.add_user("gone@example.com", status="inactive")
    boss = desk.box.add_user("boss@example.com", role="coadmin")
    admin = desk.box.add_user("admin@example.com", role="admin")
    guest = desk.box.add_user("guest@example.org", external=True)
    assert (await desk.ok("GET", "/users/me", as_user=ann))["id"] == ann
    for other in (gone, boss, admin, guest, "1"):
        assert await desk.error("GET", "/users/me", as_user=other) == (403, "access_denied_insufficient_permissions")


async def test_an_ordinary_user_manages_nothing(desk: Desk) -> None:
    ann, bob = desk.box.add_user("ann@example.com"), desk.box.add_user("bob@example.com")
    group = desk.box.add_group("Sales")
    denied = (403, "access_denied_insufficient_permissions")
    assert await desk.error("GET", "/users", as_user=ann) == denied
    assert await desk.error("PUT", f"/users/{bob}", {"status": "inactive"}, as_user=ann) == denied
    assert await desk.error("DELETE", f"/users/{bob}", as_user=ann) == denied
    assert await desk.error("POST", "/groups", {"name": "x"}, as_user=ann) == denied
    assert await desk.error("POST", "/group_memberships", {"user": {"id": ann}, "group": {"id": group}}, as_user=ann) == denied
    assert await desk.error("PUT", f"/users/{bob}/folders/0", {"owned_by": {"id": ann}}, as_user=ann) == denied
    assert await desk.error("GET", "/events", as_user=ann) == denied
    assert (await desk.ok("GET", f"/users/{ann}/memberships", as_user=ann))["total_count"] == 0


async def test_no_secret_is_shown_by_the_side_door(desk: Desk) -> None:
    await desk.ok("POST", "/groups", {"name": "Sales"}, status=201)
    for path in ("/_sim/state", "/_sim/calls"):
        shown = (await desk.http.get(path)).text
        assert desk.token not in shown
        assert desk.box.client_secret not in shown
