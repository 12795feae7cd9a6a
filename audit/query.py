"""Compliance SQL: strangers may ask the audit file anything and change nothing, read nothing else, and take neither the memory nor the time.

Five walls, since each of them has a hole (measured on DuckDB 2.0):
1. Exactly one statement, SELECT or EXPLAIN of a SELECT. (A `WITH x AS (INSERT …) SELECT` counts as SELECT, hence 2.)
2. A READ ONLY transaction that is rolled back.
3. The instance has no access outside its file and its configuration is locked (database.py).
4. Time: interrupt, after `timeout_s`. A single call of a function is not interruptible, so those that run for hours on two texts, sleep, or
   hide SQL in a text are refused by name.
5. Memory: DuckDB's limit does not count what scalar functions build (`len(range(500000000))` took 16 GB under a limit of 512 MB), so while
   strange queries run, the process's data segment is limited too (Linux): the allocation fails, the query ends, the recorder goes on.

Rejected: a process of its own for queries (DuckDB lets only one process open the file), an allow-list of functions (hundreds, and auditors
need most of them).
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection, StatementType

from audit.database import explain
from audit.encode import distinct, encode_row
from audit.fence import memory
from model.errors import FaultError, PortcullisError

_FETCH = 512


class QueryRefused(PortcullisError):
    """The question cannot be put: not one SELECT, or DuckDB finds an error in it."""


class QueryStopped(PortcullisError):
    """The question took too much time or memory, or the recorder needed them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory_bytes` is what the process may grow by while queries run. `rows` and `result_bytes` cut the answer, with a notice."""

    timeout_s: float = 30.0
    rows: int = 1_000_000
    result_bytes: int = 1 << 30
    memory_bytes: int = 2 << 30


@dataclass(slots=True)
class Answer:
    """What is known when the last row is out: how many rows, and a notice where the answer was cut."""

    rows: int = 0
    notice: str | None = None


#: Not interruptible in one call, or a door around the parser.
_REFUSED = frozenset(
    {
        "levenshtein",
        "editdist3",
        "damerau_levenshtein",
        "jaro_similarity",
        "jaro_winkler_similarity",
        "sleep_ms",
        "write_log",
        "query",
        "json_execute_serialized_sql",
    }
)

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_EXPLAIN = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*explain(?:\s+analyze)?(?:\s*\([^()]*\))?\s", re.IGNORECASE | re.DOTALL)


def check(con: DuckDBPyConnection, query: str) -> str:
    """The one statement of `query`. Raises `QueryRefused`."""
    if _LONE_SURROGATE.search(query):
        raise QueryRefused("the question holds half a character (a lone surrogate)")
    try:
        statements = con.extract_statements(query)
    except duckdb.Error as error:
        raise QueryRefused(str(error).strip()) from None
    if len(statements) != 1:
        raise QueryRefused(f"exactly one statement may be asked, this is {len(statements)}")
    kind, asked = statements[0].type, query
    if kind == StatementType.EXPLAIN:
        asked = _explained(query)
        inner = _types(con, asked)
        kind = inner[0] if len(inner) == 1 else kind
    if kind == StatementType.MULTI:
        raise QueryRefused("write a PIVOT's values out: PIVOT … ON state IN ('open', 'released') …")
    if kind != StatementType.SELECT:
        raise QueryRefused(f"only SELECT and EXPLAIN of a SELECT may be asked, this is {_name(kind)}")
    _check_functions(con, asked)
    return query


def _name(kind: Any) -> str:
    return str(kind).rpartition(".")[2]


def _explained(query: str) -> str:
    found = _EXPLAIN.match(query)
    if found is None:
        raise QueryRefused("write EXPLAIN as the first word, without a comment behind it")
    return query[found.end() :]


def _types(con: DuckDBPyConnection, query: str) -> list[Any]:
    try:
        return [one.type for one in con.extract_statements(query)]
    except duckdb.Error as error:
        raise QueryRefused(explain(error)) from None


def _check_functions(con: DuckDBPyConnection, query: str) -> None:
    try:
        row = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchone()
    except duckdb.Error as error:
        raise QueryRefused(explain(error)) from None
    tree = json.loads(row[0]) if row else {"error": True}
    if tree.get("error"):
        raise QueryRefused(f"cannot be read as a SELECT: {tree.get('error_message', 'unknown reason')}")
    if refused := _functions(tree) & _REFUSED:
        raise QueryRefused(f"the function {', '.join(sorted(refused))} is not available here")


def _functions(tree: Any) -> set[str]:
    """Names of all functions in a syntax tree, without recursion (a query may nest deeper than Python's stack)."""
    found: set[str] = set()
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            name = node.get("function_name")
            if isinstance(name, str):
                found.add(name.strip('"').lower())
            todo.extend(node.values())
        elif isinstance(node, list):
            todo.extend(node)
    return found


def run(
    con: DuckDBPyConnection, query: str, limits: Limits, answer: Answer, *, monotonic: Callable[[], float] = time.monotonic
) -> Iterator[str]:
    """The rows, each the text of a JSON object, as they come; `answer` is filled on the way. `con` is this question's own connection.

    Raises `QueryRefused` and `QueryStopped`, either of them possibly after some rows.
    """
    check(con, query)
    give_up = monotonic() + limits.timeout_s
    with memory.limited(limits.memory_bytes), _read_only(con), _deadline(con, limits.timeout_s), _explained_errors(limits):
        con.execute(query)
        names = distinct([column[0] for column in con.description or ()])
        size = 0
        while rows := con.fetchmany(_FETCH):
            for row in rows:
                if answer.rows >= limits.rows or size >= limits.result_bytes:
                    answer.notice = f"cut after {answer.rows} rows: ask for less with LIMIT, WHERE or an aggregate"
                    return
                text = encode_row(names, row)
                size += len(text)
                answer.rows += 1
                yield text
            if monotonic() > give_up:
                raise QueryStopped(_too_long(limits))


def _too_long(limits: Limits) -> str:
    return f"stopped after {limits.timeout_s:g} s: narrow the question, or raise [audit] sql_timeout_s"


@contextmanager
def _explained_errors(limits: Limits) -> Iterator[None]:
    try:
        yield
    except duckdb.InterruptException:
        raise QueryStopped(_too_long(limits)) from None
    except (duckdb.OutOfMemoryException, MemoryError):
        raise QueryStopped("stopped: it needs more memory than a question may have: narrow it, or aggregate") from None
    except duckdb.FatalException as error:
        raise FaultError(f"the audit file is out of order, the process must be restarted: {explain(error)}") from None
    except duckdb.Error as error:
        raise QueryRefused(str(error).strip()) from None


@contextmanager
def _read_only(con: DuckDBPyConnection) -> Iterator[None]:
    con.execute("BEGIN TRANSACTION READ ONLY")
    try:
        yield
    finally:
        with suppress(duckdb.Error):
            con.execute("ROLLBACK")


@contextmanager
def _deadline(con: DuckDBPyConnection, timeout_s: float) -> Iterator[None]:
    """Interrupts, and again every second: an interrupt between two statements is forgotten."""
    over = threading.Event()

    def watch() -> None:
        wait = timeout_s
        while not over.wait(wait):
            with suppress(duckdb.Error):
                con.interrupt()
            wait = 1.0

    watcher = threading.Thread(target=watch, name="audit-sql-deadline", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
