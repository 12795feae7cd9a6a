-- Open holds: who is locked, since when, for which incident, and how far that is.
-- For: daily review by security; a hold opens again only by an explicit release.
SELECT h.tenant, h.person, h.id AS hold, h.since, h.reason, h.incident, i.title, i.state AS incident_state,
       h.accounts, round(epoch(now() - h.since) / 3600, 1) AS hours
FROM holds h
LEFT JOIN incidents i ON i.tenant = h.tenant AND i.id = h.incident
WHERE h.state = 'open'
ORDER BY h.since, h.person
