"""Guarantees taken out, one at a time, so that the harness can show that it notices. Nothing of this stands in the product.

Each act patches a class of `stream` in the process of a role, before it runs (`tests.torture.role`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
    """Faust's own bookkeeping of what was read and acknowledged: it books as done what a batch skips over (`_add_gap`)."""
    from stream.transport import BatchConsumer

    def ack(self: BatchConsumer, message: Any) -> bool:
        self._acked[message.tp].append(message.offset)
        return self.ledger.finish(message)  # so that lag and watchdog have something to look at

    BatchConsumer.ack = ack  # type: ignore[method-assign]
    for name in ("_new_offset", "_filter_tps_with_pending_acks", "_add_gap"):
        delattr(BatchConsumer, name)


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
