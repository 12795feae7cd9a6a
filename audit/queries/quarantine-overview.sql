-- Quarantine overview: what could not be read, by reason.
-- For: completeness of the trail; the bytes themselves stand in quarantine.raw (NULL where the event was too large for the log).
SELECT tenant, reason, count(*) AS records, sum(size)::BIGINT AS bytes, min(received) AS first, max(received) AS last,
       count(*) FILTER (WHERE raw IS NULL) AS without_bytes
FROM quarantine
GROUP BY tenant, reason
ORDER BY records DESC, tenant, reason
