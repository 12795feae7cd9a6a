"""Each feature of Sigma means what the table says; what is refused is refused at load, with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from model.errors import ConfigurationError
from rules.classify import Classifier
from rules.lifecycle import Lifecycle
from rules.ruleset import RuleSet
from tests.rules.conformance import PAGE, PLACEHOLDERS, Group, groups, page

GROUPS = groups()


def load(tmp_path: Path, group: Group) -> RuleSet:
    (tmp_path / "rule.yml").write_text(yaml.safe_dump(group.rule, allow_unicode=True), encoding="utf-8")
    return RuleSet.load(tmp_path, PLACEHOLDERS)


def fires(ruleset: RuleSet, event: dict[str, Any]) -> bool:
    """Both ways must agree: the whole expression, and the plan of the event's type."""
    full = {"uuid": "u", "eventType": "test.event"} | event
    (rule,) = ruleset.rules
    assert rule.expression is not None
    by_type = bool(Classifier(ruleset, Lifecycle.load()).verdict(full).findings)
    assert by_type == rule.expression.matches(full)
    return by_type


@pytest.mark.parametrize("group", [g for g in GROUPS if g.refused is None], ids=lambda g: f"{g.number}-{g.feature}")
def test_matches_what_it_means(tmp_path: Path, group: Group) -> None:
    ruleset = load(tmp_path, group)
    for event in group.yes:
        assert fires(ruleset, event), f"must match {event}"
    for event in group.no:
        assert not fires(ruleset, event), f"must not match {event}"


@pytest.mark.parametrize("group", [g for g in GROUPS if g.refused is not None], ids=lambda g: f"{g.number}-{g.feature}")
def test_refuses_what_it_cannot_honour(tmp_path: Path, group: Group) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, group)
    path, line, reason = str(caught.value).split(":", 2)
    assert path == str(tmp_path / "rule.yml")
    assert int(line) >= 1
    assert group.refused is not None
    assert group.refused in reason


def test_there_are_enough_cases() -> None:
    assert sum(group.size for group in GROUPS) >= 80
    assert all(group.yes and group.no for group in GROUPS if group.refused is None)


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.rules.conformance"
