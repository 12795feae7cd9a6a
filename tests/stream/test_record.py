"""The recorder: both logs into the file, every record once, over restarts, repeats and a new log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from audit.client import ask, verify_trail
from model.decision import Moment
from model.errors import FaultError
from model.records import Classified, EventRef
from model.settings import AuditSettings, KafkaSettings
from stream import topics
from stream.broker import Broker, Publisher
from stream.record import RecordRole
from stream.topics import person_key
from tests.handlers.fakes import NOON, swap
from tests.stream.embedded import embedded, event, log_events
from tests.stream.stations import own_topics, until
from tests.support.kafka_fixtures import Kafka

MALFORMED = [b"{", b"[]", b'{"uuid": 5}', b'{"uuid": "x"}', b"[" * 100_000]


@contextlib.asynccontextmanager
async def recording(broker: Broker, path: Path) -> AsyncIterator[RecordRole]:
    role = RecordRole(broker, AuditSettings(path=path))
    await role.start()
    try:
        yield role
    finally:
        await role.stop()


async def caught_up(role: RecordRole) -> None:
    async def done() -> bool:
        return await role.lag() == 0

    await until(done)


async def asked(path: Path, query: str) -> list[dict[str, Any]]:
    return list(await asyncio.to_thread(ask, path, query))


async def uuids(path: Path) -> list[str]:
    return [row["uuid"] for row in await asked(path, "SELECT uuid FROM events ORDER BY uuid")]


def classified(uuid: str) -> bytes:
    ref = EventRef(uuid=uuid, event_type="user.test", received=NOON)
    return Classified(id=f"c-{uuid}", tenant="acme", at=NOON, event=ref, moment=Moment.JOIN, people=("00uann",)).to_bytes()


@pytest.mark.fault(3)
async def test_events_and_records_become_rows_once_while_it_runs_and_can_be_asked(tmp_path: Path) -> None:
    path = tmp_path / "data" / "audit.duckdb"
    async with embedded() as (broker, publisher), recording(broker, path) as role:
        await log_events(publisher, event("e-1"), event("e-2"), event("e-1"), event("e-2", other="bytes"), *MALFORMED)
        await publisher.send(topics.OUTCOMES, person_key("acme", "00uann"), classified("e-1"))
        await caught_up(role)
        assert await uuids(path) == ["e-1", "e-2"]
        rows = await asked(path, "SELECT uuid, people, moment, tenant FROM events ORDER BY uuid")
        assert rows[0] == {"uuid": "e-1", "people": ["00uann"], "moment": "join", "tenant": "acme"}
        assert (rows[1]["people"], rows[1]["moment"]) == ([], "none")
        reasons = [row["reason"] for row in await asked(path, "SELECT reason FROM quarantine ORDER BY reason")]
        assert reasons == ["no_event_type", "no_uuid", "not_an_object", "unreadable", "unreadable", "uuid_conflict"]
    assert verify_trail(path).ok


async def test_a_restart_repeats_and_skips_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.duckdb"
    async with embedded() as (broker, publisher):
        async with recording(broker, path) as role:
            await log_events(publisher, *(event(f"e-{number:03}") for number in range(100)))
            await caught_up(role)
        await log_events(publisher, *(event(f"e-{number:03}") for number in range(100, 150)))
        async with recording(broker, path) as role:
            await caught_up(role)
            assert await uuids(path) == [f"e-{number:03}" for number in range(150)]
            (count,) = await asked(path, "SELECT count(*) AS n FROM chain")
            assert count["n"] == 150, "a record was chained twice"
    assert verify_trail(path).ok


async def test_stopped_in_the_middle_of_a_batch_it_goes_on_where_the_file_ends(tmp_path: Path) -> None:
    path = tmp_path / "audit.duckdb"
    async with embedded() as (broker, publisher):
        await log_events(publisher, *(event(f"e-{number:03}") for number in range(300)))
        for _ in range(4):
            async with recording(broker, path):
                await asyncio.sleep(0.05)
        async with recording(broker, path) as role:
            await caught_up(role)
            assert len(await uuids(path)) == 300
    assert verify_trail(path).ok


async def test_a_new_log_begins_at_its_beginning_and_its_repeats_are_no_second_rows(tmp_path: Path) -> None:
    """D9: the second start on the same file with a new embedded broker."""
    path = tmp_path / "audit.duckdb"
    for _ in range(2):
        async with embedded() as (broker, publisher), recording(broker, path) as role:
            await log_events(publisher, event("e-1"), event("e-2"), b"{")
            await publisher.send(topics.OUTCOMES, person_key("acme", "00uann"), classified("e-1"))
            await caught_up(role)
    async with embedded() as (broker, publisher), recording(broker, path) as role:
        await log_events(publisher, event("e-3"))
        await caught_up(role)
        assert await uuids(path) == ["e-1", "e-2", "e-3"]
        (row,) = await asked(path, "SELECT count(DISTINCT incarnation) AS logs FROM chain")
        assert row["logs"] == 3
    assert verify_trail(path).ok


async def test_what_cannot_be_written_ends_the_role(tmp_path: Path) -> None:
    async with embedded() as (broker, publisher), recording(broker, tmp_path / "audit.duckdb") as role:

        def full(batch: object) -> None:
            raise FaultError("no space left on device")

        swap(role._store, "write", full)
        await log_events(publisher, event("e-1"))
        with pytest.raises(FaultError, match="no space"):
            await asyncio.wait_for(role.failed(), 10)
        assert await role.lag() == 1, "what was not written is still to be read"


@pytest.mark.kafka
async def test_records_that_went_before_they_were_recorded_are_a_fault(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own_topics(kafka, monkeypatch, "SYSTEM_LOG", "OUTCOMES", "INCARNATION")
    broker = Broker(KafkaSettings(bootstrap=kafka.bootstrap, partitions=1))
    await broker._make_topics([topics.SYSTEM_LOG, topics.OUTCOMES, topics.INCARNATION])
    publisher = Publisher(broker)
    await publisher.start()
    path = tmp_path / "audit.duckdb"
    async with recording(broker, path) as role:
        await log_events(publisher, event("e-1"))
        await caught_up(role)
    await log_events(publisher, *(event(f"e-{number}") for number in range(2, 9)))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(topics.SYSTEM_LOG.name, 0): RecordsToDelete(before_offset=5)})
    await admin.close()
    async with recording(broker, path) as role:
        with pytest.raises(FaultError, match="the trail has a gap"):
            await asyncio.wait_for(role.failed(), 20)
    await publisher.stop()
