"""Slack: one message per incident, rewritten in place; one per rule (or kind of notice) and hour for what only has to be told.

Reads the audit topic in a group of its own, keeps in a compacted topic which message belongs to what, and posts no faster than one a
second a channel. A post is read back by its metadata when a crash left it open (D25), so that an incident has one message. Offsets are
committed only up to the first record whose message is not out: Slack being down delays messages, it never loses one, and it holds up
nobody's containment. It runs beside the recorder, because there is one of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from handlers import messages
from handlers.contract import Clock
from handlers.evidence import READ_BACK
from model.change import Action, ActionStatus
from model.decision import Response, Severity
from model.errors import CredentialsRefused, OutcomeUnknown, PermanentError, TemporaryError
from model.event import digest
from model.person import Word
from model.records import Classified, Decision, EventRef, IncidentChanged, Notice, called, read_record
from stream import topics
from stream.books import KafkaJournal
from stream.broker import LAST_WORD_S, METADATA_MAX_AGE_MS, Broker, Publisher
from stream.state import State

log = logging.getLogger(__name__)

GROUP = "portcullis-notifier"
TARGET = "slack"
#: Slack takes about one message a second a channel.
GAP_S = 1.05
#: While the token or the channel is wrong, nothing that is said gets through: each message waits until a human has mended that.
MEND_S = 60.0
_CHANNEL = frozenset({"channel_not_found", "not_in_channel", "is_archived", "restricted_action"})
#: What only has to be told is rewritten no more often than this.
UPDATE_S = 30.0
_LOUD = (Severity.HIGH, Severity.CRITICAL)
#: Also told when all is well again: whoever read that a breaker opened, or that rules were refused, must not be left with that.
_SETTLED = ("breaker", "rules")


class Sender(Protocol):
    """handlers.slack.SlackSender."""

    async def post(self, channel: str, text: str, blocks: Any, intent: str, *, metadata: Any = None) -> str: ...
    async def update(self, channel: str, ts: str, text: str, blocks: Any, intent: str, *, metadata: Any = None) -> None: ...
    async def find_by_intent(self, channel: str, intent: str, *, oldest: str | None = None) -> str | None: ...
    async def aclose(self) -> None: ...


class Posted(Word):
    """Which message belongs to a subject. `ts` empty: a post is open under `intent`. `count`: how often it was told.
    `shown`: what the message says now, as a hash."""

    subject: str
    intent: str
    ts: str = ""
    count: int = 1
    last: str = ""
    shown: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """What is to be said of a subject, and per partition the first record of it that is not yet said."""

    subject: str
    message: messages.Message
    tenant: str
    person: str
    incident: str | None
    firsts: Mapping[TopicPartition, int]
    count: int = 0
    last: str = ""


class Desk:
    """What is waiting to be said: incidents first, then first words, then updates of what only has to be told, each of which waits
    `UPDATE_S` after the last. Folding is pure: the newest content of a subject wins, the first offset of each partition stays."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._urgent: OrderedDict[str, Pending] = OrderedDict()
        self._rest: OrderedDict[str, Pending] = OrderedDict()
        self._quiet_until: dict[str, float] = {}

    def fold(self, new: Pending, *, urgent: bool) -> None:
        queue = self._urgent if urgent else self._rest
        old = queue.get(new.subject)
        if old is not None:
            firsts = {tp: min(old.firsts.get(tp, at), at) for tp, at in new.firsts.items()}
            new = replace(new, firsts=dict(old.firsts) | firsts, count=old.count + new.count)
        queue[new.subject] = new

    def next(self) -> Pending | None:
        """The first that may be said now."""
        return next(self._ready(), None)

    def _ready(self) -> Iterator[Pending]:
        now = self._monotonic()
        yield from self._urgent.values()
        yield from (one for one in self._rest.values() if self._quiet_until.get(one.subject, 0.0) <= now)

    def wait_s(self) -> float | None:
        """Seconds until the next may be said; None where nothing waits."""
        if self._urgent:
            return 0.0
        times = [self._quiet_until.get(subject, 0.0) for subject in self._rest]
        return max(0.0, min(times) - self._monotonic()) if times else None

    def said(self, one: Pending) -> None:
        """Taken off, unless something newer was folded in meanwhile: then that is left, without what has been said."""
        for queue in (self._urgent, self._rest):
            left = queue.get(one.subject)
            if left is one:
                del queue[one.subject]
            elif left is not None:
                queue[one.subject] = replace(left, count=max(1, left.count - one.count))
        now = self._monotonic()
        self._quiet_until = {subject: until for subject, until in self._quiet_until.items() if until > now}
        self._quiet_until[one.subject] = now + UPDATE_S

    def first_offsets(self) -> dict[TopicPartition, int]:
        first: dict[TopicPartition, int] = {}
        for one in (*self._urgent.values(), *self._rest.values()):
            for tp, at in one.firsts.items():
                first[tp] = min(first.get(tp, at), at)
        return first

    def due(self) -> int:
        """How many may be said now."""
        return sum(1 for _ in self._ready())

    def __len__(self) -> int:
        return len(self._urgent) + len(self._rest)


class NotifyRole:
    def __init__(self, broker: Broker, sender: Sender, channel: str, clock: Clock) -> None:
        self._broker, self._sender, self._channel, self._clock = broker, sender, channel, clock
        self._publisher = Publisher(broker)
        self._posted = State(broker, self._publisher, topics.MESSAGES)
        self._intents = State(broker, self._publisher, topics.INTENTS)
        self._journal = KafkaJournal(self._publisher, self._intents, "notify", clock)
        self._desk = Desk(clock.monotonic)
        self._wake = asyncio.Event()
        self._positions: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self._publisher.start()
        await self._posted.start()
        await self._intents.start()
        await self._close_updates()
        self._broker.flow.reader(topics.OUTCOMES.name, GROUP)
        self._consumer = AIOKafkaConsumer(
            topics.OUTCOMES.name,
            bootstrap_servers=self._broker.bootstrap,
            group_id=GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        await self._consumer.start()
        self._tasks = [asyncio.create_task(self._read(), name="notify read"), asyncio.create_task(self._say(), name="notify say")]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._consumer is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_S):
                    await self._commit()
            await self._consumer.stop()
        await self._intents.stop()
        await self._posted.stop()
        await self._publisher.stop()
        await self._sender.aclose()
        self._broker.flow.gone(topics.OUTCOMES.name, GROUP)

    async def failed(self) -> None:
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled():
                task.result()

    async def lag(self) -> int:
        assert self._consumer is not None
        assigned = self._consumer.assignment()
        if not assigned:
            return 1
        ends = await self._consumer.end_offsets(list(assigned))
        behind = 0
        for tp in assigned:
            behind += int(ends[tp]) - int(await self._consumer.position(tp))
        return behind + self._desk.due()

    async def _read(self) -> None:
        assert self._consumer is not None
        while True:
            try:
                polled = await self._consumer.getmany(timeout_ms=250, max_records=1000)
            except KafkaError as error:
                log.warning("notifier: %s while reading, trying again", type(error).__name__)
                await asyncio.sleep(0.5)
                continue
            for tp, records in polled.items():
                for record in records:
                    self._fold(tp, record)
                self._positions[tp] = records[-1].offset + 1
                size = sum(len(one.value or b"") + len(one.key or b"") for one in records)
                self._broker.flow.read(tp.topic, GROUP, size)
            if len(self._desk):
                self._wake.set()
            await self._commit()

    def _fold(self, tp: TopicPartition, record: Any) -> None:
        try:
            told = read_record(record.value or b"")
        except ValidationError:
            return  # the recorder quarantines it
        if isinstance(told, IncidentChanged):
            message = messages.incident(told, person=called(told.decisions))
            one = Pending(told.incident, message, told.tenant, told.person, told.incident, {tp: record.offset}, 1, told.id)
            self._desk.fold(one, urgent=True)
        elif isinstance(told, Notice) and (told.severity in _LOUD or told.topic in _SETTLED):
            subject = digest("notice", told.tenant, told.topic, told.target or "", str(told.facts.get("code", "")), _hour(told.at))
            one = Pending(subject, messages.notice(told), told.tenant, told.person or "", told.incident, {tp: record.offset}, 1, told.id)
            self._desk.fold(one, urgent=told.severity is Severity.CRITICAL)
        elif isinstance(told, Classified):
            for decision in told.decisions:
                if decision.response is Response.ALERT and not decision.shadow:
                    self._desk.fold(self._alert(decision, told.event, tp, record.offset), urgent=False)

    @staticmethod
    def _alert(decision: Decision, event: EventRef, tp: TopicPartition, offset: int) -> Pending:
        subject = digest("alert", decision.tenant, decision.rule, _hour(decision.decided))
        message = messages.alert(decision, event=event, person=decision.who)
        return Pending(subject, message, decision.tenant, decision.person or "", None, {tp: offset}, 1, decision.id)

    async def _say(self) -> None:
        failures = 0
        while True:
            one = self._desk.next()
            if one is None:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._desk.wait_s()):
                        await self._wake.wait()
                continue
            try:
                await self._tell(one)
                failures = 0
                wait = GAP_S
            except TemporaryError as error:
                failures += 1
                wait = max(error.delay or 0.0, min(60.0, 2.0**failures))
                log.warning("Slack does not take a message now (%s): again in %.0f s", error, wait)
            except PermanentError as error:
                if isinstance(error, CredentialsRefused) or error.code in _CHANNEL:
                    log.error("Slack takes no message (%s): mend the token or the channel; what is to be said waits", error)
                    await self._clock.sleep(MEND_S)
                    continue
                log.error("Slack refuses a message for good (%s): it stands in the audit trail", error)
                self._desk.said(one)
                wait = GAP_S
            await self._clock.sleep(wait)

    async def _tell(self, one: Pending) -> None:
        stored = self._posted.values.get(one.subject)
        posted: Posted | None = Posted.from_bytes(stored) if stored else None
        if posted is not None and not posted.ts:
            posted = await self._find(posted)
        if posted is None:
            await self._post(one)
        elif posted.last != one.last:
            await self._update(one, posted)
        self._desk.said(one)

    async def _find(self, posted: Posted) -> Posted | None:
        """A post that a crash left open: is it there?"""
        ts = await self._sender.find_by_intent(self._channel, posted.intent)
        found = None if ts is None else posted.model_copy(update={"ts": ts})
        if found is not None:
            await self._posted.write(found.subject, found.to_bytes())
        news = {"status": ActionStatus.FAILED if found is None else ActionStatus.DONE, "detail": READ_BACK, "observed": self._clock.now()}
        for action in self._journal.all_open():
            if action.intent == posted.intent:
                await self._journal.answered(action.model_copy(update=news))
        return found

    async def _close_updates(self) -> None:
        """Whether a rewriting took place before a crash leaves no trace; the next one says the newest anyway (D25)."""
        for action in self._journal.all_open():
            if action.change == "update":
                news = {"status": ActionStatus.UNKNOWN, "answered": self._clock.now(), "detail": "a restart came between"}
                await self._journal.answered(action.model_copy(update=news))
                await self._journal.close(action)

    async def _post(self, one: Pending) -> None:
        action = self._action(one, "post")
        content = self._content(one, one.count)
        posted = Posted(subject=one.subject, intent=action.intent, count=one.count, last=one.last, shown=_hash(content))
        await asyncio.gather(self._journal.intended(action), self._posted.write(one.subject, posted.to_bytes()))
        ts = await self._call(action, self._sender.post(self._channel, *content, action.intent))
        assert isinstance(ts, str)
        await self._posted.write(one.subject, posted.model_copy(update={"ts": ts}).to_bytes())

    async def _update(self, one: Pending, posted: Posted) -> None:
        """What it says already is not written again: an order that was delivered again tells its incident again."""
        count = posted.count + one.count
        content = self._content(one, count)
        new = posted.model_copy(update={"count": count, "last": one.last, "shown": _hash(content)})
        if new.shown != posted.shown:
            action = self._action(one, "update")
            await self._journal.intended(action)
            await self._call(action, self._sender.update(self._channel, posted.ts, *content, action.intent))
        await self._posted.write(one.subject, new.to_bytes())

    async def _call(self, action: Action, call: Any) -> Any:
        called = self._clock.now()
        try:
            answer = await call
        except TemporaryError as error:
            await self._answered(action, ActionStatus.UNKNOWN if isinstance(error, OutcomeUnknown) else ActionStatus.FAILED, called, error)
            raise
        except PermanentError as error:
            await self._answered(action, ActionStatus.FAILED, called, error)
            raise
        await self._answered(action, ActionStatus.DONE, called, None)
        return answer

    async def _answered(self, action: Action, status: ActionStatus, called: datetime, error: Exception | None) -> None:
        news = {"status": status, "called": called, "answered": self._clock.now(), "detail": str(error)[:300] if error else ""}
        await self._journal.answered(action.model_copy(update=news))

    def _action(self, one: Pending, change: str) -> Action:
        return Action(
            intent=uuid.uuid4().hex,
            lane="notify",
            incident=one.incident,
            tenant=one.tenant,
            person=one.person,
            target=TARGET,
            account=self._channel,
            change=change,
            status=ActionStatus.INTENDED,
            intended=self._clock.now(),
        )

    @staticmethod
    def _content(one: Pending, count: int) -> tuple[str, Any]:
        blocks = list(one.message.blocks)
        if count > 1 and one.incident != one.subject:
            text = f"{count} times within this hour; the last one is shown"
            blocks.append({"type": "context", "elements": [{"type": "plain_text", "text": text}]})
        return one.message.text, blocks

    async def _commit(self) -> None:
        if self._consumer is None or not self._positions:
            return
        first = self._desk.first_offsets()
        offsets = {tp: first.get(tp, at) for tp, at in self._positions.items() if tp in self._consumer.assignment()}
        try:
            await self._consumer.commit(offsets)
        except KafkaError as error:
            log.warning("notifier: commit refused, tried again: %s", type(error).__name__)


def _hash(content: tuple[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True))


def _hour(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H")
