"""A human's order: a record with who and why, or none at all (P3, D30)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from model.errors import ConfigurationError
from model.records import Command
from stream import topics
from stream.desk import Desk
from tests.handlers.fakes import TENANT
from tests.stream import memory
from tests.stream.fakes import ANN

pytestmark = pytest.mark.usefixtures("memory")


def desk() -> tuple[Desk, memory.Log]:
    log = memory.Log()
    return Desk(cast(Any, log), cast(Any, memory.Publisher(log))), log


@pytest.mark.parametrize(("actor", "reason"), [("", "why"), ("who", ""), (" ", "why"), ("who", "\n")])
async def test_nothing_is_ordered_without_who_and_why(actor: str, reason: str) -> None:
    one, log = desk()
    with pytest.raises(ConfigurationError, match="--actor and --reason"):
        await one.order("redrive", TENANT, ANN, actor, reason, lane="provision", slot="box")
    assert log.order == []


async def test_an_order_stands_where_its_subject_stands() -> None:
    """Behind everything that was ordered of that person before."""
    one, log = desk()
    await one.order("redrive", TENANT, ANN, "cara", "mended", lane="provision", slot="box")
    await one.order("reset_brake", TENANT, "", "cara", "looked at", key=TENANT.encode(), brake="lockdown:acme")
    first, second = log.of(topics.COMMANDS)
    command = Command.from_bytes(first.value or b"")
    assert (command.kind, command.actor, command.reason, command.args) == (
        "redrive",
        "cara",
        "mended",
        {"lane": "provision", "slot": "box"},
    )
    assert (first.key, second.key) == (topics.person_key(TENANT, ANN), TENANT.encode())
