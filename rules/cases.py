"""A rule travels with its proof: `<name>.cases.jsonl` beside `<name>.yml`, run by `portcullis rules test` and by our own tests.

One case a line: `{"case": "what it shows", "fires": ["RULE-ID", …], "events": [event, …]}`, `fires` empty where the rule must keep quiet.
With `"person"` the findings must name that person (null: nobody). Events go through in order; rules of other files are not asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from model.decision import Finding
from model.errors import ConfigurationError, MalformedEvent
from model.event import decode
from rules.classify import Classifier
from rules.lifecycle import Lifecycle
from rules.ruleset import RuleSet

_ABSENT = object()
_KEYS = {"case", "fires", "events", "person"}


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a cases file."""

    path: Path
    line: int
    name: str
    fires: frozenset[str]
    events: tuple[dict[str, Any], ...]
    person: Any = _ABSENT


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of a case; `problem` is empty where all is as it must be."""

    case: Case
    fired: frozenset[str]
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


def cases_path(rule_path: Path) -> Path:
    return rule_path.with_name(rule_path.stem + ".cases.jsonl")


def read_cases(path: Path) -> list[Case]:
    """The cases of a file. Raises ConfigurationError with path and line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    return [_case(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _case(path: Path, number: int, line: bytes) -> Case:
    where = f"{path}:{number}"
    try:
        data = orjson.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"{where}: no JSON: {error}") from None
    if not isinstance(data, dict) or not set(data) <= _KEYS or not {"case", "fires", "events"} <= set(data):
        raise ConfigurationError(f"{where}: a case has case, fires and events, and may have person")
    if not isinstance(data["fires"], list) or not isinstance(data["events"], list) or not data["events"]:
        raise ConfigurationError(f"{where}: fires is a list of rule ids, events a list of one event or more")
    try:
        events = tuple(decode(orjson.dumps(event)) for event in data["events"])
    except MalformedEvent as error:
        raise ConfigurationError(f"{where}: malformed event: {error.reason}") from None
    return Case(path, number, str(data["case"]), frozenset(data["fires"]), events, data.get("person", _ABSENT))


def run_cases(ruleset: RuleSet, lifecycle: Lifecycle) -> Iterator[CaseResult]:
    """Runs the cases of every file of the set that has some, each against the rules of its own file."""
    by_file: dict[Path, list[Any]] = {}
    for rule in ruleset:
        by_file.setdefault(rule.path, []).append(rule)
    for path, rules in by_file.items():
        proof = cases_path(path)
        if proof.is_file():
            own = RuleSet(rules, folder=path)
            for case in read_cases(proof):
                yield _run(case, Classifier(own, lifecycle))


def _run(case: Case, classifier: Classifier) -> CaseResult:
    findings: list[Finding] = []
    for event in case.events:
        verdict = classifier.observe(event)
        findings += (*verdict.findings, *verdict.shadow)
    fired = frozenset(one.rule for one in findings)
    if missing := case.fires - fired:
        return CaseResult(case, fired, f"did not fire: {', '.join(sorted(missing))}")
    if extra := fired - case.fires:
        return CaseResult(case, fired, f"fired, though it must be quiet: {', '.join(sorted(extra))}")
    if case.person is not _ABSENT and any(one.person != case.person for one in findings):
        named = ", ".join(sorted({str(one.person) for one in findings}))
        return CaseResult(case, fired, f"named {named} instead of {case.person}")
    return CaseResult(case, fired)
