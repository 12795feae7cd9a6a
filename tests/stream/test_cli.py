"""The command line as a user meets it: help, one clear line for a mistake, exit codes, and JSON that a program may rely on."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from stream.cli import main
from stream.cli.common import Seldom, inert
from tests.stream.backstage import Backstage, backstage
from tests.support.kafka import free_port


def ask(*args: object) -> Result:
    """As `portcullis ARGS`: also with the way in which errors end a command."""
    return CliRunner().invoke(main, [str(arg) for arg in args])


def answered(*args: object, code: int = 0) -> Result:
    result = ask(*args)
    assert result.exit_code == code, f"{result.exit_code}: {result.output}"
    return result


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backstage]:
    """A quiet company at all vendors."""
    with backstage(tmp_path_factory.mktemp("stage"), scenario="quiet") as one:
        yield one


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)


# --- help -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path, _ in commands(main)], ids=lambda path: " ".join(path) or "portcullis")
def test_every_command_says_what_it_does_and_what_each_option_is(path: tuple[str, ...]) -> None:
    output = answered(*path, "--help").output
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[-1] in output
            assert parameter.help or parameter.name == "help", f"{' '.join(path)} {parameter.opts[-1]} says nothing"
    if isinstance(command, click.Group):
        assert all(name in output for name in command.commands)


def test_the_commands_of_the_contract_are_there() -> None:
    there = {" ".join(path) for path, _ in commands(main)}
    wanted = {"demo", "run", "simulate", "verify-day", "link", "audit verify", "audit sql", "classify", "plan", "check", "release"}
    wanted |= {"parked list", "parked show", "parked redrive", "parked drop", "brakes list", "brakes reset", "rules lint", "rules test"}
    assert wanted <= there


def test_wrong_use_ends_with_two() -> None:
    for args in (["nonsense"], ["run", "--role", "cook"], ["run", "--until-idle", "-1"], ["audit", "sql"], ["simulate", "--rate", "0"]):
        assert ask(*args).exit_code == 2


# --- configuration ----------------------------------------------------------------------------------------------------------------


CONFIGURED = [
    ("run",),
    ("plan", "00u1"),
    ("link",),
    ("parked", "list"),
    ("brakes", "list"),
    ("release", "x", "--actor", "a", "--reason", "b"),
    ("audit", "verify"),
    ("audit", "sql", "SELECT 1"),
    ("verify-day",),
]


@pytest.mark.parametrize("args", CONFIGURED, ids=lambda args: args[0])
def test_a_misspelt_key_ends_every_command_with_two_and_the_nearest_name(tmp_path: Path, args: tuple[str, ...]) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text("[safety]\nprotectd = 'x'\n")
    result = answered(*args, "--config", config, code=2)
    assert "unknown key safety.protectd: did you mean protected?" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("args", CONFIGURED, ids=lambda args: args[0])
def test_a_missing_file_says_how_to_get_one(args: tuple[str, ...]) -> None:
    result = answered(*args, "--config", "nowhere.toml", code=2)
    assert "no such file" in result.output
    assert "simulate --write-config" in result.output


def test_one_role_needs_a_real_broker(stage: Backstage) -> None:
    result = answered("run", "--role", "poller", "--config", stage.config, code=2)
    assert "set [kafka] bootstrap" in result.output


@pytest.mark.parametrize("args", [("parked", "list"), ("brakes", "list"), ("release", "x", "--actor", "a", "--reason", "b")])
def test_the_embedded_broker_cannot_be_ordered_from_outside(stage: Backstage, args: tuple[str, ...]) -> None:
    result = answered(*args, "--config", stage.config, code=2)
    assert "cannot be reached from another process" in result.output


def test_orders_name_an_actor_and_a_reason(stage: Backstage) -> None:
    for args in (["release", "x"], ["parked", "drop", "x"], ["brakes", "reset", "lockdown:acme"]):
        assert ask(*args, "--config", stage.config).exit_code == 2
    result = answered("link", "--apply", "--config", stage.config, code=2)
    assert "--actor and --reason" in result.output
    assert answered("brakes", "reset", "typo", "--actor", "a", "--reason", "b", "--config", stage.config, code=2).output


# --- classify ---------------------------------------------------------------------------------------------------------------------


LINES = [
    b'{"uuid": "e-1", "eventType": "user.lifecycle.deactivate", "target": [{"type": "User", "id": "00u1"}]}',
    b"{",
    b"",
    b'{"uuid": "e-2", "eventType": "never.heard.of"}',
    b'{"uuid": "e-3", "eventType": "user.risk.detect", "displayName": "\xff"}',
    b"[" * 100_000,
    b'{"uuid": "e-4", "eventType": "user.test", "displayMessage": "\\ud800"}',
]


def test_classify_gives_one_line_for_each_line_in_order(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(LINES) + b"\n")
    rows = [json.loads(line) for line in answered("classify", file, "--json").stdout.splitlines()]
    assert [row["line"] for row in rows] == list(range(1, len(LINES) + 1))
    keys = {"line", "uuid", "event_type", "moment", "people", "decisions", "error"}
    assert all(keys <= set(row) for row in rows)
    assert (rows[0]["uuid"], rows[0]["moment"], rows[0]["people"], rows[0]["error"]) == ("e-1", "leave", ["00u1"], None)
    assert [row["error"] is not None for row in rows] == [False, True, True, False, True, True, False]
    assert (rows[3]["moment"], rows[3]["decisions"]) == ("none", [])


def test_classify_stops_at_a_rule_that_cannot_be_honoured_before_it_reads_any_event(tmp_path: Path) -> None:
    rules = tmp_path / "rules" / "deep"
    rules.mkdir(parents=True)
    (rules / "broken.yml").write_text("title: T\nlogsource: {product: okta, service: okta}\ndetection: {condition: all of nothing}\n")
    file = tmp_path / "events.jsonl"
    file.write_bytes(LINES[0])
    result = answered("classify", file, "--rules", tmp_path / "rules", "--json", code=2)
    assert "broken.yml" in result.output
    assert result.stdout == ""


def test_classify_for_people_shows_only_what_asks_for_something(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(LINES[0] + b"\n" + LINES[3])
    output = answered("classify", file).output
    assert "user.lifecycle.deactivate" in output
    assert "never.heard.of" not in output


# --- plan, link, check -----------------------------------------------------------------------------------------------------------------


def test_a_plan_shows_what_would_change_and_calls_nothing_that_changes(stage: Backstage) -> None:
    state = stage.simulation.okta.state()
    before = len(stage.calls())
    someone = next(one for one in state["users"].values() if one["profile"].get("department") == "Engineering")
    for person in (someone["id"], someone["profile"]["login"]):
        plans = json.loads(answered("plan", person, "--json", "--config", stage.config).stdout)
        assert {one["target"] for one in plans} >= {"box"}
        assert all({"target", "changes", "withheld", "hash", "problem", "pending"} == set(one) for one in plans)
    assert answered("plan", someone["id"], "--config", stage.config).output
    assert len(stage.calls()) == before, "a preview changed something"


def test_a_plan_for_nobody_says_so(stage: Backstage) -> None:
    assert "nobody@corp.example" in answered("plan", "nobody@corp.example", "--config", stage.config, code=2).output
    assert "which tenant?" in answered("plan", "00u1", "--tenant", "other", "--config", stage.config, code=2).output


def test_links_are_planned_without_changing_anything(stage: Backstage) -> None:
    before = len(stage.calls())
    (plan,) = json.loads(answered("link", "--json", "--config", stage.config).stdout)
    assert (plan["tenant"], plan["target"]) == ("default", "box")
    assert plan["links"]
    assert all(len(one) == 3 for one in plan["links"])
    assert len(stage.calls()) == before


def test_check_says_ok_for_each_part_and_ends_with_zero(stage: Backstage) -> None:
    told = json.loads(answered("check", "--json", "--config", stage.config).stdout)
    parts = {one["what"]: one for one in told["checks"]}
    assert told["ok"] is True
    wanted = {
        "configuration",
        "detections",
        "access policy",
        "protected people",
        "kafka",
        "okta.default",
        "okta.default log",
        "targets.box",
        "slack",
    }
    assert wanted <= set(parts)
    assert "embedded" in parts["kafka"]["said"]
    lines = answered("check", "--config", stage.config).output.splitlines()
    assert all(line.startswith("ok") for line in lines)


def test_check_goes_on_behind_what_is_wrong_and_ends_with_one(stage: Backstage, tmp_path: Path) -> None:
    text = stage.config.read_text().replace('"protected.toml"', '"gone.toml"')
    text = re.sub(r"(?m)^channel = .*$", "\\g<0>", text) + f'\n[kafka]\nbootstrap = "127.0.0.1:{free_port()}"\n'
    text = re.sub(r'start = "beginning"', 'start = "yesterday"', text)
    config = stage.config.with_name("wrong.toml")
    config.write_text(text)
    told = json.loads(answered("check", "--json", "--config", config, code=1).stdout)
    wrong = {one["what"]: one["said"] for one in told["checks"] if not one["ok"]}
    assert set(wrong) == {"protected people", "kafka", "okta.default start"}
    assert "no such file" in wrong["protected people"]
    assert "does not answer" in wrong["kafka"]
    assert '"-7d"' in wrong["okta.default start"]
    assert any(one["what"] == "slack" and one["ok"] for one in told["checks"])


def test_check_names_a_refused_credential_and_a_target_without_a_tenant(stage: Backstage, tmp_path: Path) -> None:
    (stage.config.parent / "bad.token").write_text("00wrong")
    text = stage.config.read_text().replace('"okta-default.token"', '"bad.token"')
    text += '\n[targets.other]\nkind = "okta"\ntenant = "nobody"\n'
    config = stage.config.with_name("refused.toml")
    config.write_text(text)
    told = json.loads(answered("check", "--json", "--config", config, code=1).stdout)
    wrong = {one["what"]: one["said"] for one in told["checks"] if not one["ok"]}
    assert {"okta.default", "okta.default log", "targets"} <= set(wrong)
    assert "nobody" in wrong["targets"]
    assert "00wrong" not in json.dumps(told)


def test_check_of_a_configuration_that_does_not_load_is_one_line() -> None:
    told = json.loads(answered("check", "--json", "--config", "nowhere.toml", code=1).stdout)
    assert [(one["what"], one["ok"]) for one in told["checks"]] == [("configuration", False)]


# --- text of strangers -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\r\nb", "\x07", "‮evil", "[bold]x[/]", None, 5, "\x00"])
def test_what_strangers_wrote_does_nothing_to_a_terminal(text: Any) -> None:
    shown = inert(text)
    assert "\x1b" not in shown
    assert "\n" not in shown
    assert shown.isprintable()


# --- what is logged ---------------------------------------------------------------------------------------------------------------


def test_a_library_that_says_the_same_many_times_is_heard_once_and_then_with_a_number() -> None:
    now = [0.0]
    seldom = Seldom(every_s=10, clock=lambda: now[0])

    def said(name: str, text: str, *args: object) -> str | None:
        record = logging.LogRecord(name, logging.ERROR, __file__, 1, text, args, None)
        return record.getMessage() if seldom.filter(record) else None

    assert [said("aiokafka", "no node %s", number) for number in range(5)] == ["no node 0", None, None, None, None]
    assert said("aiokafka", "another thing") == "another thing"
    assert [said("stream.worker", "fenced") for _ in range(3)] == ["fenced"] * 3
    now[0] = 10.5
    assert said("aiokafka", "no node %s", 7) == "no node 7 (4 times more since it was said last)"
    now[0] = 30.0
    assert said("aiokafka", "no node %s", 8) == "no node 8"
