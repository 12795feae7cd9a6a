"""One document → one rule: pySigma reads it, our compiler honours it or refuses it, the section is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sigma.exceptions import SigmaError
from sigma.filters import SigmaFilter
from sigma.rule import SigmaLogSource, SigmaRule

from model.decision import Severity
from model.errors import ConfigurationError
from rules.correlation.spec import Bounds, Kind, Spec, spec_of
from rules.rule import Rule, Section, section_of
from rules.sigma.compile import Compiler, Placeholders, Refused
from rules.sigma.expression import Check, Expression, Node, compiled, conjunction
from rules.sigma.field import path_of
from rules.sigma.source import Document, joined_version, sigma_rule

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


@dataclass(frozen=True, slots=True)
class Filter:
    """A Sigma filter: what it adds to the rules that it names (None: all of its log source)."""

    root: Node
    version: str
    logsource: SigmaLogSource
    rules: frozenset[str] | None
    undefined: tuple[str, ...]

    def concerns(self, names: Sequence[str | None], logsource: SigmaLogSource) -> bool:
        return logsource in self.logsource and (self.rules is None or any(name in self.rules for name in names))


def build_event_rule(document: Document, placeholders: Placeholders, filters: Sequence[Filter] = ()) -> Rule | Skipped:
    """A rule that is asked of single events. Raises ConfigurationError."""
    for key, reason in _OLD_WAYS.items():
        if key in document.data or (isinstance(document.data.get("detection"), dict) and key in document.data["detection"]):
            raise document.refuse(reason, *((key,) if key in document.data else ("detection", key)))
    parsed = sigma_rule(document)
    section = section_of(document)
    if skip := _not_for_us(parsed):
        return Skipped(document.path, parsed.title, skip)
    compiler = Compiler(parsed.detection, placeholders)
    root, severities = _compile(document, compiler, section)
    names = (section.id, _text(document.data.get("id")), parsed.name)
    added = [one for one in filters if one.concerns(names, parsed.logsource)]
    extra = [repr(placeholders[name]) for name in sorted(compiler.used) if name in placeholders]
    return Rule(
        **_meta(document, parsed, section),
        version=joined_version(document.version, *(one.version for one in added), *extra),
        section=section,
        expression=Expression(conjunction([root, *(one.root for one in added)])),
        spec=_absence(document, section, names),
        severities=severities,
        unused=tuple(one for one in parsed.detection.detections if one not in compiler.referenced),
        undefined=tuple(sorted(compiler.undefined.union(*(one.undefined for one in added)))),
    )


def build_correlation(document: Document) -> Rule:
    """A correlation; its references are resolved by `rules.link`. Raises ConfigurationError."""
    spec = spec_of(document)
    section = section_of(document)
    for wrong in ("first_seen", "absence"):
        if getattr(section, wrong) is not None:
            raise document.refuse(f"portcullis.{wrong} belongs to a rule of single events", "portcullis", wrong)
    if section.severity:
        raise document.refuse("portcullis.severity belongs to a rule of single events", "portcullis", "severity")
    if (section.unless or section.window.min_gap) and spec.kind is not Kind.TEMPORAL_ORDERED:
        raise document.refuse("portcullis: unless and window.min_gap belong to temporal_ordered", "portcullis")
    if section.also and (spec.kind is not Kind.VALUE_COUNT or not spec.bounds.only_more):
        raise document.refuse("portcullis.also belongs to a value_count that asks for gt or gte", "portcullis", "also")
    spec = replace(spec, also=tuple((one.field, Bounds((("gte", float(one.gte)),))) for one in section.also))
    for one in section.also:
        for name in one.field:
            _check_field(document, name, "portcullis", "also")
    if section.person_from is not None and section.person_from not in spec.members:
        raise document.refuse(f"portcullis.person_from: {section.person_from!r} is none of its rules", "portcullis", "person_from")
    for name in (*spec.fields, *(name for name in spec.group_by if name not in spec.aliases), *_alias_fields(spec)):
        _check_field(document, name, "correlation")
    rule = _parsed_meta(document)
    return Rule(**_meta(document, rule, section), version=document.version, section=section, spec=spec)


def build_filter(document: Document, placeholders: Placeholders) -> Filter:
    """A Sigma filter document. Raises ConfigurationError."""
    data = {key: value for key, value in document.data.items() if key not in ("id", "portcullis")}
    try:
        parsed = SigmaFilter.from_dict(data)
        compiler = Compiler(parsed.filter, placeholders)
        root = compiler.expression().root
    except Refused as error:
        raise document.refuse(str(error), "filter", error.identifier or "condition") from None
    except SigmaError as error:
        raise document.refuse(str(error.args[0]) if error.args else type(error).__name__, "filter") from None
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise document.refuse(f"no Sigma filter: {error}", "filter") from None
    named = parsed.filter.rules
    rules = None if isinstance(named, str) else frozenset(one.reference for one in named)
    return Filter(root, document.version, parsed.logsource, rules, tuple(sorted(compiler.undefined)))


def _compile(document: Document, compiler: Compiler, section: Section) -> tuple[Node, tuple[tuple[Check | None, Severity], ...]]:
    severities: list[tuple[Check | None, Severity]] = []
    for identifier in section.severity:
        if identifier not in document.data["detection"] and not (identifier == "first_seen" and section.first_seen is not None):
            raise document.refuse(
                f"portcullis.severity: {identifier!r} is no search identifier of this rule", "portcullis", "severity", identifier
            )
    try:
        root = compiler.expression().root
        for identifier, severity in section.severity.items():
            is_first_seen = identifier == "first_seen" and section.first_seen is not None
            severities.append((None if is_first_seen else compiled(compiler.named(identifier)), severity))
    except Refused as error:
        raise document.refuse_field(str(error), error.identifier or "condition", error.field) from None
    except SigmaError as error:
        raise document.refuse(str(error.args[0]) if error.args else type(error).__name__, "detection", "condition") from None
    return root, tuple(severities)


def _absence(document: Document, section: Section, names: Sequence[str | None]) -> Spec | None:
    if section.first_seen is not None:
        for name in (*section.first_seen.field, *section.first_seen.by):
            _check_field(document, name, "portcullis", "first_seen")
    for wrong in ("unless", "person_from", "also"):
        if getattr(section, wrong):
            raise document.refuse(f"portcullis.{wrong} belongs to a correlation", "portcullis", wrong)
    absence = section.absence
    if absence is None:
        return None
    for name in absence.by:
        _check_field(document, name, "portcullis", "absence")
    own = next((name for name in names if name), document.path.stem)
    return Spec(
        kind=Kind.TEMPORAL,
        members=(f"{own}#begun", absence.expect),
        span=absence.within,
        group_by=absence.by,
        aliases={},
        bounds=Bounds((("gte", 2.0),)),
        at_close=True,
    )


def _alias_fields(spec: Spec) -> list[str]:
    return [name for mapping in spec.aliases.values() for name in mapping.values()]


def _check_field(document: Document, name: str, *keys: str) -> None:
    try:
        path_of(str(name))
    except ValueError as error:
        raise document.refuse(str(error), *keys) from None


def _parsed_meta(document: Document) -> SigmaRule:
    """The common attributes of a correlation, checked as those of any rule."""
    common = {key: value for key, value in document.data.items() if key not in ("correlation", "generate")}
    stand_in = {"logsource": {"product": "okta"}, "detection": {"selection": {"eventType": "none"}, "condition": "selection"}}
    return sigma_rule(Document(document.path, document.line, common | stand_in, document.lines))


def _meta(document: Document, parsed: SigmaRule, section: Section) -> dict[str, Any]:
    sigma_id = _text(document.data.get("id"))
    return {
        "id": section.id or sigma_id or parsed.name or document.path.stem,
        "title": parsed.title,
        "severity": Severity(str(parsed.level)) if parsed.level else Severity.MEDIUM,
        "path": document.path,
        "line": document.line,
        "name": parsed.name,
        "sigma_id": sigma_id,
        "description": parsed.description or "",
        "status": str(parsed.status) if parsed.status else "",
        "tags": tuple(str(tag) for tag in parsed.tags),
        "references": tuple(str(text) for text in parsed.references),
        "falsepositives": tuple(str(text) for text in parsed.falsepositives),
    }


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None


def _not_for_us(parsed: SigmaRule) -> str:
    source = parsed.logsource
    if str(parsed.status) == "unsupported":
        return "its status is unsupported"
    if "okta" not in ((source.product or "").casefold(), (source.service or "").casefold()):
        return f"its log source is {source.product or source.category or source.service}, not Okta's"
    return ""


__all__ = ["ConfigurationError", "Filter", "Skipped", "build_correlation", "build_event_rule", "build_filter"]
