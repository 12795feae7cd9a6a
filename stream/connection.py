"""aiokafka's connection, right on uvloop too.

Between the loss of a connection and aiokafka's own clean-up of it lie a few turns of the loop. Who sends in them meets silence on
asyncio's loop and a RuntimeError on uvloop; aiokafka expects an OSError or silence. So the error ends its background tasks without a
word: the heartbeat's, or the one that renews metadata, for which the group's coordination then waits forever. The member has left its
group, and its process lives on and does nothing (aiokafka 0.14, uvloop 0.22: one of twelve consumers within four rounds of cuts).
Here a transport that is closing is no connection any more; aiokafka knows how to get a new one.

Rejected: asyncio's loop (8 % of an event's cost, and its silence is luck), catching the error around each of aiokafka's tasks.
"""

from __future__ import annotations

from typing import Any

import aiokafka.conn
from aiokafka.conn import AIOKafkaConnection, CloseReason


class Connection(AIOKafkaConnection):  # type: ignore[misc]
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


def install() -> None:
    """From now on every client of aiokafka's in this process makes such connections: it makes them in one place, by this name."""
    aiokafka.conn.AIOKafkaConnection = Connection
