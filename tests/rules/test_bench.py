"""The bench runs, says what it measures, and ends with one JSON object; figures are the business of a quiet machine, not of this test."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from bench import classify
from bench.events import synthetic
from bench.plain import functions_loop, pysigma_loop
from model.event import decode
from rules.classify import Classifier
from rules.ruleset import RuleSet
from tests.rules.build import LIFECYCLE


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    monkeypatch.setattr("sys.argv", ["classify", *arguments])
    monkeypatch.setattr(classify, "ROUNDS", 1)
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda *_: None)
    code = classify.main()
    result: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return code, result


def test_the_made_up_log_is_a_log() -> None:
    events = [decode(line) for line in synthetic(500)]
    assert len({event["uuid"] for event in events}) == 500
    assert list(synthetic(50)) == list(synthetic(50))
    assert 2_400 < sum(len(line) for line in synthetic(500)) / 500 < 3_000


def test_side_by_side(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, result = run(monkeypatch, capsys, "--count", "400", "--peers", str(tmp_path / "none"))
    assert code == 0, "only --judge makes a missed target an error"
    figures = result["events_per_cpu_s"]
    assert isinstance(figures, dict)
    assert {
        "json alone",
        "portcullis",
        "portcullis, single events",
        "a loop of Python functions",
        "pySigma's trees, no index",
    } <= figures.keys()
    assert all(figure > 0 for figure in figures.values())
    assert result["peers"] == {name: {"absent": f"not measured: no {tmp_path / 'none'}"} for name in ("azuma", "sigma-rule-matcher")}


def test_a_folder_and_a_file_of_ones_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(
        "title: T\nname: t\nlogsource: {product: okta}\ndetection: {s: {eventType: user.session.start}, condition: s}\n", encoding="utf-8"
    )
    (tmp_path / "e.jsonl").write_bytes(b"\n".join([*synthetic(100), b"not json"]))
    _, result = run(monkeypatch, capsys, "--rules", str(tmp_path), "--events", str(tmp_path / "e.jsonl"), "--peers", str(tmp_path))
    assert result["events"] == 100
    assert result["rules"] == {"reported": 1, "asked": 1}


def test_soak_watches_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, result = run(monkeypatch, capsys, "--soak", "1000")
    sizes = result["bytes"]
    assert isinstance(sizes, list)
    assert len(sizes) == 10


def test_a_broken_rule_ends_with_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text("title: T\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["classify", "--rules", str(tmp_path)])
    assert classify.main() == 2


def test_the_ways_beside_ours_find_what_ours_finds() -> None:
    """A bench that compares with something that does nothing would flatter us."""
    cases = Path(__file__).parents[2] / "rules" / "detections"
    events = [
        event
        for path in sorted(cases.glob("*.cases.jsonl"))
        for line in path.read_bytes().splitlines()
        for event in orjson.loads(line)["events"]
    ]
    ruleset = RuleSet.load()
    ours = Classifier(ruleset, LIFECYCLE)
    found = sum(len(ours.verdict(event).findings) for event in events)
    assert sum(functions_loop(event) for event in events) > found * 0.8
    trees = pysigma_loop([rule for path in sorted(cases.glob("*.yml")) for rule in classify._sigma_rules(path)])
    assert sum(trees(event) for event in events[::20]) > 0
