"""A TCP proxy that breaks connections on order: between our clients and a vendor's simulator, or a broker.

Faults are switched while connections run; each names a direction, `UP` (client to server) or `DOWN` (server to client), and how often
it strikes. What a fault did is counted, so that a test can show that the fault really happened.

    async with FaultProxy("127.0.0.1", server_port) as proxy:
        proxy.latency(0.2)                  # each piece of data, both ways, from now on
        proxy.reset(after=100, times=1)     # one connection: 100 more bytes of the answer, then RST
        proxy.half_body(times=1)            # one HTTP answer: its headers, half of its body, then the end
        proxy.blackhole(UP)                 # nothing arrives, nothing fails; `heal()` lets it flow on, as TCP would
        await proxy.refuse()                # connections are refused and the running ones cut, until `heal()`

Rejected: toxiproxy (a binary to fetch), and faults inside an HTTP transport (a broker and half-sent bytes need the wire).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Literal, Self

_PIECE = 64 * 1024
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


class Direction(StrEnum):
    UP = "up"
    DOWN = "down"


UP, DOWN = Direction.UP, Direction.DOWN
BOTH = (UP, DOWN)
Breaking = Literal["cut", "reset", "half_body"]


@dataclass
class _Break:
    """A fault that ends connections. `left` is how many it still ends (None: all)."""

    kind: Breaking
    direction: Direction
    after: int
    left: int | None

    def claim(self) -> bool:
        if self.left == 0:
            return False
        if self.left is not None:
            self.left -= 1
        return True


class _Broken(Exception):
    """The connection has met its fault."""

    def __init__(self, kind: Breaking) -> None:
        self.kind = kind


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    #: The breaking fault that this connection met, by direction, and how many bytes it may still pass.
    claimed: dict[Direction, tuple[_Break, int]] = field(default_factory=dict)
    task: asyncio.Task[object] | None = None

    def end(self, *, hard: bool) -> None:
        for writer in (self.client, self.server):
            if hard:
                _end_with_reset(writer)
            else:
                writer.close()


class FaultProxy:
    """`counts`: `connections`, `refused`, `bytes_up`, `bytes_down`, and `cut`, `reset`, `half_body`, `delayed` as often as each struck."""

    def __init__(self, host: str, port: int, *, listen_port: int = 0) -> None:
        self._upstream = (host, port)
        self.host = "127.0.0.1"
        self.port = listen_port
        self.counts: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._breaks: list[_Break] = []
        self._latency: dict[Direction, tuple[float, float]] = {}
        self._open = {UP: asyncio.Event(), DOWN: asyncio.Event()}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens; `port` says where."""
        for gate in self._open.values():
            gate.set()
        await self._listen()

    async def stop(self) -> None:
        await self._stop_listening()
        await self._end_all(hard=True)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many run now."""
        return len(self._connections)

    # --- faults -------------------------------------------------------------------------------------------------------

    def latency(self, seconds: float, jitter: float = 0.0, *directions: Direction) -> None:
        """Each piece of data waits that long, and up to `jitter` seconds more; order is kept."""
        for direction in directions or BOTH:
            self._latency[direction] = (seconds, jitter)

    def blackhole(self, *directions: Direction) -> None:
        """Data is held: no error, no end, as when a route is lost. `heal` lets it flow on."""
        for direction in directions or BOTH:
            self._open[direction].clear()

    def cut(self, direction: Direction = DOWN, *, after: int = 0, times: int | None = None) -> None:
        """A connection that sends that way passes `after` more bytes, then both its ends are closed in order (FIN)."""
        self._breaks.append(_Break("cut", direction, after, times))

    def reset(self, direction: Direction = DOWN, *, after: int = 0, times: int | None = None) -> None:
        """The same with RST: whoever reads gets an error instead of an end."""
        self._breaks.append(_Break("reset", direction, after, times))

    def half_body(self, *, times: int | None = None) -> None:
        """An HTTP answer passes its headers and half of its body (of its first piece where no Content-Length tells), then FIN."""
        self._breaks.append(_Break("half_body", DOWN, 0, times))

    async def cut_now(self, *, hard: bool = False) -> int:
        """Ends every running connection (`hard`: with RST); says how many there were. New ones are served."""
        return await self._end_all(hard=hard)

    async def refuse(self) -> None:
        """As if the server had gone: new connections are refused, running ones get RST."""
        await self._stop_listening()
        await self._end_all(hard=True)

    async def heal(self) -> None:
        """Takes every fault away; held data flows on."""
        self._breaks.clear()
        self._latency.clear()
        for connection in self._connections:
            connection.claimed.clear()
        for gate in self._open.values():
            gate.set()
        if self._server is None:
            await self._listen()

    # --- the wire -----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _end_all(self, *, hard: bool) -> int:
        connections = list(self._connections)
        tasks = [connection.task for connection in connections if connection.task is not None]
        for connection in connections:
            connection.end(hard=hard)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(connections)

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            server_reader, server = await asyncio.open_connection(*self._upstream)
        except OSError:
            self.counts["refused"] += 1
            _end_with_reset(client)
            return
        self.counts["connections"] += 1
        connection = _Connection(client, server, task=asyncio.current_task())
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(connection, UP, client_reader, server))
                pumps.create_task(self._pump(connection, DOWN, server_reader, client))
        except* _Broken as broken:
            kind = next(error.kind for error in broken.exceptions if isinstance(error, _Broken))
            self.counts[kind] += 1
            connection.end(hard=kind == "reset")
        except* OSError:
            connection.end(hard=True)  # one side broke: so does the other
        except* asyncio.CancelledError:
            pass  # ended on purpose; asyncio's streams would print it
        finally:
            self._connections.discard(connection)
            connection.end(hard=False)

    async def _pump(self, connection: _Connection, way: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            await self._delay(way)
            await self._open[way].wait()
            passed, broken = self._strike(connection, way, piece)
            if passed:
                writer.write(passed)
                await writer.drain()
                self.counts[f"bytes_{way}"] += len(passed)
            if broken is not None:
                raise _Broken(broken)
        await self._open[way].wait()
        if writer.can_write_eof():
            writer.write_eof()

    async def _delay(self, way: Direction) -> None:
        if way in self._latency:
            seconds, jitter = self._latency[way]
            self.counts["delayed"] += 1
            await asyncio.sleep(seconds + random.uniform(0, jitter))

    def _strike(self, connection: _Connection, way: Direction, piece: bytes) -> tuple[bytes, Breaking | None]:
        """What of the piece passes, and the fault that ends the connection after it, if one does."""
        if way not in connection.claimed:
            fault = next((one for one in self._breaks if one.direction is way and one.claim()), None)
            if fault is None:
                return piece, None
            connection.claimed[way] = (fault, _half_of(piece) if fault.kind == "half_body" else fault.after)
        fault, allowed = connection.claimed[way]
        if len(piece) < allowed:
            connection.claimed[way] = (fault, allowed - len(piece))
            return piece, None
        return piece[:allowed], fault.kind


def _half_of(piece: bytes) -> int:
    """How many bytes of an HTTP answer that begins with this piece are its headers and half of its body."""
    head, found, body = piece.partition(b"\r\n\r\n")
    if not found:
        return len(piece) // 2
    told = _CONTENT_LENGTH.search(head)
    length = int(told[1]) if told else len(body)
    return len(head) + len(found) + length // 2


def _end_with_reset(writer: asyncio.StreamWriter) -> None:
    """Closing with nothing left to linger for sends RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
