"""Bearer tokens and rate limits, as vendors keep them: every one by the injected clock, so that tests turn time by hand.

Two shapes of limit exist among our vendors: so many requests in a window of a minute (Okta, Box), and a bucket that refills
steadily with room for a burst (Slack's message per second).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]

#: Callers that were quiet for longer than their window are forgotten once there are so many.
_KEYS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """What a vendor's headers say of one request. `reset` in epoch seconds, `retry_after` in whole seconds (0 where allowed)."""

    allowed: bool
    limit: int
    remaining: int
    reset: float
    retry_after: int


class RateWindow:
    """`limit` requests in each window of `seconds` a key; the window begins with the key's first request."""

    def __init__(self, clock: Clock, limit: int, seconds: float = 60.0) -> None:
        self.clock, self.limit, self.seconds = clock, limit, seconds
        self._windows: dict[str, tuple[float, int]] = {}

    def take(self, key: str) -> Rate:
        """Counts one request of `key`; a refused one costs nothing."""
        now = self.clock()
        began, used = self._windows.get(key, (now, 0))
        if not began <= now < began + self.seconds:
            began, used = now, 0
        allowed = used < self.limit
        if len(self._windows) >= _KEYS_KEPT:
            self._windows = {name: window for name, window in self._windows.items() if now < window[0] + self.seconds}
        self._windows[key] = (began, used + allowed)
        reset = began + self.seconds
        wait = 0 if allowed else max(1, math.ceil(reset - now))
        return Rate(allowed, self.limit, max(0, self.limit - used - allowed), reset, wait)


class TokenBucket:
    """`per_second` requests a key over time, `burst` of them at once."""

    def __init__(self, clock: Clock, per_second: float, burst: int) -> None:
        self.clock, self.per_second, self.burst = clock, per_second, burst
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> Rate:
        now = self.clock()
        at, level = self._levels.get(key, (now, float(self.burst)))
        level = min(float(self.burst), level + max(0.0, now - at) * self.per_second)
        allowed = level >= 1.0
        level -= allowed
        if len(self._levels) >= _KEYS_KEPT:
            full = self.burst / self.per_second
            self._levels = {name: kept for name, kept in self._levels.items() if now - kept[0] < full}
        self._levels[key] = (now, level)
        wait = 0 if allowed else max(1, math.ceil((1.0 - level) / self.per_second))
        return Rate(allowed, self.burst, int(level), now + (self.burst - level) / self.per_second, wait)


class Tokens:
    """Bearer tokens that this vendor gave out, each with its subject and its end."""

    def __init__(self, clock: Clock, lifetime_s: float = 3600.0) -> None:
        self.clock, self.lifetime_s = clock, lifetime_s
        self._tokens: dict[str, tuple[str, float]] = {}

    def issue(self, subject: str) -> str:
        """A new token for `subject`, good for `lifetime_s`; those that have ended are forgotten."""
        now = self.clock()
        self._tokens = {token: kept for token, kept in self._tokens.items() if now < kept[1]}
        token = secrets.token_urlsafe(24)
        self._tokens[token] = (subject, now + self.lifetime_s)
        return token

    def add(self, token: str, subject: str, lifetime_s: float = math.inf) -> None:
        """A token that was made elsewhere (an API token of a configuration)."""
        self._tokens[token] = (subject, self.clock() + lifetime_s)

    def subject(self, token: str | None) -> str | None:
        """Whose token it is; None where it is unknown, revoked or past its end."""
        if token is None or (kept := self._tokens.get(token)) is None:
            return None
        return kept[0] if self.clock() < kept[1] else None

    def revoke(self, token: str) -> bool:
        return self._tokens.pop(token, None) is not None

    def revoke_all(self) -> None:
        self._tokens.clear()
