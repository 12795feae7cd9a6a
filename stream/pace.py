"""How fast a tenant's log is asked: as fast as our share of its rate budget allows when behind, once an interval when caught up.

The vendor's own headers decide (limit, remaining, reset), against the vendor's own clock: ours may be wrong by an hour.
Pure: nothing here waits. Rejected: a fixed pace (too slow after an outage, too fast beside other clients of the same token).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from handlers.okta.api import LogPage

#: Without rate headers: no faster than this many seconds a request.
BLIND_S = 2.0
LONGEST_S = 60.0


@dataclass(slots=True)
class Pace:
    """`interval_s` when caught up; `share` of the bucket that is ours; `jitter` gives 0 … 1."""

    interval_s: float
    share: float
    jitter: Callable[[], float] = random.random
    failures: int = 0

    def after_page(self, page: LogPage, full: bool) -> float:
        """Seconds until the next request after a good page. `full`: the page held as many events as it could, so more wait."""
        self.failures = 0
        if page.limit is None or page.remaining is None:
            return max(self.interval_s, BLIND_S) if not full else BLIND_S
        if page.remaining <= page.limit * (1 - self.share):
            return max(self._to_reset(page), self.interval_s)
        return 0.0 if full else self.interval_s

    def after_refusal(self, page: LogPage) -> float:
        """Seconds until the next try after 429. A reset that has passed means now; Limit = Remaining = 0 is a concurrency limit,
        whose reset is only advice: a short bounded back-off."""
        self.failures += 1
        if page.limit == 0 and page.remaining == 0:
            return self._backoff(ceiling=10.0)
        wait = page.retry_after if page.retry_after is not None else self._to_reset(page)
        return min(max(wait, 0.0), LONGEST_S) + self.jitter()

    def after_failure(self) -> float:
        """Seconds until the next try after a transport failure, HTML, a cut body or a 5xx."""
        self.failures += 1
        return self._backoff(ceiling=LONGEST_S)

    def _backoff(self, ceiling: float) -> float:
        return min(ceiling, 0.5 * 2.0 ** min(self.failures, 10)) * (0.5 + self.jitter() / 2)

    @staticmethod
    def _to_reset(page: LogPage) -> float:
        if page.reset is None or page.date is None:
            return BLIND_S
        return min(max(page.reset - page.date.timestamp(), 0.0) + 0.05, LONGEST_S)
