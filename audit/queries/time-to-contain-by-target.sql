-- Time to contain by target: what each target was told, when it answered, when the effect was seen.
-- For: SOC 2 CC7.4; the slowest target stands first in its incident.
SELECT a.tenant, a.incident, a.person, a.target, a.account, a.change, a.attempt, a.status, a.called, a.answered, a.observed, a.request_id,
       round(epoch(a.answered - i.seen), 3) AS seconds_to_answer, round(epoch(a.observed - i.seen), 3) AS seconds_to_effect
FROM actions a
JOIN incidents i ON i.tenant = a.tenant AND i.id = a.incident
ORDER BY a.tenant, a.incident, seconds_to_answer DESC NULLS FIRST, a.target, a.change
