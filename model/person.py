"""People, their accounts and what holds them shut. Names follow RFC 7643 and Okta's profile."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticSerializationError


def inert(value: Any) -> Any:
    """The same value with every lone surrogate in its texts written out (`\\ud800`), so that it can be encoded, sent and shown."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {inert(key): inert(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(inert(item) for item in value)
    return value


class Word(BaseModel):
    """Base of everything that travels or is kept: frozen, no unknown keys, JSON both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_bytes(self) -> bytes:
        """JSON in UTF-8. A lone surrogate, which UTF-8 cannot carry, is written as the text of its escape: it was no letter before."""
        try:
            return self.model_dump_json().encode()
        except PydanticSerializationError:
            return type(self).model_validate(inert(self.model_dump())).model_dump_json().encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Any:
        return cls.model_validate_json(raw)


class PersonStatus(StrEnum):
    """Okta's user statuses as far as they matter here; anything unknown reads as UNKNOWN and opens nothing."""

    STAGED = "STAGED"
    PROVISIONED = "PROVISIONED"
    ACTIVE = "ACTIVE"
    RECOVERY = "RECOVERY"
    PASSWORD_EXPIRED = "PASSWORD_EXPIRED"  # noqa: S105 - a status of Okta's
    LOCKED_OUT = "LOCKED_OUT"
    SUSPENDED = "SUSPENDED"
    DEPROVISIONED = "DEPROVISIONED"
    ABSENT = "ABSENT"
    UNKNOWN = "UNKNOWN"

    @property
    def is_present(self) -> bool:
        """May hold open accounts (PASSWORD_EXPIRED and LOCKED_OUT are states of a credential, not of employment)."""
        return self in (self.PROVISIONED, self.ACTIVE, self.RECOVERY, self.PASSWORD_EXPIRED, self.LOCKED_OUT)

    @property
    def is_gone(self) -> bool:
        return self in (self.SUSPENDED, self.DEPROVISIONED, self.ABSENT)


class Person(Word):
    """Who somebody is in Okta now. `groups` are (id, name) pairs; `profile` is Okta's, as it came."""

    tenant: str
    id: str
    status: PersonStatus
    login: str = ""
    email: str = ""
    first_name: str = ""
    last_name: str = ""
    department: str = ""
    title: str = ""
    user_type: str = ""
    manager_id: str = ""
    last_updated: datetime | None = None
    status_changed: datetime | None = None
    groups: tuple[tuple[str, str], ...] = ()
    profile: dict[str, Any] = {}

    @property
    def display_name(self) -> str:
        return f"{self.first_name} {self.last_name}".strip() or self.login or self.id


class Grant(Word):
    """One entitlement: a group membership, a folder collaboration, a licence. `id` is the vendor's id of what is granted;
    `key` the vendor's id of the grant itself (membership id, collaboration id) where it exists."""

    kind: str
    name: str
    id: str = ""
    level: str = ""
    key: str = ""


class Account(Word):
    """What a target holds for a person now."""

    target: str
    id: str
    login: str
    active: bool
    status: str
    privileged: bool = False
    attributes: dict[str, Any] = {}
    grants: tuple[Grant, ...] = ()


class Desired(Word):
    """What policy asks of one target for one person. `active` None means: leave the account's existence and state alone."""

    target: str
    active: bool | None
    attributes: dict[str, Any] = {}
    grants: tuple[Grant, ...] = ()
    #: The manager: an Okta id where policy says it, the account id at this target when it reaches `Target.changes`.
    transfer_to: str | None = None
    reasons: tuple[str, ...] = ()
    #: (kind, name) of every grant that policy speaks of: what is not named here is never revoked.
    managed: tuple[tuple[str, str], ...] = ()


class HoldState(StrEnum):
    OPEN = "open"
    RELEASED = "released"


class Hold(Word):
    """A latch that only an explicit release lifts (N4, D15). `restore` is what each target held before it was closed;
    `accounts` are the (target, account id) pairs it covers, since two tenants may share one target (D18)."""

    id: str
    tenant: str
    person: str
    incident: str
    state: HoldState = HoldState.OPEN
    since: datetime
    released: datetime | None = None
    released_by: str | None = None
    reason: str = ""
    accounts: tuple[tuple[str, str], ...] = ()
    restore: dict[str, dict[str, Any]] = {}

    @property
    def is_open(self) -> bool:
        return self.state is HoldState.OPEN


class Link(Word):
    """(tenant, Okta id, target) ↔ account id, durable (D21). `made_by` is an intent id or `link:<actor>`."""

    tenant: str
    person: str
    target: str
    account: str
    login: str = ""
    made_by: str
    at: datetime
