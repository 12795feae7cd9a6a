"""Messages for people: complete, within Slack's limits, and inert whatever others write into them."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from handlers.messages import Message, alert, incident, inert, notice, render_text
from model.decision import Response, Scope, Severity
from model.records import Decision, EventRef, IncidentChanged, Notice
from simulators.slack_blocks import are_too_long, problems_of_blocks

T0 = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
EVENT = EventRef(uuid="ev-1", event_type="user.risk.detect", published=T0, received=T0 + timedelta(seconds=1))

EVIL = [
    "<!channel> <http://evil.example|Approve>",
    "@channel @here @everyone <@U123> <#C1|general>",
    "a\r\nb\x1b[31mred\x1b[0m\x1b]8;;http://evil\x07link",
    "\u202egnp.exe\u2066x\u2069",
    "*bold* _it_ ~x~ `code` ```pre```",
    '=HYPERLINK("http://evil")',
    "x" * 5000,
    "<" * 3000,
    "&amp;" * 1000,
    "\ud800 lone \x00 nul",
    "",
]


def decision(**more: Any) -> Decision:
    base: dict[str, Any] = {
        "id": "dec-1",
        "tenant": "acme",
        "event_uuid": "ev-1",
        "person": "00u1",
        "rule": "risk-high",
        "rule_version": "1",
        "title": "Risk raised to HIGH",
        "asked": Response.LOCKDOWN,
        "response": Response.LOCKDOWN,
        "severity": Severity.CRITICAL,
        "scope": Scope.FULL,
        "matched": {"securityContext.risk.level": "HIGH"},
        "runbook": "Call the person; check the device.",
        "decided": T0,
    }
    return Decision(**(base | more))


def an_incident(state: str = "contained", **more: Any) -> IncidentChanged:
    base: dict[str, Any] = {
        "id": "rec-1",
        "tenant": "acme",
        "at": T0,
        "incident": "inc-1",
        "person": "00u1",
        "state": state,
        "title": "Risk raised to HIGH",
        "severity": Severity.CRITICAL,
        "event": EVENT,
        "decisions": (decision(),),
        "opened": T0 + timedelta(seconds=1.5),
        "contained": T0 + timedelta(seconds=3.4),
        "targets": {
            "okta": {"state": "closed", "account": "00u1", "answered": (T0 + timedelta(seconds=2)).isoformat(), "observed": None},
            "box": {
                "state": "closed",
                "account": "7",
                "answered": (T0 + timedelta(seconds=3.4)).isoformat(),
                "observed": (T0 + timedelta(seconds=4)).isoformat(),
            },
        },
    }
    return IncidentChanged(**(base | more))


def checked(message: Message) -> str:
    """Passes every limit of Slack's; the message as people read it."""
    blocks = [dict(block) for block in message.blocks]
    for block in Block.parse_all(blocks):
        block.validate_json()
    assert problems_of_blocks(blocks) == []
    assert not are_too_long(blocks)
    assert len(message.text) <= 4000
    assert message.text
    json.dumps(blocks).encode()
    return render_text(message.text, message.blocks)


def test_an_incident_says_what_happened_what_was_done_how_long_it_took_and_what_is_left() -> None:
    message = incident(an_incident(), person="ada@corp.example")
    assert message.text == "[CRITICAL] Contained: Risk raised to HIGH: ada@corp.example (00u1), contained in 2.4 s"
    assert checked(message) == (
        "== Contained: Risk raised to HIGH ==\n"
        "Person: ada@corp.example (00u1)\n"
        "Tenant: acme\n"
        "Severity: critical\n"
        "Event: user.risk.detect\n"
        "Happened: 2026-01-05 09:00:00 UTC\n"
        "Detected: 2026-01-05 09:00:01 UTC\n"
        "Contained: 2026-01-05 09:00:03 UTC\n"
        "Detected to contained: 2.4 s\n"
        "What happened\n"
        "  Risk raised to HIGH (rule risk-high)\n"
        "  securityContext.risk.level = HIGH\n"
        "What was done\n"
        "  okta: closed, after 1.0 s\n"
        "  box: closed, after 2.4 s, seen shut after 3.0 s\n"
        "What a human must do\n"
        "  Reach the person by telephone or through their manager: their own account may be in other hands.\n"
        "  When it is over, release the Hold of this incident: nothing else opens the accounts again.\n"
        "  Runbook: Call the person; check the device.\n"
        "(incident inc-1; event ev-1)\n"
    )


@pytest.mark.fault(41)
def test_a_partial_lockdown_is_never_shown_as_done() -> None:
    targets = an_incident().targets | {"box": {"state": "failed", "reason": "box: PUT /2.0/users/7 answered 503"}}
    shown = checked(incident(an_incident("partial", targets=targets, contained=None)))
    assert "== Only partly contained" in shown
    assert "box: NOT closed, tried again: box: PUT /2.0/users/7 answered 503" in shown
    assert "Close box by hand if it stays open." in shown
    assert "Detected to contained" not in shown


def test_an_approval_that_is_pending_says_that_nothing_was_executed() -> None:
    shown = checked(incident(an_incident("pending_approval", targets={}, contained=None)))
    assert "Decision needed" in shown
    assert "Nothing was executed." in shown
    assert "Decide." in shown
    assert "release the Hold" not in shown


@pytest.mark.parametrize("state", ["open", "pending_approval", "contained", "partial", "released", "closed"])
@pytest.mark.parametrize("bare", [True, False])
def test_every_state_makes_a_message(state: str, bare: bool) -> None:
    more: dict[str, Any] = {"title": "", "event": None, "decisions": (), "targets": {}, "opened": None, "contained": None} if bare else {}
    assert "What a human must do" in checked(incident(an_incident(state, **more)))


def test_an_alert_says_why_nothing_was_done() -> None:
    assert "Nothing: this rule only alerts." in checked(alert(decision(asked=Response.ALERT, response=Response.ALERT), event=EVENT))
    lowered = decision(response=Response.ALERT, why="the event is older than 900 s")
    assert "Nothing: the rule asks for lockdown, but the event is older than 900 s." in checked(alert(lowered))
    assert "nobody in particular" in checked(alert(decision(person=None)))


def test_a_notice_carries_its_remedy() -> None:
    one = Notice(
        id="n1",
        tenant="acme",
        at=T0,
        topic="case",
        severity=Severity.HIGH,
        person="00u1",
        target="box",
        text="several accounts match",
        remedy="run portcullis link",
        facts={"candidates": ["1", "2"]},
    )
    message = notice(one, person="ada@corp.example")
    assert message.text == "[HIGH] A case for a human: several accounts match (ada@corp.example (00u1))"
    shown = checked(message)
    assert "candidates: ['1', '2']" in shown
    assert "run portcullis link" in shown


@pytest.mark.parametrize(
    "topic",
    ["case", "gap", "cursor", "brake", "parked", "command", "drift", "breaker", "page", "clock", "source", "rules"],
)
def test_every_topic_has_words(topic: Any) -> None:
    message = notice(Notice(id="n", tenant="t", at=T0, topic=topic, text="x"))
    assert not message.text.startswith(topic)
    checked(message)


# -- inert (X2) -------------------------------------------------------------------------------------------------------


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, one in value.items() for text in ([one] if key == "text" and isinstance(one, str) else texts(one))]
    return [text for one in value for text in texts(one)] if isinstance(value, list | tuple) else []


def all_messages(evil: str) -> list[Message]:
    marred = decision(title=evil, rule=evil, why=evil, runbook=evil, matched={evil: evil, "k": [evil]}, person=evil)
    record = an_incident(
        "partial",
        title=evil,
        person=evil,
        decisions=(marred,) * 5,
        targets={evil or "t": {"state": evil, "reason": evil, "answered": evil}},
    )
    facts: dict[str, Any] = {evil: evil}
    return [
        incident(record, person=evil),
        alert(marred, event=EVENT.model_copy(update={"event_type": evil}), person=evil),
        notice(
            Notice.model_construct(
                id=evil,
                tenant=evil,
                at=T0,
                topic="case",
                severity=Severity.HIGH,
                person=evil,
                target=evil,
                incident=evil,
                text=evil,
                remedy=evil,
                facts=facts,
            ),
            person=evil,
        ),
    ]


def is_inert(text: str) -> None:
    for char in text.replace("\u2060", "").replace("\n", ""):
        assert unicodedata.category(char)[0] != "C", hex(ord(char))
    rest = text.replace("&lt;", "").replace("&gt;", "").replace("&amp;", "")
    assert not set("<>&") & set(rest)
    for word in ("channel", "here", "everyone", "group"):
        assert f"@{word}" not in text


@pytest.mark.fault(23)
@pytest.mark.fault(25)
@pytest.mark.parametrize("evil", [one for one in EVIL if "\ud800" not in one], ids=range(len(EVIL) - 1))
def test_what_others_write_is_inert_everywhere(evil: str) -> None:
    for message in all_messages(evil):
        for text in [*texts(list(message.blocks)), message.text]:
            is_inert(text)
        assert '"mrkdwn"' not in json.dumps(message.blocks), "foreign text is never markup"
        shown = checked(message)
        assert "\x1b" not in shown
        assert "\r" not in shown


@given(st.text(max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_text_is_inert_and_within_limits(evil: str) -> None:
    is_inert(inert(evil))
    assert len(inert(evil, 50).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("\u2060", "")) <= 50
    for message in all_messages(evil):
        checked(message)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ann@x.example", "ann@x.example"),
        ("hi @ann", "hi @\u2060ann"),
        ("x@channel", "x@\u2060channel"),
        ("a\nb", "a b"),
        ("a\u2028b", "a b"),
        ("\x1b[2Jclear", "clear"),
        ("<!here>", "&lt;!here&gt;"),
        (7, "7"),
        (None, "None"),
    ],
)
def test_inert(text: object, shown: str) -> None:
    assert inert(text) == shown


def test_many_targets_and_facts_fit() -> None:
    targets = {f"target-{n}": {"state": "failed", "reason": "r" * 500} for n in range(60)}
    many = (decision(matched={f"k{n}": "v" * 500 for n in range(50)}),) * 10
    shown = checked(incident(an_incident("partial", targets=targets, decisions=many)))
    assert "… and 48 more targets" in shown


def test_a_message_without_blocks_is_its_text() -> None:
    assert render_text("a &lt;b&gt; &amp;amp;", []) == "a <b> &amp;\n"
