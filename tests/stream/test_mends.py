"""A connection that is lost between two turns of the loop: no connection, never an error that ends aiokafka's own tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import aiokafka.conn
import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from model.settings import KafkaSettings
from stream.broker import Broker
from stream.mends import MendedConnection

STOCK = MendedConnection.__base__
Send = Callable[[Any], Coroutine[Any, Any, Any]]


async def request(connection: Any) -> Any:
    return await connection.send(MetadataRequest([]))


async def token(connection: Any) -> Any:
    return await connection._send_sasl_token(b"token")


async def _lost(kind: type[AIOKafkaConnection], send: Send, closed: list[CloseReason]) -> None:
    """Sends in the turns between the loss and aiokafka's clean-up: the handle is closed, the reading task has not run yet."""

    class NoQuestions(kind):  # type: ignore[misc]
        async def _do_version_lookup(self) -> None:
            self._versions = {3: (0, 9)}

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
        connection = NoQuestions("127.0.0.1", server.sockets[0].getsockname()[1], on_close=lambda _, reason: closed.append(reason))
        await connection.connect()
        transport = connection._writer.transport
        transport.abort()
        for _ in range(10):
            if "closed=True" in repr(transport):
                break
            await asyncio.sleep(0)
        try:
            await send(connection)
        finally:
            connection.close()


@pytest.mark.fault(32)
@pytest.mark.parametrize("send", [request, token])
def test_who_sends_into_a_connection_that_was_just_lost_is_told_that_it_is_lost(send: Send) -> None:
    closed: list[CloseReason] = []
    with pytest.raises(KafkaConnectionError, match="No connection to broker"):
        uvloop.run(_lost(MendedConnection, send, closed))
    assert closed == [CloseReason.CONNECTION_BROKEN], "its client renews the metadata and connects again"


@pytest.mark.parametrize("send", [request, token])
def test_the_stock_connection_fails_with_what_aiokafka_does_not_expect(send: Send) -> None:
    """When this fails, ours is not needed any more."""
    with pytest.raises(RuntimeError, match="the handler is closed"):
        uvloop.run(_lost(STOCK, send, []))


def test_whoever_has_a_broker_makes_such_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiokafka.conn, "AIOKafkaConnection", STOCK)
    Broker(KafkaSettings(bootstrap="127.0.0.1:1"))
    asked: list[Any] = []

    async def connect(connection: Any) -> None:
        asked.append(connection)

    monkeypatch.setattr(MendedConnection, "connect", connect)
    asyncio.run(aiokafka.conn.create_conn("127.0.0.1", 1))
    assert [type(one) for one in asked] == [MendedConnection]
