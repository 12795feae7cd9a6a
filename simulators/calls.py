"""The list of mutating calls that a simulated vendor received: what `GET /_sim/calls` shows.

It is the witness that tests and the torture harness compare with our audit trail, so it is written where the effect happens, not
where the answer leaves: a call whose answer was lost stands here all the same, and the order is that of the effects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import orjson

#: Never shown, wherever in a body or a query it stands.
SECRET_KEYS = frozenset(
    {"password", "client_secret", "client_assertion", "assertion", "access_token", "refresh_token", "token", "secret", "recovery_question"}
)
HIDDEN = "[redacted]"

#: A body that is larger is listed as null.
_BODY_KEPT = 64 * 1024


def iso(epoch: float) -> str:
    """ISO 8601 in UTC with microseconds, sortable as text."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def redact(value: Any) -> Any:
    """The same JSON value with every secret's value hidden."""
    if isinstance(value, dict):
        return {key: HIDDEN if str(key).lower() in SECRET_KEYS else redact(item) for key, item in value.items()}
    return [redact(item) for item in value] if isinstance(value, list) else value


def read_body(raw: bytes, content_type: str) -> Any:
    """A JSON body or a form as a value; None where it is neither."""
    if not raw:
        return None
    if content_type == "application/x-www-form-urlencoded":
        return dict(parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True))
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


@dataclass(slots=True)
class Call:
    """One mutating call. `n` is 0 until it took effect or was answered; `status` is None while unanswered and where no answer left.
    `body` is kept as JSON bytes, which are a fifth of the size of objects."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    intent: str | None
    n: int = 0
    at: float = 0.0
    status: int | None = None
    changed: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "at": iso(self.at),
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "body": orjson.loads(self.body),
            "status": self.status,
            "intent": self.intent,
            "changed": self.changed,
        }


@dataclass(slots=True)
class CallLog:
    """Calls in the order in which they took effect. Of more than `kept` the oldest tenth is dropped; numbers go on."""

    clock: Callable[[], float]
    kept: int = 500_000
    _calls: list[Call] = field(default_factory=list)
    _last: int = 0

    def open(self, method: str, path: str, query: Mapping[str, str], body: Any, intent: str | None) -> Call:
        """A call that arrived; it has no number yet."""
        kept = orjson.dumps(redact(body))
        return Call(method, path, redact(dict(query)), kept if len(kept) <= _BODY_KEPT else b"null", intent)

    def settle(self, call: Call, changed: bool = False) -> None:
        """The call takes its place in the order, now; the first time counts."""
        if changed:
            call.changed = True
        if call.n:
            return
        self._last += 1
        call.n, call.at = self._last, self.clock()
        self._calls.append(call)
        if len(self._calls) > self.kept:
            del self._calls[: max(1, self.kept // 10)]

    def after(self, n: int = 0) -> list[dict[str, Any]]:
        """Calls numbered above `n`, oldest first, as JSON values."""
        if not self._calls:
            return []
        return [call.to_json() for call in self._calls[max(0, n - self._calls[0].n + 1) :]]

    @property
    def count(self) -> int:
        """How many calls there were since the start."""
        return self._last
