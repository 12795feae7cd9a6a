"""An incident's next state: what an order, and what came of its containment, make of the last. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from handlers.containment import TargetResult
from model.decision import Severity
from model.event import digest
from model.records import Decision, IncidentChanged, IncidentState, Order

_SHUT = ("closed", "nothing", "left", "planned")


def next_incident(
    order: Order,
    incident: str,
    state: IncidentState,
    results: Iterable[TargetResult],
    before: IncidentChanged | None,
    now: datetime,
    left: Collection[str] = (),
) -> IncidentChanged:
    """The record to write. A containment is `contained` when every target ever told of is shut, else `partial`. `left`: targets where
    another order's try is still due; what went well there for this order does not say that all is done."""
    targets = dict(before.targets) if before else {}
    targets |= {one.target: _told(one) for one in results if not (one.is_good and one.target in left and one.target in targets)}
    if state in ("contained", "partial") and targets:
        state = "contained" if all(told["state"] in _SHUT for told in targets.values()) else "partial"
    if any(told["state"] == "planned" for told in targets.values()):
        state = "open"  # a dry run: nothing was called
    ended = [told["answered"] for told in targets.values() if told.get("answered")]
    return IncidentChanged(
        id=digest("incident", incident, state, now.isoformat()),
        tenant=order.tenant,
        at=now,
        incident=incident,
        person=order.person,
        state=state,
        title=_title(order.decisions, before),
        severity=_severity(order.decisions, before),
        event=before.event if before and before.event else order.event,
        decisions=_merged(before.decisions if before else (), order.decisions),
        opened=before.opened if before else now,
        contained=max(ended) if state == "contained" and ended else None,
        targets=targets,
    )


def told(results: Iterable[TargetResult]) -> dict[str, dict[str, Any]]:
    """Targets' shares as the incident shows them (times ISO 8601)."""
    return {one.target: _told(one) for one in results}


def _told(one: TargetResult) -> dict[str, Any]:
    return {
        "state": one.state,
        "account": one.account,
        "code": one.code,
        "reason": one.reason,
        "answered": one.answered.isoformat() if one.answered else None,
        "observed": one.observed.isoformat() if one.observed else None,
    }


def _merged(before: tuple[Decision, ...], new: tuple[Decision, ...]) -> tuple[Decision, ...]:
    known = {decision.id for decision in before}
    return (*before, *(decision for decision in new if decision.id not in known))


def _title(decisions: tuple[Decision, ...], before: IncidentChanged | None) -> str:
    return before.title if before and before.title else (decisions[0].title if decisions else "")


def _severity(decisions: tuple[Decision, ...], before: IncidentChanged | None) -> Severity:
    order = list(Severity)
    found = [one.severity for one in decisions] + ([before.severity] if before else [])
    return max(found, key=order.index, default=Severity.HIGH)
