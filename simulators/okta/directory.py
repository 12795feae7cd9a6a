"""Who is in the org: users, groups, memberships, roles, risk, sessions. Okta's directory, without its log and its HTTP.

Two views of the same state: `now` is what a change is checked against, `read()` is what a GET answers, `lag` seconds behind, because
a real org's log runs ahead of what its directory answers. The lagged view is the same code fed with the same changes later, which
costs nothing and cannot disagree. Values are immutable; a change replaces them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from simulators.limits import Clock

Status = Literal["STAGED", "PROVISIONED", "ACTIVE", "RECOVERY", "PASSWORD_EXPIRED", "LOCKED_OUT", "SUSPENDED", "DEPROVISIONED"]


def stamp(epoch: float | None) -> str | None:
    """Okta's time format: UTC with milliseconds."""
    if epoch is None:
        return None
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class User:
    """Times are epoch seconds. `version` counts changes and makes the ETag."""

    id: str
    status: Status
    profile: Mapping[str, Any]
    created: float
    activated: float | None = None
    status_changed: float | None = None
    last_login: float | None = None
    last_updated: float = 0.0
    password_changed: float | None = None
    version: int = 1

    @property
    def login(self) -> str:
        return str(self.profile.get("login", ""))

    @property
    def display_name(self) -> str:
        given = f"{self.profile.get('firstName') or ''} {self.profile.get('lastName') or ''}".strip()
        return given or self.login

    @property
    def etag(self) -> str:
        return f'W/"{self.version}"'

    def to_json(self, origin: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "status": self.status,
            "created": stamp(self.created),
            "activated": stamp(self.activated),
            "statusChanged": stamp(self.status_changed),
            "lastLogin": stamp(self.last_login),
            "lastUpdated": stamp(self.last_updated),
            "passwordChanged": stamp(self.password_changed),
            "type": {"id": "oty1simulatedDefault"},
            "profile": dict(self.profile),
            "credentials": {"provider": {"type": "OKTA", "name": "OKTA"}},
            "_links": {"self": {"href": f"{origin}/api/v1/users/{self.id}"}},
        }


@dataclass(frozen=True, slots=True)
class Group:
    id: str
    name: str
    type: Literal["OKTA_GROUP", "BUILT_IN", "APP_GROUP"]
    created: float
    last_updated: float
    last_membership_updated: float
    description: str | None = None

    def to_json(self, origin: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "created": stamp(self.created),
            "lastUpdated": stamp(self.last_updated),
            "lastMembershipUpdated": stamp(self.last_membership_updated),
            "objectClass": ["okta:user_group"],
            "type": self.type,
            "profile": {"name": self.name, "description": self.description},
            "_links": {"users": {"href": f"{origin}/api/v1/groups/{self.id}/users"}},
        }


@dataclass(frozen=True, slots=True)
class Role:
    """A standard admin role that a user holds directly."""

    id: str
    type: str
    label: str
    created: float

    def to_json(self, origin: str, user_id: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "label": self.label,
            "type": self.type,
            "status": "ACTIVE",
            "created": stamp(self.created),
            "lastUpdated": stamp(self.created),
            "assignmentType": "USER",
            "_links": {"assignee": {"href": f"{origin}/api/v1/users/{user_id}"}},
        }


@dataclass(slots=True)
class View:
    """The directory at one moment. Dicts keep the order of creation, which is the order of every listing."""

    users: dict[str, User] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    members: dict[str, dict[str, None]] = field(default_factory=dict)
    groups_of: dict[str, dict[str, None]] = field(default_factory=dict)
    roles: dict[str, tuple[Role, ...]] = field(default_factory=dict)
    risks: dict[str, tuple[str, str]] = field(default_factory=dict)
    sessions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tokens: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _logins: dict[str, str] = field(default_factory=dict)

    def put_user(self, user: User) -> None:
        before = self.users.get(user.id)
        if before is not None and self._logins.get(before.login.lower()) == user.id:
            del self._logins[before.login.lower()]
        self.users[user.id] = user
        self._logins.setdefault(user.login.lower(), user.id)

    def drop_user(self, user_id: str) -> None:
        user = self.users.pop(user_id)
        if self._logins.get(user.login.lower()) == user_id:
            del self._logins[user.login.lower()]
        for group_id in self.groups_of.pop(user_id, {}):
            self.members[group_id].pop(user_id, None)
        for kept in (self.roles, self.risks, self.sessions, self.tokens):
            kept.pop(user_id, None)

    def put_group(self, group: Group) -> None:
        self.groups[group.id] = group
        self.members.setdefault(group.id, {})

    def join(self, group_id: str, user_id: str, at: float) -> None:
        self.members[group_id][user_id] = None
        self.groups_of.setdefault(user_id, {})[group_id] = None
        self.groups[group_id] = replace(self.groups[group_id], last_membership_updated=at)

    def part(self, group_id: str, user_id: str, at: float) -> None:
        self.members[group_id].pop(user_id, None)
        self.groups_of.get(user_id, {}).pop(group_id, None)
        self.groups[group_id] = replace(self.groups[group_id], last_membership_updated=at)

    def put_roles(self, user_id: str, roles: tuple[Role, ...]) -> None:
        self.roles[user_id] = roles

    def put_risk(self, user_id: str, level: str, reason: str) -> None:
        self.risks[user_id] = (level, reason)

    def put_sessions(self, user_id: str, sessions: tuple[str, ...]) -> None:
        _put_or_drop(self.sessions, user_id, sessions)

    def put_tokens(self, user_id: str, tokens: tuple[str, ...]) -> None:
        _put_or_drop(self.tokens, user_id, tokens)

    def find(self, id_or_login: str) -> User | None:
        """By id, by login, or by the part of the login before @ where only one user has it."""
        if (user := self.users.get(id_or_login)) is not None:
            return user
        wanted = id_or_login.lower()
        if (user_id := self._logins.get(wanted)) is not None:
            return self.users[user_id]
        if "@" in wanted:
            return None
        short = [user for user in self.users.values() if user.login.lower().partition("@")[0] == wanted]
        return short[0] if len(short) == 1 else None

    def group_named(self, name: str) -> Group | None:
        return next((group for group in self.groups.values() if group.name == name), None)


def _put_or_drop(kept: dict[str, tuple[str, ...]], key: str, value: tuple[str, ...]) -> None:
    if value:
        kept[key] = value
    else:
        kept.pop(key, None)


Change = Callable[[View], None]


class Directory:
    """State with a lag. `lag` in seconds may be changed while nothing is pending."""

    def __init__(self, clock: Clock, lag: float = 0.5) -> None:
        self.clock, self.lag = clock, lag
        self.now = View()
        self._seen = View()
        self._pending: deque[tuple[float, Change]] = deque()

    def commit(self, change: Change) -> None:
        """Changes `now` at once, and what reads see after the lag."""
        change(self.now)
        self._pending.append((self.clock() + self.lag, change))

    def seed(self, change: Change) -> None:
        """Changes both views at once: how things stood before anybody looked."""
        self._settle(everything=True)
        change(self.now)
        change(self._seen)

    def read(self) -> View:
        """The directory as GETs see it. Do not keep it: it moves on."""
        self._settle()
        return self._seen

    def _settle(self, everything: bool = False) -> None:
        now = self.clock()
        while self._pending and (everything or self._pending[0][0] <= now):
            self._pending.popleft()[1](self._seen)
