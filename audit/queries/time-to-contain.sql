-- Time to contain: each incident from the event to the last target's answer.
-- For: SOC 2 CC7.3 and CC7.4, ISO 27001 A.5.26.
-- `happened` is Okta's word, `seen` when the event reached our log; NULL in `contained` means that it is not contained yet.
SELECT i.tenant, i.id AS incident, i.person, i.title, i.severity, i.state, e.published AS happened, i.seen, i.opened, i.contained, i.closed,
       round(epoch(i.contained - coalesce(e.published, i.seen)), 3) AS seconds_from_event,
       round(epoch(i.contained - i.seen), 3) AS seconds_from_log
FROM incidents i
LEFT JOIN events e ON e.tenant = i.tenant AND e.uuid = i.event_uuid
ORDER BY i.opened DESC NULLS LAST, i.id
