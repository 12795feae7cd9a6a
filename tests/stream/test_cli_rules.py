"""`portcullis rules …` as a human and a program meet it: what it prints, what it ends with, and what it reads from a real audit trail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from audit.client import ask
from audit.store import AuditStore
from model.decision import Moment, Response
from model.records import Decision, IncidentChanged
from rules.catalogue import Catalogue
from rules.ruleset import BUILT_IN, RuleSet
from stream import past
from stream.cli import main
from stream.past import Trail, firings, from_file, incidents
from tests.audit import trail
from tests.rules.test_catalogue import okta_csv

RISK = {"risk": "{level=HIGH, previousLevel=LOW, reasons=x}"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, with a wide terminal."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "300")
    return home


def run(*words: str, ends: int = 0) -> Result:
    result = CliRunner().invoke(main, ["rules", *words], env={"COLUMNS": "300"})
    assert result.exit_code == ends, f"{result.output}\n{result.stderr}\n{result.exception!r}"
    return result


def told(*words: str, ends: int = 0) -> Any:
    """The one JSON document on standard output."""
    return json.loads(run(*words, "--json", ends=ends).stdout)


def write(folder: Path, rule_id: str = "T-1", **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    document = {
        "title": rule_id,
        "logsource": {"product": "okta", "service": "okta"},
        "detection": {"selection": {"eventType": "user.session.start", "outcome.result": "SUCCESS"}, "condition": "selection"},
        "level": "high",
        "portcullis": {"id": rule_id, "person": "actor"} | changes.pop("portcullis", {}),
    }
    path = folder / f"{rule_id}.yml"
    path.write_text(yaml.safe_dump(document | changes, sort_keys=False), encoding="utf-8")
    return path


def case(folder: Path, rule_id: str, *cases: dict[str, Any]) -> None:
    (folder / f"{rule_id}.cases.jsonl").write_text("".join(json.dumps(one) + "\n" for one in cases), encoding="utf-8")


def sign_in(number: int, who: str = "00uann", **more: Any) -> dict[str, Any]:
    body = {"uuid": f"e-{number}", "eventType": "user.session.start", "published": f"2026-03-02T08:00:{number % 60:02d}.000Z"}
    return body | {"actor": {"id": who, "type": "User"}, "outcome": {"result": "SUCCESS"}} | more


def log_of(path: Path, *events: dict[str, Any] | str) -> str:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in events), encoding="utf-8")
    return str(path)


# --- list, show -----------------------------------------------------------------------------------------------------------


def test_list_names_every_rule_that_reports() -> None:
    reported = {rule.id for rule in RuleSet.load().reported}
    assert {row["id"] for row in told("list")} == reported
    text = run("list").stdout
    assert all(one in text for one in ("OKTA-001", "lockdown (full)", f"{len(reported)} rules, version "))


def test_list_shows_what_is_on_trial(tmp_path: Path) -> None:
    write(tmp_path / "mine", portcullis={"shadow": True, "response": "approve"})
    assert "approve, on trial" in run("list", "--rules", str(tmp_path / "mine")).stdout
    assert told("list", "--rules", str(tmp_path / "mine"))[0]["shadow"] is True


def test_show_by_any_name() -> None:
    shown = told("show", "OKTA-009")
    assert (shown["id"], shown["response"], shown["window_s"]) == ("OKTA-009", "lockdown", 3600)
    assert set(shown["refers"]) == {"okta_009_risky_sign_on", "okta_009_critical_operation"}
    assert told("show", shown["sigma_id"])["id"] == "OKTA-009"
    member = told("show", "okta_009_risky_sign_on")
    assert member["event_types"] == ["policy.evaluate_sign_on", "user.session.start"]
    assert "Undo the operation first" in run("show", "OKTA-009").stdout
    assert "no rule is called 'OKTA-999'" in run("show", "OKTA-999", ends=2).stderr


# --- lint ---------------------------------------------------------------------------------------------------------------------


def test_lint_of_our_own_rules_finds_nothing() -> None:
    found = told("lint")
    assert (found["problems"], found["errors"], found["catalogue"]) == ([], 0, Catalogue.load().release)
    assert "nothing is wrong" in run("lint").stdout


def test_lint_says_place_severity_and_remedy_and_ends_with_one(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    path = write(folder, detection={"s": {"eventType": "user.sesion.start", "outcome.result": "SUCCESS"}, "condition": "s"})
    found = told("lint", "--rules", str(folder), ends=1)
    by_code = {one["code"]: one for one in found["problems"]}
    assert set(by_code) == {"event-type", "no-cases"}
    assert by_code["event-type"] == {
        "path": str(path),
        "line": 7,
        "severity": "error",
        "code": "event-type",
        "rule": "T-1",
        "text": f"'user.sesion.start' is none of Okta's event types (catalogue {Catalogue.load().release})",
        "remedy": "did you mean user.session.start?",
    }
    assert (found["errors"], found["warnings"]) == (1, 1)
    text = run("lint", "--rules", str(folder), ends=1).stdout
    assert f"{path}:7: error [event-type]" in text
    assert "did you mean user.session.start?" in text


def test_warnings_count_unless_told_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write(folder)
    assert "warning [no-cases]" in run("lint", "--rules", str(folder), ends=1).stdout
    assert "warning [no-cases]" in run("lint", "--rules", str(folder), "--errors-only").stdout


def test_lint_goes_by_the_configuration_s_guards(tmp_path: Path, elsewhere: Path) -> None:
    (elsewhere / "guards.toml").write_text("[new_users]\ndays = 7\n", encoding="utf-8")
    (elsewhere / "portcullis.toml").write_text('[rules]\nguards = "guards.toml"\n', encoding="utf-8")
    found = told("lint")
    assert found["problems"] == []
    assert any("the guard NET guards nothing" in note for note in found["notes"])
    assert not any("NEWU" in note for note in found["notes"])
    (elsewhere / "guards.toml").unlink()
    assert "cannot be read" in run("lint", ends=2).stderr


def test_wrong_use_ends_with_two(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no rules" in run("lint", "--rules", str(tmp_path / "empty"), ends=2).stderr
    run("lint", "--rules", str(tmp_path / "nowhere"), ends=2)
    assert "no such file" in run("list", "--config", "nowhere.toml", ends=2).stderr
    write(tmp_path / "bad", detection={"s": {"actor.id|re": "(?=x)"}, "condition": "s"})
    assert "T-1.yml:7: " in run("test", "--rules", str(tmp_path / "bad"), ends=2).stderr


# --- test ----------------------------------------------------------------------------------------------------------------------


def test_our_own_cases_are_as_they_must_be() -> None:
    found = told("test")
    assert found["cases"] > 100
    assert found["failed"] == []


def test_a_case_that_fails_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write(folder)
    failed = sign_in(2) | {"outcome": {"result": "FAILURE"}}
    case(
        folder,
        "T-1",
        {"case": "signs in", "fires": ["T-1"], "events": [sign_in(1)]},
        {"case": "fails", "fires": ["T-1"], "events": [failed, sign_in(3) | {"eventType": "user.session.end"}]},
        {"case": "must be quiet", "fires": [], "events": [sign_in(4)]},
    )
    found = told("test", "--rules", str(folder), ends=1)
    assert found["cases"] == 3
    first, second = found["failed"]
    assert (first["line"], first["problem"], first["expected"], first["fired"]) == (2, "did not fire: T-1", ["T-1"], [])
    assert first["because"] == [
        "T-1: event 1: outcome.result is 'FAILURE'",
        "T-1: event 2: the rule does not ask about user.session.end",
    ]
    assert (second["line"], second["problem"]) == (3, "fired, though it must be quiet: T-1")
    text = run("test", "--rules", str(folder), ends=1).stdout
    assert f"{folder / 'T-1.cases.jsonl'}:2: fails" in text
    assert "outcome.result is 'FAILURE'" in text
    assert "1 of 3 cases" in text


def test_a_correlation_that_fails_says_how_often_its_rules_matched(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(BUILT_IN / "accounts_locked_out.yml", folder)
    lock = sign_in(1) | {"eventType": "user.account.lock"}
    case(folder, "accounts_locked_out", {"case": "two", "fires": ["OKTA-041", "OKTA-041.single", "gone"], "events": [lock, lock]})
    (failure,) = told("test", "--rules", str(folder), ends=1)["failed"]
    assert failure["because"] == ["gone: there is no such rule", "OKTA-041: okta_041_locked_out matches 2 of 2 events"]


def test_cases_of_a_rule_on_trial_run_as_well(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write(folder, portcullis={"shadow": True})
    case(folder, "T-1", {"case": "signs in", "fires": ["T-1"], "events": [sign_in(1)]}, {"case": "no", "fires": ["T-1"], "events": [{"uuid": "1", "eventType": "x.y"}]})  # fmt: skip
    assert len(told("test", "--rules", str(folder), ends=1)["failed"]) == 1


def test_nothing_shown_is_said(tmp_path: Path) -> None:
    write(tmp_path / "mine")
    assert "nothing was shown" in run("test", "--rules", str(tmp_path / "mine")).stdout


# --- refresh ---------------------------------------------------------------------------------------------------------------------


def test_refresh_writes_where_it_is_told(tmp_path: Path) -> None:
    source = okta_csv(tmp_path / "okta.csv", '"user.new.thing","New","2026.09.2","",""')
    out = tmp_path / "catalogue.csv"
    text = run("refresh-catalogue", str(source), "--out", str(out)).stdout
    assert "none → 2026.09.2: 501 new, 0 gone" in text
    assert "user.new.thing" in Catalogue.load(out)
    folder = tmp_path / "mine"
    write(folder, detection={"s": {"eventType": "user.new.thing", "outcome.result": "SUCCESS"}, "condition": "s"})
    assert [one["code"] for one in told("lint", "--rules", str(folder), "--catalogue", str(out), ends=1)["problems"]] == ["no-cases"]
    assert "not Okta's list" in run("refresh-catalogue", str(out), "--out", str(tmp_path / "other.csv"), ends=2).stderr


# --- backtest: a file ---------------------------------------------------------------------------------------------------------------


def test_backtest_of_a_file_with_the_rules_of_today(tmp_path: Path) -> None:
    risk = {"eventType": "user.risk.detect", "debugContext": {"debugData": RISK}, "target": [{"id": "00uann", "type": "User"}]}
    events = log_of(tmp_path / "log.jsonl", sign_in(1), "", "no json", sign_in(2) | risk)
    found = told("backtest", "--events", events)
    assert found["fired"] == {"OKTA-001": 1}
    assert (found["locked"], found["brakes"], found["added"], found["removed"]) == (["00uann"], [], [], [])
    assert (found["events"], found["malformed"]) == (2, 1)
    text = run("backtest", "--events", events).stdout
    assert all(one in text for one in ("OKTA-001", "user risk raised to HIGH", "00uann", "2 events", "the first is number 2"))


def test_backtest_of_candidates_shows_the_difference_and_the_brakes(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write(folder, portcullis={"response": "lockdown", "scope": "full"})
    events = log_of(tmp_path / "log.jsonl", *(sign_in(number, f"00u{number}") for number in range(8)))
    found = told("backtest", "--events", events, "--rules", str(folder))
    assert found["fired"] == {"T-1": 8}
    assert found["locked"] == [f"00u{number}" for number in range(5)]
    assert [(one["brake"], one["held"]) for one in found["brakes"]] == [("lockdown:default", 3)]
    assert [(one["rule"], one["person"]) for one in found["added"]] == [("T-1", f"00u{number}") for number in range(8)]
    assert found["removed"] == []
    assert len(told("backtest", "--events", events, "--rules", str(folder), "--active", "200")["locked"]) == 4
    text = run("backtest", "--events", events, "--rules", str(folder)).stdout
    assert all(one in text for one in ("Would be locked", "Brakes that would trip", "New findings", "Findings that would be gone: none"))


def test_backtest_goes_by_the_configuration(tmp_path: Path, elsewhere: Path) -> None:
    folder = tmp_path / "mine"
    write(folder, portcullis={"response": "lockdown"})
    (elsewhere / "protected.toml").write_text('[[person]]\ntenant = "acme"\nid = "00u1"\nreason = "glass"\n', encoding="utf-8")
    (elsewhere / "portcullis.toml").write_text(
        f'[okta.acme]\nurl = "https://acme.okta.com"\ntoken_env = "T"\n\n[rules]\ndetections = "{folder}"\n\n'
        '[safety]\nprotected = "protected.toml"\n\n[safety.brakes]\nlockdown_count = 2\n',
        encoding="utf-8",
    )
    events = log_of(tmp_path / "log.jsonl", *(sign_in(number, f"00u{number}") for number in range(4)))
    found = told("backtest", "--events", events)
    assert (found["fired"], found["locked"]) == ({"T-1": 4}, ["00u0", "00u2"])
    assert [one["brake"] for one in found["brakes"]] == ["lockdown:acme"]
    (elsewhere / "protected.toml").write_text("", encoding="utf-8")
    result = run("backtest", "--events", events, "--json")
    assert "until then every lockdown waits for approval" in result.stderr
    assert json.loads(result.stdout)["locked"] == ["00u0", "00u1"], "what the rules ask for is shown all the same"


def test_a_byte_order_mark_and_windows_lines_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(sign_in(1)).encode() + b"\r\n\r\n" + json.dumps(sign_in(2)).encode())
    found = list(from_file(path, "acme"))
    assert [json.loads(one.raw)["uuid"] for one in found] == ["e-1", "e-2"]
    assert {one.tenant for one in found} == {"acme"}


@pytest.mark.parametrize(
    "words",
    [
        ("backtest",),
        ("backtest", "--events", "log.jsonl", "--since", "-7d"),
        ("backtest", "--since", "yesterday"),
        ("backtest", "--since", "2026-03-02T00:00:00Z", "--until", "2026-03-01T00:00:00Z"),
        ("backtest", "--events", "nowhere.jsonl"),
        ("promotion", "--since", "now", "--until", "-1d"),
    ],
)
def test_wrong_use_of_a_backtest_ends_with_two(words: tuple[str, ...], elsewhere: Path) -> None:
    log_of(elsewhere / "log.jsonl", sign_in(1))
    run(*words, ends=2)


# --- the audit trail ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def audited(tmp_path: Path, elsewhere: Path) -> Callable[[trail.Log], Path]:
    """Writes a log into an audit file and names it in the configuration."""

    def written(log: trail.Log) -> Path:
        path = tmp_path / "audit.duckdb"
        with AuditStore(path, "one") as store:
            store.write(log.records)
        (elsewhere / "portcullis.toml").write_text(f'[audit]\npath = "{path}"\n', encoding="utf-8")
        return path

    return written


def test_events_of_the_trail_are_played_in_pages_in_their_exact_bytes(
    tmp_path: Path, audited: Callable[[trail.Log], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "PAGE", 7)
    log = trail.Log()
    raws: dict[str, list[bytes]] = {"red": [], "blue": []}
    for number in range(40):
        tenant, partition = ("red", 0) if number % 3 else ("blue", 1)
        raw = trail.event(f"u{number}", seconds=number, odd='" \\ ü \u0000')
        raws[tenant].append(raw)
        log.source(raw, key=tenant.encode(), partition=partition, seconds=number)
        if number % 10 == 5:
            log.source(b"no event", key=tenant.encode(), partition=partition, seconds=number)
            log.gap(trail.SOURCE, partition, of=9)
    path = audited(log)

    def asked(query: str) -> list[dict[str, Any]]:
        return ask(path, query)

    every = list(Trail(asked, trail.at(-10), trail.at(100)))
    assert {tenant: [one.raw for one in every if one.tenant == tenant] for tenant in raws} == raws
    assert all(one.received is not None for one in every)
    some = Trail(asked, trail.at(10), trail.at(20))
    assert sorted(json.loads(one.raw)["uuid"] for one in some) == sorted(f"u{number}" for number in range(10, 20))
    assert len(some) == 10
    assert list(Trail(asked, trail.at(500), trail.at(600))) == []


def test_backtest_over_a_time_range_of_the_trail(tmp_path: Path, audited: Callable[[trail.Log], Path]) -> None:
    log = trail.Log()
    for number in range(6):
        log.source(json.dumps(sign_in(number, f"00u{number}") | {"published": trail.at(number).isoformat()}).encode(), seconds=90 * 86_400)
    audited(log)
    write(tmp_path / "mine", portcullis={"response": "lockdown"})
    found = told("backtest", "--since", trail.at(1).isoformat(), "--until", trail.at(4).isoformat(), "--rules", str(tmp_path / "mine"))
    assert found["locked"] == ["00u1", "00u2", "00u3"], "however long ago they were read, they are judged at their own time"
    assert (found["events"], found["fired"]) == (3, {"T-1": 3})
    text = run("backtest", "--since", trail.at(1).isoformat(), "--until", trail.at(4).isoformat(), "--rules", str(tmp_path / "mine")).stdout
    assert "3 events" in text


def test_without_a_trail_it_is_said_what_to_do() -> None:
    assert "no audit file yet" in run("backtest", "--since", "-7d", ends=2).stderr
    assert "no audit file yet" in run("promotion", ends=2).stderr


# --- promotion ---------------------------------------------------------------------------------------------------------------------------


def shadowed(number: int, person: str | None = "00uann", *, seconds: float = 0, why: str = "shadow", rule: str = "T-1") -> Decision:
    found = trail.decision(f"e{number}", rule=rule, person=person, seconds=seconds, id=f"d{number}")
    return found.model_copy(update={"response": Response.ALERT, "asked": Response.LOCKDOWN, "why": why, "shadow": True})


def incident(person: str, seconds: float, state: Any = "open") -> IncidentChanged:
    opened: datetime = trail.at(seconds)
    return IncidentChanged(
        id=f"i-{person}", tenant="default", at=opened, incident=f"i-{person}", person=person, state=state, opened=opened
    )  # fmt: skip


def test_promotion_reports_what_the_trail_holds(
    tmp_path: Path, audited: Callable[[trail.Log], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "PAGE", 3)
    log = trail.Log()
    for number in range(8):
        one = shadowed(number, f"00u{number}", seconds=number)
        log.audit(trail.classified(f"e{number}", Moment.NONE, [f"00u{number}"], one, seconds=number), seconds=number)
    lowered = shadowed(20, "00ubob", seconds=20, why="shadow: approve (BG: is on the protected list)")
    real = trail.decision("e21", rule="T-1", person="00ubob", seconds=21, id="d21")
    late = shadowed(22, "00ulate", seconds=90_000)
    for at, decision in ((20, lowered), (21, real), (90_000, late)):
        log.audit(trail.classified(decision.event_uuid, Moment.NONE, [str(decision.person)], decision, seconds=at), seconds=at)
    log.audit(incident("00u3", 600), seconds=600)
    log.audit(incident("00u4", 60_000), seconds=60_000)
    path = audited(log)
    write(tmp_path / "mine", "T-1", portcullis={"shadow": True, "response": "lockdown"})
    write(tmp_path / "mine", "T-2", portcullis={"shadow": True})
    words = ("promotion", "--since", trail.at(0).isoformat(), "--until", trail.at(3600).isoformat(), "--rules", str(tmp_path / "mine"))
    found = told(*words)
    first, second = found["rules"]
    assert (first["rule"], first["fired"], first["people"]) == ("T-1", 9, 9)
    assert first["would"] == {"lockdown": 8, "approve": 1}
    assert first["lowered"] == [{"reason": "BG: is on the protected list", "fired": 1}]
    assert (first["incidents"], first["with_incident"]) == (1, 1)
    assert [one["tenant"] for one in first["brakes"]] == ["default"], "eight people in eight seconds are more than five"
    assert (second["rule"], second["fired"]) == ("T-2", 0)
    text = run(*words).stdout
    assert all(one in text for one in ("T-1 (changed meanwhile)", "8 lockdown, 1 approve", "BG: is on the protected list (1)"))

    def asked(query: str) -> list[dict[str, Any]]:
        return ask(path, query)

    assert len(list(firings(asked, trail.at(0), trail.at(100_000)))) == 10
    assert len(list(incidents(asked, trail.at(0), trail.at(0) + timedelta(days=2)))) == 2


def test_nothing_on_trial_is_said(audited: Callable[[trail.Log], Path]) -> None:
    audited(trail.Log())
    assert "no rule is on trial, and none was" in run("promotion").stdout
    assert told("promotion")["rules"] == []
