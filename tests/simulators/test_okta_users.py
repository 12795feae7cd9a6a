"""The simulated directory: life cycle, profiles, groups, risk, paging, lag, and what each change writes to the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from simulators.okta.directory import Status
from tests.simulators.okta_org import OrgUnderTest, links, running


@pytest.fixture
async def org() -> AsyncIterator[OrgUnderTest]:
    async with running(lag=0.0) as under_test:
        yield under_test


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["errorCode"]


async def calls(org: OrgUnderTest) -> list[tuple[str, int | None, bool]]:
    listed = (await org.client.get("/_sim/calls")).json()
    return [(call["path"].rpartition("/")[2], call["status"], call["changed"]) for call in listed]


# -- life cycle -------------------------------------------------------------------------------------------------------

STATUSES: tuple[Status, ...] = (
    "STAGED",
    "PROVISIONED",
    "ACTIVE",
    "RECOVERY",
    "PASSWORD_EXPIRED",
    "LOCKED_OUT",
    "SUSPENDED",
    "DEPROVISIONED",
)
#: Step → statuses from which it is allowed, with the status that follows; the code where it is refused.
STEPS: dict[str, tuple[dict[str, str], tuple[int, str]]] = {
    "suspend": ({"ACTIVE": "SUSPENDED"}, (400, "E0000001")),
    "unsuspend": ({"SUSPENDED": "ACTIVE"}, (400, "E0000001")),
    "activate": ({"STAGED": "ACTIVE", "DEPROVISIONED": "ACTIVE"}, (403, "E0000016")),
    "reactivate": ({"PROVISIONED": "PROVISIONED", "RECOVERY": "PROVISIONED"}, (403, "E0000038")),
    "deactivate": (dict.fromkeys(STATUSES[:-1], "DEPROVISIONED"), (403, "E0000038")),
    "unlock": ({"LOCKED_OUT": "ACTIVE"}, (403, "E0000032")),
    "expire_password": (
        dict.fromkeys(("ACTIVE", "RECOVERY", "PASSWORD_EXPIRED", "LOCKED_OUT"), "PASSWORD_EXPIRED"),
        (403, "E0000038"),
    ),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("status", STATUSES)
async def test_each_step_is_allowed_from_its_statuses_only(org: OrgUnderTest, step: str, status: Status) -> None:
    allowed, refused = STEPS[step]
    user = org.org.seed_user({"login": "ann@corp.example", "firstName": "Ann", "lastName": "Lee"}, status=status)
    answer = await org.client.post(f"/api/v1/users/{user.id}/lifecycle/{step}")
    now = (await org.get(f"/api/v1/users/{user.id}")).json()["status"]
    if status in allowed:
        assert (answer.status_code, now) == (200, allowed[status])
        assert await calls(org) == [(step, 200, True)]
        assert len(await org.events()) == 1
    else:
        assert refusal(answer) == refused
        assert answer.json()["errorCauses"] or refused[1] != "E0000001"
        assert now == status
        assert await calls(org) == [(step, refused[0], False)]
        assert await org.events() == []


async def test_an_unknown_step_or_user_is_404(org: OrgUnderTest) -> None:
    assert refusal(await org.client.post("/api/v1/users/me/lifecycle/promote")) == (404, "E0000007")
    assert refusal(await org.client.post("/api/v1/users/00uNobody/lifecycle/suspend")) == (404, "E0000007")
    assert refusal(await org.get("/api/v1/nothing")) == (404, "E0000007")
    assert refusal(await org.client.put("/api/v1/logs")) == (405, "E0000022")


async def test_times_follow_what_changed(org: OrgUnderTest) -> None:
    user = await org.hire("ann@corp.example")
    before = (await org.get(f"/api/v1/users/{user}")).json()
    org.clock.now += 10
    await org.act("change", id=user, profile={"title": "Engineer"})
    changed = (await org.get(f"/api/v1/users/{user}")).json()
    assert changed["lastUpdated"] == "2026-01-05T09:00:10.000Z"
    assert changed["statusChanged"] == before["statusChanged"] == "2026-01-05T09:00:00.000Z"
    org.clock.now += 10
    await org.act("suspend", id=user)
    assert (await org.get(f"/api/v1/users/{user}")).json()["statusChanged"] == "2026-01-05T09:00:20.000Z"


async def test_delete_deactivates_first_and_then_for_good(org: OrgUnderTest) -> None:
    user = await org.hire("ann@corp.example", groups=["Sales"])
    assert (await org.client.delete(f"/api/v1/users/{user}")).status_code == 204
    assert (await org.get(f"/api/v1/users/{user}")).json()["status"] == "DEPROVISIONED"
    assert (await org.client.delete(f"/api/v1/users/{user}")).status_code == 204
    assert refusal(await org.get(f"/api/v1/users/{user}")) == (404, "E0000007")
    assert all(user not in members for members in (await org.state())["memberships"].values())
    [renamed] = await org.events("user.account.update_profile")
    assert renamed["target"][0]["alternateId"] == f"{user}@deleted.invalid"
    await org.hire("ann@corp.example")


# -- profiles ---------------------------------------------------------------------------------------------------------


async def test_create_by_api(org: OrgUnderTest) -> None:
    profile = {"login": "ann@corp.example", "email": "ann@corp.example", "firstName": "Ann", "lastName": "Lee"}
    for query, credentials, status in (
        ({"activate": "false"}, {}, "STAGED"),
        ({}, {}, "PROVISIONED"),
        ({}, {"password": {"value": "correct horse"}}, "ACTIVE"),
    ):
        body: dict[str, Any] = {"profile": profile | {"login": f"{status.lower()}@corp.example"}, "credentials": credentials}
        answer = await org.client.post("/api/v1/users", params=query, json=body)
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    assert [event["target"][0]["alternateId"] for event in await org.events("user.lifecycle.activate")] == [
        "provisioned@corp.example",
        "active@corp.example",
    ]
    assert "correct horse" not in (await org.client.get("/_sim/calls")).text


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "E0000003"),
        (b"[]", "E0000003"),
        (b"{}", "E0000001"),
        (b'{"profile":{"login":"ann@corp.example","email":"a@b.c","firstName":"Ann"}}', "E0000001"),
        (b'{"profile":{"login":"ann","email":"a@b.c","firstName":"Ann","lastName":"Lee"}}', "E0000001"),
        (b'{"profile":{"login":"IT.Admin@corp.example","email":"a@b.c","firstName":"Ann","lastName":"Lee"}}', "E0000001"),
        (b'{"profile":{"login":"ann@corp.example","email":"a@b.c","firstName":"Ann","lastName":"Lee"},"groupIds":[1]}', "E0000003"),
    ],
)
async def test_a_bad_create_is_refused(org: OrgUnderTest, body: bytes, code: str) -> None:
    assert refusal(await org.client.post("/api/v1/users", content=body)) == (400, code)
    assert await org.events() == []


async def test_an_update_is_partial_and_names_what_changed(org: OrgUnderTest) -> None:
    user = await org.hire("ann@corp.example", title="Engineer")
    answer = await org.client.post(
        f"/api/v1/users/{user}", json={"profile": {"department": "Sales", "title": None, "lastName": "Lovelace"}}
    )
    assert answer.status_code == 200
    profile = answer.json()["profile"]
    assert profile["department"] == "Sales"
    assert profile["login"] == "ann@corp.example"
    assert "title" not in profile
    [event] = await org.events("user.account.update_profile")
    assert event["debugContext"]["debugData"]["changedAttributes"] == "department, title"
    await org.client.post(f"/api/v1/users/{user}", json={"profile": {"department": "Sales"}})
    assert len(await org.events("user.account.update_profile")) == 1
    assert [changed for _, _, changed in await calls(org)] == [True, False]


async def test_if_match_guards_an_update(org: OrgUnderTest) -> None:
    user = await org.hire("ann@corp.example")
    etag = (await org.get(f"/api/v1/users/{user}")).headers["ETag"]
    first = await org.client.post(f"/api/v1/users/{user}", json={"profile": {"title": "A"}}, headers={"If-Match": etag})
    second = await org.client.post(f"/api/v1/users/{user}", json={"profile": {"title": "B"}}, headers={"If-Match": etag})
    assert first.status_code == 200
    assert refusal(second) == (412, "E0000231")


async def test_a_user_is_found_by_id_login_short_login_and_me(org: OrgUnderTest) -> None:
    user = await org.hire("Ann@corp.example")
    for name in (user, "ann@CORP.example", "ann"):
        assert (await org.get(f"/api/v1/users/{name}")).json()["id"] == user
    assert (await org.get("/api/v1/users/me")).json()["profile"]["login"] == "portcullis@corp.example"
    await org.hire("ann@other.example")
    assert refusal(await org.get("/api/v1/users/ann")) == (404, "E0000007")
    await org.act("change", id=user, profile={"login": "anna@corp.example"})
    assert refusal(await org.get("/api/v1/users/Ann@corp.example")) == (404, "E0000007")


# -- listing ----------------------------------------------------------------------------------------------------------


async def test_users_are_paged_by_links_and_a_plain_list_omits_the_deprovisioned(org: OrgUnderTest) -> None:
    for number in range(5):
        await org.hire(f"p{number}@corp.example")
    gone = await org.hire("gone@corp.example")
    await org.act("deactivate", id=gone)
    answer = await org.get("/api/v1/users", limit=3)
    logins = [user["profile"]["login"] for user in answer.json()]
    while "next" in links(answer):
        answer = await org.client.get(links(answer)["next"])
        logins += [user["profile"]["login"] for user in answer.json()]
    assert logins == ["it.admin@corp.example", "portcullis@corp.example", *(f"p{number}@corp.example" for number in range(5))]
    assert len(answer.json()) == 1
    found = await org.get("/api/v1/users", search='status eq "DEPROVISIONED"')
    assert [user["id"] for user in found.json()] == [gone]


async def test_search_filter_and_q(org: OrgUnderTest) -> None:
    for name, department in (("ann", "Sales"), ("bob", "Engineering"), ("cyd", "Engineering")):
        await org.hire(f"{name}@corp.example", firstName=name.title(), department=department)
        org.clock.now += 60

    async def select(**query: str) -> list[str]:
        answer = await org.get("/api/v1/users", **query)
        assert answer.status_code == 200, answer.text
        return [user["profile"]["login"].partition("@")[0] for user in answer.json()]

    assert await select(search='profile.department eq "engineering" and status eq "ACTIVE"') == ["bob", "cyd"]
    assert await select(search='profile.login sw "a" or profile.firstName eq "cyd"') == ["ann", "cyd"]
    assert await select(filter='profile.login eq "BOB@corp.example"') == ["bob"]
    assert await select(filter='lastUpdated gt "2026-01-05T09:00:30.000Z"') == ["bob", "cyd"]
    assert await select(q="an") == ["ann"]
    assert await select(search='profile.department eq "Engineering"', sortBy="profile.login", sortOrder="desc") == ["cyd", "bob"]
    for query in (
        {"search": 'profile.shoeSize eq "44"'},
        {"filter": 'profile.login sw "a"'},
        {"filter": 'profile.login ne "a"'},
        {"search": 'status eq "ACTIVE"', "sortBy": "nonsense"},
    ):
        assert refusal(await org.get("/api/v1/users", **query)) == (400, "E0000031")
    assert refusal(await org.get("/api/v1/users", search='id eq "a"', filter='id eq "a"')) == (400, "E0000033")
    assert refusal(await org.get("/api/v1/users", limit="0")) == (400, "E0000001")
    assert refusal(await org.get("/api/v1/users", after="00uNobody")) == (400, "E0000001")


# -- groups -----------------------------------------------------------------------------------------------------------


async def test_members_come_and_go_and_the_log_says_so(org: OrgUnderTest) -> None:
    user = await org.hire("ann@corp.example")
    group = (await org.client.post("/api/v1/groups", json={"profile": {"name": "Sales"}})).json()["id"]
    for _ in range(2):
        assert (await org.client.put(f"/api/v1/groups/{group}/users/{user}")).status_code == 204
    assert {one["profile"]["name"] for one in (await org.get(f"/api/v1/users/{user}/groups")).json()} == {"Everyone", "Sales"}
    assert [one["id"] for one in (await org.get(f"/api/v1/groups/{group}/users")).json()] == [user]
    for _ in range(2):
        assert (await org.client.delete(f"/api/v1/groups/{group}/users/{user}")).status_code == 204
    assert (await org.get(f"/api/v1/groups/{group}/users")).json() == []
    [added] = await org.events("group.user_membership.add")
    [removed] = await org.events("group.user_membership.remove")
    for event in (added, removed):
        assert {(one["type"], one["id"]) for one in event["target"]} == {("User", user), ("UserGroup", group)}
    assert [changed for _, _, changed in await calls(org)] == [True, True, False, True, False]


async def test_the_order_of_targets_varies(org: OrgUnderTest) -> None:
    for number in range(12):
        await org.hire(f"p{number}@corp.example", groups=["Sales"])
    orders = {tuple(one["type"] for one in event["target"]) for event in await org.events("group.user_membership.add")}
    assert orders == {("User", "UserGroup"), ("UserGroup", "User")}


async def test_groups_are_listed_paged_and_guarded(org: OrgUnderTest) -> None:
    for name in ("Sales", "Sales EMEA", "Finance"):
        assert (await org.client.post("/api/v1/groups", json={"profile": {"name": name}})).status_code == 200
    answer = await org.get("/api/v1/groups", limit=3)
    assert [group["profile"]["name"] for group in answer.json()] == ["Everyone", "Sales", "Sales EMEA"]
    assert [group["profile"]["name"] for group in (await org.client.get(links(answer)["next"])).json()] == ["Finance"]
    assert [group["profile"]["name"] for group in (await org.get("/api/v1/groups", q="sal")).json()] == ["Sales", "Sales EMEA"]
    [one] = (await org.get("/api/v1/groups", search='profile.name eq "Finance"')).json()
    assert (await org.get(f"/api/v1/groups/{one['id']}")).json() == one
    everyone = (await org.get("/api/v1/groups", search='type eq "BUILT_IN"')).json()[0]["id"]
    assert refusal(await org.client.put(f"/api/v1/groups/{everyone}/users/me")) == (501, "E0000060")
    assert refusal(await org.client.post("/api/v1/groups", json={"profile": {"name": "Sales"}})) == (400, "E0000001")
    assert refusal(await org.client.put("/api/v1/groups/00gNone/users/me")) == (404, "E0000007")
    assert refusal(await org.client.put(f"/api/v1/groups/{one['id']}/users/00uNone")) == (404, "E0000007")
    assert refusal(await org.get("/api/v1/groups/00gNone/users")) == (404, "E0000007")
    assert refusal(await org.get("/api/v1/groups", search='profile.size eq "1"')) == (400, "E0000031")


async def test_members_of_a_group_are_paged(org: OrgUnderTest) -> None:
    people = [await org.hire(f"p{number}@corp.example", groups=["Sales"]) for number in range(5)]
    group = next(id_ for id_, one in (await org.state())["groups"].items() if one["profile"]["name"] == "Sales")
    answer = await org.get(f"/api/v1/groups/{group}/users", limit=2)
    found = [user["id"] for user in answer.json()]
    while "next" in links(answer):
        answer = await org.client.get(links(answer)["next"])
        found += [user["id"] for user in answer.json()]
    assert found == people


# -- sessions, risk, roles --------------------------------------------------------------------------------------------


async def test_ending_sessions_ends_them_and_tokens_only_where_asked(org: OrgUnderTest) -> None:
    profile = {"login": "ann@corp.example", "firstName": "Ann", "lastName": "Lee"}
    user = org.org.seed_user(profile, sessions=2, tokens=1).id
    assert (await org.client.delete(f"/api/v1/users/{user}/sessions")).status_code == 204
    state = await org.state()
    assert user not in state["sessions"]
    assert len(state["oauthTokens"][user]) == 1
    [cleared] = await org.events("user.session.clear")
    ended = await org.events("user.session.end")
    assert len(ended) == 2
    assert {event["transaction"]["id"] for event in ended} == {cleared["transaction"]["id"]}
    assert (await org.client.delete(f"/api/v1/users/{user}/sessions", params={"oauthTokens": "true"})).status_code == 204
    assert (await org.state())["oauthTokens"] == {}
    assert (await org.client.delete(f"/api/v1/users/{user}/sessions", params={"oauthTokens": "true"})).status_code == 204
    assert [changed for _, _, changed in await calls(org)] == [True, True, False]
    assert refusal(await org.client.delete(f"/api/v1/users/{user}/sessions", params={"oauthTokens": "yes"})) == (400, "E0000001")


async def test_suspension_leaves_sessions_and_deactivation_ends_them(org: OrgUnderTest) -> None:
    profile = {"login": "ann@corp.example", "firstName": "Ann", "lastName": "Lee"}
    user = org.org.seed_user(profile, sessions=1).id
    await org.act("suspend", id=user)
    assert len((await org.state())["sessions"][user]) == 1
    await org.act("deactivate", id=user)
    assert user not in (await org.state())["sessions"]


async def test_risk_is_put_read_and_written_to_the_log(org: OrgUnderTest) -> None:
    user = await org.hire("ann@corp.example")
    assert (await org.get(f"/api/v1/users/{user}/risk")).json()["riskLevel"] == "NONE"
    assert (await org.client.put(f"/api/v1/users/{user}/risk", json={"riskLevel": "MEDIUM"})).status_code == 201
    answer = await org.client.put(f"/api/v1/users/{user}/risk", json={"riskLevel": "HIGH", "riskReason": "Told by phone, twice."})
    assert (answer.status_code, answer.json()["reason"]) == (200, "Told by phone, twice.")
    assert (await org.get(f"/api/v1/users/{user}/risk")).json()["riskLevel"] == "HIGH"
    risks = [event["debugContext"]["debugData"]["risk"] for event in await org.events("user.risk.detect")]
    assert (
        risks[1] == "{previousLevel=MEDIUM, level=HIGH, detectionName=Admin Reported User Risk, reasons=Told by phone, twice., issuer=OKTA}"
    )
    for bad in ({"riskLevel": "NONE"}, {}, {"riskLevel": "HIGH", "riskReason": "<script>"}, {"riskLevel": "HIGH", "riskReason": "x" * 501}):
        assert refusal(await org.client.put(f"/api/v1/users/{user}/risk", json=bad)) == (400, "E0000001")


async def test_roles_are_read(org: OrgUnderTest) -> None:
    [role] = (await org.get("/api/v1/users/me/roles")).json()
    assert (role["type"], role["status"]) == ("SUPER_ADMIN", "ACTIVE")
    assert (await org.get(f"/api/v1/users/{await org.hire('ann@corp.example')}/roles")).json() == []


# -- the side door's acts ---------------------------------------------------------------------------------------------


async def test_a_hire_is_active_in_its_groups_and_written_by_an_admin(org: OrgUnderTest) -> None:
    manager = await org.hire("boss@corp.example")
    user = await org.hire("ann@corp.example", title="Engineer", managerId=manager, groups=["Project Apollo"])
    seen = (await org.get(f"/api/v1/users/{user}")).json()
    assert seen["status"] == "ACTIVE"
    assert seen["profile"] == {
        "login": "ann@corp.example",
        "email": "ann@corp.example",
        "firstName": "Ada",
        "lastName": "Lovelace",
        "department": "Engineering",
        "title": "Engineer",
        "managerId": manager,
    }
    kinds = [event["eventType"] for event in await org.events() if any(one["id"] == user for one in event["target"])]
    assert kinds == ["user.lifecycle.create", "user.lifecycle.activate", "group.user_membership.add"]
    [made] = await org.events("group.lifecycle.create")
    assert made["target"][0]["displayName"] == "Project Apollo"
    actors = {(event["actor"]["type"], event["actor"]["alternateId"]) for event in await org.events()}
    assert actors == {("User", "it.admin@corp.example")}
    assert await calls(org) == [], "the side door is no call of ours"


async def test_acts_change_what_they_say(org: OrgUnderTest) -> None:
    user = await org.hire("ann@corp.example")
    await org.act("add_to_group", id=user, group="Sales")
    await org.act("remove_from_group", id=user, group="Sales")
    await org.act("suspend", id=user)
    await org.act("unsuspend", id=user)
    await org.act("raise_risk", id=user, level="HIGH")
    await org.act("deactivate", id=user)
    await org.act("activate", id=user)
    kinds = [event["eventType"] for event in await org.events()][2:]
    assert kinds == [
        "group.lifecycle.create",
        "group.user_membership.add",
        "group.user_membership.remove",
        "user.lifecycle.suspend",
        "user.lifecycle.unsuspend",
        "user.risk.detect",
        "user.lifecycle.deactivate",
        "user.lifecycle.activate",
    ]
    [risk] = await org.events("user.risk.detect")
    assert risk["debugContext"]["debugData"]["risk"].startswith("{previousLevel=LOW, level=HIGH, detectionName=")
    assert risk["actor"]["type"] == "SystemPrincipal"
    assert [one["id"] for one in risk["target"]] == [user]


@pytest.mark.parametrize(
    ("order", "status", "says"),
    [
        ([], 400, "object"),
        ({"action": "fire"}, 400, "known are hire"),
        ({"action": "suspend"}, 400, "id must be"),
        ({"action": "suspend", "id": "00uNone"}, 404, "E0000007"),
        ({"action": "suspend", "id": "it.admin", "why": "x"}, 400, "unknown key why"),
        ({"action": "hire", "login": "a"}, 400, "E0000001"),
        ({"action": "hire", "login": "x@corp.example", "firstName": "X", "lastName": "Y", "groups": "Sales"}, 400, "groups"),
        ({"action": "change", "id": "it.admin", "profile": {"shoe": "44"}}, 400, "unknown attribute shoe"),
        ({"action": "raise_risk", "id": "it.admin", "level": "EXTREME"}, 400, "E0000001"),
        ({"action": "add_to_group", "id": "00uNone", "group": "New"}, 404, "E0000007"),
    ],
)
async def test_an_act_that_cannot_be_honoured_is_refused(org: OrgUnderTest, order: Any, status: int, says: str) -> None:
    answer = await org.client.post("/_sim/act", json=order)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    assert await org.events() == []
    assert (await org.client.post("/_sim/act", content=b"{")).status_code == 400


# -- lag --------------------------------------------------------------------------------------------------------------


async def test_reads_lag_the_log_and_writes_do_not() -> None:
    async with running() as org:
        user = await org.hire("ann@corp.example", groups=["Sales"])
        assert len(await org.events()) == 4, "the log is there at once"
        assert refusal(await org.get(f"/api/v1/users/{user}")) == (404, "E0000007")
        org.clock.now += 0.5
        assert (await org.get(f"/api/v1/users/{user}")).json()["status"] == "ACTIVE"
        first = await org.client.post(f"/api/v1/users/{user}/lifecycle/suspend")
        second = await org.client.post(f"/api/v1/users/{user}/lifecycle/suspend")
        assert first.status_code == 200
        assert refusal(second) == (400, "E0000001")
        await org.act("remove_from_group", id=user, group="Sales")
        org.clock.now += 0.4
        assert (await org.get(f"/api/v1/users/{user}")).json()["status"] == "ACTIVE"
        assert len((await org.get(f"/api/v1/users/{user}/groups")).json()) == 2
        assert (await org.state())["users"][user]["status"] == "SUSPENDED", "the side door sees the present"
        org.clock.now += 0.1
        assert (await org.get(f"/api/v1/users/{user}")).json()["status"] == "SUSPENDED"
        assert len((await org.get(f"/api/v1/users/{user}/groups")).json()) == 1
