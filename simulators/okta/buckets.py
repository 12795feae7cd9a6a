"""Okta's rate limit buckets of an org: which one a request falls into, and its three headers.

Figures are the last that Okta printed for a Workforce org, a minute. A bucket counts for the whole org, whoever calls. That a token
gets half of a bucket by default is not modelled: the limit that the headers tell is the limit. A log bucket that is raised above the
vendor's raises the others in proportion, so that a trial with a long log is not held up by the directory.
"""

from __future__ import annotations

import math

from simulators.limits import Clock, Rate, RateWindow

LOGS = "/api/v1/logs"
#: Path patterns (`*` is one segment), most exact first, with the limit a minute by method; `""` is any other method.
_LIMITS: tuple[tuple[str, dict[str, int]], ...] = (
    ("/api/v1/users", {"": 600}),
    ("/api/v1/users/*", {"GET": 2000, "": 600}),
    ("/api/v1/groups", {"": 500}),
    ("/api/v1/groups/*", {"": 1000}),
    ("/oauth2/v1/token", {"": 2000}),
)
_ELSE = 1200


#: What `/api/v1/logs` allows a Workforce org.
LOGS_A_MINUTE = 120


class Buckets:
    """`logs` is the limit of `/api/v1/logs`."""

    def __init__(self, clock: Clock, logs: int = LOGS_A_MINUTE) -> None:
        self.clock = clock
        self.logs = logs
        self._factor = max(1.0, logs / LOGS_A_MINUTE)
        self._windows: dict[str, RateWindow] = {}

    def take(self, method: str, path: str) -> Rate:
        name, limit = self._bucket(method, path)
        window = self._windows.get(name)
        if window is None:
            window = self._windows[name] = RateWindow(self.clock, limit if name == LOGS else int(limit * self._factor))
        return window.take(name)

    def _bucket(self, method: str, path: str) -> tuple[str, int]:
        path = path.rstrip("/")
        if path == LOGS:
            return LOGS, self.logs
        for pattern, limits in _LIMITS:
            if _fits(pattern, path):
                kind = method if method in limits else ""
                return f"{kind} {pattern}", limits[kind]
        return "/api/v1", _ELSE


def _fits(pattern: str, path: str) -> bool:
    wanted, given = pattern.split("/"), path.split("/")
    return len(wanted) == len(given) and all(one in ("*", other) for one, other in zip(wanted, given, strict=True))


def headers(rate: Rate) -> dict[str, str]:
    """Reset is in whole epoch seconds, rounded up, so that whoever waits for it does not come too early."""
    return {
        "X-Rate-Limit-Limit": str(rate.limit),
        "X-Rate-Limit-Remaining": str(rate.remaining),
        "X-Rate-Limit-Reset": str(math.ceil(rate.reset)),
    }
