"""What every target must do, whatever the vendor: a test class of a target inherits this and fills `world` (design: one suite for all).

A world is a simulated vendor with our real client in front of it. Nothing here knows a vendor's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import httpx
import pytest

from handlers.contract import Capability, Lane, Target
from model.change import Change, ChangeKind
from model.decision import Scope
from model.errors import CredentialsRefused, OutcomeUnknown, PermanentError, PortcullisError, RateLimited, Refused, TemporaryError
from model.person import Account, Person, PersonStatus

CRAFTED = ["", "../users", "1/../2", "1?x=1", "1#x", "%2e%2e%2f", "1%2f2", "me", "a b", "1\n2", "é", "1;2", "x" * 200, "\ud800"]
LANES: tuple[Lane, ...] = ("lockdown", "provision")


class Recorder(httpx.AsyncBaseTransport):
    """The real transport, with every request noted."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class World(Protocol):
    """A vendor with people in it. `recorder` sees what our clients send."""

    @property
    def target(self) -> Target: ...
    @property
    def recorder(self) -> Recorder: ...
    @property
    def permissions(self) -> Mapping[Capability, str]: ...

    def person(self, login: str) -> Person:
        """Somebody whom the directory knows; whether they have an account is `give_account`'s business."""

    def give_account(self, person: Person) -> str: ...
    def give_lookalike(self, person: Person) -> None:
        """An account that a careless search would take for the person's."""

    def drop_account(self, account_id: str) -> None: ...
    def is_open(self, account_id: str) -> bool: ...
    def live_sessions(self, account_id: str) -> int: ...
    def meddle(self, account_id: str) -> None:
        """A human opens the account again by hand."""

    def order(self, **fault: Any) -> None: ...
    def calls(self) -> list[dict[str, Any]]: ...


def tokens(request: httpx.Request) -> bool:
    return request.url.path.endswith("/token")


async def seen(world: World, person: Person, lane: Lane = "provision") -> Account:
    observation = await world.target.observe(person, None, lane)
    assert observation.account is not None
    return observation.account


async def close(world: World, account: Account, scope: Scope = Scope.FULL) -> list[bool]:
    """Applies the closing plan; for each change whether it was so already."""
    applied = [await world.target.apply(change, f"i-{at}", "lockdown") for at, change in enumerate(world.target.closing(account, scope))]
    return [one.already for one in applied]


class TargetContract:
    """Inherit, and give a fixture `world`."""

    # -- looking --------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("lane", LANES)
    async def test_nobody_there_is_no_account_and_no_candidate(self, world: World, lane: Lane) -> None:
        observation = await world.target.observe(world.person("nobody@corp.example"), None, lane)
        assert (observation.account, observation.candidates, observation.is_ambiguous) == (None, (), False)

    @pytest.mark.parametrize("lane", LANES)
    async def test_the_exact_account_is_found(self, world: World, lane: Lane) -> None:
        person = world.person("ada@corp.example")
        account_id = world.give_account(person)
        account = await seen(world, person, lane)
        assert (account.id, account.target, account.login, account.active) == (account_id, world.target.name, "ada@corp.example", True)
        assert await world.target.look(account_id, lane) == account

    async def test_a_lookalike_is_not_taken_for_somebody(self, world: World) -> None:
        person = world.person("ada@corp.example")
        world.give_lookalike(person)
        assert (await world.target.observe(person, None, "provision")).account is None
        account_id = world.give_account(person)
        assert (await seen(world, person)).id == account_id

    async def test_an_account_that_is_gone_is_none(self, world: World) -> None:
        person = world.person("ada@corp.example")
        account_id = world.give_account(person)
        world.drop_account(account_id)
        assert await world.target.look(account_id, "lockdown") is None

    async def test_lockdown_looks_once(self, world: World) -> None:
        person = world.person("ada@corp.example")
        account_id = world.give_account(person)
        await world.target.look(account_id, "lockdown")
        before = len(world.recorder.requests)
        await world.target.look(account_id, "lockdown")
        assert len(world.recorder.requests) == before + 1

    @pytest.mark.fault(22)
    @pytest.mark.parametrize("crafted", CRAFTED)
    async def test_a_crafted_id_never_becomes_a_url(self, world: World, crafted: str) -> None:
        for kind in (ChangeKind.DEACTIVATE, ChangeKind.ACTIVATE, ChangeKind.END_SESSIONS):
            change = Change.model_construct(kind=kind, target=world.target.name, account=crafted, subject="", args={}, before={}, after={})
            with pytest.raises(PermanentError):
                await world.target.apply(change, "i-1", "lockdown")
        with pytest.raises(PermanentError):
            await world.target.look(crafted, "lockdown")
        assert [request for request in world.recorder.requests if not tokens(request)] == []

    # -- closing and restoring ------------------------------------------------------------------------------------------

    async def test_closing_shuts_the_account_and_ends_its_sessions(self, world: World) -> None:
        account_id = world.give_account(person := world.person("ada@corp.example"))
        account = await seen(world, person, "lockdown")
        assert world.live_sessions(account_id) > 0
        changes = world.target.closing(account, Scope.FULL)
        assert [change.kind for change in changes] == [ChangeKind.DEACTIVATE, ChangeKind.END_SESSIONS]
        await close(world, account)
        assert (world.is_open(account_id), world.live_sessions(account_id)) == (False, 0)
        after = await world.target.look(account_id, "lockdown")
        assert after is not None
        assert not after.active

    async def test_scope_sessions_suspends_nobody(self, world: World) -> None:
        account_id = world.give_account(person := world.person("ada@corp.example"))
        account = await seen(world, person, "lockdown")
        assert [change.kind for change in world.target.closing(account, Scope.SESSIONS)] == [ChangeKind.END_SESSIONS]
        await close(world, account, Scope.SESSIONS)
        assert (world.is_open(account_id), world.live_sessions(account_id)) == (True, 0)

    async def test_closing_again_is_success_and_changes_nothing(self, world: World) -> None:
        account_id = world.give_account(person := world.person("ada@corp.example"))
        await close(world, await seen(world, person, "lockdown"))
        done = len(world.calls())
        again = await close(world, await seen(world, person, "lockdown"))
        assert again[0], "an account that is shut already is told as already shut"
        assert [call["changed"] for call in world.calls()[done:]] == [False] * (len(world.calls()) - done)
        assert not world.is_open(account_id)

    @pytest.mark.fault(36)
    async def test_closing_what_is_gone_is_success(self, world: World) -> None:
        account_id = world.give_account(person := world.person("ada@corp.example"))
        account = await seen(world, person, "lockdown")
        world.drop_account(account_id)
        assert await close(world, account) == [True, True]

    async def test_an_unseen_account_can_be_closed_by_its_id_alone(self, world: World) -> None:
        """The look failed and the id is known: act anyway (D14)."""
        account_id = world.give_account(world.person("ada@corp.example"))
        unseen = Account(target=world.target.name, id=account_id, login="", active=True, status="unknown")
        await close(world, unseen)
        assert (world.is_open(account_id), world.live_sessions(account_id)) == (False, 0)

    async def test_restoring_brings_back_what_was(self, world: World) -> None:
        account_id = world.give_account(person := world.person("ada@corp.example"))
        before = await seen(world, person, "lockdown")
        saved = world.target.saved(before)
        await close(world, before)
        shut = await world.target.look(account_id, "lockdown")
        assert shut is not None
        for change in world.target.restoring(shut, saved):
            assert change.kind is ChangeKind.ACTIVATE
            await world.target.apply(change, "i-restore", "lockdown")
        restored = await world.target.look(account_id, "lockdown")
        assert restored is not None
        assert (restored.active, restored.status) == (True, before.status)

    async def test_restoring_leaves_alone_what_changed_since(self, world: World) -> None:
        account_id = world.give_account(person := world.person("ada@corp.example"))
        before = await seen(world, person, "lockdown")
        saved = world.target.saved(before)
        await close(world, before)
        world.meddle(account_id)
        now = await world.target.look(account_id, "lockdown")
        assert now is not None
        assert world.target.restoring(now, saved) == ()

    async def test_what_was_shut_before_stays_shut_after_release(self, world: World) -> None:
        account_id = world.give_account(person := world.person("ada@corp.example"))
        await close(world, await seen(world, person, "lockdown"))
        shut = await seen(world, person, "lockdown")
        saved = world.target.saved(shut)
        await close(world, shut)
        assert world.target.restoring(shut, saved) == ()
        assert not world.is_open(account_id)

    # -- the wire -------------------------------------------------------------------------------------------------------

    async def test_every_mutating_call_carries_its_intent(self, world: World) -> None:
        world.give_account(person := world.person("ada@corp.example"))
        await close(world, await seen(world, person, "lockdown"))
        assert [call["intent"] for call in world.calls()] == ["i-0", "i-1"]

    @pytest.mark.fault(35)
    async def test_a_call_that_took_effect_without_an_answer_is_unknown(self, world: World) -> None:
        account_id = world.give_account(person := world.person("ada@corp.example"))
        account = await seen(world, person, "lockdown")
        suspend = world.target.closing(account, Scope.FULL)[0]
        world.order(method="*", reset=True, when="after")
        with pytest.raises(OutcomeUnknown):
            await world.target.apply(suspend, "i-1", "lockdown")
        now = await world.target.look(account_id, "lockdown")
        assert now is not None
        assert not now.active, "the read-back shows it"

    @pytest.mark.parametrize(
        ("fault", "reading", "writing"),
        [
            ({"status": 503}, TemporaryError, OutcomeUnknown),
            ({"status": 500}, TemporaryError, OutcomeUnknown),
            ({"status": 429}, RateLimited, RateLimited),
            ({"status": 401}, CredentialsRefused, CredentialsRefused),
            ({"status": 403}, Refused, Refused),
            ({"status": 404, "body": "<html>not here</html>", "headers": {"content-type": "text/html"}}, TemporaryError, TemporaryError),
            ({"status": 200, "body": "<html>sign in</html>", "headers": {"content-type": "text/html"}}, TemporaryError, OutcomeUnknown),
            ({"status": 302, "headers": {"location": "http://127.0.0.1:1/"}}, TemporaryError, TemporaryError),
            ({"hang": True}, TemporaryError, OutcomeUnknown),
        ],
        ids=lambda value: str(value)[:40] if isinstance(value, dict) else value.__name__,
    )
    async def test_a_vendors_trouble_is_told_in_our_words(
        self, world: World, fault: dict[str, Any], reading: type[PortcullisError], writing: type[PortcullisError]
    ) -> None:
        account_id = world.give_account(person := world.person("ada@corp.example"))
        account = await seen(world, person, "lockdown")
        suspend = world.target.closing(account, Scope.FULL)[0]
        method = world.recorder.requests[-1].method
        world.order(method=method, times=2, **fault)
        with pytest.raises(reading) as raised:
            await world.target.look(account_id, "lockdown")
        assert isinstance(raised.value, OutcomeUnknown) is False
        world.order(method="*", times=4, **fault)
        with pytest.raises(writing) as written:
            await world.target.apply(suspend, "i-1", "provision")  # the lanes' breakers are apart
        assert isinstance(written.value, OutcomeUnknown) is (writing is OutcomeUnknown)

    # -- declarations ---------------------------------------------------------------------------------------------------

    def test_each_capability_names_its_permission(self, world: World) -> None:
        assert set(world.permissions) == set(world.target.capabilities)
        assert all(world.permissions.values())

    async def test_what_it_cannot_do_is_refused_before_anything_is_sent(self, world: World) -> None:
        change = Change(kind=ChangeKind.NOTIFY, target=world.target.name, account="1")
        with pytest.raises(PermanentError) as refused:
            await world.target.apply(change, "i-1", "provision")
        assert refused.value.code == "not_supported"
        assert world.recorder.requests == []

    def test_people_who_are_present_and_gone(self) -> None:
        assert not any(status.is_present and status.is_gone for status in PersonStatus)
