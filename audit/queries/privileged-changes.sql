-- Privileged changes: admin roles and privileges given or taken in Okta, by whom, and which rules spoke.
-- For: SOC 2 CC6.3, ISO 27001 A.8.2.
SELECT e.tenant, coalesce(e.published, e.received) AS happened, e.event_type, e.outcome, e.actor_id, e.people,
       list(d.rule ORDER BY d.rule) FILTER (WHERE d.rule IS NOT NULL) AS rules,
       list(DISTINCT d.response) FILTER (WHERE d.response IS NOT NULL) AS responses, e.uuid
FROM events e
LEFT JOIN decisions d ON d.tenant = e.tenant AND d.event_uuid = e.uuid
WHERE e.event_type LIKE '%.privilege.%' OR e.event_type LIKE 'iam.%'
   OR e.event_type IN ('system.api_token.create', 'system.api_token.revoke', 'app.oauth2.admin.consent.grant')
GROUP BY ALL
ORDER BY happened, e.uuid
