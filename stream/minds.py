"""What the classifier remembers of each tenant: correlations, first-seen, guards. It survives restarts and rebalances.

A snapshot is written every few seconds, with the offset up to which it holds, once everything that those events caused is acknowledged.
A new owner restores it and reads the events after it up to where the group stands once more, without publishing anything: so no event
counts twice in a window and none is forgotten. Events that come again although the snapshot holds them (the commit was behind) are
judged without their memory; what they completed was published before.
Rejected: a Faust table per window (one write an event), forgetting on restart (an attacker who can crash us resets every count).
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from faust.types import TP

from model.decision import Finding, Verdict
from model.errors import MalformedEvent
from model.event import decode
from rules.classify import Classifier
from stream import topics
from stream.broker import Broker
from stream.state import State

log = logging.getLogger(__name__)

#: Seconds between snapshots of one tenant, at least.
EVERY_S = 5.0
#: After a snapshot none is made for so many times what it took: all of them together take no more than a fiftieth of a worker's time
#: (what came since is read again after a crash).
REST = 50.0
#: But never longer: a process that was stopped in the middle took long for another reason.
LONGEST_REST_S = 300.0
#: A tenant without a snapshot is read this many records back at most.
LOOK_BACK = 20_000
#: A snapshot larger than this, compressed, is not kept (and said so): a record holds 8 MB.
LARGEST = 6_000_000


@dataclass(slots=True)
class Mind:
    """One tenant's classifier, the offset after the last event that it has observed, and the one after the last in a kept snapshot."""

    classifier: Classifier
    partition: int
    upto: int = 0
    kept: int = 0
    kept_at: float = 0.0


class Minds:
    """`make` builds a tenant's empty classifier with the present rules. `windows` None: nothing is kept (the embedded broker has no restarts)."""

    def __init__(self, make: Callable[[str], Classifier], windows: State | None, monotonic: Callable[[], float]) -> None:
        self._make, self._windows, self._monotonic = make, windows, monotonic
        self._minds: dict[str, Mind] = {}
        self._rests_until = 0.0
        self._stateless = make("")

    def observe(self, tenant: str, partition: int, offset: int, event: dict[str, Any], received: datetime) -> Verdict:
        mind = self._mind(tenant, partition)
        if offset < mind.upto:
            return self._stateless.verdict(event)
        mind.upto = offset + 1
        return mind.classifier.observe(event, received)

    def tick(self, now: datetime) -> dict[str, tuple[Finding, ...]]:
        """tenant → findings of windows that end by `now`; only where the log is read to its end."""
        found = {tenant: mind.classifier.tick(now) for tenant, mind in self._minds.items()}
        return {tenant: findings for tenant, findings in found.items() if findings}

    def is_shadow(self, tenant: str, rule: str) -> bool:
        """Whether a rule of the tenant is on trial."""
        mind = self._minds.get(tenant)
        return mind is not None and rule in mind.classifier.ruleset.shadowed

    def replace_rules(self, make: Callable[[str], Classifier]) -> None:
        """Hot reload: rules that did not change keep their memory."""
        self._make, self._stateless = make, make("")
        for tenant, mind in self._minds.items():
            fresh = make(tenant)
            fresh.restore(mind.classifier.snapshot())
            mind.classifier = fresh

    def snapshots(self) -> list[tuple[str, bytes]]:
        """(tenant, record) of the mind that has waited longest among those whose time has come: one at a time, because nothing else
        goes on meanwhile. To be written once what it observed is acknowledged."""
        if self._windows is None:
            return []
        now = self._monotonic()
        if now < self._rests_until:
            return []
        late = [(mind.kept_at, tenant) for tenant, mind in self._minds.items() if mind.upto > mind.kept and now - mind.kept_at >= EVERY_S]
        return self._snapshot(min(late)[1], now) if late else []

    def _snapshot(self, tenant: str, began: float) -> list[tuple[str, bytes]]:
        mind = self._minds[tenant]
        record = _packed(mind)
        mind.kept, mind.kept_at = mind.upto, self._monotonic()
        self._rests_until = mind.kept_at + min((mind.kept_at - began) * REST, LONGEST_REST_S)
        if len(record) > LARGEST:
            log.error("the memory of %s's correlations is too large to keep (%d bytes): a restart will forget it", tenant, len(record))
            return []
        return [(tenant, record)]

    async def keep(self, snapshots: list[tuple[str, bytes]]) -> None:
        assert self._windows is not None or not snapshots
        for tenant, record in snapshots:
            if self._windows is not None:
                await self._windows.write(tenant, record)

    async def assigned(self, broker: Broker, positions: dict[TP, int]) -> None:
        """A new assignment: memory as its last owner kept it, and the events since read once more."""
        self._minds.clear()
        if self._windows is None:
            return
        await self._windows.caught_up()
        for tp, position in positions.items():
            tenants = [name for name in self._windows.values if topics.partition_of(name.encode(), broker.partitions) == tp.partition]
            starts = [self._mind(tenant, tp.partition).upto for tenant in tenants]
            await self._catch_up(broker, tp, min(starts, default=max(0, position - LOOK_BACK)), position)

    async def _catch_up(self, broker: Broker, tp: TP, start: int, end: int) -> None:
        if start >= end:
            return
        consumer = broker.reader()
        await consumer.start()
        try:
            (where,) = [one for one in broker.all_partitions(tp.topic) if one.partition == tp.partition]
            consumer.assign([where])
            start = max(start, (await consumer.beginning_offsets([where]))[where])
            consumer.seek(where, start)
            while start < end:
                for records in (await consumer.getmany(timeout_ms=1000, max_records=2000)).values():
                    for record in records:
                        start = record.offset + 1
                        if record.offset < end:
                            self._recall(record)
        finally:
            await consumer.stop()

    def _recall(self, record: Any) -> None:
        try:
            event = decode(record.value or b"")
        except MalformedEvent:
            return
        tenant = (record.key or b"").decode("utf-8", "replace")
        try:
            self.observe(tenant, record.partition, record.offset, event, datetime.fromtimestamp(record.timestamp / 1000, UTC))
        except Exception:  # told when it was judged the first time; it must not keep the role from starting
            log.exception("event %s could not be recalled", event["uuid"])

    def _mind(self, tenant: str, partition: int) -> Mind:
        mind = self._minds.get(tenant)
        if mind is None:
            mind = Mind(self._make(tenant), partition, kept_at=self._monotonic())
            stored = self._windows.values.get(tenant) if self._windows is not None else None
            if stored is not None:
                _unpack(mind, stored, tenant)
            self._minds[tenant] = mind
        return mind


def _packed(mind: Mind) -> bytes:
    """Eight bytes of offset, then the snapshot, compressed."""
    return mind.upto.to_bytes(8, "big") + zlib.compress(mind.classifier.snapshot(), 1)


def _unpack(mind: Mind, record: bytes, tenant: str) -> None:
    try:
        forgotten = mind.classifier.restore(zlib.decompress(record[8:]))
    except (ValueError, zlib.error) as error:
        log.error("the memory of %s's correlations cannot be read (%s): it begins anew", tenant, error)
        return
    mind.upto = mind.kept = int.from_bytes(record[:8], "big")
    if forgotten:
        log.info("rules of %s that changed begin anew: %s", tenant, ", ".join(forgotten))
