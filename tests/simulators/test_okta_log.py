"""The simulated System Log: bytes, cursors, the two kinds of query, refusals, limits."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from model.errors import ConfigurationError
from model.event import split_page
from simulators.okta import OktaSimulator
from simulators.okta.filters import FilterError, compile_filter
from simulators.okta.log import CursorRefused, SystemLog
from tests.simulators.okta_org import START, HandClock, OrgUnderTest, links, running

SINCE = "2025-12-01T00:00:00Z"
ODD = [
    b'{"uuid":"1","eventType":"a.b","published":"2026-01-05T08:00:00.000Z","displayMessage":"lone \\ud800 surrogate"}',
    b'{ "uuid" :\t"2" ,  "eventType":"a.b", "x": [1 , 2 ],"published":"2026-01-05T07:00:00.000Z" }',
    b'{"uuid":"3","eventType":"a.b","published":"2017-09-31T00:00:00Z","n":1.10e+02,"n":1.1}',
    b'{"eventType":"a.b","published":"2026-01-05T06:00:00.000Z","displayMessage":"\\u0000 no uuid"}',
    b'{"uuid":"5","eventType":"a.b","deep":' + b"[" * 2000 + b"]" * 2000 + b"}",
    b'{"uuid":"6","eventType":"a.b","big":' + b"9" * 5000 + b"}",
    b'{"uuid":"7","eventType":"a.b","big":1e999,"nan":NaN}',
]


@pytest.fixture
async def org() -> AsyncIterator[OrgUnderTest]:
    async with running() as under_test:
        yield under_test


def write(path: Path, lines: list[bytes], end: bytes = b"\n") -> Path:
    path.write_bytes(b"".join(line + end for line in lines))
    return path


# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"  \n"])
async def test_events_of_a_file_are_served_byte_for_byte_in_the_order_of_the_file(org: OrgUnderTest, tmp_path: Path, end: bytes) -> None:
    assert org.simulator.load(write(tmp_path / "log.jsonl", ODD, end)) == len(ODD)
    answer = await org.get("/api/v1/logs", since=SINCE, limit=1000)
    assert split_page(answer.content) == ODD
    assert answer.content == b"[" + b",".join(ODD) + b"]"


async def test_a_carriage_return_inside_a_line_stays_and_a_blank_line_is_no_event(org: OrgUnderTest, tmp_path: Path) -> None:
    odd = b'{"uuid":"1",\r"eventType":"a.b"}'
    (tmp_path / "log.jsonl").write_bytes(b"\xef\xbb\xbf" + odd + b"\n\n" + ODD[1])
    assert org.simulator.load(tmp_path / "log.jsonl") == 2
    assert split_page((await org.get("/api/v1/logs", since=SINCE)).content) == [odd, ODD[1]]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"[1]", "list"),
        (b"7", "number"),
        (b"null", "null"),
        (b'"x"', "text"),
        (b"{oops}", "column"),
        (b'{"a":1', "column"),
        (b'{"a":1}{"b":2}', "column"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b"[" * 200_000 + b"]" * 200_000, "brackets"),
        (b'{"a":' + b"[" * 200_000 + b"}", "brackets"),
    ],
)
def test_a_line_that_is_no_object_refuses_with_its_number_and_loads_nothing(tmp_path: Path, line: bytes, why: str) -> None:
    simulator = OktaSimulator(clock=HandClock())
    path = write(tmp_path / "log.jsonl", [ODD[0], b"", line])
    with pytest.raises(ConfigurationError, match=rf"log\.jsonl: line 3 is no JSON object: .*{why}"):
        simulator.load(path)
    assert len(simulator.org.log) == 0


def test_a_file_that_is_not_there_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent"):
        OktaSimulator(clock=HandClock()).load(tmp_path / "absent.jsonl")


async def test_people_named_as_user_exist_active_with_their_login(org: OrgUnderTest, tmp_path: Path) -> None:
    def event(**parts: Any) -> bytes:
        return json.dumps({"uuid": "u", "eventType": "a.b", **parts}).encode()

    user = {"type": "User", "id": "00uA", "alternateId": "ann@corp.example", "displayName": "Ann \ud800 Lee"}
    lines = [
        event(actor=user, target=None),
        event(actor={"type": "SystemPrincipal", "id": "sys"}, target=[{"type": "AppUser", "id": "0ua"}, user | {"id": "00uB"}]),
        event(
            actor=user | {"alternateId": "ann@deleted.invalid"}, target=[{"type": "User", "id": "../x"}, {"type": "User", "id": "me"}, 7]
        ),
        event(actor=user | {"id": "00uC", "alternateId": "unknown"}),
        event(actor=user | {"id": "00uC", "alternateId": "cy@corp.example"}),
        b'{"uuid":"5","eventType":"a.b","actor":' + json.dumps(user | {"id": "00uZ"}).encode() + b',"big":' + b"9" * 5000 + b"}",
    ]
    before = set((await org.state())["users"])
    org.simulator.load(write(tmp_path / "log.jsonl", lines))
    users = (await org.state())["users"]
    assert set(users) - before == {"00uA", "00uB", "00uC"}
    assert {users[one]["status"] for one in ("00uA", "00uB", "00uC")} == {"ACTIVE"}
    assert users["00uA"]["profile"]["login"] == "ann@corp.example"
    assert users["00uC"]["profile"]["login"] == "cy@corp.example"
    assert (await org.get("/api/v1/users/00uA")).json()["profile"]["lastName"] == "? Lee"
    assert len(org.org.log) == len(lines), "to be named writes no event"


async def test_the_side_door_keeps_bytes_and_refuses_what_is_no_json(org: OrgUnderTest) -> None:
    body = b"[ " + b" ,\n".join([*ODD, b"17"]) + b" ]"
    assert (await org.client.post("/_sim/log", content=body)).json() == {"appended": len(ODD) + 1}
    assert (await org.client.post("/_sim/log", content=b" " + ODD[1] + b"\n")).status_code == 201
    assert split_page((await org.get("/api/v1/logs", since=SINCE)).content) == [*ODD, b"17", ODD[1]]
    for bad in (b"", b"17", b"[{]", b'{"a":1}}'):
        assert (await org.client.post("/_sim/log", content=bad)).status_code == 400
    assert len(org.org.log) == len(ODD) + 2


# -- polling ----------------------------------------------------------------------------------------------------------


async def test_polling_follows_persistence_and_never_ends(org: OrgUnderTest) -> None:
    for number in range(5):
        org.clock.now += 1
        org.org.log.append(b'{"uuid":"%d","published":"20%d-01-01T00:00:00Z"}' % (number, 29 - number))
    answer = await org.get("/api/v1/logs", since=SINCE, limit=2, sortOrder="ASCENDING")
    seen = [event["uuid"] for event in answer.json()]
    for _ in range(3):
        assert set(links(answer)) == {"self", "next"}
        answer = await org.client.get(links(answer)["next"])
        seen += [event["uuid"] for event in answer.json()]
    assert seen == ["0", "1", "2", "3", "4"]
    assert answer.json() == []
    assert links(answer)["next"] == (await org.client.get(links(answer)["next"])).request.url
    org.org.log.append(b'{"uuid":"late","published":"2025-06-01T00:00:00Z"}')
    answer = await org.client.get(links(answer)["next"])
    assert [event["uuid"] for event in answer.json()] == ["late"]


async def test_the_next_link_carries_since_and_limit_beside_the_cursor(org: OrgUnderTest) -> None:
    answer = await org.get("/api/v1/logs", since=SINCE, limit=7)
    following = dict(answer.request.url.copy_with(raw_path=links(answer)["next"].partition(org.simulator.url)[2].encode()).params)
    assert following["since"] == SINCE
    assert following["limit"] == "7"
    assert following["after"]
    assert links(answer)["self"] == str(answer.request.url)
    assert links(answer)["next"].startswith(org.simulator.url + "/api/v1/logs?")


async def test_since_of_a_poll_cuts_on_persistence_and_not_on_published(org: OrgUnderTest) -> None:
    org.org.log.append(b'{"uuid":"first","published":"2026-01-05T09:30:00Z"}')
    org.clock.now += 100
    org.org.log.append(b'{"uuid":"second","published":"2020-01-05T09:00:00Z"}')
    answer = await org.get("/api/v1/logs", since="2026-01-05T09:01:00Z")
    assert [event["uuid"] for event in answer.json()] == ["second"]


async def test_without_since_a_poll_begins_seven_days_ago(org: OrgUnderTest) -> None:
    org.org.log.append(b'{"uuid":"old"}')
    org.clock.now += 8 * 86400
    org.org.log.append(b'{"uuid":"new"}')
    assert [event["uuid"] for event in (await org.get("/api/v1/logs")).json()] == ["new"]


@pytest.mark.parametrize("after", ["17", "0_0", "1767603600000_5", "x_1", "1767603600000_-1", "", "1" * 30 + "_0"])
async def test_a_cursor_that_was_never_given_out_is_refused(org: OrgUnderTest, after: str) -> None:
    answer = await org.get("/api/v1/logs", since=SINCE, after=after)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "E0000001")


def test_a_cursor_is_good_for_one_log_only() -> None:
    clock = HandClock()
    first = SystemLog(clock)
    first.append(b"{}")
    cursor = first.poll(10).next
    clock.now += 5
    second = SystemLog(clock)
    second.extend([b"{}", b"{}"])
    with pytest.raises(CursorRefused):
        second.poll(10, after=cursor)


def test_persistence_never_goes_back_when_the_clock_does() -> None:
    clock = HandClock()
    log = SystemLog(clock)
    log.append(b"1")
    clock.now -= 3600
    log.append(b"2")
    assert log.poll(10, since=START).events == [b"1", b"2"]


def test_a_big_log_is_paged_without_a_gap() -> None:
    log = SystemLog(HandClock())
    log.extend(b'{"uuid":"%d"}' % number for number in range(200_000))
    seen, after = 0, None
    while page := log.poll(1000, after=after):
        if not page.events:
            break
        assert page.events[0] == b'{"uuid":"%d"}' % seen
        seen, after = seen + len(page.events), page.next
    assert seen == 200_000


# -- bounded ----------------------------------------------------------------------------------------------------------


async def test_bounded_queries_follow_published_and_end(org: OrgUnderTest) -> None:
    org.org.log.extend(b'{"uuid":"%d","published":"2026-01-0%dT00:00:00Z"}' % (day, day) for day in (4, 2, 3, 1))
    org.org.log.append(b'{"uuid":"no time","published":"2026-02-31T00:00:00Z"}')
    span = {"since": "2026-01-02T00:00:00Z", "until": "2026-01-05T00:00:00Z"}
    answer = await org.get("/api/v1/logs", limit=2, **span)
    assert [event["uuid"] for event in answer.json()] == ["2", "3"]
    assert set(links(answer)) == {"self", "next"}
    answer = await org.client.get(links(answer)["next"])
    assert [event["uuid"] for event in answer.json()] == ["4"]
    assert set(links(answer)) == {"self"}
    answer = await org.get("/api/v1/logs", sortOrder="DESCENDING", limit=2, **span)
    assert [event["uuid"] for event in answer.json()] == ["4", "3"]
    assert [event["uuid"] for event in (await org.client.get(links(answer)["next"])).json()] == ["2"]


async def test_a_page_that_ends_exactly_with_the_range_has_no_next(org: OrgUnderTest) -> None:
    org.org.log.extend(b'{"uuid":"%d","published":"2026-01-0%dT00:00:00Z"}' % (day, day) for day in (1, 2))
    answer = await org.get("/api/v1/logs", since="2026-01-01T00:00:00Z", until="2026-01-03T00:00:00Z", limit=2)
    assert len(answer.json()) == 2
    assert set(links(answer)) == {"self"}


async def test_until_is_exclusive_and_late_comers_are_found_by_the_next_query(org: OrgUnderTest) -> None:
    span = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    org.org.log.append(b'{"uuid":"edge","published":"2026-01-02T00:00:00Z"}')
    assert (await org.get("/api/v1/logs", **span)).json() == []
    org.org.log.append(b'{"uuid":"late","published":"2026-01-01T00:00:00.000Z"}')
    assert [event["uuid"] for event in (await org.get("/api/v1/logs", **span)).json()] == ["late"]


async def test_a_bounded_cursor_is_checked(org: OrgUnderTest) -> None:
    answer = await org.get("/api/v1/logs", since="2026-01-01T00:00:00Z", until="2026-01-02T00:00:00Z", after="5.5")
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "E0000001")


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"limit": "1001"}, "E0000001"),
        ({"limit": "-1"}, "E0000001"),
        ({"limit": "ten"}, "E0000001"),
        ({"since": "yesterday"}, "E0000001"),
        ({"since": "2026-01-05T00:00:00 00:00"}, "E0000001"),
        ({"until": "2026-02-31T00:00:00Z"}, "E0000001"),
        ({"since": "1970-01-01T00:00:00Z"}, "E0000053"),
        ({"since": "2025-07-08T00:00:00Z"}, "E0000053"),
        ({"sortOrder": "UPWARDS"}, "E0000001"),
        ({"filter": 'published gt "2026-01-01"'}, "E0000053"),
        ({"filter": "eventType eq user.session.start"}, "E0000053"),
        ({"filter": 'eventType gt "a"'}, "E0000053"),
        ({"filter": 'eventType eq "a" or'}, "E0000053"),
        ({"filter": '(eventType eq "a"'}, "E0000053"),
        ({"filter": 'eventType eq "a" uuid eq "b"'}, "E0000053"),
        ({"filter": 'debugContext.debugData.url co "x"'}, "E0000053"),
        ({"q": "a b c d e f g h i j k"}, "E0000001"),
        ({"q": "x" * 41}, "E0000001"),
    ],
)
async def test_bad_queries_are_refused_with_oktas_code(org: OrgUnderTest, query: dict[str, str], code: str) -> None:
    answer = await org.get("/api/v1/logs", **query)
    body = answer.json()
    assert (answer.status_code, body["errorCode"], body["errorLink"]) == (400, code, code)
    assert body["errorSummary"]
    assert body["errorId"]
    assert all(set(cause) == {"errorSummary"} for cause in body["errorCauses"])


async def test_the_bounds_themselves_are_allowed(org: OrgUnderTest) -> None:
    org.org.log.append(b"{}")
    assert (await org.get("/api/v1/logs", since="2025-07-10T00:00:00Z", limit=1000)).json() == [{}]
    answer = await org.get("/api/v1/logs", limit=0)
    assert answer.json() == []
    assert "next" in links(answer)


# -- filters ----------------------------------------------------------------------------------------------------------


async def test_filter_and_q_select_in_both_kinds_of_query(org: OrgUnderTest) -> None:
    for number in range(6):
        event = {
            "uuid": str(number),
            "eventType": "a.even" if number % 2 == 0 else "a.odd",
            "actor": {"id": f"00u{number}"},
            "target": [{"id": "t1"}, {"id": f"t{number}"}],
            "published": f"2026-01-01T00:00:0{number}Z",
        }
        org.org.log.append(json.dumps(event).encode())
    org.org.log.append(ODD[4])

    async def select(**query: str) -> list[str]:
        answer = await org.get("/api/v1/logs", since=SINCE, **query)
        assert answer.status_code == 200, answer.text
        return [event["uuid"] for event in answer.json()]

    assert await select(filter='eventType eq "a.odd"') == ["1", "3", "5"]
    assert await select(filter='eventType eq "a.odd" and actor.id eq "00u3"') == ["3"]
    assert await select(filter='uuid eq "0" or uuid eq "5" and actor.id eq "00u1"') == ["0"]
    assert await select(filter='(uuid eq "0" or uuid eq "5") and eventType sw "a.o"') == ["5"]
    assert await select(filter='target.id eq "t1" and target.id eq "t4"') == ["4"]
    assert await select(q="A.EVEN 00u2") == ["2"]
    assert await select(filter='eventType ew "odd"', until="2026-01-01T00:00:03Z") == ["1"]
    answer = await org.get("/api/v1/logs", since=SINCE, filter='eventType eq "a.odd"', limit=2)
    assert [event["uuid"] for event in (await org.client.get(links(answer)["next"])).json()] == ["5"]


def test_a_filter_knows_escapes_and_ignores_case_where_it_should() -> None:
    fields = {"name": frozenset({"eq"})}
    assert compile_filter(r'name eq "a\"b\\"', fields)({"name": 'a"b\\'})
    assert not compile_filter('name eq "A"', fields)({"name": "a"})
    assert compile_filter('name EQ "A"', fields, fold=True)({"name": "a"})
    with pytest.raises(FilterError, match="empty"):
        compile_filter("  ", fields)


# -- limits and headers -----------------------------------------------------------------------------------------------


async def test_the_bucket_of_the_log_holds_120_a_minute_and_says_so(org: OrgUnderTest) -> None:
    for used in range(1, 121):
        answer = await org.get("/api/v1/logs", limit=0)
        assert answer.status_code == 200
        assert answer.headers["X-Rate-Limit-Remaining"] == str(120 - used)
    answer = await org.get("/api/v1/logs", limit=0)
    assert (answer.status_code, answer.json()["errorCode"]) == (429, "E0000047")
    assert answer.headers["X-Rate-Limit-Limit"] == "120"
    assert answer.headers["X-Rate-Limit-Remaining"] == "0"
    assert answer.headers["X-Rate-Limit-Reset"] == str(int(START) + 60)
    assert answer.headers["Date"] == "Mon, 05 Jan 2026 09:00:00 GMT"
    assert answer.headers["X-Okta-Request-Id"]
    assert (await org.get("/api/v1/users")).status_code == 200, "another bucket"
    org.clock.now += 60
    assert (await org.get("/api/v1/logs", limit=0)).headers["X-Rate-Limit-Remaining"] == "119"


@pytest.mark.parametrize(("rate", "factor"), [(120, 1), (60, 1), (1200, 10)])
async def test_buckets_differ_and_a_raised_log_raises_them_all(rate: int, factor: int) -> None:
    async with running(rate=rate) as org:
        assert (await org.get("/api/v1/logs")).headers["X-Rate-Limit-Limit"] == str(rate)
        limits = []
        for path in ("/api/v1/users", "/api/v1/users/me", "/api/v1/users/me/groups", "/api/v1/groups", "/api/v1/groups/x"):
            limits.append(int((await org.get(path)).headers["X-Rate-Limit-Limit"]))
        assert limits == [one * factor for one in (600, 2000, 1200, 500, 1000)]


async def test_bounded_and_polling_cost_little_on_a_log_of_a_hundred_thousand() -> None:
    log = SystemLog(HandClock())
    log.extend(b'{"uuid":"%d","published":"2026-01-01T00:%02d:%02dZ"}' % (n, n // 60 % 60, n % 60) for n in range(100_000))
    began = time.perf_counter()
    for _ in range(100):
        log.poll(1000, after=log.poll(0, since=START).next)
    assert time.perf_counter() - began < 1.0


async def test_samples_are_served_as_they_are(org: OrgUnderTest, shared: Path, tmp_path: Path) -> None:
    wrapped = [line for path in sorted((shared / "samples").glob("*.jsonl")) for line in path.read_bytes().split(b"\n") if line.strip()]
    lines = [json.dumps(json.loads(line)["event"]).encode() for line in wrapped]
    assert len(lines) > 100
    org.simulator.load(write(tmp_path / "log.jsonl", lines))
    assert split_page((await org.get("/api/v1/logs", since=SINCE, limit=1000)).content) == lines
