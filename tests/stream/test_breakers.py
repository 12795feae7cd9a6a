"""A breaker that moves is seen: in the audit trail, over HTTP, by `portcullis check`; and no call waits for that."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from aiokafka.errors import KafkaConnectionError

from handlers.limits import Limits
from model.decision import Severity
from model.errors import CredentialsRefused, FaultError, TemporaryError
from model.records import Notice
from model.settings import Settings
from stream.breakers import BreakerNews, shown
from stream.broker import Publisher
from stream.check import running_breakers
from stream.health import HealthService
from stream.house import tenants_of
from stream.lane import LaneRole
from tests.handlers.fakes import TENANT, person, swap
from tests.stream.fakes import World, later, until, work
from tests.support.clock import FakeClock

pytestmark = pytest.mark.usefixtures("memory")


class Watched(World):
    """Whose provision lane tells of its breakers, as stream.house wires it."""

    def __init__(self, *people: Any) -> None:
        super().__init__(*people)
        self.news = BreakerNews(self.clock, lambda connector: (TENANT, "other"))
        self.limits = Limits("box", "provision", self.clock, per_minute=1_000_000, on_change=self.news.moved)
        self.error: Exception | None = None
        observe = self.box.observe

        async def limited(*args: Any) -> Any:
            async with self.limits.slot():
                if self.error is not None:
                    raise self.error
                return await observe(*args)

        swap(self.box, "observe", limited)

    @contextlib.asynccontextmanager
    async def _running(self, role: LaneRole) -> AsyncIterator[None]:
        role.beside.append(partial(self.news.tell_forever, role.publisher))
        async with super()._running(role):
            yield

    def told(self) -> list[Notice]:
        return [one for one in self.log.notices("breaker") if one.tenant == TENANT]


async def test_that_it_opened_and_that_it_closed_stand_in_the_trail_and_failed_probes_do_not() -> None:
    world = Watched(*(person(f"00u{number}") for number in range(5)))
    world.error = TemporaryError("503 from box")
    async with world.provision() as role:
        for number in range(5):
            await world.knock(f"00u{number}", uuid=f"e-{number}")
            await work(role)
        await until(world.told)
        (opened,) = world.told()
        assert (opened.target, opened.severity, opened.facts["lane"], opened.facts["state"]) == ("box", Severity.HIGH, "provision", "open")
        assert "503 from box" in opened.text
        assert opened.remedy
        for _ in range(12):
            await later(world, role, 20)  # probes that fail
        assert world.limits.breaker.view.failures > 5
        assert len(world.told()) == 1
        world.error = None
        for _ in range(30):
            await later(world, role, 20)
        await until(lambda: len(world.told()) > 1)
        assert [(one.facts["state"], one.severity) for one in world.told()] == [("open", Severity.HIGH), ("closed", Severity.LOW)]
    assert len(world.log.notices("breaker")) == 4, "each tenant that the target serves hears of it"
    assert len({one.id for one in world.log.notices()}) == len(world.log.notices())


@pytest.mark.fault(10)
async def test_refused_credentials_are_told_at_once(clock: FakeClock) -> None:
    world = Watched(person("00u1"))
    world.error = CredentialsRefused("401")
    async with world.provision() as role:
        await world.knock("00u1")
        await work(role)
        await until(world.told)
        assert world.told()[0].facts["state"] == "open"


async def test_news_waits_for_kafka_and_no_call_waits_for_the_news(clock: FakeClock) -> None:
    sent: list[bytes] = []
    down = asyncio.Event()

    class Patchy:
        async def send(self, topic: Any, key: bytes, value: bytes) -> int:
            if not down.is_set():
                down.set()
                raise KafkaConnectionError
            sent.append(value)
            return 0

    news = BreakerNews(clock, lambda connector: (TENANT,))
    limits = Limits("box", "lockdown", clock, per_minute=6000, on_change=news.moved)
    limits.breaker.failed(False, "401", at_once=True)  # no loop turned: it was not waited for
    telling = asyncio.create_task(news.tell_forever(cast(Publisher, Patchy())))
    await until(lambda: sent)
    telling.cancel()
    assert Notice.from_bytes(sent[0]).facts["state"] == "open"


async def test_a_task_beside_a_lane_that_fails_ends_the_process() -> None:
    async def defect() -> None:
        raise ValueError("a defect")

    class With(World):
        @contextlib.asynccontextmanager
        async def _running(self, role: LaneRole) -> AsyncIterator[None]:
            role.beside.append(defect)
            async with super()._running(role):
                yield

    world = With()
    async with world.provision() as role:
        with pytest.raises(FaultError, match="a defect"):
            await asyncio.wait_for(role.failed(), 5)


def test_whose_trail_hears_of_a_connector() -> None:
    settings = Settings.model_validate(
        {
            "okta": {name: {"url": f"https://{name}.okta.com", "token_env": "T"} for name in ("one", "two")},
            "targets": {"box": {"kind": "box"}, "mine": {"kind": "box", "tenant": "two"}, "okta": {"kind": "okta"}},
        }
    )
    found = {name: tenants_of(settings, name) for name in ("box", "mine", "okta", "okta.two")}
    assert found == {"box": ("one", "two"), "mine": ("two",), "okta": ("one",), "okta.two": ("two",)}


# --- over HTTP ------------------------------------------------------------------------------------------------------------


async def test_breakers_of_a_running_process_over_http_and_in_check(tmp_path: Path, clock: FakeClock) -> None:
    settings = Settings.model_validate({"audit": {"path": tmp_path / "audit.duckdb"}})
    limits = [Limits(name, "provision", clock, per_minute=600) for name in ("box", "okta.acme")]
    (tmp_path / "health-gone.json").write_text('{"url": "http://127.0.0.1:1", "pid": 1, "roles": "gone"}')
    (tmp_path / "health-cut.json").write_text("{")
    service = HealthService(settings, "provision", _no_lags, lambda: shown(limits))
    await service.start()
    try:
        (answer,) = [one async for one in running_breakers(settings)]
        assert (answer.what, answer.ok) == ("breakers of provision", True)
        limits[0].breaker.failed(False, "503", at_once=True)
        async with httpx.AsyncClient(trust_env=False) as http:
            told = (await http.get(f"{_url(service)}/breakers")).json()
        assert [(one["connector"], one["lane"], one["state"], one["reason"]) for one in told] == [
            ("box", "provision", "open", "503"),
            ("okta.acme", "provision", "closed", ""),
        ]
        assert told[0]["retry_in"] == pytest.approx(15)
        (answer,) = [one async for one in running_breakers(settings)]
        assert not answer.ok
        assert "box (provision lane) is open: 503" in answer.said
    finally:
        await service.stop()
    assert [one async for one in running_breakers(settings)] == []


async def _no_lags() -> dict[str, int]:
    return {}


def _url(service: HealthService) -> str:
    return str(json.loads(service.path.read_text())["url"])
