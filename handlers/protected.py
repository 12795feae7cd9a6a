"""People whom nothing here may take anything from: break-glass admins, our own service identities, approvers (N8).

Kept below rules and targets, by immutable id only: a look-alike name or a case-varied mail address is somebody else. The list is
strict, and a list that cannot be trusted protects everybody (D19): `state` then is not `loaded`, lockdowns become approvals and
removals hold. Rejected: an empty list as "nobody is protected"; an empty file is far more often a mistake than a wish.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from model.event import is_safe_id

State = Literal["loaded", "missing", "unreadable", "invalid", "empty"]


@dataclass(frozen=True, slots=True)
class ProtectedList:
    """`people`: (tenant, Okta id) → reason. `accounts`: (target, account id) of our own service identities at targets.
    `problem` names file, place and remedy where `state` is not `loaded`."""

    state: State
    people: dict[tuple[str, str], str]
    accounts: frozenset[tuple[str, str]] = frozenset()
    problem: str = ""

    @property
    def is_trusted(self) -> bool:
        return self.state == "loaded"

    def is_protected(self, tenant: str, person: str) -> bool:
        """True for whoever is listed. Ask `is_trusted` too: an untrusted list lists nobody."""
        return (tenant, person) in self.people

    def is_ours(self, target: str, account: str) -> bool:
        return (target, account) in self.accounts

    def reason(self, tenant: str, person: str) -> str:
        return self.people.get((tenant, person), "")

    def with_own(self, people: Iterable[tuple[str, str]] = (), accounts: Iterable[tuple[str, str]] = ()) -> ProtectedList:
        """Adds our own service identities, learnt at start (D5). They do not make an untrusted list trusted."""
        own = dict.fromkeys(people, "our own service identity")
        return replace(self, people=own | self.people, accounts=self.accounts | frozenset(accounts))


def load_protected(path: Path | None) -> ProtectedList:
    """Never raises: what cannot be trusted is a state (and `portcullis check` shows `problem`)."""
    if path is None:
        return _untrusted("missing", "no list of protected people is configured: set [safety] protected")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _untrusted("missing", f"{path}: no such file")
    except OSError as error:
        return _untrusted("unreadable", f"{path}: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return _untrusted("invalid", f"{path}: not valid TOML: {error}")
    return _checked(path, raw)


def _checked(path: Path, raw: dict[str, Any]) -> ProtectedList:
    rows = raw.get("person", [])
    if set(raw) - {"person"}:
        return _untrusted("invalid", f"{path}: unknown key {min(set(raw) - {'person'})}: only [[person]] is known")
    if not isinstance(rows, list):
        return _untrusted("invalid", f"{path}: person: write [[person]] with two brackets")
    people: dict[tuple[str, str], str] = {}
    for at, row in enumerate(rows, 1):
        if why := _wrong(row):
            return _untrusted("invalid", f"{path}: person {at}: {why}")
        key = (row["tenant"], row["id"])
        if key in people:
            return _untrusted("invalid", f"{path}: person {at}: {key[0]}:{key[1]} stands here twice")
        people[key] = row["reason"]
    if not people:
        return _untrusted("empty", f"{path}: names nobody: add at least the break-glass admin")
    return ProtectedList("loaded", people)


def _wrong(row: Any) -> str:
    if not isinstance(row, dict) or set(row) != {"tenant", "id", "reason"}:
        return "needs exactly tenant, id and reason"
    if not all(isinstance(value, str) and value.strip() for value in row.values()):
        return "tenant, id and reason must be texts that are not empty"
    return "" if is_safe_id(row["id"]) else f"{row['id']!r} is no Okta id (logins and names do not identify anybody)"


def _untrusted(state: State, problem: str) -> ProtectedList:
    return ProtectedList(state, {}, problem=problem)
