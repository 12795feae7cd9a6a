"""E6: before provisioning tries again, the schedule asks the connectors that the look will call.

Retries stay below a tenth of a connector's requests a minute (ten are always free), so that a vendor in trouble is not kept there by
us, and nothing is tried while its breaker is open. Who may not yet is put off in memory and asks again: the durable entry stays due.
Lockdown never asks. Each worker counts its own requests and its own retries.
"""

from __future__ import annotations

from collections.abc import Iterable

from handlers.limits import Limits
from stream.schedule import Due

#: A look that waits for another lane, for a target to show what it acknowledged, or for a person who keeps changing, repeats nothing that
#: failed; one that our own breaker
#: turned away asked nothing: after an outage everybody who waited may go, at the pace of the rate budget, and not ten a minute.
NO_RETRY = frozenset({"closing", "remains", "moved", "BreakerOpen"})


class Retries:
    """`limits`: those of every client in this process; what is asked are the provision lane's of the target and of the directory."""

    def __init__(self, limits: Iterable[Limits] = ()) -> None:
        self._limits = {one.connector: one for one in limits if one.lane == "provision"}

    def wait(self, due: Due) -> float:
        """Seconds until this entry may be tried again; 0.0 counts it as tried."""
        asked = [self._limits[name] for name in (due.slot, f"okta.{due.tenant}") if name in self._limits]
        wait = max((one.breaker.view.retry_in for one in asked), default=0.0)
        if wait > 0 or not _is_retry(due):
            return wait
        wait = max((one.retries.wait() for one in asked), default=0.0)
        if wait <= 0:
            for one in asked:
                one.retries.try_retry()
        return wait


def _is_retry(due: Due) -> bool:
    """Something failed. Work that only took longer than its batch may (no attempts yet) was never tried to its end."""
    return due.attempts > 0 and due.code not in NO_RETRY
