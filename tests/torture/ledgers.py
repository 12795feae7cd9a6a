"""The comparison of three ledgers: what the tenant logged, what the audit says, what the simulators received. Pure.

Lost: an element of the log without its row, or a person whose end state at a target is not the one that the directory and the access
table ask for. Duplicate: a call that repeats what stands already, unless its kind is declared repeatable, and then more often than there
were crashes. Out of order: a person's effects at one target that follow no way through the directory's history, repeats included.
Unexplained: a call whose intent has no row. Each finding is a line that names what to look at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.torture.effects import REPEATABLE, Call, Effect, Row

Json = dict[str, Any]
#: How far two clocks of one machine and the rounding of times may lie apart.
_EDGE_S = 0.05


# -- the log -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Logged:
    """One element of the tenant's log. `uuid` None: it is no event."""

    sha256: str
    uuid: str | None


def lost_events(logged: Sequence[Logged], rows: Mapping[str, str], quarantined: set[str]) -> list[str]:
    """`rows`: uuid → SHA-256 of the bytes kept; `quarantined`: SHA-256 of what was put aside. Also what is there and never was logged."""
    findings: list[str] = []
    first: dict[str, str] = {}
    expected: set[str] = set()
    for one in logged:
        if one.uuid is None or first.setdefault(one.uuid, one.sha256) != one.sha256:
            expected.add(one.sha256)
    for uuid, sha256 in first.items():
        if uuid not in rows:
            findings.append(f"event {uuid} has no row")
        elif rows[uuid] != sha256:
            findings.append(f"event {uuid} has a row with other bytes than the log's first")
    findings += [f"element {sha256[:16]} is no event and is not in quarantine" for sha256 in sorted(expected - quarantined)]
    findings += [f"event {uuid} has a row and was never logged" for uuid in rows if uuid not in first]
    findings += [f"element {sha256[:16]} is in quarantine and should not be" for sha256 in sorted(quarantined - expected)]
    return findings


# -- people --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """What must stand at Box. `active` None: nothing is asked. `shut`: held, so nothing may be opened, whatever else stands."""

    active: bool | None
    groups: frozenset[str] = frozenset()
    folders: Mapping[str, str] = field(default_factory=dict)
    space: int | None = None
    shut: bool = False
    ended: bool = False

    def allows(self, key: str, value: Any) -> bool:
        """Whether an effect is one that leads to this wish."""
        kind, _, name = key.partition(" ")
        if key == "account":
            return (value in ("active", "ACTIVE")) == bool(self.active and not self.shut)
        if key == "sessions":
            return self.shut or not self.active
        if key == "content":
            return self.ended and not self.shut
        if value is None:
            return self.gives(kind, name) is None
        if self.shut or not self.active:
            return False
        return bool(value == (self.space if key == "space" else self.gives(kind, name)))

    def gives(self, kind: str, name: str) -> str | None:
        if self.active is False:
            return None
        if kind == "group":
            return "member" if name in self.groups else None
        return self.folders.get(name)


@dataclass(frozen=True, slots=True)
class Account:
    """What stands at Box under a person's login."""

    active: bool
    groups: frozenset[str]
    folders: Mapping[str, str]
    space: int | None
    sessions: int


def lost_person(who: str, wish: Wish, accounts: Sequence[Account], *, missing_folders: frozenset[str] = frozenset()) -> list[str]:
    """`missing_folders` cannot be given by anybody: that is what was parked."""
    if len(accounts) > 1:
        return [f"{who}: {len(accounts)} accounts at Box"]
    account = accounts[0] if accounts else None
    if wish.active is None:
        return []
    if wish.shut or not wish.active:
        return _not_shut(who, wish, account)
    if account is None:
        return [f"{who}: no account at Box"]
    told = [
        ("status", "active", "active" if account.active else "inactive"),
        ("groups", sorted(wish.groups), sorted(account.groups)),
        ("folders", _levels(wish.folders, missing_folders), _levels(account.folders)),
        ("space", wish.space, account.space),
    ]
    return [f"{who}: {what} at Box should be {wanted}, is {found}" for what, wanted, found in told if wanted != found]


def _not_shut(who: str, wish: Wish, account: Account | None) -> list[str]:
    if account is None:
        return []
    findings = [f"{who}: open at Box, should be shut"] if account.active else []
    if account.sessions:
        findings.append(f"{who}: {account.sessions} live sessions at Box after it was shut")
    if not wish.active and (account.groups or account.folders):
        findings.append(f"{who}: has left and still holds {sorted(account.groups)} {_levels(account.folders)} at Box")
    return findings


def _levels(folders: Mapping[str, str], without: frozenset[str] = frozenset()) -> list[str]:
    return sorted(f"{name} {role}" for name, role in folders.items() if name not in without)


# -- doubles -------------------------------------------------------------------------------------------------------------


#: Until a process that was struck is a member of its group again, and the work of the others moved for it.
_ECHO_S = 30.0
#: In whose place a lane's calls are made.
_ROLES = {"notify": "recorder"}


@dataclass(frozen=True, slots=True)
class Crash:
    """Something that may have cost an answer: a role was killed, stopped or frozen, or the broker was down. Work in hand is lost twice:
    when a process goes, and when it comes back and partitions move."""

    at: float
    role: str
    seconds: float = 0.0

    def echoes(self, lane: str, first: float, last: float) -> int:
        """How often it may have cost that lane an answer between two times."""
        if self.role not in ("broker", _ROLES.get(lane, lane)):
            return 0
        return 2 if self.at - 1.0 <= last and first <= self.at + self.seconds + _ECHO_S else 0


def duplicate_effects(effects: Iterable[Effect], crashes: Sequence[Crash] = ()) -> list[str]:
    """Repeats of what stands, and too many repeats of what leaves no trace."""
    by_thing: dict[tuple[str, str, str], list[Effect]] = defaultdict(list)
    for effect in effects:
        by_thing[effect.call.vendor, effect.who, effect.key].append(effect)
    findings: list[str] = []
    for (vendor, who, key), found in by_thing.items():
        if key in REPEATABLE:
            findings += _too_often(found, by_thing.get((vendor, who, "account"), []), crashes)
        else:
            findings += _repeats(found)
    return findings


def _repeats(found: Sequence[Effect]) -> list[str]:
    findings: list[str] = []
    standing: Effect | None = None
    for effect in found:
        same = standing is not None and standing.value == effect.value and effect.knew(standing)
        if standing is not None and same and not (_is_fresh_containment(standing, effect) or _answer_was_lost(standing, effect)):
            findings.append(f"{effect} repeats {standing.call}")
        if effect.call.changed or effect.is_acknowledged:
            standing = effect
    return findings


def _answer_was_lost(standing: Effect, effect: Effect) -> bool:
    """A call whose answer never came, and which the vendor worked on only after it was read back: no effect was seen, so it was made again
    (E1), and the later of the two to arrive changes nothing. Where its effect was seen, a repeat is one."""
    if effect.call.changed or standing.row is None or effect.row is None:
        return False
    return effect.row.called < standing.row.called or standing.row.status == "failed"


def _is_fresh_containment(standing: Effect, effect: Effect) -> bool:
    """Another order's constant plan closes again what an earlier cause had closed (D14): no repeat, as long as it changes nothing."""
    rows = standing.row, effect.row
    if effect.call.changed or rows[0] is None or rows[1] is None:
        return False
    return effect.key == "account" and rows[1].lane == "lockdown" and rows[0].cause != rows[1].cause


def _too_often(found: Sequence[Effect], closings: Sequence[Effect], crashes: Sequence[Crash]) -> list[str]:
    """One repeat for each crash and each lost answer (D25), cause by cause. The answer may be that of the suspension before: until it is
    known to stand, somebody may have signed in again."""
    by_cause: dict[tuple[str, Any], list[Effect]] = defaultdict(list)
    for effect in found:
        by_cause[_cause(effect), effect.value].append(effect)
    findings: list[str] = []
    for calls in by_cause.values():
        first, last = calls[0].call.at, calls[-1].call.at
        lost = sum(not one.is_acknowledged for one in calls)
        lost += sum(not one.is_acknowledged and one.row is not None and one.row.cause == _cause(calls[0]) for one in closings)
        crashed = sum(one.echoes(calls[0].lane, first, last) for one in crashes)
        if len(calls) - 1 > lost + crashed:
            findings.append(
                f"{calls[-1]}: call {len(calls)} for the same cause, with {crashed // 2} crashes and {lost} lost answers between"
            )
    return findings


def _cause(effect: Effect) -> str:
    return effect.row.cause if effect.row else ""


# -- order ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """The directory asked for `wish` from `at` on (epoch seconds)."""

    at: float
    wish: Wish


def order_violations(
    effects: Iterable[Effect], history: Mapping[str, Sequence[Moment]], held: Mapping[str, float] | None = None
) -> list[str]:
    """Each effect must lead to a wish that the directory had by then, and no earlier one than the effect before it led to. One that came
    late is asked about in the end state alone: what it left must have been found and taken back.

    `held`: since when the Hold of somebody stands (epoch seconds). Before, provisioning could not know that they are to be shut."""
    before: dict[tuple[str, str], dict[str, list[tuple[int, Effect]]]] = defaultdict(lambda: defaultdict(list))
    findings: list[str] = []
    for effect in effects:
        moments = history.get(effect.who)
        if not effect.counts or effect.came_late or moments is None or effect.call.vendor == "slack":
            continue
        lanes = before[effect.call.vendor, effect.who]
        start = max((_latest(effect, told) for told in lanes.values()), default=0)
        at = next((at for at in range(start, len(moments)) if _led(effect, moments[at], (held or {}).get(effect.who))), None)
        if at is None:
            findings.append(f"{effect}: leads to nothing that the directory asked for since what was done before")
        else:
            lanes[effect.lane].append((max(at, start), effect))
    return findings


def _latest(effect: Effect, told: Sequence[tuple[int, Effect]]) -> int:
    """The place in history that the last effect of one lane of which this one could know has led to."""
    return next((at for at, earlier in reversed(told) if effect.knew(earlier)), 0)


def _led(effect: Effect, moment: Moment, held: float | None) -> bool:
    wish = moment.wish
    if held is not None and effect.lane == "provision" and effect.row is not None and effect.row.called < held + _EDGE_S:
        wish = replace(wish, shut=False)
    return moment.at <= effect.call.at + _EDGE_S and wish.allows(effect.key, effect.value)


# -- rows ----------------------------------------------------------------------------------------------------------------


def unexplained_calls(calls: Iterable[Call], rows: Mapping[str, Row]) -> list[str]:
    return [f"{call}: intent {call.intent} has no row" for call in calls if not call.intent or call.intent not in rows]


def open_rows(rows: Iterable[Row]) -> list[str]:
    """When all is quiet nobody is waiting for an answer any more: such a row was forgotten after a crash."""
    return [
        f"intent {row.intent} ({row.lane} {row.target} {row.person} {row.change}) is still open" for row in rows if row.status == "intended"
    ]
