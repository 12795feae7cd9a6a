"""Links to accounts that were there before: exact and unique, or a case for a human."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.links import Known, LinkPlan, apply_links, canonical_key, link_plan
from model.person import Person, PersonStatus
from tests.handlers.fakes import TENANT, FakeLinks, person
from tests.support.clock import FakeClock

ANN, BOB = person("00uann", login="ann@acme.test"), person("00ubob", login="bob@acme.test")


async def plan(people: list[Person], accounts: list[tuple[str, str]], links: FakeLinks | None = None) -> LinkPlan:
    return await link_plan(TENANT, "box", people, [Known(*one) for one in accounts], links or FakeLinks())


def whys(found: LinkPlan) -> dict[str, tuple[str, ...]]:
    return {case.why: (*case.people, *case.accounts) for case in found.cases}


async def test_an_exact_unique_match_is_planned_and_nothing_is_made() -> None:
    links = FakeLinks()
    found = await plan([ANN, BOB], [("1", "ann@acme.test"), ("2", "BOB@acme.test "), ("3", "old@acme.test")], links)
    assert found.new == (("00uann", "1", "ann@acme.test"), ("00ubob", "2", "BOB@acme.test "))
    assert found.cases == ()
    assert found.orphans == (Known("3", "old@acme.test"),)
    assert links.links == {}


async def test_links_are_made_on_a_humans_word_and_signed() -> None:
    links, clock = FakeLinks(), FakeClock()
    found = await plan([ANN], [("1", "ann@acme.test")], links)
    (link,) = await apply_links(found, "cara", links, clock)
    assert (link.account, link.made_by, link.at) == ("1", "link:cara", clock.now())
    again = await plan([ANN], [("1", "ann@acme.test")], links)
    assert (again.new, again.standing, again.cases) == ((), 1, ())
    assert await apply_links(found, "cara", links, clock) == ()


async def test_what_is_not_exact_and_unique_is_a_case() -> None:
    assert whys(await plan([ANN], [])) == {"no_account": ("00uann",)}
    assert whys(await plan([ANN], [("1", "ann@acme.test"), ("2", "Ann@acme.test")])) == {"several_accounts": ("00uann", "1", "2")}
    twin = person("00utwin", login="Ann@acme.test")
    assert whys(await plan([ANN, twin], [("1", "ann@acme.test")])) == {"several_people": ("00uann", "00utwin", "1")}
    assert whys(await plan([person("00ux", login="", email="")], [("1", "")])) == {"no_key": ("00ux",)}


async def test_an_account_of_somebody_else_is_a_case_and_stays_theirs() -> None:
    links = FakeLinks()
    links.link("00uold", "1")
    found = await plan([ANN], [("1", "ann@acme.test")], links)
    assert whys(found) == {"linked_elsewhere": ("00uann", "00uold", "1")}
    assert found.new == ()


async def test_whoever_is_linked_is_followed_by_id_whatever_the_logins_say() -> None:
    links = FakeLinks()
    links.link("00uann", "9")
    found = await plan([ANN], [("1", "ann@acme.test")], links)
    assert (found.new, found.cases, found.standing) == ((), (), 1)


async def test_nobody_who_is_gone_is_linked() -> None:
    found = await plan([person("00uann", login="ann@acme.test", status=PersonStatus.DEPROVISIONED)], [("1", "ann@acme.test")])
    assert (found.new, found.orphans) == ((), (Known("1", "ann@acme.test"),))


async def test_an_account_taken_between_plan_and_apply_is_left_alone() -> None:
    links = FakeLinks()
    found = await plan([ANN], [("1", "ann@acme.test")], links)
    links.link("00ubob", "1")
    assert await apply_links(found, "cara", links, FakeClock()) == ()


@pytest.mark.fault(27)
@pytest.mark.parametrize("lookalike", ["аnn@acme.test", "ann@acme.tеst", "ann@аcme.test", "anп@acme.test", "ann+x@acme.test"])
async def test_a_letter_that_looks_alike_is_another_letter(lookalike: str) -> None:
    assert (await plan([ANN], [("1", lookalike)])).new == ()


@pytest.mark.parametrize("same", ["ANN@ACME.TEST", " ann@acme.test\n", "ａｎｎ@acme.test", "Ann@Acme.Test"])
async def test_writing_does_not_make_a_difference(same: str) -> None:
    assert (await plan([ANN], [("1", same)])).new == (("00uann", "1", same),)


@given(st.text())
def test_a_key_is_its_own_key(text: str) -> None:
    assert canonical_key(canonical_key(text)) == canonical_key(text)


@given(st.lists(st.sampled_from(["ann@acme.test", "Ann@acme.test", "bob@acme.test", "x@acme.test"]), max_size=6))
async def test_no_account_is_planned_twice_and_every_account_is_accounted_for(logins: list[str]) -> None:
    accounts = [(str(at), login) for at, login in enumerate(logins)]
    found = await plan([ANN, BOB], accounts)
    planned = [account for _, account, _ in found.new]
    named = {one for case in found.cases for one in case.accounts} | {one.id for one in found.orphans}
    assert len(planned) == len(set(planned))
    assert set(planned) | named == {id for id, _ in accounts}
    assert not set(planned) & named
