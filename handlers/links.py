"""Links between people and accounts that were there before Portcullis came (`portcullis link [--apply]`, D21).

A plan first, links only on a human's word: whoever is linked may have access opened by what a directory says. Only an exact, unique
match on the canonical key counts; everything else is listed for a human. The key is normalised for writing (Unicode form, case,
space around), never for looks: a letter that resembles another is another letter, and identity is by id ever after (27).
Rejected: matching on names, or on the part before the @.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from handlers.contract import Clock, LinkBook
from handlers.creation import is_made
from model.person import Link, Person

Why = Literal["no_account", "several_accounts", "several_people", "linked_elsewhere", "no_key"]


@dataclass(frozen=True, slots=True)
class Known:
    """One account of a target's listing: its immutable id and its login as the vendor shows it."""

    id: str
    login: str


@dataclass(frozen=True, slots=True)
class Case:
    """What a human must settle. `accounts` and `people` are the ids in question."""

    why: Why
    key: str
    people: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """`new`: (person id, account id, login). `standing`: links made before. `orphans`: accounts that no person's key names."""

    tenant: str
    target: str
    new: tuple[tuple[str, str, str], ...] = ()
    standing: int = 0
    cases: tuple[Case, ...] = ()
    orphans: tuple[Known, ...] = ()


def canonical_key(text: str) -> str:
    """NFKC, trimmed, case-folded; empty where nothing is left. "ＡNN@x.test " and "ann@x.test" are one; "аnn" (Cyrillic а) is not."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).strip().casefold())


def person_key(person: Person) -> str:
    """The login (only administrators change it); the work e-mail where the login is none."""
    return canonical_key(person.login if "@" in person.login else person.email)


async def link_plan(tenant: str, target: str, people: Iterable[Person], accounts: Iterable[Known], links: LinkBook) -> LinkPlan:
    """What `--apply` would link. People who are gone are left out: nothing is ever opened for them."""
    keyed: dict[str, list[Known]] = defaultdict(list)
    for account in accounts:
        keyed[canonical_key(account.login)].append(account)
    wanted: dict[str, list[Person]] = defaultdict(list)
    standing = 0
    for person in people:
        if is_made(await links.find(tenant, person.id, target)):
            standing += 1
        if person.status.is_present:
            wanted[person_key(person)].append(person)
    new: list[tuple[str, str, str]] = []
    cases: list[Case] = []
    for key, claimants in sorted(wanted.items()):
        found = keyed.get(key, [])
        case = await _case(tenant, target, key, claimants, found, links)
        if case is not None:
            cases.append(case)
        elif not is_made(await links.find(tenant, claimants[0].id, target)):
            new.append((claimants[0].id, found[0].id, found[0].login))
    orphans = tuple(account for key, found in sorted(keyed.items()) if key not in wanted for account in found)
    return LinkPlan(tenant, target, tuple(new), standing, tuple(cases), orphans)


async def _case(tenant: str, target: str, key: str, people: list[Person], found: list[Known], links: LinkBook) -> Case | None:
    ids, accounts = tuple(one.id for one in people), tuple(one.id for one in found)
    if not key:
        return Case("no_key", key, ids)
    if len(people) > 1:
        return Case("several_people", key, ids, accounts)
    link = await links.find(tenant, people[0].id, target)
    if link is not None and is_made(link):
        return None  # an id, once linked, is followed whatever becomes of the logins
    if not found:
        return Case("no_account", key, ids)
    if len(found) > 1:
        return Case("several_accounts", key, ids, accounts)
    owner = await links.owner(target, found[0].id)
    if owner is not None and (owner.tenant, owner.person) != (tenant, people[0].id):
        return Case("linked_elsewhere", key, (*ids, owner.person), accounts)
    return None


async def apply_links(plan: LinkPlan, actor: str, links: LinkBook, clock: Clock) -> tuple[Link, ...]:
    """Makes the plan's links, each signed with who asked for it. Whoever was linked meanwhile is left alone."""
    made: list[Link] = []
    for person, account, login in plan.new:
        if is_made(await links.find(plan.tenant, person, plan.target)) or await links.owner(plan.target, account) is not None:
            continue
        link = Link(
            tenant=plan.tenant, person=person, target=plan.target, account=account, login=login, made_by=f"link:{actor}", at=clock.now()
        )
        await links.make(link)
        made.append(link)
    return tuple(made)
