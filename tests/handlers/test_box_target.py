"""Box as a target: the contract, and Box's own traps (prefix search, several answers for one fact, names, one-way transfer)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from handlers.auth import BoxClientCredentials
from handlers.box.api import BOX, BoxApi
from handlers.box.diff import PERMISSIONS
from handlers.box.target import BoxTarget
from handlers.contract import Applied, Capability
from model.change import Change, ChangeKind
from model.errors import Ambiguous, OutcomeUnknown, PermanentError, Refused, TemporaryError
from model.person import Desired, Grant, Link, Person, PersonStatus
from simulators.box import BoxSimulator
from tests.handlers.contract_suite import LANES, Recorder, TargetContract, seen
from tests.handlers.wire import Wire, box_error, client, limits
from tests.support.canary import Canaries
from tests.support.clock import FakeClock

FOLDERS = ("Company", "Sales", "Engineering")
MANAGED = (("group", "Sales"), ("group", "Engineering"), ("folder", "Company"), ("folder", "Sales"), ("folder", "Engineering"))


class BoxWorld:
    permissions: dict[Capability, str] = PERMISSIONS

    def __init__(self, box: BoxSimulator, clock: FakeClock, secret: str, folders: tuple[str, ...] = FOLDERS) -> None:
        self.box, self.recorder = box, Recorder()
        self.apis = {
            lane: BoxApi(
                client(
                    Wire(),
                    clock,
                    dialect=BOX,
                    base=f"{box.url}/2.0",
                    auth=BoxClientCredentials(clock, f"{box.url}/oauth2/token", "app", lambda: SecretStr(secret), "900001"),
                    transport=self.recorder,
                    timeout_s=0.3,
                    limits=limits(clock, lane=lane, per_minute=60_000),
                )
            )
            for lane in LANES
        }
        self.target = BoxTarget("box", self.apis, clock, folders)
        self._intents = 0

    def person(self, login: str, **more: Any) -> Person:
        known = {"first_name": "Ada", "last_name": "Lovelace", "title": "Engineer"} | more
        return Person(tenant="acme", id="00u1", status=PersonStatus.ACTIVE, login=login, email=login, **known)

    def give_account(self, person: Person, **values: Any) -> str:
        return self.box.add_user(person.login, "Ada Lovelace", **values)

    def give_lookalike(self, person: Person) -> None:
        """The search goes by prefix of login and name."""
        self.box.add_user(person.login + ".au", "Somebody")
        self.box.add_user("other@corp.example", person.login)

    def drop_account(self, account_id: str) -> None:
        self.box.store.delete_user(self.box.store.users[account_id], self.box.store.service)

    def is_open(self, account_id: str) -> bool:
        return self.box.store.users[account_id].status != "inactive"

    def live_sessions(self, account_id: str) -> int:
        return self.box.store.users[account_id].live

    def meddle(self, account_id: str) -> None:
        self.box.set_user(account_id, status="cannot_delete_edit")

    def order(self, **fault: Any) -> None:
        self.box.faults.add({"path": "/2.0/*"} | fault)

    def calls(self) -> list[dict[str, Any]]:
        return self.box.calls.after(0)

    # -- what these tests need beyond the contract ---------------------------------------------------------------------

    async def apply(self, change: Change) -> Applied:
        self._intents += 1
        return await self.target.apply(change, f"intent-{self._intents}", "provision")

    async def converge(self, desired: Desired, person: Person) -> list[str]:
        """Look, apply everything (a created account's id goes to its grants), and give what was done."""
        account = (await self.target.observe(person, None, "provision")).account
        changes = sorted(self.target.changes(desired, account, person), key=lambda change: change.stage)
        created = account.id if account else ""
        for change in changes:
            applied = await self.apply(
                change if change.account or change.kind is ChangeKind.CREATE else change.model_copy(update={"account": created})
            )
            created = created or applied.account
        return [change.label for change in changes]

    def members(self, group: str) -> list[str]:
        return [one.user.login for one in self.box.store.memberships.values() if one.group.name == group]

    def roles(self, folder: str) -> dict[str, str]:
        grants = self.box.store.collaborations.values()
        return {one.grantee.login: one.role for one in grants if one.folder.name == folder and one.grantee is not None}  # type: ignore[union-attr]


@pytest.fixture
async def box(canary: Canaries) -> AsyncIterator[BoxSimulator]:
    box = BoxSimulator(client_id="app", client_secret=canary("box-secret"))
    await box.start()
    yield box
    await box.stop()
    assert box.crashes == []


@pytest.fixture
async def world(box: BoxSimulator, clock: FakeClock, canary: Canaries) -> AsyncIterator[BoxWorld]:
    for name in FOLDERS:
        box.add_folder(name)
    world = BoxWorld(box, clock, canary("box-secret"))
    yield world
    await world.target.aclose()


class TestContract(TargetContract):
    pass


def desired(active: bool | None = True, *grants: Grant, **more: Any) -> Desired:
    return Desired(target="box", active=active, grants=grants, managed=MANAGED, **more)


def group(name: str) -> Grant:
    return Grant(kind="group", name=name)


def folder(name: str, level: str = "editor") -> Grant:
    return Grant(kind="folder", name=name, level=level)


def scripted(clock: FakeClock, *steps: Any, folders: tuple[str, ...] = ()) -> tuple[BoxTarget, Wire]:
    wire = Wire(*steps)
    api = BoxApi(client(wire, clock, dialect=BOX))
    return BoxTarget("box", {"lockdown": api, "provision": api}, clock, folders), wire


def users(*entries: dict[str, Any], marker: str | None = None) -> httpx.Response:
    return httpx.Response(200, json={"limit": 1000, "next_marker": marker, "entries": list(entries)})


# -- finding ----------------------------------------------------------------------------------------------------------


async def test_several_accounts_under_one_login_are_never_guessed_between(clock: FakeClock) -> None:
    target, _ = scripted(clock, users({"id": "1", "login": "Ada@corp.example"}, {"id": "2", "login": "ada@CORP.example"}))
    person = Person(tenant="acme", id="00u1", status=PersonStatus.ACTIVE, login="ada@corp.example")
    observation = await target.observe(person, None, "lockdown")
    assert (observation.account, observation.candidates, observation.is_ambiguous) == (None, ("1", "2"), True)


async def test_the_login_counts_without_case_and_over_all_pages(clock: FakeClock) -> None:
    target, wire = scripted(
        clock,
        users({"id": "1", "login": "ada@corp.example.au"}, marker="m1"),
        users({"id": "2", "login": "Ada@Corp.Example", "status": "active"}),
    )
    person = Person(tenant="acme", id="00u1", status=PersonStatus.ACTIVE, login="ADA@corp.example")
    observation = await target.observe(person, None, "lockdown")
    assert observation.account is not None
    assert observation.account.id == "2"
    assert [dict(request.url.params).get("marker") for request in wire.requests] == [None, "m1"]
    assert dict(wire.requests[0].url.params)["filter_term"] == "ada@corp.example"


async def test_a_plus_in_a_login_survives_the_query(world: BoxWorld) -> None:
    account_id = world.give_account(person := world.person("ada+box@corp.example"))
    assert (await seen(world, person)).id == account_id


async def test_a_link_is_followed_by_id_whatever_the_login_says(world: BoxWorld, clock: FakeClock) -> None:
    person = world.person("ada@corp.example")
    linked = world.give_account(world.person("ada.old@corp.example"))
    world.give_account(person)  # somebody else carries the login now
    link = Link(tenant="acme", person="00u1", target="box", account=linked, made_by="i", at=clock.now())
    observation = await world.target.observe(person, link, "provision")
    assert observation.linked
    assert observation.account is not None
    assert (observation.account.id, observation.account.login) == (linked, "ada.old@corp.example")


async def test_a_link_to_an_account_that_is_gone_finds_nothing_and_no_other(world: BoxWorld, clock: FakeClock) -> None:
    world.give_account(person := world.person("ada@corp.example"))
    link = Link(tenant="acme", person="00u1", target="box", account="999", made_by="i", at=clock.now())
    observation = await world.target.observe(person, link, "provision")
    assert (observation.account, observation.candidates) == (None, ())


async def test_somebody_without_a_login_is_nobody(world: BoxWorld) -> None:
    assert (await world.target.observe(world.person(""), None, "provision")).account is None
    assert world.recorder.requests == []


async def test_a_listing_that_breaks_off_is_no_listing(clock: FakeClock) -> None:
    target, _ = scripted(clock, users({"id": "1", "login": "x"}, marker="m"), box_error(500, "internal_server_error"))
    with pytest.raises(TemporaryError):
        await target.observe(Person(tenant="a", id="1", status=PersonStatus.ACTIVE, login="ada@corp.example"), None, "lockdown")
    circle, _ = scripted(clock, users(marker="m"), users(marker="m"))
    with pytest.raises(TemporaryError, match="circle"):
        await circle.observe(Person(tenant="a", id="1", status=PersonStatus.ACTIVE, login="ada@corp.example"), None, "lockdown")


@pytest.mark.parametrize("role", ["coadmin", "admin"])
async def test_administrators_are_flagged_and_box_lets_nobody_touch_them(world: BoxWorld, role: Any) -> None:
    account_id = world.give_account(person := world.person("ada@corp.example"), role=role)
    account = await seen(world, person)
    assert account.privileged
    with pytest.raises(Refused):
        await world.apply(Change(kind=ChangeKind.DEACTIVATE, target="box", account=account_id))
    assert world.is_open(account_id)


async def test_grants_are_memberships_and_direct_collaborations_on_managed_folders(world: BoxWorld) -> None:
    account_id = world.give_account(person := world.person("ada@corp.example"))
    sales, other = world.box.add_group("Sales", members=(account_id,)), world.box.add_group("By hand")
    world.box.add_membership(account_id, other)
    folders = {one.name: one.id for one in world.box.store.folders.values()}
    key = world.box.add_collaboration(folders["Sales"], user=account_id, role="viewer")
    world.box.add_collaboration(folders["Company"], group=sales, role="viewer")
    world.box.add_collaboration(folders["Company"], login="pending@elsewhere.example", role="viewer")
    world.box.add_collaboration(world.box.add_folder("Not managed"), user=account_id)
    account = await seen(world, person)
    assert {(grant.kind, grant.name, grant.level) for grant in account.grants} == {
        ("group", "Sales", "member"),
        ("group", "By hand", "member"),
        ("folder", "Sales", "viewer"),
    }
    assert [grant.key for grant in account.grants if grant.kind == "folder"] == [key]


# -- opening ----------------------------------------------------------------------------------------------------------


async def test_somebody_new_gets_account_group_folder_and_quota(world: BoxWorld) -> None:
    person = world.person("ada@corp.example")
    wish = desired(True, group("Engineering"), folder("Engineering"), folder("Company", "viewer"), attributes={"space_amount": 1000})
    await world.converge(wish, person)
    user = world.box.find_user("ada@corp.example")
    assert user is not None
    assert (user["name"], user["status"], user["job_title"], user["space_amount"]) == ("Ada Lovelace", "active", "Engineer", 1000)
    assert world.members("Engineering") == ["ada@corp.example"]
    assert (world.roles("Engineering"), world.roles("Company")) == ({"ada@corp.example": "editor"}, {"ada@corp.example": "viewer"})
    assert all(call["intent"] for call in world.calls())
    account = await seen(world, person)
    assert world.target.changes(wish, account, person) == (), "what is as wished asks for nothing"


async def test_a_long_name_fits(world: BoxWorld) -> None:
    person = world.person("ada@corp.example", first_name="A" * 40, last_name="B" * 40)
    wish = desired(True, attributes={"name": "C" * 80})
    await world.converge(desired(True), person)
    assert world.box.find_user("ada@corp.example")["name"] == ("A" * 40 + " " + "B" * 9)  # type: ignore[index]
    await world.converge(wish, person)
    assert world.target.changes(wish, await seen(world, person), person) == ()


async def test_an_account_that_was_there_is_a_case_and_not_ours(world: BoxWorld) -> None:
    create = world.target.changes(desired(True), None, person := world.person("ada@corp.example"))[0]
    account_id = world.give_account(person)
    with pytest.raises(Ambiguous) as refused:
        await world.apply(create)
    assert refused.value.code == "account_exists"
    adopted = await world.apply(create.model_copy(update={"args": create.args | {"adopt": True}}))
    assert (adopted.account, adopted.already) == (account_id, True)


async def test_a_login_of_another_enterprise_is_a_case(world: BoxWorld) -> None:
    world.box.add_foreign_login("ada@corp.example")
    create = world.target.changes(desired(True), None, world.person("ada@corp.example"))[0]
    with pytest.raises(Ambiguous) as refused:
        await world.apply(create)
    assert refused.value.code == "login_taken_elsewhere"


@pytest.mark.fault(35)
async def test_a_creation_without_an_answer_is_found_by_the_next_look(world: BoxWorld) -> None:
    create = world.target.changes(desired(True), None, person := world.person("ada@corp.example"))[0]
    world.order(method="POST", status=503, when="after")
    with pytest.raises(OutcomeUnknown):
        await world.apply(create)
    assert (await seen(world, person)).login == "ada@corp.example"


async def test_an_answer_without_an_id_is_unknown(clock: FakeClock) -> None:
    for body in ({}, {"id": 7}, {"id": "../x"}):
        target, _ = scripted(clock, httpx.Response(201, json=body))
        with pytest.raises(OutcomeUnknown):
            await target.apply(
                Change(kind=ChangeKind.CREATE, target="box", args={"body": {"login": "a@b.example", "name": "A"}}), "i", "provision"
            )


async def test_granting_twice_is_success(world: BoxWorld) -> None:
    account_id = world.give_account(person := world.person("ada@corp.example"))
    account = await seen(world, person)
    changes = world.target.changes(desired(True, group("Sales"), folder("Sales")), account, person)
    assert [(await world.apply(change)).already for change in changes] == [False, False]
    assert [(await world.apply(change)).already for change in changes] == [True, True]
    assert (world.members("Sales"), world.roles("Sales")) == (["ada@corp.example"], {"ada@corp.example": "editor"})
    assert account_id == account.id


async def test_a_folder_held_at_another_level_is_raised_not_doubled(world: BoxWorld) -> None:
    world.give_account(person := world.person("ada@corp.example"))
    account = await seen(world, person)
    grant = world.target.changes(desired(True, folder("Sales", "co-owner")), account, person)[0]
    folders = {one.name: one.id for one in world.box.store.folders.values()}
    world.box.add_collaboration(folders["Sales"], user=account.id, role="viewer")
    applied = await world.apply(grant)
    assert (applied.already, applied.after["level"]) == (False, "co-owner")
    assert world.roles("Sales") == {"ada@corp.example": "co-owner"}


async def test_two_people_who_need_a_missing_group_make_one(world: BoxWorld) -> None:
    import asyncio

    changes: list[Change] = []
    for login in ("ada@corp.example", "bob@corp.example"):
        world.give_account(person := world.person(login))
        changes += world.target.changes(desired(True, group("Sales")), await seen(world, person), person)
    await asyncio.gather(*(world.apply(change) for change in changes))
    assert [one.name for one in world.box.store.groups.values()] == ["Sales"]
    assert sorted(world.members("Sales")) == ["ada@corp.example", "bob@corp.example"]


async def test_a_group_made_by_another_worker_meanwhile_is_adopted(world: BoxWorld) -> None:
    world.give_account(person := world.person("ada@corp.example"))
    change = world.target.changes(desired(True, group("Sales")), await seen(world, person), person)[0]
    search = world.apis["provision"].groups_beginning_with
    found: list[list[dict[str, Any]]] = []

    async def late(name: str) -> list[dict[str, Any]]:
        found.append(await search(name))
        if len(found) == 1:
            world.box.add_group("SALES")
        return found[-1]

    world.apis["provision"].groups_beginning_with = late  # type: ignore[method-assign]
    await world.apply(change)
    assert world.members("SALES") == ["ada@corp.example"]


async def test_several_groups_under_one_name_are_a_case(clock: FakeClock) -> None:
    page = {"total_count": 2, "limit": 1000, "offset": 0, "entries": [{"id": "1", "name": "Sales"}, {"id": "2", "name": "sales"}]}
    target, _ = scripted(clock, httpx.Response(200, json=page))
    change = Change(kind=ChangeKind.GRANT, target="box", account="7", args={"kind": "group", "name": "Sales", "level": ""})
    with pytest.raises(Ambiguous) as refused:
        await target.apply(change, "i", "provision")
    assert refused.value.code == "group_ambiguous"


async def test_a_missing_folder_is_a_case_until_somebody_makes_it(world: BoxWorld, clock: FakeClock) -> None:
    world.give_account(person := world.person("ada@corp.example"))
    folders = {one.name: one for one in world.box.store.folders.values()}
    world.box.store._drop_folder(folders["Sales"], world.box.store.service)
    wish = desired(True, folder("Sales"))
    change = world.target.changes(wish, await seen(world, person), person)[0]
    with pytest.raises(Ambiguous) as refused:
        await world.apply(change)
    assert refused.value.code == "folder_missing"
    world.box.add_folder("Sales")
    clock.shift(60)
    await world.apply(change)
    assert world.roles("Sales") == {"ada@corp.example": "editor"}


async def test_a_folder_made_anew_is_found_under_its_new_id(world: BoxWorld) -> None:
    world.give_account(person := world.person("ada@corp.example"))
    wish = desired(True, folder("Sales"))
    change = world.target.changes(wish, await seen(world, person), person)[0]
    folders = {one.name: one for one in world.box.store.folders.values()}
    world.box.store._drop_folder(folders["Sales"], world.box.store.service)
    world.box.add_folder("sales")
    with pytest.raises(TemporaryError, match="gone since"):
        await world.apply(change)
    await world.apply(change)
    assert world.roles("sales") == {"ada@corp.example": "editor"}


async def test_two_folders_under_one_name_are_a_case(clock: FakeClock) -> None:
    items = [
        {"id": "1", "type": "folder", "name": "Sales"},
        {"id": "2", "type": "folder", "name": "Sales"},
        {"id": "3", "type": "file", "name": "Sales"},
    ]
    target, _ = scripted(clock, users(*items), folders=("Sales",))
    change = Change(kind=ChangeKind.GRANT, target="box", account="7", args={"kind": "folder", "name": "Sales", "level": "editor"})
    with pytest.raises(Ambiguous) as refused:
        await target.apply(change, "i", "provision")
    assert refused.value.code == "folder_ambiguous"


async def test_a_folder_may_be_named_by_id(box: BoxSimulator, clock: FakeClock, canary: Canaries) -> None:
    inner = box.add_folder("Deep", parent=box.add_folder("Top"))
    world = BoxWorld(box, clock, canary("box-secret"), (f"id:{inner}",))
    world.give_account(person := world.person("ada@corp.example"))
    wish = Desired(target="box", active=True, grants=(folder(f"id:{inner}"),), managed=(("folder", f"id:{inner}"),))
    await world.converge(wish, person)
    assert world.roles("Deep") == {"ada@corp.example": "editor"}
    assert world.target.changes(wish, await seen(world, person), person) == ()
    gone = Change(kind=ChangeKind.GRANT, target="box", account="1", args={"kind": "folder", "name": "id:999", "level": "editor"})
    with pytest.raises(Ambiguous) as refused:
        await world.apply(gone)
    assert refused.value.code == "folder_missing"
    await world.target.aclose()


# -- moving and leaving -----------------------------------------------------------------------------------------------


async def test_a_transfer_takes_away_and_gives_and_leaves_what_is_not_managed(world: BoxWorld) -> None:
    account_id = world.give_account(person := world.person("ada@corp.example"))
    by_hand = world.box.add_group("By hand", members=(account_id,))
    await world.converge(desired(True, group("Sales"), folder("Sales"), folder("Company", "viewer")), person)
    done = await world.converge(desired(True, group("Engineering"), folder("Engineering"), folder("Company", "editor")), person)
    assert done == [
        "revoke group Sales",
        "revoke folder Sales",
        "update folder Company",
        "grant group Engineering",
        "grant folder Engineering",
    ]
    assert (world.members("Sales"), world.members("Engineering")) == ([], ["ada@corp.example"])
    assert (world.roles("Sales"), world.roles("Company")) == ({}, {"ada@corp.example": "editor"})
    assert [one.user.id for one in world.box.store.memberships.values() if one.group.id == by_hand] == [account_id]


async def test_a_leaver_is_shut_and_loses_every_managed_grant(world: BoxWorld) -> None:
    account_id = world.give_account(person := world.person("ada@corp.example"))
    await world.converge(desired(True, group("Sales"), folder("Sales")), person)
    done = await world.converge(desired(False), person)
    assert done == ["deactivate ada@corp.example", "end_sessions sessions", "revoke group Sales", "revoke folder Sales"]
    assert (world.is_open(account_id), world.live_sessions(account_id), world.members("Sales"), world.roles("Sales")) == (False, 0, [], {})
    assert await world.converge(desired(False), person) == []


async def test_who_comes_back_is_opened_again(world: BoxWorld) -> None:
    account_id = world.give_account(person := world.person("ada@corp.example"))
    await world.converge(desired(False), person)
    assert await world.converge(desired(True, group("Sales")), person) == ["activate ada@corp.example", "grant group Sales"]
    assert world.is_open(account_id)


async def test_restoring_gives_back_the_very_status(world: BoxWorld) -> None:
    account_id = world.give_account(person := world.person("ada@corp.example"), status="cannot_delete_edit")
    before = await seen(world, person, "lockdown")
    assert before.active
    await world.apply(Change(kind=ChangeKind.DEACTIVATE, target="box", account=account_id))
    shut = await seen(world, person, "lockdown")
    (restore,) = world.target.restoring(shut, world.target.saved(before))
    await world.apply(restore)
    assert world.box.store.users[account_id].status == "cannot_delete_edit"


async def test_revoking_twice_is_success(world: BoxWorld) -> None:
    world.give_account(person := world.person("ada@corp.example"))
    await world.converge(desired(True, group("Sales"), folder("Sales")), person)
    changes = world.target.changes(desired(True), await seen(world, person), person)
    assert [(await world.apply(change)).already for change in changes] == [False, False]
    assert [(await world.apply(change)).already for change in changes] == [True, True]


async def test_a_stale_login_does_not_pass_for_somebody_gone(world: BoxWorld) -> None:
    """terminate_sessions says 404 where one of id and login is unknown."""
    account_id = world.give_account(world.person("ada.new@corp.example"))
    change = Change(kind=ChangeKind.END_SESSIONS, target="box", account=account_id, args={"login": "ada.old@corp.example"})
    assert (await world.apply(change)).already is False
    assert world.live_sessions(account_id) == 0


async def test_a_grant_for_an_account_that_nobody_named_is_refused(world: BoxWorld) -> None:
    with pytest.raises(PermanentError) as refused:
        await world.apply(Change(kind=ChangeKind.GRANT, target="box", args={"kind": "group", "name": "Sales", "level": ""}))
    assert refused.value.code == "no_account"
    assert world.recorder.requests == []


async def test_what_the_plan_saw_and_is_gone_asks_for_a_new_look(world: BoxWorld) -> None:
    account_id = world.give_account(world.person("ada@corp.example"))
    args = {"kind": "folder", "name": "Sales", "level": "editor", "id": "1", "key": "999"}
    with pytest.raises(TemporaryError, match="gone since"):
        await world.apply(Change(kind=ChangeKind.UPDATE, target="box", account=account_id, args=args))


# -- content ----------------------------------------------------------------------------------------------------------


class Leaver:
    """An inactive person with content and a manager. Nobody may look into their root any more; Box counts the space they use."""

    def __init__(self, world: BoxWorld) -> None:
        self.world = world
        self.person = world.person("ada@corp.example")
        self.id = world.give_account(self.person)
        self.content = world.box.add_folder("Plans", owner=self.id)
        self.manager = world.give_account(world.person("boss@corp.example"))
        world.box.set_user(self.id, status="inactive")

    @property
    def owner(self) -> str:
        return self.world.box.store.folders[self.content].owner.id

    async def plan(self, to: str) -> list[Change]:
        account = await seen(self.world, self.person)
        return list(self.world.target.changes(desired(False, transfer_to=to), account, self.person))


@pytest.mark.parametrize("named_by", ["id", "login"])
async def test_content_goes_to_the_manager(world: BoxWorld, named_by: str) -> None:
    leaver = Leaver(world)
    (transfer,) = await leaver.plan(leaver.manager if named_by == "id" else "Boss@corp.example")
    assert transfer.kind is ChangeKind.TRANSFER
    applied = await world.apply(transfer)
    assert (leaver.owner, applied.after["owner"]) == (leaver.manager, leaver.manager)
    assert await leaver.plan(leaver.manager) == [], "nothing left to hand over"
    assert (await world.apply(transfer)).already is True
    assert len(world.box.store.transfers) == 1


async def test_nothing_to_hand_over_makes_no_call(world: BoxWorld) -> None:
    leaver = Leaver(world)
    world.box.store._drop_folder(world.box.store.folders[leaver.content], world.box.store.service)
    assert await leaver.plan(leaver.manager) == []


async def test_an_active_person_is_looked_at_when_it_comes_to_it(world: BoxWorld) -> None:
    """Acted for, an active person's root can be listed: what is shared with them is not theirs."""
    account_id = world.give_account(person := world.person("ada@corp.example"))
    heir = world.give_account(world.person("boss@corp.example"))
    folders = {one.name: one.id for one in world.box.store.folders.values()}
    world.box.add_collaboration(folders["Sales"], user=account_id)
    transfer = next(
        one
        for one in world.target.changes(desired(False, transfer_to=heir), await seen(world, person), person)
        if one.kind is ChangeKind.TRANSFER
    )
    assert (await world.apply(transfer)).already is True
    world.box.add_folder("Mine", owner=account_id)
    assert (await world.apply(transfer)).already is False


@pytest.mark.parametrize("to", ["nobody@corp.example", "00uOktaId", "inactive@corp.example", "ada@corp.example", ""])
async def test_without_an_heir_nothing_moves(world: BoxWorld, to: str) -> None:
    leaver = Leaver(world)
    world.give_account(world.person("inactive@corp.example"), status="inactive")
    change = Change(kind=ChangeKind.TRANSFER, target="box", account=leaver.id, args={"to": to})
    with pytest.raises(Ambiguous) as refused:
        await world.apply(change)
    assert refused.value.code == "no_heir"
    assert leaver.owner == leaver.id


@pytest.mark.fault(35)
async def test_a_transfer_whose_answer_is_lost_is_read_back(world: BoxWorld) -> None:
    leaver = Leaver(world)
    (transfer,) = await leaver.plan(leaver.manager)
    world.order(method="PUT", reset=True, when="after")
    applied = await world.apply(transfer)
    assert (leaver.owner, applied.after["owner"]) == (leaver.manager, leaver.manager)
    assert len(world.box.store.transfers) == 1


@pytest.mark.fault(35)
async def test_a_transfer_that_may_be_under_way_is_not_repeated_blindly(world: BoxWorld) -> None:
    leaver = Leaver(world)
    (transfer,) = await leaver.plan(leaver.manager)
    world.order(method="PUT", status=503)
    with pytest.raises(OutcomeUnknown) as unknown:
        await world.apply(transfer)
    assert unknown.value.delay == 900, "content is still there: Box may be at work on it"
    assert sum(request.method == "PUT" for request in world.recorder.requests) == 1


async def test_a_lost_answer_after_which_nothing_is_left_is_done(clock: FakeClock) -> None:
    source = {"id": "1", "login": "a@b.example", "status": "inactive", "space_used": 5}
    heir = {"id": "2", "login": "m@b.example", "status": "active"}
    nothing = users({"id": "9", "type": "folder", "name": "shared", "owned_by": {"id": "3"}})
    mine = users({"id": "8", "type": "folder", "name": "own", "owned_by": {"id": "1"}})
    target, wire = scripted(
        clock,
        httpx.Response(200, json=heir),
        httpx.Response(200, json=source),
        mine,
        httpx.ReadTimeout("slow"),
        httpx.Response(200, json=source),
        nothing,
    )
    change = Change(kind=ChangeKind.TRANSFER, target="box", account="1", args={"to": "2"})
    applied = await target.apply(change, "i", "provision")
    assert applied.after == {"owner": "2"}
    assert [request.method for request in wire.requests] == ["GET", "GET", "GET", "PUT", "GET", "GET"]
    assert wire.requests[2].headers["as-user"] == "1"
    assert wire.requests[3].extensions["timeout"]["read"] == 660


async def test_deletion_spares_what_is_owned(world: BoxWorld) -> None:
    leaver = Leaver(world)
    change = Change(kind=ChangeKind.DELETE, target="box", account=leaver.id)
    with pytest.raises(Refused):
        await world.apply(change)
    empty = world.give_account(world.person("eve@corp.example"))
    change = Change(kind=ChangeKind.DELETE, target="box", account=empty)
    assert [(await world.apply(change)).already for _ in range(2)] == [False, True]
