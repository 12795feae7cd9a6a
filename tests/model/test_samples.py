"""Events as others published them: each parses, or is malformed in the sense of D1, and this file names which; nothing is dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.errors import MalformedEvent
from model.event import OktaEvent, decode, split_page

#: (file, line): fixtures that their authors shortened; not one of them has a uuid.
WITHOUT_UUID = {
    *(("google-secops-wrapper.jsonl", line) for line in (2, 3, 4, 5, 6, 7)),
    *(("panther-analysis-tests.jsonl", line) for line in (1, 2, 3, 4, 61, 67, 68, 69, 70, 78, 79, 80)),
}


def _events(shared: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    files = sorted((shared / "samples").glob("*.jsonl"))
    assert files
    for file in files:
        for line, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            yield file.name, line, json.loads(text)["event"]


def test_every_sample_parses_or_is_named(shared: Path) -> None:
    malformed = {}
    seen = 0
    for file, line, event in _events(shared):
        seen += 1
        raw = json.dumps(event).encode()
        try:
            parsed = OktaEvent.from_raw(raw)
        except MalformedEvent as error:
            malformed[file, line] = error.reason
            continue
        assert (parsed.uuid, parsed.event_type) == (event["uuid"], event["eventType"])
        assert parsed.data == event
        assert parsed.raw == raw
    assert malformed == dict.fromkeys(WITHOUT_UUID, "no_uuid")
    assert seen == 180


def test_a_page_of_all_samples_splits_into_them(shared: Path) -> None:
    events = [event for _, _, event in _events(shared)]
    assert [json.loads(element) for element in split_page(json.dumps(events).encode())] == events


def test_whom_the_samples_name_is_a_user_of_the_event(shared: Path) -> None:
    named = 0
    for file, line, event in _events(shared):
        if (file, line) in WITHOUT_UUID:
            continue
        data = decode(json.dumps(event).encode())
        users = {one["id"] for one in [*(data.get("target") or []), data.get("actor") or {}] if one.get("type") == "User"}
        found = OktaEvent.from_raw(json.dumps(event).encode()).people("target-or-actor")
        assert set(found) <= users
        named += bool(found)
    assert named > 100
