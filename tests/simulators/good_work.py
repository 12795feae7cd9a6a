"""What Portcullis should have done to the day, done by hand over the vendors' APIs: the witness must be content with exactly this."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from simulators.company import BY_KEY, PEOPLE, Access, Someone
from simulators.serve import Simulation

INTENT = "X-Portcullis-Intent"


class GoodWork:
    """One worker with all credentials. Every mutating call carries an intent."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.client = httpx.AsyncClient(trust_env=False)
        self._intents = itertools.count(1)
        self._bare = False
        self._box_token = ""

    @contextmanager
    def without_intent(self) -> Iterator[None]:
        self._bare = True
        yield
        self._bare = False

    async def do(self) -> None:
        for one in PEOPLE:
            if one.hired:
                await self.open(one)
        await self.leave(BY_KEY["tom"])
        await self.contain(BY_KEY["nadia"])
        await self.tell(BY_KEY["nadia"])

    async def open(self, one: Someone, after: Access | None = None) -> None:
        wanted = after or one.after or Access()
        user = (await self.box("POST", "users", {"login": one.login, "name": one.name, "space_amount": wanted.space}))["id"]
        for name in wanted.groups:
            await self.box("POST", "group_memberships", {"user": {"id": user}, "group": {"id": self.named("groups", name)}})
        for name, role in wanted.folders.items():
            await self.share(user, name, role)

    async def share(self, user: str, folder: str, role: str) -> None:
        item = {"type": "folder", "id": self.named("folders", folder)}
        await self.box("POST", "collaborations", {"item": item, "accessible_by": {"type": "user", "id": user}, "role": role})

    async def close(self, one: Someone) -> None:
        await self.box("PUT", f"users/{self.account(one)}", {"status": "inactive"})
        await self.box("POST", "users/terminate_sessions", {"user_ids": [self.account(one)], "user_logins": [one.login]})

    async def leave(self, one: Someone) -> None:
        await self.close(one)
        await self.strip(one)
        await self.hand_over(one)

    async def strip(self, one: Someone) -> None:
        user, state = self.account(one), self.simulation.box.state()
        for id_, member in state["group_memberships"].items():
            if member["user"]["id"] == user:
                await self.box("DELETE", f"group_memberships/{id_}")
        for id_, grant in state["collaborations"].items():
            if grant["accessible_by"]["id"] == user:
                await self.box("DELETE", f"collaborations/{id_}")

    async def hand_over(self, one: Someone) -> None:
        heir = self.account(BY_KEY[one.manager or ""])
        await self.box("PUT", f"users/{self.account(one)}/folders/0", {"owned_by": {"id": heir}})

    async def contain(self, one: Someone) -> None:
        await self.okta("POST", f"users/{self.okta_id(one)}/lifecycle/suspend")
        await self.okta("DELETE", f"users/{self.okta_id(one)}/sessions?oauthTokens=true")
        await self.close(one)

    async def tell(self, one: Someone, outcome: str = "Contained") -> None:
        text = f"{outcome}: User risk raised to HIGH\n{one.name} ({self.okta_id(one)})\nokta: closed, after 0.2 s\nbox: closed, after 0.3 s"
        headers = self._headers(f"Bearer {self.simulation._slack_token}")
        body = {"channel": self.simulation.channel, "text": text}
        answer = await self.client.post(f"{self.simulation.slack.url}/api/chat.postMessage", json=body, headers=headers)
        assert answer.json()["ok"], answer.text

    # -- calls --------------------------------------------------------------------------------------------------------

    async def okta(self, method: str, path: str, body: Any = None) -> None:
        headers = self._headers(f"SSWS {self.simulation._tokens['default']}")
        answer = await self.client.request(method, f"{self.simulation.okta.url}/api/v1/{path}", headers=headers, json=body)
        assert answer.is_success, answer.text

    async def box(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = self._headers(f"Bearer {await self._token()}")
        answer = await self.client.request(method, f"{self.simulation.box.url}/2.0/{path}", headers=headers, json=body)
        assert answer.is_success, answer.text
        return dict(answer.json()) if answer.content else {}

    async def _token(self) -> str:
        if not self._box_token:
            box = self.simulation.box
            form = {"grant_type": "client_credentials", "client_id": box.client_id, "client_secret": box.client_secret}
            form |= {"box_subject_type": "enterprise", "box_subject_id": box.store.enterprise}
            self._box_token = (await self.client.post(f"{box.url}/oauth2/token", data=form)).json()["access_token"]
        return self._box_token

    def _headers(self, authorization: str) -> dict[str, str]:
        return {"Authorization": authorization} | ({} if self._bare else {INTENT: f"intent-{next(self._intents)}"})

    # -- ids ----------------------------------------------------------------------------------------------------------

    def named(self, kind: str, name: str) -> str:
        return next(str(id_) for id_, one in self.simulation.box.state()[kind].items() if one["name"] == name)

    def account(self, one: Someone) -> str:
        found = self.simulation.box.find_user(one.login)
        assert found is not None
        return str(found["id"])

    def okta_id(self, one: Someone) -> str:
        user = self.simulation.okta.org.directory.now.find(one.login)
        assert user is not None
        return user.id
