"""Rule files → documents with line numbers, and pySigma's objects from them. Strict: a key that stands twice, an alias bomb, a tag
that builds objects, or a file that is not UTF-8 is refused with its line. Rejected: pySigma's own loader (no lines, later duplicates win).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml
from sigma.exceptions import SigmaError
from sigma.rule import SigmaDetection, SigmaRule
from sigma.rule.base import check_alias_expansion

from model.errors import ConfigurationError

#: A rule file longer than this is no rule file.
LARGEST_FILE = 4 * 1024 * 1024
#: Old names that pySigma does not know (the appendix of modifiers 2.1 has both).
_MODIFIER_ALIASES = {"utf16le": "wide"}

Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document of a file: its content, and the line of each key by its path."""

    path: Path
    line: int
    data: dict[str, Any]
    lines: Mapping[Keys, int] = field(default_factory=dict, compare=False, repr=False)

    def refuse(self, reason: str, *keys: str | int) -> ConfigurationError:
        """The error for this place: path, line of the deepest key that is known, reason."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.lines:
                return ConfigurationError(f"{self.path}:{self.lines[keys[:length]]}: {reason}")
        return ConfigurationError(f"{self.path}:{self.line}: {reason}")

    def refuse_field(self, reason: str, identifier: str, name: str | None) -> ConfigurationError:
        """As `refuse`, for a field of a search identifier (its key carries modifiers)."""
        for keys in self.lines:
            if keys[:2] == ("detection", identifier) and len(keys) > 2 and str(keys[-1]).split("|")[0] == (name or ""):
                return self.refuse(reason, *keys)
        return self.refuse(reason, "detection", identifier)

    @property
    def version(self) -> str:
        """16 hex digits over the content: comments, order of keys and layout do not count."""
        text = json.dumps(self.data, sort_keys=True, default=_plain, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def joined_version(first: str, *others: str) -> str:
    """One version from several; the first alone stays what it is."""
    return hashlib.sha256("\0".join((first, *others)).encode("utf-8", "backslashreplace")).hexdigest()[:16] if others else first


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)


class _Loader(yaml.CSafeLoader):
    """YAML as pySigma reads it, but a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None), date)):
                raise yaml.MarkedYAMLError(problem="a key must be a text", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def rule_files(folder: Path) -> list[Path]:
    """All *.yml and *.yaml below a folder (or the file itself), in a stable order. Raises ConfigurationError where there is nothing to read."""
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder of rules")
    return sorted(path for path in folder.rglob("*") if path.suffix in (".yml", ".yaml") and path.is_file())


def read_documents(path: Path) -> list[Document]:
    """The documents of a file, empty ones left out. Raises ConfigurationError with path and line."""
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    if len(raw) > LARGEST_FILE:
        raise ConfigurationError(f"{path}: {len(raw)} bytes are too many for a file of rules")
    try:
        return [document for node, data in _nodes(text) if (document := _document(path, node, data)) is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{path}{line}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except (RecursionError, ValueError) as error:
        raise ConfigurationError(f"{path}: not valid YAML: {type(error).__name__}: {error}") from None


def _nodes(text: str) -> Iterator[tuple[yaml.Node, Any]]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield node, loader.construct_document(node)
    finally:
        loader.dispose()


def _document(path: Path, node: yaml.Node, data: Any) -> Document | None:
    line = node.start_mark.line + 1
    if data is None:
        return None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigurationError(f"{path}:{line}: a rule is a mapping of texts to values")
    try:
        check_alias_expansion(data)
    except SigmaError as error:
        raise ConfigurationError(f"{path}:{line}: {error}") from None
    lines: dict[Keys, int] = {}
    _note_lines(node, (), lines)
    return Document(path, line, _with_known_modifiers(data), lines)


def _note_lines(node: yaml.Node, keys: Keys, lines: dict[Keys, int]) -> None:
    if len(keys) > 8 or len(lines) > 20_000:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*keys, str(key.value))] = key.start_mark.line + 1
            _note_lines(value, (*keys, str(key.value)), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*keys, index)] = value.start_mark.line + 1
            _note_lines(value, (*keys, index), lines)


def _with_known_modifiers(value: Any) -> Any:
    if isinstance(value, dict):
        return {_known_key(key): _with_known_modifiers(item) for key, item in value.items()}
    return [_with_known_modifiers(item) for item in value] if isinstance(value, list) else value


def _known_key(key: Any) -> Any:
    if not isinstance(key, str) or "|" not in key:
        return key
    name, *modifiers = key.split("|")
    return "|".join([name, *(_MODIFIER_ALIASES.get(modifier, modifier) for modifier in modifiers)])


def locate(document: Document, error: SigmaError) -> ConfigurationError:
    """pySigma says what is wrong but not where: each field of the detection is tried alone until one raises the same."""
    reason = str(error.args[0]) if error.args else type(error).__name__
    detection = document.data.get("detection")
    for identifier, definition in detection.items() if isinstance(detection, dict) else ():
        for keys, one in _alone(definition):
            try:
                SigmaDetection.from_definition(one)
            except SigmaError as found:
                if str(found.args[0] if found.args else "") == reason:
                    return document.refuse(reason, "detection", identifier, *keys)
            except (TypeError, ValueError, AttributeError):
                return document.refuse(reason, "detection", identifier, *keys)
    folded = reason.casefold().replace(" ", "")
    named = next((key for key in document.data if key not in ("detection", "correlation") and key.casefold() in folded), None)
    return document.refuse(reason, *((named,) if named else ("detection",) if "detectio" in folded or "condition" in folded else ()))


def _alone(definition: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    if isinstance(definition, dict):
        for key, value in definition.items():
            yield (*keys, key), {key: value}
    elif isinstance(definition, list):
        for index, item in enumerate(definition):
            yield from _alone(item, (*keys, index)) if isinstance(item, dict) else [((*keys, index), [item])]


def sigma_rule(document: Document) -> SigmaRule:
    """pySigma's rule of a document. Raises ConfigurationError with path, line and reason."""
    data = {key: value for key, value in document.data.items() if key not in ("id", "portcullis")}
    try:
        return SigmaRule.from_dict(data)
    except SigmaError as error:
        raise locate(document, error) from None
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise document.refuse(f"no Sigma rule: {error}", "detection") from None
