"""The guard by itself: whatever the plan, what comes out is safe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.contract import Observation
from handlers.guard import TAKING, Guard, whose
from handlers.plan import FORBIDDEN_UNDER_HOLD, make_plan
from handlers.protected import ProtectedList
from model.change import OPENING, REMOVING, Change, ChangeKind, Plan
from model.errors import Ambiguous, TemporaryError, UnsafePlan
from model.person import Account
from tests.handlers.fakes import TENANT, FakeBrake, FakeHolds, FakeLinks, hold
from tests.handlers.house import NOBODY

CHANGES = st.lists(
    st.builds(Change, kind=st.sampled_from(list(ChangeKind)), target=st.just("box"), account=st.just("1"), subject=st.sampled_from("abc")),
    max_size=8,
)
SEEN = Observation(Account(target="box", id="1", login="a", active=True, status="active"), linked=True)


def plan(changes: list[Change], person: str = "00u1") -> Plan:
    return make_plan(TENANT, person, "box", changes, SEEN.account)


def guard(holds: FakeHolds | None = None, protected: ProtectedList = NOBODY, brake: FakeBrake | None = None) -> Guard:
    return Guard(protected, holds or FakeHolds(), FakeLinks(), brake or FakeBrake())


def one(kind: ChangeKind) -> Plan:
    return plan([Change(kind=kind, target="box", account="1", subject="a")])


@given(CHANGES, st.booleans())
async def test_under_a_hold_nothing_that_opens_or_cannot_be_undone_comes_out(changes: list[Change], by_account: bool) -> None:
    book = FakeHolds()
    book.holds["h1"] = hold(person="00uother" if by_account else "00u1", accounts=(("box", "1"),) if by_account else ())
    before = plan(changes)
    found = await guard(book).check(before, SEEN)
    assert not {change.kind for change in found.plan.changes} & FORBIDDEN_UNDER_HOLD
    assert sorted([*found.plan.changes, *found.withheld], key=before.changes.index) == list(before.changes)
    assert [one.id for one in found.holds] == ["h1"]


@given(CHANGES)
async def test_without_a_hold_a_plan_comes_out_as_it_went_in(changes: list[Change]) -> None:
    before = plan(changes)
    found = await guard().check(before, SEEN)
    assert (found.plan, found.withheld, found.holds) == (before, (), ())


@given(CHANGES)
async def test_protected_people_lose_nothing_whatever_the_plan(changes: list[Change]) -> None:
    protected = NOBODY.with_own([(TENANT, "00u1")])
    if {change.kind for change in changes} & TAKING:
        with pytest.raises(UnsafePlan) as error:
            await guard(protected=protected).check(plan(changes), SEEN)
        assert error.value.code == "protected"
    else:
        await guard(protected=protected).check(plan(changes), SEEN)


@given(CHANGES)
async def test_the_brake_hears_of_every_plan_that_removes_and_of_no_other(changes: list[Change]) -> None:
    brake = FakeBrake()
    await guard(brake=brake).check(plan(changes), SEEN)
    assert bool(brake.asked) == bool({change.kind for change in changes} & REMOVING)


async def test_a_preview_does_not_count_for_the_brake() -> None:
    brake = FakeBrake()
    brake.tripped = True
    await guard(brake=brake).check(one(ChangeKind.REVOKE), SEEN, count=False)
    with pytest.raises(UnsafePlan, match="25 removals"):
        await guard(brake=brake).check(one(ChangeKind.REVOKE), SEEN)


@pytest.mark.parametrize("kind", sorted(OPENING))
async def test_an_unlinked_account_is_not_opened(kind: ChangeKind) -> None:
    unlinked = Observation(SEEN.account)
    with pytest.raises(Ambiguous) as error:
        await guard().check(one(kind), unlinked)
    assert error.value.code == "unlinked"
    await guard().check(one(ChangeKind.REVOKE), unlinked)


async def test_holds_that_cannot_be_read_let_nothing_through() -> None:
    book = FakeHolds()
    book.dead = True
    with pytest.raises(TemporaryError):
        await guard(book).check(one(ChangeKind.REVOKE), SEEN)
    with pytest.raises(TemporaryError):
        await guard(book).nothing_held(TENANT, "00u1", "box", "1")


@pytest.mark.parametrize(
    ("observation", "code"),
    [(Observation(None, ("1", "2")), "several"), (Observation(SEEN.account), "linked_elsewhere"), (SEEN, ""), (Observation(None), "")],
)
async def test_whose_an_account_is(observation: Observation, code: str) -> None:
    links = FakeLinks()
    links.link("00uother", "1")
    if not code:
        await whose(links, TENANT, "00u1", "box", observation)
        return
    with pytest.raises(Ambiguous) as error:
        await whose(links, TENANT, "00u1", "box", observation)
    assert error.value.code == code


async def test_an_account_linked_for_the_same_id_of_another_tenant_is_somebody_elses() -> None:
    links = FakeLinks()
    links.link("00u1", "1", tenant="other")
    with pytest.raises(Ambiguous):
        await whose(links, TENANT, "00u1", "box", Observation(SEEN.account))
