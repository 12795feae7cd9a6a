"""Reading the access tables: TOML in, checked rows out. Whatever is not understood refuses, with its file and place.

A table brings its own vocabulary (levels in order of strength, attributes with their types), so a new kind of target needs a
table and no code here. Rejected: YAML (yes/no and duplicate keys pass silently) and a default row without a word (a forgotten
condition would silently mean everybody; `everyone = true` must be written).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NoReturn

from model.errors import ConfigurationError
from model.person import Person

_TYPES: dict[str, type] = {"integer": int, "text": str, "boolean": bool}
_CONDITIONS = ("department", "title", "user_type", "okta_group")
_ROW_KEYS = ("name", "everyone", "match", "exclusive", "attributes", *_CONDITIONS)


@dataclass(frozen=True, slots=True)
class Row:
    """`when`: (condition, accepted texts, folded). `grants`: (kind, name, level)."""

    name: str
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()
    match: Literal["all", "any"] = "all"
    exclusive: bool = False
    grants: tuple[tuple[str, str, str], ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def matches(self, person: Person) -> bool:
        if not self.when:
            return True
        holds = (_holds(condition, texts, person) for condition, texts in self.when)
        return any(holds) if self.match == "any" else all(holds)


@dataclass(frozen=True, slots=True)
class Table:
    """One file. `targets` empty: every target of that kind. `levels`: grant kind → levels, weakest first."""

    path: Path
    kind: str
    targets: frozenset[str]
    transfer: bool
    levels: Mapping[str, tuple[str, ...]]
    rows: tuple[Row, ...]

    def speaks_of(self, target: str, kind: str) -> bool:
        return kind == self.kind and (not self.targets or target in self.targets)

    @property
    def managed(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted({(kind, name) for row in self.rows for kind, name, _ in row.grants}))


def fold(text: str) -> str:
    return text.strip().casefold()


def _holds(condition: str, texts: tuple[str, ...], person: Person) -> bool:
    if condition == "okta_group":
        return any(fold(name) in texts for _, name in person.groups)
    value = fold(getattr(person, condition))
    if condition == "title":
        return any(fnmatchcase(value, glob) for glob in texts)
    return value in texts


def read_tables(folder: Path) -> tuple[Table, ...]:
    """Every *.toml of the folder in order of name. Raises ConfigurationError with file and place."""
    try:
        paths = sorted(folder.glob("*.toml")) if folder.is_dir() else []
    except OSError as error:
        raise ConfigurationError(f"{folder}: {error.strerror}") from None
    if not paths:
        raise ConfigurationError(f"{folder}: no access table (*.toml) here: set [rules] access, or leave it out for the built-in table")
    tables = tuple(_read(path) for path in paths)
    _no_rivals(tables)
    return tables


def _no_rivals(tables: tuple[Table, ...]) -> None:
    """Where two files speak of one target, their levels must agree, and no two rows may share a name or a condition."""
    for one, other in combinations(tables, 2):
        if one.kind != other.kind or (one.targets and other.targets and not one.targets & other.targets):
            continue
        for kind in one.levels.keys() & other.levels.keys():
            if one.levels[kind] != other.levels[kind]:
                raise ConfigurationError(f"{other.path}: grants.{kind}: other levels than in {one.path}: they speak of the same targets")
        _distinct([(table.path, row) for table in (one, other) for row in table.rows])
    for table in tables:
        _distinct([(table.path, row) for row in table.rows])


def _distinct(rows: list[tuple[Path, Row]]) -> None:
    seen: dict[tuple[Any, ...], str] = {}
    for path, row in rows:
        place = f"{path}: row {row.name!r}"
        for what, key in (("name", (row.name,)), ("conditions", (row.when, row.match, row.exclusive))):
            if (what, key) in seen:
                raise ConfigurationError(f"{place}: the same {what} as {seen[what, key]}: merge the two rows")
            seen[what, key] = place


def _read(path: Path) -> Table:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    return _Reader(path).table(raw)


class _Reader:
    """Checks one file. Every refusal names the file, the place and what would be accepted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def table(self, raw: dict[str, Any]) -> Table:
        self.keys(raw, ("kind", "targets", "leave", "attributes", "grants", "row"), "the file")
        kind = self.text(raw.get("kind"), "kind")
        levels = {name: self.levels(name, item) for name, item in self.object(raw.get("grants", {}), "grants").items()}
        types = {name: self.type_of(name, item) for name, item in self.object(raw.get("attributes", {}), "attributes").items()}
        rows = raw.get("row")
        if not isinstance(rows, list) or not rows:
            self.refuse("row", "needs at least one [[row]]")
        read = [self.row(at, self.object(item, f"row {at}"), levels, types) for at, item in enumerate(rows, 1)]
        leave = self.object(raw.get("leave", {}), "leave")
        self.keys(leave, ("transfer",), "leave")
        transfer = leave.get("transfer", "nobody")
        if transfer not in ("manager", "nobody"):
            self.refuse("leave.transfer", 'must be "manager" or "nobody"')
        targets = frozenset(self.texts(raw["targets"], "targets")) if "targets" in raw else frozenset[str]()
        return Table(self.path, kind, targets, transfer == "manager", levels, tuple(read))

    def row(self, at: int, raw: dict[str, Any], levels: Mapping[str, tuple[str, ...]], types: Mapping[str, type]) -> Row:
        name = self.text(raw.get("name"), f"row {at}: name")
        place = f"row {at} ({name})"
        self.keys(raw, (*_ROW_KEYS, *levels), place)
        when = tuple(
            (key, tuple(fold(text) for text in self.texts(raw[key], f"{place}: {key}", single=True))) for key in _CONDITIONS if key in raw
        )
        everyone, exclusive = (self.flag(raw.get(key, False), f"{place}: {key}") for key in ("everyone", "exclusive"))
        if everyone == bool(when):
            self.refuse(place, "needs a condition, or everyone = true and no condition")
        match = raw.get("match", "all")
        if match not in ("all", "any"):
            self.refuse(f"{place}: match", 'must be "all" or "any"')
        grants = tuple(grant for kind in levels if kind in raw for grant in self.grants(kind, raw[kind], levels[kind], place))
        attributes = self.attributes(raw.get("attributes", {}), types, place)
        if not grants and not attributes:
            self.refuse(place, "gives nothing")
        return Row(name, when, match, exclusive, grants, attributes)

    def grants(self, kind: str, raw: Any, levels: tuple[str, ...], place: str) -> list[tuple[str, str, str]]:
        where = f"{place}: {kind}"
        if not levels:
            return [(kind, name, "") for name in self.texts(raw, where)]
        given = self.object(raw, where)
        for name, level in given.items():
            self.text(name, where)
            if level not in levels:
                self.refuse(f"{where}.{name}", f"the level {level!r} is none of {', '.join(levels)}")
        return [(kind, name, level) for name, level in given.items()]

    def attributes(self, raw: Any, types: Mapping[str, type], place: str) -> dict[str, Any]:
        given = self.object(raw, f"{place}: attributes")
        self.keys(given, tuple(types), f"{place}: attributes")
        for name, value in given.items():
            if type(value) is not types[name]:
                self.refuse(f"{place}: attributes.{name}", f"must be {_word(types[name])}, not {value!r}")
        return given

    def levels(self, kind: str, raw: Any) -> tuple[str, ...]:
        if kind in _ROW_KEYS:
            self.refuse(f"grants.{kind}", "this name is taken by a row's own keys")
        place = f"grants.{kind}"
        given = self.object(raw, place)
        self.keys(given, ("levels",), place)
        levels = given.get("levels")
        return () if levels == [] else tuple(self.texts(levels, f"{place}.levels"))

    def type_of(self, name: str, raw: Any) -> type:
        if not isinstance(raw, str) or raw not in _TYPES:
            self.refuse(f"attributes.{name}", f"must be one of {', '.join(_TYPES)}")
        return _TYPES[raw]

    def texts(self, raw: Any, place: str, *, single: bool = False) -> list[str]:
        items = [raw] if single and isinstance(raw, str) else raw
        if not isinstance(items, list) or not items:
            self.refuse(place, "must be a list of texts that is not empty" + (", or a text" if single else ""))
        texts = [self.text(item, place) for item in items]
        if len(set(texts)) != len(texts):
            self.refuse(place, "names something twice")
        return texts

    def text(self, raw: Any, place: str) -> str:
        if not isinstance(raw, str) or not raw.strip() or raw != raw.strip():
            self.refuse(place, f"must be a text that is not empty and has no space around it, not {raw!r}")
        return raw

    def flag(self, raw: Any, place: str) -> bool:
        if not isinstance(raw, bool):
            self.refuse(place, f"must be true or false, not {raw!r}")
        return raw

    def object(self, raw: Any, place: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self.refuse(place, f"must be a table, not {raw!r}")
        return raw

    def keys(self, raw: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
        for key in raw:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                self.refuse(place, f"unknown key {key}: " + (f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"))

    def refuse(self, place: str, why: str) -> NoReturn:
        raise ConfigurationError(f"{self.path}: {place}: {why}")


def _word(kind: type) -> str:
    return next(word for word, known in _TYPES.items() if known is kind)
