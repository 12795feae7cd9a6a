"""The enterprise's events, live (`admin_logs_streaming`) and by time (`admin_logs`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from aiohttp import web

from simulators.base import json_response
from simulators.box import wire
from simulators.box.room import Room
from simulators.box.things import Json

_MAX_LIMIT = 500


class EventRoom(Room):
    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [web.get("/2.0/events", self.search)]

    async def search(self, request: web.Request) -> web.Response:
        self.admin(request)
        known = ("stream_type", "stream_position", "limit", "event_type", "created_after", "created_before")
        values = wire.query(request, *known)
        kind = values.get("stream_type", "all")
        if kind not in ("admin_logs", "admin_logs_streaming"):
            raise wire.invalid(("invalid_parameter", "stream_type", f"Invalid value '{kind}'"))
        after, before = self._bounds(values, kind)
        limit, last = wire.limit_of(values, _MAX_LIMIT), self.store.events[-1][0] if self.store.events else 0
        position = values.get("stream_position", "0") or "0"
        if position == "now":
            return json_response({"chunk_size": 0, "next_stream_position": str(last), "entries": []})
        if not re.fullmatch(r"\d{1,18}", position):
            raise wire.invalid(("invalid_parameter", "stream_position", f"Invalid value '{position}'"))
        wanted = set(values["event_type"].split(",")) if values.get("event_type") else None
        entries: list[Json] = []
        at = int(position)
        for number, event in islice(self.store.events, max(0, at - (last - len(self.store.events))), None):
            if len(entries) == limit:
                break
            at = number
            if (wanted is None or event["event_type"] in wanted) and _within(event, after, before):
                entries.append(event)
        return json_response({"chunk_size": len(entries), "next_stream_position": str(at), "entries": entries})

    def _bounds(self, values: dict[str, str], kind: str) -> tuple[float | None, float | None]:
        """Times bound `admin_logs` only."""
        found: list[float | None] = []
        for name in ("created_after", "created_before"):
            given = values.get(name)
            at = wire.read_time(given) if given else None
            if given is not None and (at is None or kind != "admin_logs"):
                raise wire.invalid(("invalid_parameter", name, f"Invalid value '{given}'"))
            found.append(at)
        return found[0], found[1]


def _within(event: Json, after: float | None, before: float | None) -> bool:
    at = wire.read_time(event["created_at"])
    return at is not None and (after is None or at >= after) and (before is None or at <= before)
