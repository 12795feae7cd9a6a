"""Box: groups, memberships and the admin events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.simulators.box_desk import Desk, open_desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def test_create_find_change_delete(desk: Desk) -> None:
    body = {"name": "Sales", "provenance": "Okta", "external_sync_identifier": "00g1", "description": "all of it"}
    made = await desk.ok("POST", "/groups", body, status=201)
    assert not {"provenance", "description"} & set(made)  # only with `fields`
    desk.box.add_group("Sales EMEA")
    found = await desk.ok("GET", "/groups", params={"filter_term": "sales", "fields": "name,external_sync_identifier,provenance"})
    assert [one["name"] for one in found["entries"]] == ["Sales", "Sales EMEA"]
    assert found["entries"][0]["external_sync_identifier"] == "00g1"
    await desk.ok("PUT", f"/groups/{made['id']}", {"name": "Selling"})
    assert desk.last_call() == (200, True)
    await desk.ok("PUT", f"/groups/{made['id']}", {"name": "Selling"})
    assert desk.last_call() == (200, False)
    assert (await desk.ok("GET", f"/groups/{made['id']}"))["name"] == "Selling"
    await desk.ok("DELETE", f"/groups/{made['id']}", status=204)
    assert await desk.error("DELETE", f"/groups/{made['id']}") == (404, "not_found")


async def test_a_name_stands_once(desk: Desk) -> None:
    desk.box.add_group("Sales")
    other = desk.box.add_group("Other")
    assert await desk.error("POST", "/groups", {"name": "SALES"}) == (409, "conflict")
    assert await desk.error("PUT", f"/groups/{other}", {"name": "Sales"}) == (409, "conflict")
    await desk.ok("PUT", f"/groups/{other}", {"name": "OTHER"})


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": 1}, {"name": "x", "invitability_level": "all"}, {"name": "x", "members": []}])
async def test_a_wrong_group_is_refused(desk: Desk, body: dict[str, Any]) -> None:
    assert await desk.error("POST", "/groups", body) == (400, "bad_request")
    assert desk.box.state()["groups"] == {}


async def test_join_once_and_leave_by_the_memberships_id(desk: Desk) -> None:
    ann, sales = desk.box.add_user("ann@x.com"), desk.box.add_group("Sales")
    body = {"user": {"id": ann}, "group": {"id": sales}}
    made = await desk.ok("POST", "/group_memberships", body, status=201)
    assert (made["type"], made["role"], made["user"]["id"], made["group"]["id"]) == ("group_membership", "member", ann, sales)
    assert await desk.error("POST", "/group_memberships", body) == (409, "conflict")
    assert desk.last_call() == (409, False)
    for path in (f"/users/{ann}/memberships", f"/groups/{sales}/memberships"):
        assert [one["id"] for one in (await desk.ok("GET", path))["entries"]] == [made["id"]]
    assert (await desk.ok("PUT", f"/group_memberships/{made['id']}", {"role": "admin"}))["role"] == "admin"
    assert await desk.error("PUT", f"/group_memberships/{made['id']}", {"role": "owner"}) == (400, "bad_request")
    assert await desk.error("DELETE", f"/group_memberships/{ann}") == (404, "not_found")
    await desk.ok("DELETE", f"/group_memberships/{made['id']}", status=204)
    assert await desk.error("DELETE", f"/group_memberships/{made['id']}") == (404, "not_found")
    assert await desk.error("GET", f"/group_memberships/{made['id']}") == (404, "not_found")
    assert (await desk.ok("GET", f"/users/{ann}/memberships"))["entries"] == []


async def test_who_and_what_must_exist(desk: Desk) -> None:
    ann, sales = desk.box.add_user("ann@x.com"), desk.box.add_group("Sales")
    guest = desk.box.add_user("guest@other.org", external=True)
    for user, group in ((ann, "1"), ("1", sales), (guest, sales)):
        assert await desk.error("POST", "/group_memberships", {"user": {"id": user}, "group": {"id": group}}) == (404, "not_found")
    assert await desk.error("GET", "/users/1/memberships") == (404, "not_found")
    assert await desk.error("GET", "/groups/1/memberships") == (404, "not_found")


@pytest.mark.parametrize(
    "change",
    [{"user": "ANN"}, {"user": {}}, {"user": {"id": 7}}, {"user": {"id": "1", "login": "a@x.com"}}, {"role": "owner"}, {"roles": []}],
)
async def test_a_wrong_membership_is_refused(desk: Desk, change: dict[str, Any]) -> None:
    ann, sales = desk.box.add_user("ann@x.com"), desk.box.add_group("Sales")
    body = {"user": {"id": ann}, "group": {"id": sales}} | change
    assert await desk.error("POST", "/group_memberships", body) == (400, "bad_request")
    assert desk.box.state()["group_memberships"] == {}


async def test_memberships_come_in_pages(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com")
    for n in range(5):
        desk.box.add_membership(ann, desk.box.add_group(f"G{n}"))
    page = await desk.ok("GET", f"/users/{ann}/memberships", params={"limit": 2, "offset": 4})
    assert (page["total_count"], len(page["entries"])) == (5, 1)


async def test_a_deleted_group_takes_its_grants_along(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com")
    sales = desk.box.add_group("Sales", members=(ann,))
    folder = desk.box.add_folder("Sales")
    desk.box.add_collaboration(folder, group=sales)
    await desk.ok("GET", f"/folders/{folder}", as_user=ann)
    await desk.ok("DELETE", f"/groups/{sales}", status=204)
    assert await desk.error("GET", f"/folders/{folder}", as_user=ann) == (404, "not_found")
    assert desk.box.state()["collaborations"] == desk.box.state()["group_memberships"] == {}


# -- events -----------------------------------------------------------------------------------------------------------

LIVE = {"stream_type": "admin_logs_streaming"}


async def test_events_are_read_from_where_one_was(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com")
    now = await desk.ok("GET", "/events", params=LIVE | {"stream_position": "now"})
    assert (now["chunk_size"], now["entries"]) == (0, [])
    position = now["next_stream_position"]
    await desk.ok("PUT", f"/users/{ann}", {"status": "inactive"})
    await desk.ok("POST", "/groups", {"name": "Sales"}, status=201)
    first = await desk.ok("GET", "/events", params=LIVE | {"stream_position": position, "limit": 1})
    assert [one["event_type"] for one in first["entries"]] == ["EDIT_USER"]
    assert first["entries"][0]["source"]["id"] == ann
    assert first["entries"][0]["created_by"]["id"] == desk.box.store.service.id
    second = await desk.ok("GET", "/events", params=LIVE | {"stream_position": first["next_stream_position"]})
    assert [one["event_type"] for one in second["entries"]] == ["GROUP_CREATION"]
    end = await desk.ok("GET", "/events", params=LIVE | {"stream_position": second["next_stream_position"]})
    assert (end["chunk_size"], end["next_stream_position"]) == (0, second["next_stream_position"])
    everything = await desk.ok("GET", "/events", params=LIVE | {"stream_position": 0})
    ids = [one["event_id"] for one in everything["entries"]]
    assert len(ids) == len(set(ids)) == 3


async def test_events_by_type_and_by_time(desk: Desk) -> None:
    desk.box.add_user("ann@x.com")
    desk.time.at += 1800
    desk.box.add_group("Sales")
    found = await desk.ok("GET", "/events", params=LIVE | {"stream_position": 0, "event_type": "GROUP_CREATION,DELETE_USER"})
    assert [one["event_type"] for one in found["entries"]] == ["GROUP_CREATION"]
    before = "2026-05-28T20:30:00Z"
    found = await desk.ok("GET", "/events", params={"stream_type": "admin_logs", "created_before": before})
    assert [one["event_type"] for one in found["entries"]] == ["NEW_USER"]
    assert await desk.error("GET", "/events", params=LIVE | {"created_after": before}) == (400, "bad_request")


@pytest.mark.parametrize("params", [{}, {"stream_type": "all"}, LIVE | {"stream_position": "then"}, LIVE | {"created_after": "yesterday"}])
async def test_wrong_streams_are_refused(desk: Desk, params: dict[str, str]) -> None:
    assert await desk.error("GET", "/events", params=params) == (400, "bad_request")


async def test_a_chunk_is_at_most_five_hundred(desk: Desk) -> None:
    for n in range(510):
        desk.box.add_group(f"G{n}")
    assert (await desk.ok("GET", "/events", params=LIVE | {"stream_position": 0, "limit": 9999}))["chunk_size"] == 500
