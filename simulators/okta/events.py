"""How Okta writes an event: the fields that real events have, nulls where real events have nulls, targets in varying order.

`Caller` is who did it, as the log shows it: the admin who owns an SSWS token, the service app of an OAuth token, an admin in the
console, Okta itself. Ids and times come from outside, so that a test can say what the bytes will be.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from simulators.limits import Clock
from simulators.okta.directory import Group, User, stamp
from simulators.okta.log import SystemLog

Entity = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is constant in a type of event."""

    message: str
    legacy: str | None = None
    severity: str = "INFO"


KINDS: dict[str, Kind] = {
    "user.lifecycle.create": Kind("Create Okta user", "core.user.config.user_creation.success"),
    "user.lifecycle.activate": Kind("Activate Okta user", "core.user.config.user_activated"),
    "user.lifecycle.reactivate": Kind("Reactivate Okta user", "core.user.config.user_reactivated"),
    "user.lifecycle.suspend": Kind("Suspend Okta user", "core.user.config.user_status.suspended"),
    "user.lifecycle.unsuspend": Kind("Unsuspend Okta user", "core.user.config.user_status.unsuspended"),
    "user.lifecycle.deactivate": Kind("Deactivate Okta User", "core.user.config.user_deactivated"),
    "user.lifecycle.delete.initiated": Kind("Delete Okta user initiated", "core.user.config.user_status.delete.initiated"),
    "user.lifecycle.delete.completed": Kind("Delete Okta user completed", "core.user.config.user_status.delete.completed"),
    "user.account.update_profile": Kind("Update user profile for Okta", "core.user.config.profile_update.success"),
    "user.account.unlock_by_admin": Kind("Unlock user account by admin", "core.user.config.user_status.unlocked"),
    "user.account.expire_password": Kind("Expire user password", "core.user.config.user_status.password_expired"),
    "group.user_membership.add": Kind("Add user to group membership", "core.user_group_member.user_add"),
    "group.user_membership.remove": Kind("Remove user from group membership", "core.user_group_member.user_remove"),
    "group.lifecycle.create": Kind("Create Okta group", "core.user_group.create"),
    "user.session.clear": Kind("Clear user session", "core.user_auth.session_clear"),
    "user.session.end": Kind("User logout from Okta", "core.user_auth.logout_success"),
    "app.oauth2.token.revoke.implicit.user": Kind("OAuth2 tokens revoked for a user"),
    "user.risk.detect": Kind("User risk detected"),
    "user.session.start": Kind("User login to Okta", "core.user_auth.login_success"),
    "user.authentication.sso": Kind("User single sign on to app", "app.auth.sso"),
    "policy.evaluate_sign_on": Kind("Evaluation of sign-on policy"),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts, with what the log keeps of the request. `detail` goes into `transaction.detail`."""

    actor: Entity
    client_id: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    ip: str = "198.51.100.10"
    agent: str | None = None
    uri: str = "/api/v1/users"
    session: str | None = None


def entity(kind: str, id_: str, alternate: str | None, name: str | None, detail: Entity | None = None) -> Entity:
    return {"id": id_, "type": kind, "alternateId": alternate, "displayName": name, "detailEntry": detail}


def user_entity(user: User) -> Entity:
    return entity("User", user.id, user.login, user.display_name)


def group_entity(group: Group) -> Entity:
    return entity("UserGroup", group.id, "unknown", group.name)


SYSTEM = Caller(entity("SystemPrincipal", "okta.2b1959c8-bcc0-56eb-a589-cfcfb7422f26", "system@okta.com", "Okta System"))


def risk_text(previous: str, level: str, detection: str, reasons: str, issuer: str = "OKTA") -> str:
    """The Java map that stands in `debugData.risk`; reasons may hold commas, as they do in the wild."""
    return f"{{previousLevel={previous}, level={level}, detectionName={detection}, reasons={reasons}, issuer={issuer}}}"


class Writer:
    """Writes events to the log, one transaction at a time."""

    def __init__(self, log: SystemLog, clock: Clock, rng: random.Random) -> None:
        self.log, self.clock, self.rng = log, clock, rng

    def transaction(self) -> str:
        """An id that joins the events of one request."""
        return f"{self.rng.getrandbits(128):032x}"

    def write(
        self,
        kind: str,
        by: Caller,
        *targets: Entity,
        transaction: str | None = None,
        outcome: tuple[str, str | None] = ("SUCCESS", None),
        debug: Mapping[str, Any] | None = None,
        legacy: str | None = None,
        system: bool = False,
        late_s: float = 0.0,
    ) -> str:
        """Persists one event now and gives its uuid. `system` marks work of a job, not of a request; `late_s` is how long ago it
        happened, since Okta commits some events late."""
        constant = KINDS[kind]
        id_ = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        event = {
            "actor": by.actor,
            "client": _client(by),
            "device": None,
            "authenticationContext": _authentication(by),
            "displayMessage": constant.message,
            "eventType": kind,
            "outcome": {"result": outcome[0], "reason": outcome[1]},
            "published": stamp(self.clock() - late_s),
            "securityContext": {"asNumber": None, "asOrg": None, "isp": None, "domain": None, "isProxy": None},
            "severity": constant.severity,
            "debugContext": {"debugData": {"requestUri": by.uri, "url": f"{by.uri}?", **(debug or {})}},
            "legacyEventType": legacy if legacy is not None else constant.legacy,
            "transaction": {
                "type": "JOB" if system else "WEB",
                "id": transaction or self.transaction(),
                "detail": dict(by.detail),
            },
            "uuid": id_,
            "version": "0",
            "request": {"ipChain": [{"ip": by.ip, "geographicalContext": _PLACE, "version": "V4", "source": None}]},
            "target": self._shuffled(targets),
        }
        self.log.append(orjson.dumps(event))
        return id_

    def _shuffled(self, targets: Sequence[Entity]) -> list[Entity] | None:
        order = list(targets)
        self.rng.shuffle(order)
        return order or None


_PLACE = {"city": "Dublin", "state": None, "country": "Ireland", "postalCode": None, "geolocation": {"lat": 53.3, "lon": -6.2}}
_BROWSER = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36"


def _client(by: Caller) -> Entity:
    program = by.agent is not None
    return {
        "userAgent": {
            "rawUserAgent": by.agent or _BROWSER,
            "os": "Unknown" if program else "Mac OS X",
            "browser": "UNKNOWN" if program else "CHROME",
        },
        "zone": "null",
        "device": "Unknown" if program else "Computer",
        "id": by.client_id,
        "ipAddress": by.ip,
        "geographicalContext": _PLACE,
    }


def _authentication(by: Caller) -> Entity:
    return {
        "authenticationProvider": None,
        "credentialProvider": None,
        "credentialType": None,
        "issuer": None,
        "interface": None,
        "authenticationStep": 0,
        "externalSessionId": by.session or ("unknown" if by.detail else None),
    }
