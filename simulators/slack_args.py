"""Arguments of Slack's methods: what a message may hold, and which part of a channel's history is asked for.

Every mistake ends in `fail`, with Slack's own error word.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import orjson

from simulators.base import Refusal, json_response
from simulators.slack_blocks import MAX_MARKDOWN, MAX_TEXT, are_too_long, error_of_metadata, problems_of_blocks

Json = dict[str, Any]

_TS = re.compile(r"\d{1,12}(\.\d{1,6})?")


def fail(error: str, *messages: str) -> Refusal:
    """200 with `ok: false`."""
    more: Json = {"response_metadata": {"messages": list(messages)}} if messages else {}
    return Refusal(json_response({"ok": False, "error": error} | more))


def content_of(args: Json) -> Json:
    """The checked content of a message: only what was given."""
    text = args.get("text")
    if text is not None and not isinstance(text, str):
        raise fail("invalid_arguments", "[ERROR] must be a string [json-pointer:/text]")
    if text is not None and len(text) > MAX_TEXT:
        raise fail("msg_too_long")
    content: Json = {} if text is None else {"text": text}
    if (markdown := args.get("markdown_text")) is not None:
        if text is not None or args.get("blocks"):
            raise fail("markdown_text_conflict")
        if not isinstance(markdown, str) or len(markdown) > MAX_MARKDOWN:
            raise fail("msg_too_long")
        content["text"] = markdown
    return content | _blocks(args) | _attachments(args) | _metadata(args)


def _decoded(args: Json, name: str, error: str) -> Any:
    """A structured argument: a JSON value, or in a form JSON in a string."""
    value = args.get(name)
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise fail(error) from None


def _blocks(args: Json) -> Json:
    blocks = _decoded(args, "blocks", "invalid_blocks_format")
    if blocks is None:
        return {}
    if problems := problems_of_blocks(blocks):
        raise fail("invalid_blocks", *problems)
    if are_too_long(blocks):
        raise fail("msg_blocks_too_long")
    return {"blocks": [{"block_id": f"b{index}"} | block for index, block in enumerate(blocks)]}


def _attachments(args: Json) -> Json:
    attachments = _decoded(args, "attachments", "invalid_attachments")
    if attachments is None:
        return {}
    if not isinstance(attachments, list) or not all(isinstance(one, dict) for one in attachments):
        raise fail("invalid_attachments")
    if len(attachments) > 100:
        raise fail("too_many_attachments")
    return {"attachments": attachments}


def _metadata(args: Json) -> Json:
    metadata = _decoded(args, "metadata", "invalid_metadata_format")
    if metadata is None or metadata == {}:
        return {} if metadata is None else {"metadata": {}}
    if error := error_of_metadata(metadata):
        raise fail(error)
    return {"metadata": metadata}


def truth(value: Any) -> bool:
    return value is True or value in ("true", "1", 1)


def page_of(messages: list[Json], args: Json) -> Json:
    """The messages between `oldest` and `latest` (exclusive unless `inclusive`), a page of `limit`."""
    bounds = {name: args.get(name) for name in ("oldest", "latest")}
    for name, bound in bounds.items():
        if bound not in (None, "") and not _TS.fullmatch(str(bound)):
            raise fail(f"invalid_ts_{name}")
    low, high = (None if bound in (None, "") else _micros(str(bound)) for bound in bounds.values())
    inclusive = truth(args.get("inclusive"))
    found = [one for one in messages if _is_between(_micros(one["ts"]), low, high, inclusive)]
    limit = str(args.get("limit") or "100")
    if not re.fullmatch(r"\d{1,6}", limit) or not 1 <= int(limit) <= 999:
        raise fail("invalid_limit")
    first = _read_cursor(str(args.get("cursor") or ""), found)
    page, rest = found[first : first + int(limit)], found[first + int(limit) :]
    if not truth(args.get("include_all_metadata")):
        page = [{key: value for key, value in one.items() if key != "metadata"} for one in page]
    more: Json = {"response_metadata": {"next_cursor": _cursor(rest[0]["ts"])}} if rest else {}
    return {"messages": page, "has_more": bool(rest)} | more


def _micros(ts: str) -> int:
    whole, _, part = ts.partition(".")
    return int(whole) * 1_000_000 + int(part.ljust(6, "0"))


def _is_between(at: int, low: int | None, high: int | None, inclusive: bool) -> bool:
    if inclusive:
        return (low is None or at >= low) and (high is None or at <= high)
    return (low is None or at > low) and (high is None or at < high)


def _cursor(ts: str) -> str:
    return base64.b64encode(f"next_ts:{ts}".encode()).decode()


def _read_cursor(cursor: str, found: list[Json]) -> int:
    """The place in `found` at which the cursor's message stands."""
    if not cursor:
        return 0
    try:
        ts = base64.b64decode(cursor, validate=True).decode().removeprefix("next_ts:")
        return [one["ts"] for one in found].index(ts)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise fail("invalid_cursor") from None
