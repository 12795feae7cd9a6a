"""Asks a Kafka broker two questions in its own protocol, without a client library: does it answer, and is a coordinator there?

A client library would do as well, but ours are asynchronous and retry for minutes by themselves; a start-up check needs one short
question at a time, from a thread, a script or an event loop alike.
"""

from __future__ import annotations

import socket
import struct

_METADATA, _FIND_COORDINATOR = 3, 10


class NotServing(Exception):
    """The broker does not answer, or answers that it is not ready; the text says which."""


def check_serving(host: str, port: int, timeout: float = 2.0) -> None:
    """Raises NotServing unless metadata names a broker and a group coordinator is found."""
    try:
        with socket.create_connection((host, port), timeout) as sock:
            sock.settimeout(timeout)
            brokers = _ask(sock, _METADATA, 4, struct.pack(">i?", 0, False))
            (count,) = struct.unpack_from(">i", brokers, 4)  # after throttle_time_ms
            if count < 1:
                raise NotServing("metadata names no broker yet")
            found = _ask(sock, _FIND_COORDINATOR, 1, _text("portcullis-ready") + b"\0")
            (code,) = struct.unpack_from(">h", found, 4)
            if code:
                raise NotServing(f"no group coordinator yet (code {code})")
    except OSError as error:
        raise NotServing(str(error)) from None


def _ask(sock: socket.socket, api: int, version: int, body: bytes) -> bytes:
    request = struct.pack(">hhi", api, version, 1) + _text("portcullis") + body
    sock.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _read(sock, 4))
    return _read(sock, size)[4:]


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise NotServing("the broker closed the connection")
        data += part
    return data


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()
