"""Whether the simulators stand as the scenario `day` must have left them: per person and target, read through the side doors.

The expected end is data of `simulators/company.py`. Nothing here asks Portcullis: the witness is the vendors' own state and the list of
calls that they received.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from model.errors import ConfigurationError
from model.settings import Settings
from simulators.company import BREAK_GLASS_LOGIN, BY_KEY, PEOPLE, SERVICE_LOGIN, Access, Someone
from simulators.slack_text import render_text

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must stand. `person` and `target` are names for a table, `""` where none is meant."""

    name: str
    person: str
    target: str
    expected: str
    actual: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Addresses:
    """Origins of the three simulators (any path of theirs will do)."""

    okta: str
    box: str
    slack: str


def addresses(settings: Settings) -> Addresses:
    """Of a configuration that `simulate --write-config` wrote: the day plays in its first tenant. Raises ConfigurationError."""
    box = [target.url for target in settings.targets.values() if target.kind == "box" and target.url]
    if not settings.okta or not box or settings.slack is None:
        raise ConfigurationError(
            "the configuration names no simulated Okta, Box and Slack: write one with `portcullis simulate --scenario day --write-config FILE`"
        )
    return Addresses(next(iter(settings.okta.values())).url, str(box[0]), settings.slack.url)


async def verify_day(okta_url: str, box_url: str, slack_url: str, wait_s: float = 0.0, *, interval_s: float = 0.25) -> list[Check]:
    """Every check, once all hold or `wait_s` seconds are over. Raises ConfigurationError where a simulator cannot be asked."""
    until = time.monotonic() + wait_s
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        while True:
            looks = [
                await _look(client, url, key) for url, key in ((okta_url, "memberships"), (box_url, "folders"), (slack_url, "channels"))
            ]
            checks = list(judge(*looks))
            if all(check.ok for check in checks) or time.monotonic() >= until:
                return checks
            await asyncio.sleep(interval_s)


def as_json(checks: Sequence[Check]) -> list[dict[str, Any]]:
    return [asdict(check) for check in checks]


@dataclass(frozen=True, slots=True)
class Look:
    """One simulator at one moment."""

    state: Json
    calls: list[Json]


async def _look(client: httpx.AsyncClient, url: str, key: str) -> Look:
    """`key` tells this vendor's state from the others'."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    try:
        answers = [await client.get(f"{origin}/_sim/{door}") for door in ("state", "calls")]
        state, calls = (answer.raise_for_status().json() for answer in answers)
        if key not in state:
            raise ConfigurationError(f"{origin}: another simulator answers there: its state has no {key}")
        return Look(state, calls)
    except (httpx.HTTPError, ValueError) as error:
        raise ConfigurationError(
            f"{origin}: no simulator answers there ({type(error).__name__}): is `portcullis simulate` running?"
        ) from None


def judge(okta: Look, box: Look, slack: Look) -> Iterator[Check]:
    """Pure: the checks on one look at each simulator."""
    world = _World(okta, box, slack)
    yield _check("the day is over", "", "okta", "done", str(okta.state.get("scenario")))
    for one in PEOPLE:
        yield from _PARTS[one.part](world, one)
    yield from _admins(world)
    yield from _incident(world)
    yield from _nobody_else(world)
    yield from _intents(world)


# -- parts of the day ---------------------------------------------------------------------------------------------------


def _present(world: _World, one: Someone) -> Iterator[Check]:
    """Somebody who works here: ACTIVE, and at Box exactly what policy says."""
    yield _check("is active", one.name, "okta", "ACTIVE", world.okta_status(one))
    yield from _account(world, one, "active")
    yield from _access(world, one)


def _bystander(world: _World, one: Someone) -> Iterator[Check]:
    yield _check("is untouched", one.name, "okta", "ACTIVE, 1 session, no calls", world.okta_quiet(one))
    if one.before is None:
        yield _check("has no account", one.name, "box", "0 accounts", f"{len(world.accounts(one))} accounts")
        return
    yield from _account(world, one, "active")
    yield from _access(world, one)
    yield _check("is untouched", one.name, "box", "no calls", _count(world.box_calls(one)))


def _leaver(world: _World, one: Someone) -> Iterator[Check]:
    yield _check("has left", one.name, "okta", "DEPROVISIONED", world.okta_status(one))
    yield from _account(world, one, "inactive")
    yield _check("sessions ended", one.name, "box", "0 live, ended", world.box_sessions(one))
    yield _check("has no groups", one.name, "box", "none", _names(world.groups(one)))
    yield _check("has no folders of others", one.name, "box", "none", _names(world.folders(one)))
    heir = BY_KEY[one.manager or ""]
    expected = ", ".join(f"{name}: {heir.name}" for name in sorted(one.owns))
    yield _check("content is the manager's", one.name, "box", expected, world.owners(one.owns))
    yield _check("was closed before content moved", one.name, "box", "inactive, then transfer", world.closed_before_transfer(one))


def _compromised(world: _World, one: Someone) -> Iterator[Check]:
    yield _check("is suspended", one.name, "okta", "SUSPENDED", world.okta_status(one))
    yield _check("sessions and tokens ended", one.name, "okta", "0 sessions, 0 tokens", world.okta_sessions(one))
    yield from _account(world, one, "inactive")
    yield _check("sessions ended", one.name, "box", "0 live, ended", world.box_sessions(one))
    yield from _access(world, one)
    yield _check("was opened again by nobody", one.name, "okta, box", "no calls", _count(world.reopenings(one)))


_PARTS: Mapping[str, Callable[[_World, Someone], Iterator[Check]]] = {
    "bystander": _bystander,
    "hire": _present,
    "transfer": _present,
    "contractor": _present,
    "leaver": _leaver,
    "compromised": _compromised,
}


def _account(world: _World, one: Someone, status: str) -> Iterator[Check]:
    found = world.accounts(one)
    actual = ", ".join(str(account["status"]) for account in found) or "no account"
    yield _check(f"one account, {status}", one.name, "box", status, actual)


def _access(world: _World, one: Someone) -> Iterator[Check]:
    wanted = one.after or Access()
    yield _check("groups", one.name, "box", _names(wanted.groups), _names(world.groups(one)))
    yield _check("folders", one.name, "box", _levels(wanted.folders), _levels(world.folders(one)))
    yield _check("quota", one.name, "box", str(wanted.space), ", ".join(str(account["space_amount"]) for account in world.accounts(one)))


# -- beyond people ------------------------------------------------------------------------------------------------------


def _admins(world: _World) -> Iterator[Check]:
    for login in (BREAK_GLASS_LOGIN, SERVICE_LOGIN):
        user = world.users.get(login, {})
        calls = world.okta_calls(str(user.get("id", "")))
        yield _check("is untouched", login, "okta", "ACTIVE, no calls", f"{user.get('status', 'absent')}, {_count(calls)}")


def _incident(world: _World) -> Iterator[Check]:
    for one in PEOPLE:
        if one.part == "compromised":
            messages = world.messages(one)
            yield _check("one message", one.name, "slack", "1", str(len(messages)))
            yield _check("the message tells the outcome", one.name, "slack", "contained at okta, box", _outcome(messages))


def _outcome(messages: Sequence[str]) -> str:
    text = "\n".join(messages).lower()
    told = "contained" if "contained:" in text and "partly contained" not in text else "not contained"
    return f"{told} at {', '.join(name for name in ('okta', 'box') if f'{name}: closed' in text) or 'no target'}"


def _nobody_else(world: _World) -> Iterator[Check]:
    known = {one.login for one in PEOPLE if one.before is not None or one.hired}
    managed = [user for user in world.box.state["users"].values() if user["role"] == "user" and not user["is_external"]]
    strangers = sorted({str(user["login"]) for user in managed} - known)
    yield _check("nobody else has an account", "", "box", "none", ", ".join(strangers) or "none")


def _intents(world: _World) -> Iterator[Check]:
    for name, look in (("okta", world.okta), ("box", world.box), ("slack", world.slack)):
        bare = [f"{call['method']} {call['path']}" for call in look.calls if not call["intent"]]
        yield _check("every call carries an intent", "", name, "0 without", f"{len(bare)} without" + (f" ({bare[0]})" if bare else ""))


# -- reading the simulators' state --------------------------------------------------------------------------------------


class _World:
    """The three looks, indexed by login."""

    def __init__(self, okta: Look, box: Look, slack: Look) -> None:
        self.okta, self.box, self.slack = okta, box, slack
        self.users: dict[str, Json] = {str(user["profile"]["login"]).lower(): user for user in okta.state["users"].values()}

    def okta_id(self, one: Someone) -> str:
        return str(self.users.get(one.login, {}).get("id", ""))

    def okta_status(self, one: Someone) -> str:
        return str(self.users.get(one.login, {}).get("status", "absent"))

    def okta_sessions(self, one: Someone) -> str:
        counts = [len(self.okta.state[kind].get(self.okta_id(one), ())) for kind in ("sessions", "oauthTokens")]
        return f"{counts[0]} sessions, {counts[1]} tokens"

    def okta_quiet(self, one: Someone) -> str:
        sessions = len(self.okta.state["sessions"].get(self.okta_id(one), ()))
        told = f"{sessions} session{'s' if sessions != 1 else ''}"
        return f"{self.okta_status(one)}, {told}, {_count(self.okta_calls(self.okta_id(one)))}"

    def okta_calls(self, user_id: str) -> list[Json]:
        return [call for call in self.okta.calls if user_id and user_id in call["path"].split("/")]

    def accounts(self, one: Someone) -> list[Json]:
        return [user for user in self.box.state["users"].values() if str(user["login"]).lower() == one.login]

    def _ids(self, one: Someone) -> set[str]:
        return {str(user["id"]) for user in self.accounts(one)}

    def groups(self, one: Someone) -> set[str]:
        ids = self._ids(one)
        return {member["group"]["name"] for member in self.box.state["group_memberships"].values() if member["user"]["id"] in ids}

    def folders(self, one: Someone) -> dict[str, str]:
        ids = self._ids(one)
        grants = self.box.state["collaborations"].values()
        return {grant["item"]["name"]: grant["role"] for grant in grants if (grant["accessible_by"] or {}).get("id") in ids}

    def owners(self, names: Sequence[str]) -> str:
        found = [(folder["name"], folder["owned_by"]["name"]) for folder in self.box.state["folders"].values() if folder["name"] in names]
        return ", ".join(f"{name}: {owner}" for name, owner in sorted(found))

    def box_sessions(self, one: Someone) -> str:
        sessions = [self.box.state["sessions"].get(id_, {}) for id_ in sorted(self._ids(one))]
        return ", ".join(f"{one.get('live')} live, {'ended' if one.get('ended') else 'never ended'}" for one in sessions) or "no account"

    def box_calls(self, one: Someone) -> list[Json]:
        """Calls whose path is this account's, or whose body names it as the one who gets or loses something."""
        ids = self._ids(one)
        return [call for call in self.box.calls if ids & set(call["path"].split("/")) or ids & _named(call["body"])]

    def closed_before_transfer(self, one: Someone) -> str:
        order = [
            "inactive" if call["path"].endswith("/folders/0") is False else "transfer"
            for call in self.box.calls
            if call["changed"] and self._ids(one) & set(call["path"].split("/")) and _moves(call)
        ]
        return ", then ".join(dict.fromkeys(order)) or "no calls"

    def reopenings(self, one: Someone) -> list[Json]:
        okta = [call for call in self.okta_calls(self.okta_id(one)) if call["path"].endswith(("/unsuspend", "/activate", "/reactivate"))]
        status = [call for call in self.box_calls(one) if isinstance(call["body"], dict) and "status" in call["body"]]
        return [call for call in okta + [call for call in status if call["body"]["status"] != "inactive"] if call["changed"]]

    def messages(self, one: Someone) -> list[str]:
        texts = [render_text(message) for channel in self.slack.state["channels"].values() for message in channel["messages"]]
        return [text for text in texts if any(word in text for word in (one.login, one.name, self.okta_id(one)) if word)]


def _moves(call: Json) -> bool:
    """Closes an account or hands its content over."""
    body = call["body"]
    return call["path"].endswith("/folders/0") or (isinstance(body, dict) and body.get("status") == "inactive")


def _named(body: Any) -> set[str]:
    """Box ids that a body names as user, grantee or session holder; an heir gets something but is not changed."""
    if not isinstance(body, dict):
        return set()
    single = [body.get(key) for key in ("user", "accessible_by")]
    listed = body.get("user_ids")
    return {str(one["id"]) for one in single if isinstance(one, dict) and "id" in one} | {
        str(one) for one in (listed if isinstance(listed, list) else ())
    }


def _check(name: str, person: str, target: str, expected: str, actual: str) -> Check:
    return Check(name, person, target, expected, actual, expected == actual)


def _names(names: set[str] | frozenset[str] | Mapping[str, str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _levels(folders: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {role}" for name, role in sorted(folders.items())) or "none"


def _count(calls: Sequence[Json]) -> str:
    return f"{len(calls)} call{'s' if len(calls) != 1 else ''}" if calls else "no calls"
