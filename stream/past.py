"""What was then: events from a file of JSON lines or from the audit trail, in their exact bytes; findings of rules on trial; never many at once.

The trail is asked through `audit.client`, whoever has the file, in pages of so many offsets: the file is written in the log's order, so a page is
found without looking through the rest. Each tenant's events come in the order of its log; tenants do not share windows or brakes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from model.decision import Response
from rules.backtest import Past
from rules.shadow import AROUND, Firing, Known

#: Offsets a page: about 6 MB of events.
PAGE = 2_000

#: One SELECT → rows.
Ask = Callable[[str], list[dict[str, Any]]]


def from_file(path: Path, tenant: str) -> Iterator[Past]:
    """One event a line; empty lines are left out."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            raw = line.rstrip(b"\r\n")
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if raw.strip():
                yield Past(raw, tenant)


class Trail:
    """The events of the audit trail that happened (`published`, else received) from `since` until before `until`."""

    def __init__(self, ask: Ask, since: datetime, until: datetime) -> None:
        self._ask = ask
        time = "coalesce(published, received)"
        self._within = f"{time} >= TIMESTAMPTZ '{since.isoformat()}' AND {time} < TIMESTAMPTZ '{until.isoformat()}'"
        self._stretches = ask(
            f'SELECT e.incarnation, e.topic, e.partition, min(e."offset") AS first, max(e."offset") AS last, count(*) AS events '  # noqa: S608 - our own words and times
            f"FROM event_rows e LEFT JOIN incarnations i USING (incarnation) WHERE {self._within} "
            f"GROUP BY e.incarnation, e.topic, e.partition, i.ordinal ORDER BY i.ordinal, e.topic, e.partition"
        )

    def __len__(self) -> int:
        return sum(int(one["events"]) for one in self._stretches)

    def __iter__(self) -> Iterator[Past]:
        for stretch in self._stretches:
            for start in range(int(stretch["first"]), int(stretch["last"]) + 1, PAGE):
                yield from self._page(stretch, start)

    def _page(self, stretch: dict[str, Any], start: int) -> Iterator[Past]:
        rows = self._ask(
            f"SELECT tenant, received, raw FROM event_rows WHERE incarnation = {_text(stretch['incarnation'])} "  # noqa: S608 - as above
            f"AND topic = {_text(stretch['topic'])} AND partition = {int(stretch['partition'])} "
            f'AND "offset" >= {start} AND "offset" < {start + PAGE} AND {self._within} ORDER BY "offset"'
        )
        for row in rows:
            yield Past(base64.b64decode(row["raw"]), row["tenant"], datetime.fromisoformat(row["received"]))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def firings(ask: Ask, since: datetime, until: datetime) -> Iterator[Firing]:
    """Recorded findings of rules on trial, by the time of their decision, in pages."""
    after: tuple[str, str] | None = None
    while True:
        rest = "" if after is None else f"AND (decided, id) > (TIMESTAMPTZ '{after[0]}', {_text(after[1])}) "
        rows = ask(
            f"SELECT id, tenant, rule, rule_version, person, asked, why, decided FROM decisions "  # noqa: S608 - as above
            f"WHERE starts_with(why, 'shadow') AND decided >= TIMESTAMPTZ '{since.isoformat()}' "
            f"AND decided < TIMESTAMPTZ '{until.isoformat()}' {rest}ORDER BY decided, id LIMIT {PAGE}"
        )
        for row in rows:
            at = datetime.fromisoformat(row["decided"])
            yield Firing(row["tenant"], row["rule"], row["rule_version"], row["person"], Response(row["asked"]), row["why"], at)
        if len(rows) < PAGE:
            return
        after = rows[-1]["decided"], rows[-1]["id"]


def incidents(ask: Ask, since: datetime, until: datetime) -> Iterator[Known]:
    """Incidents that somebody knows of and that reach into the time."""
    rows = ask(
        f"SELECT tenant, person, id, opened, closed FROM incidents WHERE opened IS NOT NULL "  # noqa: S608 - as above
        f"AND opened < TIMESTAMPTZ '{(until + AROUND).isoformat()}' "
        f"AND coalesce(closed, 'infinity'::TIMESTAMPTZ) >= TIMESTAMPTZ '{(since - AROUND).isoformat()}' ORDER BY opened, id"
    )
    for row in rows:
        opened = datetime.fromisoformat(row["opened"])
        closed = datetime.fromisoformat(row["closed"]) if row["closed"] else None
        yield Known(row["tenant"], row["person"], row["id"], opened, closed)
