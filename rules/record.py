"""What of an event a decision keeps: the fields that matched, bounded and inert. Events are written by others, and decisions travel
through Kafka, DuckDB and Slack, so a value here is always short, always valid UTF-8, always JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rules.sigma.text import json_text

MOST_FIELDS = 24
MOST_ELEMENTS = 10
LONGEST_TEXT = 300


def matched(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """{field: value} from (field, value) pairs; the first word of a field counts."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name not in result:
            result[name] = inert(value)
            if len(result) == MOST_FIELDS:
                break
    return result


def inert(value: Any) -> Any:
    """A scalar, or a list of scalars: texts cut, lone surrogates escaped, objects as JSON text, huge integers as text."""
    if isinstance(value, list):
        head = [_scalar(one) for one in value[:MOST_ELEMENTS]]
        return [*head, "…"] if len(value) > MOST_ELEMENTS else head
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else "an integer of more than 64 bits"
    text = value if isinstance(value, str) else json_text(value) or "…"
    short = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"
    return short.encode("utf-8", "backslashreplace").decode()
