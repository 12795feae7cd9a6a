"""What every simulated vendor shares: an HTTP server on loopback, the side door `/_sim/*`, faults, and the list of mutating calls.

A subclass adds its routes to `self.app`, answers `state()`, and fills the hooks: `admit` (credentials and rate limit, before any
route), `error_for` (the vendor's own error body for 404, 405, 500 and ordered faults). A handler calls `self.changed(request)` at the
moment at which it changes state: that is what puts a call in its place in the order, and no `await` may stand between the two.
Rejected: response mocks (they accept anything and forget), and a framework on top of aiohttp (it is here already, for Faust and Slack).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import time
from fnmatch import fnmatchcase
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from simulators.calls import Call, CallLog, iso, read_body
from simulators.faults import BadOrder, Fault, Faults
from simulators.limits import Clock, Rate, RateWindow, TokenBucket, Tokens

__all__ = ["Clock", "Rate", "RateWindow", "Refusal", "Simulator", "TokenBucket", "Tokens", "bearer", "iso", "json_response", "read_body"]

INTENT_HEADER = "X-Portcullis-Intent"
_CALL = web.RequestKey("call", Call)
_READS = ("GET", "HEAD", "OPTIONS")
_log = logging.getLogger(__name__)


def json_response(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(data), status=status, headers=headers, content_type="application/json")


def bearer(request: web.BaseRequest, scheme: str = "Bearer") -> str | None:
    """The token of the Authorization header under `scheme` (case does not count), or None."""
    given, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if given.lower() == scheme.lower() else None


class Refusal(Exception):
    """A handler's way to end with the vendor's error answer from any depth."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


class Simulator:
    """One vendor on one port. `clock` gives epoch seconds; `latency_s` delays every answer (for benches)."""

    name = "simulator"
    #: Globs of paths whose non-GET calls change nothing and are not listed: token requests, auth.test, reads by POST.
    unlisted: tuple[str, ...] = ()

    def __init__(self, *, clock: Clock = time.time, latency_s: float = 0.0) -> None:
        self.clock = clock
        self.latency_s = latency_s
        self.calls = CallLog(clock)
        self.faults = Faults()
        #: Defects of the simulator itself: requests whose handler raised.
        self.crashes: list[str] = []
        self._stopping = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._host, self._port = "127.0.0.1", 0
        self.app = web.Application(middlewares=[self._door], client_max_size=256 * 1024 * 1024)
        self.app.router.add_get("/_sim/state", self._show_state)
        self.app.router.add_get("/_sim/calls", self._show_calls)
        self.app.router.add_get("/_sim/faults", self._show_faults)
        self.app.router.add_post("/_sim/faults", self._order_fault)
        self.app.router.add_delete("/_sim/faults", self._clear_faults)

    # -- what a vendor fills ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The vendor's objects by kind and id, as JSON values."""
        return {}

    async def admit(self, request: web.Request) -> web.Response | None:
        """Credentials and rate limit, before any route (unknown paths too). A response refuses the request."""
        return None

    def error_for(self, request: web.Request, status: int) -> web.Response:
        """The vendor's own error answer for `status` where no handler gave one."""
        return json_response({"error": status}, status)

    def is_mutating(self, request: web.BaseRequest) -> bool:
        return request.method not in _READS and not any(fnmatchcase(request.path, glob) for glob in self.unlisted)

    # -- what a vendor's handlers call --------------------------------------------------------------------------------

    def changed(self, request: web.Request) -> None:
        """State changed, now, because of this request."""
        call = request.get(_CALL)
        assert call is not None, f"{request.method} {request.path} changed state but is not listed as a mutating call"
        self.calls.settle(call, changed=True)

    def now(self) -> str:
        """The simulator's time as ISO 8601."""
        return iso(self.clock())

    # -- life ---------------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        assert self._runner is not None, f"the {self.name} simulator is not started"
        return self._port

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> None:
        """Listens; port 0 takes any free one. May be called again after `stop`: state survives, as a vendor's does an outage."""
        self._stopping = asyncio.Event()
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner, self._host = runner, host
        self._port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        self._stopping.set()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def pause(self, seconds: float) -> None:
        """Waits in real time, but not longer than the server lives."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)

    # -- the door through which every request comes -------------------------------------------------------------------

    @web.middleware
    async def _door(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/_sim/"):
            return await handler(request)
        fault = self.faults.take(request.method, request.path)
        call = await self._arrived(request)
        try:
            if fault is not None and fault.when == "before":
                await self.pause(fault.delay_s)
            response = None
            if fault is None or not fault.skips_work(call is not None):
                response = await self._work(request, handler)
            if call is not None:
                self.calls.settle(call)
                call.status = None if response is None else response.status
            if fault is not None:
                if fault.when == "after":
                    await self.pause(fault.delay_s)
                response = await self._spoil(request, response, fault, call)
            await self.pause(self.latency_s)
            assert response is not None
            return response
        finally:
            if call is not None:
                self.calls.settle(call)

    async def _arrived(self, request: web.Request) -> Call | None:
        if not self.is_mutating(request):
            return None
        body = read_body(await request.read(), request.content_type)
        call = self.calls.open(request.method, request.path, request.query, body, request.headers.get(INTENT_HEADER))
        request[_CALL] = call
        return call

    async def _work(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            refusal = await self.admit(request)
            return await handler(request) if refusal is None else refusal
        except Refusal as refused:
            return refused.response
        except web.HTTPException as error:
            return self.error_for(request, error.status)
        except Exception as error:
            _log.exception("%s simulator: %s %s", self.name, request.method, request.path)
            self.crashes.append(f"{request.method} {request.path}: {error!r}")
            return self.error_for(request, 500)

    async def _spoil(
        self, request: web.Request, response: web.StreamResponse | None, fault: Fault, call: Call | None
    ) -> web.StreamResponse:
        if fault.hang or fault.reset:
            if call is not None:
                call.status = None
            if fault.hang:
                while not self._stopping.is_set() and request.transport is not None and not request.transport.is_closing():
                    await self.pause(0.05)
            _reset(request)
            return web.Response()
        response = self._replaced(request, response, fault)
        for name, value in fault.headers.items():
            response.headers[name] = value
        if call is not None:
            call.status = response.status
        return await _cut(request, response) if fault.cut_body else response

    def _replaced(self, request: web.Request, response: web.StreamResponse | None, fault: Fault) -> web.StreamResponse:
        if not fault.has_body:
            wanted = fault.status if fault.status is not None else 503
            return self.error_for(request, wanted) if response is None or fault.replaces else response
        status = fault.status if fault.status is not None else 200
        if isinstance(fault.body, str):
            return web.Response(text=fault.body, status=status, content_type="text/plain")
        return json_response(fault.body, status)

    # -- the side door ------------------------------------------------------------------------------------------------

    async def _show_state(self, request: web.Request) -> web.Response:
        return json_response(self.state())

    async def _show_calls(self, request: web.Request) -> web.Response:
        after = request.query.get("after", "0")
        if not after.isascii() or not after.isdigit():
            return json_response({"error": "after must be a number of a call"}, 400)
        return json_response(self.calls.after(int(after)))

    async def _show_faults(self, request: web.Request) -> web.Response:
        return json_response(self.faults.to_json())

    async def _order_fault(self, request: web.Request) -> web.Response:
        try:
            self.faults.add(orjson.loads(await request.read()))
        except (BadOrder, orjson.JSONDecodeError) as error:
            return json_response({"error": str(error)}, 400)
        return json_response({"ok": True}, 201)

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self.faults.clear()
        return web.Response(status=204)


def _reset(request: web.Request) -> None:
    """Closes the connection with RST, as a firewall or a dying balancer does."""
    transport = request.transport
    if transport is None:
        return
    kept = transport.get_extra_info("socket")
    if kept is not None:
        # A twin of the descriptor: uvloop's stand-in for the socket refuses setsockopt.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(kept.fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _cut(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Promises the whole body, sends half of it, closes."""
    body = response.body if isinstance(response, web.Response) and isinstance(response.body, bytes) else b""
    cut = web.StreamResponse(status=response.status, headers=response.headers)
    cut.content_length = max(len(body), 2)
    await cut.prepare(request)
    await cut.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return cut
