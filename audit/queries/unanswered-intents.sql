-- Unanswered intents: calls that were announced and whose outcome is not known.
-- For: operations; each is closed by reading back at the vendor. A row that grows old needs a human.
SELECT tenant, person, target, account, change, status, intent, attempt, lane, incident, intended,
       round(epoch(now() - intended), 0)::BIGINT AS seconds
FROM actions
WHERE status IN ('intended', 'unknown')
ORDER BY intended NULLS FIRST, intent, attempt
