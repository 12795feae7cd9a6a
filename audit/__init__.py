"""The audit trail: what the recorder is fed becomes rows that SQL can read, chained so that a change shows. Knows no Kafka.

store.py writes (rows, offsets and chain in one transaction), verify.py proves, query.py lets strangers' SQL read and nothing else,
service.py and client.py carry questions to the process that owns the file, lock.py says who that is. rows.py is pure: bytes to rows.
Only this floor knows DuckDB.
"""
