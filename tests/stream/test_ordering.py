"""What a human orders of a running system, from the command line to the record on the log (P3, D30), on a real Kafka."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from model.records import Command
from model.settings import KafkaSettings
from stream import topics
from stream.books import Latch
from stream.broker import Broker, Publisher
from stream.cli import main
from stream.judge import BrakeState
from stream.schedule import Due, as_payload
from stream.topics import Topic, person_key
from tests.handlers.fakes import NOON, TENANT, hold
from tests.stream.fakes import ANN
from tests.stream.stations import own_topics
from tests.support.kafka_fixtures import Kafka

pytestmark = pytest.mark.kafka
WHO = ("--actor", "cara", "--reason", "looked at it")


class Desk:
    """A configuration for the test's own topics, and what stands on them."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.config = folder / "portcullis.toml"
        self.config.write_text(f'[kafka]\nbootstrap = "{bootstrap}"\npartitions = 2\n')
        self.broker = Broker(KafkaSettings(bootstrap=bootstrap, partitions=2))

    def put(self, *records: tuple[Topic, bytes, bytes]) -> None:
        async def send() -> None:
            await self.broker.start()
            publisher = Publisher(self.broker)
            await publisher.start()
            await publisher.send_all(records)
            await publisher.stop()

        asyncio.run(send())

    def ask(self, *args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, [*args, "--config", str(self.config)])
        assert result.exit_code == code, result.output
        return result

    def commands(self) -> list[Command]:
        return [Command.from_bytes(value) for _, value in self._read(topics.COMMANDS)]

    def keys(self) -> list[bytes]:
        return [key for key, _ in self._read(topics.COMMANDS)]

    def _read(self, topic: Topic) -> list[tuple[bytes, bytes]]:
        async def read() -> list[tuple[bytes, bytes]]:
            consumer = self.broker.reader()
            await consumer.start()
            tps = self.broker.all_partitions(topic.name)
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends = await consumer.end_offsets(tps)
            found: list[tuple[bytes, bytes]] = []
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    found += [(one.key, one.value) for one in records]
            await consumer.stop()
            return found

        work: Coroutine[Any, Any, list[tuple[bytes, bytes]]] = read()
        return asyncio.run(work)


@pytest.fixture
def desk(kafka: Kafka, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Desk:
    own_topics(kafka, monkeypatch)
    monkeypatch.setenv("COLUMNS", "300")
    return Desk(kafka.bootstrap, tmp_path)


def due(slot: str = "box", kind: str = "parked", payload: bytes = b"\xff{") -> tuple[Topic, bytes, bytes]:
    one = Due.model_validate(
        {"lane": "provision", "tenant": TENANT, "person": ANN, "slot": slot, "kind": kind, "due": NOON, "since": NOON}
        | {"attempts": 3, "reason": "403 forbidden \x1b[31m", "code": "forbidden", "payload": as_payload(payload)}
    )
    return topics.DUE, one.key.encode(), one.to_bytes()


def test_parked_work_is_listed_shown_redriven_and_dropped_by_name_with_actor_and_reason(desk: Desk) -> None:
    desk.put(due(), due("box2", kind="retry"))
    (listed,) = json.loads(desk.ask("parked", "list", "--json").stdout)
    key = f"provision:{TENANT}:{ANN}:box"
    assert (listed["slot"], listed["attempts"], listed["code"]) == ("box", 3, "forbidden")
    table = desk.ask("parked", "list").output
    assert key in table
    assert "\x1b[31m" not in table
    shown = json.loads(desk.ask("parked", "show", key).stdout)
    assert Due.model_validate(shown).original == b"\xff{"
    assert "parked list" in desk.ask("parked", "show", "nothing", code=2).output
    assert "nothing is parked as" in desk.ask("parked", "redrive", f"provision:{TENANT}:{ANN}:box2", *WHO, code=2).output
    assert desk.commands() == []
    desk.ask("parked", "redrive", key, *WHO)
    desk.ask("parked", "drop", key, *WHO)
    redrive, drop = desk.commands()
    assert (redrive.kind, redrive.actor, redrive.reason) == ("redrive", "cara", "looked at it")
    assert redrive.args == drop.args == {"lane": "provision", "slot": "box"}
    assert (drop.kind, drop.tenant, drop.person) == ("drop", TENANT, ANN)
    assert desk.keys() == [person_key(TENANT, ANN)] * 2, "the command stands where the person's work stands"
    assert redrive.id != drop.id


def test_an_order_without_who_or_why_is_none(desk: Desk) -> None:
    desk.put(due())
    key = f"provision:{TENANT}:{ANN}:box"
    assert "--actor" in desk.ask("parked", "drop", key, "--actor", " ", "--reason", "x", code=2).output
    assert desk.ask("parked", "drop", key, "--actor", "cara", code=2).output
    assert desk.commands() == []


def test_open_holds_are_released_by_their_id_or_their_person(desk: Desk) -> None:
    latch = Latch(holds=(hold("h1", ANN), hold("h2", ANN), hold("h3", ANN, state="released")))
    desk.put((topics.HOLDS, person_key(TENANT, ANN), latch.to_bytes()))
    assert "no open Hold is 'h3'" in desk.ask("release", "h3", *WHO, code=2).output
    desk.ask("release", "h1", *WHO)
    desk.ask("release", f"{TENANT}:{ANN}", *WHO)
    assert [(one.kind, one.person, one.args) for one in desk.commands()] == [
        ("release", ANN, {"holds": ["h1"]}),
        ("release", ANN, {"holds": ["h1"]}),
        ("release", ANN, {"holds": ["h2"]}),
    ]


def test_brakes_are_seen_and_reset(desk: Desk) -> None:
    """Whoever left the window is counted no more, although the topic still has them."""
    now = datetime.now(UTC)
    old, recent = now - timedelta(days=1), now.isoformat().encode()
    state = BrakeState(locks=(("00u0", old), ("00u1", now), ("00u2", now)), tripped=now)
    desk.put(
        (topics.BRAKES, b"lockdown:acme", state.to_bytes()),
        (topics.BRAKES, b"removal:acme:box:00u0", old.isoformat().encode()),
        (topics.BRAKES, b"removal:acme:box:00u1", recent),
        (topics.BRAKES, b"removal:acme:box:00u2", recent),
        (topics.BRAKES, b"tripped:acme:box", recent),
        (topics.BRAKES, b"removal:acme:okta:00u1", recent),
    )
    rows = {row["brake"]: row for row in json.loads(desk.ask("brakes", "list", "--json").stdout)}
    assert {name: (row["people"], bool(row["tripped"])) for name, row in rows.items()} == {
        "lockdown:acme": (2, True),
        "removal:acme:box": (2, True),
        "removal:acme:okta": (1, False),
    }
    assert "lockdown:acme" in desk.ask("brakes", "list").output
    desk.ask("brakes", "reset", "removal:acme:box", *WHO)
    desk.ask("brakes", "reset", "lockdown:acme", *WHO)
    assert "no brake is called" in desk.ask("brakes", "reset", "box", *WHO, code=2).output
    assert [(one.kind, one.tenant, one.args) for one in desk.commands()] == [
        ("reset_brake", "acme", {"brake": "removal:acme:box"}),
        ("reset_brake", "acme", {"brake": "lockdown:acme"}),
    ]


def test_a_broker_with_nothing_on_it_lists_nothing(desk: Desk) -> None:
    assert json.loads(desk.ask("parked", "list", "--json").stdout) == []
    assert json.loads(desk.ask("brakes", "list", "--json").stdout) == []
    assert "nothing" in desk.ask("parked", "list").output
