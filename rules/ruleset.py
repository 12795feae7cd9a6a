"""A folder of Sigma files → the rules that are asked of every event. All or nothing: one rule that cannot be honoured refuses the set.

A rule for another product's log is left out and said so; a rule that Sigma itself calls `unsupported` too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule

from model.decision import Severity
from model.errors import ConfigurationError
from rules.rule import Rule, section_of
from rules.sigma.compile import Compiler, Placeholders, Refused
from rules.sigma.source import Document, read_documents, rule_files, sigma_rule

BUILT_IN = Path(__file__).parent / "detections"
_OLD_WAYS = {
    "action": "collections with `action` ended with Sigma 2: write each rule out",
    "timeframe": "`timeframe` is Sigma 1: write a correlation with `timespan`",
}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A rule that is sound but not for us."""

    path: Path
    title: str
    reason: str


class RuleSet:
    """Rules in the order of their files, found by id."""

    def __init__(self, rules: Iterable[Rule], skipped: Iterable[Skipped] = (), folder: Path | None = None) -> None:
        self.rules = tuple(rules)
        self.skipped = tuple(skipped)
        self.folder = folder
        self._by_id = {rule.id: rule for rule in self.rules}

    @classmethod
    def load(cls, folder: Path | None = None, placeholders: Mapping[str, tuple[str, ...]] | None = None) -> RuleSet:
        """Reads a folder (None: the built-in rules; a file is a folder of one) deep for *.yml and *.yaml.

        Raises ConfigurationError with path, line and reason where a rule cannot be honoured, where two have the same id,
        or where there is no rule at all.
        """
        folder = folder or BUILT_IN
        documents = [document for path in rule_files(folder) for document in read_documents(path)]
        if not documents:
            raise ConfigurationError(f"{folder}: no rules: a rule is a *.yml file in the Sigma format")
        rules: list[Rule] = []
        skipped: list[Skipped] = []
        for document in documents:
            built = build(document, placeholders or {})
            if isinstance(built, Skipped):
                skipped.append(built)
            else:
                rules.append(built)
        _refuse_doubles(rules)
        return cls(rules, skipped, folder)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def get(self, rule_id: str) -> Rule | None:
        return self._by_id.get(rule_id)


def build(document: Document, placeholders: Placeholders) -> Rule | Skipped:
    """One document as a rule. Raises ConfigurationError."""
    data = document.data
    for key, reason in _OLD_WAYS.items():
        if key in data or (isinstance(data.get("detection"), dict) and key in data["detection"]):
            raise document.refuse(reason, *((key,) if key in data else ("detection", key)))
    parsed = sigma_rule(document)
    section = section_of(document)
    if reason := _not_for_us(parsed):
        return Skipped(document.path, parsed.title, reason)
    compiler = Compiler(parsed.detection, placeholders)
    try:
        expression = compiler.expression()
    except Refused as error:
        raise document.refuse_field(str(error), error.identifier or "condition", error.field) from None
    except SigmaError as error:
        reason = str(error.args[0]) if error.args else type(error).__name__
        raise document.refuse(reason, "detection", "condition") from None
    name, sigma_id = parsed.name, _text(data.get("id"))
    return Rule(
        id=section.id or sigma_id or name or document.path.stem,
        version=document.version,
        title=parsed.title,
        severity=Severity(str(parsed.level)) if parsed.level else Severity.MEDIUM,
        path=document.path,
        line=document.line,
        section=section,
        expression=expression,
        name=name,
        sigma_id=sigma_id,
        description=parsed.description or "",
        status=str(parsed.status) if parsed.status else "",
        tags=tuple(str(tag) for tag in parsed.tags),
        falsepositives=tuple(str(text) for text in parsed.falsepositives),
        unused=tuple(one for one in parsed.detection.detections if one not in compiler.referenced),
        undefined=tuple(sorted(compiler.undefined)),
    )


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None


def _not_for_us(parsed: SigmaRule) -> str:
    source = parsed.logsource
    if str(parsed.status) == "unsupported":
        return "its status is unsupported"
    if "okta" not in (_folded(source.product), _folded(source.service)):
        return f"its log source is {source.product or source.category or source.service}, not Okta's"
    return ""


def _folded(text: str | None) -> str:
    return (text or "").casefold()


def _refuse_doubles(rules: Iterable[Rule]) -> None:
    seen: dict[str, Rule] = {}
    for rule in rules:
        for name in rule.names:
            if (other := seen.get(name)) is not None:
                raise ConfigurationError(f"{rule.path}:{rule.line}: the id or name {name!r} is also that of {other.path}:{other.line}")
            seen[name] = rule
