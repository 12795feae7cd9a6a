"""What a vendor answered, and the one place where its errors become ours.

Two questions are asked apart, because the circuit breaker needs the first one alone: is the *connector* well (`check_connector`),
and is this *object* fine (`check_object`)? A 4xx counts as the vendor's word only in the vendor's own error body: a proxy's HTML 404
must never read as "the account is gone". Messages carry the method, the path, the code, a cleaned summary and the request id;
never a header, a body or a URL out of one.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from model.errors import CredentialsRefused, OutcomeUnknown, PermanentError, RateLimited, Refused, TemporaryError

#: No vendor is obeyed for longer than this; the durable schedule may come back later all the same.
MAX_DELAY_S = 300.0
_BUSY_STATUSES = frozenset({408, 425})
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://\S+", re.IGNORECASE)
_TOKENISH = re.compile(r"[A-Za-z0-9_\-.~+/=]{40,}")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one vendor spells its errors. `read_error` gives (code, text) of an error body, ("", "") where it is none.
    `scope_codes`: a 403 that speaks of our credentials, not of the object. `busy_codes`: a 409 that passes."""

    name: str
    read_error: Callable[[Mapping[str, Any]], tuple[str, str]]
    scope_codes: frozenset[str] = frozenset()
    busy_codes: frozenset[str] = frozenset()
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole. Header names are lower case; `links` are the values of every Link header."""

    what: str
    mutating: bool
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    links: tuple[str, ...] = ()
    request_id: str | None = None
    #: What `data` read, so that a listing of a megabyte is decoded once.
    _decoded: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def date(self) -> datetime | None:
        return _http_date(self.headers.get("date", ""))

    def number(self, header: str) -> int | None:
        """A header that must be a whole number, or None."""
        text = self.headers.get(header, "").strip()
        return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None

    def next_link(self) -> str | None:
        for link in self.links:
            for target, relation in re.findall(r'<([^>]*)>\s*;[^,<]*?rel="?([\w-]+)"?', link):
                if relation == "next":
                    return str(target)
        return None

    def data(self) -> Any:
        """The decoded JSON of a good answer, None where there is no body. What is no JSON raises TemporaryError, or
        OutcomeUnknown after a mutating call."""
        if not self._decoded:
            self._decoded.append(self._decode())
        return self._decoded[0]

    def _decode(self) -> Any:
        if not self.body or self.body.isspace():
            return None
        try:
            return read_json(self.body)
        except ValueError:
            kind = "HTML" if self.body.lstrip()[:1] == b"<" else "a cut or broken body"
            raise self.unsettled(f"answered {self.status} with {kind} instead of JSON") from None

    def object(self) -> dict[str, Any]:
        value = self.data()
        if not isinstance(value, dict):
            raise self.unsettled(f"answered {self.status} without the JSON object that was expected")
        return value

    def unsettled(self, why: str, delay: float | None = None) -> TemporaryError:
        """Not the answer we need: nothing is known of a mutating call, anything else may be tried again."""
        message = f"{self.what} {why}{self._reference}"
        return OutcomeUnknown(message, delay) if self.mutating else TemporaryError(message, delay)

    @property
    def _reference(self) -> str:
        return f" (request {clean(self.request_id, 80)})" if self.request_id else ""

    def describe(self, code: str, text: str) -> str:
        return f"{self.what} answered {self.status} {clean(code, 80)} {clean(text)}".rstrip() + self._reference


def read_json(body: bytes) -> Any:
    """JSON by orjson, else by the tolerant standard library with lone surrogates replaced. Raises ValueError."""
    try:
        return orjson.loads(body)
    except ValueError:
        try:
            return _scrubbed(json.loads(body))
        except (ValueError, RecursionError):
            raise ValueError("no JSON") from None


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_scrubbed(one) for one in value]
    if isinstance(value, dict):
        return {_scrubbed(key): _scrubbed(one) for key, one in value.items()}
    return value


def clean(text: str | None, limit: int = 200) -> str:
    """A vendor's text fit for a log line: one line, no control or bidi characters, no URLs, nothing that looks like a token."""
    flat = "".join(char if unicodedata.category(char)[0] != "C" else " " for char in text or "")
    flat = _TOKENISH.sub("[…]", _URL.sub("[link]", " ".join(flat.split())))
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def delay_of(answer: Answer, now: datetime) -> float | None:
    """Seconds the vendor asks us to wait, 0 … 300; None where it does not say (or nonsense).

    `Retry-After` as seconds or HTTP date; Okta's `X-Rate-Limit-Reset` (epoch seconds) against the server's own Date. The past is now.
    """
    base = answer.date or now
    text = answer.headers.get("retry-after", "").strip()
    seconds: float | None = None
    if re.fullmatch(r"-?\d{1,12}(\.\d{1,6})?", text):
        seconds = float(text)
    elif moment := _http_date(text):
        seconds = (moment - base).total_seconds()
    elif not text and not is_crowded(answer) and (reset := answer.number("x-rate-limit-reset")) is not None:
        seconds = reset - base.timestamp() + 1
    return None if seconds is None else min(max(seconds, 0.0), MAX_DELAY_S)


def is_crowded(answer: Answer) -> bool:
    """Okta's limit of simultaneous calls: Limit and Remaining are 0, Reset is advice only."""
    return answer.number("x-rate-limit-limit") == 0 and answer.number("x-rate-limit-remaining") == 0


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def check_connector(answer: Answer, dialect: Dialect, delay: float | None) -> None:
    """Raises what says that the connector as a whole is unwell: 429, 5xx, redirects, refused credentials, strangers' pages.

    A 401 arrives here only after the credential was renewed. `delay` is what the vendor asks for (`delay_of`).
    """
    status = answer.status
    if status < 300:
        answer.data()  # a sign-in page with status 200 is nobody's success
        return
    code, text = error_of(answer, dialect)
    if status == 429:
        raise RateLimited(answer.describe(code, "too many calls at a time" if is_crowded(answer) else text), delay)
    if status >= 500:
        raise answer.unsettled(f"answered {status} {clean(code, 80)} {clean(text)}".rstrip(), delay)
    if status < 400:
        raise TemporaryError(f"{answer.what} answered {status}: redirects are not followed")
    if status == 401 or (status == 403 and (code in dialect.scope_codes or _lacks_scope(answer))):
        raise CredentialsRefused(answer.describe(code, text), code or str(status))
    if status not in _BUSY_STATUSES and not code:
        raise TemporaryError(f"{answer.what} answered {status} without {dialect.name}'s error body: somebody else answered")


def _lacks_scope(answer: Answer) -> bool:
    return "insufficient_scope" in answer.headers.get("www-authenticate", "")


def check_object(answer: Answer, dialect: Dialect, delay: float | None) -> None:
    """Raises what concerns only the object of this call; the connector answered and is well."""
    if answer.status < 300:
        return
    code, text = error_of(answer, dialect)
    message = answer.describe(code, text)
    if answer.status in _BUSY_STATUSES or (answer.status == 409 and code in dialect.busy_codes):
        raise TemporaryError(message, delay)
    raise Refused(message, "not_found" if answer.status == 404 else code)


def error_of(answer: Answer, dialect: Dialect) -> tuple[str, str]:
    """(code, text) in the vendor's words, ("", "") where the body is not the vendor's."""
    try:
        value = read_json(answer.body)
    except ValueError:
        return "", ""
    return dialect.read_error(value) if isinstance(value, dict) else ("", "")


def check_token(answer: Answer, now: datetime) -> dict[str, Any]:
    """The JSON object of a token endpoint. 400 and 401 there are our credentials' fault (RFC 6749, 5.2)."""
    if answer.status == 429:
        raise RateLimited(f"{answer.what} answered 429", delay_of(answer, now))
    if answer.status >= 500 or 300 <= answer.status < 400:
        raise TemporaryError(f"{answer.what} answered {answer.status}", delay_of(answer, now))
    if answer.status >= 400:
        code, text = error_of(answer, _OAUTH)
        if not code:
            raise TemporaryError(f"{answer.what} answered {answer.status} without an OAuth error: somebody else answered")
        raise CredentialsRefused(answer.describe(code, text), code)
    return answer.object()


def _oauth_error(body: Mapping[str, Any]) -> tuple[str, str]:
    code, text = body.get("error", body.get("errorCode")), body.get("error_description", body.get("errorSummary"))
    return (code if isinstance(code, str) else "", text if isinstance(text, str) else "")


_OAUTH = Dialect("OAuth", _oauth_error)


def unsafe_id(what: str) -> PermanentError:
    """An id that may not be put into a URL; it is not quoted, since it is crafted."""
    return PermanentError(f"{what} is no id: it is not put into a URL", "unsafe_id")
