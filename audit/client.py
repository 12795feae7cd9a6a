"""Questions to the audit trail, whoever has it (D28): the running recorder is asked over HTTP; where none runs, the file is opened here.

The lock decides which of the two it is, never the address file, which a killed recorder leaves behind. Synchronous: the callers are commands.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import duckdb
from duckdb import DuckDBPyConnection

from audit.database import check_version, connect
from audit.lock import FileLock, Held, holder
from audit.query import Answer, Limits, QueryRefused, QueryStopped, run
from audit.service import address_path
from audit.verify import Progress, VerifyReport, verify
from model.errors import ConfigurationError, FaultError

T = TypeVar("T")

_PATIENCE_S = 10.0
_PAUSE_S = 0.1


class Rows(list[dict[str, Any]]):
    """The rows of an answer; `notice` says where it was cut."""

    notice: str | None = None


class _NotThere(Exception):
    """Nobody answers at the address."""


class _GivenUp(Exception):
    """A recorder wants the file: ask it instead."""


@dataclass(frozen=True, slots=True)
class _Address:
    url: str
    token: str


def ask(
    path: Path,
    query: str,
    *,
    timeout_s: float = 30.0,
    memory_limit: str = "1GB",
    limits: Limits | None = None,
    patience_s: float = _PATIENCE_S,
) -> Rows:
    """Rows of one SELECT over the audit file `path` (settings.audit.path), values as JSON has them (encode.py).

    Raises QueryRefused (the question is at fault), QueryStopped (too much time or memory), ConfigurationError (no audit file yet), FaultError
    (the file cannot be had: the message names who has it). `timeout_s` and `limits` count only where the file is opened here.
    """
    bounds = limits or Limits(timeout_s=timeout_s)
    return _from_whoever_has_it(
        path,
        "audit sql",
        patience_s,
        lambda address: _ask_recorder(address, query, bounds.timeout_s),
        lambda lock: _ask_file(path, lock, query, bounds, memory_limit),
    )


def verify_trail(
    path: Path, *, progress: Progress | None = None, memory_limit: str = "1GB", patience_s: float = _PATIENCE_S
) -> VerifyReport:
    """`verify` over the audit file, asked of the running recorder or done here. Raises as `ask` does."""
    return _from_whoever_has_it(
        path,
        "audit verify",
        patience_s,
        lambda address: _verify_at_recorder(address, progress),
        lambda lock: _verify_file(path, lock, progress, memory_limit),
    )


def _from_whoever_has_it(path: Path, who: str, patience_s: float, remote: Callable[[_Address], T], local: Callable[[FileLock], T]) -> T:
    """Tries the recorder, then the file, until one of them can be had. A recorder that starts or ends in between is waited for."""
    give_up = time.monotonic() + patience_s
    while True:
        address = _address(path)
        if address is not None:
            with suppress(_NotThere):
                return remote(address)
        if not path.exists():
            raise ConfigurationError(f"{path}: no audit file yet: start the recorder (`portcullis run`), or name another in [audit] path")
        with suppress(_GivenUp):
            try:
                with FileLock(path, who, wait_s=0) as lock:
                    return local(lock)
            except Held:
                if time.monotonic() >= give_up:
                    raise FaultError(_unreachable(path, address)) from None
        time.sleep(_PAUSE_S)


def _unreachable(path: Path, address: _Address | None) -> str:
    where = f"does not answer at {address.url}" if address else "has not said yet where it can be asked"
    return f"{path} is in use by {holder(path)}, which {where}: wait for it, or end it"


def _address(path: Path) -> _Address | None:
    try:
        told = json.loads(address_path(path).read_bytes())
        return _Address(str(told["url"]), str(told["token"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _posted(address: _Address, what: str, body: dict[str, Any], timeout_s: float | None) -> Iterator[http.client.HTTPResponse]:
    """Raises _NotThere where the address is stale: nobody listens, or somebody who does not know our token."""
    parts = urlsplit(address.url)
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise _NotThere
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
    headers = {"Authorization": f"Bearer {address.token}", "Content-Type": "application/json"}
    try:
        try:
            connection.request("POST", what, json.dumps(body), headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException):
            raise _NotThere from None
        if response.status in (401, 404, 405):
            raise _NotThere
        yield response
    except (OSError, http.client.HTTPException) as error:
        raise FaultError(f"the recorder at {address.url} broke off its answer ({error or type(error).__name__}): ask again") from None
    finally:
        connection.close()


def _ask_recorder(address: _Address, query: str, timeout_s: float) -> Rows:
    # The recorder keeps the time; ours is only there to notice one that hangs.
    with _posted(address, "/sql", {"query": query}, timeout_s + 60) as response:
        body = response.read()
    told = _parsed(address, body)
    _raise_error(told)
    rows = Rows(told["rows"])
    rows.notice = told.get("notice")
    return rows


def _verify_at_recorder(address: _Address, progress: Progress | None) -> VerifyReport:
    with _posted(address, "/verify", {}, 600) as response:
        for line in response:
            told = _parsed(address, line)
            _raise_error(told)
            if "report" in told:
                return VerifyReport.from_dict(told["report"])
            if progress:
                progress(told["done"], told["all"])
    raise FaultError(f"the recorder at {address.url} broke off its answer: ask again")


def _parsed(address: _Address, body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise FaultError(f"the recorder at {address.url} broke off its answer: ask again")
    return told


def _raise_error(told: dict[str, Any]) -> None:
    if "error" in told:
        raise (QueryRefused if told.get("kind") == "refused" else QueryStopped)(told["error"])


@contextmanager
def _opened(path: Path, lock: FileLock, memory_limit: str) -> Iterator[DuckDBPyConnection]:
    """The file, read-only, until a recorder wants it."""
    con = connect(path, memory_limit=memory_limit, read_only=True)
    over, given_up = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(_PAUSE_S):
            if lock.is_wanted():
                given_up.set()
                with suppress(duckdb.Error):
                    con.interrupt()

    watcher = threading.Thread(target=watch, name="audit-lock-watch", daemon=True)
    watcher.start()
    try:
        check_version(con, path)
        yield con
    except (QueryStopped, FaultError):
        if given_up.is_set():
            raise _GivenUp from None
        raise
    finally:
        over.set()
        watcher.join()
        con.close()


def _ask_file(path: Path, lock: FileLock, query: str, limits: Limits, memory_limit: str) -> Rows:
    answer = Answer()
    with _opened(path, lock, memory_limit) as con:
        rows = Rows(json.loads(row) for row in run(con, query, limits, answer))
    rows.notice = answer.notice
    return rows


def _verify_file(path: Path, lock: FileLock, progress: Progress | None, memory_limit: str) -> VerifyReport:
    with _opened(path, lock, memory_limit) as con:
        return verify(con, progress=progress)
