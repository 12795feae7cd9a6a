"""The plan: order, hash, and that applying it reaches what was wanted."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handlers.plan import fingerprint, make_plan, opens, removes, without
from model.change import REMOVING, STAGE, Change, ChangeKind
from model.person import Account, Desired, Grant
from tests.handlers.fakes import FakeJournal, FakeTarget, State, person

NAMES = st.sampled_from(["Sales", "Finance", "Company", "Projects"])
GRANTS = st.dictionaries(st.tuples(st.sampled_from(["group", "folder"]), NAMES), st.sampled_from(["viewer", "editor"]), max_size=5)
STATES = st.none() | st.builds(
    State, login=st.just("00u1@acme.test"), active=st.booleans(), attributes=st.just({"space_amount": 1}), grants=GRANTS
)
MANAGED = tuple((kind, name) for kind in ("folder", "group") for name in ("Company", "Finance", "Sales"))
CHANGES = st.builds(
    Change,
    kind=st.sampled_from(list(ChangeKind)),
    target=st.just("box"),
    account=st.sampled_from(["", "1", "2"]),
    subject=st.text(max_size=5),
    args=st.dictionaries(st.sampled_from("ab"), st.integers(0, 3), max_size=2),
)


def change(kind: ChangeKind, subject: str = "x") -> Change:
    return Change(kind=kind, target="box", account="1", subject=subject)


def account(**facts: Any) -> Account:
    return Account.model_validate({"target": "box", "id": "1", "login": "a", "active": True, "status": "active"} | facts)


@st.composite
def wishes(draw: st.DrawFn) -> Desired:
    grants = draw(st.dictionaries(st.sampled_from(MANAGED), st.sampled_from(["viewer", "editor"]), max_size=4))
    active = draw(st.booleans())
    return Desired(
        target="box",
        active=active,
        attributes={"space_amount": draw(st.integers(1, 3))} if active else {},
        grants=tuple(Grant(kind=kind, name=name, level=level) for (kind, name), level in grants.items()) if active else (),
        managed=MANAGED,
    )


@given(st.lists(CHANGES, max_size=12), st.randoms(use_true_random=False))
def test_order_is_by_stage_and_no_listing_order_moves_it(changes: list[Change], chance: random.Random) -> None:
    plan = make_plan("acme", "00u1", "box", changes, None)
    assert [one.stage for one in plan.changes] == sorted(one.stage for one in plan.changes)
    shuffled = changes * 2
    chance.shuffle(shuffled)
    again = make_plan("acme", "00u1", "box", shuffled, None)
    assert again == plan
    assert again.hash == plan.hash


@given(STATES, wishes())
async def test_applying_a_plan_reaches_what_was_wanted_and_then_the_plan_is_empty(state: State | None, wish: Desired) -> None:
    journal = FakeJournal()
    target = FakeTarget("box", journal)
    if state is not None:
        target.accounts["1"] = state
    unmanaged = {key: level for key, level in (state.grants if state else {}).items() if key not in MANAGED}
    for _ in range(2):
        seen = (await target.observe(person(), None, "provision")).account
        plan = make_plan("acme", "00u1", "box", target.changes(wish, seen, person()), seen)
        created = seen.id if seen else ""
        for one in plan.changes:
            applied = target._effect(one if one.account else one.model_copy(update={"account": created}), "i", "provision")
            created = applied.account
    seen = (await target.observe(person(), None, "provision")).account
    assert target.changes(wish, seen, person()) == ()
    if seen is None:
        assert not wish.active
        return
    held = {(one.kind, one.name): one.level for one in seen.grants}
    assert seen.active == wish.active
    assert {key: level for key, level in held.items() if key in MANAGED} == {(one.kind, one.name): one.level for one in wish.grants}
    assert {key: level for key, level in held.items() if key not in MANAGED} == unmanaged


def test_taking_away_stands_before_giving_and_creating_before_granting() -> None:
    kinds = [ChangeKind.GRANT, ChangeKind.CREATE, ChangeKind.REVOKE, ChangeKind.END_SESSIONS, ChangeKind.TRANSFER, ChangeKind.DEACTIVATE]
    plan = make_plan("acme", "00u1", "box", [change(kind) for kind in kinds], None)
    assert [one.kind.value for one in plan.changes] == ["deactivate", "end_sessions", "revoke", "transfer", "create", "grant"]


def test_every_kind_of_change_has_a_stage() -> None:
    assert set(STAGE) == set(ChangeKind)
    assert all(STAGE[kind] < STAGE[ChangeKind.CREATE] for kind in REMOVING)


def test_the_hash_binds_changes_and_state() -> None:
    one = make_plan("acme", "00u1", "box", [change(ChangeKind.GRANT)], account())
    assert one.hash == make_plan("acme", "00u1", "box", [change(ChangeKind.GRANT)], account()).hash
    others = [
        make_plan("acme", "00u1", "box", [change(ChangeKind.GRANT, "y")], account()),
        make_plan("acme", "00u1", "box", [change(ChangeKind.GRANT)], account(active=False)),
        make_plan("acme", "00u2", "box", [change(ChangeKind.GRANT)], account()),
        make_plan("acme", "00u1", "box", [change(ChangeKind.GRANT)], None),
        make_plan("acme", "00u1", "box", [], account()),
    ]
    assert len({one.hash, *(other.hash for other in others)}) == 6


def test_a_fingerprint_does_not_depend_on_the_order_of_grants() -> None:
    grants = (Grant(kind="group", name="A"), Grant(kind="folder", name="B", level="viewer"))
    assert fingerprint(account(grants=grants)) == fingerprint(account(grants=grants[::-1]))
    assert fingerprint(account(grants=grants)) != fingerprint(account(grants=grants[:1]))


def test_plans_say_whether_they_open_or_remove() -> None:
    plan = make_plan("acme", "00u1", "box", [change(ChangeKind.GRANT), change(ChangeKind.REVOKE)], None)
    assert opens(plan)
    assert removes(plan)
    rest = without(plan, REMOVING)
    assert not removes(rest)
    assert [one.kind for one in rest.changes] == [ChangeKind.GRANT]
