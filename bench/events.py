"""A made-up System Log that looks like a busy tenant's: sizes, fields and the mix of event types as in recorded logs, no real person in it.

Deterministic for a seed. About 2.7 KB an event; per thousand some 340 single sign-ons, 240 policy evaluations, 110 sign-ins (5 % fail), 120
factors, 100 token grants, the rest life cycle, groups, sessions and administration. Joiners and leavers are 300 people who come and go, so that
state that lives for days fills up within an hour of log.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

_AGENTS = (
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36",
        "Windows 10",
        "CHROME",
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
        "Mac OS X",
        "SAFARI",
    ),
    ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148", "iOS", "SAFARI"),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0", "Linux", "FIREFOX"),
)
_PLACES = (
    ("Rotterdam", "South Holland", "Netherlands"),
    ("Utrecht", "Utrecht", "Netherlands"),
    ("Lyon", "Rhone", "France"),
    ("Porto", "Porto", "Portugal"),
)
_APPS = tuple(f"Application {number:02d}" for number in range(40))
_KINDS: tuple[tuple[str, int, str], ...] = (
    ("user.authentication.sso", 340, "User single sign on to app"),
    ("policy.evaluate_sign_on", 240, "Evaluation of sign-on policy"),
    ("user.authentication.auth_via_mfa", 120, "Authentication of user via MFA"),
    ("user.session.start", 110, "User login to Okta"),
    ("app.oauth2.token.grant.access_token", 100, "OAuth2 access token is granted"),
    ("user.session.end", 30, "User logout from Okta"),
    ("user.authentication.verify", 20, "Verify user identity"),
    ("group.user_membership.add", 12, "Add user to group membership"),
    ("application.user_membership.add", 10, "Add user to application membership"),
    ("user.account.update_profile", 6, "Update user profile for Okta"),
    ("group.user_membership.remove", 4, "Remove user from group membership"),
    ("user.mfa.factor.activate", 3, "Enroll factor for user"),
    ("user.lifecycle.create", 2, "Create Okta user"),
    ("user.lifecycle.deactivate", 1, "Deactivate Okta user"),
    ("user.account.lock", 1, "Max sign in attempts exceeded"),
    ("system.api_token.create", 1, "Create API token"),
)


def synthetic(count: int, seed: int = 1, users: int = 2_000, per_second: float = 50.0, start: datetime | None = None) -> Iterator[bytes]:
    """`count` events as bytes, `per_second` of them in a second of event time, disordered by up to two seconds."""
    chance = random.Random(seed)
    weights = [weight for _, weight, _ in _KINDS]
    begin = start or datetime(2026, 9, 14, 8, 0, tzinfo=UTC)
    for number in range(count):
        kind, _, message = chance.choices(_KINDS, weights)[0]
        time = begin + timedelta(seconds=number / per_second - chance.random() * 2)
        yield orjson.dumps(_event(kind, message, number, chance.randrange(users), time, chance))


def _event(kind: str, message: str, number: int, user: int, time: datetime, chance: random.Random) -> dict[str, Any]:
    raw, system, browser = _AGENTS[user % len(_AGENTS)]
    city, state, country = _PLACES[user % len(_PLACES)]
    address = f"198.{18 + user // 65536 % 2}.{user // 256 % 256}.{user % 256}"
    place = {"city": city, "state": state, "country": country, "postalCode": "3011", "geolocation": {"lat": 51.92, "lon": 4.48}}
    session = f"102{user:06d}{number // 100_000:05d}session"
    failed = kind == "user.session.start" and chance.random() < 0.05
    result = "FAILURE" if failed or kind == "user.account.lock" else "ALLOW" if kind == "policy.evaluate_sign_on" else "SUCCESS"
    return {
        "actor": _user(user),
        "client": {
            "userAgent": {"rawUserAgent": raw, "os": system, "browser": browser},
            "zone": "null",
            "device": "Computer",
            "id": None,
            "ipAddress": address,
            "geographicalContext": place,
        },
        "device": None,
        "authenticationContext": {
            "authenticationProvider": "FACTOR_PROVIDER",
            "credentialProvider": "OKTA_CREDENTIAL_PROVIDER",
            "credentialType": None,
            "issuer": None,
            "interface": None,
            "authenticationStep": 0,
            "rootSessionId": session,
            "externalSessionId": None if failed else session,
        },
        "displayMessage": message,
        "eventType": kind,
        "outcome": {"result": result, "reason": "INVALID_CREDENTIALS" if failed else None},
        "published": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "securityContext": {
            "asNumber": 64500,
            "asOrg": "lowland fibre",
            "isp": "lowland fibre",
            "domain": "lowland.example",
            "isProxy": False,
        },
        "severity": "INFO",
        "debugContext": {"debugData": _debug(user, number)},
        "legacyEventType": f"core.{kind}",
        "transaction": {"type": "WEB", "id": f"aLx{number:019d}", "detail": {}},
        "uuid": f"{number:08x}-91d2-11f1-8d2b-{user:012x}",
        "version": "0",
        "request": {"ipChain": [{"ip": address, "geographicalContext": place, "version": "V4", "source": None}]},
        "target": _targets(kind, user, number, chance),
    }


def _debug(user: int, number: int) -> dict[str, Any]:
    return {
        "authnRequestId": f"aLx{number:019d}",
        "behaviors": "{New Geo-Location=NEGATIVE, New Device=NEGATIVE, New IP=NEGATIVE, New State=NEGATIVE, New Country=NEGATIVE, Velocity=NEGATIVE, New City=NEGATIVE}",
        "deviceFingerprint": f"{user:032x}",
        "dtHash": f"{user:064x}",
        "initiationType": "SP_INITIATED",
        "logOnlySecurityData": '{"risk":{"level":"LOW"},"behaviors":{"New Geo-Location":"NEGATIVE","New Device":"NEGATIVE","New IP":"NEGATIVE","New State":"NEGATIVE","New Country":"NEGATIVE","Velocity":"NEGATIVE","New City":"NEGATIVE"}}',
        "requestId": f"{number:032x}",
        "requestUri": "/app/box/exk1a2b3c4d5e6f7g8h9/sso/saml",
        "risk": "{level=LOW}",
        "threatSuspected": "false",
        "traceId": f"65d65fa6-b5a9-50e9-b6f1-{number:012x}",
        "url": "/app/box/exk1a2b3c4d5e6f7g8h9/sso/saml?RelayState=https%3A%2F%2Fbox.example%2F",
    }


def _user(number: int) -> dict[str, Any]:
    name = f"Staff Member {number:05d}"
    return {
        "id": f"00u{number:017d}",
        "type": "User",
        "alternateId": f"staff.{number:05d}@brightwater.example",
        "displayName": name,
        "detailEntry": None,
    }


def _targets(kind: str, user: int, number: int, chance: random.Random) -> list[dict[str, Any]] | None:
    if kind in ("user.authentication.sso", "policy.evaluate_sign_on"):
        app = chance.randrange(len(_APPS))
        instance = {
            "id": f"0oa{app:017d}",
            "type": "AppInstance",
            "alternateId": _APPS[app],
            "displayName": _APPS[app],
            "detailEntry": {"signOnModeType": "SAML_2_0"},
        }
        if kind == "policy.evaluate_sign_on":
            rule = {"id": f"0pr{app:017d}", "type": "Rule", "alternateId": "unknown", "displayName": "Catch-all Rule", "detailEntry": None}
            return [instance, rule]
        return [
            instance,
            {
                "id": f"0ua{user:017d}",
                "type": "AppUser",
                "alternateId": f"staff.{user:05d}",
                "displayName": "Staff Member",
                "detailEntry": None,
            },
        ]
    if kind.startswith(("group.", "application.user_membership")):
        return [
            _user(chance.randrange(10_000)),
            {
                "id": f"00g{number % 50:017d}",
                "type": "UserGroup",
                "alternateId": "unknown",
                "displayName": f"Team {number % 50}",
                "detailEntry": None,
            },
        ]
    if kind in ("user.session.start", "user.session.end"):
        return None
    if kind == "system.api_token.create":
        return [{"id": f"00T{number:017d}", "type": "Token", "alternateId": "unknown", "displayName": "ci", "detailEntry": None}]
    return [_user(chance.randrange(300) if kind.startswith("user.lifecycle") else user)]
