"""What is wrong with rules before an event is read: each finding with its place, how bad it is, and what to do.

An error is a rule that does not load, cannot fire, locks on what an outsider can cause, or leaves whoever is woken without a runbook. A
warning is what is probably not meant. A note is about this house: guards that rules name and nobody has declared. Loading stops at the first
problem; lint goes on, so that one document that cannot be read does not hide what is wrong with the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from model.errors import ConfigurationError
from rules import reach
from rules.build import Filter, Skipped, build_correlation, build_event_rule, build_filter
from rules.cases import cases_path, read_cases
from rules.catalogue import Catalogue
from rules.checks import OF_RULE, Book, Grade, Problem, line_of
from rules.guards import DEFAULT_PLACEHOLDERS, GuardSettings
from rules.link import linked
from rules.rule import GuardName, Rule
from rules.ruleset import BUILT_IN
from rules.sigma.compile import Placeholders
from rules.sigma.source import Document, read_documents, rule_files
from rules.wording import OF_DOCUMENT

_PLACE = re.compile(r"(?P<path>.+?\.(?:ya?ml|jsonl))(?::(?P<line>\d+))?: (?P<reason>.*)", re.DOTALL)
_SET_IS_REFUSED = "mend it: until then the whole set is refused"

Pair = tuple[Rule, Document]


@dataclass(frozen=True, slots=True)
class Report:
    """What lint found. `rules` were looked at, `skipped` are for other products."""

    rules: int
    skipped: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        return sum(one.grade == "error" for one in self.problems)

    def as_dict(self) -> dict[str, Any]:
        return {
            "rules": self.rules,
            "skipped": self.skipped,
            "errors": self.errors,
            "warnings": len(self.problems) - self.errors,
            "problems": [one.as_dict() for one in self.problems],
            "notes": list(self.notes),
        }


def lint(
    folder: Path | None = None, guards: GuardSettings | None = None, catalogue: Catalogue | None = None, now: datetime | None = None
) -> Report:
    """Looks at every rule of a folder (None: the built-in ones; a file is a folder of one). With `guards`, notes say what they leave open.

    Raises ConfigurationError where there is no rule to look at.
    """
    folder = folder or BUILT_IN
    placeholders = DEFAULT_PLACEHOLDERS | dict(guards.sigma_placeholders() if guards else {})
    problems: list[Problem] = []
    documents = _read(folder, problems)
    if not documents and not problems:
        raise ConfigurationError(f"{folder}: no rules: a rule is a *.yml file in the Sigma format")
    pairs, skipped = _built(documents, placeholders, problems)
    problems += _doubles(pairs)
    pairs = _linked(pairs, problems)
    ours = {rule.id for rule, _ in pairs}
    book = _book(pairs, catalogue or Catalogue.load(), placeholders)
    for document in documents:
        if not any(one.path == document.path and one.line == document.line for one in skipped):
            problems += (problem for check in OF_DOCUMENT for problem in check(document, book))
    for rule, document in pairs:
        problems += (replace(problem, rule=rule.id) for check in OF_RULE for problem in check(rule, document, book))
    problems += (*_same_titles(pairs), *_proofs(pairs))
    ordered = sorted(dict.fromkeys(problems), key=lambda one: (str(one.path), one.line, one.code, one.text))
    notes = _notes([rule for rule, _ in pairs], guards, now) if guards else ()
    return Report(len(ours), len(skipped), tuple(_named(ordered, pairs)), tuple(notes))


def _read(folder: Path, problems: list[Problem]) -> list[Document]:
    documents: list[Document] = []
    for path in rule_files(folder):
        try:
            documents += read_documents(path)
        except ConfigurationError as error:
            problems.append(_refused(error, path))
    return documents


@dataclass(frozen=True, slots=True)
class _Left:
    """A document that is not for us."""

    path: Path
    line: int


def _built(documents: Sequence[Document], placeholders: Placeholders, problems: list[Problem]) -> tuple[list[Pair], list[_Left]]:
    filters: list[Filter] = []
    pairs: list[Pair] = []
    skipped: list[_Left] = []
    for document in documents:
        if "filter" in document.data:
            try:
                filters.append(build_filter(document, placeholders))
            except ConfigurationError as error:
                problems.append(_refused(error, document.path))
    for document in documents:
        if "filter" in document.data:
            continue
        try:
            is_correlation = "correlation" in document.data
            built: Rule | Skipped = build_correlation(document) if is_correlation else build_event_rule(document, placeholders, filters)
        except ConfigurationError as error:
            problems.append(_refused(error, document.path))
            continue
        if isinstance(built, Skipped):
            skipped.append(_Left(document.path, document.line))
        else:
            pairs.append((built, document))
    return pairs, skipped


def _refused(error: ConfigurationError, path: Path) -> Problem:
    found = _PLACE.fullmatch(str(error))
    if found is None:
        return Problem(path, 1, "error", "refused", str(error), _SET_IS_REFUSED)
    return Problem(Path(found["path"]), int(found["line"] or 1), "error", "refused", found["reason"], _SET_IS_REFUSED)


def _doubles(pairs: Sequence[Pair]) -> Iterator[Problem]:
    """Ids and names that stand twice refuse the set."""
    names: dict[str, Rule] = {}
    for rule, document in pairs:
        for name in rule.names:
            first = names.setdefault(name, rule)
            if first is not rule:
                keys = ("portcullis", "id") if rule.section.id == name else ("id",) if rule.sigma_id == name else ("name",)
                text = f"the id or name {name!r} is also that of {first.path}:{first.line}"
                yield Problem(rule.path, line_of(document, *keys), "error", "duplicate-id", text, "give it another", rule.id)


def _same_titles(pairs: Sequence[Pair]) -> Iterator[Problem]:
    """Titles are what a human sees of a finding; rules that only serve correlations are seen by nobody."""
    titles: dict[str, Rule] = {}
    for rule, document in pairs:
        first = titles.setdefault(rule.title.casefold(), rule) if rule.emits else rule
        if first is not rule:
            text = f"the title {rule.title!r} is also that of {first.path}:{first.line}"
            remedy = "say what is different: a human sees the title"
            yield Problem(rule.path, line_of(document, "title"), "warning", "duplicate-title", text, remedy, rule.id)


def _linked(pairs: list[Pair], problems: list[Problem]) -> list[Pair]:
    """The rules with their references resolved; of doubles the first stays, a rule whose references fail goes."""
    taken: set[str] = set()
    left: list[Pair] = []
    for rule, document in pairs:
        if not taken & set(rule.names):
            left.append((rule, document))
            taken.update(rule.names)
    while left:
        try:
            return [(rule, document) for rule, (_, document) in zip(linked(left), left, strict=True)]
        except ConfigurationError as error:
            problem = _refused(error, left[0][0].path)
            problems.append(problem)
            culprit = _nearest_above(left, problem)
            left = [pair for pair in left if pair is not culprit]
    return left


def _nearest_above(pairs: Sequence[Pair], problem: Problem) -> Pair:
    """The document of a problem: the last one of its file that begins at or above its line."""
    above = [pair for pair in pairs if pair[1].path == problem.path and pair[1].line <= problem.line]
    return max(above, key=lambda pair: pair[1].line) if above else pairs[0]


def _book(pairs: Sequence[Pair], catalogue: Catalogue, placeholders: Placeholders) -> Book:
    rules = {rule.id: rule for rule, _ in pairs}
    by_reference = rules | {rule.match_id: rule for rule in rules.values()}
    matched = {rule.id: reach.types_matched(rule, catalogue) for rule in rules.values() if rule.expression is not None}
    return Book(catalogue, placeholders, by_reference, matched)


def _proofs(pairs: Sequence[Pair]) -> Iterator[Problem]:
    """A rule written for Portcullis (it has our section, or is one of ours) travels with its cases: one that fires and one that is quiet."""
    by_path: dict[Path, list[Pair]] = {}
    for rule, document in pairs:
        if rule.emits and (BUILT_IN in rule.path.parents or "portcullis" in document.data):
            by_path.setdefault(rule.path, []).append((rule, document))
    for path, found in by_path.items():
        grade: Grade = "error" if BUILT_IN in path.parents else "warning"
        proof = cases_path(path)
        if not proof.is_file():
            rule, document = found[0]
            remedy = f"write {proof.name} beside it: a case that fires and one that must not"
            yield Problem(path, document.line, grade, "no-cases", "it has no cases", remedy, rule.id)
            continue
        try:
            cases = read_cases(proof)
        except ConfigurationError as error:
            yield _refused(error, proof)
            continue
        for rule, document in found:
            fires = [rule.id in case.fires for case in cases]
            text = f"no case of {proof.name} shows where {rule.id} "
            if not any(fires):
                yield Problem(path, document.line, grade, "no-firing-case", text + "fires", "add one", rule.id)
            if all(fires):
                yield Problem(path, document.line, grade, "no-quiet-case", text + "must keep quiet", "add one", rule.id)


def _notes(rules: Iterable[Rule], guards: GuardSettings, now: datetime | None) -> Iterator[str]:
    open_guards: dict[GuardName, list[str]] = {}
    declared = guards.configured()
    for rule in rules:
        for guard in rule.section.guards:
            if guard not in declared:
                open_guards.setdefault(guard, []).append(rule.id)
        for name in rule.undefined:
            yield f"{rule.id}: the placeholder %{name}% is not defined, so nothing is excepted"
    for guard, ids in sorted(open_guards.items()):
        yield f"the guard {guard} guards nothing: nobody has declared it, and {len(ids)} rules name it ({', '.join(sorted(ids))})"
    for reference in guards.over(now):
        yield f"the window {reference} has ended: take it out of the guards file"


def _named(problems: Iterable[Problem], pairs: Sequence[Pair]) -> Iterator[Problem]:
    """Problems of documents with the id of the rule that they stand in."""
    for problem in problems:
        inside = [pair for pair in pairs if pair[1].path == problem.path and pair[1].line <= problem.line]
        if problem.rule or not inside:
            yield problem
        else:
            yield replace(problem, rule=max(inside, key=lambda pair: pair[1].line)[0].id)
