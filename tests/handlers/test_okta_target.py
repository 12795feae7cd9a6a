"""Okta as a target: the contract, and what is Okta's own (it suspends only ACTIVE users, D16)."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from handlers.auth import StaticToken
from handlers.contract import Capability
from handlers.okta.api import OktaApi
from handlers.okta.target import PERMISSIONS, OktaTarget
from model.change import ChangeKind
from model.decision import Scope
from model.errors import Refused, TemporaryError
from model.person import Account, Desired, Person, PersonStatus
from simulators.okta import OktaSimulator
from tests.handlers.contract_suite import LANES, Recorder, TargetContract, close, seen
from tests.handlers.wire import Wire, client, limits, okta_error
from tests.support.canary import Canaries
from tests.support.clock import FakeClock


class OktaWorld:
    """One simulated org without lag; an account is a user, so giving one is what makes the person exist."""

    permissions: dict[Capability, str] = PERMISSIONS

    def __init__(self, okta: OktaSimulator, clock: FakeClock, token: str) -> None:
        self.okta, self.recorder = okta, Recorder()
        auth = StaticToken("SSWS", lambda: SecretStr(token))
        apis = {
            lane: OktaApi(
                client(
                    Wire(),
                    clock,
                    base=okta.url,
                    auth=auth,
                    transport=self.recorder,
                    timeout_s=0.3,
                    limits=limits(clock, lane=lane, per_minute=6000),
                ),
                okta.url,
            )
            for lane in LANES
        }
        self.target = OktaTarget("okta", "acme", apis)

    def person(self, login: str, tenant: str = "acme") -> Person:
        return Person(
            tenant=tenant, id="00u" + login.partition("@")[0].ljust(17, "0"), status=PersonStatus.ACTIVE, login=login, email=login
        )

    def give_account(self, person: Person, status: Any = "ACTIVE") -> str:
        profile = {"login": person.login, "email": person.login, "firstName": "A", "lastName": "B"}
        self.okta.org.seed_user(profile, user_id=person.id, status=status)
        self.okta.org.directory.seed(lambda view: view.put_sessions(person.id, ("s1", "s2")))
        return person.id

    def give_lookalike(self, person: Person) -> None:
        self.give_account(self.person("x" + person.login))

    def drop_account(self, account_id: str) -> None:
        self.okta.org.directory.seed(lambda view: view.drop_user(account_id))

    def is_open(self, account_id: str) -> bool:
        return self.okta.org.user(account_id).status == "ACTIVE"

    def live_sessions(self, account_id: str) -> int:
        return len(self.okta.org.directory.now.sessions.get(account_id, ()))

    def meddle(self, account_id: str) -> None:
        self.okta.acts.do({"action": "unsuspend", "id": account_id})
        self.okta.acts.do({"action": "deactivate", "id": account_id})

    def order(self, **fault: Any) -> None:
        self.okta.faults.add(fault)

    def calls(self) -> list[dict[str, Any]]:
        return self.okta.calls.after(0)


@pytest.fixture
async def world(clock: FakeClock, canary: Canaries) -> AsyncIterator[OktaWorld]:
    okta = OktaSimulator(lag=0.0, clock=time.time, rng=random.Random(1))
    okta.add_token(canary("okta-token"))
    await okta.start()
    world = OktaWorld(okta, clock, canary("okta-token"))
    yield world
    await world.target.aclose()
    await okta.stop()
    assert okta.crashes == []


class TestContract(TargetContract):
    pass


@pytest.mark.parametrize(
    ("status", "ends"),
    [
        ("SUSPENDED", "already"),
        ("DEPROVISIONED", "already"),
        ("STAGED", "again"),
        ("PROVISIONED", "again"),
        ("RECOVERY", "again"),
        ("PASSWORD_EXPIRED", "again"),
        ("LOCKED_OUT", "again"),
    ],
)
async def test_okta_suspends_only_the_active_and_the_rest_is_told_as_it_is(world: OktaWorld, status: str, ends: str) -> None:
    account_id = world.give_account(person := world.person("ada@corp.example"), status)
    suspend, sessions = world.target.closing(await seen(world, person, "lockdown"), Scope.FULL)
    if ends == "already":
        applied = await world.target.apply(suspend, "i-1", "lockdown")
        assert (applied.already, applied.after) == (True, {"status": status})
    else:
        with pytest.raises(TemporaryError, match=status):
            await world.target.apply(suspend, "i-1", "lockdown")
    await world.target.apply(sessions, "i-2", "lockdown")
    assert world.live_sessions(account_id) == 0


async def test_ending_sessions_revokes_oauth_tokens_too(world: OktaWorld) -> None:
    account_id = world.give_account(person := world.person("ada@corp.example"))
    world.okta.org.directory.seed(lambda view: view.put_tokens(account_id, ("t1",)))
    await close(world, await seen(world, person, "lockdown"), Scope.SESSIONS)
    assert world.okta.org.directory.now.tokens.get(account_id, ()) == ()


async def test_a_lag_that_still_shows_active_is_looked_at_again_and_not_parked(clock: FakeClock) -> None:
    """Suspended a moment ago by somebody else: the 400 is right and the GET is stale."""
    wire = Wire(okta_error(400, "E0000001"), lambda request: _user(request, "ACTIVE"))
    target = OktaTarget("okta", "acme", {"lockdown": OktaApi(client(wire, clock), "http://127.0.0.1:9")})
    change = target.closing(Account(target="okta", id="00u1", login="a", active=True, status="ACTIVE"), Scope.FULL)[0]
    with pytest.raises(TemporaryError, match="now ACTIVE"):
        await target.apply(change, "i", "lockdown")


async def test_no_permission_is_told_at_once(clock: FakeClock) -> None:
    wire = Wire(okta_error(403, "E0000006"))
    target = OktaTarget("okta", "acme", {"lockdown": OktaApi(client(wire, clock), "http://127.0.0.1:9")})
    change = target.closing(Account(target="okta", id="00u1", login="a", active=True, status="ACTIVE"), Scope.FULL)[0]
    with pytest.raises(Refused):
        await target.apply(change, "i", "lockdown")


@pytest.mark.parametrize("status", ["DEPROVISIONED", "ACTIVE"])
async def test_only_what_was_active_and_is_suspended_is_restored(world: OktaWorld, status: str) -> None:
    world.give_account(person := world.person("ada@corp.example"), status)
    account = await seen(world, person, "lockdown")
    assert world.target.restoring(account, {"status": "ACTIVE"}) == ()
    suspended = account.model_copy(update={"status": "SUSPENDED"})
    assert world.target.restoring(suspended, {"status": "LOCKED_OUT"}) == ()
    assert [change.kind for change in world.target.restoring(suspended, {"status": "ACTIVE"})] == [ChangeKind.ACTIVATE]


async def test_restoring_twice_is_success(world: OktaWorld) -> None:
    world.give_account(person := world.person("ada@corp.example"))
    account = await seen(world, person, "lockdown")
    await close(world, account)
    suspended = await seen(world, person, "lockdown")
    restore = world.target.restoring(suspended, world.target.saved(account))[0]
    assert (await world.target.apply(restore, "i-1", "lockdown")).already is False
    assert (await world.target.apply(restore, "i-2", "lockdown")).already is True


async def test_people_of_other_tenants_have_no_account_here(world: OktaWorld) -> None:
    world.give_account(world.person("ada@corp.example"))
    other = world.person("ada@corp.example", tenant="other")
    assert (await world.target.observe(other, None, "provision")).account is None
    assert world.recorder.requests == []


def test_policy_changes_nothing_at_okta(world: OktaWorld) -> None:
    person = world.person("ada@corp.example")
    assert world.target.changes(Desired(target="okta", active=False), None, person) == ()


async def test_an_answer_about_somebody_else_is_refused(clock: FakeClock) -> None:
    wire = Wire(lambda request: _user(request, "ACTIVE", "00uOther"))
    target = OktaTarget("okta", "acme", {"lockdown": OktaApi(client(wire, clock), "http://127.0.0.1:9")})
    with pytest.raises(Exception, match="somebody else"):
        await target.look("00u1", "lockdown")


def _user(request: Any, status: str, user_id: str = "00u1") -> Any:
    return httpx.Response(200, json={"id": user_id, "status": status, "profile": {"login": "ada@corp.example"}})
