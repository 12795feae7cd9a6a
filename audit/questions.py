"""The ready compliance questions: one SQL file each in `queries/`, with a head that says what it answers and for whom."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from model.errors import ConfigurationError

_FOLDER = Path(__file__).with_name("queries")


class Question(NamedTuple):
    """`title` is the first line of the head, `about` the rest of it; `sql` is the whole file."""

    name: str
    title: str
    about: str
    sql: str


def questions() -> list[Question]:
    """All of them, by name."""
    return [_read(path) for path in sorted(_FOLDER.glob("*.sql"))]


def question(name: str) -> Question:
    """Raises ConfigurationError with the names that exist."""
    found = {one.name: one for one in questions()}
    if name not in found:
        raise ConfigurationError(f"no question is called {name}: there are {', '.join(found)}")
    return found[name]


def _read(path: Path) -> Question:
    sql = path.read_text()
    head = []
    for line in sql.splitlines():
        if not line.startswith("--"):
            break
        head.append(line.removeprefix("--").strip())
    return Question(path.stem, head[0].partition(":")[0], "\n".join((head[0].partition(": ")[2], *head[1:])), sql)
