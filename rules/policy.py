"""What somebody should hold at a target: a pure function of who they are in Okta now and of the access tables.

Holds, links and what a target holds today are not known here; the engine weighs those. `None` means that policy does not speak
of this target for this person: nothing is opened and nothing is closed. Only what a table names is ever revoked, so a grant that
somebody gave by hand outside the managed names stays.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.person import Desired, Grant, Person, PersonStatus
from rules.tables import Row, Table, read_tables

BUILT_IN = Path(__file__).parent / "access"


@dataclass(frozen=True, slots=True)
class Policy:
    """`version` is a hash over the tables' bytes."""

    tables: tuple[Table, ...]
    version: str = ""

    @classmethod
    def load(cls, folder: Path | None = None) -> Policy:
        """Reads every table of a folder (None: the built-in ones). Raises ConfigurationError with file, place and remedy."""
        tables = read_tables(folder or BUILT_IN)
        digest = hashlib.sha256()
        for table in tables:
            digest.update(table.path.name.encode() + b"\0" + table.path.read_bytes() + b"\0")
        return cls(tables, digest.hexdigest()[:16])

    def desired(
        self, person: Person, target: str, kind: str, *, manager: Person | None = None, transfer_due: bool = False
    ) -> Desired | None:
        """What policy asks of `target` (an instance of `kind`). STAGED and unknown statuses: None, so that nothing is opened early.

        Gone: inactive and without managed grants; `transfer_to` (the manager's Okta id) only when DEPROVISIONED and `transfer_due`.
        """
        tables = self._tables(target, kind)
        if not tables:
            return None
        managed = tuple(sorted({pair for table in tables for pair in table.managed}))
        if person.status.is_gone:
            ends = person.status is PersonStatus.DEPROVISIONED and transfer_due and any(table.transfer for table in tables)
            return Desired(
                target=target,
                active=False,
                transfer_to=manager.id if ends and manager else None,
                reasons=(f"{person.status.value} in Okta",),
                managed=managed,
            )
        if not person.status.is_present:
            return None
        rows = _matching(tables, person)
        attributes: dict[str, Any] = {}
        for _, row in rows:
            attributes.update(row.attributes)
        return Desired(
            target=target,
            active=True,
            attributes=attributes,
            grants=_strongest(rows),
            reasons=tuple(f"{table.path.name}: {row.name}" for table, row in rows),
            managed=managed,
        )

    def names(self, grant: str, kind: str, target: str = "") -> tuple[str, ...]:
        """Managed names of one grant kind (`group`, `folder`) at targets of `kind`, sorted; `target` narrows to one instance."""
        tables = [table for table in self.tables if table.kind == kind and (not target or table.speaks_of(target, kind))]
        return tuple(sorted({name for table in tables for what, name in table.managed if what == grant}))

    def folders(self, kind: str, target: str = "") -> tuple[str, ...]:
        return self.names("folder", kind, target)

    def groups(self, kind: str, target: str = "") -> tuple[str, ...]:
        return self.names("group", kind, target)

    def _tables(self, target: str, kind: str) -> tuple[Table, ...]:
        return tuple(table for table in self.tables if table.speaks_of(target, kind))


def _matching(tables: tuple[Table, ...], person: Person) -> list[tuple[Table, Row]]:
    rows = [(table, row) for table in tables for row in table.rows if row.matches(person)]
    exclusive = [pair for pair in rows if pair[1].exclusive]
    return exclusive or rows


def _strongest(rows: list[tuple[Table, Row]]) -> tuple[Grant, ...]:
    best: dict[tuple[str, str], tuple[int, str]] = {}
    for table, row in rows:
        for kind, name, level in row.grants:
            strength = table.levels[kind].index(level) if level else 0
            if strength >= best.get((kind, name), (-1, ""))[0]:
                best[kind, name] = (strength, level)
    return tuple(Grant(kind=kind, name=name, level=level) for (kind, name), (_, level) in sorted(best.items()))
