"""How values look outside (contracts.md, `audit sql`)."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from audit.encode import distinct, encode_row

VALUES: dict[str, Any] = {
    "NULL": None,
    "true": True,
    "1": 1,
    "170141183460469231731687303715884105727::HUGEINT": 2**127 - 1,
    "1.5::DOUBLE": 1.5,
    "'nan'::DOUBLE": "NaN",
    "'inf'::FLOAT": "Infinity",
    "'-inf'::DOUBLE": "-Infinity",
    "1.50::DECIMAL(10,2)": 1.5,
    "0.1::DECIMAL(3,1)": 0.1,
    "7::DECIMAL(10,0)": 7,
    "12345678901234567890.123456789::DECIMAL(38,9)": "12345678901234567890.123456789",
    "TIMESTAMPTZ '2026-03-02 09:00:00+01'": "2026-03-02T08:00:00Z",
    "TIMESTAMPTZ '2026-03-02 08:00:00.123456+00'": "2026-03-02T08:00:00.123456Z",
    "TIMESTAMP '2026-03-02 08:00:00'": "2026-03-02T08:00:00Z",
    "DATE '2026-03-02'": "2026-03-02",
    "TIME '08:00:01'": "08:00:01",
    "INTERVAL '3 days 2.5 seconds'": "P3DT2.5S",
    "INTERVAL '90 minutes'": "PT5400S",
    "INTERVAL '-1 second'": "-PT1S",
    "INTERVAL '0 seconds'": "PT0S",
    "INTERVAL '2 days'": "P2D",
    "'\\x00\\xFFab'::BLOB": "AP9hYg==",
    "''::BLOB": "",
    "['a', NULL]": ["a", None],
    "[1, 2]::INTEGER[2]": [1, 2],
    "[TIMESTAMPTZ '2026-03-02 08:00:00+00']": ["2026-03-02T08:00:00Z"],
    "{'a': 1, 'b': ['\\x01'::BLOB], 'c': {'d': 'nan'::DOUBLE}}": {"a": 1, "b": ["AQ=="], "c": {"d": "NaN"}},
    "MAP {'k': 1}": {"k": 1},
    "MAP {DATE '2026-03-02': 1.5::DOUBLE}": {"2026-03-02": 1.5},
    "'00000000-0000-0000-0000-00000000002a'::UUID": "00000000-0000-0000-0000-00000000002a",
    "'a'::ENUM('a', 'b')": "a",
    "'{\"a\": [1]}'::JSON": '{"a": [1]}',
    "'a' || chr(0) || chr(27) || '[31m'": "a\0\x1b[31m",
    "'\\ud800 é \U0001f600'": "\\ud800 é \U0001f600",
    "TIMESTAMP '290000-01-01'": "290000-01-01 00:00:00",
}


@pytest.mark.parametrize("sql", VALUES)
def test_a_value_looks_the_same_to_every_tool(sql: str) -> None:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        text = encode_row(["v"], con.execute(f"SELECT {sql}").fetchall()[0])
    assert json.loads(text) == {"v": VALUES[sql]}
    assert text.isascii()
    assert text.isprintable()


def test_names_that_come_twice_are_told_apart() -> None:
    assert distinct(["a", "b", "a", "a", "a_2"]) == ["a", "b", "a_2", "a_3", "a_2_2"]
