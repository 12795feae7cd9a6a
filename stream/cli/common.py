"""What the commands share: options, the console, and how an error ends a command."""

from __future__ import annotations

import csv
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from model.errors import ConfigurationError, FaultError, PortcullisError

#: For people; what a program may read goes to standard output as JSON.
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("portcullis.toml"),
    show_default=True,
    help="The configuration (TOML).",
)
#: What begins a formula somewhere, in full width too.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table, for programs.")


class Command(click.Group):
    """Turns our errors into one clear line and the right exit code; only a defect shows a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except PortcullisError as error:
            for line in str(error).splitlines() or [type(error).__name__]:
                errors.print(Text("portcullis: ", style="bold red") + Text(line), soft_wrap=True)
            sys.exit(2 if isinstance(error, ConfigurationError) else 70 if isinstance(error, FaultError) else 1)
        except BrokenPipeError:
            sys.exit(1)


def print_json(value: Any) -> None:
    """ASCII JSON: lone surrogates and control characters stay escaped."""
    click.echo(json.dumps(value, ensure_ascii=True, default=str))


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """CSV with a head, for spreadsheets."""
    if rows:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([csv_cell(name) for name in rows[0]])
        writer.writerows([csv_cell(value) for value in row.values()] for row in rows)


def csv_cell(value: object) -> str:
    """A text that a spreadsheet would take for a formula begins with an apostrophe (OWASP: CSV injection). Numbers stay numbers; what a
    terminal would act on is replaced, line breaks too."""
    if value is None or isinstance(value, bool | int | float):
        return "" if value is None else str(value)
    text = inert(value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, default=str))
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], *, empty: str = "nothing") -> None:
    """A readable table; foreign text stands in it as text, never as markup or as a terminal's commands."""
    shown = Table(title=title or None, title_justify="left", header_style="bold", expand=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    count = 0
    for row in rows:
        count += 1
        shown.add_row(*(cell if isinstance(cell, Text) else Text(inert(cell)) for cell in row))
    console.print(shown if count else Text(f"{title}: {empty}" if title else empty, style="dim"))


def inert(value: object) -> str:
    """One line, printable: what an attacker chose does nothing to a terminal."""
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else "�" if not char.isspace() else " " for char in text)


def good(ok: bool) -> Text:
    return Text("ok", style="green") if ok else Text("missing", style="bold red")


OURS = ("stream", "handlers", "rules", "audit", "simulators", "model")


class Seldom(logging.Filter):
    """Lets the same words of a library through once in `every_s` seconds and says how often they came: without a broker each of a
    role's ten connections complains several times a second. What we say ourselves always passes."""

    def __init__(self, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s, self._clock = every_s, clock
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.split(".")[0] in OURS:
            return True
        key, now = (record.name, record.levelno, str(record.msg)), self._clock()
        at, missed = self._said.get(key, (float("-inf"), 0))
        if now - at < self._every_s:
            self._said[key] = (at, missed + 1)
            return False
        if len(self._said) >= 1000:
            self._said.clear()
        self._said[key] = (now, 0)
        if missed:
            record.msg, record.args = f"{record.getMessage()} ({missed} times more since it was said last)", None
        return True


def quiet_libraries(verbose: bool) -> None:
    """Our own words at INFO; what libraries say only when it is a warning. Faust's root logger is never left at DEBUG."""
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True)
    logging.getLogger().setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(Seldom())
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    logging.getLogger("faust").setLevel(logging.WARNING)
    logging.getLogger("mode").setLevel(logging.WARNING)


def run_async(work: Callable[[], Any]) -> Any:
    """Runs a coroutine function on uvloop where there is one."""
    import asyncio
    import gc
    import os

    os.umask(0o077)  # what we write holds personal data: the audit file, its log, reports
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(work())
    try:
        return uvloop.run(work())
    finally:
        gc.unfreeze()  # long roles freeze what stands; extension modules would report it as leaked
