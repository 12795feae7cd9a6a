"""An audit file of its own for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.store import AuditStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "audit.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[AuditStore]:
    with AuditStore(path, "one") as opened:
        yield opened
