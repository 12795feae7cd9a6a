"""A worker in a process of its own, to be frozen: `python -m tests.stream.frozen BOOTSTRAP GROUP TOPIC`.

It takes a record, says `begun`, works on it for a while, then does what every lane does before a call: asks the fence. It says `acted`
where it was let through, `fenced` where not, and `cancelled` where its partition was revoked before it came so far.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any

from faust.types import TP

from model.errors import Fenced
from model.settings import KafkaSettings
from stream.broker import Broker
from stream.topics import WEEK_MS, Topic, split_person_key
from stream.worker import Records, Worker

SESSION_S = 6.0
WORK_S = 2.0


class Acting:
    """Says what it does, to whoever listens."""

    def __init__(self, bootstrap: str, group: str, topic: str, say: Any) -> None:
        broker = Broker(KafkaSettings(bootstrap=bootstrap, partitions=1))
        broker.partitions = 1
        self.say = say
        self.worker = Worker(broker, group, [Topic(topic, "key", WEEK_MS, "of a test")], self, SESSION_S)

    async def begin(self, tp: TP, records: Records) -> Awaitable[Any]:
        return asyncio.gather(*(asyncio.ensure_future(self._act(record.key)) for record in records))

    async def _act(self, key: bytes) -> None:
        self.say("begun")
        try:
            await asyncio.sleep(WORK_S)
            self.worker.check(*split_person_key(key))
        except Fenced:
            self.say("fenced")
            raise
        except asyncio.CancelledError:
            self.say("cancelled")
            raise
        self.say("acted")

    async def assigned(self, partitions: set[TP]) -> None:
        self.say("assigned")

    async def revoked(self, partitions: set[TP]) -> None:
        """Nothing is kept."""


async def main(bootstrap: str, group: str, topic: str) -> None:
    acting = Acting(bootstrap, group, topic, lambda word: print(word, flush=True))
    await acting.worker.start()
    try:
        await acting.worker.failed()
    finally:
        await acting.worker.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
