"""The configuration of a run: the one that `portcullis simulate` wrote, with shorter delays and wider brakes, one copy a process.

Each process has a copy because its health file stands beside its audit path, and two workers of one role on one host would overwrite
each other's. Brakes are wide: a day in which everybody moves is what they are there to stop, and here it is the order of the day.
The protected list stays as it was written. The access table is the built-in one and a row whose folder does not exist (poison).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rules.policy import BUILT_IN
from tests.torture.plan import POISONED
from tests.torture.weather import PATIENCE_S

Json = dict[str, Any]

#: Kafka's own lower limit (group.min.session.timeout.ms).
SESSION_S = 6.0
_POISON_ROW = f"""
[[row]]
name = "poison"
department = "{POISONED}"
folder = {{ {POISONED} = "editor" }}
"""
_SAFETY: Json = {
    "read_back_after_s": 3,
    "second_look_s": 1.5,
    "transfer_hold_s": 3,
    "batch_patience_s": 15,
    "retry_first_s": 0.5,
    "retry_longest_s": 8,
}
_WIDE = 1_000_000
_BRAKES: Json = {"lockdown_count": _WIDE, "lockdown_percent": _WIDE, "removal_count": _WIDE, "removal_percent": _WIDE}


def write_access(folder: Path) -> Path:
    """The access tables of a run; returns their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in BUILT_IN.glob("*.toml"):
        (folder / table.name).write_text(table.read_text() + (_POISON_ROW if table.name == "box.toml" else ""))
    return folder


def write_config(written: Path, name: str, bootstrap: str, access: Path, *, partitions: int, dry_run: bool = False) -> Path:
    """The copy for the process `name`; its audit path is `NAME/audit.duckdb` beside it."""
    raw: Json = tomllib.loads(written.read_text())
    raw["kafka"] = {"bootstrap": bootstrap, "session_timeout_s": SESSION_S, "partitions": partitions}
    for target in raw["targets"].values():
        target |= {"timeout_s": PATIENCE_S, "rate_per_minute": 60_000}
    brakes = raw["safety"].pop("brakes", {}) | _BRAKES
    raw["safety"] |= _SAFETY | {"brakes": brakes}
    raw["rules"] = {"access": str(access)}
    raw["audit"] = {"path": f"{name}/audit.duckdb"}
    if dry_run:
        raw["dry_run"] = True
    (written.parent / name).mkdir(exist_ok=True)
    path = written.with_name(f"{name}.toml")
    path.write_text("\n".join(_lines((), raw)) + "\n")
    return path


def _lines(name: tuple[str, ...], table: Mapping[str, Any]) -> Iterator[str]:
    """TOML of nested tables of texts, numbers and truth values: those are written as JSON writes them."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if name and plain:
        yield "[" + ".".join(json.dumps(part) for part in name) + "]"
    yield from (f"{key} = {json.dumps(value)}" for key, value in plain.items())
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _lines((*name, key), value)
