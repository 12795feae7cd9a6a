"""Correlations against a slow statement of what they mean, and what holds for all of them: order of arrival within the grace, repeats, and a
restart in the middle change nothing; memory is bounded."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rules.classify import Classifier
from rules.ruleset import RuleSet
from tests.rules.build import LIFECYCLE, correlation, event, event_rule, observed, ruleset

SPAN = 20
COUNT = correlation(
    "count", {"type": "event_count", "rules": ["x"], "group-by": ["actor.id"], "timespan": f"{SPAN}s", "condition": {"gte": 3}}
)
VALUES = correlation(
    "values",
    {
        "type": "value_count",
        "rules": ["x"],
        "group-by": ["actor.id"],
        "timespan": f"{SPAN}s",
        "condition": {"field": "client.ip", "gte": 3},
    },
    portcullis={"window": {"grace": f"{SPAN}s"}},
)
TOGETHER = correlation("together", {"type": "temporal", "rules": ["x", "y"], "group-by": ["actor.id"], "timespan": f"{SPAN}s"})
ORDERED = correlation("ordered", {"type": "temporal_ordered", "rules": ["x", "y", "z"], "group-by": ["actor.id"], "timespan": f"{SPAN}s"})

moments = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(0, 90), st.sampled_from(("a", "b")), st.sampled_from("1234")), min_size=0, max_size=25
)
checked = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> RuleSet:
    folder = tmp_path_factory.mktemp("rules")
    return ruleset(folder, event_rule("x"), event_rule("y"), event_rule("z"), COUNT, VALUES, TOGETHER, ORDERED)


def events_of(drawn: list[tuple[str, int, str, str]]) -> list[dict[str, Any]]:
    """Times made distinct, so that order is never a matter of arrival."""
    return [event(kind, at + number / 1000, who, uuid=f"e{number}", client={"ip": ip}) for number, (kind, at, who, ip) in enumerate(drawn)]


def times(drawn: list[tuple[str, int, str, str]], who: str) -> list[tuple[float, str, str]]:
    return sorted((at + number / 1000, kind, ip) for number, (kind, at, person, ip) in enumerate(drawn) if person == who)


def means(drawn: list[tuple[str, int, str, str]], who: str) -> set[str]:
    """The correlations that some window of this person satisfies."""
    own = times(drawn, who)
    found = set()
    for first, _, _ in own:
        inside = [one for one in own if first <= one[0] <= first + SPAN]
        xs = [one for one in inside if one[1] == "x"]
        if len(xs) >= 3:
            found.add("count")
        if len({ip for _, _, ip in xs}) >= 3:
            found.add("values")
        if {"x", "y"} <= {kind for _, kind, _ in inside}:
            found.add("together")
    for one, two, three in combinations(own, 3):
        if (one[1], two[1], three[1]) == ("x", "y", "z") and three[0] - one[0] <= SPAN:
            found.add("ordered")
    return found


def fired(classifier: Classifier, events: list[dict[str, Any]]) -> set[tuple[str, str | None]]:
    return {(one.rule, one.person) for single in events for one in classifier.observe(single).findings}


@given(moments)
@checked
def test_in_order_it_fires_where_a_window_says_so_and_nowhere_else(rules: RuleSet, drawn: list[tuple[str, int, str, str]]) -> None:
    events = sorted(events_of(drawn), key=lambda one: str(one["published"]))
    expected = {(rule, who) for who in ("a", "b") for rule in means(drawn, who)}
    assert fired(Classifier(rules, LIFECYCLE), events) == expected


@given(moments)
@checked
def test_order_of_arrival_within_the_grace_changes_nothing(rules: RuleSet, drawn: list[tuple[str, int, str, str]]) -> None:
    """All times lie within 90 s and the grace is 120 s, save for `values`, where it is the span: that one may only see less."""
    expected = {(rule, who) for who in ("a", "b") for rule in means(drawn, who)}
    found = fired(Classifier(rules, LIFECYCLE), events_of(drawn))
    assert found <= expected
    assert {one for one in expected if one[0] != "values"} <= found


@given(moments, st.integers(0, 24))
@checked
def test_a_restart_in_the_middle_changes_nothing(rules: RuleSet, drawn: list[tuple[str, int, str, str]], cut: int) -> None:
    events = sorted(events_of(drawn), key=lambda one: str(one["published"]))
    whole = observed(Classifier(rules, LIFECYCLE), *events)
    before = Classifier(rules, LIFECYCLE)
    first = observed(before, *events[:cut])
    after = Classifier(rules, LIFECYCLE)
    assert after.restore(before.snapshot()) == ()
    assert first + observed(after, *events[cut:]) == whole


@given(moments)
@checked
def test_a_redelivered_event_says_the_same_again_and_counts_once(rules: RuleSet, drawn: list[tuple[str, int, str, str]]) -> None:
    events = sorted(events_of(drawn), key=lambda one: str(one["published"]))
    once = observed(Classifier(rules, LIFECYCLE), *events)
    twice = Classifier(rules, LIFECYCLE)
    for one, wanted in zip(events, once, strict=True):
        first = [found.rule for found in twice.observe(one).findings]
        again = [found.rule for found in twice.observe(one).findings]
        assert sorted(first) == sorted(wanted)
        assert sorted(again) == sorted(wanted)


@given(moments)
@checked
def test_one_alert_a_window(rules: RuleSet, drawn: list[tuple[str, int, str, str]]) -> None:
    classifier = Classifier(rules, LIFECYCLE)
    alerts: dict[tuple[str, str | None], list[float]] = {}
    for number, (kind, at, who, ip) in enumerate(sorted(drawn, key=lambda one: one[1])):
        for one in classifier.observe(event(kind, at, who, uuid=f"e{number}", client={"ip": ip})).findings:
            alerts.setdefault((one.rule, one.person), []).append(at)
    for found in alerts.values():
        assert all(later - earlier > SPAN for earlier, later in pairwise(found))


def test_groups_are_bounded_and_what_is_forgotten_is_counted(tmp_path: Path) -> None:
    bounded = correlation(
        "c",
        {"type": "event_count", "rules": ["x"], "group-by": ["actor.id"], "timespan": "1h", "condition": {"gte": 2}},
        portcullis={"window": {"max_groups": 100}},
    )
    classifier = Classifier(ruleset(tmp_path, event_rule("x"), bounded), LIFECYCLE)
    for number in range(1000):
        classifier.observe(event("x", number / 10, f"u{number}"))
    node = classifier.correlator.nodes["c"]
    assert len(node.groups) == 100
    assert classifier.correlator.forgotten == {"c": 900}
    assert observed(classifier, event("x", 101, "u999")) == [["c"]], "the latest groups are the ones that are kept"


def test_groups_that_are_over_go_by_themselves(tmp_path: Path) -> None:
    rule = correlation("c", {"type": "event_count", "rules": ["x"], "group-by": ["actor.id"], "timespan": "10s", "condition": {"gte": 2}})
    classifier = Classifier(ruleset(tmp_path, event_rule("x"), rule), LIFECYCLE)
    for number in range(20_000):
        classifier.observe(event("x", number, f"u{number}"))
    assert len(classifier.correlator.nodes["c"].groups) < 400, "a span of 10 s and a grace of 120 s hold 130 groups at one a second"
    assert classifier.correlator.forgotten == {}


def test_events_of_one_group_are_bounded(tmp_path: Path) -> None:
    rule = correlation(
        "c",
        {"type": "value_sum", "rules": ["x"], "group-by": ["actor.id"], "timespan": "1h", "condition": {"field": "n", "gt": 1_000_000}},
        portcullis={"window": {"max_events": 50}},
    )
    classifier = Classifier(ruleset(tmp_path, event_rule("x"), rule), LIFECYCLE)
    for number in range(500):
        classifier.observe(event("x", number / 100, n=1))
    (_, window), *_ = classifier.correlator.nodes["c"].groups.items()
    assert len(window.entries) == 50


def test_a_changed_rule_begins_anew_and_the_others_go_on(tmp_path: Path) -> None:
    def rules_with(limit: int) -> RuleSet:
        other = correlation("other", {"type": "event_count", "rules": ["y"], "timespan": "60s", "condition": {"gte": 2}})
        changed = correlation("changed", {"type": "event_count", "rules": ["x"], "timespan": "60s", "condition": {"gte": limit}})
        return ruleset(tmp_path, event_rule("x"), event_rule("y"), changed, other)

    before = Classifier(rules_with(2), LIFECYCLE)
    observed(before, event("x", 0), event("y", 0))
    after = Classifier(rules_with(3), LIFECYCLE)
    assert after.restore(before.snapshot()) == ("changed",)
    assert observed(after, event("x", 1), event("y", 1)) == [[], ["other"]]


def test_a_broken_snapshot_is_refused() -> None:
    classifier = Classifier(RuleSet([]), LIFECYCLE)
    for broken in (b"", b"\x00\x00\x00\x09{}", b"\x00\x00\x00\x00not zlib", classifier.snapshot()[:-3]):
        with pytest.raises(ValueError):
            Classifier(RuleSet([]), LIFECYCLE).restore(broken)
