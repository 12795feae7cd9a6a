"""A started Box simulator and a plain HTTP client that speaks to it: no client code of ours stands between test and simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from simulators.box import BoxSimulator

START = 1_780_000_000.0


class Time:
    """The simulator's clock, moved by hand."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> float:
        return self.at


class Desk:
    """`call` sends one request with the token and gives the answer; `ok` gives its body where it has the expected status."""

    def __init__(self, box: BoxSimulator, time: Time, http: httpx.AsyncClient) -> None:
        self.box, self.time, self.http = box, time, http
        self.token = ""

    async def sign_in(self, **changes: str) -> httpx.Response:
        form = {
            "grant_type": "client_credentials",
            "client_id": self.box.client_id,
            "client_secret": self.box.client_secret,
            "box_subject_type": "enterprise",
            "box_subject_id": self.box.store.enterprise,
        }
        answer = await self.http.post("/oauth2/token", data=form | changes)
        if answer.status_code == 200:
            self.token = answer.json()["access_token"]
        return answer

    async def call(self, method: str, path: str, json: Any = None, *, as_user: str = "", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} | ({"as-user": as_user} if as_user else {}) | options.pop("headers", {})
        return await self.http.request(method, f"/2.0{path}", json=json, headers=headers, **options)

    async def ok(self, method: str, path: str, json: Any = None, *, status: int = 200, **options: Any) -> Any:
        answer = await self.call(method, path, json, **options)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def error(self, method: str, path: str, json: Any = None, **options: Any) -> tuple[int, str]:
        """Status and code of an error in Box's shape, whose every part is checked."""
        answer = await self.call(method, path, json, **options)
        body = answer.json()
        assert set(body) == {"type", "status", "code", "message", "context_info", "help_url", "request_id"}
        assert (body["type"], body["status"]) == ("error", answer.status_code)
        assert body["message"]
        assert body["help_url"].startswith("https://developer.box.com/")
        assert body["request_id"] == answer.headers["box-request-id"]
        return answer.status_code, body["code"]

    def last_call(self) -> tuple[int | None, bool]:
        """Status and effect of the last mutating call."""
        call = self.box.calls.after(self.box.calls.count - 1)[0]
        return call["status"], call["changed"]

    def events(self) -> list[str]:
        return [event["event_type"] for _, event in self.box.store.events]


@asynccontextmanager
async def open_desk(**options: Any) -> AsyncIterator[Desk]:
    time = Time()
    box = BoxSimulator(clock=time, **options)
    await box.start()
    try:
        async with httpx.AsyncClient(base_url=box.url, trust_env=False, timeout=10) as http:
            desk = Desk(box, time, http)
            await desk.sign_in()
            yield desk
    finally:
        await box.stop()
    assert box.crashes == []
