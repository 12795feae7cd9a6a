-- Chain heads: where each log's hash chain ends. Note them where nobody who may write here can write.
-- For: SOC 2 CC7.2, ISO 27001 A.8.15; a later head that does not follow from a noted one shows a cut tail or an old copy put back.
SELECT p.incarnation, i.ordinal, p.topic, p.partition, p.next_offset - 1 AS last_offset, p.length, hex(p.head) AS head
FROM positions p
LEFT JOIN incarnations i USING (incarnation)
ORDER BY i.ordinal, p.topic, p.partition
