"""The cluster: topics as the map says, made by several roles at once; waiting for a broker; back-pressure of the embedded one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError, UnknownTopicOrPartitionError
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigurationError, FaultError
from model.settings import KafkaSettings
from stream import topics
from stream.broker import EMBEDDED_BEHIND, EMBEDDED_MAX_EVENT, Broker, Flow, Publisher
from stream.topics import FOREVER, WEEK_MS, Topic, partition_of, person_key, split_person_key
from tests.support.kafka import free_port
from tests.support.kafka_fixtures import Kafka

# --- back-pressure ------------------------------------------------------------------------------------------------------------


async def test_a_producer_waits_while_the_slowest_reader_is_too_far_behind() -> None:
    """D10."""
    flow = Flow(active=True)
    flow.reader("t", "quick")
    flow.reader("t", "slow")
    await flow.room("t", EMBEDDED_BEHIND)
    flow.read("t", "quick", EMBEDDED_BEHIND)
    waiting = asyncio.create_task(flow.room("t", 2))
    await asyncio.sleep(0)
    assert not waiting.done()
    flow.read("t", "slow", EMBEDDED_BEHIND // 2 + 1)
    await asyncio.sleep(0)
    assert not waiting.done(), "less than half is free: records would squeeze in one by one, and be read one by one"
    flow.read("t", "slow", 1)
    await asyncio.wait_for(waiting, 1)
    assert flow.behind("t") == EMBEDDED_BEHIND // 2


async def test_a_reader_that_is_gone_holds_up_nobody() -> None:
    flow = Flow(active=True)
    flow.reader("t", "crashed")
    await flow.room("t", EMBEDDED_BEHIND)
    waiting = asyncio.create_task(flow.room("t", 1000))
    await asyncio.sleep(0)
    flow.gone("t", "crashed")
    await asyncio.wait_for(waiting, 1)


async def test_nobody_waits_for_readers_that_nobody_declared_or_that_came_later() -> None:
    flow = Flow(active=True)
    for _ in range(10):
        await asyncio.wait_for(flow.room("t", EMBEDDED_BEHIND), 1)
    flow.reader("t", "late")
    assert flow.behind("t") == 0
    flow.read("t", "stranger", 5)
    assert flow.behind("t") == 0


async def test_one_record_larger_than_all_the_room_still_goes_out_alone() -> None:
    flow = Flow(active=True)
    flow.reader("t", "a")
    await asyncio.wait_for(flow.room("t", EMBEDDED_BEHIND + 1), 1)
    waiting = asyncio.create_task(flow.room("t", 1))
    await asyncio.sleep(0)
    assert not waiting.done()
    flow.read("t", "a", EMBEDDED_BEHIND + 1)
    await asyncio.wait_for(waiting, 1)
    assert EMBEDDED_MAX_EVENT < 5_000_000, "what a partition of the embedded broker holds"


async def test_a_real_broker_needs_no_waiting() -> None:
    flow = Flow(active=False)
    flow.reader("t", "slow")
    for _ in range(10):
        await asyncio.wait_for(flow.room("t", EMBEDDED_BEHIND), 1)


# --- keys -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "murmur2"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"abc", 479470107),
    ],
)
def test_keys_live_where_every_kafka_client_puts_them(key: bytes, murmur2: int) -> None:
    """D7: the values are those of the Java client's own tests (org.apache.kafka.common.utils.UtilsTest)."""
    for partitions in (1, 4, 100, 256):
        assert partition_of(key, partitions) == (murmur2 & 0x7FFFFFFF) % partitions


@given(tenant=st.from_regex(r"\A[a-z0-9_-]{1,12}\Z"), person=st.from_regex(r"\A[0-9A-Za-z_/-]{0,20}\Z"), partitions=st.integers(1, 256))
def test_a_persons_key_reads_back_and_has_one_home(tenant: str, person: str, partitions: int) -> None:
    key = person_key(tenant, person)
    assert split_person_key(key) == (tenant, person)
    assert 0 <= partition_of(key, partitions) < partitions


def test_the_map_keeps_what_must_be_kept() -> None:
    """D8: state and outcomes for ever, work for a week; what groups read is never compacted."""
    compacted = {topic.name for topic in topics.ALL if topic.compacted}
    grouped = {topics.SYSTEM_LOG, topics.THREATS, topics.KNOCKS, topics.COMMANDS, topics.OUTCOMES}
    assert not compacted & {topic.name for topic in grouped}
    assert {topic.retention_ms for topic in topics.ALL if topic.compacted} == {FOREVER}
    assert topics.OUTCOMES.retention_ms == topics.COMMANDS.retention_ms == FOREVER
    assert {topic.retention_ms for topic in (topics.SYSTEM_LOG, topics.THREATS, topics.KNOCKS)} == {WEEK_MS}
    assert len({topic.name for topic in topics.ALL}) == len(topics.ALL)
    for topic in topics.ALL:
        config = topic.config_for(3)
        assert config["min.insync.replicas"] == "2"
        assert config["unclean.leader.election.enable"] == "false"
        assert int(config["max.message.bytes"]) > topics.MAX_EVENT_BYTES
        assert topic.config_for(1)["min.insync.replicas"] == "1", "one broker alone could never take a write"


# --- the embedded broker ----------------------------------------------------------------------------------------------------------


async def test_the_embedded_broker_gives_back_what_it_was_given_and_tells_a_tombstone_from_nothing() -> None:
    broker = Broker(KafkaSettings())
    await broker.start()
    publisher = Publisher(broker)
    await publisher.start()
    try:
        values = [b"first", None, b"", b"\x00\xff" * 1000]
        offsets = [await publisher.send(topics.HOLDS, b"k", value) for value in values]
        assert offsets == [0, 1, 2, 3]
        consumer = broker.reader()
        await consumer.start()
        tps = broker.all_partitions(topics.HOLDS.name)
        assert len(tps) == 4
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        read: list[bytes | None] = []
        while len(read) < 4:
            read += [record.value for records in (await consumer.getmany(timeout_ms=500)).values() for record in records]
        await consumer.stop()
        assert read == values
    finally:
        await publisher.stop()
        await broker.stop()


# --- a real one -------------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def admin(kafka: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def real(kafka: Kafka, **settings: int) -> Broker:
    return Broker(KafkaSettings.model_validate({"bootstrap": kafka.bootstrap} | settings))


def own(kafka: Kafka, *wanted: Topic) -> list[Topic]:
    return [Topic(kafka.name(one.name), one.key, one.retention_ms, one.holds, one.compacted) for one in wanted]


@pytest.mark.kafka
async def test_topics_are_made_as_the_map_says(kafka: Kafka) -> None:
    broker, wanted = real(kafka, partitions=3), own(kafka, topics.SYSTEM_LOG, topics.HOLDS, topics.OUTCOMES)
    await broker._make_topics(wanted)
    assert broker.partitions == 3
    async with admin(kafka) as client:
        found = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in wanted])
        described = {one["topic"]: one for one in await client.describe_topics([topic.name for topic in wanted])}
    configs = {name: dict(_pairs(entries)) for answer in found for *_, name, entries in answer.resources}
    log, holds, outcomes = (configs[topic.name] for topic in wanted)
    assert (log["cleanup.policy"], log["retention.ms"]) == ("delete", str(WEEK_MS))
    assert (outcomes["cleanup.policy"], outcomes["retention.ms"]) == ("delete", "-1")
    assert holds["cleanup.policy"] == "compact"
    assert all(int(config["max.message.bytes"]) == topics.MAX_REQUEST_BYTES for config in configs.values())
    assert all(config["unclean.leader.election.enable"] == "false" for config in configs.values())
    assert {len(one["partitions"]) for one in described.values()} == {3}


def _pairs(entries: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(entry[0], entry[1]) for entry in entries]


@pytest.mark.kafka
async def test_several_roles_may_make_the_topics_at_once_and_again(kafka: Kafka) -> None:
    wanted = own(kafka, topics.THREATS, topics.KNOCKS, topics.DUE)
    await asyncio.gather(*(real(kafka, partitions=2)._make_topics(wanted) for _ in range(5)))
    late = real(kafka, partitions=8)
    await late._make_topics(wanted)
    assert late.partitions == 2, "what stands is what counts: partition counts of state never change"


@pytest.mark.kafka
async def test_topics_with_different_partition_counts_are_refused(kafka: Kafka) -> None:
    """State lives beside work: the owner of a person's work must own the person's state."""
    threats, knocks = own(kafka, topics.THREATS, topics.KNOCKS)
    await real(kafka, partitions=2)._make_topics([threats])
    await real(kafka, partitions=3)._make_topics([knocks])
    with pytest.raises(ConfigurationError, match="the same number of partitions"):
        await real(kafka)._make_topics([threats, knocks])


@pytest.mark.kafka
async def test_a_topic_that_cannot_be_made_is_a_fault_that_says_which(kafka: Kafka) -> None:
    (wanted,) = own(kafka, topics.THREATS)
    with pytest.raises(FaultError, match=wanted.name.replace(".", r"\.")):
        await real(kafka, replication=3)._make_topics([wanted])


@pytest.mark.kafka
@pytest.mark.fault(26)
async def test_the_largest_event_flows(kafka: Kafka) -> None:
    """And one of the eight that D8 allows."""
    broker, (wanted,) = real(kafka), own(kafka, topics.SYSTEM_LOG)
    await broker._make_topics([wanted])
    publisher = Publisher(broker)
    await publisher.start()
    try:
        assert await publisher.send(wanted, b"t", b"x" * topics.MAX_EVENT_BYTES) == 0
        await publisher.send_all([(wanted, b"t", b"1"), (wanted, b"t", b"2")])
        assert await publisher.send(wanted, b"t", b"3") == 3
    finally:
        await publisher.stop()


async def test_a_broker_that_is_down_is_waited_for_with_one_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that restarts us again and again is no plan. (The embedded broker plays the one that comes up.)"""
    broker = Broker(KafkaSettings(bootstrap=f"127.0.0.1:{free_port()}"))
    naps: list[float] = []
    sleep = asyncio.sleep
    up = Broker(KafkaSettings())

    async def nap(seconds: float) -> None:
        if seconds == 1:
            naps.append(seconds)
            if len(naps) == 3:
                await up.start()
                broker.bootstrap = up.bootstrap
            seconds = 0
        await sleep(seconds)

    monkeypatch.setattr("stream.broker.asyncio.sleep", nap)
    with caplog.at_level(logging.WARNING, logger="stream.broker"):
        await asyncio.wait_for(broker._wait_for_it(), 30)
    said = [record.getMessage() for record in caplog.records if record.name == "stream.broker"]
    assert len(said) == 1
    assert "waiting for it" in said[0]
    assert len(naps) == 3
    await up.stop()


@pytest.mark.fault(32)
async def test_a_first_record_waits_for_a_broker_that_is_away() -> None:
    """The producer does not know the topic yet, and says so after a while: nothing was handed over, so it is asked again."""
    publisher = Publisher(Broker(KafkaSettings(bootstrap="127.0.0.1:1", partitions=1)))
    answers: list[Any] = [UnknownTopicOrPartitionError(), UnknownTopicOrPartitionError(), asyncio.get_running_loop().create_future()]
    asked: list[tuple[Any, ...]] = []

    async def send(*record: Any) -> Any:
        asked.append(record)
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    await publisher.stop()
    publisher._producer = SimpleNamespace(send=send)
    waiting = answers[-1]
    assert await publisher.begin(topics.BRAKES, b"key", b"value") is waiting
    assert len(asked) == 3
    answers.append(MessageSizeTooLargeError())
    with pytest.raises(MessageSizeTooLargeError):
        await publisher.begin(topics.BRAKES, b"key", b"value")
