"""The recorder: the source topic and the audit topic into DuckDB, in the log's order, each batch in one transaction.

It belongs to no consumer group: where it stands is written in the same transaction as the rows (D26), so nothing is recorded twice
and nothing is skipped, whatever is killed. DuckDB is written in a thread of its own: never on the loop that keeps connections alive.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from audit.lock import FileLock
from audit.query import Limits
from audit.service import AuditService
from audit.store import AuditStore, LogRecord
from model.errors import FaultError
from model.settings import AuditSettings
from stream import topics
from stream.broker import Broker, Publisher
from stream.incarnation import incarnation

log = logging.getLogger(__name__)

NAME = "recorder"
#: A commit holds at most so many records.
BATCH = 5_000
#: A commit costs about 10 ms however little it holds: fewer records than SMALL wait so long after the last commit for company.
SMALL, PAUSE_S = 200, 0.1
CHAINED = (topics.SYSTEM_LOG, topics.OUTCOMES)
Polled = dict[TopicPartition, list[Any]]


class RecordRole:
    def __init__(self, broker: Broker, settings: AuditSettings) -> None:
        self._broker, self._settings = broker, settings
        self._consumer = broker.reader()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._lock = FileLock(settings.path, NAME, wait_s=1.0, urgent=True)
        self._store: AuditStore | None = None
        self._service: AuditService | None = None
        self._task: asyncio.Task[None] | None = None
        self._positions: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        publisher = Publisher(self._broker)
        await publisher.start()
        try:
            name = await incarnation(self._broker, publisher)
        finally:
            await publisher.stop()
        await asyncio.get_running_loop().run_in_executor(None, self._lock.acquire)
        self._store = await self._in_thread(lambda: AuditStore(self._settings.path, name, memory_limit=self._settings.memory_limit))
        for topic in CHAINED:
            self._broker.flow.reader(topic.name, NAME)
        await self._consumer.start()
        await self._seek()
        self._service = AuditService(self._store, limits=Limits(timeout_s=self._settings.sql_timeout_s))
        await self._service.start()
        self._task = asyncio.create_task(self._run(), name=NAME)

    async def _seek(self) -> None:
        assert self._store is not None
        stored = self._store.positions()
        partitions = self._broker.all_partitions(*(topic.name for topic in CHAINED))
        self._consumer.assign(partitions)
        begins = await self._consumer.beginning_offsets(partitions)
        for tp in partitions:
            self._positions[tp] = stored.get((tp.topic, tp.partition), begins[tp])
            self._consumer.seek(tp, self._positions[tp])

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._service is not None:
            await self._service.stop()
        await self._consumer.stop()
        if self._store is not None:
            await self._in_thread(self._store.close)
        self._lock.release()
        self._thread.shutdown()
        for topic in CHAINED:
            self._broker.flow.gone(topic.name, NAME)

    async def failed(self) -> None:
        assert self._task is not None
        await asyncio.shield(self._task)

    async def lag(self) -> int:
        ends = await self._consumer.end_offsets(list(self._positions))
        return sum(int(ends[tp]) - at for tp, at in self._positions.items())

    async def _in_thread(self, call: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _run(self) -> None:
        """Reads on while a batch is written, so that a batch is what came meanwhile and not what one fetch happened to hold."""
        gathered: Polled = {}
        writing: asyncio.Task[None] | None = None
        wrote = 0.0
        while True:
            held = sum(map(len, gathered.values()))
            if writing is not None and (writing.done() or held >= BATCH):
                await writing
                writing = None
            if writing is None and held and (held >= SMALL or time.monotonic() - wrote >= PAUSE_S):
                writing, gathered, wrote = asyncio.create_task(self._write(gathered)), {}, time.monotonic()
            for tp, records in (await self._poll(20 if gathered or writing else 250)).items():
                gathered.setdefault(tp, []).extend(records)

    async def _write(self, polled: Polled) -> None:
        assert self._store is not None
        kinds: dict[str, Literal["event", "audit"]] = {topics.SYSTEM_LOG.name: "event", topics.OUTCOMES.name: "audit"}
        batch = [
            LogRecord(one.topic, one.partition, one.offset, one.timestamp, one.key, one.value or b"", kinds[one.topic])
            for records in polled.values()
            for one in records
        ]
        await self._in_thread(partial(self._store.write, batch))
        self._advance(polled)

    async def _poll(self, timeout_ms: int) -> Polled:
        try:
            return dict(await self._consumer.getmany(timeout_ms=timeout_ms, max_records=BATCH))
        except OffsetOutOfRangeError as error:
            raise FaultError(
                f"the log no longer holds what was not yet recorded ({error}): the trail has a gap. "
                "Keep retention longer than any outage of the recorder; nothing was skipped silently"
            ) from error
        except KafkaError as error:
            log.warning("recorder: %s while reading, trying again", type(error).__name__)
            await asyncio.sleep(0.5)
            return {}

    def _advance(self, polled: Polled) -> None:
        for tp, records in polled.items():
            self._positions[tp] = records[-1].offset + 1
            size = sum(len(one.value or b"") + len(one.key or b"") for one in records)
            self._broker.flow.read(tp.topic, NAME, size)
