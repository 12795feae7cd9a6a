"""The life-cycle table is the shared one, and refuses what it cannot read."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from model.decision import Moment
from model.errors import ConfigurationError
from rules.lifecycle import DEFAULT, Lifecycle


def test_says_what_the_normative_table_says(shared: Path) -> None:
    lifecycle = Lifecycle.load()
    with (shared / "detections" / "lifecycle-events.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["eventType"] for row in rows} == lifecycle.event_types
    for row in rows:
        assert lifecycle.of(row["eventType"]) == (Moment(row["moment"]), row["person"])


def test_types_that_are_not_in_the_table_have_no_moment() -> None:
    assert Lifecycle.load().of("user.session.start") == DEFAULT == (Moment.NONE, "target-or-actor")
    assert Lifecycle.load().of("USER.LIFECYCLE.CREATE") == DEFAULT, "Okta writes its types in one way"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("type,moment,person\n", "the columns must be"),
        ("event_type,moment,person\nx.y,join\n", "moment one of"),
        ("event_type,moment,person\nx.y,threat,target\n", "moment one of"),
        ("event_type,moment,person\nx.y,join,everybody\n", "person one of"),
        ("event_type,moment,person\nx.y,join,target\nx.y,leave,target\n", ":3: 'x.y' is empty or there already"),
        ("event_type,moment,person\n,join,target\n", ":2: '' is empty"),
    ],
)
def test_refuses_with_the_place(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "lifecycle.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        Lifecycle.load(path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Lifecycle.load(tmp_path / "none.csv")
