"""The embedded broker for one test, and what goes on it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from model.settings import KafkaSettings
from stream import topics
from stream.broker import Broker, Publisher


@contextlib.asynccontextmanager
async def embedded() -> AsyncIterator[tuple[Broker, Publisher]]:
    broker = Broker(KafkaSettings())
    await broker.start()
    publisher = Publisher(broker)
    await publisher.start()
    try:
        yield broker, publisher
    finally:
        await publisher.stop()
        await broker.stop()


def event(uuid: str, **facts: Any) -> bytes:
    return json.dumps({"uuid": uuid, "eventType": "user.test", "published": "2026-01-05T09:00:00.000Z"} | facts).encode()


async def log_events(publisher: Publisher, *raws: bytes, tenant: bytes = b"acme") -> None:
    await publisher.send_all([(topics.SYSTEM_LOG, tenant, raw) for raw in raws])
