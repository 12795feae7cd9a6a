-- Deprovisioning evidence: every leaver, and what was closed where, when, and how we know.
-- For: SOC 2 CC6.2 and CC6.3, ISO 27001 A.5.18, HIPAA 164.308(a)(3)(ii)(C).
-- One row a leaver's event and action; `target` NULL means that nothing was done. `seconds` runs from the event to the vendor's answer,
-- `observed` is an independent read that saw the effect. A suspension under a Hold is our own lockdown and nobody's leave.
WITH found AS (
    SELECT tenant, uuid, event_type, unnest(people) AS person, published, received FROM events WHERE moment = 'leave'
), leaves AS (
    SELECT * FROM found f WHERE event_type <> 'user.lifecycle.suspend' OR NOT EXISTS (
        FROM holds h WHERE h.tenant = f.tenant AND h.person = f.person
            AND h.since <= f.received AND coalesce(h.released, 'infinity') > coalesce(f.published, f.received))
), spans AS (
    SELECT *, lead(received, 1, 'infinity') OVER (PARTITION BY tenant, person ORDER BY received, uuid) AS until FROM leaves
)
SELECT l.tenant, l.person, l.event_type, l.uuid AS event_uuid, coalesce(l.published, l.received) AS left_at,
       a.target, a.account, a.change, a.status, a.answered, a.observed, a.request_id,
       round(epoch(a.answered - coalesce(l.published, l.received)), 3) AS seconds
FROM spans l
LEFT JOIN actions a ON a.tenant = l.tenant AND a.person = l.person
    AND split_part(a.change, ' ', 1) IN ('deactivate', 'end_sessions', 'revoke', 'transfer', 'delete')
    AND coalesce(a.intended, a.called, a.answered) >= l.received AND coalesce(a.intended, a.called, a.answered) < l.until
ORDER BY left_at, l.person, a.intended, a.target
