"""Rows as JSON that an auditor's tools read everywhere: the one place that says how a value of DuckDB looks outside.

Times are ISO 8601 in UTC with Z, BLOBs base64, decimals numbers where a double holds them exactly and text otherwise, NaN and infinities
text (JSON has no word for them), structs objects, maps objects with text keys, intervals ISO 8601 durations. Output is ASCII, so that
no terminal and no parser meets a control character, a lone surrogate or a text direction that somebody smuggled into a name.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

Json = Any


def encode_row(names: Sequence[str], row: Sequence[Any]) -> str:
    """One row as the text of a JSON object."""
    return json.dumps({name: plain(value) for name, value in zip(names, row, strict=True)}, separators=(", ", ": "), allow_nan=False)


def distinct(names: Sequence[str]) -> list[str]:
    """Column names as keys of an object: a name that comes again gets a number (`a`, `a_2`)."""
    out: list[str] = []
    for name in names:
        again = 1
        unique = name
        while unique in out:
            again += 1
            unique = f"{name}_{again}"
        out.append(unique)
    return out


def plain(value: Any) -> Json:
    """A value as DuckDB's client gives it, as JSON holds it."""
    encoder = _ENCODERS.get(type(value))
    return str(value) if encoder is None else encoder(value)


def _moment(value: datetime) -> str:
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _decimal(value: Decimal) -> float | int | str:
    if value == value.to_integral_value() and value.as_tuple().exponent == 0:
        return int(value)
    return float(value) if value.is_finite() and Decimal(repr(float(value))) == value else str(value)


def _duration(value: timedelta) -> str:
    sign, value = ("-", -value) if value < timedelta() else ("", value)
    seconds = Decimal(value.seconds) + Decimal(value.microseconds) / 1_000_000
    clock = f"T{seconds.normalize():f}S" if seconds or not value.days else ""
    return f"{sign}P{f'{value.days}D' if value.days else ''}{clock}"


def _object(value: dict[Any, Any]) -> dict[str, Json]:
    return {key if isinstance(key, str) else str(plain(key)): plain(item) for key, item in value.items()}


def _array(value: Sequence[Any]) -> list[Json]:
    return [plain(item) for item in value]


def _as_is(value: Any) -> Json:
    return value


_ENCODERS: dict[type[Any], Callable[[Any], Json]] = {
    type(None): _as_is,
    bool: _as_is,
    int: _as_is,
    str: _as_is,
    float: _number,
    Decimal: _decimal,
    datetime: _moment,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: _duration,
    bytes: lambda value: base64.b64encode(value).decode(),
    bytearray: lambda value: base64.b64encode(value).decode(),
    UUID: str,
    dict: _object,
    list: _array,
    tuple: _array,
}
