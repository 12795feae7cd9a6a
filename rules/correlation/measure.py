"""What a window's entries amount to: a count, distinct values, a sum, an average, a percentile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from rules.correlation.spec import Kind, Spec


class Entry(NamedTuple):
    """One matched event in a window. `member` is its position among the spec's rules; `value` what is counted or measured."""

    time: float
    uuid: str
    member: int
    value: Any
    who: str | None


#: An entry from a plain tuple: half the time of calling the class, and this is done for nearly every event.
entry_of = partial(tuple.__new__, Entry)

#: The figure that a condition's bounds are held against.
Measure = Callable[[Sequence[Entry]], float]


#: Whether a figure (and, where more is asked, the window's entries) satisfies the condition.
Holds = Callable[[float, Sequence[Entry]], bool]


def holds_of(spec: Spec) -> Holds:
    """The condition as a function. With `also`, an entry's value holds one part for each count that is asked."""
    bounds, also = spec.bounds, tuple(bounds for _, bounds in spec.also)
    if not also:
        return lambda figure, entries: bounds.hold(figure)

    def holds(figure: float, entries: Sequence[Entry]) -> bool:
        if not bounds.hold(figure):
            return False
        return all(one.hold(len({entry.value[part] for entry in entries})) for part, one in enumerate(also, start=1))

    return holds


def measure_of(spec: Spec) -> Measure:
    if spec.kind is Kind.EVENT_COUNT:
        return lambda entries: float(len(entries))
    if spec.kind is Kind.VALUE_COUNT and spec.also:
        return lambda entries: float(len({entry.value[0] for entry in entries}))
    if spec.kind is Kind.VALUE_COUNT:
        return lambda entries: float(len({entry.value for entry in entries}))
    if spec.kind is Kind.VALUE_SUM:
        return lambda entries: math.fsum(entry.value for entry in entries)
    if spec.kind is Kind.VALUE_AVG:
        return lambda entries: math.fsum(entry.value for entry in entries) / len(entries)
    percentile = 50.0 if spec.kind is Kind.VALUE_MEDIAN else spec.percentile
    return lambda entries: percentile_of(sorted(entry.value for entry in entries), percentile)


def percentile_of(values: Sequence[float], percentile: float) -> float:
    """The percentile of sorted values, interpolated between the two nearest (SQL's PERCENTILE_CONT)."""
    place = (len(values) - 1) * percentile / 100
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return float(values[low] + (values[high] - values[low]) * (place - low))
