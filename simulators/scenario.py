"""The scenario `day`: a working day in twenty seconds, on a busy stream of ordinary events.

The script is data and the same every time; so are people and their Okta ids. Ids and times of events are new in each run, because a
second run is another day. In `quiet` the same company stands there and nothing happens by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from simulators.company import BY_KEY, PEOPLE, Someone
from simulators.okta import OktaSimulator
from simulators.okta.events import Caller, entity, user_entity
from simulators.seeding import profile_of

Name = Literal["day", "quiet"]
Pause = Callable[[float], Awaitable[None]]

#: Ordinary events a second, and how long the day is in seconds at pace 1.
BUSY = 40
LENGTH_S = 20.0


@dataclass(frozen=True, slots=True)
class Step:
    """At `at` seconds something happens to `who` (a key). `order` is what the side door's act takes besides the id."""

    at: float
    action: str
    who: str
    order: dict[str, Any] = field(default_factory=dict)
    title: str = ""


DAY: tuple[Step, ...] = (
    Step(1.0, "hire", "maya", title="Maya starts in Engineering"),
    Step(1.5, "hire", "jonas", title="Jonas starts in Finance, on Project Apollo"),
    Step(2.0, "hire", "priya", title="Priya starts in Sales"),
    Step(2.5, "hire", "chidi", title="Chidi starts as a contractor"),
    Step(9.0, "add_to_group", "maya", {"group": "Project Apollo"}, "Maya joins Project Apollo"),
    Step(10.0, "deactivate", "tom", title="Tom leaves the company"),
    Step(
        12.0,
        "change",
        "priya",
        {"profile": {"department": "Engineering", "title": "Solutions engineer", "manager": "grace"}},
        "Priya moves to Engineering",
    ),
    Step(14.0, "raise_risk", "nadia", {"level": "HIGH"}, "Okta raises Nadia's risk to HIGH"),
    Step(16.0, "remove_from_group", "jonas", {"group": "Project Apollo"}, "Jonas leaves Project Apollo"),
)


class Day:
    """Plays the script against one org. `ids` maps keys to Okta ids and grows with every hire."""

    def __init__(self, okta: OktaSimulator, ids: dict[str, str], *, pace: float = 1.0, busy: float = BUSY, pause: Pause = asyncio.sleep):
        self.okta, self.ids = okta, ids
        self._pace, self._busy, self._pause = pace, busy, pause
        #: Steps that have happened, in order.
        self.played: list[Step] = []

    async def play(self) -> None:
        """From `running` to `done`. `pace` 0.5 is twice as fast; ordinary events come from beginning to end."""
        self.okta.scenario = "running"
        stream = Ordinary(self.okta, random.Random("ordinary"))
        steps, tick, now, due = list(DAY), 0.1, 0.0, 0.0
        while now < LENGTH_S:
            while steps and steps[0].at <= now:
                self.do(steps.pop(0))
            due += self._busy * tick * self._pace
            while due >= 1:
                due -= 1
                stream.write()
            now += tick
            await self._pause(tick * self._pace)
        assert not steps
        self.okta.scenario = "done"

    def do(self, step: Step) -> None:
        """One step, now."""
        order = self._hire(BY_KEY[step.who]) if step.action == "hire" else {"id": self.ids[step.who]} | self._resolved(step.order)
        answer = self.okta.acts.do({"action": step.action} | order)
        if step.action == "hire":
            self.ids[step.who] = answer["id"]
        self.played.append(step)

    def _hire(self, one: Someone) -> dict[str, Any]:
        return {**profile_of(one, self.ids), "groups": list(one.groups)}

    def _resolved(self, order: dict[str, Any]) -> dict[str, Any]:
        """A manager is named by key in the script and by Okta id in a profile."""
        profile = order.get("profile")
        if not isinstance(profile, dict) or "manager" not in profile:
            return order
        rest = {name: value for name, value in profile.items() if name != "manager"}
        return order | {"profile": rest | {"managerId": self.ids[profile["manager"]]}}


APPS = ("Mail", "Calendar", "Wiki", "Travel", "Payroll", "Code host")
#: Mistakes people make every day; none is a threat and none changes anybody.
_FAILURES = ("INVALID_CREDENTIALS", "VERIFICATION_ERROR")


class Ordinary:
    """Sign-ins, single sign-on, policy evaluations of people to whom nothing happens, a few of them committed late."""

    def __init__(self, okta: OktaSimulator, rng: random.Random) -> None:
        self._writer, self._rng = okta.org.writer, rng
        residents = [one.login for one in PEOPLE if one.part == "bystander"]
        self._users = [user for login in residents if (user := okta.org.directory.now.find(login)) is not None]

    def write(self) -> None:
        at = self._rng.randrange(len(self._users))
        user = self._users[at]
        by = Caller(user_entity(user), ip=f"192.0.2.{10 + at}", uri="/idp/idx/identify", session=f"idx{user.id[3:]}")
        late = self._rng.uniform(5, 120) if self._rng.random() < 0.03 else 0.0
        kind = self._rng.choices(("sso", "policy", "start", "failed"), (50, 30, 18, 2))[0]
        if kind == "sso":
            app = self._rng.choice(APPS)
            instance = entity("AppInstance", f"0oa{app.replace(' ', '')}", app, app)
            account = entity("AppUser", f"0ua{user.id[3:]}", user.login, user.display_name)
            self._writer.write("user.authentication.sso", by, instance, account, late_s=late)
        elif kind == "policy":
            policy = entity("PolicyEntity", "00pDefault", "unknown", "Default Policy", {"policyType": "OktaSignOn"})
            rule = entity("PolicyRule", "0prDefault", "00pDefault", "Default Rule")
            outcome = ("ALLOW", "Sign-on policy evaluation resulted in ALLOW")
            self._writer.write("policy.evaluate_sign_on", by, policy, rule, outcome=outcome, late_s=late)
        elif kind == "start":
            self._writer.write("user.session.start", by, late_s=late)
        else:
            outcome = ("FAILURE", self._rng.choice(_FAILURES))
            failed = Caller(by.actor, ip=by.ip, uri=by.uri)
            self._writer.write("user.session.start", failed, outcome=outcome, legacy="core.user_auth.login_failed", late_s=late)
