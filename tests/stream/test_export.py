"""What others wrote leaves as text: in a spreadsheet, on a terminal, in JSON."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from audit.store import AuditStore
from model.errors import ConfigurationError
from stream.cli.asking import audit_sql
from stream.cli.common import csv_cell
from tests.audit.trail import Log, event

EVIL = [
    '=HYPERLINK("http://evil.example","click")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r\n=1+1",
    " =1+1",
    "＝1+1",
    'a";=1+1;"',
    "a\n=1+1,b",
    "\x1b[2J\x00evil",
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    log = Log()
    records = [log.source(event(f"e-{number}", eventType=text)) for number, text in enumerate(EVIL)]
    with AuditStore(tmp_path / "data" / "audit.duckdb", "one") as store:
        store.write(records)
    path = tmp_path / "portcullis.toml"
    path.write_text("")
    return path


def asked(config: Path, form: str) -> str:
    query = 'SELECT event_type, -5 AS number FROM events ORDER BY "offset"'
    answer = CliRunner().invoke(audit_sql, ["--config", str(config), query, *([form] if form else [])])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.mark.fault(24)
def test_no_cell_of_an_export_is_a_formula(config: Path) -> None:
    head, *rows = csv.reader(io.StringIO(asked(config, "--csv")))
    assert head == ["event_type", "number"]
    assert len(rows) == len(EVIL)
    for written, (cell, number) in zip(EVIL, rows, strict=True):
        assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝"))
        assert number == "-5", "a number is no formula"
        assert (
            cell.removeprefix("'").strip()
            == "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in written).strip()
        )
    assert "\x1b" not in asked(config, "--csv")


@pytest.mark.fault(25)
def test_a_terminal_gets_lines_and_no_commands(config: Path) -> None:
    shown = asked(config, "")
    assert "\x1b" not in shown
    assert "\x00" not in shown
    assert "\r" not in shown


def test_json_keeps_the_very_text(config: Path) -> None:
    shown = asked(config, "--json")
    assert shown.isascii()
    assert [row["event_type"] for row in json.loads(shown)] == EVIL


@pytest.mark.parametrize(
    ("value", "cell"), [(None, ""), (-1.5, "-1.5"), (True, "True"), ("", ""), ({"a": "=1"}, '{"a": "=1"}'), ("plain", "plain")]
)
def test_cells(value: object, cell: str) -> None:
    assert csv_cell(value) == cell


def test_one_form_at_a_time(config: Path) -> None:
    answer = CliRunner().invoke(audit_sql, ["--config", str(config), "SELECT 1", "--json", "--csv"])
    assert isinstance(answer.exception, ConfigurationError)
