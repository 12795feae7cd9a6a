"""The hash chain's exact bytes (D26), so that anybody can recompute it with any tool.

One chain per (incarnation, topic, partition), over every record of the source topic and of the audit topic:

    hash = SHA-256( previous ‖ SHA-256(key) ‖ SHA-256(value) ‖ coordinates )
    coordinates = len(incarnation) ‖ incarnation ‖ len(topic) ‖ topic ‖ partition ‖ offset

`previous` is the hash of the record before it in the same partition, 32 zero bytes for the first; a record without a key has the
empty key; texts are UTF-8; lengths and partition are 4 bytes, the offset 8 bytes, all big-endian and unsigned.
Offsets may have gaps (control records of the broker), so the chain, not the numbering, shows that nothing is missing.
Rejected: receive times or row numbers in the hash: a rebuild from the log must come to the same heads.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

GENESIS = bytes(32)


class Log(NamedTuple):
    """One partition of one topic of one incarnation of the log: what a chain is about."""

    incarnation: str
    topic: str
    partition: int


def prefix(log: Log) -> bytes:
    """The coordinates without the offset."""
    incarnation, topic = log.incarnation.encode(), log.topic.encode()
    return b"".join(
        (len(incarnation).to_bytes(4, "big"), incarnation, len(topic).to_bytes(4, "big"), topic, log.partition.to_bytes(4, "big"))
    )


def link(previous: bytes, key_sha256: bytes, value_sha256: bytes, log_prefix: bytes, offset: int) -> bytes:
    """The hash of one record, given its predecessor's."""
    return sha256(previous + key_sha256 + value_sha256 + log_prefix + offset.to_bytes(8, "big")).digest()
