"""Words travel as JSON and come back equal; the exception tree is what its drawing says; statuses and changes fall into their classes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from model import errors
from model.change import IRREVERSIBLE, OPENING, REMOVING, REPEATABLE, STAGE, Action, ActionStatus, Change, ChangeKind, Plan
from model.decision import Finding, Moment, Response, Scope, Severity, Verdict
from model.errors import PermanentError, PortcullisError, TemporaryError
from model.person import Account, Desired, Grant, Hold, HoldState, Link, Person, PersonStatus, Word
from model.records import (
    ActionTaken,
    AuditRecord,
    Classified,
    Command,
    Decision,
    EventRef,
    HoldChanged,
    IncidentChanged,
    Knock,
    Notice,
    Order,
    Quarantined,
    read_record,
)

AT = datetime(2026, 1, 5, 9, 0, 0, 123_456, tzinfo=UTC)
GRANT = Grant(kind="folder", name="Finance", id="77", level="editor", key="c1")
ACCOUNT = Account(target="box", id="11", login="ada@example.com", active=True, status="active", attributes={"quota": 5}, grants=(GRANT,))
HOLD = Hold(
    id="h1", tenant="acme", person="00uA", incident="i1", since=AT, accounts=(("box", "11"),), restore={"box": {"status": "active"}}
)
EVENT = EventRef(uuid="u1", event_type="user.session.start", topic="okta.system-log", partition=2, offset=7, published=AT, received=AT)
DECISION = Decision(
    id="d1",
    tenant="acme",
    event_uuid="u1",
    person="00uA",
    rule="r",
    rule_version="1",
    title="Risk",
    asked=Response.LOCKDOWN,
    response=Response.APPROVE,
    severity=Severity.HIGH,
    scope=Scope.FULL,
    why="brake",
    matched={"outcome.reason": ["ünïcode <&>", None, 1.5]},
    decided=AT,
)
ACTION = Action(
    intent="n1", tenant="acme", person="00uA", target="box", change="deactivate", status=ActionStatus.DONE, intended=AT, answered=AT
)
CHANGE = Change(kind=ChangeKind.GRANT, target="box", account="11", subject="folder Finance", args={"role": "editor", "id": 77})
RECORD: dict[str, Any] = {"id": "x1", "tenant": "acme", "at": AT}

#: One of each, with something in every field that is easily lost on the way.
EXAMPLES: tuple[Word, ...] = (
    GRANT,
    ACCOUNT,
    HOLD,
    Hold(**HOLD.model_dump() | {"state": HoldState.RELEASED, "released": AT, "released_by": "sec@example.com"}),
    Link(tenant="acme", person="00uA", target="box", account="11", login="ada@example.com", made_by="n1", at=AT),
    Person(tenant="acme", id="00uA", status=PersonStatus.ACTIVE, last_updated=AT, groups=(("00g1", "Everyone"),), profile={"x": [None]}),
    Desired(target="box", active=None, attributes={"name": "Ada"}, grants=(GRANT,), transfer_to="22", reasons=("department",)),
    CHANGE,
    Plan(tenant="acme", person="00uA", target="box", changes=(CHANGE,), observed="fingerprint"),
    ACTION,
    EVENT,
    DECISION,
    Knock(id="k1", tenant="acme", person="00uA", moment=Moment.JOIN, event=EVENT),
    Order(id="o1", kind="lockdown", tenant="acme", person="00uA", decisions=(DECISION,), event=EVENT),
    Command(
        id="c1", kind="release", tenant="acme", person="00uA", actor="sec@example.com", reason="false alarm", args={"holds": ["h1"]}, at=AT
    ),
    Classified(**RECORD, event=EVENT, moment=Moment.THREAT, people=("00uA",), decisions=(DECISION,)),
    ActionTaken(**RECORD, action=ACTION),
    IncidentChanged(**RECORD, incident="i1", person="00uA", state="partial", opened=AT, targets={"box": {"status": "failed"}}),
    HoldChanged(**RECORD, hold=HOLD),
    Quarantined(**RECORD, reason="too_large", size=9_000_000, sha256="00" * 32),
    Notice(**RECORD, topic="gap", text="an hour is missing", facts={"from": "2026-01-05T09:00:00Z"}),
)


def _words(base: type[Word] = Word) -> Iterator[type[Word]]:
    for word in base.__subclasses__():
        if not word.__name__.startswith("_"):
            yield word
        yield from _words(word)


def test_every_word_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == {word for word in _words() if word.__module__.startswith("model.")}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_round_trip(example: Word) -> None:
    raw = example.to_bytes()
    assert type(example).from_bytes(raw) == example
    assert type(example).from_bytes(raw).to_bytes() == raw


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_words_are_frozen_and_refuse_unknown_keys(example: Word) -> None:
    name = next(iter(type(example).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(example, name, getattr(example, name))
    with pytest.raises(ValidationError, match="not permitted"):
        type(example).model_validate(example.model_dump() | {"surprise": 1})


# --- the audit topic --------------------------------------------------------------------------------------------------


def test_every_kind_of_record_is_read_back_as_itself() -> None:
    audit = [example for example in EXAMPLES if isinstance(example, get_args(AuditRecord))]
    assert {type(record) for record in audit} == set(get_args(AuditRecord))
    for record in audit:
        assert read_record(record.to_bytes()) == record


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"kind": "surprise", "id": "x"}', b'{"kind": "quarantine"}', b"\xff"])
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    with pytest.raises(ValidationError):
        read_record(raw)


def test_kinds_are_distinct() -> None:
    kinds = [record.model_fields["kind"].default for record in get_args(AuditRecord)]
    assert len(set(kinds)) == len(kinds)


# --- people -----------------------------------------------------------------------------------------------------------


def test_a_status_is_present_or_gone_or_opens_and_closes_nothing() -> None:
    undecided = {status for status in PersonStatus if not status.is_present and not status.is_gone}
    assert not any(status.is_present and status.is_gone for status in PersonStatus)
    assert undecided == {PersonStatus.STAGED, PersonStatus.UNKNOWN}
    assert PersonStatus.LOCKED_OUT.is_present, "a state of a credential, not of employment"
    assert PersonStatus.SUSPENDED.is_gone


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"first_name": "Ada", "last_name": "King"}, "Ada King"),
        ({"last_name": "King"}, "King"),
        ({"login": "ada@x"}, "ada@x"),
        ({}, "00uA"),
    ],
)
def test_display_name_falls_back(fields: dict[str, Any], shown: str) -> None:
    assert Person(tenant="acme", id="00uA", status=PersonStatus.ACTIVE, **fields).display_name == shown


def test_a_hold_is_open_until_it_is_released() -> None:
    assert HOLD.is_open
    assert not HOLD.model_copy(update={"state": HoldState.RELEASED}).is_open


# --- changes ----------------------------------------------------------------------------------------------------------


def test_every_change_has_one_nature() -> None:
    for kind in ChangeKind:
        assert sum(kind in nature for nature in (OPENING, REMOVING, REPEATABLE)) == 1, kind
    assert IRREVERSIBLE < REMOVING


def test_take_away_before_giving() -> None:
    assert set(STAGE) == set(ChangeKind)
    assert len(set(STAGE.values())) == len(STAGE), "an order without ties"
    assert max(STAGE[kind] for kind in REMOVING) < min(STAGE[kind] for kind in OPENING)
    ordered = sorted(ChangeKind, key=STAGE.__getitem__)
    assert ordered[:2] == [ChangeKind.DEACTIVATE, ChangeKind.END_SESSIONS], "block sign-in, then end what runs"
    assert STAGE[ChangeKind.TRANSFER] < STAGE[ChangeKind.DELETE], "nothing is lost"
    assert STAGE[ChangeKind.CREATE] < STAGE[ChangeKind.GRANT]


def test_label() -> None:
    assert CHANGE.label == "grant folder Finance"
    assert Change(kind=ChangeKind.DEACTIVATE, target="box").label == "deactivate"


# --- rules' words -----------------------------------------------------------------------------------------------------


def test_a_verdict_is_silent_only_where_nothing_is_said() -> None:
    finding = Finding("r", "1", "t", Response.ALERT, Severity.LOW, None)
    assert Verdict(Moment.NONE, Moment.NONE, ()).is_silent
    assert not Verdict(Moment.NONE, Moment.NONE, (), (finding,)).is_silent
    assert not Verdict(Moment.NONE, Moment.NONE, ("00uA",)).is_silent
    assert not Verdict(Moment.GROUP, Moment.GROUP, ()).is_silent


# --- errors -----------------------------------------------------------------------------------------------------------


def test_the_drawing_of_the_exception_tree_is_the_tree() -> None:
    """Indentation in the module's docstring is inheritance."""
    drawn: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([│├└─\s]*)([A-Z][A-Za-z]+)", line)
        if not found or (found[2] != "PortcullisError" and not (stack and found[1])):
            continue
        depth = len(found[1])
        while stack and stack[-1][0] >= depth:
            stack.pop()
        drawn[found[2]] = stack[-1][1] if stack else "Exception"
        stack.append((depth, found[2]))
    real = {name: item.__bases__[0].__name__ for name, item in vars(errors).items() if inspect.isclass(item)}
    assert drawn == real


def test_two_words_for_whoever_catches() -> None:
    assert TemporaryError("x", 2.5).delay == 2.5
    assert TemporaryError("x").delay is None
    assert PermanentError("x", "E0000006").code == "E0000006"
    assert not issubclass(TemporaryError, PermanentError)
    assert issubclass(errors.Fenced, PortcullisError)
    assert not issubclass(errors.Fenced, (TemporaryError, PermanentError)), "a fenced worker neither retries nor parks"
