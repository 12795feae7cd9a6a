"""A file of events, classified without a broker: one line in, one dict out, in order (`portcullis classify --json`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from model.errors import MalformedEvent
from model.event import decode
from rules.classify import Classifier

_REASONS = {
    "unreadable": "unreadable: no JSON that can be read",
    "not_an_object": "not_an_object: JSON, but no object",
    "no_uuid": "no_uuid: the event has no uuid",
    "no_event_type": "no_event_type: the event has no eventType",
}


def classify_lines(lines: Iterable[bytes], classifier: Classifier) -> Iterator[dict[str, Any]]:
    """For each line {line, uuid, event_type, moment, people, decisions, error}. A malformed or empty line has only `line` and `error`.

    The response is the rule's: age, brakes and guards that need an API are not known here (D32).
    """
    for number, line in enumerate(lines, start=1):
        raw = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        try:
            yield _classified(number, decode(raw), classifier)
        except MalformedEvent as error:
            yield _row(number, error=_REASONS.get(error.reason, error.reason))


def _classified(number: int, event: dict[str, Any], classifier: Classifier) -> dict[str, Any]:
    verdict = classifier.observe(event)
    row = _row(number, uuid=event["uuid"], event_type=event["eventType"], moment=verdict.moment.value)
    row["people"] = list(verdict.people)
    row["decisions"] = [
        {
            "rule": found.rule,
            "title": found.title,
            "response": found.response.value,
            "severity": found.severity.value,
            "person": found.person,
            "matched": found.matched,
        }
        for found in verdict.findings
    ]
    return row


def _row(
    number: int, *, uuid: str | None = None, event_type: str | None = None, moment: str = "none", error: str | None = None
) -> dict[str, Any]:
    return {"line": number, "uuid": uuid, "event_type": event_type, "moment": moment, "people": [], "decisions": [], "error": error}
