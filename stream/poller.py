"""Okta's System Log into Kafka: one endless polling query a tenant, followed by its `next` links, verbatim.

The checkpoint is the link, and it is stored only after Kafka has acknowledged every event of the page (S1): a crash repeats events,
it never loses one. It lives in a compacted topic keyed by tenant; owning that key's partition in the pollers' group is the lease (S7).
`published` is data, never a clock: the fall-back for a refused cursor starts from the server's Date of the last good page (D26).
Rejected: paging by `max(published)` (late events are lost), a cursor in a file (a second poller would not know).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from handlers.contract import Clock
from handlers.okta.api import LogPage, OktaApi, UnreadablePage
from model.decision import Severity
from model.errors import ConfigurationError, FaultError, PermanentError, TemporaryError
from model.event import digest, parse_time
from model.person import Word
from model.records import Notice, Quarantined
from model.settings import OktaSettings
from stream import topics
from stream.broker import METADATA_MAX_AGE_MS, Broker, Publisher
from stream.pace import Pace
from stream.state import State

log = logging.getLogger(__name__)

GROUP = "portcullis-poller"
#: How far back a refused cursor starts again; repeats fall on their uuid.
OVERLAP = timedelta(minutes=10)
#: Okta keeps 90 days and refuses a `since` of more than 180.
OLDEST = timedelta(days=179)
RETENTION = timedelta(days=90)
#: So much younger than the oldest event that Okta keeps is where reading goes on after a gap: by then the oldest is gone.
GAP_MARGIN = timedelta(hours=1)
#: The same page fails this often before it is asked for in smaller pages (D27).
PATIENCE = 5
CLOCK_TOLERANCE = timedelta(minutes=5)
#: A tail that a fault ended begins again after so long, where other tenants are read on.
AGAIN_S = 60.0


class GapError(FaultError):
    """Events are lost that nobody can bring back (S5)."""


class Checkpoint(Word):
    """Where a tenant's tail stands. `date` is the server's clock at the last good page."""

    next: str
    date: datetime | None = None
    saved: datetime


class Tail:
    """One tenant's tail. `step` asks for one page and says how long to wait; it holds no lock and may be cancelled anywhere."""

    def __init__(
        self, tenant: str, settings: OktaSettings, api: OktaApi, broker: Broker, publisher: Publisher, checkpoints: State, clock: Clock
    ) -> None:
        self.tenant, self._settings, self._api = tenant, settings, api
        self._broker, self._publisher, self._checkpoints, self._clock = broker, publisher, checkpoints, clock
        self._pace = Pace(settings.poll_interval_s, settings.rate_share)
        self._said: set[str] = set()
        #: How much a query that we begin asks for; the links that follow carry it on.
        self._limit = settings.page_size
        self._small_since: datetime | None = None
        self._begin = ""
        self._fallen_back = False
        self._url = ""
        self._date: datetime | None = None
        self.caught_up = False
        self.events = 0

    def load(self) -> None:
        """Where to begin: the stored checkpoint, else `start`. Never silently "now" (D29)."""
        stored = self._checkpoints.values.get(self.tenant)
        if stored is not None:
            try:
                checkpoint = Checkpoint.from_bytes(stored)
            except ValidationError:
                raise FaultError(
                    f"the checkpoint of tenant {self.tenant} is damaged ({len(stored)} bytes): refusing to start from now. "
                    f"Erase the key {self.tenant} in {topics.CHECKPOINTS.name} and set okta.{self.tenant}.start to a time before the damage"
                ) from None
            self._url, self._date = checkpoint.next, checkpoint.date
            return
        if self._settings.start is None:
            raise ConfigurationError(
                f"okta.{self.tenant}: no checkpoint is stored and no start is set: say where to begin with "
                'start = "now", "beginning", "-7d" or a time such as "2026-01-31T00:00:00Z"'
            )
        self._begin = _text(since(self._settings.start, self._clock.now()))
        self._url = self._api.first_log_url(self._begin, self._limit)

    async def step(self) -> float:
        """One request and what follows from it. Returns the seconds to wait before the next."""
        try:
            page = await self._api.log_page(self._url)
        except TemporaryError as error:
            return await self._unreadable(error)
        except PermanentError as error:
            self.caught_up = False
            if error.code == "body_too_large":
                return await self._unreadable(TemporaryError(str(error)))
            await self._say("source", f"the log of {self.tenant} cannot be read: {error}", "check okta's URL and credential", error.code)
            return self._pace.after_failure()
        if page.status == 200:
            return await self._take(page)
        self.caught_up = False
        if page.status == 429:
            return self._pace.after_refusal(page)
        if page.status == 400:
            return await self._fall_back(page)
        if page.status in (401, 403):
            await self._say(
                "source",
                f"Okta refuses our credential for {self.tenant} ({page.status} {page.error_code}): the log is not read",
                f"renew the token or the grant of okta.{self.tenant}; the cursor is kept",
                str(page.status),
                Severity.CRITICAL,
            )
            return 30.0
        return await self._unreadable(TemporaryError(f"{page.status} {page.error_code}", page.retry_after))

    async def _take(self, page: LogPage) -> float:
        await self._warn_of_clock(page)
        received = int(self._clock.now().timestamp() * 1000)
        pending = []
        for raw in page.events:
            if len(raw) > self._broker.max_event_bytes:
                await self._too_large(raw)
            else:
                pending.append(await self._publisher.begin(topics.SYSTEM_LOG, self.tenant.encode(), raw, received))
        if pending:
            await asyncio.gather(*pending)
        asked = _limit_of(self._url, self._settings.page_size)
        full = len(page.events) >= asked
        self.events += len(page.events)
        if page.next is None:
            raise FaultError(f"Okta gave no next link for the polling query of {self.tenant}: it is not a polling query")
        if page.events or page.next != self._url:
            await self._save(page)
        self._said &= {"clock"}
        self._fallen_back = False
        self.caught_up = not full
        self._grow_back(page, asked)
        return self._pace.after_page(page, full)

    def _grow_back(self, page: LogPage, asked: int) -> None:
        """Small pages carry their size on from link to link. Once what they were for lies behind, whole ones are asked for again."""
        if asked >= self._settings.page_size or page.date is None:
            self._small_since, self._limit = None, self._settings.page_size
            return
        self._small_since = self._small_since or page.date
        if self.caught_up and page.date - self._small_since > 2 * OVERLAP:
            self._small_since, self._limit = None, self._settings.page_size
            self._url = self._api.first_log_url(_text(page.date - OVERLAP), self._limit)

    async def _save(self, page: LogPage) -> None:
        assert page.next is not None
        await self._store(page.next, page.date or self._date)

    async def _store(self, url: str, date: datetime | None) -> None:
        self._url, self._date = url, date
        checkpoint = Checkpoint(next=url, date=date, saved=self._clock.now())
        await self._checkpoints.write(self.tenant, checkpoint.to_bytes())

    async def _fall_back(self, page: LogPage) -> float:
        """The cursor is refused: begin again before the last good page, by the server's clock, and say so (9)."""
        if self._date is None or self._fallen_back:
            await self._say(
                "source",
                f"Okta refuses the query for {self.tenant} ({page.error_code})",
                f"check okta.{self.tenant}.start (Okta keeps 90 days)",
                page.error_code,
                Severity.CRITICAL,
            )
            return 30.0
        now = page.date or self._clock.now()
        begin = self._date - OVERLAP
        if now - begin > RETENTION:
            await self._gap(self._date, now)
        await self._notice(
            "cursor",
            f"Okta refused the cursor of {self.tenant} ({page.error_code}): reading again from {_text(begin)}",
            "nothing to do: repeats fall on their uuid",
            Severity.LOW,
            {"since": _text(begin), "code": page.error_code},
        )
        self._url = self._api.first_log_url(_text(begin), self._limit)
        self._fallen_back = True
        return self._settings.poll_interval_s

    async def _gap(self, last: datetime, now: datetime) -> None:
        """S5: recorded, told, and the process ends, since nobody can bring these events back. The next start reads on from the oldest that
        Okta keeps: each day of waiting for somebody would lose another."""
        oldest = now - RETENTION + GAP_MARGIN
        await self._notice(
            "gap",
            f"{self.tenant} was not read from {_text(last)} until now, longer than Okta keeps its log: what happened before "
            f"{_text(oldest)} is lost",
            f"get what is missing from another archive; the next start reads on from {_text(oldest)}",
            Severity.CRITICAL,
            {"from": _text(last), "to": _text(oldest)},
        )
        begin = self._api.first_log_url(_text(oldest), self._settings.page_size)
        await self._store(begin, oldest + OVERLAP)
        raise GapError(
            f"the outage of {self.tenant} was longer than Okta's retention: a gap is recorded (S5). Start again to read on from {_text(oldest)}"
        )

    async def _unreadable(self, error: TemporaryError) -> float:
        """Asked again whole; after some tries what came is parked, and it is asked for in smaller pages from before the last good page, so
        that one page stops nobody (D27). Nothing is ever passed over: what came may have hidden events that were never seen."""
        self.caught_up = False
        wait = max(self._pace.after_failure(), min(error.delay or 0.0, 60.0))
        if self._pace.failures % PATIENCE == 0:
            await self._say(
                "source", f"the log of {self.tenant} does not come: {error}", "check Okta's status and the way to it", "unreadable"
            )
            if isinstance(error, UnreadablePage):
                await self._park(error.body)
            begin = _text(self._date - OVERLAP) if self._date is not None else self._begin
            if begin and self._limit > 1:
                self._limit = max(1, self._limit // 10)
                self._url = self._api.first_log_url(begin, self._limit)
        return wait

    async def _park(self, body: bytes) -> None:
        """On the log, as it came: it is no event, so the recorder puts it into quarantine with its bytes."""
        if len(body) > self._broker.max_event_bytes:
            await self._too_large(body)
        elif body:
            received = int(self._clock.now().timestamp() * 1000)
            await (await self._publisher.begin(topics.SYSTEM_LOG, self.tenant.encode(), body, received))

    async def _too_large(self, raw: bytes) -> None:
        sha256 = hashlib.sha256(raw).hexdigest()
        record = Quarantined(
            id=digest("quarantine", self.tenant, sha256),
            tenant=self.tenant,
            at=self._clock.now(),
            reason="too_large",
            size=len(raw),
            sha256=sha256,
        )
        await self._publisher.send(topics.OUTCOMES, topics.person_key(self.tenant, ""), record.to_bytes())

    async def _warn_of_clock(self, page: LogPage) -> None:
        if page.date is not None and abs(page.date - self._clock.now()) > CLOCK_TOLERANCE:
            seconds = (self._clock.now() - page.date).total_seconds()
            text = f"our clock differs from Okta's by {seconds:+.0f} s: ages of threats are judged wrongly"
            await self._say("clock", text, "set this host's clock (NTP)", "clock")
        else:
            self._said.discard("clock")

    async def say_stopped(self, why: str) -> None:
        await self._say(
            "source", f"{self.tenant} is not read any more: {why}", f"mend it; it is tried again every {AGAIN_S:.0f} s, and the other "
            "tenants are read on", "stopped", Severity.CRITICAL,
        )  # fmt: skip

    async def _say(self, topic: Any, text: str, remedy: str, code: str, severity: Severity = Severity.HIGH) -> None:
        """A notice that is not repeated while its cause lasts."""
        if code not in self._said:
            self._said.add(code)
            log.warning("%s", text)
            await self._notice(topic, text, remedy, severity, {"code": code})

    async def _notice(self, topic: Any, text: str, remedy: str, severity: Severity, facts: dict[str, Any]) -> None:
        now = self._clock.now()
        notice = Notice(
            id=digest("notice", self.tenant, text, now.isoformat()),
            tenant=self.tenant,
            at=now,
            topic=topic,
            severity=severity,
            text=text,
            remedy=remedy,
            facts=facts,
        )
        await self._publisher.send(topics.OUTCOMES, topics.person_key(self.tenant, ""), notice.to_bytes())


class Poller:
    """All tenants of one configuration; each is tailed by whichever poller holds its lease. One that cannot be read stops no other:
    the process ends when none of ours is left, or at a gap."""

    def __init__(self, broker: Broker, settings: Mapping[str, OktaSettings], apis: Mapping[str, OktaApi], clock: Clock) -> None:
        self._broker, self._clock = broker, clock
        self._publisher = Publisher(broker, linger_ms=5)
        self._checkpoints = State(broker, self._publisher, topics.CHECKPOINTS)
        self._tails = {
            name: Tail(name, one, apis[name], broker, self._publisher, self._checkpoints, clock) for name, one in settings.items()
        }
        self._apis = apis
        self._group: AIOKafkaConsumer | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        #: Tenants of ours that wait to be read again, and what ended their tails.
        self.stopped: dict[str, str] = {}
        self._lease: asyncio.Task[None] | None = None
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        await self._publisher.start()
        await self._checkpoints.start()
        self._group = AIOKafkaConsumer(
            bootstrap_servers=self._broker.bootstrap, group_id=GROUP, enable_auto_commit=False, auto_offset_reset="earliest",
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )  # fmt: skip
        await self._group.start()
        self._group.subscribe([topics.CHECKPOINTS.name], listener=_Lease(self._own, self._disown_all))
        self._lease = asyncio.create_task(self._keep_lease(), name="poller lease")

    async def stop(self) -> None:
        await self._disown_all()
        if self._lease is not None:
            self._lease.cancel()
            await asyncio.gather(self._lease, return_exceptions=True)
        if self._group is not None:
            await self._group.stop()
        await self._checkpoints.stop()
        await self._publisher.stop()
        for api in self._apis.values():
            await api.aclose()

    async def failed(self) -> None:
        await self._fault

    async def lag(self) -> int:
        """0 when every tenant whose lease is ours is read to its end, or as far as it can be."""
        if not self._running:
            return 1
        return sum(not self._tails[name].caught_up for name in self._running.keys() - self.stopped.keys())

    @property
    def events(self) -> int:
        return sum(tail.events for tail in self._tails.values())

    async def _keep_lease(self) -> None:
        assert self._group is not None
        while True:
            try:
                await self._group.getmany(timeout_ms=1000)
            except Exception as error:
                log.warning("poller lease: %r", error)
                await asyncio.sleep(1)

    async def _own(self, partitions: set[int]) -> None:
        await self._checkpoints.caught_up()
        for tenant, tail in self._tails.items():
            if topics.partition_of(tenant.encode(), self._broker.partitions) in partitions and tenant not in self._running:
                self._running[tenant] = asyncio.create_task(self._run(tail), name=f"tail {tenant}")

    async def _disown(self, tenants: Iterable[str]) -> None:
        tasks = [self._running.pop(tenant) for tenant in list(tenants) if tenant in self._running]
        self.stopped = {tenant: why for tenant, why in self.stopped.items() if tenant in self._running}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, tail: Tail) -> None:
        try:
            while True:
                try:
                    await self._follow(tail)
                except (GapError, ConfigurationError, KafkaError):
                    raise
                except Exception as error:
                    self.stopped[tail.tenant] = why = str(error) if isinstance(error, FaultError) else type(error).__name__
                    if self.stopped.keys() >= self._running.keys():
                        raise
                    if not isinstance(error, FaultError):
                        log.error("the tail of %s ended by a bug", tail.tenant, exc_info=error)
                    await tail.say_stopped(why)
                await self._clock.sleep(AGAIN_S)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if not self._fault.done():
                self._fault.set_exception(error)

    async def _follow(self, tail: Tail) -> None:
        tail.load()
        while True:
            wait = await tail.step()
            self.stopped.pop(tail.tenant, None)
            await self._clock.sleep(wait)

    async def _disown_all(self) -> None:
        await self._disown(self._tails)


class _Lease(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka rebalances eagerly: all is revoked, then all is assigned."""

    def __init__(self, own: Callable[[set[int]], Awaitable[None]], disown: Callable[[], Awaitable[None]]) -> None:
        self._own, self._disown = own, disown

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._disown()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._own({tp.partition for tp in assigned})


def since(start: str, now: datetime) -> datetime:
    """`start` of a tenant as a time. Raises ConfigurationError."""
    if start == "now":
        return now
    if start == "beginning":
        return now - OLDEST
    if start.startswith("-") and start.endswith("d") and start[1:-1].isdigit():
        return now - timedelta(days=int(start[1:-1]))
    moment = parse_time(start)
    if moment is None:
        raise ConfigurationError(f'start = "{start}": use "now", "beginning", "-7d" or a time such as "2026-01-31T00:00:00Z"')
    return moment


def _limit_of(url: str, otherwise: int) -> int:
    """What a query asks for; a link that does not say so is taken to ask for what we do."""
    (text,) = parse_qs(urlsplit(url).query).get("limit", [""])[:1]
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 and int(text) > 0 else otherwise


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
