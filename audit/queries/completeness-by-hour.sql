-- Completeness by hour: events and delays in each hour of each tenant's log; an hour without events stands there with 0.
-- For: SOC 2 CC7.2; an unusual 0 or a long delay is where to look first.
WITH seen AS (
    SELECT tenant, date_trunc('hour', coalesce(published, received)) AS hour, published, received FROM events
), spans AS (
    SELECT tenant, unnest(generate_series(min(hour), max(hour), INTERVAL 1 HOUR)) AS hour FROM seen GROUP BY tenant
), bad AS (
    SELECT tenant, date_trunc('hour', received) AS hour, count(*) AS quarantined FROM quarantine GROUP BY ALL
)
SELECT spans.tenant, spans.hour, count(seen.received) AS events, count(seen.received) - count(seen.published) AS without_published,
       coalesce(any_value(bad.quarantined), 0) AS quarantined,
       round(max(epoch(seen.received - seen.published)), 3) AS longest_delay_seconds
FROM spans
LEFT JOIN seen USING (tenant, hour)
LEFT JOIN bad USING (tenant, hour)
GROUP BY spans.tenant, spans.hour
ORDER BY spans.tenant, spans.hour
