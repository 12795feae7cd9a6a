"""From a verdict to what is published: decisions with age, brakes and guards applied once (D3, D19), orders, knocks, one record.

A rule on trial (`shadow`) is judged like any other, but for the brake, which it must not use up; what would have become of it stands in
`why`, and the decision that is recorded orders nothing.
Pure but for the brake's memory: no Kafka, no clock of its own. What lowers a response is said in `why`, never silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from model.decision import Finding, Moment, Response, Scope, Severity, Verdict
from model.event import digest, is_safe_id, name_in
from model.person import Word
from model.records import Classified, Decision, EventRef, Knock, Notice, Order
from model.settings import BrakeSettings

_KNOCKING = (Moment.JOIN, Moment.MOVE, Moment.LEAVE)


class Shield(Protocol):
    """The protected list as the classifier needs it (handlers.protected.ProtectedList)."""

    @property
    def is_trusted(self) -> bool: ...
    def is_protected(self, tenant: str, person: str) -> bool: ...


class BrakeState(Word):
    """Whom the lockdown brake of one tenant has let through, and whether it is tripped (it stays so until a human resets it)."""

    locks: tuple[tuple[str, datetime], ...] = ()
    tripped: datetime | None = None


class LockdownBrake:
    """Counts persons over a sliding window, exactly: one classifier owns a tenant. Beyond the limit lockdown becomes approve (N6)."""

    def __init__(self, settings: BrakeSettings, state: BrakeState | None = None) -> None:
        self._settings = settings
        self.state = state or BrakeState()
        self.changed = False

    def admit(self, person: str, now: datetime, active: int | None) -> tuple[bool, bool]:
        """(may lock, has tripped just now). A person already let through within the window counts once."""
        since = now - timedelta(seconds=self._settings.lockdown_window_s)
        locks = tuple((who, when) for who, when in self.state.locks if when > since)
        if any(who == person for who, _ in locks):
            return True, False
        if self.state.tripped is not None:
            return False, False
        if self._over(len(locks) + 1, active):
            self._set(BrakeState(locks=locks, tripped=now))
            return False, True
        self._set(BrakeState(locks=(*locks, (person, now))))
        return True, False

    def reset(self) -> None:
        self._set(BrakeState())

    def _over(self, count: int, active: int | None) -> bool:
        if count > self._settings.lockdown_count:
            return True
        return active is not None and active > 0 and count >= 5 and count * 100 > self._settings.lockdown_percent * active

    def _set(self, state: BrakeState) -> None:
        self.state = state
        self.changed = True


@dataclass(slots=True)
class Judgement:
    """All that one event causes."""

    record: Classified
    knocks: list[Knock] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    @property
    def locks(self) -> bool:
        """Somebody is to be locked at once."""
        return any(order.kind == "lockdown" for order in self.orders)


@dataclass(slots=True)
class Judge:
    """One tenant's judge. `own_actors`: ids by which Okta's log names ourselves (D5)."""

    tenant: str
    max_age: timedelta
    shield: Shield
    brake: LockdownBrake
    own_actors: frozenset[str] = frozenset()
    active: int | None = None

    def judge(self, event: Mapping[str, Any], verdict: Verdict, ref: EventRef, now: datetime) -> Judgement:
        ours = self._is_ours(event)
        notices: list[Notice] = []
        decisions = tuple(
            self._decide(event, finding, ref, now, ours, notices, shadow)
            for findings, shadow in ((verdict.findings, False), (verdict.shadow, True))
            for finding in findings
        )
        record = Classified(
            id=digest("classified", self.tenant, ref.uuid),
            tenant=self.tenant,
            at=now,
            event=ref,
            moment=verdict.moment,
            people=verdict.people,
            decisions=decisions,
        )
        judgement = Judgement(record, notices=notices)
        judgement.orders.extend(self._orders(decisions, ref))
        if not ours:
            self._knock(event, verdict, ref, judgement)
        return judgement

    def _decide(
        self,
        event: Mapping[str, Any],
        finding: Finding,
        ref: EventRef,
        now: datetime,
        ours: bool,
        notices: list[Notice],
        shadow: bool = False,
    ) -> Decision:
        response, why, expired = finding.response, "", False
        if response is not Response.ALERT:
            age = now - (ref.published or ref.received)
            expired = age > self.max_age
            if expired:
                response, why = Response.ALERT, f"the event is {age.total_seconds():.0f} s old, older than max_action_age"
            elif finding.person is None:
                response, why = Response.ALERT, "no single person is meant"
            elif ours:
                response, why = Response.ALERT, "we did this ourselves"
        if response is Response.LOCKDOWN and finding.person is not None:
            response, why = self._restrain(finding.person, now, ref, notices, shadow)
        asked, reasons = finding.asked or finding.response, [reason for reason in (finding.why, why) if reason]
        if shadow:
            would, response = response, Response.ALERT
            reasons = [f"shadow: {would.value} ({'; '.join(reasons)})" if reasons else "shadow"]
        return Decision(
            id=digest("decision", self.tenant, ref.uuid, finding.rule, finding.person or ""),
            tenant=self.tenant,
            event_uuid=ref.uuid,
            person=finding.person,
            rule=finding.rule,
            rule_version=finding.rule_version,
            title=finding.title,
            asked=asked,
            response=response,
            severity=finding.severity,
            scope=finding.scope,
            downstream=finding.downstream,
            expired=expired,
            why="; ".join(reasons),
            matched=finding.matched,
            runbook=finding.runbook,
            decided=now,
            who=name_in(event, finding.person) if finding.person else "",
            shadow=shadow,
        )

    def _restrain(self, person: str, now: datetime, ref: EventRef, notices: list[Notice], shadow: bool) -> tuple[Response, str]:
        if not self.shield.is_trusted:
            return Response.APPROVE, "the protected list cannot be trusted: nobody is locked without approval"
        if self.shield.is_protected(self.tenant, person):
            return Response.APPROVE, "a protected person is never locked by itself"
        if shadow:
            return Response.LOCKDOWN, ""
        may, tripped = self.brake.admit(person, now, self.active)
        if tripped:
            notices.append(self._tripped(now, ref))
        return (Response.LOCKDOWN, "") if may else (Response.APPROVE, "the lockdown brake is tripped")

    def _tripped(self, now: datetime, ref: EventRef) -> Notice:
        count = len(self.brake.state.locks)
        return Notice(
            id=digest("brake", self.tenant, now.isoformat()),
            tenant=self.tenant,
            at=now,
            topic="brake",
            severity=Severity.CRITICAL,
            text=f"the lockdown brake of {self.tenant} tripped after {count} people: every further lockdown waits for approval",
            remedy=f"look at the incidents, then: portcullis brakes reset lockdown:{self.tenant} --actor YOU --reason WHY",
            facts={"event": ref.uuid, "people": count},
        )

    def _orders(self, decisions: tuple[Decision, ...], ref: EventRef) -> list[Order]:
        """One order a person and kind, as wide as the widest of its decisions."""
        by_person: dict[tuple[str, Response], list[Decision]] = {}
        for one in decisions:
            if one.person is not None and one.response is not Response.ALERT:
                by_person.setdefault((one.person, one.response), []).append(one)
        return [
            Order(
                id=digest("order", self.tenant, ref.uuid, person, response),
                kind="lockdown" if response is Response.LOCKDOWN else "approve",
                tenant=self.tenant,
                person=person,
                scope=Scope.FULL if any(one.scope is Scope.FULL for one in found) else Scope.SESSIONS,
                downstream=all(one.downstream for one in found),
                decisions=tuple(found),
                event=ref,
            )
            for (person, response), found in by_person.items()
        ]

    def _knock(self, event: Mapping[str, Any], verdict: Verdict, ref: EventRef, judgement: Judgement) -> None:
        moment = verdict.life_moment
        if moment is Moment.GROUP:
            judgement.knocks.extend(self._new_knock(ref, moment, f"group/{group}", group) for group in _groups(event))
        elif moment in _KNOCKING and len(verdict.people) == 1:
            person = verdict.people[0]
            judgement.knocks.append(self._new_knock(ref, moment, person))
            if moment is Moment.LEAVE:
                order_id = digest("order", self.tenant, ref.uuid, person, "close")
                judgement.orders.append(Order(id=order_id, kind="close", tenant=self.tenant, person=person, event=ref))

    def _new_knock(self, ref: EventRef, moment: Moment, person: str, group: str | None = None) -> Knock:
        knock_id = digest("knock", self.tenant, ref.uuid, person)
        return Knock(id=knock_id, tenant=self.tenant, person=person, group=group, moment=moment, event=ref)

    def _is_ours(self, event: Mapping[str, Any]) -> bool:
        if not self.own_actors:
            return False
        actor = event.get("actor")
        transaction = event.get("transaction")
        detail = transaction.get("detail") if isinstance(transaction, dict) else None
        names = (
            actor.get("id") if isinstance(actor, dict) else None,
            detail.get("requestApiTokenClientId") if isinstance(detail, dict) else None,
        )
        return any(isinstance(name, str) and name in self.own_actors for name in names)


def _groups(event: Mapping[str, Any]) -> list[str]:
    targets = event.get("target")
    if not isinstance(targets, list):
        return []
    found = (one.get("id") for one in targets if isinstance(one, dict) and one.get("type") == "UserGroup")
    return list(dict.fromkeys(group for group in found if is_safe_id(group) and isinstance(group, str)))
