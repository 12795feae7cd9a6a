"""How the audit file is opened, by whomever: locked down before the first strange query, its schema applied and its version checked.

`read_only=True` is no sandbox (it still reads files and copies out), so access to anything outside the file is switched off for the whole
instance, and the configuration is then locked. Rejected: one file per question (a second process cannot open a file that is written to).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from model.errors import ConfigurationError, FaultError

SCHEMA_VERSION = "1"
_SCHEMA = Path(__file__).with_name("schema.sql")

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "threads": "2",
    # Fewer, larger checkpoints: at 16 MB (the default) a busy recorder would write the last rows anew three times a second. A killed one
    # replays at most this much at its start (about a second).
    "checkpoint_threshold": "256MB",
    "max_temp_directory_size": "4GB",
}


@contextmanager
def faults(path: Path, doing: str) -> Iterator[None]:
    """What DuckDB cannot do is a fault: a full disk or a fatal error leaves an instance that only a restart heals."""
    try:
        yield
    except (duckdb.Error, MemoryError, OSError) as error:
        raise FaultError(f"{path}: {doing}: {explain(error)}") from error


def explain(error: BaseException) -> str:
    """The first line of a DuckDB error, without its hints."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def connect(path: Path, *, memory_limit: str = "1GB", read_only: bool = False) -> DuckDBPyConnection:
    """Opens the file, locked down. Take the lock (lock.py) first. Raises FaultError."""
    with faults(path, "cannot be opened"):
        if not read_only:
            _prepare(path)
        con = duckdb.connect(str(path), read_only=read_only, config=_SETTINGS | {"memory_limit": memory_limit})
        con.execute("SET GLOBAL TimeZone = 'UTC'")
        con.execute("SET lock_configuration = true")
        if not read_only:
            path.chmod(0o600)  # personal data, and DuckDB follows the umask
    return con


def _prepare(path: Path) -> None:
    """The folder, for its owner alone. An empty file is what a kill at the very first start leaves, and DuckDB refuses it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists() and path.stat().st_size == 0:
        path.unlink()


def apply_schema(con: DuckDBPyConnection, path: Path) -> None:
    """Makes what is missing, in one transaction. Raises ConfigurationError for a file of another version."""
    check_version(con, path, fresh="may be")
    with faults(path, "cannot apply schema.sql"):
        con.execute("BEGIN")
        con.execute(_SCHEMA.read_text())
        con.execute("INSERT INTO meta SELECT 'schema', ? WHERE NOT EXISTS (FROM meta WHERE name = 'schema')", [SCHEMA_VERSION])
        con.execute("COMMIT")


def check_version(con: DuckDBPyConnection, path: Path, *, fresh: str = "refused") -> None:
    """Raises ConfigurationError where the file is not ours or of another version; an empty one passes with `fresh="may be"`."""
    with faults(path, "cannot read its version"):
        tables = {name for (name,) in con.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()}
        if not tables and fresh == "may be":
            return
        row = con.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() if "meta" in tables else None
    if row is None:
        raise ConfigurationError(f"{path}: no audit file of Portcullis: name another in [audit] path")
    if row[0] != SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path}: written by another version (schema {row[0]}, this is {SCHEMA_VERSION}): "
            "move it away and start the recorder, which rebuilds it from the log"
        )
