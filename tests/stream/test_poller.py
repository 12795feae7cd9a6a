"""One tenant's tail: the cursor is durable only after every event of its page, and nothing of the vendor's makes it lose its place."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import pytest

from model.decision import Severity
from model.errors import ConfigurationError, FaultError
from model.records import Quarantined
from stream import topics
from stream.poller import OVERLAP, PATIENCE, Checkpoint, Tail, since
from tests.handlers.fakes import Killed, swap
from tests.handlers.wire import BASE, okta_error
from tests.stream.tails import CUT, DATE, TENANT, Source, event, page, scripted
from tests.support.clock import START

CURSOR = f"{BASE}/api/v1/logs?after=a0&limit=1000"


def stored(source: Source, next: str = CURSOR, date: datetime | None = START) -> None:
    checkpoint = Checkpoint(next=next, date=date, saved=START)
    source.log.put(topics.CHECKPOINTS.name, TENANT.encode(), checkpoint.to_bytes())


async def steps(tail: Tail, count: int) -> list[float]:
    return [await tail.step() for _ in range(count)]


def after(name: str) -> str:
    return f"{BASE}/api/v1/logs?after={name}&limit=1000"


# --- where it begins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "begin"),
    [
        ("now", "2026-01-05T09:00:00.000Z"),
        ("-7d", "2025-12-29T09:00:00.000Z"),
        ("beginning", "2025-07-10T09:00:00.000Z"),
        ("2026-01-01T12:00:00+02:00", "2026-01-01T10:00:00.000Z"),
    ],
)
async def test_a_first_start_is_a_polling_query_from_where_the_configuration_says(start: str, begin: str) -> None:
    """D29. Okta refuses a `since` of more than 180 days."""
    source = scripted(page(), start=start)
    tail = await source.tail()
    await tail.step()
    (asked,) = source.asked
    assert dict(asked.params) == {"since": begin, "sortOrder": "ASCENDING", "limit": "1000"}


@pytest.mark.parametrize("start", ["yesterday", "-d", "--7d", "-7w", "", "2026-13-01T00:00:00Z"])
def test_a_start_that_nobody_understands_is_refused_with_what_is_understood(start: str) -> None:
    with pytest.raises(ConfigurationError, match='use "now", "beginning", "-7d"'):
        since(start, START)


async def test_without_checkpoint_and_start_it_refuses_with_the_remedy() -> None:
    """Never silently "now"."""
    with pytest.raises(ConfigurationError, match=r'okta\.acme: no checkpoint .* start = "now"'):
        await scripted(start=None).tail()


async def test_a_checkpoint_beats_the_start_and_is_followed_verbatim() -> None:
    odd = f"{BASE}/api/v1/logs?after=1%2C2&b=%20x&limit=1000"
    source = scripted(page(event("e-1")), start="now")
    stored(source, odd)
    await (await source.tail()).step()
    assert str(source.asked[0]) == odd


@pytest.mark.fault(14)
@pytest.mark.parametrize("damage", [b"", b"{", b'{"next": "https:', b'{"saved": "2026-01-05T09:00:00Z"}', b"\xff", b'"now"'])
async def test_a_damaged_checkpoint_refuses_to_start_whatever_start_says(damage: bytes) -> None:
    source = scripted(start="now")
    source.log.put(topics.CHECKPOINTS.name, TENANT.encode(), damage)
    with pytest.raises(FaultError, match=f"checkpoint of tenant {TENANT} is damaged.*refusing to start from now"):
        await source.tail()


# --- the cursor and the events --------------------------------------------------------------------------------------------------


async def test_pages_follow_one_another_and_each_cursor_is_kept_after_its_events() -> None:
    """S1, in the log's own order of writes."""
    source = scripted(page(event("e-1"), event("e-2"), next="a1"), page(event("e-3"), next="a2"))
    tail = await source.tail()
    await steps(tail, 2)
    order = [(record.topic, record.key) for record in source.log.order]
    assert order == [(topics.SYSTEM_LOG.name, b"acme")] * 2 + [(topics.CHECKPOINTS.name, b"acme")] + [
        (topics.SYSTEM_LOG.name, b"acme"),
        (topics.CHECKPOINTS.name, b"acme"),
    ]
    assert source.published == ["e-1", "e-2", "e-3"]
    assert source.cursor == after("a2")
    assert source.checkpoint is not None
    assert source.checkpoint.date == START


async def test_events_are_published_byte_for_byte_with_the_time_of_receipt() -> None:
    odd = b'{"uuid":"1",  "a":1.50, "b":"\\ud800"}'
    source = scripted(page(odd))
    await (await source.tail()).step()
    (record,) = source.log.of(topics.SYSTEM_LOG)
    assert record.value == odd
    assert record.timestamp == int(START.timestamp() * 1000)


@pytest.mark.fault(15)
async def test_a_publish_that_fails_leaves_the_cursor_where_it_was() -> None:
    """S1: one event of the page that Kafka did not take is enough."""
    source = scripted(page(event("e-1"), event("e-2"), next="a1"), page(event("e-1"), event("e-2"), next="a1"))
    stored(source)
    tail = await source.tail()
    begin, count = tail._publisher.begin, 0

    async def full(*args: Any) -> Any:
        nonlocal count
        count += 1
        future = await begin(*args)
        if count == 2:
            lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            lost.set_exception(OSError("no space left on device"))
            return lost
        return future

    swap(tail._publisher, "begin", full)
    with pytest.raises(OSError, match="no space"):
        await tail.step()
    assert source.cursor == CURSOR
    await (await source.tail()).step()
    assert source.cursor == after("a1")


@pytest.mark.fault(16)
@pytest.mark.parametrize("writes", range(6))
async def test_killed_between_publish_and_checkpoint_gives_repeats_and_loses_nothing(writes: int) -> None:
    """S2."""
    pages = {"a0": page(event("e-1"), event("e-2"), next="a1"), "a1": page(event("e-3"), next="a2"), "a2": page(next="a2")}

    def answer(request: httpx.Request) -> httpx.Response:
        return pages[dict(request.url.params)["after"]]

    source = scripted()
    assert source.wire is not None
    source.wire.steps.extend([answer] * 12)
    stored(source)
    tail = await source.tail()
    source.log.kill_after = writes
    try:
        await steps(tail, 3)
    except Killed:
        source.log.kill_after = None
    await steps(await source.tail(), 3)
    assert set(source.published) == {"e-1", "e-2", "e-3"}
    assert list(dict.fromkeys(source.published)) == ["e-1", "e-2", "e-3"]
    assert source.cursor == after("a2")


@pytest.mark.fault(1)
async def test_an_empty_page_whose_next_is_itself_waits_an_interval_and_writes_nothing() -> None:
    source = scripted(page(next="a0"), page(next="a0"), poll_interval_s=3)
    stored(source)
    tail = await source.tail()
    assert await steps(tail, 2) == [3.0, 3.0]
    assert len(source.log.order) == 1
    assert tail.caught_up


@pytest.mark.fault(26)
async def test_an_event_that_is_too_large_goes_to_quarantine_with_size_and_hash_and_the_rest_flows() -> None:
    large = event("e-2", pad="x" * 2000)
    source = scripted(page(event("e-1"), large, event("e-3")))
    await (await source.tail()).step()
    assert source.published == ["e-1", "e-3"]
    (record,) = [one for one in source.log.audit() if isinstance(one, Quarantined)]
    assert (record.reason, record.size, record.sha256) == ("too_large", len(large), hashlib.sha256(large).hexdigest())
    assert source.cursor == after("a1")


async def test_a_full_page_is_followed_at_once() -> None:
    source = scripted(page(event("e-1"), event("e-2")), page(), page_size=2)
    stored(source, f"{BASE}/api/v1/logs?after=a0&limit=2")
    tail = await source.tail()
    assert await tail.step() == 0.0
    assert not tail.caught_up


# --- the vendor says no -----------------------------------------------------------------------------------------------------------


@pytest.mark.fault(9)
async def test_a_refused_cursor_falls_back_before_the_last_good_page_by_the_servers_clock_and_says_so() -> None:
    """D26: not by `published`, not by our clock."""
    source = scripted(page(event("e-1")), okta_error(400, "E0000001", date=DATE[1]), page(event("e-1"), event("e-2"), next="a2"))
    source.clock.shift(3600)
    tail = await source.tail()
    await steps(tail, 3)
    assert dict(source.asked[2].params)["since"] == "2026-01-05T08:50:00.000Z"
    (notice,) = source.log.notices("cursor")
    assert notice.facts == {"since": "2026-01-05T08:50:00.000Z", "code": "E0000001"}
    assert source.cursor == after("a2")
    assert source.published == ["e-1", "e-1", "e-2"]


async def test_a_fall_back_that_is_refused_too_is_told_once_and_not_repeated_without_end() -> None:
    source = scripted(*[okta_error(400, "E0000001", date=DATE[1])] * 5)
    stored(source)
    waits = await steps(await source.tail(), 5)
    assert waits[1:] == [30.0] * 4
    assert len(source.log.notices("cursor")) == 1
    assert [one.severity for one in source.log.notices("source")] == [Severity.CRITICAL]
    assert source.cursor == CURSOR


async def test_an_outage_longer_than_the_vendors_memory_leaves_a_gap_record_and_ends_and_the_next_start_reads_what_is_left() -> None:
    """S5."""
    late = "Mon, 27 Apr 2026 09:00:00 GMT"
    source = scripted(okta_error(400, "E0000001", date=late), page(event("e-1"), next="a2"))
    stored(source)
    with pytest.raises(FaultError, match="longer than Okta's retention"):
        await (await source.tail()).step()
    (gap,) = source.log.notices("gap")
    assert gap.severity is Severity.CRITICAL
    assert gap.facts == {"from": "2026-01-05T09:00:00.000Z", "to": "2026-01-27T10:00:00.000Z"}
    await (await source.tail()).step()
    assert dict(source.asked[1].params)["since"] == "2026-01-27T10:00:00.000Z"
    assert (source.published, source.cursor) == (["e-1"], after("a2"))


async def test_a_refusal_of_the_start_after_a_gap_falls_back_to_no_later_than_that_start() -> None:
    """Else all that Okta still keeps would be passed over."""
    late = "Mon, 27 Apr 2026 09:00:00 GMT"
    source = scripted(*[okta_error(400, "E0000001", date=late)] * 2, page(event("e-1"), next="a2"))
    stored(source)
    with pytest.raises(FaultError):
        await (await source.tail()).step()
    await steps(await source.tail(), 2)
    assert dict(source.asked[2].params)["since"] == "2026-01-27T10:00:00.000Z"
    assert len(source.log.notices("gap")) == 1


@pytest.mark.fault(10)
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_credential_is_told_once_an_outage_and_the_cursor_is_untouched(status: int) -> None:
    no = okta_error(status, "E0000011")
    source = scripted(no, no, page(event("e-1")), no)
    stored(source)
    tail = await source.tail()
    waits = await steps(tail, 2)
    assert waits == [30.0, 30.0]
    assert not tail.caught_up
    (notice,) = source.log.notices("source")
    assert (notice.severity, notice.facts["code"]) == (Severity.CRITICAL, str(status))
    assert "renew the token" in notice.remedy
    assert source.cursor == CURSOR
    await steps(tail, 2)
    assert len(source.log.notices("source")) == 2, "the next outage is news again"


@pytest.mark.parametrize(
    "link", ["https://evil.example/api/v1/logs?after=a1", "http://127.0.0.1:10/api/v1/logs", f"{BASE.replace('http', 'https')}/x"]
)
async def test_a_next_link_to_another_origin_is_refused_told_and_nothing_of_the_page_is_taken(link: str) -> None:
    """S6: the token never leaves the configured origin."""
    away = httpx.Response(200, content=b"[" + event("e-1") + b"]", headers=[("link", f'<{link}>; rel="next"'), DATE])
    source = scripted(away, away)
    stored(source)
    tail = await source.tail()
    waits = await steps(tail, 2)
    assert all(wait > 0 for wait in waits)
    assert all(asked.host == "127.0.0.1" and asked.port == 9 for asked in source.asked)
    assert source.published == []
    assert source.cursor == CURSOR
    assert [one.facts["code"] for one in source.log.notices("source")] == ["foreign_next"]
    assert not tail.caught_up


async def test_a_stored_cursor_of_another_origin_is_not_followed() -> None:
    source = scripted()
    stored(source, "https://evil.example/api/v1/logs?after=a1")
    await (await source.tail()).step()
    assert source.asked == []
    assert [one.facts["code"] for one in source.log.notices("source")] == ["foreign_next"]


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(httpx.Response(200, text="<html>sign in</html>", headers=[DATE]), marks=pytest.mark.fault(11)),
        pytest.param(httpx.Response(200, content=b'[{"uuid":"e-1"},{"uu', headers=[DATE]), marks=pytest.mark.fault(12)),
        httpx.Response(200, content=b"{}", headers=[DATE]),
        httpx.Response(200, content=b"", headers=[DATE]),
        httpx.Response(502, text="<html/>", headers=[DATE]),
        okta_error(500, "E0000009"),
        httpx.ReadError("cut"),
        httpx.ReadTimeout("slow"),
    ],
)  # fmt: skip
async def test_what_is_no_page_is_asked_for_again_whole(step: httpx.Response | Exception) -> None:
    broken = [step, step] if isinstance(step, httpx.ReadError) else [step]  # a GET whose connection broke is repeated at once
    source = scripted(*broken, page(event("e-1"), event("e-2"), next="a1"))
    stored(source)
    tail = await source.tail()
    assert await tail.step() > 0
    assert not tail.caught_up
    assert source.published == []
    assert source.cursor == CURSOR
    await tail.step()
    assert source.published == ["e-1", "e-2"]
    assert str(source.asked[-1]) == CURSOR


@pytest.mark.fault(6)
async def test_a_429_is_waited_out_and_the_same_page_asked_again() -> None:
    busy = okta_error(429, "E0000047", date=DATE[1], x_rate_limit_limit="120", x_rate_limit_remaining="0")
    busy.headers["x-rate-limit-reset"] = str(int(START.timestamp()) + 20)
    source = scripted(busy, page(event("e-1")))
    stored(source)
    tail = await source.tail()
    assert 20 <= await tail.step() <= 22.1
    await tail.step()
    assert [str(one) for one in source.asked] == [CURSOR, CURSOR]
    assert source.log.notices() == [], "a rate limit is no news"


async def test_a_log_without_a_next_link_is_no_tail_and_ends() -> None:
    source = scripted(httpx.Response(200, content=b"[" + event("e-1") + b"]", headers=[DATE]))
    stored(source)
    with pytest.raises(FaultError, match="no next link"):
        await (await source.tail()).step()
    assert source.cursor == CURSOR


@pytest.mark.fault(5)
@pytest.mark.parametrize("wrong", [3600, -3600])
async def test_a_clock_that_is_wrong_by_an_hour_warns_once_and_leaves_no_gap(wrong: int) -> None:
    right = page(event("e-3"), next="a3", date=("date", (START + timedelta(seconds=wrong)).strftime("%a, %d %b %Y %H:%M:%S GMT")))
    source = scripted(page(event("e-1")), page(event("e-2"), next="a2"), right, page(next="a4"))
    source.clock.shift(wrong)
    tail = await source.tail()
    await steps(tail, 2)
    (notice,) = source.log.notices("clock")
    assert f"{wrong:+}" in notice.text
    assert source.published == ["e-1", "e-2"]
    assert source.checkpoint is not None
    assert source.checkpoint.date == START, "the server's clock, not ours"
    await steps(tail, 2)
    assert len(source.log.notices("clock")) == 2, "once it was right, being wrong is news again"


# --- pages that cannot be read ---------------------------------------------------------------------------------------------------------


BROKEN = httpx.Response(200, content=CUT, headers=[DATE])


async def test_a_page_that_cannot_be_read_is_asked_for_in_smaller_ones_and_told_and_the_tail_goes_on() -> None:
    """D27."""
    small = [("link", f'<{BASE}/api/v1/logs?after=s1&limit=100>; rel="next"'), DATE]
    source = scripted(*[BROKEN] * PATIENCE, httpx.Response(200, content=b"[" + event("e-1") + b"]", headers=small))
    stored(source)
    tail = await source.tail()
    await steps(tail, PATIENCE + 1)
    assert dict(source.asked[-1].params) == {"since": "2026-01-05T08:50:00.000Z", "sortOrder": "ASCENDING", "limit": "100"}
    assert [one.facts["code"] for one in source.log.notices("source")] == ["unreadable"]
    assert source.put == [CUT, event("e-1")], "the page is parked whole, once"
    assert source.published == ["e-1"]
    assert source.cursor == f"{BASE}/api/v1/logs?after=s1&limit=100"


async def test_nothing_is_passed_over_however_small_the_page_is_that_cannot_be_read() -> None:
    """What came in its place is parked at each giving up; the event may come whole the next time."""
    link = [("link", f'<{BASE}/api/v1/logs?after=s1&limit=1>; rel="next"'), DATE]
    broken = httpx.Response(200, content=CUT, headers=link)
    source = scripted(*[broken] * (5 * PATIENCE), httpx.Response(200, content=b"[" + event("e-1") + b"]", headers=link))
    stored(source)
    before = source.cursor
    tail = await source.tail()
    await steps(tail, 5 * PATIENCE)
    assert source.cursor == before
    assert source.put == [CUT] * 5
    await steps(tail, 1)
    assert source.published == ["e-1"]


async def test_also_the_very_first_page_shrinks() -> None:
    source = scripted(*[BROKEN] * (2 * PATIENCE), page())
    await steps(await source.tail(), 2 * PATIENCE + 1)
    assert [dict(asked.params)["limit"] for asked in source.asked] == ["1000"] * PATIENCE + ["100"] * PATIENCE + ["10"]
    assert len({dict(asked.params)["since"] for asked in source.asked}) == 1


async def test_a_body_that_is_too_large_to_be_read_shrinks_the_page_as_well() -> None:
    huge = httpx.Response(200, content=b"[" + b" " * (33 * 1024 * 1024) + b"]", headers=[DATE])
    source = scripted(*[huge] * PATIENCE, page())
    stored(source)
    tail = await source.tail()
    await steps(tail, PATIENCE + 1)
    assert dict(source.asked[-1].params)["limit"] == "100"


async def test_small_pages_are_full_pages_too() -> None:
    """A tail that reads a hundred of a hundred is behind, whatever the configuration calls a page."""
    source = scripted(page(*(event(f"e-{number}") for number in range(3)), next="a1"))
    stored(source, f"{BASE}/api/v1/logs?after=s0&limit=3")
    tail = await source.tail()
    assert await tail.step() == 0.0
    assert not tail.caught_up


async def test_once_the_trouble_lies_behind_whole_pages_are_asked_for_again() -> None:
    def small(name: str, minutes: int) -> httpx.Response:
        date = (START + timedelta(minutes=minutes)).strftime("%a, %d %b %Y %H:%M:%S GMT")
        return httpx.Response(
            200, content=b"[]", headers=[("link", f'<{BASE}/api/v1/logs?after={name}&limit=10>; rel="next"'), ("date", date)]
        )

    source = scripted(small("s1", 0), small("s2", 15), small("s3", 21), page(event("e-1")))
    stored(source, f"{BASE}/api/v1/logs?after=s0&limit=10")
    await steps(await source.tail(), 4)
    assert [dict(asked.params)["limit"] for asked in source.asked] == ["10", "10", "10", "1000"]
    assert dict(source.asked[-1].params)["since"] == (START + timedelta(minutes=21) - OVERLAP).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert source.published == ["e-1"]


async def test_what_changes_the_limit_in_a_link_cannot_confuse_the_tail() -> None:
    for text in ("", "x", "0", "-1", "9" * 5000, "١٢"):
        source = scripted(page(event("e-1")))
        stored(source, f"{BASE}/api/v1/logs?after=s0&limit={text}")
        await (await source.tail()).step()
        assert source.published == ["e-1"]


def test_the_overlap_is_longer_than_okta_takes_to_settle_its_log() -> None:
    assert timedelta(minutes=5) <= OVERLAP < timedelta(hours=1)
    assert datetime.now(UTC) - since("beginning", datetime.now(UTC)) < timedelta(days=180)
    assert cast(Any, Checkpoint).model_config["extra"] == "forbid"
