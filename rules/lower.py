"""Guards at work: one finding, one event, and what the house has declared → the response that remains."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from model.decision import Finding, Response, Severity
from rules.correlation.observation import Observation
from rules.guards import GuardSettings, OwnActor
from rules.rule import Rule
from rules.sigma.compare import address_of

#: People whose creation, and (rule, person) pairs whose last finding, are remembered.
MOST_REMEMBERED = 50_000

_STEP = {Response.LOCKDOWN: Response.APPROVE, Response.APPROVE: Response.ALERT, Response.ALERT: Response.ALERT}


class Guards:
    """The guards of one tenant. `protected` are the ids on its protected list, `own` who we are in its log (D5)."""

    def __init__(self, settings: GuardSettings | None = None, protected: Iterable[str] = (), own: OwnActor | None = None) -> None:
        self._settings = settings or GuardSettings.load(None)
        self._protected = frozenset(protected)
        mine = (self._settings.own, own or OwnActor())
        self._own = frozenset(one for part in mine for one in (*part.actors, *part.clients, *part.tokens))
        self._service = frozenset(self._settings.service_accounts.ids)
        self._iam = frozenset(self._settings.iam_admins.ids)
        self._help_desk = frozenset(self._settings.help_desk.ids)
        self._imports = frozenset(self._settings.imports.ids)
        self._networks = tuple(ipaddress.ip_network(one) for one in self._settings.networks.trusted)
        self._created: OrderedDict[str, float] = OrderedDict()
        self._asked: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        self._checks: dict[str, Callable[[Finding, Observation], str]] = {
            "BG": lambda finding, seen: "is on the protected list" if finding.person in self._protected else "",
            "SVC": lambda finding, seen: "is a service account" if finding.person in self._service else "",
            "NET": self._from_trusted_network,
            "ADM": self._by_iam_admin,
            "HD": lambda finding, seen: "by the help desk" if _actor(seen) in self._help_desk else "",
            "NEWU": self._is_new_user,
            "SYNC": self._by_import,
            "CASE": lambda finding, seen: self._within("support window", self._settings.support_window, seen),
            "SIM": lambda finding, seen: self._within("phishing exercise", self._settings.phishing_exercise, seen),
            "RATE": self._asked_lately,
        }

    def note(self, seen: Observation) -> None:
        """Learns who was created when."""
        who = seen.who("target")
        outcome = seen.event.get("outcome")
        if who is not None and isinstance(outcome, dict) and outcome.get("result") == "SUCCESS":
            _remember(self._created, who, seen.time)

    def lowered(self, rule: Rule, finding: Finding, seen: Observation) -> Finding:
        """The finding with the response that the rule's guards leave, and why. What we did ourselves is never more than an alert."""
        if self._own and self._is_own(seen):
            return replace(
                finding, asked=finding.response, response=Response.ALERT, severity=Severity.INFORMATIONAL, why="LOOP: our own action"
            )
        reasons = [
            f"{name}: {reason}" for name in rule.section.guards if (check := self._checks.get(name)) and (reason := check(finding, seen))
        ]
        if not reasons:
            return finding
        if finding.response is Response.ALERT:
            return replace(finding, severity=Severity.INFORMATIONAL, why="; ".join(reasons))
        response = _STEP[finding.response]
        if any(reason.startswith("RATE") for reason in reasons):
            response = Response.ALERT
        return replace(finding, asked=finding.response, response=response, why="; ".join(reasons))

    def _is_own(self, seen: Observation) -> bool:
        event = seen.event
        transaction = event.get("transaction")
        detail = transaction.get("detail") if isinstance(transaction, dict) else None
        ids = [_actor(seen)]
        if isinstance(detail, dict):
            ids += [detail.get("requestApiTokenClientId"), detail.get("requestApiTokenId"), detail.get("rootApiTokenId")]
        return any(isinstance(one, str) and one in self._own for one in ids)

    def _from_trusted_network(self, finding: Finding, seen: Observation) -> str:
        client = seen.event.get("client")
        text = client.get("ipAddress") if isinstance(client, dict) else None
        address = address_of(text) if isinstance(text, str) and len(text) <= 64 else None
        if address is None:
            return ""
        for network in self._networks:
            if address.version == network.version and address in network:
                return f"from {network}"
        return ""

    def _by_iam_admin(self, finding: Finding, seen: Observation) -> str:
        actor = _actor(seen)
        if actor not in self._iam:
            return ""
        if not self._settings.iam_admins.needs_change:
            return "by an administrator of access"
        return self._within("change", self._settings.change_window, seen)

    def _is_new_user(self, finding: Finding, seen: Observation) -> str:
        created = self._created.get(finding.person or "")
        young = created is not None and 0 <= seen.time - created <= self._settings.new_users.days * 86_400
        return "was created lately" if young and self._settings.new_users.days else ""

    def _by_import(self, finding: Finding, seen: Observation) -> str:
        actor = seen.event.get("actor")
        kind = actor.get("type") if isinstance(actor, dict) else None
        return "by an import or a group rule" if kind == "SystemPrincipal" or _actor(seen) in self._imports else ""

    def _within(self, what: str, periods: Iterable[Any], seen: Observation) -> str:
        try:
            time = datetime.fromtimestamp(seen.time, UTC)
        except (OverflowError, ValueError, OSError):
            return ""
        actor = _actor(seen)
        return next((f"{what} {period.reference}" for period in periods if period.holds(time, actor)), "")

    def _asked_lately(self, finding: Finding, seen: Observation) -> str:
        if finding.person is None:
            return ""
        key = (finding.rule, finding.person)
        last = self._asked.get(key)
        if last is not None and last[1] != seen.uuid and abs(seen.time - last[0]) < self._settings.cool_down.hours * 3600:
            return "asked lately"
        _remember(self._asked, key, (seen.time, seen.uuid))
        return ""

    def dump(self) -> list[Any]:
        return [[[who, time] for who, time in self._created.items()], [[*key, *value] for key, value in self._asked.items()]]

    def load(self, state: list[Any]) -> None:
        created, asked = state
        self._created = OrderedDict((who, float(time)) for who, time in created)
        self._asked = OrderedDict(((rule, who), (float(time), uuid)) for rule, who, time, uuid in asked)


def _actor(seen: Observation) -> str | None:
    actor = seen.event.get("actor")
    found = actor.get("id") if isinstance(actor, dict) else None
    return found if isinstance(found, str) else None


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MOST_REMEMBERED:
        memory.popitem(last=False)
