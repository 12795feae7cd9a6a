"""The conformance table as cases, and as the page docs/sigma.md (`python -m tests.rules.conformance` writes it)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).parent / "conformance.yml"
CORRELATIONS = Path(__file__).parent / "correlations.yml"
PAGE = Path(__file__).parents[2] / "docs" / "sigma.md"

PLACEHOLDERS = {
    "admins": ("raj@example.com", "adm-*@example.com"),
    "domains": ("one.example", "two.example"),
    "patterns": ("^emp[0-9]{4}$",),
}


@dataclass(frozen=True)
class Group:
    number: int
    feature: str
    means: str
    detection: dict[str, Any]
    yes: tuple[dict[str, Any], ...]
    no: tuple[dict[str, Any], ...]
    refused: str | None

    @property
    def rule(self) -> dict[str, Any]:
        detection = {"condition": "selection"} | self.detection
        return {"title": self.feature, "logsource": {"product": "okta", "service": "okta"}, "detection": detection}

    @property
    def size(self) -> int:
        return len(self.yes) + len(self.no) + (self.refused is not None)


def groups() -> list[Group]:
    rows = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return [
        Group(
            number,
            row["feature"],
            row["means"],
            row["detection"],
            tuple(row.get("matches", ())),
            tuple(row.get("misses", ())),
            row.get("refused"),
        )
        for number, row in enumerate(rows)
    ]


def correlation_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = yaml.safe_load(CORRELATIONS.read_text(encoding="utf-8"))
    return rows


def page() -> str:
    return "\n".join([*_head(), *_events(), *_correlations(), ""])


def _head() -> Iterator[str]:
    yield "# Sigma: what is supported, and what each feature means on an Okta event"
    yield ""
    yield "Written by `python -m tests.rules.conformance` from the tables that the tests run; a test fails where this page is out of date."
    yield "Whatever is not supported is refused when the rules are loaded, with the rule's path and line. It never matches wrongly."


def _events() -> Iterator[str]:
    rows = groups()
    yield ""
    yield f"## Rules of single events ({sum(group.size for group in rows)} cases)"
    yield ""
    yield "| feature | | meaning |"
    yield "|---|---|---|"
    for group in rows:
        yield f"| {_cell(group.feature)} | {'refused' if group.refused else 'supported'} | {_cell(group.means)} |"


def _correlations() -> Iterator[str]:
    rows = correlation_rows()
    yield ""
    yield f"## Correlations ({len(rows)} cases)"
    yield ""
    yield "`first_seen`, `absence`, `unless`, `person_from` and `window` are ours and stand in the rule's `portcullis:` section."
    yield ""
    yield "| feature | | meaning |"
    yield "|---|---|---|"
    for row in rows:
        yield f"| {_cell(row['feature'])} | {'refused' if 'refused' in row else 'supported'} | {_cell(row['means'])} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
