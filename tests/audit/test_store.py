"""What rows a batch becomes (contracts.md "Tables"), what is a repeat, and what is refused."""

from __future__ import annotations

import hashlib
import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.chain import GENESIS
from audit.store import AuditStore, LogRecord
from audit.verify import verify
from model.change import ActionStatus
from model.decision import Moment
from model.errors import ConfigurationError, FaultError
from tests.audit.trail import (
    AUDIT,
    LEAVER,
    PERSON,
    SOURCE,
    Log,
    action,
    at,
    classified,
    contents,
    day,
    decision,
    event,
    incident,
    rows,
)

CONTRACT = {
    "events": "tenant uuid published received event_type severity outcome actor_id people moment raw incarnation topic partition offset",
    "decisions": "id tenant event_uuid person rule rule_version response severity matched decided",
    "actions": "intent attempt incident tenant person target account change before after status request_id intended called answered observed",
    "incidents": "id tenant person state opened contained closed",
    "holds": "id tenant person incident state since released released_by reason",
    "quarantine": "tenant reason raw size sha256 received incarnation topic partition offset",
    "records": "key value incarnation topic partition offset",
    "chain": "key_sha256 value_sha256 hash incarnation topic partition offset",
}
TIMES = {
    "events": ["published", "received"],
    "decisions": ["decided"],
    "actions": ["intended", "called", "answered", "observed"],
    "incidents": ["opened", "contained", "closed"],
    "holds": ["since", "released"],
    "quarantine": ["received"],
}


@pytest.mark.parametrize("table", CONTRACT)
def test_the_tables_have_the_promised_columns(store: AuditStore, table: str) -> None:
    types = dict(rows(store, f"SELECT column_name, column_type FROM (DESCRIBE {table})"))
    assert not set(CONTRACT[table].split()) - set(types)
    assert {types[name] for name in TIMES.get(table, [])} <= {"TIMESTAMP WITH TIME ZONE"}
    assert {types[name] for name in ("key", "value", "hash", "raw") if name in types} <= {"BLOB"}
    if table == "events":
        assert types["people"] == "VARCHAR[]"


def test_an_event_becomes_a_row_with_its_exact_bytes(store: AuditStore) -> None:
    log = Log()
    raw = event("u-1", "user.lifecycle.create", 60)
    record = log.source(raw, seconds=61)
    store.write(log.records)
    found = rows(
        store,
        'SELECT tenant, uuid, published, received, event_type, severity, outcome, actor_id, people, moment, raw, topic, "offset" FROM events',
    )
    assert found == [
        ("default", "u-1", at(60), at(61), "user.lifecycle.create", "INFO", "SUCCESS", "00u3adm", [], "none", raw, SOURCE, record.offset)
    ]


@pytest.mark.fault(4)
@pytest.mark.parametrize("published", ["2017-09-31T22:23:07.777Z", "2016-12-31T23:59:60Z", None, 12, "yesterday", ""])
def test_an_unreadable_published_is_null_and_the_receive_time_stands(store: AuditStore, published: object) -> None:
    log = Log()
    log.source(event("u-1", published=published), seconds=5)
    store.write(log.records)
    assert rows(store, "SELECT published, received FROM events") == [(None, at(5))]


@pytest.mark.fault(13)
def test_one_malformed_event_among_a_thousand_is_quarantined_with_its_bytes(store: AuditStore) -> None:
    log = Log()
    for n in range(999):
        log.source(event(f"u-{n}"))
    poison = b'{"uuid": 7, "eventType": "x"}'
    log.source(poison, seconds=9)
    store.write(log.records)
    assert rows(store, "SELECT count(*) FROM events") == [(999,)]
    assert rows(store, "SELECT tenant, reason, raw, size, sha256, received FROM quarantine") == [
        ("default", "no_uuid", poison, len(poison), hashlib.sha256(poison).hexdigest(), at(9))
    ]


MALFORMED = {
    b"": "unreadable",
    b"\xff\xfe": "unreadable",
    b"<html>": "unreadable",
    b'{"uuid": "u", "eventType": "x", "n": 1e999}': "unreadable",
    b'{"uuid": "u", "eventType": "x", "n": ' + b"9" * 5000 + b"}": "unreadable",
    b'{"uuid": "u", "eventType": "x", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}": "unreadable",
    b"[]": "not_an_object",
    b"null": "not_an_object",
    b'{"eventType": "x"}': "no_uuid",
    b'{"uuid": "", "eventType": "x"}': "no_uuid",
    b'{"uuid": "\\ud800", "eventType": "x"}': "no_uuid",
    b'{"uuid": "u", "eventType": null}': "no_event_type",
}


@pytest.mark.fault(19)
@pytest.mark.fault(20)
@pytest.mark.parametrize("raw", MALFORMED, ids=lambda raw: repr(raw[:20]))
def test_malformed_is_what_decision_one_says(store: AuditStore, raw: bytes) -> None:
    log = Log()
    log.source(raw)
    store.write(log.records)
    assert rows(store, "SELECT reason, raw FROM quarantine") == [(MALFORMED[raw], raw)]
    assert rows(store, "SELECT count(*) FROM events") == [(0,)]


@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_an_event_of_no_tenant_is_quarantined(store: AuditStore, key: bytes | None) -> None:
    log = Log()
    log.source(event("u-1"), key=key)
    store.write(log.records)
    assert rows(store, "SELECT reason, raw FROM quarantine") == [("no_tenant", event("u-1"))]


@pytest.mark.fault(17)
@pytest.mark.fault(18)
def test_lone_surrogates_and_nul_are_escaped_in_text_and_exact_in_raw(store: AuditStore) -> None:
    log = Log()
    raw = b'{"uuid": "u\\u0000x", "eventType": "a\\u0000b", "severity": "\\ud83d", "actor": {"id": "\\udc00z"}, "outcome": {"result": "\\u0000"}}'
    log.source(raw)
    store.write(log.records)
    store.write([log.source(raw)])
    assert rows(store, "SELECT uuid, event_type, severity, actor_id, outcome, raw FROM events") == [
        ("u\0x", "a\0b", "\\ud83d", "\\udc00z", "\0", raw)
    ]
    assert rows(store, "SELECT count(*) FROM events WHERE uuid = 'u' || chr(0) || 'x'") == [(1,)]


def test_fields_of_the_wrong_type_are_null(store: AuditStore) -> None:
    log = Log()
    log.source(b'{"uuid": "u", "eventType": "x", "severity": 3, "actor": [], "outcome": "SUCCESS"}')
    store.write(log.records)
    assert rows(store, "SELECT severity, actor_id, outcome FROM events") == [(None, None, None)]


@pytest.mark.fault(3)
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
def test_same_uuid_same_bytes_is_a_repeat_other_bytes_a_conflict(store: AuditStore, together: bool) -> None:
    log = Log()
    first, other = event("u-1"), event("u-1", "user.session.end")
    for raw in (first, first, other, first, other):
        log.source(raw)
    log.source(first, key=b"second")
    for batch in [log.records] if together else [[one] for one in log.records]:
        store.write(batch)
    assert rows(store, "SELECT tenant, raw FROM events ORDER BY ALL") == [("default", first), ("second", first)]
    assert rows(store, 'SELECT reason, raw, "offset" FROM quarantine') == [("uuid_conflict", other, 2)]
    assert rows(store, "SELECT count(*) FROM chain") == [(6,)]


@pytest.mark.parametrize("late", [False, True], ids=["event first", "word first"])
def test_people_and_moment_come_from_the_classifiers_record_in_either_order(store: AuditStore, late: bool) -> None:
    log = Log()
    batches = [[log.source(event("u-1"))], [log.audit(classified("u-1", Moment.LEAVE, [PERSON, LEAVER]))]]
    for batch in reversed(batches) if late else batches:
        store.write(batch)
    assert rows(store, "SELECT uuid, people, moment FROM events") == [("u-1", [PERSON, LEAVER], "leave")]


def test_a_second_word_with_an_id_of_its_own_replaces_the_first(store: AuditStore) -> None:
    log = Log()
    log.source(event("u-1"))
    log.audit(classified("u-1", Moment.NONE, []))
    log.audit(classified("u-1", Moment.THREAT, [PERSON], decision("u-1"), id="c-window"))
    store.write(log.records)
    assert rows(store, "SELECT people, moment FROM events") == [([PERSON], "threat")]
    assert rows(store, "SELECT id, person, rule, response, matched::JSON->>'$.\"debugContext.debugData.risk\"' FROM decisions") == [
        ("d-u-1-risk_raised", PERSON, "risk_raised", "lockdown", "HIGH")
    ]


def test_an_audit_record_that_comes_again_says_nothing_new(store: AuditStore) -> None:
    log = Log()
    log.audit(classified("u-1", Moment.JOIN, [PERSON]))
    log.audit(classified("u-1", Moment.JOIN, [PERSON]))
    log.audit(classified("u-1", Moment.NONE, [], seconds=3))
    store.write(log.records)
    store.write([log.audit(classified("u-1", Moment.JOIN, [PERSON])), log.audit(classified("u-1", Moment.NONE, [], seconds=3))])
    store.write([log.source(event("u-1"))])
    assert rows(store, "SELECT people, moment FROM events") == [([PERSON], "join")]
    assert rows(store, 'SELECT "offset", repeated FROM records ORDER BY ALL') == [(0, False), (2, True)]
    assert rows(store, "SELECT count(*) FROM chain WHERE topic = 'identity.outcomes'") == [(5,)]


def test_an_action_has_one_row_an_attempt_with_every_moment_known(store: AuditStore) -> None:
    log = Log()
    log.audit(action("in-1", ActionStatus.INTENDED, "deactivate", intended=at(1), before={"status": "active"}, incident="inc"))
    log.audit(action("in-1", ActionStatus.FAILED, "deactivate", attempt=2, answered=at(9)))
    log.audit(action("in-1", ActionStatus.DONE, "deactivate", called=at(2), answered=at(3), account="b-1", after={"status": "inactive"}))
    log.audit(action("in-1", ActionStatus.ALREADY, "deactivate", observed=at(4), request_id="r"))
    for one in log.records:
        store.write([one])
    found = rows(
        store,
        "SELECT attempt, incident, account, before, after, status, request_id, intended, called, answered, observed FROM actions ORDER BY attempt",
    )
    assert found == [
        (1, "inc", "b-1", '{"status":"active"}', '{"status":"inactive"}', "already", "r", at(1), at(2), at(3), at(4)),
        (2, None, "", "{}", "{}", "failed", None, None, None, at(9), None),
    ]


def test_that_a_row_was_intended_never_stands_over_what_became_of_it(store: AuditStore) -> None:
    """34: its writer was stopped between the intent and its record, and the next owner read back and closed the row meanwhile."""
    log = Log()
    log.audit(action("in-1", ActionStatus.FAILED, "deactivate", intended=at(1), answered=at(9), detail="read back"))
    log.audit(action("in-1", ActionStatus.INTENDED, "deactivate", intended=at(1)))
    store.write(log.records)
    assert rows(store, "SELECT status, detail, answered FROM actions") == [("failed", "read back", at(9))]


def test_incidents_and_holds_show_their_last_record(store: AuditStore) -> None:
    store.write(day())
    assert rows(store, "SELECT id, state, opened, contained, closed FROM incidents") == [("inc-1", "contained", at(101), at(105.5), None)]
    assert rows(store, "SELECT id, state, released, released_by FROM holds ORDER BY id") == [
        ("h-0", "released", at(50), "sec@example.com"),
        ("h-1", "open", None, None),
    ]


def test_the_last_record_is_the_logs_not_the_clocks(store: AuditStore) -> None:
    log = Log()
    log.audit(incident("contained", 500, contained=at(499)))
    log.audit(incident("released", 2))
    store.write(log.records)
    assert rows(store, "SELECT state FROM incidents") == [("released",)]


@pytest.mark.fault(26)
def test_a_large_event_is_a_row_and_what_the_log_could_not_take_is_quarantined_by_hash(store: AuditStore) -> None:
    log = Log()
    raw = event("u-big", padding="x" * 2_000_000)
    log.source(raw)
    store.write(log.records)
    store.write([one for one in day() if one.kind == "audit"])
    assert rows(store, "SELECT raw FROM events WHERE uuid = 'u-big'") == [(raw,)]
    assert rows(store, "SELECT tenant, raw, size, sha256 FROM quarantine WHERE reason = 'too_large'") == [
        ("default", None, 9_000_000, "ab" * 32)
    ]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"kind": "unheard_of", "id": "1"}',
        b"[" * 5000,
        b"{not a record",
        action("in", ActionStatus.DONE, "x").to_bytes().replace(b'"attempt":1', b'"attempt":' + b"9" * 30),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_no_audit_record_is_quarantined(store: AuditStore, value: bytes) -> None:
    log = Log()
    log.audit(value, key=b"acme:00u1")
    log.audit(value, key=b"acme:00u1")
    store.write(log.records)
    assert rows(store, "SELECT tenant, reason, raw, key FROM quarantine") == [("acme", "bad_record", value, b"acme:00u1")]
    assert rows(store, "SELECT count(*) FROM records") == [(0,)]


def test_records_hold_the_audit_topics_own_bytes(store: AuditStore) -> None:
    log = Log()
    one = log.audit(classified("u-1", Moment.JOIN, [PERSON]), key=b"default:00u1", partition=3)
    store.write(log.records)
    assert rows(store, 'SELECT key, value, incarnation, topic, partition, "offset" FROM records') == [
        (b"default:00u1", one.value, "one", AUDIT, 3, 0)
    ]


def test_notices_are_rows(store: AuditStore) -> None:
    store.write(day())
    assert rows(store, "SELECT topic, text, target, person FROM notices") == [("parked", "grant failed", "okta", PERSON)]


# --- positions, gaps, order -----------------------------------------------------------------------------------------------


def test_positions_are_the_next_offsets_of_this_incarnation(path: Path) -> None:
    log = Log()
    log.source(event("u-1"))
    log.gap(SOURCE, of=5)
    log.source(event("u-2"))
    log.audit(classified("u-1", Moment.NONE, []), partition=2)
    with AuditStore(path, "one") as store:
        assert store.positions() == {}
        store.write(log.records)
        assert store.positions() == {(SOURCE, 0): 7, (AUDIT, 2): 1}
    with AuditStore(path, "one") as store:
        assert store.positions() == {(SOURCE, 0): 7, (AUDIT, 2): 1}
    with AuditStore(path, "two") as store:
        assert store.positions() == {}


def test_a_gap_in_the_offsets_is_no_break(store: AuditStore) -> None:
    log = Log()
    log.source(event("u-1"))
    log.gap(SOURCE, of=1000)
    log.source(event("u-2"))
    store.write(log.records)
    with store.reader() as cursor:
        assert verify(cursor).ok


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
def test_going_backwards_is_refused_and_nothing_is_written(store: AuditStore, together: bool) -> None:
    log = Log()
    first, second = log.source(event("u-1")), log.source(event("u-2"))
    bad = [second, LogRecord(SOURCE, 0, 1, 0, b"default", event("u-3"), "event")]
    store.write([first])
    if together:
        with pytest.raises(FaultError, match=r"okta\.system-log/0 went backwards: offset 1 after 1"):
            store.write(bad)
        assert rows(store, "SELECT uuid FROM events") == [("u-1",)]
    else:
        store.write(bad[:1])
        with pytest.raises(FaultError, match="went backwards"):
            store.write(bad[1:])
        assert rows(store, "SELECT uuid FROM events ORDER BY ALL") == [("u-1",), ("u-2",)]


def test_an_empty_batch_is_nothing(store: AuditStore) -> None:
    store.write([])
    assert store.positions() == {}


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=40) | st.sampled_from(list(MALFORMED)), max_size=12))
def test_whatever_bytes_come_none_is_dropped_and_the_chain_holds(tmp_path_factory: pytest.TempPathFactory, values: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("any") / "audit.duckdb"
    log = Log()
    for value in values:
        log.source(value)
        log.audit(value, key=value)
    with AuditStore(path, "one") as store:
        store.write(log.records)
        kept = {raw for (raw,) in rows(store, "SELECT raw FROM quarantine UNION SELECT raw FROM events")}
        assert kept == set(values)
        with store.reader() as cursor:
            assert verify(cursor).breaks == []


# --- the chain's bytes ----------------------------------------------------------------------------------------------------


def test_the_hash_is_what_the_documentation_says(store: AuditStore) -> None:
    """Written out anew, so that the documented layout is what an outsider needs."""
    log = Log()
    log.source(event("u-1"), partition=3)
    log.gap(SOURCE, 3, of=4)
    log.source(b"not json", key=None, partition=3)
    store.write(log.records)

    previous = bytes(32)
    for record in log.records:
        coordinates = b"\0\0\0\x03one" + b"\0\0\0\x0fokta.system-log" + b"\0\0\0\x03" + record.offset.to_bytes(8, "big")
        key, value = hashlib.sha256(record.key or b"").digest(), hashlib.sha256(record.value).digest()
        previous = hashlib.sha256(previous + key + value + coordinates).digest()
        found = rows(store, f'SELECT key_sha256, value_sha256, hash FROM chain WHERE "offset" = {record.offset}')
        assert found == [(key, value, previous)]
    assert store.heads() == {(SOURCE, 3): (2, previous.hex())}
    assert bytes(32) == GENESIS


# --- the file ---------------------------------------------------------------------------------------------------------------


def test_the_file_and_its_folder_are_the_owners_alone(store: AuditStore) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_a_file_of_another_version_is_refused_with_the_remedy(path: Path) -> None:
    AuditStore(path, "one").close()
    with duckdb.connect(str(path)) as con:
        con.execute("UPDATE meta SET value = '0'")
    with pytest.raises(ConfigurationError, match=r"schema 0.*move it away"):
        AuditStore(path, "one")


def test_a_file_that_is_not_ours_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE precious (a INTEGER)")
    with pytest.raises(ConfigurationError, match="no audit file"):
        AuditStore(path, "one")
    with duckdb.connect(str(path)) as con:
        assert con.execute("SHOW TABLES").fetchall() == [("precious",)]


@pytest.mark.parametrize("junk", [b"no database", b"\0" * 20_000])
def test_a_file_that_is_no_database_is_a_fault(path: Path, junk: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(junk)
    with pytest.raises(FaultError, match="cannot be opened"):
        AuditStore(path, "one")


def test_what_a_kill_at_the_very_first_start_leaves_is_begun_anew(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with AuditStore(path, "one") as store:
        assert store.positions() == {}


def test_a_closed_store_refuses(path: Path) -> None:
    store = AuditStore(path, "one")
    store.close()
    with pytest.raises(FaultError, match="closed"):
        store.write(day())


# --- rebuild and another incarnation ----------------------------------------------------------------------------------------


def shuffled(records: list[LogRecord]) -> list[LogRecord]:
    """Another interleaving of the partitions; each partition keeps its order."""
    return sorted(records, key=lambda one: (one.topic, -one.partition, one.offset))


def test_a_rebuild_gives_the_same_heads_and_the_same_answers(tmp_path: Path) -> None:
    """A4: whatever the batches and however the partitions interleave."""
    with AuditStore(tmp_path / "a.duckdb", "one") as first, AuditStore(tmp_path / "b.duckdb", "one") as again:
        for one in day():
            first.write([one])
        again.write(shuffled(day()))
        assert first.heads() == again.heads()
        assert contents(first) == contents(again)
        assert contents(first)["events"]


def test_another_incarnation_over_the_same_file_loses_and_repeats_nothing(path: Path) -> None:
    """D9, A5: the log is fed again from its beginning, with more behind it; offsets and interleaving differ."""
    with AuditStore(path, "one") as store:
        store.write(day())
        before = contents(store)
    log = Log()
    again = [one._replace(offset=n) for n, one in enumerate(shuffled(day()))]
    with AuditStore(path, "two") as store:
        assert store.positions() == {}
        for start in range(0, len(again), 5):
            store.write(again[start : start + 5])
        assert contents(store) == before
        log.source(event("u-new"))
        store.write([log.records[0]._replace(offset=1000)])
        assert len(contents(store)["events"]) == len(before["events"]) + 1
        with store.reader() as cursor:
            report = verify(cursor)
        assert report.breaks == []
        assert report.counts["repeats"] >= len(again)
        assert {head.incarnation for head in report.heads} == {"one", "two"}


def test_a_rebuilt_cluster_may_spread_keys_over_other_partitions(path: Path) -> None:
    with AuditStore(path, "one") as store:
        store.write(day())
        before = contents(store)
    again = sorted(day(), key=lambda one: (one.topic, one.partition, one.offset))
    with AuditStore(path, "two") as store:
        store.write([one._replace(partition=5, offset=n) for n, one in enumerate(again)])
        assert contents(store) == before
        with store.reader() as cursor:
            assert verify(cursor).breaks == []


def test_records_of_a_later_incarnation_come_after_those_of_an_earlier_one(path: Path) -> None:
    log = Log()
    log.gap(AUDIT, of=1_000_000)
    with AuditStore(path, "one") as store:
        store.write([log.audit(incident("open", 1))])
    with AuditStore(path, "two") as store:
        store.write([Log().audit(incident("closed", 2))])
        assert rows(store, "SELECT state FROM incidents") == [("closed",)]


def test_every_sample_is_an_event_or_malformed(store: AuditStore, shared: Path) -> None:
    log = Log()
    for file in sorted((shared / "samples").glob("*.jsonl")):
        for line in file.read_bytes().splitlines():
            log.source(json.dumps(json.loads(line)["event"]).encode())
    store.write(log.records)
    (events,), (bad,) = rows(store, "SELECT count(*) FROM events")[0], rows(store, "SELECT count(*) FROM quarantine")[0]
    repeats = rows(store, "SELECT count(*) FROM chain WHERE received IS NULL")[0][0]
    assert events > 90
    assert events + bad + repeats == len(log.records)
    with store.reader() as cursor:
        assert verify(cursor).ok


def test_a_receive_time_that_no_calendar_holds_is_still_a_row(store: AuditStore) -> None:
    store.write([LogRecord(SOURCE, 0, n, when, b"default", event(f"u-{n}"), "event") for n, when in enumerate((-1, 2**62, -(2**62)))])
    found = [when for (when,) in rows(store, 'SELECT received FROM events ORDER BY "offset"')]
    assert found == [datetime(1969, 12, 31, 23, 59, 59, 999000, UTC), datetime(9999, 12, 31, tzinfo=UTC), found[0]]
