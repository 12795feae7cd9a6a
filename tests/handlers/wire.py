"""A scripted vendor behind a real client: answers in order, keeps what was asked. For order and faults; simulators are for truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from pydantic import SecretStr

from handlers.answers import Dialect
from handlers.auth import Auth, StaticToken
from handlers.client import Client
from handlers.contract import Lane
from handlers.limits import Limits
from handlers.okta.api import OKTA
from tests.support.clock import FakeClock

BASE = "http://127.0.0.1:9"
Step = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Wire:
    """Plays its steps one a request; asking for more than there are fails the test."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert self.steps, f"nobody expected {request.method} {request.url}"
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step(request) if callable(step) else step

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]


def okta_error(status: int, code: str, summary: str = "", **headers: str) -> httpx.Response:
    body = {"errorCode": code, "errorSummary": summary, "errorLink": code, "errorId": "oae1", "errorCauses": []}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def box_error(status: int, code: str, message: str = "", **headers: str) -> httpx.Response:
    body = {"type": "error", "status": status, "code": code, "message": message, "context_info": None, "request_id": "r1"}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def limits(clock: FakeClock, *, lane: Lane = "provision", **options: Any) -> Limits:
    return Limits("vendor", lane, clock, **({"per_minute": 600.0} | options))


def client(
    wire: Wire,
    clock: FakeClock,
    *,
    dialect: Dialect = OKTA,
    auth: Auth | None = None,
    base: str = BASE,
    lane: Lane = "provision",
    **options: Any,
) -> Client:
    """A real client on a scripted wire; jitter is 0 unless given."""
    own = options.pop("limits", None) or limits(clock, lane=lane)
    auth = auth or StaticToken("SSWS", lambda: SecretStr("the-token"))
    settings: dict[str, Any] = {"jitter": lambda: 0.0, "transport": httpx.MockTransport(wire)} | options
    return Client(dialect, base, auth, own, clock, **settings)
