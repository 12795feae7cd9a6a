"""SQL and proof from the running recorder, over HTTP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import stat
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from audit import service as module
from audit.query import Limits
from audit.service import AuditService, address_path
from audit.store import AuditStore
from tests.audit.trail import Log, day, event

BOMB = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE (a.range * b.range) % 7 = 3"


class Caller:
    def __init__(self, session: aiohttp.ClientSession, service: AuditService, token: str) -> None:
        self._session, self._service = session, service
        self.token, self.url = token, service.url

    async def post(self, what: str, body: Any, **headers: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self.token}"} | headers
        async with self._session.post(self._service.url + what, json=body, headers=headers) as response:
            return response.status, await response.text()

    async def sql(self, query: str) -> tuple[int, Any]:
        status, text = await self.post("/sql", {"query": query})
        return status, json.loads(text)

    async def health(self) -> Any:
        async with self._session.get(self._service.url + "/health") as response:
            assert response.status == 200
            return await response.json()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never became so")


@pytest.fixture
def limits() -> Limits:
    return Limits(timeout_s=5, rows=100_000)


@pytest.fixture
async def service(store: AuditStore, limits: Limits) -> AsyncIterator[AuditService]:
    store.write(day())
    running = AuditService(store, limits=limits, queue_s=0.2, grace_s=0.3)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def caller(service: AuditService, store: AuditStore) -> AsyncIterator[Caller]:
    token = json.loads(address_path(store.path).read_bytes())["token"]
    async with aiohttp.ClientSession() as session:
        yield Caller(session, service, token)


async def test_an_answer_is_rows_and_their_count(caller: Caller) -> None:
    status, told = await caller.sql("SELECT id, state FROM holds ORDER BY id")
    assert status == 200
    assert told == {"rows": [{"id": "h-0", "state": "released"}, {"id": "h-1", "state": "open"}], "count": 2, "notice": None}


async def test_no_rows_are_an_empty_array(caller: Caller) -> None:
    assert await caller.sql("SELECT 1 WHERE false") == (200, {"rows": [], "count": 0, "notice": None})


async def test_a_large_answer_is_streamed_and_cut_with_a_notice(caller: Caller) -> None:
    status, told = await caller.sql("SELECT range AS n, repeat('x', 100) AS x FROM range(1000000)")
    assert (status, len(told["rows"]), told["rows"][-1]["n"]) == (200, 100_000, 99_999)
    assert told["notice"].startswith("cut after 100000 rows")


async def test_rows_written_meanwhile_are_in_the_next_answer(caller: Caller, store: AuditStore) -> None:
    await asyncio.to_thread(store.write, [Log().source(event("u-new"))._replace(offset=5000)])
    assert (await caller.sql("SELECT tenant FROM events WHERE uuid = 'u-new'"))[1]["rows"] == [{"tenant": "default"}]


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    "query", ["'; DROP TABLE chain; --", "SELECT * FROM read_text('/etc/passwd')", "COPY events TO '/tmp/x'", "SELECT 1; SELECT 2"]
)
async def test_what_is_refused_says_so(caller: Caller, query: str) -> None:
    status, told = await caller.sql(query)
    assert (status, told["kind"]) == (400, "refused")
    assert told["error"]


@pytest.mark.parametrize("body", [None, [], {}, {"query": 3}, {"query": None}, "SELECT 1"])
async def test_a_body_of_another_shape_is_refused(caller: Caller, body: Any) -> None:
    status, text = await caller.post("/sql", body)
    assert (status, json.loads(text)["kind"]) == (400, "refused")


async def test_a_question_larger_than_a_megabyte_is_refused(caller: Caller) -> None:
    body = io.BytesIO(json.dumps({"query": "SELECT '" + "x" * 2_000_000 + "'"}).encode())
    async with aiohttp.ClientSession() as session:
        answer = await session.post(f"{caller.url}/sql", data=body, headers={"Authorization": f"Bearer {caller.token}"})
        assert answer.status == 413


@pytest.mark.fault(53)
@pytest.mark.parametrize("limits", [Limits(timeout_s=0.3)])
async def test_a_question_without_end_is_stopped_and_the_next_one_answered(caller: Caller) -> None:
    status, told = await caller.sql(BOMB)
    assert (status, told["kind"]) == (503, "stopped")
    assert "stopped after 0.3 s" in told["error"]
    assert (await caller.sql("SELECT 1 AS one"))[1]["rows"] == [{"one": 1}]


async def test_what_goes_wrong_behind_the_first_rows_stands_at_the_end(caller: Caller) -> None:
    status, told = await caller.sql("SELECT repeat('x', 1000) AS x, CASE WHEN range = 30000 THEN error('late') END AS e FROM range(100000)")
    assert status == 200
    assert "late" in told["error"]
    assert told["kind"] == "refused"


@pytest.mark.parametrize("limits", [Limits(timeout_s=1)])
async def test_only_so_many_questions_at_a_time(caller: Caller, service: AuditService) -> None:
    slow = [asyncio.create_task(caller.sql(BOMB)) for _ in range(2)]
    await until(lambda: service.running == 2)
    status, told = await caller.sql("SELECT 1")
    assert (status, told["kind"]) == (503, "busy")
    for task in slow:
        assert (await task)[1]["kind"] == "stopped"
    await until(lambda: service.running == 0)
    assert (await caller.health()) == {"ok": True, "questions": 0, "stuck": 0}


@pytest.mark.parametrize("limits", [Limits(timeout_s=0.2)])
async def test_a_question_that_cannot_be_interrupted_is_left_to_itself(
    caller: Caller, service: AuditService, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def stuck(*_: Any) -> Any:
        over.wait(30)
        return iter(())

    monkeypatch.setattr(module, "run", stuck)
    status, told = await caller.sql("SELECT 1")
    assert (status, told["kind"]) == (503, "stopped")
    assert "cannot be interrupted" in told["error"]
    assert (await caller.health()) == {"ok": True, "questions": 1, "stuck": 1}
    over.set()
    await until(lambda: service.running == 0)
    assert (await caller.health()) == {"ok": True, "questions": 0, "stuck": 0}


async def test_whoever_leaves_frees_the_slot(caller: Caller, service: AuditService) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    body = json.dumps({"query": "SELECT repeat('x', 1000) FROM range(100000)"})
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {caller.token}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.transport.abort()
    await until(lambda: service.running == 0)
    assert (await caller.sql("SELECT 1 AS one"))[0] == 200


# --- proof ------------------------------------------------------------------------------------------------------------------


async def test_proof_tells_its_progress_and_ends_with_the_report(caller: Caller) -> None:
    status, text = await caller.post("/verify", {})
    lines = [json.loads(line) for line in text.splitlines()]
    assert status == 200
    assert lines[0]["all"] == lines[-2]["done"]
    assert lines[-1]["report"]["ok"] is True
    assert len(lines[-1]["report"]["heads"]) == 4


# --- who may ask ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong", "Basic eDp5", "Bearer \xfc"])
@pytest.mark.parametrize("what", ["/sql", "/verify", "/elsewhere"])
async def test_without_the_token_nothing_is_answered(caller: Caller, what: str, token: str) -> None:
    status, text = await caller.post(what, {"query": "SELECT 1"}, Authorization=token)
    assert status == 401
    assert "rows" not in text


async def test_the_address_is_for_the_owner_alone_and_goes_with_the_service(store: AuditStore) -> None:
    service = AuditService(store)
    await service.start()
    path = address_path(store.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_bytes())["url"] == service.url
    assert service.url.startswith("http://127.0.0.1:")
    await service.stop()
    assert not path.exists()
    assert [one for one in path.parent.iterdir() if "address" in one.name] == []


async def test_each_start_has_a_token_of_its_own(store: AuditStore) -> None:
    tokens = set()
    for _ in range(2):
        service = AuditService(store)
        await service.start()
        tokens.add(json.loads(address_path(store.path).read_bytes())["token"])
        await service.stop()
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 32


def test_it_listens_on_loopback_only(store: AuditStore) -> None:
    async def make(host: str) -> None:
        AuditService(store, host=host)

    with pytest.raises(ValueError, match="loopback only"):
        asyncio.run(make("0.0.0.0"))


async def test_stopping_breaks_questions_off(store: AuditStore) -> None:
    service = AuditService(store, limits=Limits(timeout_s=60))
    await service.start()
    token = json.loads(address_path(store.path).read_bytes())["token"]
    async with aiohttp.ClientSession() as session:
        asked = asyncio.create_task(Caller(session, service, token).sql(BOMB))
        await until(lambda: service.running == 1)
        await asyncio.sleep(0.2)
        await asyncio.wait_for(service.stop(), 5)
        with contextlib.suppress(aiohttp.ClientError):
            assert (await asked)[1]["kind"] == "stopped"
    assert service.running == 0
