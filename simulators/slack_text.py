"""A stored Slack message as plain text for people and terminals: what a reader would see, without Slack.

Whatever others put into a message stays inert here too: control characters and direction marks are dropped, markup becomes words.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Any

_MARKUP = re.compile(r"<([^<>\n]+)>")
_DATE = re.compile(r"!date\^(\d{1,12})\^[^|]*(?:\|(.*))?", re.S)


def render_text(message: dict[str, Any]) -> str:
    """The blocks of a message, one after another; its `text` where it has none."""
    blocks = message.get("blocks") or []
    lines = [line for block in blocks for line in _block(block)] or [_mrkdwn(str(message.get("text", "")))]
    return "\n".join(_inert(line) for line in lines).strip("\n")


def _block(block: dict[str, Any]) -> list[str]:
    kind = block.get("type")
    if kind == "header":
        return [f"== {_text(block['text'])} =="]
    if kind == "section":
        parts = [block["text"]] if "text" in block else []
        return [_text(part) for part in [*parts, *block.get("fields", [])]] + _elements(
            [block["accessory"]] if "accessory" in block else []
        )
    if kind == "context":
        return ["  ".join(part.get("alt_text") or _text(part) for part in block["elements"])]
    if kind == "actions":
        return _elements(block["elements"])
    if kind == "divider":
        return ["-" * 40]
    if kind == "image":
        return [f"[image: {block['alt_text']}]"]
    return [str(block.get("text", ""))] if kind == "markdown" else []


def _elements(elements: list[dict[str, Any]]) -> list[str]:
    shown = []
    for element in elements:
        if element.get("type") == "image":
            shown.append(f"[image: {element['alt_text']}]")
        elif "text" in element:
            shown.append(f"[{_text(element['text'])}]")
        else:
            shown += [f"[{_text(option['text'])}]" for option in element.get("options", [])]
    return [" ".join(shown)] if shown else []


def _text(part: dict[str, Any]) -> str:
    return _mrkdwn(part["text"]) if part.get("type") == "mrkdwn" else str(part["text"])


def _mrkdwn(text: str) -> str:
    plain = _MARKUP.sub(lambda found: _reference(found[1]), text)
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _reference(inside: str) -> str:
    """What stands between angle brackets: a date, a mention, a link."""
    if date := _DATE.fullmatch(inside):
        return date[2] or datetime.fromtimestamp(int(date[1]), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    target, _, label = inside.partition("|")
    if target[:1] in ("@", "#", "!"):
        return label or "@" + target[1:] if target[0] != "#" else "#" + (label or target[1:])
    return f"{label} ({target})" if label else target


def _inert(line: str) -> str:
    return "".join(char for char in line if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf"))
