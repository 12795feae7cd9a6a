"""What aiokafka 0.14 gets wrong when Kafka is away, mended in place: it makes its parts in one place each, by these names.

A connection that was just lost. Between the loss and aiokafka's own clean-up lie a few turns of the loop. Who sends in them meets silence
on asyncio's loop and a RuntimeError on uvloop; aiokafka expects an OSError or silence. So the error ends its background tasks without a
word: the heartbeat's, or the one that renews metadata, for which the group's coordination then waits forever. The member has left its
group, and its process lives on and does nothing (uvloop 0.22: one of twelve consumers within four rounds of cuts). Here a transport that
is closing is no connection any more; aiokafka knows how to get a new one.

A fetch that waits to be tried again. Cancelling it is how a consumer is stopped, and the cancellation comes out of the consumer's `stop`,
which leaves the rest of it undone. In Faust's thread that is the end of the thread before it says so: SIGTERM hung for as long as the
broker was away. Here it ends as a fetch does that is cancelled while it asks.

Rejected: asyncio's loop (8 % of an event's cost, and its silence is luck), catching the errors around each of aiokafka's tasks.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiokafka.conn
import aiokafka.consumer.consumer
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer.fetcher import Fetcher


class MendedConnection(AIOKafkaConnection):  # type: ignore[misc]
    """`send` raises KafkaConnectionError where the transport is closing already."""

    def send(self, request: Any, expect_response: bool = True) -> Any:
        self._drop_if_closing()
        return super().send(request, expect_response)

    def _send_sasl_token(self, payload: bytes, expect_response: bool = True) -> Any:
        self._drop_if_closing()
        return super()._send_sasl_token(payload, expect_response)

    def _drop_if_closing(self) -> None:
        if self._writer is not None and self._writer.is_closing():
            self.close(reason=CloseReason.CONNECTION_BROKEN)


class MendedFetcher(Fetcher):  # type: ignore[misc]
    """A fetch that is cancelled ends without a result, wherever it stands."""

    async def _proc_fetch_request(self, *args: Any) -> bool:
        try:
            return bool(await super()._proc_fetch_request(*args))
        except asyncio.CancelledError:
            return False


def install() -> None:
    """From now on every client of aiokafka's in this process is made of these."""
    aiokafka.conn.AIOKafkaConnection = MendedConnection
    aiokafka.consumer.consumer.Fetcher = MendedFetcher
