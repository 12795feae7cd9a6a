"""One reading for all who ask for the same thing at once: a listing that many people's looks need (a folder's collaborations) costs
the vendor one call instead of one each.

An answer is as fresh as one's own would be: only a reading that had not begun when it was asked for is shared. Rejected: a cache with
a lifetime (a look right after a call must see what the call did, and the other lane's process cannot tell us what it changed).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """`await flight()` gives what a `read` that begins from now on returns, or raises what it raises. A caller that is cancelled takes
    nobody else's reading away."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._running: asyncio.Future[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        if self._next is None:
            self._next = asyncio.create_task(self._fly(self._running))
            self._next.add_done_callback(_seen)
        return await asyncio.shield(self._next)

    async def _fly(self, before: asyncio.Future[T] | None) -> T:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        return await self._read()


def _seen(task: asyncio.Task[T]) -> None:
    """Where all who asked are gone, nobody is left to hear of the error."""
    if not task.cancelled():
        task.exception()
