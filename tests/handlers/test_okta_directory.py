"""Okta as the source of truth: who somebody is, who is asked for, and what is never taken for an answer."""

from __future__ import annotations

import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from joserfc.jwk import KeySet, RSAKey
from pydantic import SecretStr

from handlers.auth import PrivateKeyJwt, StaticToken
from handlers.contract import Lane
from handlers.okta.api import OktaApi
from handlers.okta.directory import OktaDirectory
from model.errors import PermanentError, PortcullisError, TemporaryError
from model.person import PersonStatus
from simulators.okta import OktaSimulator
from simulators.okta.auth import ServiceApp
from tests.handlers.contract_suite import CRAFTED, Recorder
from tests.handlers.wire import BASE, Wire, client, limits, okta_error
from tests.support.clock import FakeClock

TOKEN = "00testToken"


class Org:
    def __init__(self, okta: OktaSimulator, clock: FakeClock) -> None:
        self.okta, self.recorder = okta, Recorder()
        auth = StaticToken("SSWS", lambda: SecretStr(TOKEN))
        lanes: tuple[Lane, ...] = ("lockdown", "provision")
        self.apis = {
            lane: OktaApi(
                client(Wire(), clock, base=okta.url, auth=auth, transport=self.recorder, limits=limits(clock, per_minute=60000)), okta.url
            )
            for lane in lanes
        }
        self.directory = OktaDirectory({"acme": self.apis})

    def hire(self, login: str, **profile: Any) -> str:
        groups = profile.pop("groups", ())
        full = {"login": login, "email": login, "firstName": "Ada", "lastName": "Lovelace"} | profile
        return self.okta.org.seed_user(full, groups=groups).id

    @property
    def paths(self) -> list[str]:
        return [request.url.raw_path.decode() for request in self.recorder.requests]


@pytest.fixture
async def org(clock: FakeClock) -> AsyncIterator[Org]:
    okta = OktaSimulator(lag=0.0, clock=time.time, rng=random.Random(1))
    okta.add_token(TOKEN)
    await okta.start()
    org = Org(okta, clock)
    yield org
    await org.directory.aclose()
    await okta.stop()
    assert okta.crashes == []


async def test_a_person_comes_with_profile_status_and_groups(org: Org) -> None:
    key = org.hire("ada@corp.example", department="Sales", title="VP", managerId="00uBoss", userType="Employee", groups=("Sales", "All"))
    person = await org.directory.person("acme", key, "provision")
    assert (person.tenant, person.id, person.status) == ("acme", key, PersonStatus.ACTIVE)
    assert (person.login, person.email, person.department, person.title) == ("ada@corp.example", "ada@corp.example", "Sales", "VP")
    assert (person.first_name, person.last_name, person.manager_id, person.user_type) == ("Ada", "Lovelace", "00uBoss", "Employee")
    assert {"Sales", "All"} <= {name for _, name in person.groups}
    assert person.last_updated is not None
    assert person.profile["department"] == "Sales"


async def test_lockdown_asks_who_somebody_is_in_one_get(org: Org) -> None:
    key = org.hire("ada@corp.example", groups=("Sales",))
    person = await org.directory.person("acme", key, "lockdown")
    assert (person.login, person.groups) == ("ada@corp.example", ())
    assert len(org.paths) == 1


async def test_a_404_in_oktas_words_is_absence(org: Org) -> None:
    person = await org.directory.person("acme", "00uNobody", "provision")
    assert (person.status, person.id, person.login) == (PersonStatus.ABSENT, "00uNobody", "")


@pytest.mark.fault(22)
@pytest.mark.parametrize("crafted", CRAFTED)
async def test_a_crafted_id_never_becomes_a_url(org: Org, crafted: str) -> None:
    for ask in (org.directory.person("acme", crafted, "provision"), org.directory.members("acme", crafted, "provision")):
        with pytest.raises(PermanentError) as refused:
            await ask
        assert refused.value.code == "unsafe_id"
    assert org.paths == []


async def test_a_tenant_that_nobody_configured_is_refused(org: Org) -> None:
    with pytest.raises(PermanentError) as refused:
        await org.directory.person("elsewhere", "00u1", "provision")
    assert refused.value.code == "unknown_tenant"


def scripted(clock: FakeClock, *steps: Any) -> tuple[OktaDirectory, Wire]:
    wire = Wire(*steps)
    api = OktaApi(client(wire, clock), BASE)
    return OktaDirectory({"acme": {"provision": api, "lockdown": api}}), wire


def user(status: object = "ACTIVE", key: str = "00u1", **more: Any) -> httpx.Response:
    return httpx.Response(200, json={"id": key, "status": status, "profile": {"login": "ada@corp.example"}} | more)


@pytest.mark.parametrize(
    ("status", "known"),
    [(name, name) for name in PersonStatus if name not in ("ABSENT", "UNKNOWN")]
    + [("ACTIVATING", "UNKNOWN"), ("ABSENT", "UNKNOWN"), ("UNKNOWN", "UNKNOWN"), (None, "UNKNOWN"), (7, "UNKNOWN"), ([], "UNKNOWN")],
)
async def test_statuses_and_what_nobody_knows(clock: FakeClock, status: object, known: str) -> None:
    directory, _ = scripted(clock, user(status))
    person = await directory.person("acme", "00u1", "lockdown")
    assert person.status == known


async def test_who_is_being_deprovisioned_counts_as_deprovisioned(clock: FakeClock) -> None:
    directory, _ = scripted(clock, user("ACTIVE", transitioningToStatus="DEPROVISIONED"))
    assert (await directory.person("acme", "00u1", "lockdown")).status is PersonStatus.DEPROVISIONED


async def test_an_answer_about_another_id_is_refused(clock: FakeClock) -> None:
    directory, _ = scripted(clock, user(key="00u2"))
    with pytest.raises(PermanentError) as refused:
        await directory.person("acme", "00u1", "lockdown")
    assert refused.value.code == "id_mismatch"


@pytest.mark.fault(17)
async def test_a_profile_of_any_shape_is_no_crash(clock: FakeClock) -> None:
    body = rb'{"id": "00u1", "status": "ACTIVE", "profile": {"login": 7, "firstName": "\ud800x", "title": null, "department": ["a"]}, "lastUpdated": "2026-13-45"}'
    directory, _ = scripted(clock, httpx.Response(200, content=body))
    person = await directory.person("acme", "00u1", "lockdown")
    assert (person.login, person.first_name, person.title, person.department, person.last_updated) == ("", "?x", "", "", None)
    assert person.to_bytes()


# -- find_active (D22) ------------------------------------------------------------------------------------------------


async def test_a_manager_is_found_by_id_and_by_full_login_only(org: Org) -> None:
    key = org.hire("bo+s@corp.example")
    find = org.directory.find_active
    for asked in (key, "bo+s@corp.example", "BO+S@corp.example"):
        found = await find("acme", asked, "provision")
        assert found is not None
        assert found.id == key
    assert await find("acme", "bo+s", "provision") is None, "a short name is no login, although Okta answers to it"
    assert await find("acme", "nobody@corp.example", "provision") is None
    assert await find("acme", "", "provision") is None


@pytest.mark.parametrize("status", ["SUSPENDED", "DEPROVISIONED", "STAGED", "LOCKED_OUT"])
async def test_only_the_active_inherit(org: Org, status: Any) -> None:
    org.okta.org.seed_user({"login": "boss@corp.example", "email": "", "firstName": "", "lastName": ""}, status=status)
    assert await org.directory.find_active("acme", "boss@corp.example", "provision") is None


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    "crafted", ["me", "ME", "../groups", "a/../b@c", "a?b@c", "a#b", "a%2fb@c", ".", "..", "a b@c", "\ud800@c", "x" * 300]
)
async def test_a_crafted_manager_is_nobody_and_reaches_no_url(org: Org, crafted: str) -> None:
    assert await org.directory.find_active("acme", crafted, "provision") is None
    assert org.paths == []


# -- groups and everybody ---------------------------------------------------------------------------------------------


async def test_members_are_read_over_all_pages(org: Org) -> None:
    keys = [org.hire(f"p{n}@corp.example", groups=("Big",)) for n in range(450)]
    group = org.okta.org.directory.now.group_named("Big")
    assert group is not None
    assert sorted(await org.directory.members("acme", group.id, "provision")) == sorted(keys)
    assert len(org.paths) == 3


async def test_everyone_is_read_over_all_pages_without_the_deprovisioned(org: Org) -> None:
    keys = {org.hire(f"p{n}@corp.example") for n in range(250)}
    gone = org.okta.org.seed_user({"login": "gone@corp.example", "email": "", "firstName": "", "lastName": ""}, status="DEPROVISIONED")
    found = {person.id for person in await org.directory.everyone("acme", "provision")}
    assert keys <= found
    assert gone.id not in found


def page(next_url: str | None, *ids: str) -> httpx.Response:
    links = [("link", f'<{BASE}/api/v1/groups/g/users?limit=200>; rel="self"')]
    links += [("link", f'<{next_url}>; rel="next"')] if next_url else []
    return httpx.Response(200, json=[{"id": key} for key in ids], headers=links)


async def test_a_listing_that_breaks_off_is_no_listing(clock: FakeClock) -> None:
    directory, _ = scripted(clock, page(f"{BASE}/api/v1/groups/g/users?after=1", "00u1"), okta_error(500, "E0000009"))
    with pytest.raises(TemporaryError):
        await directory.members("acme", "g", "provision")


async def test_pages_that_lead_away_or_in_a_circle_are_refused(clock: FakeClock) -> None:
    away, wire = scripted(clock, page("https://evil.example/api/v1/groups/g/users?after=1", "00u1"))
    with pytest.raises(PermanentError) as refused:
        await away.members("acme", "g", "provision")
    assert refused.value.code == "foreign_next"
    assert len(wire.requests) == 1
    here = f"{BASE}/api/v1/groups/g/users?after=1"
    circle, _ = scripted(clock, page(here, "00u1"), page(here, "00u2"))
    with pytest.raises(TemporaryError, match="circle"):
        await circle.members("acme", "g", "provision")


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"<html>", b'[{"id": "00u1"}'])
async def test_what_is_no_array_is_no_listing(clock: FakeClock, body: bytes) -> None:
    directory, _ = scripted(clock, httpx.Response(200, content=body))
    with pytest.raises(PortcullisError):
        await directory.members("acme", "g", "provision")


# -- who we are (D5) --------------------------------------------------------------------------------------------------


async def test_our_own_actor_is_the_tokens_owner(org: Org) -> None:
    owner = org.okta.org.directory.now.find("portcullis@corp.example")
    assert owner is not None
    assert await org.directory.own_actor("acme", "provision") == owner.id


async def test_a_service_app_signs_in_with_its_key_and_is_its_client_id(org: Org, clock: FakeClock) -> None:
    key = RSAKey.generate_key(2048, {"kid": "k1"})
    org.okta.add_app(ServiceApp("0oaPortcullis", KeySet([key]).as_dict(private=False), frozenset({"okta.users.read"})))
    person = org.hire("ada@corp.example")
    secret = SecretStr(json.dumps(key.as_dict(private=True)))
    clock.shift(time.time() - clock.now().timestamp())  # the assertion's times are checked against the simulator's clock
    auth = PrivateKeyJwt(clock, f"{org.okta.url}/oauth2/v1/token", "0oaPortcullis", lambda: secret, ("okta.users.read",))
    api = OktaApi(client(Wire(), clock, base=org.okta.url, auth=auth, transport=None), org.okta.url)
    directory = OktaDirectory({"acme": {"provision": api}}, {"acme": "0oaPortcullis"})
    assert await directory.own_actor("acme", "provision") == "0oaPortcullis"
    found = await directory.find_active("acme", person, "provision")
    assert found is not None
    assert found.login == "ada@corp.example"
    await directory.aclose()
