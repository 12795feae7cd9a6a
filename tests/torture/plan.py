"""The script of one run: what happens in the company, what the log holds besides, which calls fail, who is killed when.

Pure and seeded: the same seed gives the same script, whatever the machine does with it. A person's history is kept valid while it
is written (nobody is suspended twice), so that a refused act is a defect of this file and not bad luck. Poison is planted on purpose,
and what must come of each piece stands beside it: parked work in `Script.parked`, quarantined bytes among the log's elements.
Rejected: random HTTP against the simulators (nobody could say afterwards what should have come of it).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.torture.noise import Element, Noise
from tests.torture.weather import Weather

Json = dict[str, Any]
Role = Literal["poller", "classifier", "lockdown", "provision", "recorder", "broker"]

DEPARTMENTS = ("Engineering", "Sales", "Finance", "Support")
#: The access table gives this department a folder that does not exist at Box: its people's work must park.
POISONED = "Legal"
GROUPS = ("Project Apollo", "Contractors")
DOMAIN = "corp.example"
#: Residents of the scenario with an account at Box that no link names. To change what they hold must park (`unlinked`).
UNLINKED = ("ravi.menon", "sofia.marin")
#: Residents without an account: like everybody else.
FREE = ("bjorn.dahl", "aiko.tanaka", "peter.walsh")
LEAVER, COMPROMISED, MANAGER = "tom.becker", "nadia.rossi", "omar.haddad"
#: Events a second, where the kills leave them so little time.
PLAY_RATE = 25.0


@dataclass(frozen=True, slots=True)
class Act:
    """Something happens to `who` (a login without its domain). `order` is the side door's, without id. `poison`: its work must park."""

    at: float
    who: str
    order: Json

    @property
    def action(self) -> str:
        return str(self.order["action"])


@dataclass(frozen=True, slots=True)
class Entries:
    """Elements that are appended to the log in one go."""

    at: float
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """Somebody at Box takes a login before the person who should have it is hired. `elsewhere`: it leaves our enterprise with it."""

    at: float
    who: str
    elsewhere: bool


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault order for one vendor's simulator."""

    at: float
    vendor: str
    order: Json


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes on one of our own topics that are none of our words."""

    at: float
    topic: str
    who: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Strike:
    """`kill` is SIGKILL, `stop` is SIGTERM, `freeze` is SIGSTOP for `seconds`; of the broker only `kill`, down for `seconds`, and `cut`:
    every connection to it is reset, and none comes about for `seconds`."""

    at: float
    role: Role
    index: int
    how: Literal["kill", "stop", "freeze", "cut"]
    seconds: float = 0.0


Step = Act | Entries | Taken | Trouble | Garbage


@dataclass(slots=True)
class Script:
    """`steps` and `strikes` in the order of `at` (seconds from the beginning). `events` is how many the tenant sees."""

    seed: int
    events: int
    length_s: float
    steps: list[Step] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    #: Logins whose work at Box must be parked when all is quiet.
    parked: set[str] = field(default_factory=set)
    #: Garbage records that must be parked, as (lane, login).
    garbage: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Member:
    """Somebody as the script knows them."""

    who: str
    department: str
    status: str = "ACTIVE"
    groups: set[str] = field(default_factory=set)
    held: bool = False
    fixed: bool = False


def make_script(
    seed: int,
    events: int,
    kills: int,
    broker_kills: int,
    workers: int,
    *,
    aim: tuple[Role, ...] = (),
    broker_down_s: float = 0.0,
    broker_cuts: int = 0,
    slow_s: float = 0.0,
    slow_looks_s: float = 0.0,
) -> Script:
    """`aim` narrows the roles that are killed; `broker_down_s` adds one long outage of the broker in the middle; `broker_cuts` resets its
    connections so often; `slow_s` delays what Box answers to a POST, which leaves no room for other faults there; `slow_looks_s` delays
    each look at half of the people in Okta, before anything says what will become of them, so that what came later for others is done
    first."""
    dice = random.Random(seed)
    length = max(events / PLAY_RATE, 12.0 + 6.5 * kills + 9.0 * broker_kills + (broker_down_s + 10 if broker_down_s else 0))
    script = Script(seed, events, length)
    Company(dice, script).write()
    if slow_s:
        script.steps.insert(0, Trouble(0.0, "box", {"method": "POST", "path": "/2.0/*", "times": None, "delay_s": slow_s, "when": "after"}))
    if slow_looks_s:
        halves = ("/api/v1/users/*[02468ace]", "/api/v1/users/*[02468ace]/groups")
        script.steps[:0] = [
            Trouble(0.0, "okta", {"method": "GET", "path": path, "times": None, "delay_s": slow_looks_s}) for path in halves
        ]
    strikes = [*_strikes(dice, length, kills, broker_kills, workers, aim, broker_down_s), *_cuts(seed, length, broker_cuts)]
    script.strikes = sorted(strikes, key=lambda one: one.at)
    return script


class Company:
    """Writes what happens. One act or log element is one event."""

    def __init__(self, dice: random.Random, script: Script) -> None:
        self._dice, self._script = dice, script
        self._noise = Noise(dice)
        self._weather = Weather(dice)
        self._people: list[Member] = [Member(name, "Finance", fixed=True) for name in UNLINKED]
        self._people += [Member(name, "Finance") for name in FREE]
        self._planted: list[tuple[int, Callable[[], int]]] = []
        self._hired = 0
        self._done = 0
        self._at = 0.0
        self._wanted = max(12, min(240, script.events // 8))
        self._risks = max(2, min(40, script.events // 60))

    def write(self) -> None:
        events, step = self._script.events, self._script.length_s / self._script.events
        self._planted = sorted(self._poison(events), key=lambda one: one[0])
        while self._done < events:
            self._at = self._noise.now = self._done * step
            if self._planted and self._planted[0][0] <= self._done:
                self._done += self._planted.pop(0)[1]()
            else:
                self._done += self._next(events - self._done)
        for at, vendor, order in self._weather.orders(self._script.length_s, events):
            self._script.steps.append(Trouble(at, vendor, order))
        self._script.steps.sort(key=lambda one: one.at)

    # -- planted ----------------------------------------------------------------------------------------------------------

    def _poison(self, events: int) -> Iterator[tuple[int, Callable[[], int]]]:
        """Positions early enough that each piece meets kills; every run has all kinds."""
        pieces: list[Callable[[], int]] = [
            lambda: self._hire(POISONED),
            lambda: self._hire_taken(elsewhere=False),
            lambda: self._hire_taken(elsewhere=True),
            lambda: self._fixed(UNLINKED[0]),
            lambda: self._plain(LEAVER, {"action": "deactivate"}),
            lambda: self._plain(COMPROMISED, {"action": "raise_risk", "level": "HIGH"}),
            self._garbage,
            self._malformed,
            self._conflict,
            self._repeat,
            self._detour,
        ]
        pieces += [lambda: self._hire(POISONED), self._malformed, self._repeat] * min(8, events // 300)
        places = self._dice.sample(range(events // 10, max(events // 10 + len(pieces), events * 4 // 5)), len(pieces))
        return zip(places, pieces, strict=True)

    def _detour(self) -> int:
        """Into the poisoned department and out of it again: what was parked is superseded."""
        who = self._name()
        place = self._done + max(3, self._script.events // 10)
        self._planted.append((place, lambda: self._plain(who, {"action": "change", "profile": {"department": "Sales"}})))
        self._planted.sort(key=lambda one: one[0])
        return self._plain(who, self._hiring(who, POISONED))

    def _fixed(self, who: str) -> int:
        self._script.parked.add(who)
        return self._plain(who, {"action": "change", "profile": {"department": "Sales"}})

    def _hire_taken(self, *, elsewhere: bool) -> int:
        who = self._name()
        self._script.steps.append(Taken(self._at, who, elsewhere))
        self._script.parked.add(who)
        return self._plain(who, self._hiring(who, "Sales"))

    def _garbage(self) -> int:
        for topic, lane in (("identity.knocks", "provision"), ("identity.threats", "lockdown")):
            raw = self._dice.choice((b"\xff\xfenot JSON", b'{"id": 1}', b"[]", b'{"kind":"lockdown","person":null}'))
            self._script.steps.append(Garbage(self._at, topic, MANAGER, raw))
            self._script.garbage.append((lane, MANAGER))
        return 0

    def _malformed(self) -> int:
        return self._log(self._noise.malformed(), self._noise.ordinary())

    def _conflict(self) -> int:
        return self._log(*self._noise.conflict())

    def _repeat(self) -> int:
        return self._log(*self._noise.repeat())

    # -- by chance --------------------------------------------------------------------------------------------------------

    def _next(self, left: int) -> int:
        """At most `left` events: ordinary ones, a hire, or up to three acts about one person at once."""
        if self._dice.random() < 0.24:
            return self._log(*(self._noise.ordinary() for _ in range(min(left, self._dice.randint(1, 4)))))
        grown = self._hired >= self._wanted
        if not grown and (self._hired < 8 or self._dice.random() < 0.35):
            return self._hire(self._dice.choice(DEPARTMENTS))
        one = self._dice.choice([one for one in self._people if not one.fixed])
        return sum(self._act(one) for _ in range(min(left, self._dice.choice((1, 1, 1, 1, 2, 3)))))

    def _act(self, one: Member) -> int:
        """One of the acts that this person's state allows."""
        if one.held:
            return self._move(one)
        if one.status == "DEPROVISIONED":
            return self._turn(one, "activate", "ACTIVE")
        if one.status == "SUSPENDED":
            return self._turn(one, *self._dice.choice((("unsuspend", "ACTIVE"), ("unsuspend", "ACTIVE"), ("deactivate", "DEPROVISIONED"))))
        roll = self._dice.random()
        if roll < 0.03 and self._risks and one.department != POISONED:
            self._risks -= 1
            one.held = True
            return self._plain(one.who, {"action": "raise_risk", "level": "HIGH"})
        if roll < 0.12:
            return self._turn(one, "suspend", "SUSPENDED")
        if roll < 0.20:
            return self._turn(one, "deactivate", "DEPROVISIONED")
        return self._move(one)

    def _move(self, one: Member) -> int:
        if self._dice.random() < 0.55:
            one.department = self._dice.choice([name for name in DEPARTMENTS if name != one.department])
            return self._plain(one.who, {"action": "change", "profile": {"department": one.department}})
        group = self._dice.choice(GROUPS)
        if group in one.groups:
            one.groups.discard(group)
            return self._plain(one.who, {"action": "remove_from_group", "group": group})
        one.groups.add(group)
        return self._plain(one.who, {"action": "add_to_group", "group": group})

    def _turn(self, one: Member, action: str, status: str) -> int:
        one.status = status
        return self._plain(one.who, {"action": action})

    def _hire(self, department: str) -> int:
        who = self._name()
        groups = sorted(self._dice.sample(GROUPS, 1)) if self._dice.random() < 0.2 else []
        one = Member(who, department, groups=set(groups), fixed=department == POISONED)
        self._people.append(one)
        if one.fixed:
            self._script.parked.add(who)
            groups = []
        return self._plain(who, self._hiring(who, department, groups))

    def _hiring(self, who: str, department: str, groups: list[str] | None = None) -> Json:
        first, _, last = who.partition(".")
        order: Json = {"action": "hire", "login": f"{who}@{DOMAIN}", "firstName": first.title(), "lastName": last.title()}
        title = self._dice.choice(("Engineer", "Analyst", "VP Things")) if self._dice.random() < 0.3 else "Engineer"
        return order | {"department": department, "title": title, "userType": "Employee", "groups": groups or []}

    def _name(self) -> str:
        self._hired += 1
        return f"worker.n{self._hired:04d}"

    def _plain(self, who: str, order: Json) -> int:
        self._script.steps.append(Act(self._at, who, order))
        return 1

    def _log(self, *elements: Element) -> int:
        self._script.steps.append(Entries(self._at, elements))
        return len(elements)


def _strikes(
    dice: random.Random, length: float, kills: int, broker_kills: int, workers: int, aim: tuple[Role, ...], broker_down_s: float
) -> Iterator[Strike]:
    """Kills spread over all roles in turn, from early on until the very end; stops and freezes in between, the broker's apart."""
    victims: list[tuple[Role, int]] = [("poller", 0), ("recorder", 0)]
    victims += [(role, index) for role in ("classifier", "lockdown", "provision") for index in range(workers)]
    victims = [one for one in victims if not aim or one[0] in aim]
    dice.shuffle(victims)
    begin = min(5.0, length / 6)
    gap = (length - begin) / max(1, kills)
    for number in range(kills):
        role, index = victims[number % len(victims)]
        at = length if number == kills - 1 else begin + gap * (number + dice.random() * 0.8)
        yield Strike(at, role, index, "kill")
    for number in range(kills // 4):
        role, index = victims[(number * 2 + 1) % len(victims)]
        how: Literal["stop", "freeze"] = "freeze" if number % 3 == 2 else "stop"
        yield Strike(dice.uniform(begin, length), role, index, how, 9.0 if how == "freeze" else 0.0)
    for number in range(broker_kills):
        at = begin + (length - begin) * (number + dice.uniform(0.2, 0.9)) / max(1, broker_kills)
        yield Strike(at, "broker", 0, "kill", dice.uniform(0.2, 3.0))
    if broker_down_s:
        yield Strike(begin + (length - broker_down_s) / 3, "broker", 0, "kill", broker_down_s)


def _cuts(seed: int, length: float, cuts: int) -> Iterator[Strike]:
    """By dice of their own: all else of a script stays as it is without them."""
    dice = random.Random(f"cuts {seed}")
    for _ in range(cuts):
        yield Strike(dice.uniform(length / 10, length), "broker", 0, "cut", dice.choice((0.0, 0.3, 1.0, 4.0)))
