"""Guarantees taken out, one at a time, so that the harness can show that it notices. Nothing of this stands in the product.

Each act patches a class of `stream` in the process of a role, before it runs (`tests.torture.role`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from model.change import Action

#: How long the cursor stands before the events that it passed are published.
_AHEAD_S = 2.0


def early_ack() -> None:
    """A batch is acknowledged when it was handed over, not when what it caused is durable."""
    from stream.worker import Records, Worker

    finish = Worker._finish

    async def eager(self: Worker, message: Any, records: Records, rest: Any) -> None:
        self.consumer.ack(message)
        await finish(self, message, records, rest)

    Worker._finish = eager  # type: ignore[method-assign]


def stock_offsets() -> None:
    """As Faust keeps them (`_add_gap`, `_new_offset`): what a finished message has passed counts as done, whether it is or not."""
    from faust.types import TP

    from stream.transport import Ledger

    def committable(self: Ledger, tp: TP) -> int | None:
        return max((batch.last + 1 for batch in self._batches.get(tp, ()) if batch.done), default=None)

    def committed(self: Ledger, tp: TP, offset: int) -> None:
        batches = self._batches.get(tp)
        while batches and batches[0].last < offset:
            batches.popleft()

    def waiting(self: Ledger) -> Iterator[TP]:
        return (tp for tp, batches in self._batches.items() if any(batch.done for batch in batches))

    Ledger.committable, Ledger.committed, Ledger.waiting = committable, committed, waiting  # type: ignore[method-assign]


def no_intent() -> None:
    """Calls go out before anything says that they will."""
    from stream.books import KafkaJournal

    async def nothing(self: KafkaJournal, action: Action) -> None:
        return None

    KafkaJournal.intended = nothing  # type: ignore[method-assign]


def cursor_before_ack() -> None:
    """The checkpoint is stored, then the page's events are published."""
    from stream.poller import Tail

    take = Tail._take

    async def hasty(self: Tail, page: Any) -> float:
        if page.events:
            await self._save(page)
            await asyncio.sleep(_AHEAD_S)
        return await take(self, page)

    Tail._take = hasty  # type: ignore[method-assign]


ACTS: dict[str, Callable[[], None]] = {
    "early-ack": early_ack,
    "stock-offsets": stock_offsets,
    "no-intent": no_intent,
    "cursor-before-ack": cursor_before_ack,
}
