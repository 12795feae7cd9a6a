"""The sweep at a simulated Okta: who was missed is found, nobody is removed because a listing was short, and live work goes first."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, cast

import httpx
import pytest
from pydantic import SecretStr

from handlers import registry, source
from handlers.auth import StaticToken
from handlers.contract import Lane
from handlers.okta.api import OktaApi
from handlers.okta.directory import OktaDirectory
from model.change import Change, ChangeKind, Plan
from model.decision import Moment, Severity
from model.errors import Fenced, UnsafePlan
from model.person import Link, PersonStatus
from model.records import Knock, Order
from model.settings import Settings
from rules.policy import Policy
from simulators.okta import OktaSimulator
from simulators.okta.events import Caller, user_entity
from stream import topics
from stream.breakers import BreakerNews
from stream.house import House, build_roles
from stream.provision import ProvisionRole
from stream.sweep import BUSY, Sweep, Swept, state_key
from tests.handlers.contract_suite import Recorder
from tests.handlers.fakes import NOON, TENANT, swap
from tests.handlers.house import NOBODY
from tests.handlers.wire import Wire, client, limits
from tests.stream import memory
from tests.stream.fakes import World, make_command, settled, until, work
from tests.support.clock import FakeClock

pytestmark = pytest.mark.usefixtures("memory")

TOKEN = "00testToken"
LISTING = "/api/v1/users"
BEFORE = NOON - timedelta(days=1)


class Wired(Recorder):
    """`on_listing` is called before each page of the listing goes out, with the page's number."""

    on_listing: Callable[[int], None] = staticmethod(lambda page: None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == LISTING:
            self.on_listing(sum(one.url.path == LISTING for one in self.requests) + 1)
        return await super().handle_async_request(request)


class Company(World):
    """A world whose directory is a simulated Okta behind our real client."""

    def __init__(self, okta: OktaSimulator, **settings: Any) -> None:
        super().__init__(settings={"sweep_per_s": 50, "absence_pause_s": 60} | settings)
        self.org, self.faults, self.wire = okta.org, okta.faults, Wired()
        self.admin = Caller(user_entity(okta.admin))
        #: The admin and the owner of our token are people too.
        self.staff = list(okta.org.directory.now.users)
        lanes: tuple[Lane, ...] = ("lockdown", "provision")
        auth = StaticToken("SSWS", lambda: SecretStr(TOKEN))
        wide = {"transport": self.wire, "auth": auth, "base": okta.url}
        apis = {
            lane: OktaApi(client(Wire(), self.clock, **wide, limits=limits(self.clock, lane=lane, per_minute=10**7)), okta.url)  # type: ignore[arg-type]
            for lane in lanes
        }
        self.real = OktaDirectory({TENANT: apis})
        self.directory = cast(Any, self.real)

    @contextlib.asynccontextmanager
    async def provision(self, policy: Any = None) -> AsyncIterator[ProvisionRole]:
        """As stream.house wires it: closing is the lockdown lane's."""
        async with super().provision(policy) as role:
            assert role.engine is not None
            role.engine.closings = role.holds
            yield role

    def hire(self, name: str, status: Any = "ACTIVE") -> str:
        login = f"{name}@acme.test"
        profile = {"login": login, "email": login, "firstName": name, "lastName": "Doe", "department": "Sales"}
        key = self.org.seed_user(profile, status=status).id
        self.okta.add(login, id=key)
        return key

    def crowd(self, count: int) -> list[str]:
        return [self.hire(f"p{number}") for number in range(count)]

    def give_account(self, person: str) -> str:
        """An account at Box by a link that was made yesterday."""
        account = self.box.add(self.org.user(person).profile["login"])
        link = Link(tenant=TENANT, person=person, target="box", account=account, made_by="link:ann", at=BEFORE)
        self.log.put(topics.LINKS.name, topics.person_key(TENANT, person) + b":box", link.to_bytes())
        return account

    def forget(self, person: str) -> None:
        """Deleted at Okta, and no event of it reached us."""
        for _ in range(2):
            self.org.delete(self.admin, person)

    def listing(self, people: list[str]) -> dict[str, Any]:
        """The listing, as whole as Okta would have it, names these only."""
        body = [{"id": person, "status": "ACTIVE", "profile": {}} for person in people]
        return {"method": "GET", "path": LISTING, "body": body}

    def knocks(self, reason: str | None = None) -> list[Knock]:
        found = [Knock.from_bytes(record.value or b"") for record in self.log.of(topics.KNOCKS)]
        return [one for one in found if reason in (None, one.reason)]

    def orders(self) -> list[Order]:
        return [Order.from_bytes(record.value or b"") for record in self.log.of(topics.THREATS)]

    def count(self) -> bytes | None:
        return self.log.state(topics.COUNTS).get(TENANT)

    def last(self) -> Swept | None:
        value = self.log.state(topics.COUNTS).get(state_key(TENANT))
        return Swept.from_bytes(value) if value else None

    def gets(self, person: str) -> int:
        return sum(one.url.path == f"{LISTING}/{person}" for one in self.wire.requests)

    def sweep_of(self, role: ProvisionRole) -> Sweep:
        return Sweep(role, self.real, [TENANT], self.settings.safety, self.clock)


@pytest.fixture
async def okta() -> AsyncIterator[OktaSimulator]:
    okta = OktaSimulator(lag=0.0, clock=time.time, rng=random.Random(1))
    okta.add_token(TOKEN)
    await okta.start()
    yield okta
    await okta.stop()
    assert okta.crashes == []


@pytest.fixture
async def company(okta: OktaSimulator) -> AsyncIterator[Company]:
    company = Company(okta)
    yield company
    await company.real.aclose()


@contextlib.asynccontextmanager
async def working(role: ProvisionRole) -> AsyncIterator[None]:
    """The worker takes what comes, as it comes."""

    async def take() -> None:
        while True:
            await cast(memory.Worker, role.worker).deliver()
            await asyncio.sleep(0)

    task = asyncio.create_task(take())
    try:
        yield
        await until(lambda: not task.done() and _read_up(role))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await work(role)


def _read_up(role: ProvisionRole) -> bool:
    worker = cast(memory.Worker, role.worker)
    places = [(topic.name, partition) for topic in worker.topics for partition in worker.owned]
    return all(worker.log.committed[worker.group, *place] == len(worker.log.records[place]) for place in places)


async def swept(company: Company, role: ProvisionRole) -> None:
    async with working(role):
        await company.sweep_of(role).sweep(TENANT)


# --- what a good listing does ---------------------------------------------------------------------------------------------


async def test_who_was_missed_is_found_and_everybody_is_counted(company: Company) -> None:
    """No event of any of them ever came."""
    hired, left = company.hire("hired"), company.hire("left")
    suspended, staged = company.hire("suspended", "SUSPENDED"), company.hire("staged", "STAGED")
    for person in (left, suspended):
        company.give_account(person)
    company.org.deactivate(company.admin, left)
    async with company.provision() as role:
        await swept(company, role)
    assert company.count() == b"3", "who may hold open accounts: ourselves too, neither the suspended nor the staged"
    assert {one.person for one in company.knocks("sweep")} == {hired, left, suspended, staged, *company.staff}
    assert all(one.moment is Moment.MOVE for one in company.knocks("sweep"))
    assert [one.login for one in company.box.accounts.values() if ("folder", "Sales") in one.grants and one.active] == ["hired@acme.test"]
    assert {(one.kind, one.person) for one in company.orders()} == {("close", left), ("close", suspended)}, "closing has one lane"
    last = company.last()
    assert last is not None
    assert (last.size, last.active, last.refused) == (5, 3, None)
    assert last.done is not None


async def test_a_listing_of_several_pages_is_one_listing(company: Company) -> None:
    people = company.crowd(450)
    async with company.provision() as role:
        swap(role, "work", _nothing)
        await swept(company, role)
    assert company.count() == b"452"
    assert sorted(one.person for one in company.knocks("sweep")) == sorted([*people, *company.staff])


async def _nothing(*_: Any) -> None:
    """The looks are shown elsewhere."""


# --- a listing that says less than it seems ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [{"status": 503}, {"cut_body": True}, {"reset": True}, {"body": "<html>"}])
async def test_of_a_chain_of_pages_that_broke_nothing_is_concluded(company: Company, fault: dict[str, Any]) -> None:
    company.crowd(450)

    def spoil(page: int) -> None:
        if page == 3:
            company.faults.add({"method": "GET", "path": LISTING, "times": None, **fault})

    company.wire.on_listing = spoil
    async with company.provision() as role:
        sweep = company.sweep_of(role)
        await sweep.sweep(TENANT)
        await sweep.sweep(TENANT)
        await settled(role)
    assert (company.count(), company.knocks(), company.last()) == (None, [], None)
    (notice,) = company.log.notices("source")
    assert notice.severity is Severity.HIGH
    assert notice.remedy


async def test_a_short_listing_takes_nothing_from_anybody_until_a_human_says_that_it_is_true(company: Company) -> None:
    people = [*company.crowd(8), *company.staff]
    for person in people:
        company.give_account(person)
    async with company.provision() as role:
        await swept(company, role)
        before = len(company.knocks())
        sweep = company.sweep_of(role)
        for _ in range(2):
            company.faults.add(company.listing(people[:7]))
            await sweep.sweep(TENANT)
        assert len(company.knocks()) == before
        assert company.count() == b"10"
        (notice,) = company.log.notices("source")
        assert "7 people where the last good one named 10" in notice.text
        assert "portcullis brakes reset source:acme" in notice.remedy
        last = company.last()
        assert last is not None
        assert (last.size, last.refused) == (10, 7)
        await company.command("reset_brake", "", key=topics.person_key(TENANT, ""), brake=f"source:{TENANT}")
        await work(role)
        company.faults.add(company.listing(people[:7]))
        async with working(role):
            await sweep.sweep(TENANT)
    assert company.count() == b"7"
    assert company.knocks("absent") == [], "Okta knows them: the listing alone proves nothing"
    assert all(account.active for account in company.box.accounts.values())


async def test_an_empty_listing_is_never_believed(company: Company) -> None:
    company.crowd(2)
    company.faults.add(company.listing([]))
    async with company.provision() as role:
        await company.sweep_of(role).sweep(TENANT)
    assert (company.count(), company.knocks()) == (None, [])
    assert "empty" in company.log.notices("source")[0].text


def test_the_band_of_a_listing() -> None:
    assert source.doubt(0, None, 80)
    assert source.doubt(0, 0, 0)
    assert not source.doubt(1, None, 80)
    assert not source.doubt(80, 100, 80)
    assert source.doubt(79, 100, 80)
    assert not source.doubt(1, 100, 0)
    assert not source.doubt(1000, 100, 80)


# --- who is missing from a good one -----------------------------------------------------------------------------------------


async def test_who_is_missing_and_known_to_okta_is_not_absent(company: Company) -> None:
    people = company.crowd(10)
    for person in people:
        company.give_account(person)
    company.faults.add(company.listing(people[:9]))
    async with company.provision() as role:
        await swept(company, role)
    assert company.gets(people[9]) >= 1
    assert company.knocks("absent") == []
    assert all(account.active for account in company.box.accounts.values())
    (notice,) = company.log.notices("source")
    assert notice.text.startswith(f"{TENANT}: 1 people whom Okta knows were missing")


async def test_absent_is_who_two_direct_looks_with_a_pause_did_not_find(company: Company) -> None:
    people = company.crowd(10)
    gone = company.hire("gone")
    account = company.give_account(gone)
    company.forget(gone)
    asked: list[float] = []
    person = company.real.person

    async def noted(tenant: str, person_id: str, lane: Lane) -> Any:
        if person_id == gone:
            asked.append(company.clock.monotonic())
        return await person(tenant, person_id, lane)

    swap(company.real, "person", noted)
    async with company.lockdown() as closer, company.provision() as role:
        async with working(role):
            await company.sweep_of(role).sweep(TENANT)
        (knock,) = company.knocks("absent")
        assert (knock.person, knock.moment) == (gone, Moment.LEAVE)
        assert asked[1] - asked[0] >= 60
        await work(closer)
    assert not company.box.accounts[account].active
    assert sorted(one.person for one in company.knocks("sweep")) == sorted([*people, *company.staff])


@pytest.mark.parametrize("second", ["present", "unknown"])
async def test_a_single_404_proves_nobody_absent(company: Company, second: str) -> None:
    people = company.crowd(10)
    account = company.give_account(people[9])
    company.faults.add(company.listing(people[:9]))
    company.faults.add({"method": "GET", "path": f"{LISTING}/{people[9]}", "status": 404})
    if second == "unknown":
        company.faults.add({"method": "GET", "path": f"{LISTING}/{people[9]}", "status": 503, "times": None})
    async with company.provision() as role:
        await swept(company, role)
    assert company.gets(people[9]) == 2
    assert company.knocks("absent") == []
    assert company.box.accounts[account].active
    assert not company.orders()


async def test_who_joined_while_the_listing_was_read_is_not_suspected(company: Company) -> None:
    people = company.crowd(5)
    company.give_account(people[4])
    link = Link(tenant=TENANT, person=people[4], target="box", account="1", made_by="i", at=company.clock.now() + timedelta(seconds=1))
    company.log.put(topics.LINKS.name, topics.person_key(TENANT, people[4]) + b":box", link.to_bytes())
    company.faults.add(company.listing(people[:4]))
    async with company.provision() as role:
        swap(role, "work", _nothing)
        await swept(company, role)
    assert company.gets(people[4]) == 0
    assert company.log.notices("source") == []


# --- the count, for the brakes' percentages ---------------------------------------------------------------------------------


async def test_percentages_of_the_removal_brake_are_of_the_people_that_the_sweep_counted(company: Company) -> None:
    company.crowd(98)

    def leave(number: int) -> Plan:
        change = Change(kind=ChangeKind.DEACTIVATE, target="box", account=str(number))
        return Plan(tenant=TENANT, person=f"00u{number}", target="box", changes=(change,))

    async with company.provision() as role:
        swap(role, "work", _nothing)
        await swept(company, role)
        for number in range(5):
            await role.removals.allow(leave(number), 1)
        with pytest.raises(UnsafePlan):
            await role.removals.allow(leave(5), 1)  # six of a hundred are more than five percent; 25 people would be the count's limit


# --- pace, ownership, time --------------------------------------------------------------------------------------------------


async def test_so_many_a_second_and_none_while_live_work_waits(okta: OktaSimulator) -> None:
    company = Company(okta, sweep_per_s=4)
    company.crowd(18)
    async with company.provision() as role:
        swap(role, "work", _nothing)
        began = company.clock.monotonic()
        backlog = BUSY + 1
        for number in range(backlog):
            await company.knock(f"00ulive{number}", uuid=None)
        sweep = asyncio.create_task(company.sweep_of(role).sweep(TENANT))
        await until(lambda: company.clock.monotonic() - began > 30)
        assert company.knocks("sweep") == [], "somebody's own event waits"
        async with working(role):
            began = company.clock.monotonic()
            await sweep
        assert company.clock.monotonic() - began >= 19 / 4
        assert len(company.knocks("sweep")) == 20
    await company.real.aclose()


class Stub:
    """A directory without a network, for the tests of time."""

    def __init__(self) -> None:
        self.listed = 0

    async def statuses(self, tenant: str, lane: Lane) -> dict[str, PersonStatus]:
        self.listed += 1
        return {"00u1": PersonStatus.ACTIVE}

    async def person(self, tenant: str, person_id: str, lane: Lane) -> Any:
        raise AssertionError("nobody is missing")


@contextlib.asynccontextmanager
async def ticking(owned: set[int] | None = None) -> AsyncIterator[tuple[World, ProvisionRole, Stub]]:
    world = World(settings={"sweep_every_s": 3600, "sweep_after_s": 60, "sweep_per_s": 50})
    world.clock = FakeClock(NOON, auto=False)
    async with world.provision() as role:
        swap(role, "work", _nothing)
        if owned is not None:
            swap(role.worker, "owned", owned)
        stub = Stub()
        task = asyncio.create_task(Sweep(role, cast(Any, stub), [TENANT], world.settings.safety, world.clock).run_forever())
        try:
            yield world, role, stub
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def pass_(world: World, role: ProvisionRole, seconds: float) -> None:
    for _ in range(int(seconds)):
        await world.clock.advance(1)
        await work(role)


async def test_the_first_comes_soon_after_the_start_and_then_one_a_period() -> None:
    async with ticking() as (world, role, stub):
        await pass_(world, role, 55)
        assert stub.listed == 0
        await pass_(world, role, 20)
        assert stub.listed == 1
        await pass_(world, role, 3500)
        assert stub.listed == 1
        await pass_(world, role, 130)
        assert stub.listed == 2


async def test_a_tenant_is_swept_by_the_worker_that_owns_it() -> None:
    async with ticking(owned=set()) as (world, role, stub):
        await pass_(world, role, 200)
        assert stub.listed == 0
        swap(role.worker, "owned", {0, 1, 2, 3})
        await pass_(world, role, 10)
        assert stub.listed == 1


async def test_what_another_worker_has_swept_meanwhile_is_not_swept_again() -> None:
    async with ticking(owned=set()) as (world, role, stub):
        await pass_(world, role, 100)
        done = Swept(size=1, active=1, at=world.clock.now(), done=world.clock.now())
        await world.log.append(topics.COUNTS.name, state_key(TENANT).encode(), done.to_bytes())
        swap(role.worker, "owned", {0, 1, 2, 3})
        await pass_(world, role, 3500)
        assert stub.listed == 0
        await pass_(world, role, 200)
        assert stub.listed == 1


async def test_a_sweep_whose_tenant_went_away_ends_and_says_nothing(company: Company) -> None:
    company.crowd(20)
    async with company.provision() as role:
        swap(role, "work", _nothing)

        def revoked(record: memory.Record) -> None:
            if len(company.knocks("sweep")) == 3:
                swap(role.worker, "owned", set())

        company.log.on_write = revoked
        with pytest.raises(Fenced, match="goes on at another worker"):
            await company.sweep_of(role).sweep(TENANT)
        assert len(company.knocks("sweep")) == 3
        last = company.last()
        assert last is not None
        assert last.done is None, "whoever has it now begins anew"


async def test_only_its_own_tenants_source_is_reset() -> None:
    world = World()
    other = Swept(size=5, active=5, at=NOON, refused=1, refused_at=NOON)
    for tenant in (TENANT, "other"):
        world.log.put(topics.COUNTS.name, state_key(tenant).encode(), other.to_bytes())
    async with world.provision() as role:
        command = make_command("reset_brake", "", brake="source:other")  # signed for acme
        await world.log.append(topics.COMMANDS.name, topics.person_key(TENANT, ""), command.to_bytes())
        await work(role)
    assert set(world.log.state(topics.COUNTS)) == {state_key(TENANT), state_key("other")}


@pytest.mark.parametrize(("every", "runs"), [(3600, True), (0, False)])
async def test_the_provision_role_has_a_sweep_beside_it_unless_it_is_switched_off(every: float, runs: bool) -> None:
    settings = Settings.model_validate(
        {"okta": {TENANT: {"url": "https://acme.okta.com", "token_env": "T"}}, "safety": {"sweep_every_s": every}}
    )
    world = World()
    house = House(settings, cast(Any, world.log), world.clock, [], {}, NOBODY, BreakerNews(world.clock, lambda name: ()))
    house.directory, house.targets = registry.build_directory(settings, world.clock), {}
    (role,) = build_roles(house, ["provision"], Policy.load()).values()
    assert isinstance(role, ProvisionRole)
    assert ("Sweep.run_forever" in [getattr(one, "__qualname__", "") for one in role.beside]) is runs
    await house.close()
