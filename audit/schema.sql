-- The audit file, version 1. Base tables are append-only (`positions` is the one state that moves); what contracts promise under
-- `events`, `decisions`, `actions`, `incidents`, `holds` and `notices` are views over them, so that a record that arrives late
-- (the classifier's word before or after its event) needs no update. `quarantine`, `records` and `chain` are tables.
--
-- Bytes are compressed with zstd: DuckDB's own choice (DICT_FSST) takes three times the time and eight times the room on events.
--
-- No index and no key: uniqueness is kept by the one writer, which scans a 64-bit hash column (3 ns a row); DuckDB 2.0's unique
-- indexes have bugs and cost fifty times as much. `place` orders records of one incarnation after the other: (ordinal << 44) | offset.

CREATE TABLE IF NOT EXISTS meta (name VARCHAR NOT NULL, value VARCHAR NOT NULL);

CREATE TABLE IF NOT EXISTS incarnations (ordinal BIGINT NOT NULL, incarnation VARCHAR NOT NULL);

-- Where each log is read to, and the head of its chain: `length` chained records, `head` the last one's hash.
CREATE TABLE IF NOT EXISTS positions (
    incarnation VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL,
    next_offset BIGINT NOT NULL, length BIGINT NOT NULL, head BLOB NOT NULL
);

-- One row a record of both topics; the hash's exact bytes are written down in audit/chain.py. `received` is NULL for a repeat, which has
-- no row of its own.
CREATE TABLE IF NOT EXISTS chain (
    incarnation VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL,
    received TIMESTAMPTZ, key_sha256 BLOB NOT NULL, value_sha256 BLOB NOT NULL USING COMPRESSION uncompressed,
    hash BLOB NOT NULL USING COMPRESSION uncompressed
);

CREATE TABLE IF NOT EXISTS event_rows (
    tenant VARCHAR NOT NULL, uuid VARCHAR NOT NULL, published TIMESTAMPTZ, received TIMESTAMPTZ NOT NULL, event_type VARCHAR NOT NULL,
    severity VARCHAR, outcome VARCHAR, actor_id VARCHAR, raw BLOB NOT NULL USING COMPRESSION zstd,
    value_sha256 BLOB NOT NULL USING COMPRESSION uncompressed, identity UBIGINT NOT NULL,
    incarnation VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL
);

-- Bytes that are no event, a uuid that came back with other bytes, audit records that do not parse. `raw` is NULL for an event that was
-- too large for the log: there only size and hash are known.
CREATE TABLE IF NOT EXISTS quarantine (
    tenant VARCHAR NOT NULL, reason VARCHAR NOT NULL, raw BLOB USING COMPRESSION zstd, size BIGINT NOT NULL, sha256 VARCHAR NOT NULL,
    received TIMESTAMPTZ NOT NULL, key BLOB NOT NULL, kind VARCHAR NOT NULL,
    incarnation VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL
);

-- `repeated`: the id was there before with other bytes; kept for the chain, of no effect elsewhere.
CREATE TABLE IF NOT EXISTS records (
    key BLOB NOT NULL, value BLOB NOT NULL USING COMPRESSION zstd, received TIMESTAMPTZ NOT NULL, id VARCHAR NOT NULL, kind VARCHAR NOT NULL,
    repeated BOOLEAN NOT NULL, identity UBIGINT NOT NULL,
    incarnation VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS classified_rows (
    tenant VARCHAR NOT NULL, event_uuid VARCHAR NOT NULL, moment VARCHAR NOT NULL, people VARCHAR[] NOT NULL, place BIGINT NOT NULL,
    incarnation VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS decision_rows (
    id VARCHAR NOT NULL, tenant VARCHAR NOT NULL, event_uuid VARCHAR NOT NULL, person VARCHAR, rule VARCHAR NOT NULL,
    rule_version VARCHAR NOT NULL, title VARCHAR NOT NULL, asked VARCHAR NOT NULL, response VARCHAR NOT NULL, severity VARCHAR NOT NULL,
    scope VARCHAR NOT NULL, downstream BOOLEAN NOT NULL, expired BOOLEAN NOT NULL, why VARCHAR NOT NULL, matched VARCHAR NOT NULL,
    runbook VARCHAR NOT NULL, decided TIMESTAMPTZ NOT NULL, place BIGINT NOT NULL,
    incarnation VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS action_rows (
    intent VARCHAR NOT NULL, attempt BIGINT NOT NULL, lane VARCHAR NOT NULL, incident VARCHAR, tenant VARCHAR NOT NULL,
    person VARCHAR NOT NULL, target VARCHAR NOT NULL, account VARCHAR NOT NULL, change VARCHAR NOT NULL, before VARCHAR NOT NULL,
    after VARCHAR NOT NULL, status VARCHAR NOT NULL, detail VARCHAR NOT NULL, request_id VARCHAR, event_uuid VARCHAR,
    intended TIMESTAMPTZ, called TIMESTAMPTZ, answered TIMESTAMPTZ, observed TIMESTAMPTZ, place BIGINT NOT NULL,
    incarnation VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS incident_rows (
    id VARCHAR NOT NULL, tenant VARCHAR NOT NULL, person VARCHAR NOT NULL, state VARCHAR NOT NULL, title VARCHAR NOT NULL,
    severity VARCHAR NOT NULL, event_uuid VARCHAR, seen TIMESTAMPTZ, opened TIMESTAMPTZ, contained TIMESTAMPTZ, closed TIMESTAMPTZ,
    targets VARCHAR NOT NULL, place BIGINT NOT NULL,
    incarnation VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS hold_rows (
    id VARCHAR NOT NULL, tenant VARCHAR NOT NULL, person VARCHAR NOT NULL, incident VARCHAR NOT NULL, state VARCHAR NOT NULL,
    since TIMESTAMPTZ NOT NULL, released TIMESTAMPTZ, released_by VARCHAR, reason VARCHAR NOT NULL, accounts VARCHAR NOT NULL,
    restore VARCHAR NOT NULL, place BIGINT NOT NULL,
    incarnation VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS notice_rows (
    id VARCHAR NOT NULL, tenant VARCHAR NOT NULL, noted TIMESTAMPTZ NOT NULL, about VARCHAR NOT NULL, severity VARCHAR NOT NULL,
    person VARCHAR, target VARCHAR, incident VARCHAR, text VARCHAR NOT NULL, remedy VARCHAR NOT NULL, facts VARCHAR NOT NULL,
    place BIGINT NOT NULL,
    incarnation VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL
);

-- One row a (tenant, uuid). Of several words of the classifier on one event the last one stands.
CREATE OR REPLACE VIEW events AS
SELECT e.tenant, e.uuid, e.published, e.received, e.event_type, e.severity, e.outcome, e.actor_id,
       coalesce(c.people, []::VARCHAR[]) AS people, coalesce(c.moment, 'none') AS moment,
       e.raw, e.incarnation, e.topic, e.partition, e."offset"
FROM event_rows e
LEFT JOIN (
    SELECT tenant, event_uuid, arg_max(people, place) AS people, arg_max(moment, place) AS moment
    FROM classified_rows GROUP BY tenant, event_uuid
) c ON c.tenant = e.tenant AND c.event_uuid = e.uuid;

-- A decision is judged once: the first record of an id stands.
CREATE OR REPLACE VIEW decisions AS
SELECT id, tenant, event_uuid, person, rule, rule_version, response, severity, matched, decided,
       title, asked, scope, downstream, expired, why, runbook
FROM decision_rows
WHERE (tenant, id, place) IN (SELECT (tenant, id, min(place)) FROM decision_rows GROUP BY tenant, id);

-- One row an attempt: the last status, and every moment that some record of the attempt knew.
-- A row begins `intended`, so that word never stands over a later one: a worker that was stopped while it wrote it may write it after the
-- next owner has read back and closed the row.
CREATE OR REPLACE VIEW actions AS
SELECT intent, attempt, arg_max(incident, place) AS incident, arg_max(tenant, place) AS tenant, arg_max(person, place) AS person,
       arg_max(target, place) AS target, coalesce(arg_max(nullif(account, ''), place), '') AS account, arg_max(change, place) AS change,
       coalesce(arg_max(nullif(before, '{}'), place), '{}') AS before, coalesce(arg_max(nullif(after, '{}'), place), '{}') AS after,
       arg_max(status, turn) AS status, arg_max(request_id, place) AS request_id,
       arg_max(intended, place) AS intended, arg_max(called, place) AS called, arg_max(answered, place) AS answered,
       arg_max(observed, place) AS observed,
       arg_max(lane, place) AS lane, arg_max(detail, turn) AS detail, arg_max(event_uuid, place) AS event_uuid
FROM (SELECT *, CASE status WHEN 'intended' THEN place ELSE place + (1::BIGINT << 61) END AS turn FROM action_rows) GROUP BY intent, attempt;

CREATE OR REPLACE VIEW incidents AS
SELECT id, tenant, person, state, opened, contained, closed, title, severity, event_uuid, seen, targets
FROM incident_rows
WHERE (tenant, id, place) IN (SELECT (tenant, id, max(place)) FROM incident_rows GROUP BY tenant, id);

CREATE OR REPLACE VIEW holds AS
SELECT id, tenant, person, incident, state, since, released, released_by, reason, accounts, restore
FROM hold_rows
WHERE (tenant, id, place) IN (SELECT (tenant, id, max(place)) FROM hold_rows GROUP BY tenant, id);

CREATE OR REPLACE VIEW notices AS
SELECT id, tenant, noted, about AS topic, severity, person, target, incident, text, remedy, facts FROM notice_rows;
