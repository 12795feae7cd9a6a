"""What a verification finds: heads to note elsewhere, breaks to look into, counts of what was looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

#: A report that is full names enough; the search then ends.
MOST_BREAKS = 1000


@dataclass(frozen=True, slots=True)
class Break:
    """One place where the trail is not whole. `partition` and `offset` are -1 where the damage belongs to no record."""

    topic: str
    partition: int
    offset: int
    what: str
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of one chain: offset and hash (hex) of its last record, and how many it has. Noted elsewhere, it shows a cut tail or an old
    copy of the file."""

    incarnation: str
    topic: str
    partition: int
    offset: int
    length: int
    hash: str


class Full(Exception):
    """The report names enough breaks."""


@dataclass(slots=True)
class VerifyReport:
    """`counts`: rows by table, and `repeats`, the chained records that are another one's repeat. `complete` is False where the report was
    full before everything had been looked at."""

    heads: list[Head] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    complete: bool = True

    @property
    def ok(self) -> bool:
        return not self.breaks

    def broken(self, topic: str, partition: int, offset: int, what: str, incarnation: str) -> None:
        """Notes a break, each once; raises Full when it is one too many."""
        found = Break(topic, partition, offset, what, incarnation)
        if found in self.breaks:
            return
        if len(self.breaks) >= MOST_BREAKS:
            raise Full
        self.breaks.append(found)

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok} | asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> VerifyReport:
        heads, breaks = [Head(**one) for one in told["heads"]], [Break(**one) for one in told["breaks"]]
        return cls(heads, breaks, told["counts"], told["complete"])
