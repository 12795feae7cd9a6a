"""Paging as Okta does it: one Link header a relation, `self` always, `next` while there is more; `after` is opaque."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from aiohttp import web
from yarl import URL

from simulators.base import json_response
from simulators.okta import errors


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_HasId)


def link(url: URL, relation: str) -> str:
    return f'<{url}>; rel="{relation}"'


def limit_of(request: web.Request, default: int, most: int) -> int:
    """The page size: more than `most` is cut to it, what is no number from 1 is refused."""
    text = request.query.get("limit", str(default))
    if not text.isascii() or not text.isdigit() or int(text[:9]) < 1:
        raise errors.invalid("limit", "limit: must be a whole number from 1")
    return min(int(text[:9]), most)


def paged(request: web.Request, rows: Sequence[T], limit: int) -> tuple[Sequence[T], dict[str, str]]:
    """The page after the id in `after`, and the query of the next page (empty at the end). Raises OktaError for an unknown cursor."""
    start = 0
    if (after := request.query.get("after")) is not None:
        start = next((at + 1 for at, row in enumerate(rows) if row.id == after), -1)
        if start < 0:
            raise errors.invalid("after", "after: The cursor is not valid.")
    page = rows[start : start + limit]
    if start + limit >= len(rows):
        return page, {}
    return page, {**request.query, "after": page[-1].id, "limit": str(limit)}


def listing(request: web.Request, body: list[Any], following: dict[str, str]) -> web.Response:
    response = json_response(body)
    response.headers.add("Link", link(request.url, "self"))
    if following:
        response.headers.add("Link", link(request.url.with_query(following), "next"))
    return response
