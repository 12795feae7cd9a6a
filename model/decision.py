"""What rules say of an event: a moment of somebody's life, and findings that ask for a response."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class Moment(StrEnum):
    JOIN = "join"
    MOVE = "move"
    LEAVE = "leave"
    GROUP = "group"
    THREAT = "threat"
    NONE = "none"


class Response(StrEnum):
    ALERT = "alert"
    APPROVE = "approve"
    LOCKDOWN = "lockdown"


class Scope(StrEnum):
    """How far a lockdown goes (D15). `sessions` ends sessions and tokens; `full` suspends as well and writes a Hold."""

    SESSIONS = "sessions"
    FULL = "full"


class Severity(StrEnum):
    INFORMATIONAL = "informational"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that fired on one event for one person (None where nobody, or several, are meant). Where a guard lowered the response,
    `asked` is the rule's own and `why` says which guards."""

    rule: str
    rule_version: str
    title: str
    response: Response
    severity: Severity
    person: str | None
    scope: Scope = Scope.SESSIONS
    downstream: bool = False
    matched: dict[str, Any] = field(default_factory=dict)
    runbook: str = ""
    asked: Response | None = None
    why: str = ""


class Verdict(NamedTuple):
    """All that rules say of one event. `moment` is `threat` where some finding's response is not `alert` (D2). `shadow` are findings of
    rules on trial: counted and reported, they ask for nothing and change no moment. A tuple, because one is made for every event: a frozen
    dataclass takes five times as long."""

    moment: Moment
    life_moment: Moment
    people: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    shadow: tuple[Finding, ...] = ()

    @property
    def is_silent(self) -> bool:
        return self.moment is Moment.NONE and not self.people and not self.findings and not self.shadow
