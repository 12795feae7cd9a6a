"""The topic map: every topic, what it is keyed by, and how long it keeps what it holds (D7, D8).

Topics read by groups are never compacted; state topics are compacted and read whole at start. Partition counts of state never change.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from aiokafka.partitioner import murmur2

WEEK_MS = 7 * 86400 * 1000
FOREVER = -1
#: Records up to 8 MB, and room for the batch around them.
MAX_EVENT_BYTES = 8_000_000
MAX_REQUEST_BYTES = 9_000_000


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    key: str
    retention_ms: int
    holds: str
    compacted: bool = False

    def config_for(self, replication: int) -> dict[str, str]:
        """With three copies, acks=all means two of them; a copy that fell behind never becomes the truth (D8)."""
        config = {
            "max.message.bytes": str(MAX_REQUEST_BYTES),
            "unclean.leader.election.enable": "false",
            "min.insync.replicas": str(2 if replication >= 3 else 1),
        }
        if self.compacted:
            config |= {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
        else:
            config |= {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}
        return config


SYSTEM_LOG = Topic("okta.system-log", "tenant", WEEK_MS, "events, byte for byte, in the tenant's order")
THREATS = Topic("identity.threats", "tenant:person", WEEK_MS, "orders to the lockdown lane")
KNOCKS = Topic("identity.knocks", "tenant:person", WEEK_MS, "who changed: look at them (provision lane)")
OUTCOMES = Topic("identity.outcomes", "tenant:person", FOREVER, "the audit topic: classified events, actions, incidents, Holds, notices")
COMMANDS = Topic("portcullis.commands", "tenant:person", FOREVER, "orders of humans, with actor and reason")
INCARNATION = Topic("portcullis.incarnation", "one key", FOREVER, "the id of this log (D9)", compacted=True)
CHECKPOINTS = Topic(
    "portcullis.checkpoints", "tenant", FOREVER, "where the poller stands; owning its partition is the lease", compacted=True
)
HOLDS = Topic("portcullis.holds", "tenant:person", FOREVER, "Holds and handled events (writer: lockdown lane)", compacted=True)
LINKS = Topic("portcullis.links", "tenant:person:target", FOREVER, "person ↔ account (writer: provision lane)", compacted=True)
DUE = Topic(
    "portcullis.due", "lane:tenant:person:target", FOREVER, "retries, later looks, parked changes (writer: that lane)", compacted=True
)
INTENTS = Topic(
    "portcullis.intents", "lane:tenant:person:target", FOREVER, "the intent that is open now (writer: that lane)", compacted=True
)
BRAKES = Topic(
    "portcullis.brakes", "tenant or target", FOREVER, "counts and trips of the brakes, and the classifier's state", compacted=True
)
WINDOWS = Topic("portcullis.windows", "tenant", FOREVER, "memory of correlations, with its offset (writer: classifier)", compacted=True)
MESSAGES = Topic("portcullis.messages", "incident", FOREVER, "which Slack message belongs to what", compacted=True)
COUNTS = Topic(
    "portcullis.counts", "tenant", FOREVER, "active people, for the brakes' percentages, and the last good listing (writer: provision lane)",
    compacted=True,
)  # fmt: skip

ALL = (
    SYSTEM_LOG, THREATS, KNOCKS, OUTCOMES, COMMANDS, INCARNATION, CHECKPOINTS, HOLDS, LINKS, DUE, INTENTS, BRAKES, WINDOWS, MESSAGES, COUNTS,
)  # fmt: skip


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """Where a key lives: aiokafka's and the Java client's murmur2, everywhere (D7). It is pure Python, 13 µs a key: remembered."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def person_key(tenant: str, person: str) -> bytes:
    return f"{tenant}:{person}".encode()


def split_person_key(key: bytes) -> tuple[str, str]:
    tenant, _, person = key.decode("utf-8", "replace").partition(":")
    return tenant, person
