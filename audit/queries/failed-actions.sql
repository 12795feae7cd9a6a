-- Failed actions: what could not be done, at which target, and what the last word was.
-- For: operations and auditors; `refused` is our own guard, `parked` waits for a human.
SELECT tenant, target, status, split_part(change, ' ', 1) AS kind, detail, count(*) AS attempts, count(DISTINCT person) AS people,
       min(coalesce(answered, called, intended)) AS first, max(coalesce(answered, called, intended)) AS last
FROM actions
WHERE status IN ('failed', 'parked', 'refused')
GROUP BY ALL
ORDER BY attempts DESC, tenant, target, status, kind, detail
