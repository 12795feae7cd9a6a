"""Whatever bytes Okta, or somebody who writes into its log, comes up with: the classifier says something of every line and never raises.
And the quick ways are the plain ways: the program of a type is its closures, whom it names is what the model says."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.errors import MalformedEvent
from model.event import decode, parse_time, people
from rules.classify import Classifier
from rules.correlation.observation import time_of
from rules.offline import classify_lines
from rules.person import people_of
from rules.ruleset import RuleSet
from rules.sigma.text import structure_of
from tests.rules.build import LIFECYCLE

checked = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

SAMPLES = [
    event
    for path in sorted((Path(__file__).parents[2] / "rules" / "detections").glob("*.cases.jsonl"))
    for line in path.read_bytes().splitlines()
    for event in orjson.loads(line)["events"][:2]
]
TYPES = sorted({event["eventType"] for event in SAMPLES})

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(
        ["\ud83d", "\x00", "{level=HIGH}", "{a={b=", '{"risk":{"level":"HIGH"}}', "[[[", "SUCCESS", "2026-13-40T99:00:00Z", "me", "../x"]
    ),
)
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)), max_leaves=8
)
paths = st.sampled_from(
    [
        "actor",
        "actor.id",
        "actor.type",
        "target",
        "outcome",
        "outcome.result",
        "client",
        "client.ipAddress",
        "published",
        "securityContext",
        "debugContext",
        "debugContext.debugData",
        "debugContext.debugData.risk",
        "debugContext.debugData.behaviors",
        "authenticationContext",
        "transaction",
        "transaction.detail",
    ]
)


@pytest.fixture(scope="module")
def built_in() -> RuleSet:
    return RuleSet.load()


@lru_cache(maxsize=1)
def one_classifier(built_in: RuleSet) -> Classifier:
    """For what needs no fresh state."""
    return Classifier(built_in, LIFECYCLE)


def broken(event: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of an event with one place replaced."""
    copy: dict[str, Any] = json.loads(json.dumps(event))
    node = copy
    *way, last = path.split(".")
    for key in way:
        if not isinstance(node.get(key), dict):
            node[key] = {}
        node = node[key]
    node[last] = value
    return copy


@given(st.binary(max_size=200))
@checked
def test_any_bytes_are_an_answer(built_in: RuleSet, raw: bytes) -> None:
    (row,) = classify_lines([raw], one_classifier(built_in))
    assert row["line"] == 1
    assert row["error"] is not None or row["uuid"]
    assert orjson.dumps(row)


@given(st.data())
@checked
def test_any_value_anywhere_is_an_answer(built_in: RuleSet, data: st.DataObject) -> None:
    classifier = Classifier(built_in, LIFECYCLE)
    for _ in range(3):
        event = SAMPLES[data.draw(st.integers(0, len(SAMPLES) - 1))]
        for _ in range(data.draw(st.integers(1, 3))):
            event = broken(event, data.draw(paths), data.draw(values))
        event["eventType"] = data.draw(st.sampled_from(TYPES))
        raw = json.dumps(event).encode()
        try:
            decoded = decode(raw)
        except MalformedEvent:
            continue
        classifier.observe(decoded)
        (row,) = classify_lines([raw], classifier)
        assert orjson.dumps(row)
    assert Classifier(built_in, LIFECYCLE).restore(classifier.snapshot()) == ()


@given(st.data())
@checked
def test_the_program_of_a_type_is_its_closures(built_in: RuleSet, data: st.DataObject) -> None:
    event = SAMPLES[data.draw(st.integers(0, len(SAMPLES) - 1))]
    for _ in range(data.draw(st.integers(0, 3))):
        event = broken(event, data.draw(paths), data.draw(values))
    classifier = one_classifier(built_in)
    plan = classifier._plan_for(event)
    matched = {step.rule.id for match in plan.matches(event)[0] for step in match.steps}
    reachable = {rule.id for rule in built_in if rule.expression is not None and rule.expression.matches(event)}
    useful = {
        rule.id for rule in built_in if rule.emits or classifier.correlator.feeds(rule.match_id) or classifier.correlator.learners(rule.id)
    }
    assert matched == reachable & useful


@given(st.data())
@checked
def test_whom_an_event_names_is_what_the_model_says(data: st.DataObject) -> None:
    entity = st.fixed_dictionaries(
        {}, optional={"id": scalars, "type": st.sampled_from(["User", "AppUser", None, 3]), "alternateId": scalars}
    )
    event = {
        "target": data.draw(st.one_of(values, st.lists(st.one_of(entity, scalars), max_size=4))),
        "actor": data.draw(st.one_of(values, entity)),
    }
    for how in ("target", "target-or-actor", "actor", "none"):
        assert people_of(event, how) == people(event, how)


@given(st.one_of(st.datetimes().map(lambda time: time.isoformat(timespec="milliseconds") + "Z"), st.text(max_size=24), scalars))
@checked
def test_the_quick_time_is_the_plain_time(text: Any) -> None:
    plain = parse_time(text)
    assert time_of({"published": text}, None, 7.0) == pytest.approx(7.0 if plain is None else plain.timestamp(), abs=1e-6)


@given(st.text(alphabet="{}[]()=, abAB01\"':-", max_size=60))
@checked
def test_any_text_is_read_as_structure_or_not(text: str) -> None:
    assert structure_of(text) is None or isinstance(structure_of(text), (dict, list))


DEEP: dict[str, bytes] = {
    "lists": b'{"uuid":"u","eventType":"user.session.start","target":' + b"[" * 900 + b"]" * 900 + b"}",
    "objects": b'{"uuid":"u","eventType":"user.session.start","debugContext":' + b'{"debugData":' * 900 + b"1" + b"}" * 900 + b"}",
    "too deep": b'{"uuid":"u","eventType":"user.session.start","target":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "text in text": json.dumps(
        {"uuid": "u", "eventType": "user.session.start", "debugContext": {"debugData": {"risk": "{a=" * 20_000 + "}" * 20_000}}}
    ).encode(),
    "json in text": json.dumps(
        {"uuid": "u", "eventType": "user.session.start", "debugContext": {"debugData": {"risk": "[" * 60_000 + "]" * 60_000}}}
    ).encode(),
    "huge integer": b'{"uuid":"u","eventType":"user.session.start","securityContext":{"asNumber":' + b"9" * 5000 + b"}}",
    "lone surrogate": b'{"uuid":"u","eventType":"user.session.start","actor":{"id":"00u1","type":"User","alternateId":"\\ud800"},"outcome":{"result":"FAILURE","reason":"\\udfff"}}',
    "NUL": b'{"uuid":"u","eventType":"user.session.start","actor":{"alternateId":"a\\u0000b"},"outcome":{"result":"FAILURE"}}',
}


@pytest.mark.parametrize("name", DEEP)
def test_what_breaks_parsers(built_in: RuleSet, name: str) -> None:
    classifier = Classifier(built_in, LIFECYCLE)
    (row,) = classify_lines([DEEP[name]], classifier)
    assert (row["error"] or "").startswith("unreadable") == (name in ("too deep", "huge integer"))
    assert orjson.dumps(row)
    assert classifier.snapshot()


def test_a_lone_surrogate_in_a_group_survives_a_restart(built_in: RuleSet) -> None:
    raw = b'{"uuid":"u%d","eventType":"user.session.start","actor":{"id":"00u1","type":"User","alternateId":"\\ud800%d"},"client":{"ipAddress":"\\ud801"},"outcome":{"result":"FAILURE"},"published":"2026-01-01T00:00:0%d.000Z"}'
    classifier = Classifier(built_in, LIFECYCLE)
    for number in range(9):
        classifier.observe(decode(raw % (number, number, number)))
    Classifier(built_in, LIFECYCLE).restore(classifier.snapshot())
