"""Which calls fail, and how: slow ones, refused ones, changes whose answer is lost, at Okta, Box and Slack.

`when: after` is the case that has to be read back: the change happened and nobody heard of it. Delays are told in parts of the clients'
time-out (`PATIENCE_S` in the configuration of the run): shorter ones are only slow, longer ones land after the caller gave up.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

#: The clients' time-out in the configuration of a run.
PATIENCE_S = 3.0

_LOSSES: tuple[Json, ...] = (
    {"status": 503},
    {"status": 500, "when": "after"},
    {"status": 503, "when": "after"},
    {"reset": True},
    {"reset": True, "when": "after"},
    {"hang": True},
    {"hang": True, "when": "after"},
    {"cut_body": True, "when": "after"},
    {"status": 429, "headers": {"Retry-After": "1"}},
    {"delay_s": PATIENCE_S * 0.4},
    {"delay_s": PATIENCE_S * 0.4, "when": "after"},
    {"delay_s": PATIENCE_S * 1.5},
    {"delay_s": PATIENCE_S * 1.5, "when": "after"},
)
_READS: tuple[Json, ...] = (
    {"status": 503},
    {"status": 429, "headers": {"Retry-After": "1"}},
    {"reset": True},
    {"hang": True},
    {"cut_body": True},
    {"delay_s": PATIENCE_S * 0.4},
    {"body": "<html><title>Sorry</title></html>", "status": 200},
    {"status": 502, "body": "<html>Bad gateway</html>"},
)
_LOG: tuple[Json, ...] = (
    {"status": 503},
    {"status": 429, "headers": {"Retry-After": "1"}},
    {"reset": True},
    {"cut_body": True},
    {"delay_s": 1.0},
    {"body": "<html><title>Sign in</title></html>", "status": 200},
)
_SLACK: tuple[Json, ...] = (
    {"status": 429, "headers": {"Retry-After": "1"}},
    {"status": 500, "when": "after"},
    {"status": 503},
    {"reset": True, "when": "after"},
    {"cut_body": True, "when": "after"},
)

#: (weight, vendor, method, path, what can happen)
_PLACES: tuple[tuple[int, str, str, str, tuple[Json, ...]], ...] = (
    (3, "okta", "GET", "/api/v1/logs*", _LOG),
    (3, "okta", "GET", "/api/v1/users/*", _READS),
    (2, "okta", "POST", "/api/v1/users/*/lifecycle/suspend", _LOSSES),
    (2, "okta", "DELETE", "/api/v1/users/*/sessions", _LOSSES),
    (4, "box", "POST", "/2.0/users", _LOSSES),
    (4, "box", "PUT", "/2.0/users/*", _LOSSES),
    (4, "box", "POST", "/2.0/group_memberships", _LOSSES),
    (4, "box", "DELETE", "/2.0/group_memberships/*", _LOSSES),
    (4, "box", "POST", "/2.0/collaborations", _LOSSES),
    (4, "box", "DELETE", "/2.0/collaborations/*", _LOSSES),
    (2, "box", "POST", "/2.0/users/terminate_sessions", _LOSSES),
    (3, "box", "GET", "/2.0/*", _READS),
    (1, "box", "POST", "/oauth2/token", ({"status": 503}, {"reset": True})),
    (2, "slack", "POST", "/api/chat.postMessage", _SLACK),
    (1, "slack", "POST", "/api/chat.update", _SLACK),
)


class Weather:
    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def orders(self, length_s: float, events: int) -> Iterator[tuple[float, str, Json]]:
        """(at, vendor, order): one in about 25 events, from the beginning until shortly before the end."""
        weights = [place[0] for place in _PLACES]
        for _ in range(max(6, events // 25)):
            _, vendor, method, path, kinds = self._dice.choices(_PLACES, weights)[0]
            yield self._dice.uniform(0, length_s * 0.97), vendor, {"method": method, "path": path} | self._dice.choice(kinds)
