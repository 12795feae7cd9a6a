"""Each feature of correlations means what the table says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.errors import ConfigurationError
from rules.classify import Classifier
from tests.rules.build import LIFECYCLE, event, event_rule, ruleset
from tests.rules.conformance import correlation_rows

ROWS = correlation_rows()
SOURCE = {"logsource": {"product": "okta", "service": "okta"}}


def documents(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A text in `rules` is a rule for that event type; what is no correlation gets the log source."""
    made = []
    for one in row["rules"]:
        if isinstance(one, str):
            made.append(event_rule(one))
        else:
            made.append({"title": one["name"]} | ({} if "correlation" in one else SOURCE) | one)
    return made


@pytest.mark.parametrize("row", [r for r in ROWS if "refused" not in r], ids=lambda r: f"{r['feature']}: {r['means']}")
def test_fires_when_it_must(tmp_path: Path, row: dict[str, Any]) -> None:
    classifier = Classifier(ruleset(tmp_path, *documents(row)), LIFECYCLE)
    fired: dict[int, list[str]] = {}
    people: dict[int, list[str | None]] = {}
    reported = {rule.id for rule in classifier.ruleset.reported}
    for number, (kind, at, who, *more) in enumerate(row["events"]):
        found = classifier.observe(event(kind, at, who, **(more[0] if more else {}))).findings
        assert {one.rule for one in found} <= reported
        fired[number] = [one.rule for one in found]
        people[number] = [one.person for one in found]
    correlations = {one["name"] for one in row["rules"] if not isinstance(one, str)}
    wanted = {int(number): rules for number, rules in row["fires"].items()}
    for number, rules in fired.items():
        assert sorted(set(rules) & correlations) == sorted(set(wanted.get(number, ())) & correlations), (number, rules)
    for number, rules in wanted.items():
        assert sorted(fired[number]) == sorted(rules)
    for number, who in row.get("people", {}).items():
        assert people[number] == who


@pytest.mark.parametrize("row", [r for r in ROWS if "refused" in r], ids=lambda r: r["feature"])
def test_refuses(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ruleset(tmp_path, *documents(row))
    assert str(caught.value).startswith(f"{tmp_path / 'rules.yml'}:")
    assert row["refused"] in str(caught.value)
