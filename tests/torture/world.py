"""The simulated vendors as the harness sees them: it acts through their side doors, remembers the directory's history, reads their ledgers.

The history is kept by the time at which an act was sent, so that no effect can be earlier than its cause. What a moment of it asks
for at Box is the access table's word (`rules.policy`) on the person as they were then.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from model.person import Person, PersonStatus
from rules.policy import Policy
from tests.torture.effects import Call
from tests.torture.ledgers import Moment, Wish
from tests.torture.plan import DOMAIN, Act, Taken

Json = dict[str, Any]
TENANT = "default"
#: Calls of the harness itself at the vendors' own doors carry an intent that begins so.
OWN = "torture-"
_STATUS = {"suspend": "SUSPENDED", "unsuspend": "ACTIVE", "deactivate": "DEPROVISIONED", "activate": "ACTIVE"}


@dataclass(frozen=True, slots=True)
class Folk:
    """Somebody in the directory now."""

    id: str
    login: str
    status: str = "ACTIVE"
    department: str = ""
    title: str = ""
    user_type: str = ""
    groups: frozenset[str] = frozenset()
    held: bool = False


class World:
    """One run's vendors. `written` is the configuration that the simulators wrote."""

    def __init__(self, written: Path, policy: Policy) -> None:
        told = tomllib.loads(written.read_text())
        box = told["targets"]["box"]
        self.urls = {"okta": _origin(told["okta"][TENANT]["url"]), "box": _origin(box["url"]), "slack": _origin(told["slack"]["url"])}
        self._box_client = (box["client_id"], (written.parent / box["client_secret_file"]).read_text().strip(), box["enterprise_id"])
        self._okta_token = (written.parent / told["okta"][TENANT]["token_file"]).read_text().strip()
        self._policy = policy
        self._http = httpx.AsyncClient(trust_env=False, timeout=60)
        self._clock = asyncio.get_running_loop().time
        self.folk: dict[str, Folk] = {}
        self.history: dict[str, list[Moment]] = {}
        #: Logins at Box that somebody else holds.
        self.taken: set[str] = set()
        #: People about whom something happened: the others nobody was asked to look at.
        self.touched: set[str] = set()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def begin(self) -> None:
        """Who is there before anything happens."""
        state = await self.state("okta")
        for user in state["users"].values():
            profile = user["profile"]
            department, title, kind = (str(profile.get(key) or "") for key in ("department", "title", "userType"))
            groups = _groups_of(user["id"], state)
            self._remember(Folk(user["id"], profile["login"], user["status"], department, title, kind, groups), 0.0)

    def id_of(self, who: str) -> str:
        login = f"{who}@{DOMAIN}"
        return next((one.id for one in self.folk.values() if one.login == login), who)

    # -- what happens -----------------------------------------------------------------------------------------------------

    async def act(self, act: Act, now: float) -> None:
        """Raises RuntimeError where the directory refuses: the script is wrong then."""
        order = dict(act.order)
        if act.action != "hire":
            order["id"] = self.id_of(act.who)
        answer = await self._http.post(f"{self.urls['okta']}/_sim/act", json=order)
        if answer.status_code != 200:
            raise RuntimeError(f"{order} was refused: {answer.status_code} {answer.text[:300]}")
        if act.action == "hire":
            one = Folk(answer.json()["id"], order["login"], "ACTIVE", order["department"], order["title"], order["userType"])
            self._remember(one, now)
            order["id"] = one.id
        self.touched.add(order["id"])
        self._remember(_after(self.folk[order["id"]], act.action, order), now)

    async def log(self, elements: list[bytes]) -> None:
        answer = await self._http.post(f"{self.urls['okta']}/_sim/log", content=b"[" + b",".join(elements) + b"]")
        answer.raise_for_status()

    async def fault(self, vendor: str, order: Json) -> None:
        (await self._http.post(f"{self.urls[vendor]}/_sim/faults", json=order)).raise_for_status()

    async def fair_weather(self) -> None:
        for url in self.urls.values():
            (await self._http.delete(f"{url}/_sim/faults")).raise_for_status()

    async def take(self, taken: Taken) -> None:
        """Somebody else opens an account under the login, at the vendor's own door; `elsewhere` takes it out of the enterprise."""
        login = f"{taken.who}@{DOMAIN}"
        self.taken.add(login)
        body: Json = {"login": login, "name": "Somebody Else"}
        account = ""
        while not account:
            answer = await self._at_box("POST", "/2.0/users", body)
            found = await self._at_box("GET", f"/2.0/users?filter_term={login}")
            entries = found.json().get("entries", []) if found.status_code == 200 else []
            account = str(answer.json()["id"]) if answer.status_code == 201 else str(entries[0]["id"]) if entries else ""
        gone = (200, 403, 404)  # 403: it went with an answer that the weather ate, and is not ours to change any more
        while taken.elsewhere and (await self._at_box("PUT", f"/2.0/users/{account}", {"enterprise": None})).status_code not in gone:
            continue

    async def _at_box(self, method: str, path: str, body: Json | None = None) -> httpx.Response:
        """An answer of any kind; 599 where the weather ate it."""
        client, secret, enterprise = self._box_client
        form = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
        form |= {"box_subject_type": "enterprise", "box_subject_id": enterprise}
        try:
            token = await self._http.post(f"{self.urls['box']}/oauth2/token", data=form)
            headers = {"Authorization": f"Bearer {token.json()['access_token']}", "X-Portcullis-Intent": f"{OWN}{method}-{path}"}
            return await self._http.request(method, self.urls["box"] + path, json=body, headers=headers, timeout=10)
        except (httpx.HTTPError, ValueError, KeyError):
            await asyncio.sleep(0.2)
            return httpx.Response(599)

    def _remember(self, one: Folk, at: float) -> None:
        self.folk[one.id] = one
        moments = self.history.setdefault(one.id, [])
        wish = wish_of(one, self._policy)
        if not moments or moments[-1].wish != wish:
            moments.append(Moment(at, wish))

    # -- what they hold ---------------------------------------------------------------------------------------------------

    async def state(self, vendor: str) -> Json:
        answer = await self._http.get(f"{self.urls[vendor]}/_sim/state")
        return dict(answer.raise_for_status().json())

    async def calls(self, vendor: str) -> list[Call]:
        """Mutating calls, without those of the harness itself."""
        answer = (await self._http.get(f"{self.urls[vendor]}/_sim/calls")).raise_for_status()
        return [
            Call(
                vendor, one["n"], datetime.fromisoformat(one["at"]).timestamp(), one["method"], one["path"],
                one["body"], one["status"], one["intent"], one["changed"],
            )
            for one in answer.json()
            if not str(one["intent"]).startswith(OWN)
        ]  # fmt: skip

    async def whole_log(self) -> list[bytes]:
        """The tenant's log as anybody may read it: pages of the vendor's API."""
        since = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        url, pages = f"{self.urls['okta']}/api/v1/logs?since={since}&sortOrder=ASCENDING&limit=1000", list[bytes]()
        while True:
            answer = await self._http.get(url, headers={"Authorization": f"SSWS {self._okta_token}"})
            answer.raise_for_status()
            if answer.content.strip() == b"[]":
                return pages
            pages.append(answer.content)
            url = answer.links["next"]["url"]


def wish_of(one: Folk, policy: Policy) -> Wish:
    """What the access table asks of Box for somebody as they were."""
    person = Person(
        tenant=TENANT, id=one.id, status=PersonStatus(one.status), login=one.login, department=one.department, title=one.title,
        user_type=one.user_type, groups=tuple((name, name) for name in sorted(one.groups)),
    )  # fmt: skip
    ended = one.status == "DEPROVISIONED"
    desired = policy.desired(person, "box", "box")
    if desired is None or desired.active is None:
        return Wish(None, shut=one.held)
    return Wish(
        active=desired.active,
        groups=frozenset(grant.name for grant in desired.grants if grant.kind == "group"),
        folders={grant.name: grant.level for grant in desired.grants if grant.kind == "folder"},
        space=desired.attributes.get("space_amount"),
        shut=one.held,
        ended=ended,
    )


def _after(one: Folk, action: str, order: Mapping[str, Any]) -> Folk:
    match action:
        case "hire":
            return replace(one, groups=one.groups | set(order.get("groups") or ()))
        case "change":
            return replace(one, department=order["profile"].get("department", one.department))
        case "add_to_group":
            return replace(one, groups=one.groups | {order["group"]})
        case "remove_from_group":
            return replace(one, groups=one.groups - {order["group"]})
        case "raise_risk":
            return replace(one, held=True)
        case _:
            return replace(one, status=_STATUS[action])


def _groups_of(user_id: str, state: Json) -> frozenset[str]:
    names = {key: group["profile"]["name"] for key, group in state["groups"].items()}
    return frozenset(names[key] for key, members in state["memberships"].items() if user_id in members)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
