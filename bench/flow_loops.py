"""The contenders, each the whole of a process: `python -m bench.flow_loops NAME --bootstrap HOST:PORT --total N …` reads the log from its
beginning, does the job, and prints its figures as one JSON object.

portcullis  the product's own role, as `portcullis run --role classifier` runs it: nothing taken out
faust       a plain Faust app as its guide shows it: one agent, message by message, `await topic.send`
aiokafka    getmany, publish, wait for the acknowledgements, commit once a second; on uvloop
confluent   librdkafka: consume(500), produce, flush and commit once a second

All of them publish with acks=all and commit only what is published. The garbage collector is tuned alike in all of them (as in the
product's processes): left alone it would measure how many objects the rules' memory holds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

import faust
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import Consumer, Producer
from faust.types import TP

from bench.common import pin
from bench.flow_job import PROTECTED, Job, Meter, classifier_maker, settings_for
from bench.flow_log import PARTITIONS
from model.decision import Verdict
from stream import topics
from stream.broker import Broker
from stream.classify import ClassifyRole
from stream.clock import SystemClock
from stream.run import settle_memory
from stream.worker import Records

LOG = topics.SYSTEM_LOG.name
COMMIT_S = 1.0


class _Metered(ClassifyRole):
    """The role, with an eye on what it has finished."""

    meter: Meter

    async def begin(self, tp: TP, records: Records) -> Awaitable[Any]:
        return self._counted(await super().begin(tp, records), len(records))

    async def _counted(self, rest: Awaitable[Any], count: int) -> None:
        await rest
        self.meter.add(count)


class _MeteredEverything(_Metered):
    """Silent events are published as well."""

    def leaves_alone(self, verdict: Verdict) -> bool:
        return False


async def over(meter: Meter) -> None:
    """Looks now and then: a wake-up an event would be paid by the contender."""
    while not meter.is_over:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def portcullis(bootstrap: str, meter: Meter, everything: bool) -> None:
    settings = settings_for(bootstrap, PARTITIONS)
    broker = Broker(settings.kafka)
    await broker.start()
    kind = _MeteredEverything if everything else _Metered
    role = kind(broker, settings, classifier_maker(), PROTECTED, {}, SystemClock())
    role.meter = meter
    await role.start()
    settle_memory()
    failing = asyncio.create_task(role.failed())
    ending = asyncio.create_task(over(meter))
    done, _ = await asyncio.wait({failing, ending}, return_when=asyncio.FIRST_COMPLETED)
    failing.cancel()
    if failing in done:
        failing.result()
    await role.stop()
    await broker.stop()


async def faust_agent(bootstrap: str, meter: Meter, everything: bool) -> None:
    job = Job(settings_for(bootstrap, PARTITIONS), everything)
    with tempfile.TemporaryDirectory() as folder:
        app = faust.App("bench-faust", broker=f"kafka://{bootstrap}", value_serializer="raw", web_enabled=False, datadir=folder)
        source = app.topic(LOG, value_type=bytes)
        sinks = {one.name: app.topic(one.name, value_type=bytes) for one in (topics.OUTCOMES, topics.THREATS, topics.KNOCKS)}

        @app.agent(source)
        async def classify(stream: Any) -> None:
            async for event in stream.events():
                message = event.message
                found = job.work(message.key, event.value, int(message.timestamp * 1000), LOG, message.partition, message.offset)
                for topic, key, value in found:
                    await sinks[topic].send(key=key, value=value)
                meter.add(1)

        await app.start()
        settle_memory()
        await over(meter)
        await app.stop()


async def bare_aiokafka(bootstrap: str, meter: Meter, everything: bool) -> None:
    job = Job(settings_for(bootstrap, PARTITIONS), everything)
    consumer = AIOKafkaConsumer(
        LOG, bootstrap_servers=bootstrap, group_id="bench-aiokafka", enable_auto_commit=False, auto_offset_reset="earliest",
        fetch_max_wait_ms=50, max_partition_fetch_bytes=4 * 1024 * 1024,
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=262_144)
    await consumer.start()
    await producer.start()
    settle_memory()
    committed = time.monotonic()
    while not meter.is_over:
        pending = []
        read = 0
        for records in (await consumer.getmany(timeout_ms=200, max_records=500)).values():
            for one in records:
                for topic, key, value in job.work(one.key, one.value, one.timestamp, LOG, one.partition, one.offset):
                    pending.append(await producer.send(topic, value, key=key))
            read += len(records)
        if pending:
            await asyncio.gather(*pending)
        meter.add(read)
        if time.monotonic() - committed >= COMMIT_S:
            await consumer.commit()
            committed = time.monotonic()
    await consumer.stop()
    await producer.stop()


def bare_confluent(bootstrap: str, meter: Meter, everything: bool) -> None:
    job = Job(settings_for(bootstrap, PARTITIONS), everything)
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "bench-confluent", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    )
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
    consumer.subscribe([LOG])
    settle_memory()
    committed = time.monotonic()
    while not meter.is_over:
        messages = consumer.consume(500, 0.2)
        for one in messages:
            found = job.work(one.key() or b"", one.value() or b"", one.timestamp()[1], LOG, one.partition() or 0, one.offset() or 0)
            for topic, key, value in found:
                _produce(producer, topic, key, value)
        producer.poll(0)
        meter.add(len(messages))
        if time.monotonic() - committed >= COMMIT_S:
            if producer.flush(30):
                raise RuntimeError("not everything was published within 30 s")
            consumer.commit(asynchronous=True)
            committed = time.monotonic()
    producer.flush(30)
    consumer.close()


def _produce(producer: Producer, topic: str, key: bytes, value: bytes) -> None:
    while True:
        try:
            producer.produce(topic, value, key)
        except BufferError:  # its queue is full: let it work
            producer.poll(0.1)
        else:
            return


Loop = Callable[[str, Meter, bool], Awaitable[None]]
ON_UVLOOP: dict[str, Loop] = {"portcullis": portcullis, "aiokafka": bare_aiokafka}
#: As its own command line runs it where nothing is asked for.
ON_ASYNCIO: dict[str, Loop] = {"faust": faust_agent}
NAMES = (*ON_UVLOOP, *ON_ASYNCIO, "confluent")


def main() -> None:
    asked = _asked()
    if asked.core is not None:
        pin(asked.core)
    # Faust leaves the root logger at DEBUG unless somebody has said otherwise, and then pays for every message that nobody reads.
    logging.basicConfig(level=logging.ERROR)
    meter = Meter(asked.total, asked.seconds)
    if asked.name == "confluent":
        bare_confluent(asked.bootstrap, meter, asked.everything)
    elif asked.name in ON_ASYNCIO:
        asyncio.run(_awaited(ON_ASYNCIO[asked.name](asked.bootstrap, meter, asked.everything)))
    else:
        uvloop.run(_awaited(ON_UVLOOP[asked.name](asked.bootstrap, meter, asked.everything)))
    print(json.dumps(meter.figures()), flush=True)
    gc.unfreeze()


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One contender of bench.flow.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--total", type=int, required=True, help="events in the log")
    parser.add_argument("--seconds", type=float, required=True, help="the longest that is measured")
    parser.add_argument("--core", type=int, help="the core to stay on")
    parser.add_argument("--everything", action="store_true", help="publish silent events too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
