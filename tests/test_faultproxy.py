"""The fault proxy does to a connection what it says, and only that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import TopicPartition

from tests.support.faultproxy import DOWN, UP, FaultProxy
from tests.support.kafka import Broker, KafkaMissing, free_port
from tests.support.missing import missing

BODY = b"0123456789" * 20_000


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A small HTTP server: `POST /echo` answers what it was sent, everything else BODY. `/chunked` names no length."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
            sent = await reader.readexactly(length)
            body = sent if b"/echo" in head else BODY
            if b"/chunked" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server, FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{proxy.address}", timeout=10) as client:
        yield client


async def test_without_faults_everything_passes(proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).content == BODY
    assert (await client.get("/chunked")).content == BODY
    assert (await client.post("/echo", content=BODY)).content == BODY
    assert proxy.counts["connections"] == proxy.connections == 1
    assert proxy.counts["bytes_down"] > 3 * len(BODY)
    assert len(BODY) < proxy.counts["bytes_up"] < 2 * len(BODY)


async def test_latency_by_direction(proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    proxy.latency(0.2, 0, DOWN)
    assert await _seconds(client.post("/echo", content=b"x")) >= 0.2
    assert proxy.counts["delayed"] == 1
    proxy.latency(0.15, 0.05)
    assert await _seconds(client.post("/echo", content=b"x")) >= 0.3
    await proxy.heal()
    delayed = proxy.counts["delayed"]
    await client.post("/echo", content=b"x")
    assert proxy.counts["delayed"] == delayed


async def test_cut_ends_an_answer_in_order_and_only_so_often(proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    proxy.cut(after=1000, times=2)
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
            await client.get("/")
    assert (await client.get("/")).content == BODY
    assert (proxy.counts["cut"], proxy.counts["connections"]) == (2, 3)


async def test_cut_at_once_looks_like_a_server_that_said_nothing(proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    proxy.cut(times=1)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        await client.get("/")


async def test_reset_is_an_error_to_the_reader(proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    proxy.reset(after=1000, times=1)
    with pytest.raises(httpx.ReadError):
        await client.get("/")
    assert proxy.counts["reset"] == 1
    assert (await client.get("/")).status_code == 200


async def test_reset_on_the_way_up_spares_what_came_before(proxy: FaultProxy) -> None:
    proxy.reset(UP, after=100, times=1)
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    writer.write(b"POST /echo HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert proxy.counts["bytes_up"] == 100


@pytest.mark.parametrize("path", ["/", "/chunked"])
async def test_half_a_body(proxy: FaultProxy, client: httpx.AsyncClient, path: str) -> None:
    proxy.half_body(times=1)
    received = bytearray()
    with pytest.raises(httpx.RemoteProtocolError, match=r"incomplete|peer closed"):
        await _receive(client, path, received)
    assert 0 < len(received) < len(BODY)
    if path == "/":
        assert len(received) == len(BODY) // 2
    assert proxy.counts["half_body"] == 1
    assert (await client.get(path)).content == BODY


async def _receive(client: httpx.AsyncClient, path: str, into: bytearray) -> None:
    async with client.stream("GET", path) as answer:
        assert answer.status_code == 200
        async for piece in answer.aiter_raw():
            into += piece


async def test_a_blackhole_holds_and_then_lets_flow(proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    proxy.blackhole(DOWN)
    call = asyncio.create_task(client.post("/echo", content=b"late"))
    await asyncio.sleep(0.3)
    assert not call.done()
    assert proxy.counts["bytes_up"] > 0
    assert proxy.counts["bytes_down"] == 0
    await proxy.heal()
    assert (await call).content == b"late"
    proxy.blackhole(UP)
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/echo", content=b"never", timeout=0.3)


async def test_a_fault_strikes_a_connection_that_runs(proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).status_code == 200
    proxy.reset(times=1)
    with pytest.raises(httpx.ReadError):
        await client.get("/")
    assert proxy.counts["connections"] == 1


async def test_cut_now_ends_what_runs_and_serves_what_comes(proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    proxy.blackhole(DOWN)
    call = asyncio.create_task(client.get("/"))
    await asyncio.sleep(0.2)
    assert proxy.counts["bytes_up"] > 0
    assert await proxy.cut_now(hard=True) == 1
    with pytest.raises(httpx.ReadError):
        await call
    await proxy.heal()
    assert (await client.get("/")).status_code == 200


async def test_refused_until_healed_on_the_same_port(proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).status_code == 200
    port = proxy.port
    await proxy.refuse()
    with pytest.raises((httpx.ConnectError, httpx.ReadError)):
        await client.get("/")
    with pytest.raises(httpx.ConnectError):
        await client.get("/")
    await proxy.heal()
    assert proxy.port == port
    assert (await client.get("/")).status_code == 200


async def test_heal_spares_a_connection_that_was_to_break(proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    proxy.cut(UP, after=10_000)
    assert (await client.get("/")).status_code == 200  # claimed: its next bytes count against it
    await proxy.heal()
    assert (await client.post("/echo", content=BODY)).content == BODY


async def test_a_server_that_is_not_there() -> None:
    async with FaultProxy("127.0.0.1", free_port()) as proxy, httpx.AsyncClient(base_url=f"http://{proxy.address}") as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/")
        assert proxy.counts["refused"] == 1


@pytest.mark.kafka
async def test_a_broker_behind_it_loses_nothing_over_resets(tmp_path: Path) -> None:
    """An idempotent producer meets RST and held answers: every record stands once, in order."""
    port = free_port()
    try:
        broker = Broker(tmp_path / "broker", advertised=port)
    except KafkaMissing as reason:
        missing(str(reason))
    await asyncio.to_thread(broker.start)
    try:
        async with FaultProxy("127.0.0.1", broker.port, listen_port=port) as proxy:
            await _make_topic(proxy.address)
            producer = AIOKafkaProducer(bootstrap_servers=proxy.address, acks="all", enable_idempotence=True, retry_backoff_ms=50)
            await producer.start()
            for number in range(200):
                if number % 20 == 10:
                    proxy.reset(after=number * 7 % 60, times=1)
                await producer.send_and_wait("t", b"%d" % number)
            await producer.stop()
            assert proxy.counts["reset"] >= 5
            await proxy.heal()
            assert await _read(proxy.address, 200) == [b"%d" % number for number in range(200)]
    finally:
        broker.close()


async def _make_topic(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic("t", 1, 1)])
    finally:
        await admin.close()


async def _read(bootstrap: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        partition = TopicPartition("t", 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        values = [(await consumer.getone()).value for _ in range(count)]
        assert (await consumer.end_offsets([partition]))[partition] == count
        return values
    finally:
        await consumer.stop()


async def _seconds(call: Awaitable[object]) -> float:
    began = time.monotonic()
    await call
    return time.monotonic() - began
