"""A folder of Sigma files → the rules that are asked of every event. All or nothing: one rule that cannot be honoured refuses the set.

A rule for another product's log is left out and said so; a rule that Sigma itself calls `unsupported` too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.errors import ConfigurationError
from rules.build import Skipped, build_correlation, build_event_rule, build_filter
from rules.guards import DEFAULT_PLACEHOLDERS
from rules.link import linked
from rules.rule import Rule
from rules.sigma.source import Document, read_documents, rule_files

BUILT_IN = Path(__file__).parent / "detections"


@dataclass(frozen=True, slots=True)
class _Parts:
    rules: list[tuple[Rule, Document]]
    skipped: list[Skipped]


class RuleSet:
    """Rules in the order of their files, found by id. `skipped` are sound rules that are not for Okta's log."""

    def __init__(self, rules: Iterable[Rule], skipped: Iterable[Skipped] = (), folder: Path | None = None) -> None:
        self.rules = tuple(rules)
        self.skipped = tuple(skipped)
        self.folder = folder
        self.rules_by_id = {rule.id: rule for rule in self.rules}
        #: Ids of the rules on trial (`shadow: true`).
        self.shadowed = frozenset(rule.id for rule in self.rules if rule.section.shadow)

    @classmethod
    def load(cls, folder: Path | None = None, placeholders: Mapping[str, tuple[str, ...]] | None = None) -> RuleSet:
        """Reads a folder (None: the built-in rules; a file is a folder of one) deep for *.yml and *.yaml.

        Raises ConfigurationError with path, line and reason where a rule cannot be honoured, where two have the same id or name,
        or where there is no rule at all.
        """
        folder = folder or BUILT_IN
        documents = [document for path in rule_files(folder) for document in read_documents(path)]
        if not documents:
            raise ConfigurationError(f"{folder}: no rules: a rule is a *.yml file in the Sigma format")
        parts = _parts(documents, DEFAULT_PLACEHOLDERS | dict(placeholders or {}))
        return cls(linked(parts.rules), parts.skipped, folder)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def get(self, rule_id: str) -> Rule | None:
        return self.rules_by_id.get(rule_id)

    @property
    def reported(self) -> tuple[Rule, ...]:
        """The rules that findings can name: all but those that only serve correlations."""
        return tuple(rule for rule in self.rules if rule.emits)


def _parts(documents: Iterable[Document], placeholders: Mapping[str, tuple[str, ...]]) -> _Parts:
    parts = _Parts([], [])
    ordinary = [document for document in documents if "filter" not in document.data]
    filters = [build_filter(document, placeholders) for document in documents if "filter" in document.data]
    for document in ordinary:
        if "correlation" in document.data:
            built: Rule | Skipped = build_correlation(document)
        else:
            built = build_event_rule(document, placeholders, filters)
        if isinstance(built, Skipped):
            parts.skipped.append(built)
        else:
            parts.rules.append((built, document))
    return parts
