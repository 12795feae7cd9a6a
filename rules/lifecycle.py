"""Event type → what moment of somebody's life it is, and whom it names (D2). A table, because people who run this change it
without reading code; `lifecycle.csv` beside it is ours. Rejected: patterns over names (`user.lifecycle.*` holds joins, leaves and neither)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from model.decision import Moment
from model.errors import ConfigurationError
from model.event import PersonRule

_BUILT_IN = Path(__file__).parent / "lifecycle.csv"
_COLUMNS = ["event_type", "moment", "person"]
#: `threat` is what rules say, never what a type is.
_MOMENTS = {moment.value: moment for moment in Moment if moment is not Moment.THREAT}
_PERSONS: dict[str, PersonRule] = {name: name for name in get_args(PersonRule)}

#: Types that are not in the table: no moment; target User, else actor User.
DEFAULT: tuple[Moment, PersonRule] = (Moment.NONE, "target-or-actor")


class Lifecycle:
    """The table as a lookup; event types are compared exactly, as Okta writes them."""

    def __init__(self, table: Mapping[str, tuple[Moment, PersonRule]]) -> None:
        self._table = dict(table)

    @classmethod
    def load(cls, path: Path | None = None) -> Lifecycle:
        """Reads a CSV with the columns event_type, moment, person (None: the built-in one).

        Raises ConfigurationError with path and line for an unknown word, a repeated type or wrong columns.
        """
        path = path or _BUILT_IN
        table: dict[str, tuple[Moment, PersonRule]] = {}
        try:
            with path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                if reader.fieldnames != _COLUMNS:
                    raise ConfigurationError(f"{path}:1: the columns must be {', '.join(_COLUMNS)}")
                for row in reader:
                    event_type, moment, person = (row[name] or "" for name in _COLUMNS)
                    where = f"{path}:{reader.line_num}"
                    if moment not in _MOMENTS or person not in _PERSONS:
                        words = f"moment one of {', '.join(_MOMENTS)}; person one of {', '.join(_PERSONS)}"
                        raise ConfigurationError(f"{where}: {moment!r}, {person!r}: {words}")
                    if not event_type or event_type in table:
                        raise ConfigurationError(f"{where}: {event_type!r} is empty or there already")
                    table[event_type] = (_MOMENTS[moment], _PERSONS[person])
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: cannot be read: {error}") from None
        return cls(table)

    def of(self, event_type: str) -> tuple[Moment, PersonRule]:
        """The moment and the person rule of a type; `DEFAULT` for types that are not in the table."""
        return self._table.get(event_type, DEFAULT)

    @property
    def event_types(self) -> frozenset[str]:
        return frozenset(self._table)
