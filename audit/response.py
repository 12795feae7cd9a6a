"""An answer on its way from a worker thread to whoever asked: streamed, so that a large one needs no memory, and honest about its end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from audit.query import QueryStopped

_CHUNK = 64 << 10
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Stream:
    """The way from a worker thread to the response: text is collected and sent in chunks; the sender waits for a slow reader."""

    def __init__(self, request: web.Request, loop: asyncio.AbstractEventLoop, before_error: str, patience: float) -> None:
        self._request, self._loop, self._before_error, self._patience = request, loop, before_error, patience
        self.response = web.StreamResponse(headers=_HEADERS | {"Content-Type": "application/json"})
        self._collected: list[str] = []
        self._size = 0
        self._begun = False
        self.tail = ""

    def put(self, text: str) -> None:
        self._collected.append(text)
        self._size += len(text)
        if self._size >= _CHUNK:
            self.flush()

    def flush(self, text: str = "") -> None:
        chunk = "".join((*self._collected, text)).encode()
        self._collected, self._size = [], 0
        sending = asyncio.run_coroutine_threadsafe(self._send(chunk), self._loop)
        try:
            sending.result(self._patience)
        except TimeoutError:
            sending.cancel()
            raise QueryStopped("the reader of the answer is too slow") from None

    async def _send(self, chunk: bytes) -> None:
        if not self._begun:
            self._begun = True
            await self.response.prepare(self._request)
        await self.response.write(chunk)

    async def end(self) -> web.StreamResponse:
        await self._send("".join((*self._collected, self.tail)).encode())
        await self.response.write_eof()
        return self.response

    async def fail(self, status: int, error: str, kind: str) -> web.StreamResponse:
        """With a status where nothing was sent yet, else as the end of what was."""
        said: dict[str, Any] = {"error": error, "kind": kind}
        if not self._begun:
            return json_response(status, said)
        rest = "".join(self._collected)
        await self._send(f"{rest}{self._before_error}{json.dumps(said)[1:]}\n".encode())
        await self.response.write_eof()
        return self.response


def json_response(status: int, body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=status, headers=_HEADERS)
