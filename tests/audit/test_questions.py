"""The ready compliance questions, each on a filled trail: what it must say, and that it may be asked where strangers ask."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.query import Answer, Limits, run
from audit.questions import Question, question, questions
from audit.store import AuditStore
from model.decision import Moment, Response
from model.errors import ConfigurationError
from tests.audit.trail import AUDIT, LEAVER, PERSON, SOURCE, Log, at, classified, day, decision, event, incident

Put = Callable[[str], list[dict[str, Any]]]


def iso(seconds: float) -> str:
    return at(seconds).isoformat().replace("+00:00", "Z")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditStore]:
    with AuditStore(tmp_path_factory.mktemp("data") / "audit.duckdb", "one") as store:
        store.write(day())
        log = Log()
        log.gap(SOURCE, of=1000)
        log.gap(AUDIT, of=1000)
        log.source(event("u-later", seconds=3 * 3600, published=None), seconds=3 * 3600)
        log.audit(classified("u-leave", Moment.LEAVE, [LEAVER], event_type="user.lifecycle.deactivate", seconds=200), seconds=201)
        log.source(event("u-own", "user.lifecycle.suspend", seconds=104), seconds=104)  # what our lockdown did, and Okta tells
        log.audit(classified("u-own", Moment.LEAVE, [PERSON], event_type="user.lifecycle.suspend", seconds=104), seconds=105)
        log.audit(classified("u-wait", Moment.THREAT, [PERSON], decision("u-wait", response=Response.APPROVE, why="brake", seconds=5)))
        waiting = incident("pending_approval", 5).model_copy(update={"id": "i-2", "incident": "inc-2"})
        log.audit(waiting.model_copy(update={"event": waiting.event.model_copy(update={"uuid": "u-wait"})}))  # type: ignore[union-attr]
        store.write(log.records)
        yield store


@pytest.fixture
def put(filled: AuditStore) -> Put:
    def asked(name: str) -> list[dict[str, Any]]:
        with filled.reader() as cursor:
            return [json.loads(row) for row in run(cursor, question(name).sql, Limits(), Answer())]

    return asked


def only(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


@pytest.mark.parametrize("one", questions(), ids=lambda one: one.name)
def test_each_has_a_head_and_runs_on_an_empty_trail(store: AuditStore, one: Question) -> None:
    assert one.title
    assert one.about.splitlines()[1].startswith("For: ")
    with store.reader() as cursor:
        assert list(run(cursor, one.sql, Limits(), Answer())) == []


def test_a_question_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match="there are access-changes-by-user, "):
        question("nonsense")


def test_deprovisioning_evidence(put: Put) -> None:
    assert only(put("deprovisioning-evidence"), "person", "left_at", "target", "change", "status", "answered", "observed", "seconds") == [
        (LEAVER, iso(200), "box", "deactivate", "done", iso(202.5), iso(202.9), 2.5),
        (LEAVER, iso(200), "box", "revoke folder Sales", "intended", None, None, None),
    ]


def test_time_to_contain(put: Put) -> None:
    found = only(put("time-to-contain"), "incident", "state", "happened", "seen", "contained", "seconds_from_event", "seconds_from_log")
    assert ("inc-1", "contained", iso(100), iso(101), iso(105.5), 5.5, 4.5) in found
    assert len(found) == 2


def test_time_to_contain_by_target(put: Put) -> None:
    assert only(put("time-to-contain-by-target"), "target", "change", "status", "seconds_to_answer", "seconds_to_effect") == [
        ("box", "deactivate", "done", 3.5, 3.9),
        ("okta", "deactivate", "done", 2.5, 2.9),
    ]


def test_access_changes_by_user(put: Put) -> None:
    found = only(put("access-changes-by-user"), "person", "changed", "target", "change")
    assert [one for one in found if one[0] == PERSON] == [
        (PERSON, iso(12.5), "box", "create"),
        (PERSON, iso(14.5), "box", "grant folder Sales"),
        (PERSON, iso(103.5), "okta", "deactivate"),
        (PERSON, iso(104.5), "box", "deactivate"),
    ]


def test_open_holds(put: Put) -> None:
    (row,) = put("open-holds")
    assert (row["person"], row["hold"], row["incident_state"], row["accounts"]) == (PERSON, "h-1", "contained", '[["box","box-1"]]')


def test_quarantine_overview(put: Put) -> None:
    assert set(only(put("quarantine-overview"), "tenant", "reason", "records", "without_bytes")) == {
        ("default", "unreadable", 1, 0),
        ("default", "not_an_object", 1, 0),
        ("default", "uuid_conflict", 1, 0),
        ("default", "bad_record", 1, 0),
        ("default", "too_large", 1, 1),
    }


def test_unanswered_intents(put: Put) -> None:
    assert only(put("unanswered-intents"), "intent", "person", "change", "status") == [
        ("in-open", LEAVER, "revoke folder Sales", "intended")
    ]


def test_privileged_changes(put: Put) -> None:
    assert only(put("privileged-changes"), "uuid", "actor_id", "people", "rules", "responses") == [
        ("u-priv", "00u3adm", [PERSON], ["admin_granted"], ["alert"])
    ]


def test_decisions_by_rule(put: Put) -> None:
    assert set(only(put("decisions-by-rule"), "rule", "response", "decisions", "people")) == {
        ("risk_raised", "lockdown", 1, 1),
        ("risk_raised", "approve", 1, 1),
        ("admin_granted", "alert", 1, 1),
    }


def test_completeness_by_hour(put: Put) -> None:
    found = [row for row in put("completeness-by-hour") if row["tenant"] == "default"]
    assert only(found, "hour", "events", "without_published", "quarantined") == [
        (iso(0), 14, 0, 5),
        (iso(3600), 9, 0, 0),
        (iso(7200), 2, 0, 0),
        (iso(10800), 1, 1, 0),
    ]
    assert found[0]["longest_delay_seconds"] == 1.0


def test_failed_actions(put: Put) -> None:
    assert only(put("failed-actions"), "target", "status", "kind", "attempts", "people") == [("okta", "failed", "grant", 1, 1)]


def test_pending_approvals(put: Put) -> None:
    assert only(put("pending-approvals"), "incident", "person", "rules", "why") == [("inc-2", PERSON, ["risk_raised"], ["brake"])]


def test_chain_heads(put: Put, filled: AuditStore) -> None:
    heads = {(row["topic"], row["partition"]): (row["length"], row["head"].lower()) for row in put("chain-heads")}
    assert heads == filled.heads()


def test_every_question_has_a_test_of_its_own() -> None:
    mine = Path(__file__).read_text()
    assert [one.name for one in questions() if f'put("{one.name}")' not in mine] == []
