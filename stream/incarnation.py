"""The id of this log (D9): a new embedded broker or a rebuilt cluster is another one, and every table that holds offsets says which.

The one key of a compacted topic, written before any other topic is used. Two roles that start at once may both write: the first in the
log wins, and whoever finds that it lost writes the winner's id once more, so that compaction keeps the winner.
"""

from __future__ import annotations

import uuid

from stream import topics
from stream.broker import Broker, Publisher

KEY = b"incarnation"


async def incarnation(broker: Broker, publisher: Publisher) -> str:
    """Reads the log's id, or makes it. Everybody gets the same answer."""
    found = await _first(broker)
    if found is not None:
        return found
    mine = uuid.uuid4().hex
    await publisher.send(topics.INCARNATION, KEY, mine.encode())
    found = await _first(broker) or mine
    if found != mine:
        await publisher.send(topics.INCARNATION, KEY, found.encode())
    return found


async def _first(broker: Broker) -> str | None:
    consumer = broker.reader()
    await consumer.start()
    try:
        partition = topics.partition_of(KEY, broker.partitions)
        (tp,) = [tp for tp in broker.all_partitions(topics.INCARNATION.name) if tp.partition == partition]
        consumer.assign([tp])
        start = (await consumer.beginning_offsets([tp]))[tp]
        end = (await consumer.end_offsets([tp]))[tp]
        consumer.seek(tp, start)
        while start < end:
            polled = await consumer.getmany(tp, timeout_ms=1000)
            for records in polled.values():
                for record in records:
                    if record.key == KEY and record.value:
                        return str(record.value.decode())
                    start = record.offset + 1
        return None
    finally:
        await consumer.stop()
