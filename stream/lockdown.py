"""The lockdown lane: orders become Holds and closed accounts, at once; commands release them.

An order is acted on once: its event's uuid is remembered with the person (S3), so that neither a redelivery nor a repeat in the log
locks again after a release. A Hold is durable before the first call. What was partial is tried again by the schedule, and each
lockdown is read back some time later (N12): the last word is this lane's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from handlers.containment import ContainmentResult, DriftResult
from handlers.contract import Clock
from handlers.lockdown import Lockdown
from model.change import Action
from model.decision import Moment, Scope, Severity
from model.errors import Fenced, PortcullisError, TemporaryError
from model.event import digest
from model.person import Hold, HoldState
from model.records import Command, IncidentState, Knock, Order, called
from model.settings import Settings
from stream import topics
from stream.books import HoldIndex, Latch, LatchKeeper, Removals
from stream.broker import Broker
from stream.incidents import next_incident, told
from stream.lane import Item, LaneRole
from stream.schedule import Due
from stream.state import Follower, State

CLOSE, READ_BACK, RELEASE = "close", "read_back", "release"
#: A containment's entry, by what its order asks for: one that asks for less must not take the place of one that asks for more.
CONTAINS = tuple(f"contain{kind}" for kind in ("", ".downstream", ".sessions", ".sessions.downstream", ".again"))
#: The directory may lag the log: whether the leaver is gone is asked once more (D6).
STALE = "stale"
#: A second read-back follows the first after so many times its delay.
READ_BACKS = (1.0, 5.0)


class LockdownRole(LaneRole):
    lane = "lockdown"
    group = "portcullis-lockdown"
    work_topic = topics.THREATS
    work_model = Order
    at_once = 64

    def __init__(self, broker: Broker, settings: Settings, clock: Clock) -> None:
        super().__init__(broker, settings, clock)
        index = HoldIndex()
        self._latches = State(broker, self.publisher, topics.HOLDS, index.changed)
        self.keeper = LatchKeeper(self._latches, index, self.publisher, clock)
        self._brakes = State(broker, self.publisher, topics.BRAKES, lambda key, value: self.removals.changed(key, value))
        self._counts = Follower(broker, topics.COUNTS)
        #: A leaver's closing counts as a removal (D19); the counts are shared with the provision lane.
        self.removals = Removals(self._brakes, self._counts, settings.safety.brakes, self.publisher, clock)
        self.more: list[Follower] = []
        self.engine: Lockdown | None = None

    @property
    def _engine(self) -> Lockdown:
        assert self.engine is not None, "the engine is set before the lane starts"
        return self.engine

    def followers(self) -> Sequence[Follower]:
        return [self._latches, self._brakes, self._counts, *self.more]

    async def work(self, tenant: str, person: str, items: Sequence[Item]) -> None:
        closes = [item for item in items if isinstance(item, Order) and item.kind == "close"]
        for item in items:
            if isinstance(item, Command):
                await self.carry_out(item)
            elif isinstance(item, Order) and (item.kind != "close" or item is closes[-1]):
                await self._order(item)  # several closes of one person are one look at the present

    async def outlived(self, tenant: str, person: str, items: Sequence[Item]) -> None:
        """What is not handled goes on by the schedule, no sooner than a call's own timeout (D24). Each for itself: an approval that
        waits must not stand in the place of a lockdown, and a release is not forgotten."""
        for item in items:
            if not (self.is_carried_out(item) or self.keeper.latch(tenant, person).has_handled(self._mark(item))):
                await self.put_off(tenant, person, item, self._call_timeout())

    async def resume(self, action: Action) -> Action:
        return await self._engine.resume(action)

    def _call_timeout(self) -> float:
        return max((target.timeout_s for target in self._settings.targets.values()), default=15.0)

    @staticmethod
    def _mark(item: Item) -> str:
        return f"{item.kind}:{item.event.uuid}" if isinstance(item, Order) else f"command:{item.id}"

    # --- orders -----------------------------------------------------------------------------------------------------------

    async def _order(self, order: Order) -> None:
        latch = self.keeper.latch(order.tenant, order.person)
        if order.kind == "again":
            await self._contain_again(order, latch)
        elif order.kind == "close":  # looks at the present, so a repeat is harmless and nothing is remembered
            await self._close(order)
        elif latch.has_handled(self._mark(order)) or _released_for(latch, order):
            return
        elif order.kind == "approve":
            await self._pend(order)
        else:
            await self._lock(order, latch)

    async def _lock(self, order: Order, latch: Latch) -> None:
        standing = latch.open_holds[0] if latch.open_holds else None
        incident = standing.incident if standing else digest("incident", order.tenant, order.person, order.event.uuid)
        hold = None
        if order.scope is Scope.FULL:
            hold = standing or Hold(
                id=digest("hold", incident), tenant=order.tenant, person=order.person, incident=incident, since=self._clock.now(),
                reason=order.decisions[0].title if order.decisions else "",
            )  # fmt: skip
        delivered_again = standing is not None and standing.incident == digest("incident", order.tenant, order.person, order.event.uuid)
        result, opened = await asyncio.gather(  # the Hold's write goes first: the looks wait for it, the incident waits for nobody
            self._engine.contain(order, hold, incident, attempt=2 if delivered_again else 1),
            self._tell_incident(order, incident, "open", None),
            return_exceptions=True,
        )
        for outcome in (result, opened):
            if isinstance(outcome, BaseException):
                raise outcome
        assert isinstance(result, ContainmentResult)
        await self._settle(self._due(order, _slot(order), incident=incident), order, result)

    async def _contain_again(self, order: Order, latch: Latch) -> None:
        """Provisioning opened something before it saw the Hold: what each Hold stands for, once more (D11)."""
        for hold in latch.open_holds:
            result = await self._engine.contain(order, hold, hold.incident)
            await self._settle(self._due(order, _slot(order), incident=hold.incident), order, result)

    async def _pend(self, order: Order) -> None:
        """Stored and told; executes nothing until approvals exist (D17)."""
        incident = digest("incident", order.tenant, order.person, order.event.uuid)
        await self._tell_incident(order, incident, "pending_approval", None)
        await self._handled(order)

    async def _settle(self, due: Due, order: Order, result: ContainmentResult) -> None:
        """A containment's result becomes the incident's state, and what is left goes on the schedule."""
        incident = due.incident or ""
        if result.code == "fenced":
            raise Fenced(result.reason)
        if result.state == "superseded":
            await self.schedule.drop(due.tenant, due.person, due.slot)
            return
        await self._tell_incident(order, incident, "contained" if result.state == "contained" else "partial", result, due.slot)
        if result.page or result.state in ("refused", "failed"):
            await self._page(order, incident, result)
        await self._plan_rest(due, result)
        await self._handled(order)

    async def _plan_rest(self, due: Due, result: ContainmentResult) -> None:
        hold = result.hold.id if result.hold is not None else None
        if result.retry:
            await self.again(_rest(due, result).model_copy(update={"hold": hold}), result.reason, result.code, result.delay)
        else:
            await self.schedule.drop(due.tenant, due.person, due.slot)
        if hold is not None and result.state != "refused" and self.schedule.get(due.tenant, due.person, READ_BACK) is None:
            await self._plan_read_back(due.tenant, due.person, hold, due.incident, 0, ())

    async def _plan_read_back(self, tenant: str, person: str, hold: str, incident: str | None, number: int, closed: Sequence[str]) -> None:
        now, wait = self._clock.now(), self._settings.safety.read_back_after_s * READ_BACKS[number]
        await self.schedule.put(
            Due(
                lane=self.lane,
                tenant=tenant,
                person=person,
                slot=READ_BACK,
                kind="read_back",
                due=self._in(wait),
                since=now,
                number=number,
                hold=hold,
                incident=incident,
                only=tuple(closed),
            )
        )

    async def _close(self, order: Order) -> None:
        """The closing half of a leave (D33)."""
        due = self._due(order, CLOSE)
        try:
            result = await self._engine.close(order)
        except TemporaryError as error:
            await self.again(due, str(error), type(error).__name__, error.delay)
            return
        await self._settle_close(due, order, result)

    async def _settle_close(self, due: Due, order: Order, result: ContainmentResult) -> None:
        if result.code == "fenced":
            raise Fenced(result.reason)
        if result.retry:
            await self.again(_rest(due, result), result.reason, result.code, result.delay)
        elif result.code == STALE and due.code != STALE:
            await self.again(due, result.reason, STALE, self._settings.safety.second_look_s)
        else:
            await self.schedule.drop(due.tenant, due.person, due.slot)
        if result.page or result.state == "refused":
            await self._page(order, None, result)
        if any(one.actions for one in result.targets):
            await self._knock_closed(order)

    async def _knock_closed(self, order: Order) -> None:
        """The rest of the leave is provisioning's; and whoever came back while they were being closed is opened again."""
        knock = Knock(
            id=digest("knock", order.id, "closed"), tenant=order.tenant, person=order.person, moment=Moment.LEAVE, event=order.event,
            reason="closed", second_look=True,
        )  # fmt: skip
        await self.publisher.send(topics.KNOCKS, topics.person_key(order.tenant, order.person), knock.to_bytes())

    async def _handled(self, order: Order) -> None:
        now = self._clock.now()
        await self.keeper.keep(order.tenant, order.person, lambda latch: latch.with_handled(self._mark(order), now))

    # --- incidents --------------------------------------------------------------------------------------------------------

    async def _tell_incident(
        self, order: Order, incident: str, state: IncidentState, result: ContainmentResult | None, slot: str = ""
    ) -> None:
        before = self.keeper.latch(order.tenant, order.person).incident(incident)
        results = result.targets if result is not None else ()
        record = next_incident(order, incident, state, results, before, self._clock.now(), self._left(order, slot))
        await asyncio.gather(
            self.keeper.keep(order.tenant, order.person, lambda latch: latch.with_incident(record)),
            self.publisher.send(topics.OUTCOMES, topics.person_key(order.tenant, order.person), record.to_bytes()),
        )

    def _left(self, order: Order, slot: str) -> frozenset[str]:
        """Targets where another order's containment waits for its next try: this one's calls do not stand for those."""
        others = (self.schedule.get(order.tenant, order.person, one) for one in CONTAINS if one != slot)
        return frozenset(target for due in others if due is not None for target in due.only)

    async def _restate(self, tenant: str, person: str, incident: str, state: Any, **news: Any) -> None:
        """An incident's next state without a new order."""
        before = self.keeper.latch(tenant, person).incident(incident)
        if before is None:
            return
        now = self._clock.now()
        record = before.model_copy(update={"id": digest("incident", incident, state, now.isoformat()), "at": now, "state": state, **news})
        await self.keeper.keep(tenant, person, lambda latch: latch.with_incident(record))
        await self.publisher.send(topics.OUTCOMES, topics.person_key(tenant, person), record.to_bytes())

    async def _page(self, order: Order, incident: str | None, result: ContainmentResult) -> None:
        who = called(order.decisions)
        await self.tell(
            order.tenant, "page", f"{order.kind} of {order.person}: {result.state}: {result.reason or result.code}", person=order.person,
            incident=incident, severity=Severity.CRITICAL, remedy="close the account by hand where it must be closed",
            facts={"code": result.code, "targets": {one.target: one.state for one in result.targets}} | ({"who": who} if who else {}),
        )  # fmt: skip

    # --- the schedule -----------------------------------------------------------------------------------------------------

    def _due(self, order: Order, slot: str, *, incident: str | None = None, delay: float = 0.0) -> Due:
        known = self.schedule.get(order.tenant, order.person, slot)
        now = self._clock.now()
        return Due(
            lane=self.lane, tenant=order.tenant, person=order.person, slot=slot, kind="retry", due=self._in(delay),
            since=known.since if known else now, attempts=known.attempts if known else 0, incident=incident,
            event_uuid=order.event.uuid, payload=order.model_dump_json(),
        )  # fmt: skip

    async def later(self, due: Due) -> None:
        if due.slot == READ_BACK:
            await self._read_back(due)
        elif due.slot == RELEASE:
            await self._release_again(due)
        elif due.slot == CLOSE:
            await self._close_again(due)
        elif due.slot in CONTAINS:
            await self._contain_later(due)
        else:
            await self.reread(due)

    async def _contain_later(self, due: Due) -> None:
        order: Order = Order.from_bytes(due.original)
        hold = self._hold(due)
        result = await self._engine.contain(
            order, hold, due.incident or "", only=due.only or None, suspended=due.suspended, attempt=due.attempts + 1
        )
        await self._settle(due, order, result)

    async def _close_again(self, due: Due) -> None:
        order: Order = Order.from_bytes(due.original)
        try:
            result = await self._engine.close(order, only=due.only or None, suspended=due.suspended, attempt=due.attempts + 1)
        except TemporaryError as error:
            await self.again(due, str(error), type(error).__name__, error.delay)
            return
        await self._settle_close(due, order, result)

    def _hold(self, due: Due) -> Hold | None:
        holds = self.keeper.latch(due.tenant, due.person).holds
        return next((hold for hold in holds if hold.id == due.hold), None)

    async def _read_back(self, due: Due) -> None:
        hold = self._hold(due)
        if hold is None or not hold.is_open:
            await self.schedule.drop(due.tenant, due.person, READ_BACK)
            return
        try:
            drift = await self._engine.read_back(hold, closed_before=due.only, unfinished=due.suspended)
        except PortcullisError as error:
            if isinstance(error, Fenced):
                raise
            await self.again(due, str(error), type(error).__name__, getattr(error, "delay", None))
            return
        await self._settle_drift(due, hold, drift)

    async def _settle_drift(self, due: Due, hold: Hold, drift: DriftResult) -> None:
        if drift.page:
            states = {one.target: one.state for one in drift.targets}
            incident = self.keeper.latch(hold.tenant, hold.person).incident(hold.incident)
            who = called(incident.decisions) if incident else ""
            await self.tell(
                hold.tenant, "drift", f"{hold.person} was open again under a Hold: {states}", person=hold.person, incident=hold.incident,
                severity=Severity.CRITICAL, remedy="find out who or what re-opened the account; it is closed again once",
                facts=states | ({"who": who} if who else {}),
            )  # fmt: skip
        number = due.number + 1
        closed = sorted({*due.only, *drift.closed_again})
        if drift.retry:
            left = {"only": tuple(closed), "suspended": tuple(sorted(drift.unfinished))}
            await self.again(due.model_copy(update=left), "could not be read back, or closed", "unread", drift.delay)
        elif number < len(READ_BACKS):
            await self._plan_read_back(hold.tenant, hold.person, hold.id, hold.incident, number, closed)
        else:
            await self.schedule.drop(hold.tenant, hold.person, READ_BACK)

    # --- commands ---------------------------------------------------------------------------------------------------------

    async def command(self, command: Command) -> None:
        if command.kind in ("redrive", "drop"):
            await self.redrive_or_drop(command)
        elif command.kind == "release":
            await self._release(command)
        elif command.kind == "reset_brake" and (brake := str(command.args.get("brake", ""))).startswith("lockdown:"):
            await self.take_command(command)
            await self._brakes.erase(brake)

    async def _release(self, command: Command) -> None:
        wanted = set(command.args.get("holds", ()))
        latch = self.keeper.latch(command.tenant, command.person)
        if latch.has_handled(f"command:{command.id}"):
            return
        await self.take_command(command)
        for hold in latch.holds:
            if hold.id in wanted and _is_unreleased(latch, hold):
                result = await self._engine.release(hold, actor=command.actor, reason=command.reason)
                await self._settle_release(command, hold, result)
        now = self._clock.now()
        await self.keeper.keep(command.tenant, command.person, lambda latch: latch.with_handled(f"command:{command.id}", now))

    async def _settle_release(self, command: Command, hold: Hold, result: ContainmentResult, attempts: int = 0) -> None:
        if result.code == "fenced":
            raise Fenced(result.reason)
        if result.retry:
            due = Due(
                lane=self.lane, tenant=hold.tenant, person=hold.person, slot=RELEASE, kind="retry", due=self._clock.now(),
                since=self._clock.now(), attempts=attempts, hold=hold.id, incident=hold.incident, only=tuple(sorted(result.retry)),
                payload=command.model_dump_json(),
            )  # fmt: skip
            await self.again(due, result.reason, result.code, result.delay)
        else:
            await self.schedule.drop(hold.tenant, hold.person, RELEASE)
        for slot in (READ_BACK, *CONTAINS):
            await self.schedule.drop(hold.tenant, hold.person, slot)
        now = self._clock.now()
        before = self.keeper.latch(hold.tenant, hold.person).incident(hold.incident)
        targets = (before.targets if before else {}) | told(result.targets)
        await self._restate(hold.tenant, hold.person, hold.incident, "released", closed=now, targets=targets)
        knock = Knock(
            id=digest("knock", hold.id, "released"),
            tenant=hold.tenant,
            person=hold.person,
            moment=Moment.MOVE,
            reason=f"released by {command.actor}",
        )
        await self.publisher.send(topics.KNOCKS, topics.person_key(hold.tenant, hold.person), knock.to_bytes())

    async def _release_again(self, due: Due) -> None:
        command: Command = Command.from_bytes(due.original)
        hold = self._hold(due)
        if hold is None or hold.state is not HoldState.RELEASED:
            await self.schedule.drop(due.tenant, due.person, RELEASE)
            return
        result = await self._engine.release(
            hold, actor=command.actor, reason=command.reason, only=due.only or None, attempt=due.attempts + 1
        )
        await self._settle_release(command, hold, result, due.attempts)


def _slot(order: Order) -> str:
    if order.kind == "again":
        return "contain.again"
    return f"contain{'.sessions' if order.scope is Scope.SESSIONS else ''}{'.downstream' if order.downstream else ''}"


def _rest(due: Due, result: ContainmentResult) -> Due:
    """What a try has left, with what it and those before it have achieved."""
    suspended = result.retry & {*due.suspended, *result.suspended}
    return due.model_copy(update={"only": tuple(sorted(result.retry)), "suspended": tuple(sorted(suspended))})


def _is_unreleased(latch: Latch, hold: Hold) -> bool:
    """Open, or written as released by somebody who died before the incident was: what was to be restored may not stand."""
    incident = latch.incident(hold.incident)
    return hold.is_open or (incident is not None and incident.state != "released")


def _released_for(latch: Latch, order: Order) -> bool:
    """A Hold that this very event had caused was released meanwhile: the order is spent."""
    incident = digest("incident", order.tenant, order.person, order.event.uuid)
    return any(hold.incident == incident and not hold.is_open for hold in latch.holds)
