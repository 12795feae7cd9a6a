"""Fault orders: what a simulated vendor's network does to the next matching requests. `POST /_sim/faults` takes one order.

`when = "before"` (the default) spoils a request that the vendor never worked on; `"after"` lets the change happen and spoils the
answer, which is the case that a client must read back (fault 35). An order with an unknown key is refused: a misspelt fault that
silently does nothing makes a test that cannot fail.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

KNOWN = ("method", "path", "times", "status", "delay_s", "hang", "reset", "cut_body", "body", "headers", "when")
_ENDINGS = ("hang", "reset", "cut_body")


class BadOrder(ValueError):
    """The order cannot be honoured; the message names the key and what is allowed."""


@dataclass(slots=True)
class Fault:
    """One order. `times` None: until taken away. `body` is a text sent as it is, or any JSON value; `has_body` tells null from absent."""

    method: str = "*"
    path: str = "*"
    times: int | None = 1
    status: int | None = None
    delay_s: float = 0.0
    hang: bool = False
    reset: bool = False
    cut_body: bool = False
    body: Any = None
    has_body: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    when: str = "before"

    def matches(self, method: str, path: str) -> bool:
        return self.method in ("*", method) and fnmatchcase(path, self.path)

    @property
    def replaces(self) -> bool:
        """The vendor's own answer is not sent."""
        return self.status is not None or self.has_body

    def skips_work(self, mutating: bool) -> bool:
        """The vendor never works on the request. A read is worked on before its body is cut, so that there is a body to cut."""
        return self.when == "before" and (self.replaces or self.hang or self.reset or (self.cut_body and mutating))

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"method": self.method, "path": self.path, "times": self.times, "when": self.when}
        shown |= {name: True for name in _ENDINGS if getattr(self, name)}
        shown |= {"status": self.status} if self.status is not None else {}
        shown |= {"delay_s": self.delay_s} if self.delay_s else {}
        shown |= {"body": self.body} if self.has_body else {}
        return shown | ({"headers": self.headers} if self.headers else {})


def parse(order: Any) -> Fault:
    """Checks an order strictly. Raises BadOrder."""
    if not isinstance(order, dict):
        raise BadOrder("an order is a JSON object")
    if unknown := sorted(set(order) - set(KNOWN)):
        raise BadOrder(f"unknown key {', '.join(unknown)}: known are {', '.join(KNOWN)}")
    for problem in _problems(order):
        raise BadOrder(problem)
    values = dict(order)
    if isinstance(values.get("method"), str):
        values["method"] = values["method"].upper()
    return Fault(**values, has_body="body" in order)


def _problems(order: dict[str, Any]) -> Iterator[str]:
    for key in ("method", "path"):
        if not isinstance(order.get(key, "*"), str) or not order.get(key, "*"):
            yield f"{key} must be a text ('*' for any)"
    times = order.get("times", 1)
    if times is not None and (not _is_int(times) or times < 1):
        yield "times must be a whole number from 1, or null for always"
    if "status" in order and not (_is_int(order["status"]) and 200 <= order["status"] <= 599):
        yield "status must be a whole number from 200 to 599"
    delay = order.get("delay_s", 0)
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not math.isfinite(delay) or delay < 0:
        yield "delay_s must be a number of seconds, 0 or more"
    for key in _ENDINGS:
        if order.get(key, True) is not True:
            yield f"{key} must be true where it is given"
    headers = order.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(v, str) and "\n" not in v and "\r" not in v for v in headers.values()):
        yield "headers must be an object of texts"
    if order.get("when", "before") not in ("before", "after"):
        yield "when must be 'before' or 'after'"
    given = [key for key in _ENDINGS if key in order]
    if len(given) > 1:
        yield f"{' and '.join(given)} exclude one another"
    if given and given != ["cut_body"] and any(key in order for key in ("status", "body", "headers")):
        yield f"{given[0]} sends no answer, so it takes no status, body or headers"
    if not given and not any(key in order for key in ("status", "delay_s", "body", "headers")):
        yield "the order does nothing: give status, delay_s, hang, reset, cut_body, body or headers"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class Faults:
    """Standing orders, first come first served: each request spends at most one."""

    def __init__(self) -> None:
        self._orders: list[Fault] = []

    def add(self, order: dict[str, Any]) -> None:
        self._orders.append(parse(order))

    def take(self, method: str, path: str) -> Fault | None:
        """The order that this request meets, with one of its times spent."""
        for fault in self._orders:
            if fault.matches(method, path):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self._orders.remove(fault)
                return fault
        return None

    def clear(self) -> None:
        self._orders.clear()

    def to_json(self) -> list[dict[str, Any]]:
        return [fault.to_json() for fault in self._orders]
