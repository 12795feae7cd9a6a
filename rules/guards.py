"""Guards: what an operator declares about the house (networks, service accounts, help desk, change windows), and how that lowers a response.

A guard never raises a response and never drops a finding: lockdown becomes approve, approve becomes alert, an alert becomes informational,
and the finding says why. Guards that need an API (ACT), count over people (CB) or order events (ORD) live with the executor, the brakes and
the correlations. The protected list (BG) is enforced again below, by the executor; here it only spares a human the surprise.
"""

from __future__ import annotations

import difflib
import ipaddress
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from model.errors import ConfigurationError
from model.event import is_safe_id

#: Placeholders that the built-in rules use; empty until the operator gives them values.
DEFAULT_PLACEHOLDERS: dict[str, tuple[str, ...]] = {"own_api_tokens": (), "login_patterns": (), "approved_binaries": ()}

_LONGEST_WINDOW = timedelta(days=31)
#: Wider networks than these guard nothing in particular.
_WIDEST = {4: 8, 6: 19}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _ids(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not is_safe_id(value):
            raise ValueError(f"{value!r} is no Okta id (an id, not a login: logins can be given to somebody else)")
    if len(set(values)) != len(values):
        raise ValueError("an id stands twice")
    return values


class People(_Part):
    """A list of Okta ids."""

    ids: tuple[str, ...] = ()

    _checked = field_validator("ids")(_ids)


class IamAdmins(People):
    """ADM: administrators of access. With `needs_change` the guard holds only within a change window of theirs."""

    needs_change: bool = True


class Networks(_Part):
    """NET: corporate egress, VPN, approved proxies and shared egress, as CIDR ranges."""

    trusted: tuple[str, ...] = ()

    @field_validator("trusted")
    @classmethod
    def _networks(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            network = ipaddress.ip_network(value)
            if network.prefixlen < _WIDEST[network.version]:
                raise ValueError(f"{value} is too wide to mean somebody's network (at least /{_WIDEST[network.version]})")
        return values


class Period(_Part):
    """From `start` until `end`, both with a time zone, a month at most. `reference` is the ticket or case."""

    reference: str = Field(min_length=1)
    start: AwareDatetime
    end: AwareDatetime
    actors: tuple[str, ...] = ()

    _checked = field_validator("actors")(_ids)

    @model_validator(mode="after")
    def _in_order(self) -> Period:
        if self.end <= self.start:
            raise ValueError("end must be after start")
        if self.end - self.start > _LONGEST_WINDOW:
            raise ValueError("longer than 31 days: a window that is always open guards nothing")
        return self

    def holds(self, time: datetime, actor: str | None) -> bool:
        return self.start <= time < self.end and (not self.actors or actor in self.actors)


class NewUsers(_Part):
    """NEWU: created less than so many days ago, as far as the log has told."""

    days: float = Field(default=0, ge=0, le=90)


class CoolDown(_Part):
    """RATE: a rule asks for something about one person once in so many hours."""

    hours: float = Field(default=24, gt=0, le=24 * 31)


class OwnActor(_Part):
    """LOOP: who we are in the tenant's log. Filled at start from the credentials (D5); may be added to here."""

    actors: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()

    _checked = field_validator("actors", "clients", "tokens")(_ids)


Texts = Annotated[dict[str, tuple[str, ...]], Field(default_factory=dict)]


class GuardSettings(_Part):
    """The guards file (TOML). Everything is optional; an absent list guards nothing and says so in `rules lint`."""

    placeholders: Texts
    service_accounts: People = People()
    networks: Networks = Networks()
    iam_admins: IamAdmins = IamAdmins()
    help_desk: People = People()
    imports: People = People()
    new_users: NewUsers = NewUsers()
    cool_down: CoolDown = CoolDown()
    own: OwnActor = OwnActor()
    change_window: tuple[Period, ...] = ()
    support_window: tuple[Period, ...] = ()
    phishing_exercise: tuple[Period, ...] = ()

    @model_validator(mode="after")
    def _no_double_role(self) -> GuardSettings:
        both = set(self.service_accounts.ids) & (set(self.iam_admins.ids) | set(self.help_desk.ids))
        if both:
            raise ValueError(f"{sorted(both)[0]} is a service account and an administrator: one of the two is wrong")
        return self

    @classmethod
    def load(cls, path: Path | None) -> GuardSettings:
        """Reads the file (None: no guards are declared). Raises ConfigurationError with path, place and reason."""
        if path is None:
            return cls(placeholders={})
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls.model_validate(raw)
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
        except ValidationError as error:
            raise ConfigurationError(f"{path}: {_explained(error)}") from None

    def sigma_placeholders(self) -> Mapping[str, tuple[str, ...]]:
        """Values for `%name%` in rules: the file's, and our own tokens as %own_api_tokens%."""
        own = {"own_api_tokens": self.own.tokens} if self.own.tokens else {}
        return DEFAULT_PLACEHOLDERS | own | self.placeholders

    def configured(self) -> frozenset[str]:
        """Names of the guards that have something to go by. ACT, CB and ORD are enforced elsewhere, SYNC and RATE need nothing."""
        lists: dict[str, Iterable[Any]] = {
            "SVC": self.service_accounts.ids,
            "NET": self.networks.trusted,
            "ADM": self.iam_admins.ids if not self.iam_admins.needs_change or self.change_window else (),
            "HD": self.help_desk.ids,
            "CASE": self.support_window,
            "SIM": self.phishing_exercise,
        }
        named = {name for name, values in lists.items() if values}
        if self.new_users.days:
            named.add("NEWU")
        return frozenset(named | {"BG", "LOOP", "ACT", "CB", "ORD", "SYNC", "RATE"})

    def over(self, now: datetime | None = None) -> list[str]:
        """References of windows that have ended: to be taken out."""
        moment = now or datetime.now(UTC)
        periods = (*self.change_window, *self.support_window, *self.phishing_exercise)
        return [period.reference for period in periods if period.end <= moment]


def _explained(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "guards"
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}"
    known = {name for model in _PARTS for name in model.model_fields}
    near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
    return f"{where}: no such key" + (f": did you mean {near[0]}?" if near else "")


_PARTS = (GuardSettings, People, IamAdmins, Networks, Period, NewUsers, CoolDown, OwnActor)
