"""Readiness and liveness over loopback HTTP, meaning progress: `/ready` is 200 once every role here has started and nothing keeps one
from its work, `/live` is 200 while the event loop turns and the lags can be read, `/lag` shows them, `/breakers` the circuit breakers of
this process. Never on another address than the configured one.

Port 0 takes any free port; where it is stands in `health-ROLE.json` beside the audit file. Faust's own web server stays off (it listens
on all addresses and cannot be trusted to be disabled).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from model.settings import Settings

PATIENCE_S = 5.0


class HealthService:
    def __init__(
        self,
        settings: Settings,
        name: str,
        lags: Callable[[], Awaitable[dict[str, int]]],
        breakers: Callable[[], list[dict[str, Any]]] = list,
        troubles: Callable[[], list[str]] = list,
    ) -> None:
        self._settings, self._name, self._lags, self._breakers, self._troubles = settings, name, lags, breakers, troubles
        self._runner: web.AppRunner | None = None
        self.ready = False

    @property
    def path(self) -> Path:
        return self._settings.data / f"health-{self._name}.json"

    async def start(self) -> None:
        app = web.Application()
        app.add_routes([web.get("/ready", self._ready), web.get("/live", self._live)])
        app.add_routes([web.get("/lag", self._lag), web.get("/breakers", self._show_breakers)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.health.host, self._settings.health.port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.write_text(json.dumps({"url": f"http://{host}:{port}", "pid": os.getpid(), "roles": self._name}))

    async def stop(self) -> None:
        self.path.unlink(missing_ok=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _ready(self, _request: web.Request) -> web.Response:
        troubles = self._troubles()
        is_ready = self.ready and not troubles
        return web.json_response({"ready": is_ready} | ({"why": troubles} if troubles else {}), status=200 if is_ready else 503)

    async def _live(self, _request: web.Request) -> web.Response:
        if not self.ready:
            return web.json_response({"live": True, "starting": True})
        lags = await self._read_lags()
        return web.json_response({"live": lags is not None, "lag": lags}, status=503 if lags is None else 200)

    async def _lag(self, _request: web.Request) -> web.Response:
        lags = await self._read_lags() if self.ready else None
        return web.json_response({"lag": lags}, status=503 if lags is None else 200)

    async def _show_breakers(self, _request: web.Request) -> web.Response:
        return web.json_response(self._breakers())

    async def _read_lags(self) -> dict[str, int] | None:
        """None where the broker does not answer in time."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._lags()
        except Exception:
            return None
