"""Box's manner on the wire: error bodies, strict reading of bodies and queries, both styles of paging, `fields`.

Real Box ignores unknown names in bodies and queries. The simulator refuses them (400 `bad_request`, `invalid_request_parameters`):
a misspelt name that silently does nothing is the mistake that a simulator is there to find.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web

from simulators.base import Refusal, json_response
from simulators.box.things import Json

Check = Callable[[Any], str | None]

HELP_URL = "https://developer.box.com/guides/api-calls/permissions-and-errors/common-errors/"
MAX_LIMIT, DEFAULT_LIMIT, MAX_OFFSET = 1000, 100, 10_000
#: The code and the message of errors that no handler explained better.
PLAIN = {
    400: ("bad_request", "Bad Request"),
    401: ("unauthorized", "Unauthorized"),
    403: ("access_denied_insufficient_permissions", "Access denied - insufficient permission"),
    404: ("not_found", "Not Found"),
    405: ("method_not_allowed", "Method Not Allowed"),
    409: ("conflict", "Conflict"),
    412: ("precondition_failed", "The resource has been modified. Please retrieve the resource again and retry"),
    413: ("request_entity_too_large", "Request Entity Too Large"),
    429: ("rate_limit_exceeded", "Request rate limit exceeded, please try again later"),
    500: ("internal_server_error", "Internal Server Error"),
    502: ("bad_gateway", "Bad Gateway"),
    503: ("unavailable", "Unavailable"),
}


def error(
    status: int, code: str = "", message: str = "", context: Json | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    plain_code, plain_message = PLAIN.get(status, ("error", "Error"))
    request_id = secrets.token_hex(8)
    body = {"type": "error", "status": status, "code": code or plain_code, "message": message or plain_message}
    body |= {"context_info": context, "help_url": HELP_URL, "request_id": request_id}
    return json_response(body, status, {"box-request-id": request_id} | (headers or {}))


def refuse(status: int, code: str = "", message: str = "", context: Json | None = None) -> Refusal:
    return Refusal(error(status, code, message, context))


def invalid(*problems: tuple[str, str, str]) -> Refusal:
    """400 with one entry a problem: (reason, name, message)."""
    errors = [{"reason": reason, "name": name, "message": message} for reason, name, message in problems]
    return refuse(400, "bad_request", "Bad Request", {"errors": errors})


# -- bodies -----------------------------------------------------------------------------------------------------------


async def read_object(request: web.Request, shape: dict[str, Check], required: Sequence[str] = ()) -> Json:
    """The JSON object of a request, each value checked, no other keys. Raises Refusal (400)."""
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise refuse(400, "bad_request", "Entity body should be a correctly nested resource attribute name/value pair") from None
    if not isinstance(body, dict):
        raise refuse(400, "bad_request", "Entity body should be a correctly nested resource attribute name/value pair")
    problems = check_object(body, shape, required)
    if problems:
        raise invalid(*problems)
    return body


def check_object(body: Json, shape: dict[str, Check], required: Sequence[str] = (), prefix: str = "") -> list[tuple[str, str, str]]:
    problems = [("missing_parameter", prefix + key, f"'{prefix}{key}' is required") for key in required if key not in body]
    for key, value in body.items():
        if key not in shape:
            problems.append(("invalid_parameter", prefix + key, f"Unknown parameter '{prefix}{key}'"))
        elif (what := shape[key](value)) is not None:
            problems.append(("invalid_parameter", prefix + key, f"Invalid value for '{prefix}{key}': {what}"))
    return problems


def text(low: int = 0, high: int = 10_000) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return "must be a string"
        return None if low <= len(value) <= high else f"must have {low} to {high} characters"

    return check


def flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be a boolean"


def one_of(*allowed: str) -> Check:
    return lambda value: None if isinstance(value, str) and value in allowed else f"must be one of {', '.join(allowed)}"


def whole(low: int) -> Check:
    return lambda value: (
        None if isinstance(value, int) and not isinstance(value, bool) and value >= low else f"must be an integer from {low}"
    )


def login(value: Any) -> str | None:
    return None if isinstance(value, str) and re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s.]+", value) else "must be an email address"


def nested(shape: dict[str, Check], required: Sequence[str] = (), null: bool = False) -> Check:
    def check(value: Any) -> str | None:
        if value is None and null:
            return None
        if not isinstance(value, dict):
            return "must be an object"
        problems = check_object(value, shape, required)
        return problems[0][2] if problems else None

    return check


def is_null(value: Any) -> str | None:
    return None if value is None else "must be null"


def list_of(check: Check) -> Check:
    def checked(value: Any) -> str | None:
        if not isinstance(value, list):
            return "must be an array"
        return next((what for item in value if (what := check(item)) is not None), None)

    return checked


def moment(value: Any) -> str | None:
    return None if isinstance(value, str) and read_time(value) is not None else "must be an RFC 3339 date and time with an offset"


def read_time(value: str) -> float | None:
    """Epoch seconds of an RFC 3339 time; None where it is none."""
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})", value):
        return None
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        return None


#: A reference to an object by its id.
ref = nested({"id": text(1, 64)}, ("id",))


# -- queries ----------------------------------------------------------------------------------------------------------


def query(request: web.Request, *known: str) -> dict[str, str]:
    """The query's values; an unknown or repeated name is refused."""
    wrong = [name for name in request.query if name not in known]
    wrong += [name for name in set(request.query) if len(request.query.getall(name)) > 1]
    if wrong:
        errors = [{"reason": "invalid_parameter", "name": name, "message": f"Unknown or repeated parameter '{name}'"} for name in wrong]
        raise refuse(400, "invalid_request_parameters", "Invalid request parameters", {"errors": errors})
    return dict(request.query)


def truth(values: dict[str, str], name: str, default: bool) -> bool:
    value = values.get(name)
    if value is None:
        return default
    if value not in ("true", "false"):
        raise invalid(("invalid_parameter", name, f"Invalid value '{value}'. '{name}' must be true or false"))
    return value == "true"


def limit_of(values: dict[str, str], maximum: int = MAX_LIMIT) -> int:
    """At most `maximum`: a larger one is clamped, as Box does."""
    value = values.get("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch(r"\d{1,18}", value) or int(value) < 1:
        raise refuse(400, "invalid_limit", f"Invalid limit '{value}'")
    return min(int(value), maximum)


def by_offset(things: Sequence[Any], values: dict[str, str], shown: Callable[[Any], Json], order: bool = True) -> web.Response:
    limit, offset = limit_of(values), values.get("offset", "0")
    if not re.fullmatch(r"\d{1,18}", offset) or int(offset) > MAX_OFFSET:
        raise refuse(400, "invalid_offset", f"Invalid offset '{offset}': it is at most {MAX_OFFSET}")
    first = int(offset)
    page: Json = {"total_count": len(things), "limit": limit, "offset": first}
    if order:
        page["order"] = [{"by": "id", "direction": "ASC"}]
    return json_response(page | {"entries": [shown(thing) for thing in things[first : first + limit]]})


def by_marker(things: Iterable[Any], values: dict[str, str], shown: Callable[[Any], Json]) -> web.Response:
    """Things carry digit ids; the marker holds the last one given, so that a page never repeats or skips what stands still."""
    limit, marker = limit_of(values), values.get("marker", "")
    last = _read_marker(marker) if marker else -1
    rest = sorted((thing for thing in things if int(thing.id) > last), key=lambda thing: int(thing.id))
    page = rest[:limit]
    more = base64.urlsafe_b64encode(f"m{page[-1].id}".encode()).decode() if len(rest) > limit else None
    return json_response({"limit": limit, "next_marker": more, "entries": [shown(thing) for thing in page]})


def _read_marker(marker: str) -> int:
    try:
        plain = base64.b64decode(marker, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        plain = ""
    if not re.fullmatch(r"m\d{1,18}", plain):
        raise invalid(("invalid_parameter", "marker", "Invalid marker"))
    return int(plain[1:])


def trim(full: Json, values: dict[str, str], mini: Sequence[str], standard: Sequence[str] | None = None) -> Json:
    """With `fields`: the mini fields and those asked. Without: mini and `standard` (all where None)."""
    if "fields" in values:
        asked = {name.strip() for name in values["fields"].split(",")}
        return {key: value for key, value in full.items() if key in mini or key in asked}
    return full if standard is None else {key: value for key, value in full.items() if key in mini or key in standard}
