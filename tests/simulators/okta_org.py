"""An Okta org under test: a simulator on a free port, a clock that is turned by hand, a client with the admin's token."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from simulators.okta import OktaSimulator

START = 1_767_603_600.0  # 2026-01-05T09:00:00Z
TOKEN = "00tokenOfTheAdmin"


class HandClock:
    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class OrgUnderTest:
    def __init__(self, simulator: OktaSimulator, clock: HandClock, client: httpx.AsyncClient) -> None:
        self.simulator, self.clock, self.client = simulator, clock, client
        self.org = simulator.org

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.client.get(path, params=params or None)

    async def act(self, action: str, **order: Any) -> dict[str, Any]:
        answer = await self.client.post("/_sim/act", json={"action": action, **order})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def hire(self, login: str, **more: Any) -> str:
        order = {"firstName": "Ada", "lastName": "Lovelace", "department": "Engineering", **more}
        return str((await self.act("hire", login=login, **order))["id"])

    async def state(self) -> dict[str, Any]:
        return dict((await self.client.get("/_sim/state")).json())

    async def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What stands in the log, read as a poller reads it."""
        answer = await self.get("/api/v1/logs", since="2025-12-01T00:00:00Z", limit=1000)
        assert answer.status_code == 200, answer.text
        return [event for event in answer.json() if kind is None or event["eventType"] == kind]


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[OrgUnderTest]:
    clock = HandClock()
    simulator = OktaSimulator(clock=clock, rng=random.Random(7), **options)
    simulator.add_token(TOKEN)
    await simulator.start()
    try:
        headers = {"Authorization": f"SSWS {TOKEN}", "User-Agent": "portcullis-test/1"}
        async with httpx.AsyncClient(base_url=simulator.url, headers=headers) as client:
            yield OrgUnderTest(simulator, clock, client)
        assert simulator.crashes == []
    finally:
        await simulator.stop()


def links(answer: httpx.Response) -> dict[str, str]:
    """Relation → URL, from one Link header a relation."""
    found: dict[str, str] = {}
    for value in answer.headers.get_list("link"):
        target, _, relation = value.partition(">; rel=")
        name = relation.strip('"')
        assert "," not in name, "several relations stand in one Link header"
        assert name not in found, f"two Link headers for {name}"
        found[name] = target.removeprefix("<")
    return found
