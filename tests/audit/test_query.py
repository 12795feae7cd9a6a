"""Fault 53 and X3: what strangers' SQL may do, and everything that it must not."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from audit import query as module
from audit import store as store_module
from audit.fence import data_segment, memory
from audit.query import Answer, Limits, QueryRefused, QueryStopped, run
from audit.store import AuditStore
from model.errors import FaultError
from tests.audit.trail import Log, contents, day, event, rows

QUICK = Limits(timeout_s=1.0, memory_bytes=700 << 20)

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditStore]:
    with AuditStore(tmp_path_factory.mktemp("data") / "audit.duckdb", "one", memory_limit="256MB") as store:
        store.write(day())
        yield store
        store.write([Log().source(event("u-after"))._replace(offset=10_000)])
        assert ("u-after",) in rows(store, "SELECT uuid FROM events")


@pytest.fixture(scope="module")
def before(filled: AuditStore) -> tuple[Any, ...]:
    return contents(filled), _folder(filled)


def _folder(store: AuditStore) -> set[str]:
    return {one.name for one in store.path.parent.iterdir() if one.suffix != ".tmp"}


@pytest.fixture
def ask(filled: AuditStore) -> Ask:
    def asked(query: str, limits: Limits = QUICK, answer: Answer | None = None) -> list[dict[str, Any]]:
        with filled.reader() as cursor:
            return [json.loads(row) for row in run(cursor, query, limits, answer or Answer())]

    return asked


@pytest.fixture(autouse=True)
def _nothing_is_changed(filled: AuditStore, before: tuple[Any, ...]) -> Iterator[None]:
    """Whatever a test asks, the trail and its folder are afterwards what they were."""
    yield
    assert (contents(filled), _folder(filled)) == before


def test_rows_are_objects(ask: Ask) -> None:
    assert ask("SELECT tenant, uuid, published, raw IS NOT NULL AS kept FROM events WHERE uuid = 'u-risk'") == [
        {"tenant": "default", "uuid": "u-risk", "published": "2026-03-02T08:01:40Z", "kept": True}
    ]


@pytest.mark.parametrize(
    "query",
    [
        "select 1",
        "SELECT 1;",
        "-- a question\nSELECT 1 /* and its end */ ;",
        "FROM events LIMIT 1",
        "WITH x AS (SELECT 1) FROM x",
        "VALUES (1)",
        "TABLE holds",
        "DESCRIBE events",
        "SUMMARIZE holds",
        "SHOW TABLES",
        "EXPLAIN SELECT * FROM events",
        "explain analyze select count(*) from events",
        "EXPLAIN (FORMAT json) SELECT 1",
        "-- why\nEXPLAIN SELECT 1",
        "SELECT * FROM (PIVOT holds ON state IN ('open', 'released') USING count(*))",
        "SELECT current_setting('TimeZone')",
    ],
)
def test_what_may_be_asked(ask: Ask, query: str) -> None:
    assert ask(query)


NOT_ONE_SELECT = [
    "",
    ";",
    "-- nothing",
    "selec 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE records",
    "'; DROP TABLE records; --",
    "DROP TABLE records",
    "DROP VIEW events",
    "DELETE FROM chain",
    "UPDATE event_rows SET tenant = 'x'",
    "INSERT INTO meta VALUES ('a', 'b')",
    "INSERT INTO meta VALUES ('a', 'b') RETURNING *",
    "MERGE INTO meta USING meta AS m ON true WHEN MATCHED THEN DELETE",
    "TRUNCATE chain",
    "CREATE TABLE mine AS SELECT 1",
    "CREATE TEMP TABLE mine AS SELECT 1",
    "CREATE MACRO events() AS TABLE SELECT 1",
    "CREATE SECRET s (TYPE s3)",
    "ALTER TABLE records RENAME TO r",
    "ATTACH ':memory:' AS other",
    "ATTACH '/etc/passwd' AS other",
    "DETACH audit",
    "USE memory",
    "COPY events TO '/tmp/out.csv'",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "COPY meta FROM '/etc/passwd'",
    "EXPORT DATABASE '/tmp/out'",
    "IMPORT DATABASE '/tmp/out'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET memory_limit = '100GB'",
    "SET lock_configuration = false",
    "RESET memory_limit",
    "SET VARIABLE a = 1",
    "PRAGMA database_size",
    "PRAGMA disable_optimizer",
    "CALL pragma_version()",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "PIVOT holds ON state",
    "EXPLAIN DELETE FROM chain",
    "EXPLAIN ANALYZE DELETE FROM chain",
    "EXPLAIN ANALYZE INSERT INTO meta VALUES ('a', 'b')",
    "EXPLAIN ANALYZE CREATE TABLE mine AS SELECT 1",
    "EXPLAIN ANALYZE COPY events TO '/tmp/out.csv'",
    "EXPLAIN ANALYZE CHECKPOINT",
    "EXPLAIN ANALYZE SET threads = 1",
    "EXPLAIN/**/ANALYZE/**/DELETE FROM chain",
    "EXPLAIN ANALYZE (FORMAT json) DELETE FROM chain",
    "\ud800",
    "SELECT '\ud800'",
]


@pytest.mark.fault(53)
@pytest.mark.parametrize("query", NOT_ONE_SELECT)
def test_anything_but_one_select_is_refused_before_it_runs(ask: Ask, query: str) -> None:
    with pytest.raises(QueryRefused):
        ask(query)


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    "query",
    [
        "WITH gone AS (DELETE FROM chain RETURNING *) SELECT count(*) FROM gone",
        "WITH new AS (INSERT INTO meta VALUES ('a', 'b') RETURNING *) SELECT * FROM new",
        "EXPLAIN ANALYZE WITH gone AS (DELETE FROM chain RETURNING *) SELECT count(*) FROM gone",
    ],
)
def test_a_write_inside_a_select_meets_a_read_only_transaction(ask: Ask, query: str) -> None:
    with pytest.raises(QueryRefused, match="read-only"):
        ask(query)


OUTSIDE = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/hostname')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_parquet('/tmp/x.parquet')",
    "SELECT * FROM parquet_metadata('/tmp/x.parquet')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '*.csv'",
    "SELECT * FROM 'https://example.com/x.csv'",
    "SELECT * FROM read_csv('https://example.com/x.csv')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM glob('*')",
    "SELECT * FROM read_duckdb('{path}')",
    "SELECT getenv('HOME')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM which_secret('s3://x', 's3')",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT * FROM holds WHERE id IN (SELECT content FROM read_text('/etc/hostname'))",
    "EXPLAIN ANALYZE SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
]


@pytest.mark.fault(53)
@pytest.mark.parametrize("query", OUTSIDE)
def test_nothing_outside_the_file_can_be_read(ask: Ask, filled: AuditStore, query: str) -> None:
    with pytest.raises(QueryRefused):
        ask(query.replace("{path}", str(filled.path)))


def test_variables_of_the_program_are_no_tables(ask: Ask) -> None:
    events_of_python = [(1, 2)]
    assert events_of_python
    for name in ("events_of_python", "NOT_ONE_SELECT", "QUICK"):
        with pytest.raises(QueryRefused, match="does not exist"):
            ask(f"SELECT * FROM {name}")


def test_the_configuration_is_locked_for_the_recorder_itself(filled: AuditStore) -> None:
    with filled.reader() as cursor:
        with pytest.raises(Exception, match="locked"):
            cursor.execute("SET enable_external_access = true")
        with pytest.raises(Exception, match="locked"):
            cursor.execute("SET memory_limit = '10GB'")


def test_errors_say_what_is_wrong_with_the_question(ask: Ask) -> None:
    with pytest.raises(QueryRefused, match=r"(?s)column \"uid\" not found.*uuid"):
        ask("SELECT uid FROM events")
    with pytest.raises(QueryRefused, match="exactly one statement may be asked, this is 2"):
        ask("SELECT 1; SELECT 2")
    with pytest.raises(QueryRefused, match="only SELECT and EXPLAIN of a SELECT may be asked, this is DROP"):
        ask("DROP TABLE chain")
    with pytest.raises(QueryRefused, match="cast"):
        ask("SELECT uuid::INTEGER FROM events")


# --- time and memory ------------------------------------------------------------------------------------------------------


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE (a.range * b.range) % 7 = 3",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
        "SELECT count(*) FROM events a, events b, events c, events d, events e, events f, events g",
    ],
)
def test_a_question_without_end_is_stopped(ask: Ask, query: str) -> None:
    with pytest.raises(QueryStopped, match=r"stopped after 0\.2 s"):
        ask(query, Limits(timeout_s=0.2))


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    "query",
    [
        "SELECT a.range FROM range(100000) a, range(100000) b ORDER BY hash(a.range + b.range)",
        "SELECT list(range) FROM range(1000000000)",
        "SELECT string_agg(range::VARCHAR, ',') FROM range(1000000000)",
        "WITH RECURSIVE t(s) AS (SELECT 'xxxxxxxx' UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t",
        "SELECT len(range(500000000))",
        "SELECT length(repeat('x', 3000000000))",
        "SELECT length(replace(repeat('x', 1000000), 'x', repeat('y', 3000)))",
    ],
)
def test_a_question_that_needs_too_much_memory_is_stopped(ask: Ask, query: str) -> None:
    with pytest.raises(QueryStopped):
        ask(query, Limits(timeout_s=3, memory_bytes=500 << 20))
    assert (data_segment() or 0) < 3 << 30


@pytest.mark.parametrize("call", ["levenshtein('a', 'b')", "DAMERAU_LEVENSHTEIN('a', 'b')", "'a'.levenshtein('b')", "sleep_ms(100000)"])
def test_functions_that_cannot_be_interrupted_are_not_there(ask: Ask, call: str) -> None:
    with pytest.raises(QueryRefused, match="is not available here"):
        ask(f"SELECT {call}")
    with pytest.raises(QueryRefused, match="is not available here"):
        ask(f"EXPLAIN ANALYZE SELECT * FROM events WHERE uuid IN (SELECT 'x' WHERE {call} IS NULL)")


def test_a_deeply_nested_question_is_an_error_like_any_other(ask: Ask) -> None:
    with pytest.raises((QueryRefused, QueryStopped)):
        ask("SELECT " + "(" * 20_000 + "1" + ")" * 20_000)
    with pytest.raises((QueryRefused, QueryStopped)):
        ask("SELECT " + "1 + " * 20_000 + "1")


def test_the_memory_fence_is_taken_down_again_and_counts_its_guests() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory.limited(1 << 30):
        inside = resource.getrlimit(resource.RLIMIT_DATA)
        with memory.limited(2 << 30):
            assert resource.getrlimit(resource.RLIMIT_DATA) == inside
        assert resource.getrlimit(resource.RLIMIT_DATA) == inside
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    if data_segment() is not None:
        assert inside[0] < (data_segment() or 0) + (2 << 30)


# --- how much comes back ----------------------------------------------------------------------------------------------------


def test_an_answer_is_cut_with_a_notice(ask: Ask) -> None:
    answer = Answer()
    rows = ask("SELECT range AS n FROM range(1000000000000)", Limits(rows=1000), answer)
    assert rows[-1] == {"n": 999}
    assert answer == Answer(1000, "cut after 1000 rows: ask for less with LIMIT, WHERE or an aggregate")

    answer = Answer()
    assert len(ask("SELECT repeat('x', 1000) FROM range(100000)", Limits(result_bytes=50_000), answer)) == 49
    assert answer.notice


def test_an_answer_that_fits_has_no_notice(ask: Ask) -> None:
    answer = Answer()
    ask("SELECT * FROM range(1000)", Limits(rows=1000), answer)
    assert answer == Answer(1000, None)


def test_an_abandoned_answer_leaves_no_transaction(filled: AuditStore) -> None:
    with filled.reader() as cursor:
        rows = run(cursor, "SELECT * FROM range(100000)", QUICK, Answer())
        next(rows)
        rows.close()  # type: ignore[attr-defined]
        assert [json.loads(row) for row in run(cursor, "SELECT 1 AS one", QUICK, Answer())] == [{"one": 1}]
    assert not [one for one in threading.enumerate() if one.name == "audit-sql-deadline"]


def test_a_question_reads_one_state_of_the_trail(store: AuditStore) -> None:
    log = Log()
    store.write([log.source(event(f"u-{n}")) for n in range(3)])
    with store.reader() as cursor:
        rows = run(cursor, "SELECT uuid FROM events, range(2000)", Limits(), Answer())
        found = [next(rows)]
        store.write([log.source(event("u-meanwhile"))])
        found.extend(rows)
        assert len(found) == 6000
        assert len(list(run(cursor, "SELECT uuid FROM events, range(2000)", Limits(), Answer()))) == 8000


# --- the recorder goes first ------------------------------------------------------------------------------------------------


def test_a_write_that_runs_out_of_memory_breaks_the_readers_off_and_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with AuditStore(path, "one") as store:
        tries: list[int] = []
        original = store._write

        def short(batch: Any) -> None:
            tries.append(1)
            if len(tries) < 3:
                raise duckdb.OutOfMemoryException("Out of Memory Error: failed to allocate")
            original(batch)

        monkeypatch.setattr(store, "_write", short)
        ended: list[BaseException] = []

        def read() -> None:
            try:
                with store.reader() as cursor:
                    list(
                        run(
                            cursor,
                            "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range % 7 = b.range",
                            Limits(),
                            Answer(),
                        )
                    )
            except QueryStopped as error:
                ended.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        while not store._readers:
            threading.Event().wait(0.01)
        threading.Event().wait(0.2)
        store.write(day())
        reader.join(10)
        assert len(tries) == 3
        assert len(ended) == 1
        assert store.positions()


def test_many_may_ask_while_the_recorder_writes(store: AuditStore) -> None:
    over, wrong = threading.Event(), list[BaseException]()
    counts: list[int] = []

    def reader() -> None:
        try:
            while not over.is_set():
                with store.reader() as cursor:
                    (row,) = run(cursor, "SELECT count(*) AS n, count(DISTINCT uuid) AS d FROM events", Limits(), Answer())
                found = json.loads(row)
                assert found["n"] == found["d"]
                assert found["n"] % 10 == 0
                counts.append(found["n"])
        except BaseException as error:
            wrong.append(error)

    readers = [threading.Thread(target=reader) for _ in range(3)]
    for one in readers:
        one.start()
    log = Log()
    for batch in range(60):
        store.write([log.source(event(f"u-{batch}-{n}")) for n in range(10)])
    over.set()
    for one in readers:
        one.join()
    assert wrong == []
    assert len(set(counts)) > 3


def test_a_write_that_never_has_memory_is_a_fault(store: AuditStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PRESSURE_PAUSE_S", 0.0)

    def short(batch: Any) -> None:
        raise duckdb.OutOfMemoryException("Out of Memory Error: failed to allocate data\nhint")

    monkeypatch.setattr(store, "_write", short)
    with pytest.raises(FaultError, match=r"Out of Memory Error: failed to allocate data$"):
        store.write(day())
    with pytest.raises(FaultError, match="cannot write"):
        store.write(day())


def test_the_names_of_functions_are_found_wherever_they_stand() -> None:
    tree = {"a": [{"function_name": '"Levenshtein"', "children": [{"function_name": "SUM"}]}], "function_name": "x"}
    assert module._functions(tree) == {"levenshtein", "sum", "x"}
