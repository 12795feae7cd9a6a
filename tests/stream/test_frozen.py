"""A process that slept through its session wakes up with work in hand: somebody else has done it, and it must not do it again (D12)."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.handlers.fakes import swap
from tests.stream.fakes import until
from tests.stream.frozen import SESSION_S, WORK_S, Acting
from tests.support.kafka_fixtures import Kafka

pytestmark = pytest.mark.kafka


async def heard(process: Process, *words: str) -> list[str]:
    """What the process says, up to one of those words."""
    assert process.stdout is not None
    said: list[str] = []
    async with asyncio.timeout(40):
        while not set(words) & set(said):
            line = (await process.stdout.readline()).decode().strip()
            assert line, f"it ended after {said}"
            said.append(line)
    return said


async def one_partition(kafka: Kafka) -> tuple[str, str]:
    """A topic and a group of the test's own."""
    topic, group = kafka.name("frozen"), kafka.name("group")
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    return topic, group


@pytest.mark.fault(34)
async def test_a_process_woken_after_its_session_acts_on_nothing(kafka: Kafka, root: Path) -> None:
    topic, group = await one_partition(kafka)
    command = (sys.executable, "-m", "tests.stream.frozen", kafka.bootstrap, group, topic)
    process = await asyncio.create_subprocess_exec(*command, cwd=root, stdout=PIPE)
    done: list[str] = []
    other = Acting(kafka.bootstrap, group, topic, done.append)
    try:
        await heard(process, "assigned")
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            await producer.send_and_wait(topic, b"x", key=b"acme:00uann")
        await heard(process, "begun")
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1)  # its last heartbeat is fresh: whoever joins now waits for the whole session
        await other.worker.start()
        await until(lambda: "acted" in done, SESSION_S + WORK_S + 30)
        process.send_signal(signal.SIGCONT)
        said = await heard(process, "fenced", "cancelled", "acted")  # its overdue timer and the news of its rebalance race for it
        assert "acted" not in said
        await asyncio.sleep(WORK_S + 1)
        assert done.count("acted") == 1, "what was done is acknowledged: nobody does it again"
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        await process.wait()
        await other.worker.stop()


@pytest.mark.fault(34)
async def test_whose_heartbeat_is_late_but_whose_partition_nobody_took_reads_again_and_acts(kafka: Kafka) -> None:
    """Nothing of the batch is lost, nobody waits for the watchdog, and no process has to be started again."""
    topic, group = await one_partition(kafka)
    said: list[str] = []
    one = Acting(kafka.bootstrap, group, topic, said.append)
    await one.worker.start()
    try:
        await until(lambda: "assigned" in said, 20)
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            await producer.send_and_wait(topic, b"x", key=b"acme:00uann")
        await until(lambda: "begun" in said, 20)
        swap(one.worker, "_session_timeout_s", 0.0)  # as after a sleep: whatever heartbeat was sent last is too old
        await until(lambda: "fenced" in said, 20)
        swap(one.worker, "_session_timeout_s", SESSION_S)
        await until(lambda: "acted" in said, 30)
        assert said.count("acted") == 1
        await until(lambda: one.worker.consumer.ledger.unfinished() == 0, 10)
    finally:
        await one.worker.stop()
