"""What lint knows of Okta's log beyond the names of event types: its fields, its words for outcomes, which types are no attempt that can
fail, and what somebody without a valid credential can cause.

The fields are those of LogEvent in Okta's management API, with what real events carry besides (`authenticatorContext`, `device`). Where Okta
writes what it likes (`debugData`, `detailEntry`, changes), anything may stand below. Rejected: Okta's OpenAPI document itself (3.4 MB, and it
lacks half of what real events carry).
"""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase

from rules.sigma.field import Only, path_of

_PLACE = ("city", "country", "state", "postalCode", "geolocation.lat", "geolocation.lon")
_NETWORK = (
    "asNumber",
    "asOrg",
    "isp",
    "domain",
    "ipServiceCategories.isAnonymous",
    "ipServiceCategories.operator",
    "ipServiceCategories.type",
)
_ENTITY = ("id", "type", "alternateId", "displayName")


def _below(path: str, names: tuple[str, ...]) -> set[str]:
    return {f"{path}.{name}" for name in names}


#: Every field that holds one value or a list of them.
FIELDS: frozenset[str] = frozenset(
    {"uuid", "version", "published", "eventType", "legacyEventType", "displayMessage", "severity", "outcome.result", "outcome.reason"}
    | _below("actor", _ENTITY)
    | _below("target", _ENTITY)
    | _below("client", ("id", "ipAddress", "zone", "device", "userAgent.rawUserAgent", "userAgent.os", "userAgent.browser"))
    | _below("client.geographicalContext", _PLACE)
    | _below("request.ipChain", ("ip", "version", "source"))
    | _below("request.ipChain.geographicalContext", _PLACE)
    | _below("request.ipChain.ipDetails", _NETWORK)
    | _below("securityContext", ("asNumber", "asOrg", "isp", "domain", "isProxy", "botProtection.level"))
    | _below("securityContext.ipDetails", _NETWORK)
    | _below("securityContext.risk", ("level", "previousLevel", "reasons", "detectionName", "issuer"))
    | _below("securityContext.userBehaviors", ("id", "name", "result"))
    | _below("transaction", ("id", "type"))
    | _below(
        "authenticationContext",
        (
            "authenticationProvider",
            "authenticationStep",
            "credentialProvider",
            "credentialType",
            "externalSessionId",
            "interface",
            "issuer.id",
            "issuer.type",
            "rootSessionId",
        ),
    )
    | _below(
        "device",
        (
            "id",
            "name",
            "os_platform",
            "os_version",
            "managed",
            "registered",
            "device_integrator",
            "disk_encryption_type",
            "jailbreak",
            "screen_lock_type",
            "secure_hardware_present",
        ),
    )
)
#: Below these Okta writes what it likes.
OPEN = (
    "actor.detailEntry",
    "target.detailEntry",
    "target.changeDetails",
    "debugContext.debugData",
    "transaction.detail",
    "authenticationContext.authenticatorContext",
    "device.device_integrator",
)
#: Below these an event has several values at once, so that two demands on one field do not exclude each other.
_MANY = ("target", "request.ipChain", "securityContext.userBehaviors", "securityContext.ipDetails", "securityContext.risk.reasons")

_PARENTS = frozenset(name.rsplit(".", depth)[0] for name in (*FIELDS, *OPEN) for depth in range(1, name.count(".") + 1))
_FOLDED = {name.casefold(): name for name in (*FIELDS, *OPEN)}

#: The words of closed fields, as Okta's API names them.
WORDS: dict[str, frozenset[str]] = {
    "outcome.result": frozenset(
        {
            "SUCCESS",
            "FAILURE",
            "SKIPPED",
            "ALLOW",
            "DENY",
            "CHALLENGE",
            "UNKNOWN",
            "RATE_LIMIT",
            "DEFERRED",
            "SCHEDULED",
            "ABANDONED",
            "UNANSWERED",
        }
    ),
    "severity": frozenset({"DEBUG", "INFO", "WARN", "ERROR"}),
}
SUCCESSES = frozenset({"success", "allow"})

#: What Okta reports as seen, not as tried: their outcome says nothing.
_SEEN = ("security.threat.detected", "security.attack.*", "user.account.lock", "user.account.lock.limit", "user.risk.*", "*_limit.violation",
         "*_limit.warning", "*.deny_push", "*.deny_push_upgrade_needed", "user.account.report_suspicious_activity_by_enduser")  # fmt: skip

#: What anybody on the internet causes who knows a name, whatever its outcome.
_OUTSIDER = (
    "security.threat.detected",
    "security.internal.threat.detected",
    "security.attack.*",
    "security.password_spray.detected",
    "security.request.blocked",
    "user.account.lock",
    "user.account.lock.limit",
    "user.account.unlock_failure",
    "user.mfa.okta_verify.deny_push",
    "user.mfa.okta_verify.deny_push_upgrade_needed",
    "user.authentication.auth_unconfigured_identifier",
    "user.authentication.auth_identifier_not_in_policy",
    "app.oauth2.invalid_client_credentials",
    "system.push.*",
    "system.sms.*",
    "system.voice.*",
    "system.email.*",
    "system.*rate_limit*",
)
#: What anybody causes unless it succeeded: a success takes a credential.
_OUTSIDER_UNLESS_SUCCESS = (
    "user.session.start",
    "user.authentication.auth*",
    "user.authentication.verify",
    "user.authentication.sso",
    "user.mfa.okta_verify",
    "user.identity_verification*",
    "user.account.reset_password",
    "user.account.unlock*",
    "policy.evaluate_sign_on",
    "policy.execute.user.start",
    "app.oauth2.*authorize*",
    "app.oauth2.*token.grant*",
    "app.oauth2.signon",
)


def plain(field: str) -> str:
    """A field's name without what chooses elements of lists: `target[type=User].0.id` is `target.id`. Raises ValueError."""
    return ".".join(step for step in path_of(field) if not isinstance(step, Only) and not step.isdecimal())


def is_known(field: str) -> bool:
    """Whether Okta's log has such a field, or may have it."""
    name = plain(field)
    return name in FIELDS or name in _PARENTS or any(name == one or name.startswith(f"{one}.") for one in OPEN)


def nearest(field: str) -> str | None:
    """The field that was probably meant."""
    folded = plain(field).casefold()
    if folded in _FOLDED:
        return _FOLDED[folded]
    near = difflib.get_close_matches(folded, _FOLDED, n=1, cutoff=0.8)
    return _FOLDED[near[0]] if near else None


def is_single(field: str) -> bool:
    """Whether an event has one value for the field at most."""
    return field in FIELDS and not any(field == one or field.startswith(f"{one}.") for one in _MANY)


def can_fail(event_type: str) -> bool:
    """Whether the type is something that is tried, so that a rule must say which outcome it means."""
    return not any(fnmatchcase(event_type, one) for one in _SEEN)


def is_outsiders(event_type: str) -> bool:
    """Whether somebody without a valid credential can cause it, whatever its outcome."""
    return any(fnmatchcase(event_type, one) for one in _OUTSIDER)


def is_outsiders_unless_success(event_type: str) -> bool:
    return any(fnmatchcase(event_type, one) for one in _OUTSIDER_UNLESS_SUCCESS)
