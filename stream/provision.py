"""The provision lane: knocks become looks. Several knocks of one person in a batch are one look at each target that policy speaks of.

A knock carries no wish: what the person should hold is computed from the facts at the time of the look (N1), so repeats, reordering
and losses are harmless. What cannot be done now goes on the schedule as "look at this person at this target"; what cannot be done at
all is parked; what a guard refused is told to a human.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from handlers.contract import Clock, Directory, Ending, Outcome
from handlers.converge import Converger
from handlers.evidence import may_still_land
from handlers.limits import Limits
from model.change import Action
from model.decision import Moment, Severity
from model.errors import Fenced, PermanentError, TemporaryError
from model.event import digest
from model.person import Link
from model.records import Command, EventRef, Knock, Order
from model.settings import Settings
from stream import topics
from stream.books import HoldIndex, Holds, Links, Removals
from stream.broker import Broker
from stream.lane import ITEM, Item, LaneRole
from stream.retries import Retries
from stream.schedule import Due
from stream.state import Follower, State

#: The directory lags its log by seconds; an event so old when it came is known there, however wrong either clock is (±1 h).
OLD = timedelta(hours=2)
#: A call whose answer was lost is taken to be over after so many times its time-out.
LANDS = 2.0
#: Codes of a converged look that a human should know of.
CASES = {
    "no_manager": "nobody to hand the content to: set managerId to exactly one active user, then knock again",
    "no_manager_account": "the manager has no account at this target to take the content: provision the manager first",
}


class ProvisionRole(LaneRole):
    lane = "provision"
    group = "portcullis-provision"
    work_topic = topics.KNOCKS
    work_model = Knock
    at_once = 16
    queue_s = 2.0

    def __init__(self, broker: Broker, settings: Settings, directory: Directory, clock: Clock) -> None:
        super().__init__(broker, settings, clock)
        self._directory = directory
        index = HoldIndex()
        self._latches = Follower(broker, topics.HOLDS, index.changed)
        self.holds = Holds(self._latches, index)
        self._links = State(broker, self.publisher, topics.LINKS, lambda key, value: self.links.changed(key, value))
        self.links = Links(self._links)
        self._brakes = State(broker, self.publisher, topics.BRAKES, lambda key, value: self.removals.changed(key, value))
        self.counts = State(broker, self.publisher, topics.COUNTS)
        self.removals = Removals(self._brakes, self.counts, settings.safety.brakes, self.publisher, clock)
        self.engine: Converger | None = None
        self._targets: dict[str, tuple[str, ...]] = {}
        self._retries = Retries()

    def use(self, engine: Converger, targets: dict[str, tuple[str, ...]], limits: Iterable[Limits] = ()) -> None:
        """`targets`: per tenant, the targets that policy may speak of (Okta is the source of truth, not a target of this lane).
        `limits`: those of this process' clients, asked before each retry."""
        self.engine, self._targets = engine, targets
        self._retries = Retries(limits)

    def put_off_s(self, due: Due) -> float:
        return self._retries.wait(due)

    @property
    def _engine(self) -> Converger:
        assert self.engine is not None, "the engine is set before the lane starts"
        return self.engine

    def followers(self) -> Sequence[Follower]:
        return [self._latches, self._links, self._brakes, self.counts]

    async def work(self, tenant: str, person: str, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Command):
                await self.carry_out(item)
        knocks = [item for item in items if isinstance(item, Knock)]
        groups = list(dict.fromkeys(knock.group for knock in knocks if knock.group is not None))
        for group in groups:
            await self._knock_members(tenant, group, knocks[-1])
        singles = [knock for knock in knocks if knock.group is None]
        if singles:
            event = next((knock.event for knock in reversed(singles) if knock.event is not None), None)
            await self._look_everywhere(tenant, person, event, singles[-1])

    async def outlived(self, tenant: str, person: str, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Command) and not self.is_carried_out(item):
                await self.put_off(tenant, person, item, self._call_timeout(""))
        knocks = [item for item in items if isinstance(item, Knock)]
        if not knocks:
            return
        last = knocks[-1]
        slots = [f"members.{last.group}"] if last.group else list(self._targets.get(tenant, ()))
        for slot in slots:
            due = self._entry(tenant, person, slot, last.event, last)
            await self.schedule.put(due.model_copy(update={"due": self._in(self._call_timeout(slot)), "code": "timeout"}))

    async def crowded(self, tenant: str, person: str, items: Sequence[Item]) -> None:
        """Due at once, as it came. An entry that waits already is looked at after this, and will do for what is no news."""
        for item in items:
            if isinstance(item, Command):
                await self.put_off(tenant, person, item, 0.0)
        knocks = {knock.group: knock for knock in items if isinstance(knock, Knock)}
        for group, knock in knocks.items():
            entry = self._entry(tenant, person, f"{ITEM}crowded.{group or person}", knock.event, knock)
            if _news(knock.event) or self.schedule.get(tenant, person, entry.slot) is None:
                await self.schedule.put(entry.model_copy(update={"kind": "look", "reason": "many people at once", "attempts": 0}))

    async def resume(self, action: Action) -> Action:
        closed = await self._engine.resume(action)
        await self._look_late(closed.tenant, closed.person, [closed])
        return closed

    def _call_timeout(self, target: str) -> float:
        settings = self._settings.targets.get(target)
        return settings.timeout_s if settings else 15.0

    # --- looks ------------------------------------------------------------------------------------------------------------

    async def _look_everywhere(self, tenant: str, person: str, event: EventRef | None, knock: Knock) -> None:
        looks = [self._look(tenant, person, target, event, knock) for target in self._targets.get(tenant, ())]
        for outcome in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _look(self, tenant: str, person: str, target: str, event: EventRef | None, knock: Knock) -> None:
        at = None if knock.second_look else _news(event)
        known = self.schedule.get(tenant, person, target)
        if known is not None and known.kind == "retry" and known.due > self._clock.now():
            if at is not None and known.due < self._in(self._settings.safety.second_look_s):
                await self._look_again(tenant, person, knock)
            return  # merged into the open entry: it will look at the present too (D24)
        due = self._entry(tenant, person, target, event, knock)
        outcome = await self._engine.look(tenant, person, target, event_uuid=due.event_uuid, event_at=at, attempt=due.attempts + 1)
        await self._settle(due, outcome, event)
        if at is not None and _is_settled(outcome):
            await self._look_again(tenant, person, knock)

    async def _look_again(self, tenant: str, person: str, knock: Knock) -> None:
        """The directory may not have known yet what the log said (D6): what was parked, refused or no matter of policy by a look at
        yesterday must not stay so. One entry a person, the newest counts."""
        second = knock.model_copy(update={"second_look": True})
        due = self._entry(tenant, person, f"{ITEM}second", knock.event, second)
        reason = "the directory may lag the log"
        wait = self._settings.safety.second_look_s
        await self.schedule.put(due.model_copy(update={"kind": "look", "due": self._in(wait), "reason": reason, "attempts": 0}))

    async def _look_late(self, tenant: str, person: str, actions: Iterable[Action]) -> None:
        """A call that may still land may land on somebody who has left meanwhile, or moved on: one more look when it no longer can."""
        late = [action for action in actions if may_still_land(action)]
        if not late:
            return
        knock = Knock(
            id=digest("late", *(action.intent for action in late)), tenant=tenant, person=person, moment=Moment.NONE, second_look=True
        )
        due = self._entry(tenant, person, f"{ITEM}late", None, knock)
        wait = LANDS * max(self._call_timeout(action.target) for action in late)
        reason = "a call whose answer was lost may still land"
        await self.schedule.put(due.model_copy(update={"kind": "look", "due": self._in(wait), "reason": reason, "attempts": 0}))

    def _entry(self, tenant: str, person: str, slot: str, event: EventRef | None, knock: Knock) -> Due:
        known = self.schedule.get(tenant, person, slot)
        now = self._clock.now()
        return Due(
            lane=self.lane, tenant=tenant, person=person, slot=slot, kind="retry", due=now,
            since=known.since if known else now, attempts=known.attempts if known and known.kind == "retry" else 0,
            event_uuid=event.uuid if event else None, payload=knock.model_dump_json(),
        )  # fmt: skip

    async def _settle(self, due: Due, outcome: Outcome, event: EventRef | None) -> None:
        """step(): every outcome is one of done, later, parked, told."""
        if outcome.ending is Ending.FENCED:
            raise Fenced(outcome.reason)
        await self._look_late(due.tenant, due.person, outcome.actions)
        if outcome.ending is Ending.CONVERGED:
            await self._converged(due, outcome)
        elif outcome.ending is Ending.RETRY:
            if outcome.code == "closing":
                await self._order("close", due, event)
            await self._retry(due, outcome.reason, outcome.code, outcome.delay)
        elif outcome.ending is Ending.HELD:
            await self._held(due, outcome, event)
        elif outcome.ending is Ending.PARKED:
            await self.park(due.tenant, due.person, due.slot, outcome.reason, outcome.code, due.original, event_uuid=due.event_uuid)
        else:
            await self._refused(due, outcome)

    async def _converged(self, due: Due, outcome: Outcome) -> None:
        if outcome.code in CASES:
            await self.tell(
                due.tenant, "case", f"{due.slot}: {outcome.reason or outcome.code}", person=due.person, target=due.slot,
                remedy=CASES[outcome.code], facts={"code": outcome.code},
            )  # fmt: skip
        if outcome.code == "stale":
            await self._look_later(due, self._settings.safety.second_look_s, "the directory may lag the log")
        elif outcome.pending is not None:
            await self._look_later(due, outcome.pending, "content is transferred after its hold period")
        else:
            await self.schedule.drop(due.tenant, due.person, due.slot)

    async def _look_later(self, due: Due, seconds: float, reason: str) -> None:
        await self.schedule.put(due.model_copy(update={"kind": "look", "due": self._in(seconds), "reason": reason, "attempts": 0}))

    async def _retry(self, due: Due, reason: str, code: str, delay: float | None) -> None:
        if self.retries.gives_up(due.since, self._clock.now()):
            await self.park(due.tenant, due.person, due.slot, f"given up: {reason}", code or "gave_up", due.original)
        else:
            await self.again(due, reason, code, delay)

    async def _held(self, due: Due, outcome: Outcome, event: EventRef | None) -> None:
        """What a Hold withheld needs no entry: the release knocks. What we opened too late is contained again (D11)."""
        await self.schedule.drop(due.tenant, due.person, due.slot)
        if outcome.code != "contain_again":
            return
        await self._order("again", due, event)

    async def _order(self, kind: Literal["again", "close"], due: Due, event: EventRef | None) -> None:
        """What only the lockdown lane does: contain once more, close a leaver."""
        now = self._clock.now()
        order_id = digest(kind, due.key, now.isoformat())
        ref = event or EventRef(uuid=due.event_uuid or order_id, event_type=f"portcullis.{kind}", received=now)
        order = Order(id=order_id, kind=kind, tenant=due.tenant, person=due.person, event=ref)
        await self.publisher.send(topics.THREATS, topics.person_key(due.tenant, due.person), order.to_bytes())

    async def _refused(self, due: Due, outcome: Outcome) -> None:
        """A guard said no: kept as parked, so that `redrive` looks again once its cause is gone."""
        await self.park(due.tenant, due.person, due.slot, outcome.reason, outcome.code, due.original, event_uuid=due.event_uuid)

    async def later(self, due: Due) -> None:
        if due.slot.startswith(("members.", "poison.", ITEM)):
            await self.reread(due)
            return
        outcome = await self._engine.look(due.tenant, due.person, due.slot, event_uuid=due.event_uuid, attempt=due.attempts + 1)
        await self._settle(due, outcome, None)

    # --- groups and commands ----------------------------------------------------------------------------------------------

    async def _knock_members(self, tenant: str, group: str, knock: Knock) -> None:
        """Every member of the group is knocked, read by API (D2); they spread over all workers by their own keys."""
        try:
            members = await self._directory.members(tenant, group, "provision")
        except TemporaryError as error:
            await self.again(self._entry(tenant, knock.person, f"members.{group}", knock.event, knock), str(error), "members", error.delay)
            return
        except PermanentError as error:
            if error.code == "not_found":
                return  # the group is gone, and with it every membership: each removal knocked on its own
            await self.park(tenant, knock.person, f"members.{group}", str(error), error.code, knock.to_bytes())
            return
        await self.publisher.send_all(self._member_knocks(tenant, members, knock))

    @staticmethod
    def _member_knocks(tenant: str, members: Iterable[str], knock: Knock) -> Iterable[tuple[Any, bytes, bytes]]:
        for member in members:
            one = Knock(id=digest(knock.id, member), tenant=tenant, person=member, moment=knock.moment, event=knock.event, reason="group")
            yield topics.KNOCKS, topics.person_key(tenant, member), one.to_bytes()

    async def command(self, command: Command) -> None:
        if command.kind in ("redrive", "drop"):
            await self.redrive_or_drop(command)
        elif command.kind == "link":
            await self._link(command)
        elif command.kind == "reset_brake" and str(command.args.get("brake", "")).startswith("removal:"):
            await self.take_command(command)
            await self.removals.reset(str(command.args["brake"]).removeprefix("removal:"))
        elif command.kind == "reset_brake" and command.args.get("brake") == f"source:{command.tenant}":
            await self.take_command(command)
            await self.counts.erase(f"{command.tenant}:last")  # the next listing is believed as the first one was

    async def _link(self, command: Command) -> None:
        """A link that a human's `link --apply` asked for; this lane is the links' only writer (D11)."""
        target, account, login = (str(command.args.get(name, "")) for name in ("target", "account", "login"))
        owner = await self.links.owner(target, account)
        if owner is not None and (owner.tenant, owner.person) != (command.tenant, command.person):
            await self.tell(
                command.tenant, "case", f"{target} account {account} is linked to another person: not linked", person=command.person,
                target=target, severity=Severity.HIGH, remedy="look at both people",
            )  # fmt: skip
            return
        await self.take_command(command)
        at: datetime = self._clock.now()
        await self.links.make(
            Link(
                tenant=command.tenant,
                person=command.person,
                target=target,
                account=account,
                login=login,
                made_by=f"link:{command.actor}",
                at=at,
            )
        )


def _news(event: EventRef | None) -> datetime | None:
    """Since when the directory may not know yet what the log said (D6): their clock and ours may disagree. None: it surely knows."""
    if event is None or (event.published is not None and event.received - event.published > OLD):
        return None
    return max(moment for moment in (event.published, event.received) if moment)


def _is_settled(outcome: Outcome) -> bool:
    """Nothing will look at this person again by itself. (What merely converged says itself where it may be stale.)"""
    return outcome.ending in (Ending.PARKED, Ending.REFUSED) or (outcome.ending is Ending.CONVERGED and outcome.code not in ("", "stale"))
