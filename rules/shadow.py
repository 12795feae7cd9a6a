"""Whether a rule on trial is ready: how often it fired, for whom, what would have been done, and how much of it was known trouble.

The figures come from what was recorded when the rule fired, so guards, ages and lists are those of that moment. The brake alone is played here,
for each rule as if it were the only one that is promoted. An incident that somebody knows of, of the same person and about the same time, is the
best sign there is that a finding was right; its absence is no sign that it was wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from model.decision import Response
from rules.backtest import Brake

#: How long before an incident opens, and after it is closed, a finding about the same person belongs to it.
AROUND = timedelta(hours=1)
#: People and reasons named for one rule.
MOST_NAMED = 20
_WOULD = re.compile(r"shadow(?:: (?P<would>alert|approve|lockdown) \((?P<reason>.*)\))?", re.DOTALL)


class Firing(NamedTuple):
    """One recorded finding of a rule on trial."""

    tenant: str
    rule: str
    version: str
    person: str | None
    asked: Response
    why: str
    at: datetime


class Known(NamedTuple):
    """An incident; `closed` None: it is still open."""

    tenant: str
    person: str
    id: str
    opened: datetime
    closed: datetime | None

    def covers(self, moment: datetime) -> bool:
        return self.opened - AROUND <= moment and (self.closed is None or moment <= self.closed + AROUND)


def would(firing: Firing) -> tuple[Response, str]:
    """What would have been done, and why less than was asked for (stream.judge writes it into `why`)."""
    found = _WOULD.fullmatch(firing.why)
    if found is None or found["would"] is None:
        return firing.asked, ""
    return Response(found["would"]), found["reason"]


@dataclass(slots=True)
class Promotion:
    """One rule's record. `brakes` are (tenant, time) of trips that promoting it would have caused."""

    rule: str
    fired: int = 0
    people: Counter[str] = field(default_factory=Counter)
    nobody: int = 0
    would: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    incidents: set[str] = field(default_factory=set)
    with_incident: int = 0
    brakes: list[tuple[str, datetime]] = field(default_factory=list)
    first: datetime | None = None
    last: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "fired": self.fired,
            "people": len(self.people),
            "most": [{"person": who, "fired": count} for who, count in self.people.most_common(MOST_NAMED)],
            "nobody": self.nobody,
            "would": dict(self.would),
            "lowered": [{"reason": reason, "fired": count} for reason, count in self.reasons.most_common(MOST_NAMED)],
            "incidents": len(self.incidents),
            "with_incident": self.with_incident,
            "without_incident": self.fired - self.with_incident,
            "brakes": [{"tenant": tenant, "tripped": moment.isoformat()} for tenant, moment in self.brakes],
            "versions": dict(self.versions),
            "first": self.first.isoformat() if self.first else None,
            "last": self.last.isoformat() if self.last else None,
        }


def promotions(
    firings: Iterable[Firing], incidents: Iterable[Known], on_trial: Iterable[str], brake: Callable[[str], Brake], active: int | None = None
) -> list[Promotion]:
    """A record for each rule that fired, and an empty one for each of `on_trial` that did not; the most frequent first. `firings` come in
    the order of their times."""
    known: dict[tuple[str, str], list[Known]] = {}
    for incident in incidents:
        known.setdefault((incident.tenant, incident.person), []).append(incident)
    records = {rule: Promotion(rule) for rule in on_trial}
    brakes: dict[tuple[str, str], Brake] = {}
    for firing in firings:
        record = records.setdefault(firing.rule, Promotion(firing.rule))
        _count(record, firing)
        _meet(record, firing, known)
        if firing.person is not None and would(firing)[0] is Response.LOCKDOWN:
            key = (firing.rule, firing.tenant)
            if key not in brakes:
                brakes[key] = brake(firing.tenant)
            _, tripped = brakes[key].admit(firing.person, firing.at, active)
            if tripped:
                record.brakes.append((firing.tenant, firing.at))
    return sorted(records.values(), key=lambda one: (-one.fired, one.rule))


def _count(record: Promotion, firing: Firing) -> None:
    response, reason = would(firing)
    record.fired += 1
    record.would[response.value] += 1
    record.versions[firing.version] += 1
    if reason:
        record.reasons[reason] += 1
    if firing.person is None:
        record.nobody += 1
    else:
        record.people[firing.person] += 1
    record.first = firing.at if record.first is None else min(record.first, firing.at)
    record.last = firing.at if record.last is None else max(record.last, firing.at)


def _meet(record: Promotion, firing: Firing, known: dict[tuple[str, str], list[Known]]) -> None:
    met = [one.id for one in known.get((firing.tenant, firing.person or ""), ()) if one.covers(firing.at)]
    record.incidents.update(met)
    record.with_incident += bool(met)
