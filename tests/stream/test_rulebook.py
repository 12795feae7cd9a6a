"""Rules are exchanged while events are judged: a refusal is told and changes nothing, memory of what did not change is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from aiokafka.errors import KafkaTimeoutError

from handlers.messages import notice as message_of
from handlers.protected import ProtectedList
from model.decision import Severity
from model.records import Notice
from model.settings import Settings
from rules.classify import Classifier
from rules.lifecycle import Lifecycle
from rules.policy import Policy
from rules.reload import Reloader
from rules.ruleset import RuleSet
from stream.classify import ClassifyRole
from stream.house import House, build_roles
from stream.rulebook import POLL_S, Rulebook
from tests.handlers.fakes import NOON
from tests.stream.fakes import in_memory
from tests.stream.memory import Log
from tests.stream.test_classify import TENANT, event, feed, judge
from tests.support.clock import FakeClock

SIGN_IN = {"eventType": "user.session.start", "actor": {"id": "00uann", "type": "User"}, "outcome": {"result": "SUCCESS"}}


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    with in_memory():
        yield


def write(folder: Path, name: str, result: str = "SUCCESS", **more: Any) -> None:
    selection = {"eventType": "user.session.start", "outcome.result": result}
    document = {
        "title": name,
        "name": name,
        "logsource": {"product": "okta", "service": "okta"},
        "detection": {"selection": selection, "condition": "selection"},
    }
    (folder / f"{name}.yml").write_text(yaml.safe_dump_all([document | more], sort_keys=False), encoding="utf-8")


def count(folder: Path, gte: int) -> None:
    """A rule of several events."""
    body = {
        "type": "event_count",
        "rules": ["one"],
        "group-by": ["actor.id"],
        "timespan": "1h",
        "condition": {"gte": gte},
        "generate": True,
    }
    (folder / "count.yml").write_text(yaml.safe_dump({"title": "count", "name": "count", "correlation": body}), encoding="utf-8")


def rulebook(folder: Path, clock: FakeClock, *tenants: str) -> tuple[Rulebook, Any]:
    ruleset = RuleSet.load(folder)

    def make_of(rules: RuleSet) -> Any:
        return lambda tenant: Classifier(rules, Lifecycle.load())

    reloader = Reloader(ruleset, lambda: RuleSet.load(folder), [folder])
    return Rulebook(reloader, make_of, tenants or (TENANT,), clock), make_of(ruleset)


@contextlib.asynccontextmanager
async def running(log: Log, folder: Path, *tenants: str) -> AsyncIterator[ClassifyRole]:
    log.embedded = True
    clock = FakeClock(NOON, auto=False)
    book, make = rulebook(folder, clock, *tenants)
    role = ClassifyRole(cast(Any, log), Settings(), make, ProtectedList("loaded", {(TENANT, "00uglass"): "x"}), {}, clock)
    role.rulebook = book
    await role.start()
    try:
        await looked(role)
        assert log.notices() == []
        yield role
    finally:
        await role.stop()


async def looked(role: ClassifyRole) -> None:
    """Two looks: a change stands still."""
    assert role.rulebook is not None
    for _ in range(2):
        await role.rulebook.look(role.minds.replace_rules, role._tell)


async def decided(log: Log, role: ClassifyRole, uuid: str) -> dict[str, str]:
    """rule → version of the decisions on one more sign-in."""
    feed(log, event(uuid, **SIGN_IN))
    await judge(role)
    return {one.rule: one.rule_version for record in log.classified() if record.event.uuid == uuid for one in record.decisions}


@pytest.mark.fault(54)
async def test_an_invalid_set_is_refused_and_told_with_file_and_line_and_the_old_one_judges_on(tmp_path: Path) -> None:
    log = Log()
    write(tmp_path, "one")
    async with running(log, tmp_path) as role:
        before = await decided(log, role, "e-1")
        write(tmp_path, "two", detection={"selection": {"eventType": "x"}, "condition": "selecton"})
        await looked(role)
        await looked(role)
        (notice,) = log.notices()
        assert (notice.topic, notice.severity, notice.tenant) == ("rules", Severity.HIGH, TENANT)
        assert notice.facts["path"] == str(tmp_path / "two.yml")
        assert f"{tmp_path / 'two.yml'}:{notice.facts['line']}: " in notice.text
        assert "rules lint" in notice.remedy
        assert await decided(log, role, "e-2") == before == {"one": before["one"]}
        write(tmp_path, "two", level="high")
        await looked(role)
        assert await decided(log, role, "e-3") == before | {"two": (await decided(log, role, "e-4"))["two"]}
    refused, taken = log.notices()
    assert (taken.severity, taken.facts["added"], taken.facts["before"]) == (Severity.INFORMATIONAL, ["two"], refused.facts["version"])
    assert "rules" in message_of(taken).text.lower()


async def test_decisions_name_the_version_that_judged(tmp_path: Path) -> None:
    log = Log()
    write(tmp_path, "one")
    async with running(log, tmp_path) as role:
        before = await decided(log, role, "e-1")
        write(tmp_path, "one", level="low")
        assert await decided(log, role, "e-2") == before, "between two looks nothing changes"
        await looked(role)
        after = await decided(log, role, "e-3")
        assert after.keys() == before.keys()
        assert after != before
        write(tmp_path, "one", result="FAILURE")
        await looked(role)
        assert await decided(log, role, "e-4") == {}
    assert [one.facts["changed"] for one in log.notices()] == [["one"], ["one"]]


async def test_what_did_not_change_keeps_its_memory(tmp_path: Path) -> None:
    log = Log()
    write(tmp_path, "one")
    count(tmp_path, 3)
    async with running(log, tmp_path) as role:
        for number in range(2):
            assert set(await decided(log, role, f"e-{number}")) == {"one"}
        write(tmp_path, "other", result="DENY")
        await looked(role)
        assert set(await decided(log, role, "e-2")) == {"one", "count"}, "the two before the reload count"
        count(tmp_path, 2)
        await looked(role)
        assert set(await decided(log, role, "e-3")) == {"one"}, "a rule that changed begins anew"
        assert set(await decided(log, role, "e-4")) == {"one", "count"}


async def test_each_tenant_is_told(tmp_path: Path) -> None:
    log = Log()
    write(tmp_path, "one")
    async with running(log, tmp_path, "red", "blue") as role:
        write(tmp_path, "two")
        await looked(role)
    assert sorted(one.tenant for one in log.notices()) == ["blue", "red"]
    assert len({one.id for one in log.notices()}) == 2


async def test_what_cannot_be_told_now_is_told_later_and_the_rules_are_new_already(tmp_path: Path) -> None:
    write(tmp_path, "one")
    book, _ = rulebook(tmp_path, FakeClock(NOON))
    told: list[Notice] = []
    replaced: list[Any] = []
    down = True

    async def tell(notice: Notice) -> None:
        if down:
            raise KafkaTimeoutError
        told.append(notice)

    await book.look(replaced.append, tell)
    await book.look(replaced.append, tell)
    write(tmp_path, "two")
    await book.look(replaced.append, tell)
    with pytest.raises(KafkaTimeoutError):
        await book.look(replaced.append, tell)
    assert len(replaced) == 1
    down = False
    await book.look(replaced.append, tell)
    await book.look(replaced.append, tell)
    assert len(replaced) == len(told) == 1


async def test_it_looks_every_few_seconds_by_itself_and_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "one")
    clock = FakeClock(NOON, auto=False)
    book, _ = rulebook(tmp_path, clock)
    looks: list[float] = []

    async def look(*_: Any) -> None:
        looks.append(clock.monotonic())
        raise (KafkaTimeoutError if len(looks) == 1 else ZeroDivisionError)

    monkeypatch.setattr(book, "look", look)
    task = asyncio.create_task(book.run_forever(lambda make: None, cast(Any, None)))
    await clock.advance(POLL_S * 3)
    assert looks == [POLL_S, POLL_S * 2, POLL_S * 3]
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_the_house_gives_the_classifier_its_rulebook_unless_a_set_was_handed_in(tmp_path: Path) -> None:
    log = Log()
    write(tmp_path, "one")
    settings = Settings.model_validate(
        {"rules": {"detections": tmp_path}, "okta": {TENANT: {"url": "https://acme.okta.example", "token_env": "T"}}}
    )
    house = House(settings, cast(Any, log), FakeClock(NOON), [], {}, ProtectedList("loaded", {}), cast(Any, None))
    for given, watched in ((None, True), (RuleSet.load(tmp_path), True), (RuleSet.load(None), False), (RuleSet([]), False)):
        role = build_roles(house, ["classifier"], Policy.load(), given)["classifier"]
        assert isinstance(role, ClassifyRole)
        assert (role.rulebook is not None) is watched
