"""How we reach Kafka: a given cluster, or the embedded one, and the producers and topics on it.

The embedded broker is librdkafka's mock cluster inside confluent-kafka's wheel: one process, memory only, about 5 MB a partition (it
drops what exceeds that, whoever still needs it), four partitions a topic, no topic administration. For evaluation and quick tests.
`Flow` keeps it honest: producers wait while the slowest reader in this process is more than 2 MB behind (D10). On a real broker it
does nothing. Rejected: a JVM broker for `portcullis demo` (needs Java and Maven), an own in-process queue (then nothing real runs).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError
from confluent_kafka import Producer as LibrdkafkaProducer

from model.errors import ConfigurationError, FaultError
from model.settings import KafkaSettings
from stream import mends, topics
from stream.topics import Topic

log = logging.getLogger(__name__)

#: A group's leader whose metadata a cut kept away knows no partitions and gives them to nobody. It finds that out when the metadata is
#: renewed: after five minutes, left to aiokafka.
METADATA_MAX_AGE_MS = 5_000
#: A revocation and a stop wait so long for the last commit, and for records that are not acknowledged yet; without it that much is only
#: done again.
LAST_WORD_S = 5.0
EMBEDDED_PARTITIONS = 4
EMBEDDED_BEHIND = 2_000_000
#: What a single record may weigh on the embedded broker, whose partitions hold about 5 MB.
EMBEDDED_MAX_EVENT = 3_000_000


class Flow:
    """Bytes produced and read per topic, so that nothing is dropped by the embedded broker before every reader had it."""

    def __init__(self, active: bool) -> None:
        self._active = active
        self._produced: dict[str, int] = defaultdict(int)
        self._read: dict[str, dict[str, int]] = defaultdict(dict)
        self._moved = asyncio.Event()

    def reader(self, topic: str, name: str) -> None:
        """Declares a reader; only declared readers are waited for."""
        if self._active:
            self._read[topic].setdefault(name, self._produced[topic])

    def read(self, topic: str, name: str, size: int) -> None:
        if self._active and name in self._read[topic]:
            self._read[topic][name] += size
            self._moved.set()

    def gone(self, topic: str, name: str) -> None:
        self._read[topic].pop(name, None)
        self._moved.set()

    def behind(self, topic: str) -> int:
        readers = self._read[topic]
        return max((self._produced[topic] - read for read in readers.values()), default=0)

    async def room(self, topic: str, size: int) -> None:
        """Waits until `size` more bytes are safe, and books them. Once full, half of it must be free again: a fetch of the mock hands
        out one batch as it was produced, and records that squeeze in one by one would be read one by one."""
        limit = EMBEDDED_BEHIND
        while self._active and self._read[topic] and self.behind(topic) > 0 and self.behind(topic) + size > limit:
            limit = EMBEDDED_BEHIND // 2
            self._moved.clear()
            await self._moved.wait()
        if self._active:
            self._produced[topic] += size


class Broker:
    """One cluster. `start` waits for it, with one clear line, instead of leaning on a supervisor."""

    def __init__(self, settings: KafkaSettings) -> None:
        mends.install()
        self.settings = settings
        self.embedded = settings.bootstrap is None
        self.bootstrap = settings.bootstrap or ""
        self.partitions = EMBEDDED_PARTITIONS if self.embedded else settings.partitions
        self.max_event_bytes = EMBEDDED_MAX_EVENT if self.embedded else topics.MAX_EVENT_BYTES
        self.flow = Flow(self.embedded)
        self._mock: Any = None

    async def start(self) -> None:
        if self.embedded:
            self._start_embedded()
        await self._wait_for_it()
        await self._make_topics(topics.ALL)

    def _start_embedded(self) -> None:
        self._mock = LibrdkafkaProducer({"test.mock.num.brokers": 1, "log_level": 2})
        brokers = list(self._mock.list_topics(timeout=10).brokers.values())
        self.bootstrap = f"{brokers[0].host}:{brokers[0].port}"

    async def _wait_for_it(self) -> None:
        said = False
        while True:
            client = AIOKafkaClient(bootstrap_servers=self.bootstrap)
            try:
                await client.bootstrap()
                return
            except (KafkaConnectionError, OSError) as error:
                if not said:
                    log.warning("no broker answers at %s (%s): waiting for it", self.bootstrap, type(error).__name__)
                    said = True
                await asyncio.sleep(1)
            finally:
                await client.close()

    async def _make_topics(self, wanted: Sequence[Topic]) -> None:
        if self.embedded:
            async with self.producer() as producer:
                for topic in wanted:
                    await producer.partitions_for(topic.name)
            return
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            present = set(await admin.list_topics())
            missing = [
                NewTopic(topic.name, self.partitions, self.settings.replication, topic_configs=topic.config_for(self.settings.replication))
                for topic in wanted
                if topic.name not in present
            ]
            if missing:
                await self._create(admin, missing)
            await self._check(admin, wanted)
        finally:
            await admin.close()

    async def _create(self, admin: AIOKafkaAdminClient, missing: list[NewTopic]) -> None:
        for new in missing:  # one by one: a topic that another role just made must not hide the rest
            try:
                response = await admin.create_topics([new])
                for _, code, *rest in response.topic_errors:
                    if code not in (0, TopicAlreadyExistsError.errno):
                        raise FaultError(f"topic {new.name} could not be made: {rest[0] if rest else code}")
            except TopicAlreadyExistsError:
                continue
            except KafkaError as error:
                raise FaultError(f"topic {new.name} could not be made: {error}") from error

    async def _check(self, admin: AIOKafkaAdminClient, wanted: Sequence[Topic]) -> None:
        names = [topic.name for topic in wanted]
        for _ in range(100):
            described = {one["topic"]: one for one in await admin.describe_topics(names)}
            if all(described.get(name, {}).get("partitions") and described[name]["error_code"] == 0 for name in names):
                break
            await asyncio.sleep(0.1)
        else:
            raise FaultError("the topics were made but their metadata did not come: is the cluster healthy?")
        counts = {name: len(described[name]["partitions"]) for name in names}
        if len(set(counts.values())) != 1:
            raise ConfigurationError(f"all topics need the same number of partitions (state lives beside work): {counts}")
        self.partitions = next(iter(counts.values()))

    async def stop(self) -> None:
        self._mock = None

    def producer(self, linger_ms: int = 0) -> AIOKafkaProducer:
        """acks=all and idempotent: a retry neither doubles nor reorders. Volume wants linger 20, latency 0."""
        return AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=linger_ms,
            max_batch_size=262_144,
            max_request_size=topics.MAX_REQUEST_BYTES,
            request_timeout_ms=30_000,
        )

    def reader(self, **options: Any) -> AIOKafkaConsumer:
        """A consumer without a group: it reads what it is told to, and an offset out of range is an error, never a reset."""
        return AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=topics.MAX_REQUEST_BYTES,
            **options,
        )

    def all_partitions(self, *names: str) -> list[TopicPartition]:
        return [TopicPartition(name, partition) for name in names for partition in range(self.partitions)]


class Publisher:
    """A producer that waits for room and can await many sends at once. Every `send` returns when Kafka has it (acks=all)."""

    def __init__(self, broker: Broker, linger_ms: int = 0) -> None:
        self._broker = broker
        self._producer = broker.producer(linger_ms)

    async def start(self) -> None:
        await self._producer.start()

    async def stop(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_S):
                await self._producer.stop()

    async def begin(self, topic: Topic, key: bytes, value: bytes | None, timestamp_ms: int | None = None) -> asyncio.Future[Any]:
        """Hands one record to the producer; the future is done when it is acknowledged. Without a broker it waits: the first record for a
        topic asks where the topic is, and nothing is handed over before that is answered."""
        await self._broker.flow.room(topic.name, len(value or b"") + len(key))
        partition = topics.partition_of(key, self._broker.partitions)
        while True:
            try:
                future: asyncio.Future[Any] = await self._producer.send(topic.name, value, key, partition, timestamp_ms)
                return future
            except KafkaError as error:
                if not error.retriable:
                    raise
                log.warning("%s: no broker says where it is (%s): asking again", topic.name, type(error).__name__)
                await asyncio.sleep(0.5)

    async def send(self, topic: Topic, key: bytes, value: bytes | None, timestamp_ms: int | None = None) -> int:
        """Returns the record's offset."""
        metadata = await (await self.begin(topic, key, value, timestamp_ms))
        return int(metadata.offset)

    async def send_all(self, records: Iterable[tuple[Topic, bytes, bytes]]) -> None:
        futures = [await self.begin(topic, key, value) for topic, key, value in records]
        if futures:
            await asyncio.gather(*futures)
