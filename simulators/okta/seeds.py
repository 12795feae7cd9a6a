"""An org as it stands before anybody looks: its parts, and how to fill them without a trace in the log."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from model.event import digest
from simulators.limits import Clock
from simulators.okta.directory import Directory, Group, Role, Status, User, View
from simulators.okta.events import Writer
from simulators.okta.log import SystemLog


class Seeds:
    """Directory and log of one org. `lag` in seconds is how far reads of the directory are behind its log."""

    def __init__(self, clock: Clock, *, name: str = "default", lag: float = 0.5, rng: random.Random | None = None) -> None:
        self.clock, self.name = clock, name
        self.rng = rng or random.Random()
        self.directory = Directory(clock, lag)
        self.log = SystemLog(clock)
        self.writer = Writer(self.log, clock, self.rng)
        self._serial = 0
        self.everyone = self.seed_group("Everyone", built_in=True)

    def seed_user(
        self,
        profile: Mapping[str, Any],
        *,
        user_id: str | None = None,
        status: Status = "ACTIVE",
        groups: tuple[str, ...] = (),
        roles: tuple[tuple[str, str], ...] = (),
        sessions: int = 0,
        tokens: int = 0,
        age_s: float = 90 * 86400,
    ) -> User:
        """A user who has been there for `age_s`; nothing is written to the log. `groups` are names, `roles` (type, label)."""
        then = self.clock() - age_s
        user = User(
            id=user_id or self.new_id("00u", str(profile.get("login", ""))),
            status=status,
            profile=dict(profile),
            created=then,
            activated=then,
            status_changed=then,
            last_updated=then,
            password_changed=then,
        )
        self.directory.seed(lambda view: view.put_user(user))
        joined = [self.everyone.id, *(self.seed_group(name).id for name in groups)]
        held = tuple(Role(self.new_id("ra1", kind), kind, label, then) for kind, label in roles)
        opened = tuple(self.new_id("102", "session") for _ in range(sessions))
        granted = tuple(self.new_id("oar", "token") for _ in range(tokens))

        def seed(view: View) -> None:
            view.put_user(user)
            for group_id in joined:
                view.join(group_id, user.id, then)
            if held:
                view.put_roles(user.id, held)
            view.put_sessions(user.id, opened)
            view.put_tokens(user.id, granted)

        self.directory.seed(seed)
        return user

    def seed_group(self, name: str, *, built_in: bool = False, age_s: float = 90 * 86400) -> Group:
        """The group of that name, made long ago where there was none."""
        if (known := self.directory.now.group_named(name)) is not None:
            return known
        then = self.clock() - age_s
        group = Group(self.new_id("00g", name), name, "BUILT_IN" if built_in else "OKTA_GROUP", then, then, then)
        self.directory.seed(lambda view: view.put_group(group))
        return group

    def new_id(self, prefix: str, seed: str) -> str:
        """An id as Okta's look: 20 characters, of this org alone, and the same for the same history."""
        self._serial += 1
        return prefix + digest(self.name, prefix, seed, str(self._serial))[:17]
