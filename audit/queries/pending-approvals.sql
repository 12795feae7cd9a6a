-- Pending approvals: incidents that a rule wants acted on and that wait for a human.
-- For: SOC 2 CC6.3; nothing is executed for them until somebody approves.
SELECT i.tenant, i.id AS incident, i.person, i.title, i.severity, i.opened, i.event_uuid,
       list(d.rule ORDER BY d.rule) FILTER (WHERE d.rule IS NOT NULL) AS rules, list(DISTINCT d.why) FILTER (WHERE d.why <> '') AS why
FROM incidents i
LEFT JOIN decisions d ON d.tenant = i.tenant AND d.person = i.person AND d.event_uuid = i.event_uuid
WHERE i.state = 'pending_approval'
GROUP BY ALL
ORDER BY i.opened, i.id
