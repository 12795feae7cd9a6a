-- Access changes by user: everything that was granted, taken or changed for each person, in order.
-- For: SOC 2 CC6.2, ISO 27001 A.5.18; add `AND person = '00u…'` for one person.
SELECT tenant, person, coalesce(answered, called, intended) AS changed, target, account, change, before, after, status, lane,
       incident, event_uuid, intent, attempt, request_id
FROM actions
WHERE status IN ('done', 'already', 'unknown', 'intended')
ORDER BY tenant, person, changed, target, change
