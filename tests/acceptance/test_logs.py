"""Real and realistic System Log files through the whole pipeline on the embedded broker: every event once, what is malformed with its
bytes, and nothing repeated by a second start with a new log (D9)."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.errors import MalformedEvent
from model.event import decode
from tests.acceptance.house import House

TOTALS = """
SELECT (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM quarantine) AS quarantined,
       (SELECT count(*) FROM decisions) AS decisions, (SELECT count(DISTINCT incarnation) FROM chain) AS logs
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    one = House(tmp_path)
    yield one
    one.close()


def sample_lines(folder: Path) -> list[bytes]:
    files = sorted((folder / "samples").glob("*.jsonl"))
    return [json.dumps(json.loads(line)["event"]).encode() for file in files for line in file.read_bytes().splitlines()]


def expected(lines: list[bytes]) -> tuple[dict[str, bytes], Counter[bytes]]:
    """(uuid → the bytes that stay, bytes → how often they go to quarantine)."""
    kept: dict[str, bytes] = {}
    refused: Counter[bytes] = Counter()
    for line in lines:
        try:
            uuid = decode(line)["uuid"]
        except MalformedEvent:
            refused[line] = 1  # the same bytes again are a repeat
            continue
        if kept.setdefault(uuid, line) != line:
            refused[line] = 1
    return kept, refused


def read(house: House, tenant: str) -> tuple[dict[str, bytes], Counter[bytes]]:
    def raw(rows: list[dict[str, Any]]) -> Iterator[bytes]:
        return (base64.b64decode(row["raw"]) for row in rows)

    events = house.sql(f"SELECT uuid, raw FROM events WHERE tenant = '{tenant}'")
    quarantine = house.sql(f"SELECT raw FROM quarantine WHERE tenant = '{tenant}'")
    assert len({row["uuid"] for row in events}) == len(events)
    return {row["uuid"]: base64.b64decode(row["raw"]) for row in events}, Counter(raw(quarantine))


@pytest.mark.timeout(240)
def test_two_tenants_every_event_once_and_a_second_start_repeats_nothing(house: House, shared: Path) -> None:
    lines = sample_lines(shared)
    logs = {"acme": lines, "beta": [*lines[:30], b'{"uuid": 5}', b'{"eventType": "user.session.start"}', *lines[:30]]}
    arguments = []
    for tenant, mine in logs.items():
        file = house.folder / f"{tenant}.jsonl"
        file.write_bytes(b"\n".join(mine) + b"\n")
        arguments += ["--okta-log", f"{tenant}={file}"]
    house.simulate(*arguments, "--rate", "1200")

    house.run("run", "--config", str(house.config), "--until-idle", "3")
    for tenant, mine in logs.items():
        assert read(house, tenant) == expected(mine)
    assert json.loads(house.run("audit", "verify", "--config", str(house.config), "--json").stdout)["ok"]
    (first,) = house.sql(TOTALS)

    house.run("run", "--config", str(house.config), "--until-idle", "3")
    (second,) = house.sql(TOTALS)
    assert second == first | {"logs": 2}
    assert json.loads(house.run("audit", "verify", "--config", str(house.config), "--json").stdout)["ok"]
