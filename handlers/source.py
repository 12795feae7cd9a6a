"""May anything be concluded from a listing of people? (N7) Pure.

A page chain that ended is not enough: a filter, a narrowed admin role or a fault at the vendor gives a short listing that ends well, and
everybody who is missing from it would look like a leaver. So a listing is compared with the last good one. Rejected: taking a short
listing for true once it has come several times (a narrowed role gives the same short answer for ever, and 404 for each of the missing):
only a human says that a company has become smaller.
"""

from __future__ import annotations


def doubt(size: int, last_good: int | None, least_percent: float) -> str:
    """Why nothing may be concluded from a complete listing of `size` people; empty where something may.

    `last_good`: size of the last listing that was believed, None for the first. Nobody at all is never believed: we are in it ourselves.
    """
    if size == 0:
        return "the listing is empty"
    if last_good is not None and size * 100 < last_good * least_percent:
        return f"the listing names {size} people where the last good one named {last_good}"
    return ""
