"""The real broker of the tests: what a test may rely on, and `script/kafka`, whose words others rely on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.structs import TopicPartition

from tests.support import kafka as kafka_module
from tests.support import kafka_docker
from tests.support.kafka import Broker, KafkaFailed, KafkaMissing, find_libs, free_port
from tests.support.kafka_cli import is_broker
from tests.support.kafka_docker import DockerBroker
from tests.support.kafka_fixtures import AnyBroker, Kafka, start_broker
from tests.support.wire import NotServing, check_serving

pytestmark = pytest.mark.kafka
LARGEST = 8 * 1024 * 1024


async def make_topic(bootstrap: str, name: str, partitions: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs={"max.message.bytes": str(LARGEST + 100_000)})])
    finally:
        await admin.close()


@asynccontextmanager
async def producing(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_request_size=LARGEST + 100_000)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def read_values(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none", enable_auto_commit=False)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        return [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_the_largest_record_flows(kafka: Kafka) -> None:
    topic = kafka.name("large")
    await make_topic(kafka.bootstrap, topic)
    value = os.urandom(1024) * (LARGEST // 1024)
    async with producing(kafka.bootstrap) as producer:
        await producer.send_and_wait(topic, value)
    assert await read_values(kafka.bootstrap, topic, 1) == [value]


async def test_a_topic_nobody_made_is_not_made_by_asking(kafka: Kafka) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        (described,) = await admin.describe_topics([kafka.name("mistyped")])
    finally:
        await admin.close()
    assert described["error_code"] == UnknownTopicOrPartitionError.errno


async def test_names_are_a_tests_own(kafka: Kafka) -> None:
    assert kafka.name("x") == f"{kafka.prefix}.x"


async def test_two_members_share_a_group(kafka: Kafka) -> None:
    topic, group = kafka.name("shared"), kafka.name("group")
    await make_topic(kafka.bootstrap, topic, partitions=2)
    members = [AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, group_id=group) for _ in range(2)]
    for member in members:
        await member.start()
    try:
        async with asyncio.timeout(30):
            while [len(member.assignment()) for member in members] != [1, 1]:
                await asyncio.gather(*(member.getmany(timeout_ms=100) for member in members))
    finally:
        for member in members:
            await member.stop()


async def test_what_was_acknowledged_outlives_kill_9(kafka_broker: AnyBroker) -> None:
    await make_topic(kafka_broker.bootstrap, "kept")
    async with producing(kafka_broker.bootstrap) as producer:
        for number in range(100):
            await producer.send_and_wait("kept", b"%d" % number)
    await asyncio.to_thread(kafka_broker.kill)
    with pytest.raises(NotServing):
        check_serving("127.0.0.1", kafka_broker.port)
    await asyncio.to_thread(kafka_broker.restart)
    assert await read_values(kafka_broker.bootstrap, "kept", 100) == [b"%d" % number for number in range(100)]


def test_a_frozen_broker_does_not_answer(kafka_broker: AnyBroker) -> None:
    kafka_broker.freeze()
    with pytest.raises(NotServing, match="timed out"):
        check_serving("127.0.0.1", kafka_broker.port, timeout=0.5)
    kafka_broker.thaw()
    _eventually(lambda: _serves(kafka_broker.port))


@pytest.mark.usefixtures("jvm")
def test_the_broker_dies_with_whoever_started_it(tmp_path: Path) -> None:
    """Also when that one had no chance to clean up."""
    code = (
        "import os, sys; from pathlib import Path; from tests.support.kafka import Broker\n"
        "broker = Broker(Path(sys.argv[1])); broker.start(); print(broker.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "broker")], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    _eventually(lambda: not is_broker(pid, tmp_path / "broker"))


@pytest.mark.usefixtures("jvm")
def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    broker.folder.mkdir()
    (broker.folder / "data").write_text("a file where the folder should be")
    with pytest.raises(KafkaFailed, match=r"data"):
        broker.start()
    assert not broker.running


# --- script/kafka -----------------------------------------------------------------------------------------------------


def _script(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(root / "script" / "kafka"), *args], capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("jvm")
def test_script_starts_shows_and_stops(root: Path, tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "by hand"
    where = ("--dir", str(folder))
    assert _script(root, "status", *where).returncode == 1
    try:
        started = _script(root, "start", "--port", str(port), *where)
        assert (started.returncode, started.stdout) == (0, f"bootstrap=127.0.0.1:{port}\n"), started.stderr
        check_serving("127.0.0.1", port)
        pid = int((folder / "kafka.pid").read_text().split()[0])
        os.kill(pid, 0)
        again = _script(root, "start", *where)
        assert (again.returncode, again.stdout) == (0, started.stdout)
        assert _script(root, "status", *where).stdout == started.stdout
        other = _script(root, "start", "--port", str(port), "--dir", str(tmp_path / "other"))
        assert (other.returncode, other.stdout) == (2, "")
        assert f"port {port} is taken" in other.stderr
    finally:
        stopped = _script(root, "stop", *where)
    assert (stopped.returncode, stopped.stdout) == (0, "")
    assert not (folder / "kafka.pid").exists()
    with pytest.raises(NotServing):
        check_serving("127.0.0.1", port)
    assert _script(root, "stop", *where).returncode == 0


@pytest.mark.usefixtures("jvm")
def test_script_does_not_trust_a_pid_that_is_somebody_elses(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    (folder / "kafka.pid").write_text(f"{os.getpid()} 9092\n")
    assert _script(root, "status", "--dir", str(folder)).returncode == 1
    assert _script(root, "stop", "--dir", str(folder)).returncode == 0  # and this test still runs


# --- where none can be had --------------------------------------------------------------------------------------------


def test_without_java_and_without_an_engine_both_reasons_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(KafkaMissing, match=r"no real Kafka: no Java.*; no container engine"):
        start_broker(tmp_path / "broker")


def test_without_jars_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_module, "LIBS", tmp_path)
    with pytest.raises(KafkaMissing, match="script/setup"):
        find_libs()


def test_an_engine_that_does_not_run_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_docker(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(KafkaMissing, match="does not run"):
        DockerBroker()


def test_the_container_is_the_same_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine can be counted on where tests run: the calls are looked at, with a docker that writes them down."""
    calls = tmp_path / "calls"
    _fake_docker(tmp_path, monkeypatch, f'echo "$*" >> {calls}')
    monkeypatch.setattr(kafka_docker, "check_serving", lambda host, port: None)
    broker = DockerBroker(9999)
    broker.start()
    broker.restart()
    broker.freeze()
    broker.thaw()
    broker.stop()
    broker.close()
    lines = calls.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["version", "run", "kill", "start", "pause", "unpause", "stop", "rm"]
    run = lines[1]
    assert "--publish 127.0.0.1:9999:9999" in run
    assert "KAFKA_AUTO_CREATE_TOPICS_ENABLE=false" in run
    assert "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:9999" in run
    assert run.endswith("apache/kafka:4.1.0")


def _fake_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    docker = folder / "docker"
    docker.write_text(f"#!/bin/sh\n{body}\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


# --- helpers ----------------------------------------------------------------------------------------------------------


def _serves(port: int) -> bool:
    try:
        check_serving("127.0.0.1", port)
    except NotServing:
        return False
    return True


def _eventually(holds: Callable[[], bool], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.1)
