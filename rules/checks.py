"""The checks of lint on what follows from a rule; those on what stands in its document are in `rules.wording`. Each yields problems."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from model.decision import Response
from rules import known, reach
from rules.catalogue import Catalogue
from rules.rule import Rule
from rules.sigma.compile import Placeholders
from rules.sigma.expression import Node, leaves_of
from rules.sigma.source import Document, Keys

Grade = Literal["error", "warning"]
#: Kinds of problems; docs/rules.md says what each means.
Code = Literal[
    "refused",
    "event-type",
    "field",
    "value",
    "never-fires",
    "unused",
    "outcome",
    "runbook",
    "outsider-locks",
    "duplicate-id",
    "duplicate-title",
    "attack-tag",
    "no-cases",
    "no-firing-case",
    "no-quiet-case",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `code` is its kind, for programs; `rule` the rule's id where there is one."""

    path: Path
    line: int
    grade: Grade
    code: Code
    text: str
    remedy: str
    rule: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "line": self.line,
            "severity": self.grade,
            "code": self.code,
            "rule": self.rule,
            "text": self.text,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Book:
    """What the checks look up: the catalogue, the placeholders, all rules by id, and what each can match."""

    catalogue: Catalogue
    placeholders: Placeholders
    rules: Mapping[str, Rule] = field(default_factory=dict)
    #: Rule id → event types that it can match → what it still asks of them.
    matched: Mapping[str, Mapping[str, Node]] = field(default_factory=dict)

    @property
    def alive(self) -> dict[str, bool]:
        """Which rules of single events can match. One that names only unknown types is not called dead: the types are told already."""
        return {one: bool(types) or self._names_unknown(self.rules[one]) for one, types in self.matched.items()}

    def _names_unknown(self, rule: Rule) -> bool:
        named = reach.types_named(rule)
        return bool(named) and not any(one in self.catalogue.folded for one in named or ())


def line_of(document: Document, *keys: str | int) -> int:
    """The line of the deepest key that is known."""
    for length in range(len(keys), 0, -1):
        if keys[:length] in document.lines:
            return document.lines[keys[:length]]
    return document.line


def problem_at(document: Document, keys: Keys, grade: Grade, code: Code, text: str, remedy: str) -> Problem:
    return Problem(document.path, line_of(document, *keys), grade, code, text, remedy)


# --- what follows from a rule ---------------------------------------------------------------------------------------------


def check_reach(rule: Rule, document: Document, book: Book) -> Iterator[Problem]:
    alive = book.alive
    if rule.expression is not None and not alive[rule.id]:
        text = "it can never fire: no event satisfies its condition"
        remedy = "one part excludes another, or a placeholder that it needs is empty: rules show says what remains"
        yield problem_at(document, ("detection", "condition"), "error", "never-fires", text, remedy)
    elif rule.spec is not None and not reach.fires(rule, book.rules, alive):
        text = "it can never fire: its rules cannot, or its condition holds for no number"
        yield problem_at(document, ("correlation", "condition"), "error", "never-fires", text, "mend its rules or its condition")
    for name in rule.unused:
        text = f"the condition does not use {name!r}"
        yield problem_at(document, ("detection", name), "warning", "unused", text, "name it in the condition, or take it out")


def check_outcome(rule: Rule, document: Document, book: Book) -> Iterator[Problem]:
    """A rule of something that is tried must say which outcome it means."""
    if rule.section.outcome == "any":
        return
    unasked = [one for one, node in book.matched.get(rule.id, {}).items() if known.can_fail(one) and not any(_asks_outcome(node))]
    if unasked:
        shown = ", ".join(unasked[:3]) + (f" and {len(unasked) - 3} more" if len(unasked) > 3 else "")
        nameless = reach.types_named(rule) is None
        text = "it names no event type and fires on what failed, too" if nameless else f"{shown} can fail, and the rule fires then too"
        remedy = "add outcome.result: SUCCESS (or what is meant), or say portcullis: outcome: any"
        yield problem_at(document, ("detection",), "warning", "outcome", text, remedy)


def _asks_outcome(node: Node) -> Iterator[bool]:
    for leaf, _ in leaves_of(node):
        yield leaf.name is None or any(name.split(".")[0] == "outcome" for name in (leaf.name, *leaf.fields))


def check_runbook(rule: Rule, document: Document, book: Book) -> Iterator[Problem]:
    if rule.response is Response.LOCKDOWN and not rule.runbook.strip():
        text = "it locks people and has no runbook"
        remedy = "say under portcullis: runbook what whoever is woken must do, and when to release"
        yield problem_at(document, ("portcullis", "response"), "error", "runbook", text, remedy)


def check_outsider(rule: Rule, document: Document, book: Book) -> Iterator[Problem]:
    """What somebody without a valid credential can cause never locks anybody: else knowing a name is enough to lock it."""
    if rule.response is not Response.LOCKDOWN or not causable(rule, book):
        return
    types = sorted({one for found in _parts(rule, book) for one in _causable_types(found, book)})
    shown = ", ".join(types[:3]) + (f" and {len(types) - 3} more" if len(types) > 3 else "")
    yield problem_at(
        document,
        ("portcullis", "response"),
        "error",
        "outsider-locks",
        f"it locks on {shown}, which somebody without a credential can cause: whoever knows a name could lock it",
        "ask for approve or alert; or demand a success (outcome.result: SUCCESS), or a second signal that only insiders cause (temporal)",
    )


def causable(rule: Rule, book: Book) -> bool:
    """Whether events that an outsider can cause are enough to make the rule fire."""
    spec = rule.spec
    if spec is None or rule.section.absence is not None:
        return bool(_causable_types(rule, book))
    members = [book.rules.get(rule.refers.get(name, "")) for name in spec.members]
    able = [at for at, one in enumerate(members) if one is not None and causable(one, book)]
    return reach.completes(spec, able) if spec.kind.is_temporal else bool(able)


def _parts(rule: Rule, book: Book) -> Iterator[Rule]:
    """The rules of single events that a rule consists of."""
    if rule.expression is not None:
        yield rule
        return
    for name in rule.spec.members if rule.spec is not None else ():
        member = book.rules.get(rule.refers.get(name, ""))
        if member is not None:
            yield from _parts(member, book)


def _causable_types(rule: Rule, book: Book) -> list[str]:
    return [
        one
        for one, node in book.matched.get(rule.id, {}).items()
        if known.is_outsiders(one) or (known.is_outsiders_unless_success(one) and not reach.demands_success(node))
    ]


TACTICS = frozenset(
    {
        "reconnaissance",
        "resource-development",
        "initial-access",
        "execution",
        "persistence",
        "privilege-escalation",
        "defense-evasion",
        "stealth",
        "defense-impairment",
        "credential-access",
        "discovery",
        "lateral-movement",
        "collection",
        "command-and-control",
        "exfiltration",
        "impact",
    }
)
_TECHNIQUE = re.compile(r"t\d{4}(\.\d{3})?|[gs]\d{4}|ds\d{4}")


def check_tags(rule: Rule, document: Document, book: Book) -> Iterator[Problem]:
    """ATT&CK tags as Sigma writes them: `attack.initial-access`, `attack.t1078.004`."""
    for index, tag in enumerate(rule.tags):
        space, _, name = tag.partition(".")
        if space.casefold() != "attack" or (space == "attack" and (name in TACTICS or _TECHNIQUE.fullmatch(name))):
            continue
        mended = name.casefold().replace("_", "-").replace(" ", "-")
        right = mended in TACTICS or _TECHNIQUE.fullmatch(mended) is not None
        remedy = f"write attack.{mended}" if right else "a tactic (attack.initial-access) or a technique (attack.t1078, attack.t1078.004)"
        yield problem_at(document, ("tags", index), "warning", "attack-tag", f"{tag!r} is no ATT&CK tag", remedy)


OF_RULE: tuple[Callable[[Rule, Document, Book], Iterator[Problem]], ...] = (
    check_reach,
    check_outcome,
    check_runbook,
    check_outsider,
    check_tags,
)
