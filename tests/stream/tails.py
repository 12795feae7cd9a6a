"""One tenant's tail over Kafka in memory, against a scripted wire or the strict simulator."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import httpx
from pydantic import SecretStr

from handlers.auth import StaticToken
from handlers.client import Client
from handlers.limits import Limits
from handlers.okta.api import OKTA, OktaApi
from model.settings import OktaSettings
from simulators.okta import OktaSimulator
from stream import topics
from stream.poller import Checkpoint, Tail
from tests.handlers.wire import BASE, Wire, client
from tests.stream import memory
from tests.stream.memory import Log
from tests.support.clock import START, FakeClock

TENANT = "acme"
TOKEN = "00token"
DATE = ("date", "Mon, 05 Jan 2026 09:00:00 GMT")
PLENTY = [("x-rate-limit-limit", "120"), ("x-rate-limit-remaining", "100"), ("x-rate-limit-reset", str(int(START.timestamp()) + 30))]


#: A body that was cut: no whole array.
CUT = b"[{"


def event(uuid: str, **facts: Any) -> bytes:
    return json.dumps({"uuid": uuid, "eventType": "user.test", "published": "2026-01-05T09:00:00.000Z"} | facts).encode()


def next_link(name: str) -> tuple[str, str]:
    return ("link", f'<{BASE}/api/v1/logs?after={name}&limit=1000>; rel="next"')


def page(*events: bytes, next: str = "a1", headers: list[tuple[str, str]] | None = None, date: tuple[str, str] = DATE) -> httpx.Response:
    body = b"[" + b",".join(events) + b"]"
    return httpx.Response(200, content=body, headers=[next_link(next), date, *(PLENTY if headers is None else headers)])


class Source:
    """A log in memory, a clock, and a tail that can be started anew. `wire` scripts the vendor; else `api` speaks to a simulator."""

    def __init__(self, api: OktaApi | None = None, *, wire: Wire | None = None, **settings: Any) -> None:
        self.log, self.clock = Log(), FakeClock(auto=False)
        self.settings = OktaSettings.model_validate({"url": "https://acme.okta.com", "token_env": "T", "start": "beginning"} | settings)
        self.api = api if wire is None else OktaApi(client(wire, self.clock), BASE)
        self.wire = wire
        self.max_event_bytes = 1000

    async def tail(self) -> Tail:
        """As after a start of the process: nothing is known but what Kafka holds."""
        self.log.dead = False
        publisher = memory.Publisher(self.log)
        checkpoints = memory.State(self.log, publisher, topics.CHECKPOINTS)
        await checkpoints.start()
        assert self.api is not None
        broker = cast(Any, self)
        tail = Tail(TENANT, self.settings, self.api, broker, cast(Any, publisher), cast(Any, checkpoints), self.clock)
        tail.load()
        return tail

    @property
    def checkpoint(self) -> Checkpoint | None:
        stored = self.log.state(topics.CHECKPOINTS).get(TENANT)
        return None if stored is None else Checkpoint.from_bytes(stored)

    @property
    def cursor(self) -> str | None:
        return self.checkpoint.next if self.checkpoint else None

    @property
    def published(self) -> list[str]:
        return [json.loads(raw)["uuid"] for raw in self.put if raw != CUT]

    @property
    def put(self) -> list[bytes]:
        """All that stands on the log, pages that were parked whole included."""
        return [record.value or b"" for record in self.log.of(topics.SYSTEM_LOG)]

    @property
    def asked(self) -> list[httpx.URL]:
        assert self.wire is not None
        return [request.url for request in self.wire.requests]


def scripted(*steps: httpx.Response | Exception, **settings: Any) -> Source:
    return Source(wire=Wire(*steps), **settings)


def simulated(clock: Callable[[], datetime], *, rate: int = 100_000) -> OktaSimulator:
    sim = OktaSimulator(tenant=TENANT, clock=lambda: clock().timestamp(), rate=rate)
    sim.add_token(TOKEN)
    return sim


def api_of(sim: OktaSimulator, clock: FakeClock, token: str = TOKEN) -> OktaApi:
    auth = StaticToken("SSWS", lambda: SecretStr(token))
    return OktaApi(Client(OKTA, sim.url, auth, Limits("okta", "provision", clock, per_minute=1e6), clock, timeout_s=5), sim.url)
