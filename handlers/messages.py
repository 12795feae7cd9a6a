"""What people read in Slack: an incident, an alert, a notice as (text, blocks), and the same blocks as plain text. Pure.

Names, user agents, titles and vendors' errors are chosen by others, attackers among them. They appear only in `plain_text`, on one line,
without control or bidi characters, with `&<>` escaped and mentions broken, and cut. Nothing here carries tokens, raw events or links
out of an error. Rejected: mrkdwn with escaping alone (Slack still turns bare URLs and e-mail addresses into links there).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from model.decision import Severity
from model.event import parse_time
from model.records import Decision, EventRef, IncidentChanged, Notice

Block = dict[str, Any]

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)|\x9b[0-?]*[ -/]*[@-~]", re.DOTALL)
_MENTION = re.compile(r"(?<![\w.+-])[@#](?=\w)|@(?=(?:channel|here|everyone|group)\b)", re.IGNORECASE)
_BREAK = "\u2060"  # word joiner: invisible, and no mention any more
_HEADER, _SECTION, _FIELD, _TEXT = 150, 3000, 2000, 3000
_MAX_FACTS, _MAX_TARGETS = 8, 12

_STATES = {
    "open": "Containment under way",
    "pending_approval": "Decision needed",
    "contained": "Contained",
    "partial": "Only partly contained",
    "released": "Released",
    "closed": "Closed",
}
_TARGET_STATES = {
    "closed": "closed",
    "nothing": "no account there",
    "restored": "restored",
    "failed": "NOT closed, tried again",
    "refused": "NOT closed",
    "planned": "dry run, nothing was called",
    "left": "left alone on purpose",
    "superseded": "superseded",
}
_NOTICES = {
    "case": "A case for a human",
    "gap": "Gap in the log",
    "cursor": "The log's cursor was refused",
    "brake": "A brake tripped",
    "parked": "A change is parked",
    "command": "A command was taken",
    "drift": "Opened again after a lockdown",
    "breaker": "A connector's breaker moved",
    "page": "Somebody must act now",
    "clock": "The clock is off",
    "source": "The source is unwell",
    "rules": "The rules in use",
}


@dataclass(frozen=True, slots=True)
class Message:
    """`text` is the notification; `blocks` within Slack's limits (50 blocks, 3,000 a section, about 13,000 together)."""

    text: str
    blocks: tuple[Block, ...]


def inert(value: object, limit: int = 200) -> str:
    """Foreign text made harmless: one line, nothing that Slack, a terminal or a reader's eye would act on, at most `limit` long."""
    text = _ANSI.sub(" ", str(value))
    text = "".join(char if unicodedata.category(char)[0] not in "CZ" else " " for char in text)
    text = " ".join(text.split())
    text = _MENTION.sub(lambda found: found.group() + _BREAK, text)
    if len(text) > limit:
        text = text[: max(limit - 1, 0)] + "…"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def incident(record: IncidentChanged, *, person: str = "") -> Message:
    """One message an incident, rewritten in place as it goes on. `person`: a name or login to show beside the id.

    `record.targets` maps a target to a TargetResult as JSON: `state`, `reason`, `answered`, `observed` (times), and whatever else.
    """
    state, who = _STATES.get(record.state, record.state), _who(record.person, person)
    title = record.title or (record.decisions[0].title if record.decisions else "Incident")
    took = _took(record)
    blocks = [
        _header(f"{state}: {title}"),
        _fields(
            ("Person", who),
            ("Tenant", record.tenant),
            ("Severity", record.severity.value),
            ("Event", record.event.event_type if record.event else ""),
            ("Happened", _time(record.event.published if record.event else None)),
            ("Detected", _time(_detected(record))),
            ("Contained", _time(record.contained)),
            ("Detected to contained", took),
        ),
        _section("What happened", _findings(record.decisions)),
        _section("What was done", _targets(record)),
        _section("What a human must do", _todo(record)),
        _context(f"incident {record.incident}", f"event {record.event.uuid}" if record.event else ""),
    ]
    text = f"[{record.severity.value.upper()}] {state}: {title}: {who}" + (f", contained in {took}" if took else "")
    return _message(text, blocks)


def alert(decision: Decision, *, event: EventRef | None = None, person: str = "") -> Message:
    """A finding that asks for nobody's account: it is told, and nothing is done."""
    who = _who(decision.person or "", person) or "nobody in particular"
    blocks = [
        _header(f"Alert: {decision.title}"),
        _fields(
            ("Person", who),
            ("Tenant", decision.tenant),
            ("Severity", decision.severity.value),
            ("Event", event.event_type if event else ""),
            ("Happened", _time(event.published if event else None)),
        ),
        _section("What happened", _findings((decision,))),
        _section("What was done", [_why(decision)]),
        _section("What a human must do", [decision.runbook] if decision.runbook else ["Look at the event and judge it."]),
        _context(f"decision {decision.id}", f"event {decision.event_uuid}", f"rule {decision.rule}"),
    ]
    return _message(f"[{decision.severity.value.upper()}] Alert: {decision.title}: {who}", blocks)


def notice(record: Notice, *, person: str = "") -> Message:
    """Anything else a human may need to know, with its remedy."""
    heading = _NOTICES.get(record.topic, record.topic)
    who = _who(record.person or "", person)
    facts = [f"{name}: {_short(value)}" for name, value in list(record.facts.items())[:_MAX_FACTS]]
    blocks = [
        _header(heading),
        _fields(("Person", who), ("Target", record.target or ""), ("Tenant", record.tenant), ("Severity", record.severity.value)),
        _section("What happened", [record.text, *facts]),
        _section("What a human must do", [record.remedy] if record.remedy else []),
        _context(f"notice {record.id}", f"incident {record.incident}" if record.incident else ""),
    ]
    loud = f"[{record.severity.value.upper()}] " if record.severity in (Severity.HIGH, Severity.CRITICAL) else ""
    return _message(f"{loud}{heading}: {record.text}" + (f" ({who})" if who else ""), blocks)


def render_text(text: str, blocks: Sequence[Mapping[str, Any]]) -> str:
    """A message as plain text, for files and terminals: what a reader of Slack sees, without Slack."""
    lines: list[str] = []
    for block in blocks:
        if block.get("type") == "header":
            lines += [f"== {_shown(block['text'])} =="]
        elif block.get("type") == "context":
            lines += ["(" + "; ".join(_shown(one) for one in block["elements"]) + ")"]
        elif "fields" in block:
            lines += [_shown(one).replace("\n", ": ", 1) for one in block["fields"]]
        elif "text" in block:
            heading, _, rest = _shown(block["text"]).partition("\n")
            lines += [heading, *(f"  {line}" for line in rest.splitlines())]
    return "\n".join(lines or [_unescaped(text)]) + "\n"


# -- parts --------------------------------------------------------------------------------------------------------------


def _findings(decisions: Iterable[Decision]) -> list[str]:
    lines: list[str] = []
    for one in list(decisions)[:3]:
        lines.append(f"{one.title} (rule {one.rule})" + (f": {one.why}" if one.why else ""))
        lines += [f"    {name} = {_short(value)}" for name, value in list(one.matched.items())[:_MAX_FACTS]]
    return lines


def _why(decision: Decision) -> str:
    if decision.response is decision.asked:
        return "Nothing: this rule only alerts."
    return f"Nothing: the rule asks for {decision.asked.value}, but {decision.why or 'it was lowered to an alert'}."


def _targets(record: IncidentChanged) -> list[str]:
    if not record.targets:
        return ["Nothing was executed." if record.state == "pending_approval" else "Nothing yet."]
    detected, lines = _detected(record), []
    for name, result in list(record.targets.items())[:_MAX_TARGETS]:
        state = str(result.get("state", "unknown"))
        line = f"{name}: {_TARGET_STATES.get(state, state)}"
        for word, key in (("after", "answered"), ("seen shut after", "observed")):
            if seconds := _between(detected, _moment(result.get(key))):
                line += f", {word} {seconds}"
        lines.append(line + (f": {_short(result['reason'], 120)}" if result.get("reason") else ""))
    if len(record.targets) > _MAX_TARGETS:
        lines.append(f"… and {len(record.targets) - _MAX_TARGETS} more targets")
    return lines


def _todo(record: IncidentChanged) -> list[str]:
    lines: list[str] = []
    if record.state == "pending_approval":
        lines.append("Decide. Nothing was executed, and nothing will be until somebody does it by hand.")
    bad = [name for name, result in record.targets.items() if result.get("state") in ("failed", "refused")]
    lines += [f"Close {name} by hand if it stays open." for name in bad[:_MAX_TARGETS]]
    if record.state in ("contained", "partial", "open", "pending_approval"):
        lines.append("Reach the person by telephone or through their manager: their own account may be in other hands.")
    if record.state in ("contained", "partial"):
        lines.append("When it is over, release the Hold of this incident: nothing else opens the accounts again.")
    lines += [f"Runbook: {runbook}" for runbook in dict.fromkeys(one.runbook for one in record.decisions if one.runbook)]
    return lines or ["Nothing."]


def _detected(record: IncidentChanged) -> datetime | None:
    return record.event.received if record.event else record.opened


def _took(record: IncidentChanged) -> str:
    return _between(_detected(record), record.contained)


def _between(start: datetime | None, end: datetime | None) -> str:
    if start is None or end is None:
        return ""
    seconds = max((end - start).total_seconds(), 0.0)
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _moment(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else parse_time(value)


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _who(person_id: str, name: str) -> str:
    return f"{name} ({person_id})" if name and person_id else name or person_id


def _short(value: object, limit: int = 200) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


# -- blocks -------------------------------------------------------------------------------------------------------------


def _message(text: str, blocks: Iterable[Block | None]) -> Message:
    return Message(_fit(inert(text, 600), _TEXT), tuple(block for block in blocks if block is not None))


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": False}


def _header(text: str) -> Block:
    return {"type": "header", "text": _plain(_fit(inert(text, _HEADER), _HEADER))}


def _fields(*pairs: tuple[str, str]) -> Block | None:
    fields = [_plain(_fit(f"{label}\n{inert(value, 150)}", _FIELD)) for label, value in pairs if value]
    return {"type": "section", "fields": fields[:10]} if fields else None


def _section(heading: str, lines: Iterable[str]) -> Block | None:
    shown = [inert(line, 400) for line in lines]
    return {"type": "section", "text": _plain(_fit("\n".join([heading, *shown]), _SECTION))} if shown else None


def _context(*parts: str) -> Block | None:
    elements = [_plain(_fit(inert(part, 150), _FIELD)) for part in parts if part]
    return {"type": "context", "elements": elements} if elements else None


def _fit(text: str, limit: int) -> str:
    """Cuts what escaping has made too long, never within an entity."""
    if len(text) <= limit:
        return text
    return re.sub(r"&[a-z]{0,3}$", "", text[: limit - 1]) + "…"


def _shown(part: Mapping[str, Any]) -> str:
    return _unescaped(str(part.get("text", "")))


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
