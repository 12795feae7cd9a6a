"""`GET /api/v1/logs`: which kind of query it is, what is refused, and the two Link headers.

Polling: no `until` and ascending; `next` is always there, with an empty page too, and carries `since` and `limit` beside the cursor, as
Okta's own do. Everything else is bounded and ends without `next`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiohttp import web

from model.event import parse_time
from simulators.okta import errors
from simulators.okta.filters import FilterError, compile_filter
from simulators.okta.links import link
from simulators.okta.log import CursorRefused, Page, SystemLog, Test, readable

_TEXT = frozenset({"eq", "sw", "ew", "co"})
FIELDS = {
    "uuid": frozenset({"eq"}),
    "eventType": _TEXT,
    "severity": frozenset({"eq"}),
    "outcome.result": frozenset({"eq"}),
    "actor.id": frozenset({"eq"}),
    "actor.type": frozenset({"eq"}),
    "actor.alternateId": _TEXT,
    "target.id": frozenset({"eq"}),
    "target.type": frozenset({"eq"}),
    "target.alternateId": _TEXT,
    "client.ipAddress": _TEXT,
    "transaction.id": frozenset({"eq"}),
}
_DATE = "The date format in your query is not recognized. Please enter dates using ISO8601 string format."
_DAYS = 180


@dataclass(frozen=True, slots=True)
class Query:
    """`until` None is a polling query."""

    since: datetime
    until: datetime | None
    after: str | None
    limit: int
    descending: bool
    test: Test | None


def answer(request: web.Request, log: SystemLog, now: float) -> web.Response:
    query = read(request.query, now)
    page = _page(log, query)
    response = web.Response(body=page.body, content_type="application/json")
    response.headers.add("Link", link(request.url, "self"))
    if page.next is not None:
        keep = {name: value for name, value in request.query.items() if name != "after"}
        response.headers.add("Link", link(request.url.with_query({**keep, "after": page.next, "limit": str(query.limit)}), "next"))
    return response


def _page(log: SystemLog, query: Query) -> Page:
    try:
        if query.until is None:
            return log.poll(query.limit, since=query.since.timestamp(), after=query.after, test=query.test)
        return log.between(query.since, query.until, query.limit, after=query.after, descending=query.descending, test=query.test)
    except CursorRefused:
        raise errors.invalid("after", "after: The cursor is not valid for this query.") from None


def read(given: Mapping[str, str], now: float) -> Query:
    """Raises OktaError as Okta refuses."""
    order = given.get("sortOrder", "ASCENDING").upper()
    if order not in ("ASCENDING", "DESCENDING"):
        raise errors.invalid("sortOrder", "sortOrder: must be ASCENDING or DESCENDING")
    present = datetime.fromtimestamp(now, UTC)
    bounded = "until" in given or order == "DESCENDING"
    until = _date(given["until"], "until") if "until" in given else present
    since = _date(given["since"], "since") if "since" in given else until - timedelta(days=7)
    if since < present - timedelta(days=_DAYS):
        raise errors.bad_log_filter("The since parameter is over 180 days prior to the current day")
    return Query(
        since, until if bounded else None, given.get("after"), _limit(given.get("limit", "100")), order == "DESCENDING", _test(given)
    )


def _date(text: str, name: str) -> datetime:
    moment = parse_time(text)
    if moment is None:
        raise errors.invalid(name, f"{name}: {_DATE}")
    return moment


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:9]) > 1000:
        raise errors.invalid("limit", "limit: must be a whole number from 0 to 1000")
    return int(text)


def _test(given: Mapping[str, str]) -> Test | None:
    tests: list[Test] = []
    if given.get("filter"):
        try:
            matches = compile_filter(given["filter"], FIELDS)
        except FilterError as error:
            raise errors.bad_log_filter(f"filter: {error}") from None
        tests.append(lambda raw: isinstance(event := readable(raw), dict) and matches(event))
    if given.get("q"):
        words = [word.encode() for word in given["q"].lower().split()]
        if len(words) > 10 or any(len(word.decode()) > 40 for word in words):
            raise errors.invalid("q", "q: at most 10 keywords of at most 40 characters")
        tests.append(lambda raw: all(word in raw.lower() for word in words))
    return (lambda raw: all(test(raw) for test in tests)) if tests else None
