"""Slack's limits on blocks, each met and each exceeded by one; and messages rendered for people."""

from __future__ import annotations

from typing import Any

import pytest

from simulators.slack import render_text
from simulators.slack_blocks import error_of_metadata, problems_of_blocks


def plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text}


def button(**changes: Any) -> dict[str, Any]:
    return {"type": "button", "text": plain("Approve"), "action_id": "approve", "value": "id-1"} | changes


def section(**changes: Any) -> dict[str, Any]:
    return {"type": "section", "text": mrkdwn("x")} | changes


def actions(*elements: Any) -> dict[str, Any]:
    return {"type": "actions", "elements": list(elements)}


CONFIRM = {"title": plain("Sure?"), "text": mrkdwn("really"), "confirm": plain("Yes"), "deny": plain("No")}
OPTION = {"text": plain("one"), "value": "1"}

FITS: list[list[dict[str, Any]]] = [
    [],
    [{"type": "divider"}] * 50,
    [section(text=mrkdwn("x" * 3000))],
    [{"type": "section", "fields": [mrkdwn("x" * 2000)] * 10}],
    [section(accessory=button()), section(accessory={"type": "overflow", "options": [OPTION] * 5})],
    [{"type": "header", "text": plain("x" * 150)}],
    [{"type": "context", "elements": [mrkdwn("x")] * 9 + [{"type": "image", "image_url": "https://x/y", "alt_text": "y"}]}],
    [actions(*[button(action_id=f"a{n}") for n in range(25)])],
    [actions(button(text=plain("x" * 75), value="x" * 2000, url="x" * 3000, style="danger", confirm=CONFIRM))],
    [actions({"type": "static_select", "options": [OPTION] * 100, "action_id": "x" * 255})],
    [{"type": "image", "image_url": "https://x/y", "alt_text": "x" * 2000, "title": plain("x" * 2000)}],
    [{"type": "markdown", "text": "x" * 12_000}],
    [{"type": "divider", "block_id": "a"}, {"type": "divider", "block_id": "b"}],
]

EXCEEDS: list[tuple[list[Any], str]] = [
    ([{"type": "divider"}] * 51, "/blocks"),
    (["text"], "/blocks/0/type"),
    ([{"type": "rich_text", "elements": []}], "/blocks/0/type"),
    ([section(text=mrkdwn("x" * 3001))], "/blocks/0/text/text"),
    ([section(text=mrkdwn(""))], "/blocks/0/text/text"),
    ([section(text="bare")], "/blocks/0/text"),
    ([section(colour="red")], "/blocks/0"),
    ([{"type": "section"}], "/blocks/0"),
    ([{"type": "section", "fields": [mrkdwn("x")] * 11}], "/blocks/0/fields"),
    ([{"type": "section", "fields": [mrkdwn("x" * 2001)]}], "/blocks/0/fields/0/text"),
    ([{"type": "section", "fields": []}], "/blocks/0/fields"),
    ([{"type": "header", "text": plain("x" * 151)}], "/blocks/0/text/text"),
    ([{"type": "header", "text": mrkdwn("x")}], "/blocks/0/text"),
    ([{"type": "header"}], "/blocks/0"),
    ([{"type": "context", "elements": [mrkdwn("x")] * 11}], "/blocks/0/elements"),
    ([{"type": "context", "elements": [button()]}], "/blocks/0/elements/0"),
    ([actions(*[button()] * 26)], "/blocks/0/elements"),
    ([actions(button(text=plain("x" * 76)))], "/blocks/0/elements/0/text/text"),
    ([actions(button(text=mrkdwn("x")))], "/blocks/0/elements/0/text"),
    ([actions(button(value="x" * 2001))], "/blocks/0/elements/0/value"),
    ([actions(button(url="x" * 3001))], "/blocks/0/elements/0/url"),
    ([actions(button(action_id="x" * 256))], "/blocks/0/elements/0/action_id"),
    ([actions(button(style="loud"))], "/blocks/0/elements/0/style"),
    ([actions(button(confirm=CONFIRM | {"title": plain("x" * 101)}))], "/blocks/0/elements/0/confirm/title/text"),
    ([actions(button(confirm=CONFIRM | {"text": mrkdwn("x" * 301)}))], "/blocks/0/elements/0/confirm/text/text"),
    ([actions(button(confirm=CONFIRM | {"deny": plain("x" * 31)}))], "/blocks/0/elements/0/confirm/deny/text"),
    ([actions({"type": "overflow", "options": [OPTION] * 6})], "/blocks/0/elements/0/options"),
    ([actions({"type": "static_select", "options": [OPTION | {"value": "x" * 151}]})], "/blocks/0/elements/0/options/0/value"),
    ([{"type": "image", "image_url": "https://x/y"}], "/blocks/0"),
    ([{"type": "image", "image_url": "https://x/y", "alt_text": "x" * 2001}], "/blocks/0/alt_text"),
    ([{"type": "markdown", "text": "x" * 6001}] * 2, "/blocks"),
    ([{"type": "divider", "block_id": "x" * 256}], "/blocks/0/block_id"),
    ([{"type": "divider", "block_id": "a"}] * 2, "/blocks"),
]


@pytest.mark.parametrize("blocks", FITS)
def test_what_fits_passes(blocks: list[dict[str, Any]]) -> None:
    assert problems_of_blocks(blocks) == []


@pytest.mark.parametrize(("blocks", "place"), EXCEEDS)
def test_what_exceeds_is_refused_with_its_place(blocks: list[Any], place: str) -> None:
    problems = problems_of_blocks(blocks)
    assert problems
    assert all(problem.startswith("[ERROR] ") for problem in problems)
    assert any(f"[json-pointer:{place}]" in problem for problem in problems)


def test_metadata() -> None:
    assert error_of_metadata({"event_type": "portcullis.incident", "event_payload": {"a": 1}}) is None
    assert error_of_metadata([]) == "invalid_metadata_format"
    assert error_of_metadata({"event_type": "a", "event_payload": {}, "more": 1}) == "invalid_metadata_format"
    assert error_of_metadata({"event_type": 1, "event_payload": {}}) == "invalid_metadata_schema"
    assert error_of_metadata({"event_type": "a", "event_payload": "x"}) == "invalid_metadata_schema"


# -- rendering --------------------------------------------------------------------------------------------------------


def test_a_message_reads_as_a_person_would_see_it() -> None:
    message = {
        "text": "fallback",
        "blocks": [
            {"type": "header", "text": plain("Incident 7")},
            section(text=mrkdwn("*Ann* &amp; <https://x/y|the record> at <!date^1780000000^{date}|2026-05-28 20:26>")),
            {"type": "section", "fields": [mrkdwn("Box: done"), plain("a &amp; <b>")], "accessory": button(text=plain("Details"))},
            {"type": "divider"},
            {"type": "context", "elements": [mrkdwn("<@U1> in <#C1|ops>"), {"type": "image", "image_url": "u", "alt_text": "logo"}]},
            actions(button(), button(text=plain("Deny"))),
        ],
    }
    assert render_text(message).split("\n") == [
        "== Incident 7 ==",
        "*Ann* & the record (https://x/y) at 2026-05-28 20:26",
        "Box: done",
        "a &amp; <b>",
        "[Details]",
        "-" * 40,
        "@U1 in #ops  logo",
        "[Approve] [Deny]",
    ]


def test_without_blocks_the_text_is_shown() -> None:
    assert render_text({"text": "locked &lt;ann&gt; <!date^1780000000^{date}>"}) == "locked <ann> 2026-05-28 20:26:40 UTC"
    assert render_text({"text": "<!channel> <https://x/y>"}) == "@channel https://x/y"
    assert render_text({}) == ""


def test_escapes_and_direction_marks_do_not_reach_a_terminal() -> None:
    shown = render_text({"text": "a\x1b[31mred\x1b[0m\r\nb\u202egnp.exe\x07\u200b"})
    assert shown == "a[31mred[0m\nbgnp.exe"
