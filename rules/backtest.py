"""Past events through candidate rules, as if they had been in force then: what fires, who would be locked, which brakes would trip, and what is
other than with the rules of today.

Time is the events' own: none of them is too old, windows and brakes move with `published`. Both sets see each event one after the other, so a
difference is known at once and nothing is kept but counts, people and a bounded number of examples: a month of log takes the memory of an hour.
The brake is a port, because what may be carried out is decided a floor above. Rejected: comparing with the decisions of the audit trail (they
were made by rules, guards and lists that have changed since, so a difference would say nothing of the candidate).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from model.decision import Finding, Response, Verdict
from model.errors import MalformedEvent
from model.event import decode
from rules.classify import Classifier
from rules.correlation.observation import time_of

#: Examples kept of each kind of difference, of lockdowns, and of lines that are no events.
MOST_LISTED = 1_000
#: Events between two words of progress.
EVERY = 500

#: tenant → a classifier with an empty memory.
Make = Callable[[str], Classifier]
_EPOCH = datetime.fromtimestamp(0, UTC)
_SHADOW = "shadow"


class Brake(Protocol):
    """stream.judge.LockdownBrake: (may lock, has tripped just now)."""

    def admit(self, person: str, now: datetime, active: int | None) -> tuple[bool, bool]: ...


class Past(NamedTuple):
    """An event of then, as its exact bytes. `received` None: not known (a file)."""

    raw: bytes
    tenant: str = "default"
    received: datetime | None = None


@dataclass(frozen=True, slots=True)
class House:
    """What stands between a finding and its response besides the rules. `brake` makes a tenant's brake; `spared` says who is on the protected
    list; `active` is how many active people a percentage counts from (None: only the count applies)."""

    brake: Callable[[str], Brake]
    spared: Callable[[str, str], bool] = lambda tenant, person: False
    active: int | None = None


@dataclass(slots=True)
class Sample:
    """The first so many of something, and how many there were."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0

    def add(self, row: dict[str, Any]) -> None:
        self.total += 1
        if len(self.rows) < MOST_LISTED:
            self.rows.append(row)


@dataclass(slots=True)
class Report:
    """`fired` and `outcomes` count findings by rule, those of rules on trial too (their outcome is `shadow`). `locked` are people, in the
    order in which they would have been. `brakes` that would have tripped stay so to the end, as without a human."""

    events: int = 0
    malformed: Sample = field(default_factory=Sample)
    fired: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    locked: dict[tuple[str, str], None] = field(default_factory=dict)
    lockdowns: Sample = field(default_factory=Sample)
    brakes: dict[str, dict[str, Any]] = field(default_factory=dict)
    added: Sample = field(default_factory=Sample)
    removed: Sample = field(default_factory=Sample)
    changed: Sample = field(default_factory=Sample)
    first: datetime | None = None
    last: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """`added`, `removed` and `changed` hold at most `MOST_LISTED` rows; how many there were stands in `totals`."""
        return {
            "fired": dict(self.fired.most_common()),
            "locked": list(dict.fromkeys(person for _, person in self.locked)),
            "brakes": list(self.brakes.values()),
            "added": self.added.rows,
            "removed": self.removed.rows,
            "changed": self.changed.rows,
            "totals": {"added": self.added.total, "removed": self.removed.total, "changed": self.changed.total},
            "events": self.events,
            "malformed": self.malformed.total,
            "outcomes": {rule: dict(counts) for rule, counts in self.outcomes.items()},
            "lockdowns": self.lockdowns.rows,
            "first": self.first.isoformat() if self.first else None,
            "last": self.last.isoformat() if self.last else None,
        }


@dataclass(slots=True)
class _Tenant:
    """One tenant's log: its own memory, its own brake, its own clock."""

    candidate: Classifier
    current: Classifier | None
    brake: Brake
    time: float = float("-inf")

    def clock(self, event: dict[str, Any], received: datetime | None) -> datetime:
        self.time = time_of(event, received, self.time)
        try:
            return max(_EPOCH, datetime.fromtimestamp(self.time, UTC))  # the brake looks back from here
        except (OverflowError, ValueError, OSError):
            return _EPOCH


def backtest(
    events: Iterable[Past],
    candidate: Make,
    house: House,
    *,
    current: Make | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Plays the events, each tenant's in its order. `current` None: there is nothing to compare with. `progress` hears how many events and
    bytes are done, now and then and at the end."""
    return _Play(candidate, current, house).play(events, progress)


class _Play:
    def __init__(self, candidate: Make, current: Make | None, house: House) -> None:
        self._candidate, self._current, self._house = candidate, current, house
        self._tenants: dict[str, _Tenant] = {}
        self.report = Report()

    def play(self, events: Iterable[Past], progress: Callable[[int, int], None] | None) -> Report:
        done, size = 0, 0
        for done, past in enumerate(events, start=1):
            size += len(past.raw) + 1
            self._one(past, done)
            if progress is not None and done % EVERY == 0:
                progress(done, size)
        if progress is not None:
            progress(done, size)
        return self.report

    def _one(self, past: Past, number: int) -> None:
        report = self.report
        try:
            event = decode(past.raw)
        except MalformedEvent as error:
            report.malformed.add({"number": number, "reason": error.reason})
            return
        report.events += 1
        tenant = self._tenant(past.tenant)
        now = tenant.clock(event, past.received)
        report.first = now if report.first is None else min(report.first, now)
        report.last = now if report.last is None else max(report.last, now)
        verdict = tenant.candidate.observe(event, past.received)
        where = {"tenant": past.tenant, "event": event["uuid"], "at": now.isoformat()}
        for found in (*verdict.findings, *verdict.shadow):
            report.fired[found.rule] += 1
        for found in verdict.findings:
            self._count(found.rule, self._outcome(found, tenant, now, where))
        for found in verdict.shadow:
            self._count(found.rule, _SHADOW)
        if tenant.current is not None:
            self._compare(verdict, tenant.current.observe(event, past.received), where)

    def _tenant(self, name: str) -> _Tenant:
        tenant = self._tenants.get(name)
        if tenant is None:
            current = None if self._current is None else self._current(name)
            tenant = self._tenants[name] = _Tenant(self._candidate(name), current, self._house.brake(name))
        return tenant

    def _count(self, rule: str, outcome: str) -> None:
        self.report.outcomes.setdefault(rule, Counter())[outcome] += 1

    def _outcome(self, found: Finding, tenant: _Tenant, now: datetime, where: dict[str, Any]) -> str:
        """What would have become of a finding, as the judge decides it."""
        if found.person is None:
            return Response.ALERT.value
        if found.response is not Response.LOCKDOWN:
            return found.response.value
        name: str = where["tenant"]
        if self._house.spared(name, found.person):
            return Response.APPROVE.value
        may, tripped = tenant.brake.admit(found.person, now, self._house.active)
        if tripped:
            people = len({person for one, person in self.report.locked if one == name})
            self.report.brakes[name] = {"brake": f"lockdown:{name}", "tripped": now.isoformat(), "locked_before": people, "held": 0}
        if not may:
            if name in self.report.brakes:
                self.report.brakes[name]["held"] += 1
            return Response.APPROVE.value
        self.report.locked[name, found.person] = None
        self.report.lockdowns.add(where | {"person": found.person, "rule": found.rule, "scope": found.scope.value})
        return Response.LOCKDOWN.value

    def _compare(self, new: Verdict, old: Verdict, where: dict[str, Any]) -> None:
        ours, theirs = _responses(new), _responses(old)
        if ours == theirs:
            return
        for (rule, person), response in ours.items():
            row = where | {"rule": rule, "person": person, "response": response}
            before = theirs.get((rule, person))
            if before is None:
                self.report.added.add(row)
            elif before != response:
                self.report.changed.add(row | {"before": before})
        for (rule, person), response in theirs.items():
            if (rule, person) not in ours:
                self.report.removed.add(where | {"rule": rule, "person": person, "response": response})


def _responses(verdict: Verdict) -> dict[tuple[str, str | None], str]:
    """(rule, person) → what is asked for, after guards and before brakes."""
    found = {(one.rule, one.person): one.response.value for one in verdict.findings}
    return found | {(one.rule, one.person): _SHADOW for one in verdict.shadow}
