"""The scenario `day`, and the witness that says whether it ended as it must: content with good work, and with nothing less."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from model.decision import Moment, Response, Scope
from model.errors import ConfigurationError
from model.person import Person, PersonStatus
from rules.classify import Classifier
from rules.lifecycle import Lifecycle
from rules.policy import Policy
from rules.ruleset import RuleSet
from simulators.company import BY_KEY, PEOPLE, Someone, staff
from simulators.okta import OktaSimulator
from simulators.scenario import DAY, LENGTH_S, Day, Ordinary
from simulators.seeding import seed_people
from simulators.serve import Simulation, SimulationOptions
from simulators.verify import Check, as_json, verify_day
from tests.simulators.good_work import GoodWork
from tests.simulators.okta_org import HandClock

LIFE = (Moment.JOIN, Moment.MOVE, Moment.LEAVE)
ORDINARY = ("user.session.start", "user.authentication.sso", "policy.evaluate_sign_on")


def new_day(clock: HandClock | None = None, **options: Any) -> tuple[Day, HandClock]:
    hand = clock or HandClock()
    okta = OktaSimulator(clock=hand, rng=random.Random(3))

    async def pause(seconds: float) -> None:
        hand.now += seconds

    return Day(okta, seed_people(okta), pause=pause, **options), hand


def events(day: Day) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in day.okta.org.log.raws]


# -- the play ---------------------------------------------------------------------------------------------------------


async def test_the_day_is_the_same_every_time() -> None:
    first, _ = new_day()
    second, _ = new_day()
    await first.play()
    await second.play()
    assert first.okta.org.log.raws == second.okta.org.log.raws
    assert first.ids == second.ids
    assert first.played == list(DAY)


async def test_it_runs_then_is_done_and_takes_its_time() -> None:
    day, clock = new_day()
    began = clock.now
    assert day.okta.scenario is None
    await day.play()
    assert day.okta.scenario == "done"
    assert clock.now - began == pytest.approx(LENGTH_S, abs=0.15)
    fast, clock = new_day(pace=0.25)
    began = clock.now
    await fast.play()
    assert clock.now - began == pytest.approx(LENGTH_S / 4, abs=0.1)


async def test_the_stream_is_busy_ordinary_and_partly_late() -> None:
    day, _ = new_day()
    await day.play()
    kinds = [event["eventType"] for event in events(day)]
    ordinary = [event for event in events(day) if event["eventType"] in ORDINARY]
    assert len(kinds) > 40 * LENGTH_S * 0.9
    assert len(ordinary) > 300
    assert {event["outcome"]["result"] for event in ordinary} == {"SUCCESS", "FAILURE", "ALLOW"}
    published = [event["published"] for event in events(day)]
    assert published != sorted(published), "persistence and published differ"
    residents = {day.ids[one.key] for one in PEOPLE if one.part == "bystander"}
    assert {event["actor"]["id"] for event in ordinary} <= residents
    assert not any(one["type"] == "User" for event in ordinary for one in event["target"] or [])


async def test_each_step_leaves_its_trace_in_the_log() -> None:
    day, _ = new_day(busy=0)
    await day.play()
    seen: dict[str, list[str]] = {}
    names = {id_: key for key, id_ in day.ids.items()}
    for event in events(day):
        for target in event["target"]:
            if target["type"] == "User":
                seen.setdefault(names[target["id"]], []).append(event["eventType"])
    joined = ["user.lifecycle.create", "user.lifecycle.activate"]
    assert seen == {
        "maya": [*joined, "group.user_membership.add"],
        "jonas": [*joined, "group.user_membership.add", "group.user_membership.remove"],
        "priya": [*joined, "user.account.update_profile"],
        "chidi": [*joined, "group.user_membership.add"],
        "tom": ["user.lifecycle.deactivate", "user.session.end"],
        "nadia": ["user.risk.detect"],
    }
    [moved] = [event for event in events(day) if event["eventType"] == "user.account.update_profile"]
    assert moved["debugContext"]["debugData"]["changedAttributes"] == "department, managerId, title"
    assert day.okta.org.user(day.ids["priya"]).profile["managerId"] == day.ids["grace"]
    assert day.okta.org.user(day.ids["tom"]).profile["managerId"] == day.ids["omar"]


def test_ordinary_people_are_those_to_whom_nothing_happens() -> None:
    day, _ = new_day()
    assert {user.id for user in Ordinary(day.okta, random.Random(1))._users}.isdisjoint(
        day.ids[step.who] for step in DAY if step.who in day.ids
    )


async def test_the_rules_see_one_threat_in_the_day_and_knocks_for_those_who_changed() -> None:
    day, _ = new_day()
    await day.play()
    classifier = Classifier(RuleSet.load(), Lifecycle.load())
    verdicts = [classifier.verdict(event) for event in events(day)]
    findings = [finding for verdict in verdicts for finding in verdict.findings]
    assert [(one.rule, one.response, one.scope, one.person) for one in findings] == [
        ("OKTA-001", Response.LOCKDOWN, Scope.FULL, day.ids["nadia"])
    ]
    knocked = {person for verdict in verdicts if verdict.life_moment in LIFE for person in verdict.people}
    assert knocked == {day.ids[key] for key in ("maya", "jonas", "priya", "chidi", "tom")}


@pytest.mark.parametrize("one", [one for one in PEOPLE if one.part != "leaver"], ids=lambda one: one.key)
def test_what_must_stand_at_the_end_is_what_policy_says(one: Someone) -> None:
    groups = {"maya": ("Everyone", "Project Apollo"), "chidi": ("Everyone", "Contractors")}.get(one.key, ("Everyone",))
    department = "Engineering" if one.key == "priya" else one.department
    person = Person(
        tenant="default",
        id="00u1",
        status=PersonStatus.ACTIVE,
        login=one.login,
        department=department,
        title=one.title,
        user_type=one.user_type,
        groups=tuple((name, name) for name in groups),
    )
    desired = Policy.load().desired(person, "box", "box")
    assert desired is not None
    access = one.after or staff(department)
    assert {grant.name for grant in desired.grants if grant.kind == "group"} == access.groups
    assert {grant.name: grant.level for grant in desired.grants if grant.kind == "folder"} == access.folders
    assert desired.attributes["space_amount"] == access.space


# -- the witness ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def world() -> AsyncIterator[GoodWork]:
    simulation = Simulation(SimulationOptions(scenario="day", pace=0.0))
    await simulation.start()
    await simulation.finished()
    work = GoodWork(simulation)
    try:
        yield work
        assert simulation.crashes == []
    finally:
        await work.client.aclose()
        await simulation.stop()


async def judged(work: GoodWork) -> list[Check]:
    urls = work.simulation.urls
    return await verify_day(f"{urls['okta']}/api/v1", f"{urls['box']}/2.0", f"{urls['slack']}/api")


def failed(checks: list[Check]) -> set[tuple[str, str, str]]:
    return {(check.name, check.person.partition(" ")[0], check.target) for check in checks if not check.ok}


async def test_good_work_satisfies_every_check(world: GoodWork) -> None:
    await world.do()
    checks = await judged(world)
    assert [check for check in checks if not check.ok] == []
    assert {one.name for one in PEOPLE} <= {check.person for check in checks}
    assert json.loads(json.dumps(as_json(checks)))[0] == {
        "name": "the day is over",
        "person": "",
        "target": "okta",
        "expected": "done",
        "actual": "done",
        "ok": True,
    }


async def test_no_work_satisfies_nobody_to_whom_something_happened(world: GoodWork) -> None:
    wrong = failed(await judged(world))
    assert {person for _, person, _ in wrong} == {"Tom", "Nadia", "Maya", "Jonas", "Priya", "Chidi"}
    assert ("one account, inactive", "Tom", "box") in wrong
    assert ("is suspended", "Nadia", "okta") in wrong
    assert ("one message", "Nadia", "slack") in wrong
    assert all(("one account, active", name, "box") in wrong for name in ("Maya", "Jonas", "Priya", "Chidi"))


async def _extra_folder(work: GoodWork) -> None:
    await work.share(work.account(BY_KEY["jonas"]), "Projects", "editor")


async def _extra_group(work: GoodWork) -> None:
    user, group = work.account(BY_KEY["priya"]), work.named("groups", "Sales")
    await work.box("POST", "group_memberships", {"user": {"id": user}, "group": {"id": group}})


async def _wrong_quota(work: GoodWork) -> None:
    await work.box("PUT", f"users/{work.account(BY_KEY['chidi'])}", {"space_amount": 1})


async def _weaker_role(work: GoodWork) -> None:
    folder, user = work.named("folders", "Projects"), work.account(BY_KEY["maya"])
    grants = work.simulation.box.state()["collaborations"]
    grant = next(id_ for id_, one in grants.items() if one["item"]["id"] == folder and one["accessible_by"]["id"] == user)
    await work.box("PUT", f"collaborations/{grant}", {"role": "viewer"})


async def _reopened(work: GoodWork) -> None:
    await work.box("PUT", f"users/{work.account(BY_KEY['nadia'])}", {"status": "active"})
    await work.close(BY_KEY["nadia"])


async def _unsuspended(work: GoodWork) -> None:
    await work.okta("POST", f"users/{work.okta_id(BY_KEY['nadia'])}/lifecycle/unsuspend")


async def _stripped(work: GoodWork) -> None:
    await work.strip(BY_KEY["nadia"])


async def _bystander_at_box(work: GoodWork) -> None:
    user = work.account(BY_KEY["ravi"])
    await work.box("POST", "users/terminate_sessions", {"user_ids": [user], "user_logins": [BY_KEY["ravi"].login]})


async def _bystander_at_okta(work: GoodWork) -> None:
    await work.okta("DELETE", f"users/{work.okta_id(BY_KEY['aiko'])}/sessions")


async def _bystander_opened(work: GoodWork) -> None:
    await work.open(BY_KEY["peter"], BY_KEY["sofia"].after)


async def _stranger(work: GoodWork) -> None:
    await work.box("POST", "users", {"login": "who@corp.example", "name": "Who"})


async def _glass_broken(work: GoodWork) -> None:
    await work.okta("POST", "users/break.glass@corp.example/lifecycle/suspend")


async def _second_message(work: GoodWork) -> None:
    await work.tell(BY_KEY["nadia"])


async def _no_intent(work: GoodWork) -> None:
    with work.without_intent():
        await work.box("PUT", f"users/{work.account(BY_KEY['maya'])}", {"job_title": "Software engineer"})


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (_extra_folder, {("folders", "Jonas", "box")}),
        (_extra_group, {("groups", "Priya", "box")}),
        (_wrong_quota, {("quota", "Chidi", "box")}),
        (_weaker_role, {("folders", "Maya", "box")}),
        (_reopened, {("was opened again by nobody", "Nadia", "okta, box")}),
        (_unsuspended, {("is suspended", "Nadia", "okta"), ("was opened again by nobody", "Nadia", "okta, box")}),
        (_stripped, {("groups", "Nadia", "box"), ("folders", "Nadia", "box")}),
        (_bystander_at_box, {("is untouched", "Ravi", "box")}),
        (_bystander_at_okta, {("is untouched", "Aiko", "okta")}),
        (_bystander_opened, {("has no account", "Peter", "box"), ("nobody else has an account", "", "box")}),
        (_stranger, {("nobody else has an account", "", "box")}),
        (_glass_broken, {("is untouched", "break.glass@corp.example", "okta")}),
        (_second_message, {("one message", "Nadia", "slack")}),
        (_no_intent, {("every call carries an intent", "", "box")}),
    ],
)
async def test_each_harm_is_seen_where_it_was_done(
    world: GoodWork, harm: Callable[[GoodWork], Awaitable[None]], found: set[tuple[str, str, str]]
) -> None:
    await world.do()
    await harm(world)
    assert failed(await judged(world)) == found


async def test_content_that_moved_before_the_door_was_shut_is_seen(world: GoodWork) -> None:
    tom = BY_KEY["tom"]
    await world.hand_over(tom)
    await world.close(tom)
    await world.strip(tom)
    assert {one for one in failed(await judged(world)) if one[1] == "Tom"} == {("was closed before content moved", "Tom", "box")}


async def test_a_message_that_does_not_tell_the_outcome_is_seen(world: GoodWork) -> None:
    await world.contain(BY_KEY["nadia"])
    await world.tell(BY_KEY["nadia"], "Only partly contained")
    assert {one for one in failed(await judged(world)) if one[1] == "Nadia"} == {("the message tells the outcome", "Nadia", "slack")}


async def test_it_waits_for_work_that_comes_late(world: GoodWork) -> None:
    async def late() -> None:
        await asyncio.sleep(0.3)
        await world.do()

    task = asyncio.create_task(late())
    urls = world.simulation.urls
    checks = await verify_day(urls["okta"], urls["box"], urls["slack"], 20, interval_s=0.05)
    await task
    assert failed(checks) == set()


async def test_a_wrong_or_silent_address_is_told(world: GoodWork) -> None:
    urls = world.simulation.urls
    with pytest.raises(ConfigurationError, match="another simulator"):
        await verify_day(urls["okta"], urls["slack"], urls["box"])
    with pytest.raises(ConfigurationError, match="is `portcullis simulate` running"):
        await verify_day("http://127.0.0.1:1", urls["box"], urls["slack"])
