"""`portcullis classify --json`: one dict a line, in order, with what D32 says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson

from rules.classify import Classifier
from rules.offline import classify_lines
from rules.ruleset import RuleSet
from tests.rules.build import LIFECYCLE, event

KEYS = ["line", "uuid", "event_type", "moment", "people", "decisions", "error"]
DECISION = ["rule", "title", "response", "severity", "person", "matched"]


def rows(*lines: bytes) -> list[dict[str, Any]]:
    return list(classify_lines(lines, Classifier(RuleSet.load(), LIFECYCLE)))


def test_one_row_a_line_in_order() -> None:
    risk = {"risk": "{previousLevel=LOW, level=HIGH, detectionName=X, reasons=New IP, New Device, issuer=OKTA}"}
    threat = event("user.risk.detect", 0, target=[{"id": "00uida", "type": "User"}], debugContext={"debugData": risk})
    lines = [
        orjson.dumps(event("user.lifecycle.create", 0, target=[{"id": "00uida", "type": "User"}])),
        b"",
        b"not json",
        b"[1]",
        b'{"eventType":"x"}',
        b'{"uuid":"u"}',
        orjson.dumps(threat) + b"\r\n",
    ]
    found = rows(*lines)
    assert [list(row) for row in found] == [KEYS] * 7
    assert [row["line"] for row in found] == list(range(1, 8))
    assert [(row["error"] or "").split(":")[0] for row in found] == [
        "",
        "unreadable",
        "unreadable",
        "not_an_object",
        "no_uuid",
        "no_event_type",
        "",
    ]
    assert (found[0]["moment"], found[0]["people"], found[0]["decisions"]) == ("join", ["00uida"], [])
    assert all(row["moment"] == "none" and row["people"] == [] and row["decisions"] == [] for row in found[1:6])
    assert found[6]["moment"] == "threat"
    (decision,) = found[6]["decisions"]
    assert list(decision) == DECISION
    assert (decision["rule"], decision["response"], decision["severity"], decision["person"]) == (
        "OKTA-001",
        "lockdown",
        "critical",
        "00uida",
    )


def test_age_plays_no_part() -> None:
    risk = {"risk": "{level=HIGH}"}
    old = event("user.risk.change", 0, target=[{"id": "00uida", "type": "User"}], debugContext={"debugData": risk}) | {
        "published": "2017-01-01T00:00:00.000Z"
    }
    assert rows(orjson.dumps(old))[0]["decisions"][0]["response"] == "lockdown"


def test_a_byte_order_mark_is_no_error() -> None:
    assert rows(b"\xef\xbb\xbf" + orjson.dumps(event("x", 0)))[0]["error"] is None


def test_a_correlation_stands_on_the_line_that_completes_it() -> None:
    lines = [orjson.dumps(event("user.account.lock", at, f"00u{at}", outcome={"result": "FAILURE"})) for at in range(6)]
    fired = [[one["rule"] for one in row["decisions"]] for row in rows(*lines)]
    single = ["OKTA-041.single"]
    assert fired == [single, single, single, single, [*single, "OKTA-041"], single]


def test_every_sample_is_classified(shared: Path) -> None:
    lines, wraps = [], []
    for path in sorted((shared / "samples").glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            wraps.append(json.loads(line))
            lines.append(json.dumps(wraps[-1]["event"]).encode())
    found = rows(*lines)
    assert len(found) == len(lines) > 150
    for row, wrap in zip(found, wraps, strict=True):
        malformed = not isinstance(wrap["event"].get("uuid"), str) or not isinstance(wrap["event"].get("eventType"), str)
        assert (row["error"] is not None) == malformed
        assert orjson.dumps(row)
