"""Questions to the running recorder (D28): it owns the file, so it answers, each question on a cursor and in a thread of its own.

Loopback only, with a bearer token made at start; both stand, readable to the owner alone, in `audit.address.json` beside the file, which is
how client.py finds its way. A recorder that is behind still answers: a question costs it a core, never a transaction (store.py breaks
readers off when memory runs short).

    POST /sql     {"query": "SELECT …"}   200 {"rows": [{…}, …], "count": n, "notice": null | text}
                                          400 refused, 503 stopped or busy: {"error": text, "kind": "refused" | "stopped" | "busy"}
                  Rows are streamed; what goes wrong behind the first ones stands at the end: {"rows": […], "error": …, "kind": …}
    POST /verify                          200, one JSON object a line: {"done": n, "all": n} …, at last {"report": {…}}
    GET  /health                          200 {"ok": true, "questions": running, "stuck": n}

Rejected: a Unix socket (nothing but Python and curl could ask), TLS on loopback (the token never leaves the host).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web

from audit.query import Answer, Limits, QueryRefused, QueryStopped, run
from audit.response import Stream, json_response
from audit.store import AuditStore
from audit.verify import verify
from model.errors import FaultError

log = logging.getLogger(__name__)

_GRACE_S = 5.0


def address_path(path: Path) -> Path:
    """Where the recorder that owns the file `path` writes how to reach it."""
    return path.with_name("audit.address.json")


class AuditService:
    """`await start()` / `await stop()` in the recorder's event loop. `slots` questions run at a time, others wait `queue_s` for their turn.

    Port 0 takes any free one; `url` says which after start. `stuck` counts questions that neither end nor can be interrupted: whoever
    supervises may restart the process for it.
    """

    def __init__(
        self,
        store: AuditStore,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits | None = None,
        slots: int = 2,
        queue_s: float = 5.0,
        grace_s: float = _GRACE_S,
    ) -> None:
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("the audit service listens on loopback only")
        self._store, self._host, self._port = store, host, port
        self._limits = limits or Limits()
        self._slots = asyncio.Semaphore(slots)
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="audit-sql")
        self._queue_s, self._grace_s = queue_s, grace_s
        self._token = secrets.token_urlsafe(32)
        self._runner: web.AppRunner | None = None
        self.running, self.stuck = 0, 0
        self.url = ""

    async def start(self) -> None:
        """Listens, then writes the address. Raises OSError where the port is taken."""
        app = web.Application(client_max_size=1 << 20, middlewares=[self._only_with_token])
        app.add_routes([web.post("/sql", self._sql), web.post("/verify", self._verify), web.get("/health", self._health)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://{'[::1]' if self._host == '::1' else self._host}:{port}"
        self._write_address()

    async def stop(self) -> None:
        """Breaks running questions off. Leaves the store open."""
        address_path(self._store.path).unlink(missing_ok=True)
        self._store.interrupt_readers()
        if self._runner is not None:
            await self._runner.cleanup()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _write_address(self) -> None:
        path = address_path(self._store.path)
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump({"url": self.url, "token": self._token, "pid": os.getpid()}, file)
        draft.replace(path)

    @web.middleware
    async def _only_with_token(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if request.path != "/health" and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            return json_response(401, {"error": "needs the bearer token of audit.address.json", "kind": "refused"})
        return await handler(request)

    async def _health(self, _request: web.Request) -> web.Response:
        return json_response(200, {"ok": True, "questions": self.running, "stuck": self.stuck})

    async def _sql(self, request: web.Request) -> web.StreamResponse:
        try:
            query = (await request.json())["query"]
        except (ValueError, KeyError, TypeError):
            query = None
        if not isinstance(query, str):
            return json_response(400, {"error": 'the body must be {"query": "SELECT …"}', "kind": "refused"})
        return await self._answer(request, lambda stream: self._run(query, stream), "\n], ", self._limits.timeout_s + self._grace_s)

    async def _verify(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, self._prove, "{", None)

    async def _answer(
        self, request: web.Request, work: Callable[[Stream], None], before_error: str, patience: float | None
    ) -> web.StreamResponse:
        """Runs `work` in a thread. Where it does not come back in time, the answer ends and its slot stays taken until it does.
        `before_error` is what an error behind rows already sent begins with."""
        try:
            await asyncio.wait_for(self._slots.acquire(), self._queue_s)
        except TimeoutError:
            return json_response(503, {"error": f"{self.running} questions are being answered: ask again", "kind": "busy"})
        loop = asyncio.get_running_loop()
        stream = Stream(request, loop, before_error, patience or 600.0)
        self.running += 1
        working = loop.run_in_executor(self._pool, work, stream)
        working.add_done_callback(self._free)
        try:
            done, _ = await asyncio.wait({working}, timeout=patience)
        except asyncio.CancelledError:
            self._store.interrupt_readers()
            raise
        if not done:
            return await self._give_up(working, stream)
        try:
            await working
        except QueryRefused as error:
            return await stream.fail(400, str(error), "refused")
        except QueryStopped as error:
            return await stream.fail(503, str(error), "stopped")
        except ConnectionError:
            return stream.response  # whoever asked has gone
        except FaultError as error:
            log.warning("a question to the audit trail failed: %s", error)
            return await stream.fail(503, str(error), "stopped")
        return await stream.end()

    def _free(self, working: asyncio.Future[None]) -> None:
        self.running -= 1
        self._slots.release()
        if not working.cancelled():
            working.exception()

    async def _give_up(self, working: asyncio.Future[None], stream: Stream) -> web.StreamResponse:
        self.stuck += 1
        log.error("a question to the audit trail does not stop when interrupted; %d of its kind hold a slot", self.stuck)
        working.add_done_callback(lambda _: setattr(self, "stuck", self.stuck - 1))
        return await stream.fail(503, "stopped waiting: the question cannot be interrupted where it is", "stopped")

    def _run(self, query: str, stream: Stream) -> None:
        answer = Answer()
        with self._store.reader() as cursor:
            for row in run(cursor, query, self._limits, answer):
                stream.put(("," if answer.rows > 1 else '{"rows": [') + "\n" + row)
        start = "" if answer.rows else '{"rows": ['
        stream.tail = f'{start}\n], "count": {answer.rows}, "notice": {json.dumps(answer.notice)}}}\n'

    def _prove(self, stream: Stream) -> None:
        with self._store.reader() as cursor:
            report = verify(cursor, progress=lambda done, total: stream.flush(json.dumps({"done": done, "all": total}) + "\n"))
        stream.tail = json.dumps({"report": report.as_dict()}) + "\n"
