"""A worker in a process of its own, for tests that stop it: `python -m tests.stream.child_worker BOOTSTRAP GROUP TOPIC`.

Says what it does on standard output: `owns N`, then at the first record `working`; from then on it checks its fence again and again as a
lane does before each call, and says `effect` once a second while it may act, and `fenced: WHY` when it may not, after which it ends.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable
from typing import Any

from faust.types import TP

from model.errors import Fenced
from model.settings import KafkaSettings
from stream.broker import Broker
from stream.topics import WEEK_MS, Topic
from stream.worker import Records, Worker
from tests.stream.stations import SESSION_S


def say(line: str) -> None:
    print(line, flush=True)


class Lane:
    worker: Worker

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def begin(self, tp: TP, records: Records) -> Awaitable[Any]:
        return self._work()

    async def _work(self) -> None:
        say("working")
        said = 0.0
        try:
            while True:
                self.worker.check("t", "person")
                if time.monotonic() - said > 1:
                    said = time.monotonic()
                    say("effect")
                await asyncio.sleep(0.01)
        except Fenced as error:
            say(f"fenced: {error}")
            self.over.set()
            raise

    async def assigned(self, partitions: set[TP]) -> None:
        say(f"owns {len(partitions)}")

    async def revoked(self, partitions: set[TP]) -> None: ...


async def main(bootstrap: str, group: str, topic: str) -> None:
    broker = Broker(KafkaSettings(bootstrap=bootstrap))
    broker.partitions = 1
    lane = Lane()
    lane.worker = Worker(broker, group, [Topic(topic, "key", WEEK_MS, "of a test")], lane, SESSION_S)
    await lane.worker.start()
    await lane.over.wait()
    await lane.worker.stop()
    say("ended")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
