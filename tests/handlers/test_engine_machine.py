"""Both engines on one world that fails in every way, in any order: whatever happened, the ends are what Okta and policy ask for.

Held at every step: one effect for one intent; no change repeated that was acknowledged; nothing opened under a Hold; nothing taken from
protected people; whoever is contained is shut. At the end, faults cease, Holds are released, everybody is looked at: the account is as
policy asks, and every row of the journal is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from handlers.contract import Ending, Outcome
from handlers.guard import TAKING
from model.change import OPENING, ActionStatus, Change
from model.errors import TemporaryError
from model.person import PersonStatus
from tests.handlers.fakes import TENANT, FakeTarget, Killed, hold, person
from tests.handlers.house import House, order

T = TypeVar("T")
PEOPLE = ("00uann", "00ubreakglass")
FAULTS = st.sampled_from(
    [
        None,
        None,
        "503",
        "503_after",
        "timeout_before",
        "timeout_after",
        "429",
        "401",
        "crash_before",
        "crash_after",
        "kill_before",
        "kill_after",
    ]
)
STATUSES = st.sampled_from([PersonStatus.ACTIVE, PersonStatus.ACTIVE, PersonStatus.SUSPENDED, PersonStatus.DEPROVISIONED])
WHO = st.sampled_from(PEOPLE)


class Engines(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        boss = person("00uboss", department="Legal")
        self.house = House((*(person(who, manager_id="00uboss") for who in PEOPLE), boss))
        self.house.box.add("00uboss@acme.test")
        self.broken: list[str] = []
        self.locks = 0
        self.coming = 0
        self.house.journal.on_intended = self._count_down
        for target in (self.house.box, self.house.okta):
            target.on_call = self._watch(target)

    def teardown(self) -> None:
        try:
            self._settle()
        finally:
            self.loop.close()

    # --- what may happen ------------------------------------------------------------------------------------------------

    @rule(who=WHO, department=st.sampled_from(["Sales", "Finance", "Engineering", ""]), apollo=st.booleans(), told=st.booleans())
    def move(self, who: str, department: str, apollo: bool, told: bool) -> None:
        """`told`: the event arrives; else it is lost, and some later look must do."""
        groups = (("00g1", "Project Apollo"),) if apollo else ()
        self.house.directory.set(who, department=department, groups=groups)
        if told:
            self._look(who)

    @rule(who=WHO, status=STATUSES, told=st.booleans())
    def live(self, who: str, status: PersonStatus, told: bool) -> None:
        self.house.directory.set(who, status=status, status_changed=self.house.clock.now())
        self.house.okta.accounts[who].active = status is PersonStatus.ACTIVE
        if told:
            self._look(who)

    @rule(seconds=st.sampled_from([1, 3600]))
    def wait(self, seconds: int) -> None:
        self.house.clock.shift(seconds)

    @rule(faults=st.lists(FAULTS, min_size=1, max_size=4))
    def fail(self, faults: list[Any]) -> None:
        self.house.box.faults.extend(faults)

    @rule(faults=st.lists(FAULTS, min_size=1, max_size=3))
    def okta_fails(self, faults: list[Any]) -> None:
        self.house.okta.faults.extend(faults)

    @rule()
    def look_fails(self) -> None:
        self.house.box.look_faults.append(TemporaryError("500"))

    @rule()
    def directory_fails(self) -> None:
        self.house.directory.faults.append(TemporaryError("500"))

    @rule(who=WHO)
    def knock(self, who: str) -> None:
        self._look(who)

    @rule(writes=st.integers(1, 6), department=st.sampled_from(["Sales", "Finance", "Engineering"]))
    def a_lock_from_elsewhere_appears(self, writes: int, department: str) -> None:
        """The lockdown lane writes a Hold while provisioning is at work: between some intent and its call."""
        self.coming = writes
        self.move("00uann", department, apollo=False, told=True)

    @rule()
    def lock(self) -> None:
        self.locks += 1
        self._contain(f"h{self.locks}")

    @rule()
    def release(self) -> None:
        for held in [one for one in self.house.holds.holds.values() if one.is_open]:
            self._run(self.house.lockdown.release(held, actor="cara", reason="cleared"))

    @rule()
    def restart(self) -> None:
        self._resume()

    # --- what must hold -------------------------------------------------------------------------------------------------

    @invariant()
    def no_promise_was_broken(self) -> None:
        assert self.broken == []

    @invariant()
    def nothing_acknowledged_was_done_twice(self) -> None:
        """A change that was answered as done changes nothing more, unless something else undid it in between."""
        journal = self.house.journal
        standing: dict[tuple[str, str], str] = {}
        for one in self.house.box.effects:
            opposite = {"grant": "revoke", "revoke": "grant", "activate": "deactivate", "deactivate": "activate"}
            kind, subject = one.change.kind.value, f"{one.change.account} {one.change.subject}"
            if kind not in opposite:
                continue
            if one.changed and standing.get((kind, subject)) == "acknowledged" and kind != "grant":
                raise AssertionError(f"{one.change.label} was done twice")
            answered = journal.rows[one.intent].status in (ActionStatus.DONE, ActionStatus.ALREADY)
            standing[kind, subject] = "acknowledged" if answered else "unknown"
            standing.pop((opposite[kind], subject), None)

    @invariant()
    def one_account_a_person(self) -> None:
        logins = [state.login for state in self.house.box.accounts.values()]
        assert len(logins) == len(set(logins))

    # --- the ends -------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        house = self.house
        for target in (house.box, house.okta):
            target.faults.clear()
            target.look_faults.clear()
        house.directory.faults.clear()
        self.coming = 0
        self._resume()
        self.release()
        house.clock.shift(2 * 3600)
        for who in PEOPLE:
            outcome = self._look(who)
            assert outcome is not None
            protected = who == "00ubreakglass"
            assert outcome.ending is Ending.CONVERGED or (protected and outcome.code == "protected"), outcome
            if not protected:
                self._check_end(who)
        assert house.journal.open() == []
        self.no_promise_was_broken()

    def _check_end(self, who: str) -> None:
        house = self.house
        now = house.directory.people[TENANT, who]
        desired = house.policy.desired(now, "box", "box")
        assert desired is not None
        if not desired.active and not any(state.login == now.login for state in house.box.accounts.values()):
            return
        account = house.account(who)
        assert account.active == desired.active
        assert account.grants == {(one.kind, one.name): one.level for one in desired.grants}
        if desired.active:
            assert account.attributes == desired.attributes

    # --- how ------------------------------------------------------------------------------------------------------------

    def _count_down(self) -> None:
        self.coming = max(self.coming - 1, 0) if self.coming != 1 else self._lock_now()

    def _lock_now(self) -> int:
        self.locks += 1
        new = hold(f"h{self.locks}", "00uann")
        self.house.holds.holds[new.id] = new
        return 0

    def _run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """None where the process died at a call, or Okta could not be asked."""
        try:
            return self.loop.run_until_complete(work)
        except (asyncio.CancelledError, Killed, TemporaryError):
            return None

    def _look(self, who: str) -> Outcome | None:
        openings = len(self.house.box.openings())
        outcome = self._run(self.house.look(who))
        held = any(one.is_open and one.person == who for one in self.house.holds.holds.values())
        if outcome is not None and held and len(self.house.box.openings()) > openings:
            assert outcome.code == "contain_again", "a Hold appeared while access was opened, and nobody was told"
        if outcome is not None and outcome.code == "contain_again":
            self._contain(next(one.id for one in self.house.holds.holds.values() if one.is_open))
        return outcome

    def _contain(self, key: str) -> None:
        held = self.house.holds.holds.get(key) or hold(key, "00uann")
        result = self._run(self.house.lockdown.contain(order(who="00uann"), held, held.incident))
        if result is not None and result.state == "contained":
            assert not self.house.okta.accounts["00uann"].active
            assert all(not one.active for one in self.house.box.accounts.values() if one.login == "00uann@acme.test")

    def _resume(self) -> None:
        for row in self.house.journal.open():
            engine = self.house.lockdown if row.lane == "lockdown" else self.house.converger
            self._run(engine.resume(row))

    def _watch(self, target: FakeTarget) -> Any:
        def call(change: Change) -> None:
            row = next(
                one for one in reversed(self.house.journal.rows.values()) if one.change == change.label and one.target == target.name
            )
            held = any(one.is_open and one.person == row.person for one in self.house.holds.holds.values())
            if held and change.kind in OPENING:
                self.broken.append(f"{change.label} under a Hold")
            if change.kind in TAKING and row.person == "00ubreakglass":
                self.broken.append(f"{change.label} of a protected person")

        return call


TestEngines = Engines.TestCase
TestEngines.settings = settings(
    max_examples=150, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
