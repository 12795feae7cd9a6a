"""The classifier's rules are looked at every few seconds and replaced between two batches; what does not load is told and changes nothing.

Reading and compiling happen in a thread of their own, the exchange in the event loop, where nobody is in the middle of an event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from aiokafka.errors import KafkaError

from handlers.contract import Clock
from model.decision import Severity
from model.event import digest
from model.records import Notice
from rules.classify import Classifier
from rules.reload import Refused, Reloaded, Reloader
from rules.ruleset import RuleSet

log = logging.getLogger(__name__)

POLL_S = 3.0
#: Ids named in a notice.
MOST_NAMED = 20

#: tenant → a classifier with an empty memory.
Make = Callable[[str], Classifier]


class Rulebook:
    """`make_of` turns a set into classifiers; `tenants` are told, each in its own trail."""

    def __init__(self, reloader: Reloader, make_of: Callable[[RuleSet], Make], tenants: Iterable[str], clock: Clock) -> None:
        self._reloader, self._make_of, self._tenants, self._clock = reloader, make_of, tuple(tenants), clock
        self._untold: list[Notice] = []

    async def run_forever(self, replace: Callable[[Make], None], tell: Callable[[Notice], Awaitable[Any]]) -> None:
        """Never ends and never raises: rules that cannot be renewed are no reason to stop judging by those that are there."""
        while True:
            await self._clock.sleep(POLL_S)
            try:
                await self.look(replace, tell)
            except KafkaError as error:
                log.warning("what became of the rules cannot be told now, it is told later: %s", type(error).__name__)
            except Exception:
                log.exception("looking at the rules failed, the rules in use stay")

    async def look(self, replace: Callable[[Make], None], tell: Callable[[Notice], Awaitable[Any]]) -> None:
        """One look: a new set is taken over, a refused one is told. Raises what `tell` raises; what is untold is kept."""
        outcome, make = await asyncio.to_thread(self._looked)
        if outcome is not None:
            if make is not None:
                replace(make)
            self._untold += self._notices(outcome)
        while self._untold:
            await tell(self._untold[0])
            self._untold.pop(0)

    def _looked(self) -> tuple[Reloaded | Refused | None, Make | None]:
        outcome = self._reloader.look()
        if not isinstance(outcome, Reloaded):
            return outcome, None
        make = self._make_of(outcome.ruleset)
        make("")  # what fails here must not fail in the event loop
        return outcome, make

    def _notices(self, outcome: Reloaded | Refused) -> list[Notice]:
        now = self._clock.now()
        facts: dict[str, Any] = {"version": outcome.version}
        if isinstance(outcome, Refused):
            severity, remedy = (
                Severity.HIGH,
                "mend it (portcullis rules lint --rules FOLDER says all that is wrong): it is taken over by itself",
            )
            text = f"new rules are refused, the old ones stay in use: {outcome.place}: {outcome.reason}"
            facts |= {"path": outcome.path, "line": outcome.line, "reason": outcome.reason}
        else:
            severity, remedy = Severity.INFORMATIONAL, ""
            lists = {"added": outcome.added, "removed": outcome.removed, "changed": outcome.changed}
            text = f"rules taken over: {', '.join(f'{len(ids)} {what}' for what, ids in lists.items())}"
            facts |= {"before": outcome.before} | {what: _shown(ids) for what, ids in lists.items() if ids}
        log.log(logging.ERROR if isinstance(outcome, Refused) else logging.INFO, "%s", text)
        return [
            Notice(
                id=digest("rules", tenant, text, now.isoformat()),
                tenant=tenant,
                at=now,
                topic="rules",
                severity=severity,
                text=text,
                remedy=remedy,
                facts=facts,
            )
            for tenant in self._tenants
        ]


def _shown(ids: Sequence[str]) -> list[str]:
    return [*ids[:MOST_NAMED], f"and {len(ids) - MOST_NAMED} more"] if len(ids) > MOST_NAMED else list(ids)
