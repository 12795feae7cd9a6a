"""Numbers, parts of a time, addresses in a network → tests of one value of an event."""

from __future__ import annotations

import ipaddress
import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sigma.types import CompareOperators, SigmaCIDRExpression, SigmaCompareExpression, SigmaTimestampPart, TimestampPart

from model.event import parse_time
from rules.sigma.text import text_of

#: A test of one scalar or object of an event.
Test = Callable[[Any], bool]


def number(wanted: int | float) -> Test:
    text = text_of(wanted)

    def test(given: Any) -> bool:
        if given.__class__ is str:
            return bool(given == text)
        return given.__class__ in (int, float) and bool(given == wanted)

    return test


_COMPARE: dict[CompareOperators, Callable[[Any, Any], bool]] = {
    CompareOperators.LT: operator.lt,
    CompareOperators.LTE: operator.le,
    CompareOperators.GT: operator.gt,
    CompareOperators.GTE: operator.ge,
    CompareOperators.NEQ: operator.ne,
}


def comparison(value: SigmaCompareExpression) -> Test:
    compare = _COMPARE[value.op]
    if isinstance(value.number, SigmaTimestampPart):
        return timestamp(value.number, compare)
    limit = value.number.number

    def test(given: Any) -> bool:
        found = number_of(given)
        return found is not None and compare(found, limit)

    return test


def number_of(given: Any) -> int | float | None:
    """A number, or the number that a text writes in plain decimal form; True is none."""
    if given.__class__ in (int, float):
        return given
    if given.__class__ is str and 0 < len(given) <= 40 and given.isascii() and given.strip("+-.0123456789") == "":
        try:
            return float(given) if "." in given else int(given)
        except ValueError:
            return None
    return None


_PART: dict[TimestampPart, Callable[[Any], int]] = {
    TimestampPart.MINUTE: lambda time: int(time.minute),
    TimestampPart.HOUR: lambda time: int(time.hour),
    TimestampPart.DAY: lambda time: int(time.day),
    TimestampPart.WEEK: lambda time: int(time.isocalendar().week),
    TimestampPart.MONTH: lambda time: int(time.month),
    TimestampPart.YEAR: lambda time: int(time.year),
}


def timestamp(value: SigmaTimestampPart, compare: Callable[[Any, Any], bool]) -> Test:
    part, wanted = _PART[value.timestamp_part], value.number

    def test(given: Any) -> bool:
        time = parse_time(given)
        return time is not None and compare(part(time), wanted)

    return test


@lru_cache(maxsize=8192)
def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP address, an IPv4-mapped one as IPv4; None for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def network(value: SigmaCIDRExpression) -> Test:
    network = value.network

    def test(given: Any) -> bool:
        if given.__class__ is not str or len(given) > 64:
            return False
        address = address_of(given)
        return address is not None and address.version == network.version and address in network

    return test
