"""Box: users. Each refusal is one that the fact sheet names, each success is read back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.simulators.box_desk import Desk, open_desk

DENIED = (403, "access_denied_insufficient_permissions")
NEW = {"name": "Ann Example", "login": "ann@example.com"}


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def user(desk: Desk, user_id: str) -> dict[str, Any]:
    found: dict[str, Any] = await desk.ok(
        "GET", f"/users/{user_id}", params={"fields": "status,role,space_amount,job_title,tracking_codes,login,name"}
    )
    return found


# -- finding ----------------------------------------------------------------------------------------------------------


async def test_filter_term_is_a_prefix_of_login_or_name(desk: Desk) -> None:
    for login in ("ann@x.com", "ann@x.com.au", "bob@x.com"):
        desk.box.add_user(login, name={"bob@x.com": "Ann@x.com Senior"}.get(login, "Zoe"))
    found = await desk.ok("GET", "/users", params={"filter_term": "ANN@x.com"})
    assert [one["login"] for one in found["entries"]] == ["ann@x.com", "ann@x.com.au", "bob@x.com"]
    found = await desk.ok("GET", "/users", params={"filter_term": "nn@x.com"})
    assert found["entries"] == []


async def test_the_search_follows_changes(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com", "Ann")
    desk.box.set_user(ann, login="anna@y.com", name="Bea")

    async def hits(term: str) -> list[str]:
        return [one["id"] for one in (await desk.ok("GET", "/users", params={"filter_term": term}))["entries"]]

    assert [await hits(term) for term in ("ann@x.com", "Ann", "anna@", "bea")] == [[], [ann], [ann], [ann]]
    await desk.ok("DELETE", f"/users/{ann}", status=204)
    assert await hits("anna@") == []


async def test_external_users_are_found_by_their_exact_login_only(desk: Desk) -> None:
    guest = desk.box.add_user("guest@other.org", "Guest", external=True)
    for kind, term, hits in (
        ("external", "guest@other.org", [guest]),
        ("external", "guest", []),
        ("managed", "guest@other.org", []),
        ("all", "guest@other.org", [guest]),
    ):
        found = await desk.ok("GET", "/users", params={"user_type": kind, "filter_term": term})
        assert [one["id"] for one in found["entries"]] == hits
    shown = await desk.ok("GET", f"/users/{guest}", params={"fields": "role,space_amount"})
    assert set(shown) == {"type", "id", "name", "login"}  # of others little is seen


async def test_fields_show_the_mini_fields_and_those_asked(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com")
    plain = await desk.ok("GET", f"/users/{ann}")
    assert {"status", "space_amount", "job_title"} <= set(plain)
    assert not {"role", "enterprise", "tracking_codes"} & set(plain)
    asked = await desk.ok("GET", "/users", params={"fields": "status,role", "filter_term": "ann"})
    assert set(asked["entries"][0]) == {"type", "id", "name", "login", "status", "role"}


async def test_pages_by_offset(desk: Desk) -> None:
    ids = [desk.box.add_user(f"u{n}@x.com") for n in range(5)]
    seen: list[str] = []
    offset = 0
    while True:
        page = await desk.ok("GET", "/users", params={"filter_term": "u", "limit": 2, "offset": offset})
        assert (page["total_count"], page["limit"], page["offset"]) == (5, 2, offset)
        if not page["entries"]:
            break
        seen += [one["id"] for one in page["entries"]]
        offset += page["limit"]
    assert seen == ids


async def test_pages_by_marker(desk: Desk) -> None:
    ids = [desk.box.add_user(f"u{n}@x.com") for n in range(5)]
    seen: list[str] = []
    params: dict[str, Any] = {"filter_term": "u", "limit": 2, "usemarker": "true"}
    while True:
        page = await desk.ok("GET", "/users", params=params)
        assert "total_count" not in page
        seen += [one["id"] for one in page["entries"]]
        if not page["next_marker"]:
            break
        params["marker"] = page["next_marker"]
    assert seen == ids


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"limit": "0"}, "invalid_limit"),
        ({"limit": "x"}, "invalid_limit"),
        ({"offset": "-1"}, "invalid_offset"),
        ({"offset": "10001"}, "invalid_offset"),
        ({"usemarker": "yes"}, "bad_request"),
        ({"usemarker": "true", "marker": "bogus!"}, "bad_request"),
        ({"marker": "bTE="}, "bad_request"),
        ({"user_type": "robots"}, "bad_request"),
        ({"filterterm": "a"}, "invalid_request_parameters"),
    ],
)
async def test_wrong_queries_are_refused(desk: Desk, params: dict[str, str], code: str) -> None:
    assert await desk.error("GET", "/users", params=params) == (400, code)


async def test_a_limit_above_a_thousand_is_clamped(desk: Desk) -> None:
    assert (await desk.ok("GET", "/users", params={"limit": 5000}))["limit"] == 1000
    assert (await desk.ok("GET", "/users"))["limit"] == 100


async def test_unknown_users_are_404(desk: Desk) -> None:
    assert await desk.error("GET", "/users/123") == (404, "not_found")
    assert await desk.error("PUT", "/users/123", {"status": "inactive"}) == (404, "not_found")
    assert await desk.error("DELETE", "/users/123") == (404, "not_found")


# -- creating ---------------------------------------------------------------------------------------------------------


async def test_create_and_read_back(desk: Desk) -> None:
    body = NEW | {
        "space_amount": -1,
        "job_title": "Engineer",
        "role": "user",
        "tracking_codes": [{"type": "tracking_code", "name": "department", "value": "Sales"}],
    }
    made = await desk.ok("POST", "/users", body, status=201)
    assert (made["type"], made["status"], made["login"]) == ("user", "active", "ann@example.com")
    assert made["id"].isdigit()
    kept = await user(desk, made["id"])
    assert (kept["space_amount"], kept["job_title"], kept["role"]) == (-1, "Engineer", "user")
    assert kept["tracking_codes"][0]["value"] == "Sales"
    assert desk.last_call() == (201, True)
    assert desk.events()[-1] == "NEW_USER"
    assert desk.box.state()["sessions"][made["id"]]["live"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "x" * 51},
        {"name": ""},
        {"name": None},
        {"login": "nobody"},
        {"login": 7},
        {"role": "admin"},
        {"role": "boss"},
        {"status": "suspended"},
        {"space_amount": -2},
        {"space_amount": "5"},
        {"space_amount": True},
        {"job_title": "x" * 101},
        {"address": "x" * 256},
        {"tracking_codes": [{"name": "shoe size", "value": "1"}]},
        {"tracking_codes": {"name": "department", "value": "1"}},
        {"is_sync_enabled": "true"},
        {"statuss": "active"},
        {"password": "x"},
    ],
)
async def test_a_wrong_new_user_is_refused_with_the_field_named(desk: Desk, wrong: dict[str, Any]) -> None:
    before = len(desk.box.state()["users"])
    answer = await desk.call("POST", "/users", NEW | wrong)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert [one["name"] for one in answer.json()["context_info"]["errors"]] == list(wrong)
    assert len(desk.box.state()["users"]) == before
    assert desk.last_call() == (400, False)


@pytest.mark.parametrize("body", [{"name": "Ann"}, {"login": "ann@example.com"}, [], "text"])
async def test_a_new_user_needs_a_name_and_a_login(desk: Desk, body: Any) -> None:
    assert await desk.error("POST", "/users", body) == (400, "bad_request")


async def test_an_app_user_needs_no_login(desk: Desk) -> None:
    made = await desk.ok("POST", "/users", {"name": "App", "is_platform_access_only": True, "external_app_user_id": "x1"}, status=201)
    found = await desk.ok("GET", "/users", params={"external_app_user_id": "x1"})
    assert [one["id"] for one in found["entries"]] == [made["id"]]


async def test_a_login_is_taken_once_whatever_its_case(desk: Desk) -> None:
    await desk.ok("POST", "/users", NEW, status=201)
    assert await desk.error("POST", "/users", NEW | {"login": "ANN@example.com"}) == (409, "user_login_already_used")
    assert desk.last_call() == (409, False)


async def test_a_login_of_another_enterprise_is_taken_though_nobody_is_found(desk: Desk) -> None:
    desk.box.add_foreign_login("ann@example.com")
    assert await desk.error("POST", "/users", NEW) == (409, "user_login_already_used")
    assert (await desk.ok("GET", "/users", params={"filter_term": "ann@example.com"}))["entries"] == []


async def test_a_co_admin_makes_no_co_admin(desk: Desk) -> None:
    assert await desk.error("POST", "/users", NEW | {"role": "coadmin"}) == DENIED


# -- changing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["inactive", "cannot_delete_edit", "cannot_delete_edit_upload"])
async def test_status_is_set_and_a_repeat_changes_nothing(desk: Desk, status: str) -> None:
    ann = desk.box.add_user("ann@x.com")
    assert (await desk.ok("PUT", f"/users/{ann}", {"status": status}))["status"] == status
    assert desk.last_call() == (200, True)
    assert (await desk.ok("PUT", f"/users/{ann}", {"status": status}))["status"] == status
    assert desk.last_call() == (200, False)
    assert (await user(desk, ann))["status"] == status


@pytest.mark.parametrize(
    "wrong", [{"status": "suspended"}, {"name": "x" * 51}, {"statuss": "inactive"}, {"enterprise": "1"}, {"notify": True}]
)
async def test_a_wrong_change_is_refused(desk: Desk, wrong: dict[str, Any]) -> None:
    ann = desk.box.add_user("ann@x.com", "Ann")
    assert await desk.error("PUT", f"/users/{ann}", wrong) == (400, "bad_request")
    assert (await user(desk, ann))["status"] == "active"


async def test_one_wrong_field_spoils_the_whole_change(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com", "Ann")
    assert await desk.error("PUT", f"/users/{ann}", {"status": "inactive", "nmae": "Bea"}) == (400, "bad_request")
    assert (await user(desk, ann))["status"] == "active"


@pytest.mark.parametrize("role", ["admin", "coadmin"])
async def test_admins_are_untouchable(desk: Desk, role: Any) -> None:
    boss = desk.box.add_user("boss@x.com", role=role)
    ann = desk.box.add_user("ann@x.com")
    assert await desk.error("PUT", f"/users/{boss}", {"status": "inactive"}) == DENIED
    assert await desk.error("DELETE", f"/users/{boss}", params={"force": "true"}) == DENIED
    body = {"user_ids": [ann, boss], "user_logins": ["ann@x.com", "boss@x.com"]}
    assert await desk.error("POST", "/users/terminate_sessions", body) == DENIED
    assert (await user(desk, boss))["status"] == "active"
    assert desk.box.state()["sessions"][ann]["ended"] == 0


async def test_nor_is_our_own_service_account_touched(desk: Desk) -> None:
    me = await desk.ok("GET", "/users/me")
    assert await desk.error("PUT", f"/users/{me['id']}", {"status": "inactive"}) == DENIED


async def test_outsiders_are_not_ours_to_change(desk: Desk) -> None:
    guest = desk.box.add_user("guest@other.org", external=True)
    assert await desk.error("PUT", f"/users/{guest}", {"status": "inactive"}) == DENIED


async def test_a_login_changes_only_after_the_welcome_mail_is_answered(desk: Desk) -> None:
    ann = (await desk.ok("POST", "/users", NEW, status=201))["id"]
    assert await desk.error("PUT", f"/users/{ann}", {"login": "anna@example.com"}) == DENIED
    desk.box.confirm_user(ann)
    assert (await desk.ok("PUT", f"/users/{ann}", {"login": "anna@example.com"}))["login"] == "anna@example.com"
    desk.box.add_user("bob@example.com")
    assert await desk.error("PUT", f"/users/{ann}", {"login": "Bob@example.com"}) == (409, "user_login_already_used")


async def test_rolled_out_of_the_enterprise_there_is_no_way_back(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com")
    desk.box.add_membership(ann, desk.box.add_group("Sales"))
    await desk.ok("PUT", f"/users/{ann}", {"enterprise": None, "notify": False})
    assert desk.box.state()["users"][ann]["is_external"]
    assert desk.box.state()["group_memberships"] == {}
    assert await desk.error("PUT", f"/users/{ann}", {"status": "active"}) == DENIED


async def test_a_notification_address_waits_for_its_confirmation(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com")
    shown = await desk.ok("PUT", f"/users/{ann}", {"notification_email": {"email": "n@x.com"}})
    assert shown["notification_email"] == {"email": "n@x.com", "is_confirmed": False}
    assert (await desk.ok("PUT", f"/users/{ann}", {"notification_email": None}))["notification_email"] is None


# -- deleting ---------------------------------------------------------------------------------------------------------


async def test_who_owns_content_is_not_deleted_unless_forced(desk: Desk) -> None:
    ann, bob = desk.box.add_user("ann@x.com"), desk.box.add_user("bob@x.com")
    desk.box.add_membership(ann, desk.box.add_group("Sales"))
    own = desk.box.add_folder("Mine", owner=ann)
    desk.box.add_collaboration(own, user=bob)
    desk.box.add_collaboration(desk.box.add_folder("Sales"), user=ann)
    assert await desk.error("DELETE", f"/users/{ann}") == (403, "forbidden")
    assert await desk.error("DELETE", f"/users/{ann}", params={"force": "maybe"}) == (400, "bad_request")
    await desk.ok("DELETE", f"/users/{ann}", status=204, params={"force": "true", "notify": "false"})
    assert await desk.error("DELETE", f"/users/{ann}") == (404, "not_found")
    state = desk.box.state()
    assert ann not in state["users"]
    assert state["group_memberships"] == state["collaborations"] == {}
    assert own not in state["folders"]
    assert await desk.error("POST", "/users", NEW | {"login": "bob@x.com"}) == (409, "user_login_already_used")
    await desk.ok("POST", "/users", NEW | {"login": "ann@x.com"}, status=201)


async def test_retention_keeps_forced_deletion_out(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com")
    desk.box.retention = True
    answer = await desk.call("DELETE", f"/users/{ann}", params={"force": "true"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert answer.json()["message"] == "User cannot be deleted due to retention policies. Please transfer user content first"


# -- sessions and aliases ---------------------------------------------------------------------------------------------


async def test_sessions_end_and_the_events_say_so(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com")
    body = {"user_ids": [ann], "user_logins": ["Ann@x.com"]}
    answer = await desk.ok("POST", "/users/terminate_sessions", body, status=202)
    assert answer == {"message": "Request is successful, please check the admin events for the status of the job"}
    assert desk.last_call() == (202, True)
    sessions = desk.box.state()["sessions"][ann]
    assert (sessions["live"], sessions["ended"]) == (0, 1)
    assert sessions["at"].startswith("2026-")
    assert desk.events()[-1] == "REMOVE_LOGIN_ACTIVITY_DEVICE"
    await desk.ok("POST", "/users/terminate_sessions", body, status=202)
    assert desk.last_call() == (202, False)  # nothing was open any more


async def test_the_job_takes_its_time(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com")
    desk.box.job_delay_s = 30
    await desk.ok("POST", "/users/terminate_sessions", {"user_ids": [ann], "user_logins": ["ann@x.com"]}, status=202)
    assert desk.box.state()["sessions"][ann]["live"] == 1
    desk.time.at += 30
    assert desk.box.state()["sessions"][ann]["live"] == 0


async def test_ending_sessions_does_not_keep_anybody_out(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com", status="inactive")
    assert desk.box.state()["sessions"][ann]["live"] == 0
    await desk.ok("PUT", f"/users/{ann}", {"status": "active"})
    assert desk.box.state()["sessions"][ann]["live"] == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"user_ids": ["ANN"]}, "Bad Request"),
        ({"user_logins": ["ann@x.com"]}, "Bad Request"),
        ({"user_ids": [], "user_logins": []}, "Users can not be NULL or EMPTY"),
        ({"user_ids": None, "user_logins": None}, "Users can not be NULL or EMPTY"),
        ({"user_ids": ["ANN"], "user_logins": []}, "Users can not be NULL or EMPTY"),
        ({"user_ids": [7], "user_logins": ["ann@x.com"]}, "User id format is string"),
        ({"user_ids": ["x"], "user_logins": ["ann@x.com"]}, "User id format is string"),
        ({"user_ids": ["ANN"], "user_logins": ["ann@x.com"], "all": True}, "Bad Request"),
    ],
)
async def test_wrong_orders_to_end_sessions(desk: Desk, body: dict[str, Any], message: str) -> None:
    ann = desk.box.add_user("ann@x.com")
    body = {key: [ann] if value == ["ANN"] else value for key, value in body.items()}
    answer = await desk.call("POST", "/users/terminate_sessions", body)
    assert (answer.status_code, answer.json()["message"]) == (400, message)
    assert desk.box.state()["sessions"][ann]["ended"] == 0


async def test_sessions_of_nobody(desk: Desk) -> None:
    assert await desk.error("POST", "/users/terminate_sessions", {"user_ids": ["1"], "user_logins": ["no@x.com"]}) == (404, "not_found")
    answer = await desk.call("POST", "/users/terminate_sessions", headers={"Content-Type": "text/plain"}, content=b"{}")
    assert answer.json()["message"] == "Supported payload format is JSON"


async def test_aliases_are_listed(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com")
    assert await desk.ok("GET", f"/users/{ann}/email_aliases") == {"total_count": 0, "entries": []}
    alias = desk.box.add_email_alias(ann, "evil@x.com", confirmed=False)
    listed = await desk.ok("GET", f"/users/{ann}/email_aliases")
    assert listed["entries"] == [{"type": "email_alias", "id": alias, "email": "evil@x.com", "is_confirmed": False}]
