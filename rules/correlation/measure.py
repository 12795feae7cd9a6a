"""What a window's entries amount to: a count, distinct values, a sum, an average, a percentile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rules.correlation.spec import Kind, Spec


class Entry(NamedTuple):
    """One matched event in a window. `member` is its position among the spec's rules; `value` what is counted or measured."""

    time: float
    uuid: str
    member: int
    value: Any
    who: str | None


#: The figure that a condition's bounds are held against.
Measure = Callable[[Sequence[Entry]], float]


def measure_of(spec: Spec) -> Measure:
    if spec.kind is Kind.EVENT_COUNT:
        return lambda entries: float(len(entries))
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
