"""Small rule files and small events for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from model.decision import Finding
from rules.classify import Classifier
from rules.lifecycle import Lifecycle
from rules.lower import Guards
from rules.ruleset import RuleSet

START = datetime(2026, 9, 14, 8, 0, tzinfo=UTC)
LIFECYCLE = Lifecycle.load()


def event_rule(name: str, detection: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A rule named `name` that matches events of type `name` unless a detection says otherwise."""
    return {
        "title": name,
        "name": name,
        "logsource": {"product": "okta", "service": "okta"},
        "detection": detection or {"selection": {"eventType": name}, "condition": "selection"},
        **more,
    }


def correlation(name: str, section: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"title": name, "name": name, "correlation": section, **more}


def ruleset(folder: Path, *documents: dict[str, Any], name: str = "rules.yml", **placeholders: tuple[str, ...]) -> RuleSet:
    (folder / name).write_text(yaml.safe_dump_all(documents, allow_unicode=True), encoding="utf-8")
    return RuleSet.load(folder, placeholders)


def classifier(folder: Path, *documents: dict[str, Any], guards: Guards | None = None) -> Classifier:
    return Classifier(ruleset(folder, *documents), LIFECYCLE, guards)


def user(who: str) -> dict[str, str]:
    return {"id": who, "type": "User"}


def event(kind: str, at: float, who: str = "u1", uuid: str | None = None, **more: Any) -> dict[str, Any]:
    """An event `at` seconds after START by the user `who`."""
    time = (START + timedelta(seconds=at)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"uuid": uuid or f"{kind}-{at}-{who}", "eventType": kind, "published": time, "actor": user(who), **more}


def observed(classifier: Classifier, *events: dict[str, Any]) -> list[list[str]]:
    """For each event the ids of the rules that its verdict names."""
    return [[found.rule for found in classifier.observe(one).findings] for one in events]


def findings(classifier: Classifier, *events: dict[str, Any]) -> list[Finding]:
    return [found for one in events for found in classifier.observe(one).findings]
