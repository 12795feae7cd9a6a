"""The checks of lint on what stands in a document: event types, fields and words that Okta's log does not have, each at its own line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sigma.exceptions import SigmaError
from sigma.rule import SigmaDetections

from rules import known
from rules.checks import Book, Grade, Problem, problem_at
from rules.sigma.compile import Compiler
from rules.sigma.expression import TRUE, given_type
from rules.sigma.match import Unsupported
from rules.sigma.source import Document, Keys


class Item(NamedTuple):
    """One `field|modifier: values` of a detection, and where it stands."""

    keys: Keys
    field: str
    modifiers: tuple[str, ...]
    values: list[Any]
    is_list: bool

    def at(self, index: int) -> Keys:
        return (*self.keys, index) if self.is_list else self.keys


def items(document: Document) -> Iterator[Item]:
    for section in ("detection", "filter"):
        body = document.data.get(section)
        for identifier, definition in body.items() if isinstance(body, dict) else ():
            if identifier not in ("condition", "rules"):
                yield from _items(definition, (section, identifier))


def _items(definition: Any, keys: Keys) -> Iterator[Item]:
    if isinstance(definition, dict):
        for key, value in definition.items():
            name, *modifiers = str(key).split("|")
            yield Item((*keys, str(key)), name, tuple(modifiers), value if isinstance(value, list) else [value], isinstance(value, list))
    elif isinstance(definition, list):
        for index, one in enumerate(definition):
            if isinstance(one, dict):
                yield from _items(one, (*keys, index))


def check_event_types(document: Document, book: Book) -> Iterator[Problem]:
    """A type that Okta does not have, or a pattern that fits none of its types."""
    for item in items(document):
        if item.field != "eventType" or {"exists", "fieldref"} & set(item.modifiers):
            continue
        if item.modifiers or not all(_is_plain(value) for value in item.values):
            yield from _patterns(document, item, book)
            continue
        for index, value in enumerate(item.values):
            if value not in book.catalogue:
                near = book.catalogue.nearest(value)
                yield problem_at(
                    document,
                    item.at(index),
                    "error",
                    "event-type",
                    f"{value!r} is none of Okta's event types (catalogue {book.catalogue.release})",
                    f"did you mean {near}?" if near else "mend it; if Okta added it since: portcullis rules refresh-catalogue",
                )


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and re.search(r"[*?\\%]", value) is None


def _patterns(document: Document, item: Item, book: Book) -> Iterator[Problem]:
    name = str(item.keys[-1])
    together = "all" in item.modifiers
    for index, value in enumerate([item.values] if together else item.values):
        if _fits_some(name, value, book) is False:
            shown = ", ".join(map(str, item.values)) if together else str(value)
            yield problem_at(
                document,
                item.keys if together else item.at(index),
                "error",
                "event-type",
                f"{name}: {shown} fits none of Okta's event types (catalogue {book.catalogue.release})",
                "mend the pattern, or leave it out",
            )


def _fits_some(name: str, value: Any, book: Book) -> bool | None:
    """None where the value cannot be honoured at all: loading says why."""
    try:
        detections = SigmaDetections.from_dict({"selection": {name: value}, "condition": "selection"})
        root = Compiler(detections, book.placeholders).expression().root
    except (SigmaError, Unsupported, TypeError, ValueError, AttributeError, KeyError):
        return None
    return any(given_type(root, one) == TRUE for one in book.catalogue.event_types)


def check_fields(document: Document, book: Book) -> Iterator[Problem]:
    """A field that Okta's log does not have; Okta adds fields, so one that resembles none is a warning."""
    for keys, name in _fields(document):
        try:
            fine = known.is_known(name)
        except ValueError:
            continue  # loading says so
        if not fine:
            near = known.nearest(name)
            grade: Grade = "error" if near else "warning"
            remedy = f"did you mean {near}?" if near else "look at a real event: names are Okta's, case included"
            yield problem_at(document, keys, grade, "field", f"{name}: Okta's log has no such field", remedy)


def _fields(document: Document) -> Iterator[tuple[Keys, str]]:
    """Every name of a field that the document writes, and where."""
    for item in items(document):
        if item.field:
            yield item.keys, item.field
        if "fieldref" in item.modifiers:
            yield from ((item.at(index), str(value)) for index, value in enumerate(item.values))
    data = document.data
    for keys in (
        ("correlation", "group-by"),
        ("correlation", "condition", "field"),
        ("portcullis", "first_seen", "field"),
        ("portcullis", "first_seen", "by"),
        ("portcullis", "absence", "by"),
    ):
        aliases = _get(data, "correlation", "aliases") if keys[1] == "group-by" else None
        for name in _listed(_get(data, *keys)):
            if not (isinstance(aliases, dict) and name in aliases):
                yield keys, name
    for alias, mapping in (_get(data, "correlation", "aliases") or {}).items():
        yield from ((("correlation", "aliases", alias), str(name)) for name in (mapping.values() if isinstance(mapping, dict) else ()))
    for index, also in enumerate(_get(data, "portcullis", "also") or ()):
        yield from ((("portcullis", "also", index), name) for name in _listed(_get(also, "field")))


def _get(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]


def check_words(document: Document, book: Book) -> Iterator[Problem]:
    """A word that a closed field never has."""
    for item in items(document):
        words = known.WORDS.get(item.field)
        if words is None or item.modifiers:
            continue
        for index, value in enumerate(item.values):
            if _is_plain(value) and value.upper() not in words:
                text = f"{item.field} is never {value!r}"
                yield problem_at(document, item.at(index), "warning", "value", text, f"one of {', '.join(sorted(words))}")


OF_DOCUMENT: tuple[Callable[[Document, Book], Iterator[Problem]], ...] = (check_event_types, check_fields, check_words)
