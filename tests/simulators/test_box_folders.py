"""Box: folders, collaborations, and the transfer of content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.simulators.box_desk import START, Desk, open_desk

DENIED = (403, "access_denied_insufficient_permissions")
ABSENT = (404, "not_found")


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


def grant(folder: str, role: str = "editor", **who: str) -> dict[str, Any]:
    return {"item": {"type": "folder", "id": folder}, "accessible_by": {"type": "user"} | who, "role": role}


# -- folders ----------------------------------------------------------------------------------------------------------


async def test_create_read_and_list(desk: Desk) -> None:
    made = await desk.ok("POST", "/folders", {"name": "Sales", "parent": {"id": "0"}}, status=201)
    inner = await desk.ok("POST", "/folders", {"name": "2026", "parent": {"id": made["id"]}}, status=201)
    assert (made["type"], made["parent"]["id"], inner["parent"]["id"]) == ("folder", "0", made["id"])
    assert [one["name"] for one in inner["path_collection"]["entries"]] == ["All Files", "Sales"]
    assert made["owned_by"]["id"] == desk.box.store.service.id
    root = await desk.ok("GET", "/folders/0/items")
    assert [(one["id"], one["name"]) for one in root["entries"]] == [(made["id"], "Sales")]
    assert (await desk.ok("GET", "/folders/0"))["item_collection"]["entries"] == root["entries"]
    listed = await desk.ok("GET", f"/folders/{made['id']}/items", params={"fields": "owned_by", "usemarker": "true"})
    assert [(one["id"], one["owned_by"]["id"]) for one in listed["entries"]] == [(inner["id"], desk.box.store.service.id)]
    assert listed["next_marker"] is None


async def test_a_name_stands_once_in_a_folder(desk: Desk) -> None:
    made = await desk.ok("POST", "/folders", {"name": "Sales", "parent": {"id": "0"}}, status=201)
    answer = await desk.call("POST", "/folders", {"name": "sales", "parent": {"id": "0"}})
    assert (answer.status_code, answer.json()["code"]) == (409, "item_name_in_use")
    assert answer.json()["context_info"]["conflicts"][0]["id"] == made["id"]
    await desk.ok("POST", "/folders", {"name": "Sales", "parent": {"id": made["id"]}}, status=201)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "", "parent": {"id": "0"}}, "bad_request"),
        ({"name": "x" * 256, "parent": {"id": "0"}}, "bad_request"),
        ({"name": "x"}, "bad_request"),
        ({"name": "x", "parent": "0"}, "bad_request"),
        ({"name": "x", "parent": {"id": "0"}, "owner": "1"}, "bad_request"),
        ({"name": "a/b", "parent": {"id": "0"}}, "item_name_invalid"),
        ({"name": "a\\b", "parent": {"id": "0"}}, "item_name_invalid"),
        ({"name": "..", "parent": {"id": "0"}}, "item_name_invalid"),
        ({"name": "a ", "parent": {"id": "0"}}, "item_name_invalid"),
    ],
)
async def test_a_wrong_folder_is_refused(desk: Desk, body: dict[str, Any], code: str) -> None:
    assert await desk.error("POST", "/folders", body) == (400, code)
    assert desk.box.state()["folders"] == {}


async def test_what_one_may_not_see_does_not_exist(desk: Desk) -> None:
    ann = desk.box.add_user("ann@x.com")
    own = desk.box.add_folder("Mine", owner=ann)
    assert await desk.error("GET", f"/folders/{own}") == ABSENT
    assert await desk.error("GET", f"/folders/{own}/items") == ABSENT
    assert await desk.error("GET", f"/folders/{own}/collaborations") == ABSENT
    assert await desk.error("POST", "/folders", {"name": "x", "parent": {"id": own}}) == ABSENT
    await desk.ok("GET", f"/folders/{own}", as_user=ann)
    assert await desk.error("GET", "/folders/me") == (405, "method_not_allowed")


async def test_an_unchanged_folder_is_304(desk: Desk) -> None:
    folder = desk.box.add_folder("Sales")
    etag = (await desk.ok("GET", f"/folders/{folder}"))["etag"]
    assert (await desk.call("GET", f"/folders/{folder}", headers={"if-none-match": etag})).status_code == 304


async def test_an_inactive_owner_hides_folders_from_everybody_else(desk: Desk) -> None:
    ann, bob = desk.box.add_user("ann@x.com"), desk.box.add_user("bob@x.com")
    own = desk.box.add_folder("Mine", owner=ann)
    inner = desk.box.add_folder("Inner", parent=own)
    desk.box.add_collaboration(own, user=bob)
    await desk.ok("GET", f"/folders/{inner}", as_user=bob)
    await desk.ok("PUT", f"/users/{ann}", {"status": "inactive"})
    assert await desk.error("GET", f"/folders/{own}", as_user=bob) == ABSENT
    assert await desk.error("GET", f"/folders/{inner}", as_user=bob) == ABSENT
    assert (await desk.ok("GET", "/folders/0/items", as_user=bob))["entries"] == []
    assert desk.box.state()["folders"][own]["is_hidden"]
    await desk.ok("PUT", f"/users/{ann}", {"status": "active"})
    await desk.ok("GET", f"/folders/{inner}", as_user=bob)


# -- collaborations ---------------------------------------------------------------------------------------------------


async def test_a_managed_user_is_in_at_once(desk: Desk) -> None:
    ann, folder = desk.box.add_user("ann@x.com"), desk.box.add_folder("Sales")
    made = await desk.ok("POST", "/collaborations", grant(folder, login="ANN@x.com"), status=201, params={"notify": "false"})
    assert (made["status"], made["role"], made["item"]["id"], made["accessible_by"]["id"]) == ("accepted", "editor", folder, ann)
    assert made["invite_email"] is None
    await desk.ok("GET", f"/folders/{folder}", as_user=ann)
    listed = await desk.ok("GET", f"/folders/{folder}/collaborations")
    assert [one["id"] for one in listed["entries"]] == [made["id"]]
    assert desk.events()[-2:] == ["COLLABORATION_INVITE", "COLLABORATION_ACCEPT"]
    await desk.ok("DELETE", f"/collaborations/{made['id']}", status=204)
    assert await desk.error("DELETE", f"/collaborations/{made['id']}") == ABSENT
    assert await desk.error("GET", f"/folders/{folder}", as_user=ann) == ABSENT
    assert desk.events()[-1] == "COLLABORATION_REMOVE"


async def test_a_second_grant_is_400_not_409(desk: Desk) -> None:
    ann, folder = desk.box.add_user("ann@x.com"), desk.box.add_folder("Sales")
    await desk.ok("POST", "/collaborations", grant(folder, id=ann), status=201)
    answer = await desk.call("POST", "/collaborations", grant(folder, "viewer", login="ann@x.com"))
    assert (answer.status_code, answer.json()["code"]) == (400, "user_already_collaborator")
    assert answer.json()["message"] == "User is already a collaborator"
    own = desk.box.add_folder("Mine", owner=ann)
    assert await desk.error("POST", "/collaborations", grant(own, id=ann), as_user=ann) == (400, "user_already_collaborator")


async def test_an_outsider_stays_pending_and_hidden_until_they_accept(desk: Desk) -> None:
    folder = desk.box.add_folder("Sales")
    made = await desk.ok("POST", "/collaborations", grant(folder, login="new@other.org"), status=201)
    assert (made["status"], made["invite_email"], made["item"], made["accessible_by"]) == ("pending", "new@other.org", None, None)
    assert await desk.error("POST", "/collaborations", grant(folder, login="New@other.org")) == (400, "user_already_collaborator")
    (listed,) = (await desk.ok("GET", f"/folders/{folder}/collaborations"))["entries"]
    assert (listed["id"], listed["status"]) == (made["id"], "pending")
    assert (await desk.ok("PUT", f"/collaborations/{made['id']}", {"role": "viewer"}))["role"] == "viewer"
    assert await desk.error("PUT", f"/collaborations/{made['id']}", {"status": "accepted"}) == DENIED
    desk.box.accept(made["id"])
    shown = await desk.ok("GET", f"/collaborations/{made['id']}")
    assert (shown["status"], shown["accessible_by"]["login"]) == ("accepted", "new@other.org")


async def test_a_known_outsider_by_id_is_pending_too(desk: Desk) -> None:
    guest, folder = desk.box.add_user("guest@other.org", external=True), desk.box.add_folder("Sales")
    made = await desk.ok("POST", "/collaborations", grant(folder, id=guest), status=201)
    assert (made["status"], made["invite_email"]) == ("pending", "guest@other.org")


async def test_a_group_opens_the_folder_to_its_members(desk: Desk) -> None:
    ann, folder = desk.box.add_user("ann@x.com"), desk.box.add_folder("Sales")
    sales = desk.box.add_group("Sales", members=(ann,))
    body = {"item": {"type": "folder", "id": folder}, "accessible_by": {"type": "group", "id": sales}, "role": "viewer"}
    made = await desk.ok("POST", "/collaborations", body, status=201)
    assert made["accessible_by"] == {"type": "group", "id": sales, "name": "Sales", "group_type": "managed_group"}
    await desk.ok("GET", f"/folders/{folder}", as_user=ann)
    listed = await desk.ok("GET", f"/groups/{sales}/collaborations")
    assert ([one["id"] for one in listed["entries"]], listed["total_count"]) == ([made["id"]], 1)
    assert await desk.error("POST", "/folders", {"name": "x", "parent": {"id": folder}}, as_user=ann) == DENIED  # a viewer adds nothing
    (membership,) = (await desk.ok("GET", f"/users/{ann}/memberships"))["entries"]
    await desk.ok("DELETE", f"/group_memberships/{membership['id']}", status=204)
    assert await desk.error("GET", f"/folders/{folder}", as_user=ann) == ABSENT


@pytest.mark.parametrize("role", ["editor", "viewer", "previewer", "uploader", "previewer uploader", "viewer uploader", "co-owner"])
async def test_every_role_is_granted_and_exchanged(desk: Desk, role: str) -> None:
    ann, folder = desk.box.add_user("ann@x.com"), desk.box.add_folder("Sales")
    made = await desk.ok("POST", "/collaborations", grant(folder, role, id=ann), status=201)
    assert made["role"] == role
    other = "viewer" if role != "viewer" else "editor"
    assert (await desk.ok("PUT", f"/collaborations/{made['id']}", {"role": other}))["role"] == other
    assert desk.last_call() == (200, True)
    await desk.ok("PUT", f"/collaborations/{made['id']}", {"role": other})
    assert desk.last_call() == (200, False)


@pytest.mark.parametrize(
    "change",
    [
        {"role": "owner"},
        {"role": "reader"},
        {"item": {"type": "folder"}},
        {"item": {"type": "page", "id": "1"}},
        {"accessible_by": {"type": "user"}},
        {"accessible_by": {"type": "user", "id": "1", "login": "a@x.com"}},
        {"accessible_by": {"type": "group", "login": "a@x.com"}},
        {"accessible_by": {"id": "1"}},
        {"accessible_by": {"type": "user", "login": "nobody"}},
        {"can_view_path": "yes"},
        {"expires_at": "tomorrow"},
        {"notify": False},
    ],
)
async def test_a_wrong_grant_is_refused(desk: Desk, change: dict[str, Any]) -> None:
    ann, folder = desk.box.add_user("ann@x.com"), desk.box.add_folder("Sales")
    assert await desk.error("POST", "/collaborations", grant(folder, id=ann) | change) == (400, "bad_request")
    assert desk.box.state()["collaborations"] == {}


async def test_what_must_exist_for_a_grant(desk: Desk) -> None:
    ann, folder = desk.box.add_user("ann@x.com"), desk.box.add_folder("Sales")
    assert await desk.error("POST", "/collaborations", grant("123", id=ann)) == ABSENT
    assert await desk.error("POST", "/collaborations", grant(folder, id="123")) == ABSENT
    assert await desk.error("POST", "/collaborations", grant("0", id=ann)) == (400, "collaborations_not_available_on_root_folder")
    group = {"item": {"type": "folder", "id": folder}, "accessible_by": {"type": "group", "id": "1"}, "role": "viewer"}
    assert await desk.error("POST", "/collaborations", group) == ABSENT
    assert await desk.error("GET", "/collaborations/1") == ABSENT
    assert await desk.error("GET", "/groups/1/collaborations") == ABSENT


async def test_who_may_grant_and_take(desk: Desk) -> None:
    ann, bob, eve = (desk.box.add_user(f"{name}@x.com") for name in ("ann", "bob", "eve"))
    folder = desk.box.add_folder("Sales")
    viewer = desk.box.add_collaboration(folder, user=ann, role="viewer")
    desk.box.add_collaboration(folder, user=bob, role="editor")
    assert await desk.error("POST", "/collaborations", grant(folder, id=eve), as_user=ann) == DENIED
    assert await desk.error("POST", "/collaborations", grant(folder, "co-owner", id=eve), as_user=bob) == DENIED
    assert await desk.error("DELETE", f"/collaborations/{viewer}", as_user=bob) == DENIED
    assert await desk.error("PUT", f"/collaborations/{viewer}", {"role": "editor"}, as_user=ann) == DENIED
    assert await desk.error("GET", f"/collaborations/{viewer}", as_user=eve) == ABSENT
    await desk.ok("POST", "/collaborations", grant(folder, "viewer", id=eve), status=201, as_user=bob)
    await desk.ok("DELETE", f"/collaborations/{viewer}", status=204, as_user=ann)  # everybody may leave


async def test_folder_grants_come_by_marker(desk: Desk) -> None:
    folder = desk.box.add_folder("Sales")
    made = [desk.box.add_collaboration(folder, user=desk.box.add_user(f"u{n}@x.com")) for n in range(4)]
    made.append(desk.box.add_collaboration(folder, login="guest@other.org"))
    first = await desk.ok("GET", f"/folders/{folder}/collaborations", params={"limit": 3})
    second = await desk.ok("GET", f"/folders/{folder}/collaborations", params={"limit": 3, "marker": first["next_marker"]})
    assert [one["id"] for one in first["entries"] + second["entries"]] == made
    assert second["next_marker"] is None
    assert await desk.error("GET", f"/folders/{folder}/collaborations", params={"offset": 1}) == (400, "invalid_request_parameters")


async def test_pending_lists_only_ones_own(desk: Desk) -> None:
    assert await desk.error("GET", "/collaborations") == (400, "invalid_status")
    assert await desk.error("GET", "/collaborations", params={"status": "accepted"}) == (400, "invalid_status")
    desk.box.add_collaboration(desk.box.add_folder("Sales"), login="guest@other.org")
    assert (await desk.ok("GET", "/collaborations", params={"status": "pending"}))["entries"] == []


async def test_expiry_needs_the_enterprises_consent(desk: Desk) -> None:
    ann, folder = desk.box.add_user("ann@x.com"), desk.box.add_folder("Sales")
    body = grant(folder, id=ann) | {"expires_at": "2026-06-30T00:00:00+00:00"}
    assert await desk.error("POST", "/collaborations", body) == DENIED
    desk.box.expiry_allowed = True
    past = body | {"expires_at": "2020-01-01T00:00:00Z"}
    assert await desk.error("POST", "/collaborations", past) == (400, "bad_request")
    made = await desk.ok("POST", "/collaborations", body, status=201)
    assert made["expires_at"] == "2026-06-30T00:00:00+00:00"
    desk.time.at = START + 60 * 86_400
    await desk.sign_in()
    assert await desk.error("GET", f"/collaborations/{made['id']}") == ABSENT
    assert desk.events()[-1] == "COLLABORATION_EXPIRATION"


async def test_a_new_owner_is_204_and_the_old_one_becomes_co_owner(desk: Desk) -> None:
    ann, folder = desk.box.add_user("ann@x.com"), desk.box.add_folder("Sales")
    inner = desk.box.add_folder("Inner", parent=folder)
    made = desk.box.add_collaboration(folder, user=ann)
    await desk.ok("PUT", f"/collaborations/{made}", {"role": "owner"}, status=204)
    state = desk.box.state()
    assert {state["folders"][one]["owned_by"]["id"] for one in (folder, inner)} == {ann}
    (left,) = state["collaborations"].values()
    assert (left["accessible_by"]["id"], left["role"]) == (desk.box.store.service.id, "co-owner")
    assert await desk.error("GET", f"/collaborations/{made}") == ABSENT


# -- transfer ---------------------------------------------------------------------------------------------------------


async def test_content_goes_into_a_new_folder_of_the_heir(desk: Desk) -> None:
    ann, boss, bob = desk.box.add_user("ann@x.com", "Ann"), desk.box.add_user("boss@x.com"), desk.box.add_user("bob@x.com")
    own, inner = desk.box.add_folder("Mine", owner=ann), ""
    inner = desk.box.add_folder("Inner", parent=own)
    shared = desk.box.add_collaboration(own, user=bob)
    desk.box.add_collaboration(own, user=boss)
    await desk.ok("PUT", f"/users/{ann}", {"status": "inactive"})
    made = await desk.ok("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": boss}}, params={"notify": "false"})
    assert (made["type"], made["owned_by"]["id"], made["parent"]["id"]) == ("folder", boss, "0")
    state = desk.box.state()
    assert (state["folders"][own]["parent"]["id"], state["folders"][own]["owned_by"]["id"]) == (made["id"], boss)
    assert state["folders"][inner]["owned_by"]["id"] == boss
    assert list(state["collaborations"]) == [shared]  # bob keeps his grant, the owner's own is meaningless
    assert state["transfers"][made["id"]]["state"] == "done"
    assert desk.last_call() == (200, True)
    await desk.ok("GET", f"/folders/{own}", as_user=bob)
    await desk.ok("DELETE", f"/users/{ann}", status=204)


async def test_a_repeat_leaves_an_empty_folder_beside_the_first(desk: Desk) -> None:
    ann, boss = desk.box.add_user("ann@x.com", "Ann"), desk.box.add_user("boss@x.com")
    desk.box.add_folder("Mine", owner=ann)
    first = await desk.ok("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": boss}})
    again = await desk.ok("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": boss}})
    assert first["id"] != again["id"]
    assert again["item_collection"]["total_count"] == 0


async def test_who_may_not_give_or_take(desk: Desk) -> None:
    ann, out = desk.box.add_user("ann@x.com"), desk.box.add_user("out@x.com", status="inactive")
    boss = desk.box.add_user("boss@x.com", role="coadmin")
    own = desk.box.add_folder("Mine", owner=ann)
    answer = await desk.call("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": boss}})
    assert (answer.status_code, answer.json()["message"]) == (403, "Cannot transfer files from/to higher privileged accounts")
    assert await desk.error("PUT", f"/users/{boss}/folders/0", {"owned_by": {"id": ann}}) == (403, "forbidden")
    assert await desk.error("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": out}}) == (500, "internal_server_error")
    assert await desk.error("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": "1"}}) == ABSENT
    assert await desk.error("PUT", "/users/1/folders/0", {"owned_by": {"id": ann}}) == ABSENT
    assert await desk.error("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": ann}}) == (400, "bad_request")
    assert await desk.error("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": boss}, "force": True}) == (400, "bad_request")
    assert await desk.error("PUT", f"/users/{ann}/folders/{own}", {"owned_by": {"id": boss}}) == ABSENT
    assert desk.box.state()["folders"][own]["owned_by"]["id"] == ann
    assert desk.box.state()["transfers"] == {}


async def test_a_long_transfer_is_answered_before_it_ends_and_hides_the_content(desk: Desk) -> None:
    ann, boss, bob = (desk.box.add_user(f"{name}@x.com") for name in ("ann", "boss", "bob"))
    own = desk.box.add_folder("Mine", owner=ann)
    desk.box.add_collaboration(own, user=bob)
    desk.box.transfer_s, desk.box.transfer_answer_s = 1.0, 0.05
    made = await desk.ok("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": boss}})
    assert made["item_collection"]["total_count"] == 0
    assert desk.box.state()["transfers"][made["id"]]["state"] == "running"
    assert await desk.error("GET", f"/folders/{own}", as_user=bob) == ABSENT
    assert await desk.error("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": boss}}) == (409, "operation_blocked_temporary")
    for _ in range(200):
        if desk.box.state()["transfers"][made["id"]]["state"] == "done":
            break
        await asyncio.sleep(0.02)
    assert desk.box.state()["folders"][own]["owned_by"]["id"] == boss
    await desk.ok("GET", f"/folders/{own}", as_user=bob)


async def test_a_transfer_whose_answer_is_lost_has_happened_all_the_same(desk: Desk) -> None:
    ann, boss = desk.box.add_user("ann@x.com"), desk.box.add_user("boss@x.com")
    own = desk.box.add_folder("Mine", owner=ann)
    desk.box.faults.add({"method": "PUT", "path": "*/folders/0", "status": 503, "when": "after"})
    assert await desk.error("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": boss}}) == (503, "unavailable")
    assert desk.last_call() == (503, True)
    assert desk.box.state()["folders"][own]["owned_by"]["id"] == boss
