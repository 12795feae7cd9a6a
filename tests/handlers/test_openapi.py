"""Every request that our Okta and Box clients can send passes the vendor's own OpenAPI, and names nothing that the vendor does not know.

The tour calls every public method of both APIs on a scripted wire; a method that is missing from the tour fails the test. Box's bodies do
not forbid unknown names, so a copy of the spec is made strict first: a misspelt name that silently does nothing is what we look for.
"""

from __future__ import annotations

import copy
import inspect
import json
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from openapi_core import Config, OpenAPI
from openapi_core.datatypes import RequestParameters
from werkzeug.datastructures import Headers, ImmutableMultiDict

from handlers.box import diff
from handlers.box.api import BOX, BoxApi
from handlers.okta.api import OktaApi
from model.person import Desired, Grant, Person, PersonStatus
from tests.handlers.wire import Wire, client
from tests.support.clock import FakeClock

BOX_BASE, OKTA_BASE = "https://api.box.com/2.0", "https://acme.okta.com"


class Sent:
    """An httpx request as openapi-core sees it."""

    def __init__(self, request: httpx.Request) -> None:
        self.host_url = f"{request.url.scheme}://{request.url.host}"
        self.path = request.url.path
        self.full_url_pattern = f"{self.host_url}{self.path}"
        self.method = request.method.lower()
        self.content_type = request.headers.get("content-type", "application/json")
        self.body = request.content or None
        query = ImmutableMultiDict(request.url.params.multi_items())
        self.parameters = RequestParameters(query=query, header=Headers(dict(request.headers)))


def strict(spec: dict[str, Any]) -> dict[str, Any]:
    """A copy in which no request body may hold a name that the spec does not list."""
    spec = copy.deepcopy(spec)
    for operations in spec["paths"].values():
        for operation in operations.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                _close(content.get("schema", {}))
    return spec


def _close(schema: dict[str, Any]) -> None:
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
        for inner in schema["properties"].values():
            _close(inner)
    if "items" in schema:
        _close(schema["items"])


def load(spec: dict[str, Any]) -> OpenAPI:
    return OpenAPI.from_dict(spec, config=Config(spec_validator_cls=None))


def check(api: OpenAPI, request: httpx.Request) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openapi-core warns about OAuth schemes that it does not judge
        api.validate_request(Sent(request))


@pytest.fixture(scope="module")
def box_spec(shared: Path) -> OpenAPI:
    return load(strict(json.loads((shared / "specs" / "box-openapi.json").read_text())))


@pytest.fixture(scope="module")
def okta_spec(shared: Path) -> OpenAPI:
    spec = yaml.load((shared / "specs" / "okta-management.yaml").read_text(), Loader=yaml.CSafeLoader)
    wanted = ("/api/v1/users", "/api/v1/groups/{groupId}/users", "/api/v1/logs")
    spec["paths"] = {path: item for path, item in spec["paths"].items() if path.startswith(wanted)}
    spec["servers"] = [{"url": OKTA_BASE}]
    return load(spec)


def answer(request: httpx.Request) -> httpx.Response:
    """Something that lets every method come to its end."""
    if request.url.path.startswith("/api/v1/"):
        listing = request.url.path.endswith(("/groups", "/users", "/logs"))
        return httpx.Response(200, json=[] if listing else {"id": "00u1"})
    return httpx.Response(200, json={"id": "1", "entries": [], "limit": 1000, "total_count": 0, "next_marker": None})


BODY = diff.changes(
    "box",
    Desired(
        target="box",
        active=True,
        attributes={
            "space_amount": -1,
            "phone": "1",
            "address": "x",
            "language": "en",
            "timezone": "Europe/Rome",
            "is_external_collab_restricted": True,
        },
        grants=(Grant(kind="group", name="G"),),
    ),
    None,
    Person(tenant="a", id="00u1", status=PersonStatus.ACTIVE, login="ada@corp.example", first_name="Ada", title="CEO"),
)[0].args["body"]

Tour = dict[str, list[Callable[[Any], Awaitable[Any]]]]

BOX_TOUR: Tour = {
    "me": [lambda api: api.me()],
    "user": [lambda api: api.user("1")],
    "users_beginning_with": [lambda api: api.users_beginning_with("ada+x@corp.example")],
    "create_user": [lambda api: api.create_user(BODY, "i")],
    "update_user": [
        *(
            lambda api, status=status: api.update_user("1", {"status": status}, "i")
            for status in ("active", "inactive", "cannot_delete_edit")
        ),
        lambda api: api.update_user("1", {name: value for name, value in BODY.items() if name != "login"}, "i"),
    ],
    "delete_user": [lambda api: api.delete_user("1", "i")],
    "terminate_sessions": [lambda api: api.terminate_sessions("1", "ada@corp.example", "i")],
    "transfer": [lambda api: api.transfer("1", "2", "i")],
    "groups_beginning_with": [lambda api: api.groups_beginning_with("Sales & Co")],
    "create_group": [lambda api: api.create_group("Sales & Co", "i")],
    "memberships": [lambda api: api.memberships("1")],
    "add_membership": [lambda api: api.add_membership("1", "2", "i")],
    "remove_membership": [lambda api: api.remove_membership("1", "i")],
    "root_items": [lambda api: api.root_items(), lambda api: api.root_items("1")],
    "collaborations": [lambda api: api.collaborations("1")],
    "add_collaboration": [*(lambda api, role=role: api.add_collaboration("1", "2", role, "i") for role in sorted(diff.FOLDER_ROLES))],
    "set_role": [*(lambda api, role=role: api.set_role("1", role, "i") for role in sorted(diff.FOLDER_ROLES))],
    "remove_collaboration": [lambda api: api.remove_collaboration("1", "i")],
}


async def _drain(pages: Any) -> None:
    async for _ in pages:
        pass


OKTA_TOUR: Tour = {
    "user": [lambda api: api.user("00u1")],
    "user_by_login": [lambda api: api.user_by_login("ada+x@corp.example")],
    "me": [lambda api: api.me()],
    "users": [lambda api: _drain(api.users())],
    "user_groups": [lambda api: api.user_groups("00u1")],
    "group_members": [lambda api: _drain(api.group_members("00g1"))],
    "suspend": [lambda api: api.suspend("00u1", "i")],
    "unsuspend": [lambda api: api.unsuspend("00u1", "i")],
    "clear_sessions": [lambda api: api.clear_sessions("00u1", "i")],
    "log_page": [
        lambda api: api.log_page(api.first_log_url("2026-01-05T09:00:00Z", 1000)),
        lambda api: api.log_page(api.first_log_url("2026-01-05T09:00:00Z", 1000, until="2026-01-05T10:00:00Z")),
    ],
}


def callables(api: type) -> set[str]:
    """Public methods that send something."""
    methods = inspect.getmembers(api, inspect.isfunction)
    return {name for name, one in methods if not name.startswith("_") and name != "aclose" and not name.startswith("first_")}


async def sent(clock: FakeClock, tour: Tour, make: Callable[[Wire], Any]) -> list[httpx.Request]:
    wire = Wire(*[answer] * 100)
    api = make(wire)
    for steps in tour.values():
        for step in steps:
            await step(api)
    await api.aclose()
    return wire.requests


@pytest.mark.parametrize(("tour", "api"), [(BOX_TOUR, BoxApi), (OKTA_TOUR, OktaApi)])
def test_the_tour_is_complete(tour: Tour, api: type) -> None:
    assert set(tour) == callables(api)


async def test_box_would_accept_every_request(clock: FakeClock, box_spec: OpenAPI) -> None:
    requests = await sent(clock, BOX_TOUR, lambda wire: BoxApi(client(wire, clock, dialect=BOX, base=BOX_BASE)))
    assert len(requests) == sum(len(steps) for steps in BOX_TOUR.values())
    for request in requests:
        check(box_spec, request)


async def test_okta_would_accept_every_request(clock: FakeClock, okta_spec: OpenAPI) -> None:
    requests = await sent(clock, OKTA_TOUR, lambda wire: OktaApi(client(wire, clock, base=OKTA_BASE), OKTA_BASE))
    assert len(requests) == sum(len(steps) for steps in OKTA_TOUR.values())
    for request in requests:
        check(okta_spec, request)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/users/1", {"statuss": "inactive"}),
        ("PUT", "/users/1", {"status": "suspended"}),
        ("POST", "/users", {"login": "a@b.example"}),
        ("POST", "/users", {"login": "a@b.example", "name": "A", "role": "boss"}),
        ("POST", "/users/terminate_sessions", {"user_ids": ["1"]}),
        ("POST", "/collaborations", {"item": {"type": "folder", "id": "1"}, "accessible_by": {"type": "user", "id": "2"}, "role": "owner"}),
        (
            "POST",
            "/collaborations",
            {"item": {"type": "folder", "ids": "1"}, "accessible_by": {"type": "user", "id": "2"}, "role": "editor"},
        ),
        ("GET", "/users?limit=5000", None),
        ("DELETE", "/users/1?force=maybe", None),
        ("PUT", "/userss/1", {"status": "inactive"}),
    ],
)
def test_the_check_can_fail_for_box(box_spec: OpenAPI, method: str, path: str, body: Any) -> None:
    with pytest.raises(Exception, match=r"."):
        check(box_spec, httpx.Request(method, BOX_BASE + path, json=body))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/users/00u1/lifecycle/suspended"),
        ("DELETE", "/api/v1/users/00u1/sessions?oauthTokens=7"),
        ("GET", "/api/v1/logs?limit=many"),
    ],
)
def test_the_check_can_fail_for_okta(okta_spec: OpenAPI, method: str, path: str) -> None:
    with pytest.raises(Exception, match=r"."):
        check(okta_spec, httpx.Request(method, OKTA_BASE + path))
