-- Decisions by rule: how often each rule spoke, what it asked for, what was made of it.
-- For: tuning; `lowered` counts decisions that age or brakes turned into less than the rule asked for.
SELECT tenant, rule, response, severity, count(*) AS decisions, count(DISTINCT person) AS people,
       count(*) FILTER (WHERE expired) AS expired, count(*) FILTER (WHERE asked <> response) AS lowered,
       min(decided) AS first, max(decided) AS last, list(DISTINCT rule_version ORDER BY rule_version) AS versions
FROM decisions
GROUP BY tenant, rule, response, severity
ORDER BY decisions DESC, tenant, rule, response
