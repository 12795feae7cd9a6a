"""Slack's limits on messages: Block Kit, text and metadata. `problems_of_blocks` says what Slack would refuse, with its place.

Block types and elements that messages of ours have no use for (rich text, video, tables, inputs) are refused as unknown.
Rejected: slack_sdk's own validators. The client builds its messages with them, so they would find nothing that it overlooks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

MAX_BLOCKS, MAX_TEXT, MAX_MARKDOWN = 50, 40_000, 12_000
#: Nowhere documented; seen in the field (slackapi/bolt-js issue 2509).
MAX_BLOCKS_CHARS = 13_200
MAX_METADATA_BYTES = 8_000

Problems = Iterator[str]
Check = Callable[[Any, str], Problems]


def problems_of_blocks(blocks: Any) -> list[str]:
    """What is wrong with `blocks`, each with a JSON pointer as Slack gives it; empty where all is well."""
    if not isinstance(blocks, list):
        return [_at("must be an array", "/blocks")]
    if len(blocks) > MAX_BLOCKS:
        return [_at(f"no more than {MAX_BLOCKS} items allowed", "/blocks")]
    found = [problem for index, block in enumerate(blocks) for problem in _block(block, f"/blocks/{index}")]
    ids = [block["block_id"] for block in blocks if isinstance(block, dict) and isinstance(block.get("block_id"), str)]
    found += [_at(f"block_id '{one}' already exists", "/blocks") for one in sorted({one for one in ids if ids.count(one) > 1})]
    markdown = sum(len(block["text"]) for block in blocks if isinstance(block, dict) and block.get("type") == "markdown" and not found)
    return found if markdown <= MAX_MARKDOWN else [*found, _at(f"markdown blocks hold more than {MAX_MARKDOWN} characters", "/blocks")]


def are_too_long(blocks: list[Any]) -> bool:
    return len(orjson.dumps(blocks).decode()) > MAX_BLOCKS_CHARS


def error_of_metadata(metadata: Any) -> str | None:
    """Slack's error word for what is no metadata, or None."""
    if not isinstance(metadata, dict) or set(metadata) != {"event_type", "event_payload"}:
        return "invalid_metadata_format"
    kind, payload = metadata["event_type"], metadata["event_payload"]
    if not isinstance(kind, str) or not re.fullmatch(r"[A-Za-z0-9_.:-]{1,255}", kind) or not isinstance(payload, dict):
        return "invalid_metadata_schema"
    return "metadata_too_large" if len(orjson.dumps(metadata)) > MAX_METADATA_BYTES else None


def _at(what: str, place: str) -> str:
    return f"[ERROR] {what} [json-pointer:{place}]"


def _object(value: Any, place: str, shape: dict[str, Check], required: tuple[str, ...]) -> Problems:
    if not isinstance(value, dict):
        yield _at("must be an object", place)
        return
    for key in required:
        if key not in value:
            yield _at(f"missing required field: {key}", place)
    for key, item in value.items():
        if key in shape:
            yield from shape[key](item, f"{place}/{key}")
        elif key != "type":
            yield _at(f"unknown field: {key}", place)


def _string(high: int, low: int = 1) -> Check:
    def check(value: Any, place: str) -> Problems:
        if not isinstance(value, str):
            yield _at("must be a string", place)
        elif len(value) > high:
            yield _at(f"must be less than {high + 1} characters", place)
        elif len(value) < low:
            yield _at(f"must be more than {low - 1} characters", place)

    return check


def _flag(value: Any, place: str) -> Problems:
    if not isinstance(value, bool):
        yield _at("must be a boolean", place)


def _style(value: Any, place: str) -> Problems:
    if value not in ("primary", "danger"):
        yield _at("must be one of primary, danger", place)


def _text(high: int, *kinds: str) -> Check:
    """A text object of one of `kinds` (plain_text, mrkdwn)."""

    def check(value: Any, place: str) -> Problems:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind not in kinds:
            yield _at(f"must be a text object of type {' or '.join(kinds)}", place)
            return
        extra = {"emoji": _flag} if kind == "plain_text" else {"verbatim": _flag}
        yield from _object(value, place, {"text": _string(high), **extra}, ("text",))

    return check


def _items(high: int, check: Check) -> Check:
    def checked(value: Any, place: str) -> Problems:
        if not isinstance(value, list) or not value:
            yield _at("must be an array with at least one item", place)
        elif len(value) > high:
            yield _at(f"no more than {high} items allowed", place)
        else:
            for index, item in enumerate(value):
                yield from check(item, f"{place}/{index}")

    return checked


def _typed(shapes: dict[str, tuple[dict[str, Check], tuple[str, ...]]]) -> Check:
    """An object whose `type` chooses its shape."""

    def check(value: Any, place: str) -> Problems:
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in shapes:
            yield _at(f"unsupported type: {kind}", f"{place}/type")
            return
        yield from _object(value, place, *shapes[kind])

    return check


_PLAIN, _ANY = ("plain_text",), ("plain_text", "mrkdwn")
_ID = _string(255)


def _confirm(value: Any, place: str) -> Problems:
    shape = {
        "title": _text(100, *_PLAIN),
        "text": _text(300, *_ANY),
        "confirm": _text(30, *_PLAIN),
        "deny": _text(30, *_PLAIN),
        "style": _style,
    }
    yield from _object(value, place, shape, ("title", "text", "confirm", "deny"))


def _option(value: Any, place: str) -> Problems:
    shape = {"text": _text(75, *_ANY), "value": _string(150), "description": _text(75, *_PLAIN), "url": _string(3000)}
    yield from _object(value, place, shape, ("text", "value"))


_BUTTON: dict[str, Check] = {
    "text": _text(75, *_PLAIN),
    "action_id": _ID,
    "value": _string(2000),
    "url": _string(3000),
    "style": _style,
    "confirm": _confirm,
    "accessibility_label": _string(75),
}
_SELECT: dict[str, Check] = {
    "action_id": _ID,
    "options": _items(100, _option),
    "placeholder": _text(150, *_PLAIN),
    "initial_option": _option,
    "confirm": _confirm,
}
_OVERFLOW: dict[str, Check] = {"action_id": _ID, "options": _items(5, _option), "confirm": _confirm}
_IMAGE: dict[str, Check] = {"image_url": _string(3000), "alt_text": _string(2000)}
_INTERACTIVE: dict[str, tuple[dict[str, Check], tuple[str, ...]]] = {
    "button": (_BUTTON, ("text",)),
    "static_select": (_SELECT, ("options",)),
    "overflow": (_OVERFLOW, ("options",)),
}
_IMAGE_ELEMENT: dict[str, tuple[dict[str, Check], tuple[str, ...]]] = {"image": (_IMAGE, ("image_url", "alt_text"))}


def _context_element(value: Any, place: str) -> Problems:
    if isinstance(value, dict) and value.get("type") == "image":
        yield from _typed(_IMAGE_ELEMENT)(value, place)
    else:
        yield from _text(3000, *_ANY)(value, place)


def _block(block: Any, place: str) -> Problems:
    yield from _BLOCKS(block, place)
    if isinstance(block, dict) and block.get("type") == "section" and "text" not in block and "fields" not in block:
        yield _at("missing required field: text or fields", place)


_BLOCK_ID: dict[str, Check] = {"block_id": _ID}
_BLOCKS = _typed(
    {
        "section": (
            {
                **_BLOCK_ID,
                "text": _text(3000, *_ANY),
                "fields": _items(10, _text(2000, *_ANY)),
                "accessory": _typed(_INTERACTIVE | _IMAGE_ELEMENT),
                "expand": _flag,
            },
            (),
        ),
        "header": ({**_BLOCK_ID, "text": _text(150, *_PLAIN)}, ("text",)),
        "divider": (_BLOCK_ID, ()),
        "context": ({**_BLOCK_ID, "elements": _items(10, _context_element)}, ("elements",)),
        "actions": ({**_BLOCK_ID, "elements": _items(25, _typed(_INTERACTIVE))}, ("elements",)),
        "image": ({**_BLOCK_ID, **_IMAGE, "title": _text(2000, *_PLAIN)}, ("image_url", "alt_text")),
        "markdown": ({**_BLOCK_ID, "text": _string(MAX_MARKDOWN)}, ("text",)),
    }
)
