"""The job that every contender does: decode, rules with their memory, judge, the records that follow. One copy of the product's own
parts (Classifier with guards, Judge with brake), so that what differs between contenders is how they read, publish and acknowledge.

What the product's worker does beyond this is not here, on purpose: memory and brakes that survive a restart, work that ends at
revocation, offsets that cannot run ahead of what was published.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from bench.common import cpu_seconds, peak_memory
from handlers.protected import ProtectedList
from model.decision import Moment
from model.errors import MalformedEvent
from model.event import decode, parse_time
from model.records import EventRef
from model.settings import KafkaSettings, Settings
from rules.classify import Classifier
from rules.guards import GuardSettings
from rules.lifecycle import Lifecycle
from rules.lower import Guards
from rules.ruleset import RuleSet
from stream import topics
from stream.judge import Judge, LockdownBrake

Record = tuple[str, bytes, bytes]
#: Events that every contender works through before its clock starts: plans are compiled, windows are open.
WARM_UP = 5_000
#: Somebody is protected: a list that protects nobody is not trusted, and turns every lockdown into an approval.
PROTECTED = ProtectedList("loaded", {("default", "00ubreakglass000001"): "break-glass"})


def settings_for(bootstrap: str, partitions: int) -> Settings:
    return Settings(kafka=KafkaSettings(bootstrap=bootstrap, partitions=partitions))


def classifier_maker() -> Callable[[str], Classifier]:
    """tenant → a classifier with the built-in rules and an empty memory, as `stream.house` makes them where nothing is configured."""
    guards, lifecycle = GuardSettings.load(None), Lifecycle.load()
    ruleset = RuleSet.load(None, guards.sigma_placeholders())
    return lambda tenant: Classifier(ruleset, lifecycle, Guards(guards))


class Job:
    """`everything`: silent events are published too, each as one record."""

    def __init__(self, settings: Settings, everything: bool) -> None:
        self._make, self._settings = classifier_maker(), settings
        self._everything = everything
        self._tenants: dict[bytes, tuple[Classifier, Judge]] = {}

    def work(self, key: bytes, value: bytes, timestamp_ms: int, topic: str, partition: int, offset: int) -> list[Record]:
        """(topic, key, value) of what is to be published for one event."""
        try:
            event = decode(value)
        except MalformedEvent:
            return []
        known = self._tenants.get(key)
        classifier, judge = self._tenant(key) if known is None else known
        received = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
        verdict = classifier.observe(event, received)
        if not self._everything and verdict.moment is Moment.NONE and not verdict.findings:
            return []
        ref = EventRef(
            uuid=event["uuid"],
            event_type=event["eventType"],
            topic=topic,
            partition=partition,
            offset=offset,
            published=parse_time(event.get("published")),
            received=received,
        )
        judgement = judge.judge(event, verdict, ref, datetime.now(UTC))
        record = judgement.record
        person = record.people[0] if len(record.people) == 1 else ""
        return [
            (topics.OUTCOMES.name, topics.person_key(record.tenant, person), record.to_bytes()),
            *((topics.THREATS.name, topics.person_key(one.tenant, one.person), one.to_bytes()) for one in judgement.orders),
            *((topics.KNOCKS.name, topics.person_key(one.tenant, one.person), one.to_bytes()) for one in judgement.knocks),
            *((topics.OUTCOMES.name, topics.person_key(one.tenant, ""), one.to_bytes()) for one in judgement.notices),
        ]

    def _tenant(self, key: bytes) -> tuple[Classifier, Judge]:
        tenant, safety = key.decode(), self._settings.safety
        judge = Judge(tenant, timedelta(seconds=safety.max_action_age_s), PROTECTED, LockdownBrake(safety.brakes))
        self._tenants[key] = self._make(tenant), judge
        return self._tenants[key]


class Meter:
    """Counts events that are done. The clock runs from the end of the warm-up to the last event, or until `seconds` are over."""

    def __init__(self, total: int, seconds: float) -> None:
        self.total, self._seconds = total, seconds
        self._warm_up = min(WARM_UP, total // 4)
        self.done = 0
        self._began: tuple[int, float, float] | None = None
        self._ended: tuple[int, float, float] | None = None

    @property
    def is_over(self) -> bool:
        return self._ended is not None

    def add(self, count: int) -> None:
        if self._ended is not None:
            return
        self.done += count
        now = time.perf_counter()
        if self._began is None:
            if self.done >= self._warm_up:
                self._began = self.done, now, cpu_seconds()
        elif self.done >= self.total or now - self._began[1] >= self._seconds:
            self._ended = self.done, now, cpu_seconds()

    def figures(self) -> dict[str, float]:
        """`events` in `seconds`, `cpu` seconds of this process meanwhile, `memory` in bytes at its peak."""
        assert self._began is not None, "the run was shorter than its warm-up"
        assert self._ended is not None, "the run is not over"
        (first, began, cpu), (last, ended, used) = self._began, self._ended
        return {"events": last - first, "seconds": ended - began, "cpu": used - cpu, "memory": peak_memory()}
