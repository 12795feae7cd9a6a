"""The simulated Okta org on a port: credentials, limits and headers before every route, the side door beside them.

Strict on purpose: a wrong token, a missing scope, a POST without a length, a bad cursor are refused with Okta's own status and code.
"""

from __future__ import annotations

import random
import secrets
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any, TypeVar

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from simulators.base import Clock, Rate, Simulator, json_response, read_body
from simulators.okta import buckets, errors, feed, logs
from simulators.okta.acts import Acts, BadAct
from simulators.okta.auth import ApiToken, Gate, ServiceApp
from simulators.okta.buckets import Buckets
from simulators.okta.directory import User
from simulators.okta.door import CREDENTIAL, Door
from simulators.okta.events import Caller, user_entity
from simulators.okta.groups import Groups
from simulators.okta.org import Org
from simulators.okta.users import Users

TOKEN_PATH = "/oauth2/v1/token"
_RATE = web.RequestKey("rate", Rate)
_ADMIN = {
    "login": "it.admin@corp.example",
    "email": "it.admin@corp.example",
    "firstName": "Ida",
    "lastName": "Moreau",
    "title": "IT administrator",
    "department": "IT",
}
R = TypeVar("R", bound=web.StreamResponse)


class OktaSimulator(Simulator):
    """One org. `lag` in seconds is how far reads of the directory are behind its log; `rate` is the log's bucket a minute."""

    name = "okta"
    unlisted = (TOKEN_PATH,)

    def __init__(
        self,
        *,
        tenant: str = "default",
        lag: float = 0.5,
        rate: int = buckets.LOGS_A_MINUTE,
        clock: Clock = time.time,
        latency_s: float = 0.0,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(clock=clock, latency_s=latency_s)
        self.tenant = tenant
        self.org = Org(clock, name=tenant, lag=lag, rng=rng)
        self.gate = Gate(clock)
        self.buckets = Buckets(clock, rate)
        #: `running`, `done`, or None where nothing is played.
        self.scenario: str | None = None
        self.admin = self.org.seed_user(_ADMIN, roles=(("ORG_ADMIN", "Organization Administrator"),))
        self.acts = Acts(self.org, self._as_admin)
        self.app.middlewares.append(self._answer)
        door = Door(self, self.org)
        Users(door)
        Groups(door)
        door.route("GET", buckets.LOGS, "okta.logs.read", self._logs)
        self.app.router.add_post(TOKEN_PATH, self._token)
        self.app.router.add_post("/_sim/log", self._append)
        self.app.router.add_post("/_sim/act", self._act)

    # -- who may call, and who is there -------------------------------------------------------------------------------------

    def add_token(self, value: str, login: str = "portcullis@corp.example") -> User:
        """An SSWS token of a super admin with that login, who is made where there is none."""
        owner = self.org.directory.now.find(login) or self.org.seed_user(
            {"login": login, "email": login, "firstName": "Portcullis", "lastName": "Service", "title": "Service account"},
            roles=(("SUPER_ADMIN", "Super Organization Administrator"),),
        )
        self.gate.add_token(ApiToken(value, self.org.new_id("00T", login), owner.id))
        return owner

    def add_app(self, app: ServiceApp) -> None:
        self.gate.add_app(app)

    def load(self, path: Path) -> int:
        """Persists a file of LogEvents now, in its order; whoever it names as User exists, ACTIVE. Gives the number of events.

        Raises ConfigurationError with the file and the number of a line that is no JSON object; nothing is loaded then.
        """
        raws: list[bytes] = []
        named: dict[str, feed.Named] = {}
        for raw, event in feed.read_file(path):
            raws.append(raw)
            feed.gather(event, named)
        for one in named.values():
            self.add_person(one)
        self.org.log.extend(raws)
        return len(raws)

    def add_person(self, one: feed.Named) -> None:
        if one.id not in self.org.directory.now.users:
            profile = {"login": one.login, "email": one.login, "firstName": one.first_name, "lastName": one.last_name}
            self.org.seed_user(profile, user_id=one.id)

    def _as_admin(self) -> Caller:
        """The admin in whose name the side door acts."""
        return Caller(user_entity(self.org.user(self.admin.id)), uri="/admin/user", session="102itAdminConsole")

    # -- the vendor's hooks -------------------------------------------------------------------------------------------------

    async def admit(self, request: web.Request) -> web.Response | None:
        rate = request[_RATE] = self.buckets.take(request.method, request.path)
        try:
            if not rate.allowed:
                raise errors.too_many()
            if request.method in ("POST", "PUT") and "Content-Length" not in request.headers and "Transfer-Encoding" not in request.headers:
                return self._stamped(request, web.Response(status=411, text="Length Required"))
            if request.path != TOKEN_PATH:
                request[CREDENTIAL] = self.gate.credential(request)
        except errors.OktaError as error:
            return self._stamped(request, error.response())
        return None

    def error_for(self, request: web.Request, status: int) -> web.Response:
        return self._stamped(request, errors.for_status(status).response())

    def state(self) -> dict[str, Any]:
        now = self.org.directory.now
        return {
            "scenario": self.scenario,
            "tenant": self.tenant,
            "users": {user.id: user.to_json(self.url) for user in now.users.values()},
            "groups": {group.id: group.to_json(self.url) for group in now.groups.values()},
            "memberships": {group_id: list(members) for group_id, members in now.members.items()},
            "roles": {user_id: [role.to_json(self.url, user_id) for role in roles] for user_id, roles in now.roles.items()},
            "risks": {user_id: {"riskLevel": level, "reason": reason} for user_id, (level, reason) in now.risks.items()},
            "sessions": {user_id: list(sessions) for user_id, sessions in now.sessions.items()},
            "oauthTokens": {user_id: list(tokens) for user_id, tokens in now.tokens.items()},
            "events": len(self.org.log),
        }

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/_sim/"):
            return await handler(request)
        try:
            response = await handler(request)
        except errors.OktaError as error:
            response = error.response()
        return self._stamped(request, response)

    def _stamped(self, request: web.Request, response: R) -> R:
        rate = request.get(_RATE)
        response.headers.update(buckets.headers(rate) if rate is not None else {})
        response.headers["X-Okta-Request-Id"] = secrets.token_urlsafe(20)
        response.headers["Date"] = formatdate(self.clock(), usegmt=True)
        return response

    # -- routes of its own --------------------------------------------------------------------------------------------------

    async def _logs(self, request: web.Request) -> web.Response:
        return logs.answer(request, self.org.log, self.clock())

    async def _token(self, request: web.Request) -> web.Response:
        form = read_body(await request.read(), request.content_type)
        return self.gate.grant(form if isinstance(form, dict) else {}, f"{request.url.origin()}{TOKEN_PATH}")

    async def _append(self, request: web.Request) -> web.Response:
        try:
            raws = feed.split_body(await request.read())
        except feed.NotAnObject as error:
            return json_response({"error": str(error)}, 400)
        self.org.log.extend(raws)
        return json_response({"appended": len(raws)}, 201)

    async def _act(self, request: web.Request) -> web.Response:
        try:
            return json_response(self.acts.do(orjson.loads(await request.read())))
        except (BadAct, orjson.JSONDecodeError) as error:
            return json_response({"error": str(error)}, 400)
        except errors.OktaError as error:
            return error.response()
