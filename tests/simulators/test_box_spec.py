"""What the Box simulator answers is what Box's own OpenAPI describes: a day at Box, every successful answer validated.

Left out on purpose, because Box itself differs from its description there: pending collaborations (`accessible_by` is null in real
bodies, box-windows-sdk-v2 issue 98), and error bodies (`code` knows more words than the enum; the other tests hold them to the fact sheet).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_core import Config, OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse

from tests.simulators.box_desk import Desk, open_desk


@pytest.fixture(scope="module")
def spec(shared: Path) -> OpenAPI:
    path = shared / "specs" / "box-openapi.json"
    described = nullable(json.loads(path.read_text()))
    source = described["components"]["schemas"]["EventSourceResource"]
    source["anyOf"] = source.pop("oneOf")  # GenericSource fits everything, so that exactly one never fits
    return OpenAPI.from_dict(described, config=Config(spec_validator_cls=None))


def nullable(schema: Any) -> Any:
    """`nullable` beside `allOf` means that null is allowed; read to the letter, the parts of `allOf` forbid it again."""
    if isinstance(schema, list):
        return [nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: nullable(value) for key, value in schema.items()}
    if inner.get("nullable") is True and isinstance(inner.get("allOf"), list):
        return {"nullable": True, "anyOf": [{"nullable": True, "enum": [None]}, {"allOf": inner["allOf"]}]}
    return inner


class Checked:
    """Sends, and holds request and answer against the specification."""

    def __init__(self, desk: Desk, spec: OpenAPI) -> None:
        self.desk, self.spec = desk, spec
        self.validated: set[tuple[str, str]] = set()

    async def __call__(self, method: str, path: str, body: Any = None, *, status: int = 200, **options: Any) -> Any:
        answer = await self.desk.call(method, path, body, **options)
        assert answer.status_code == status, answer.text
        self.validate(answer, body)
        return answer.json() if answer.content else None

    def validate(self, answer: httpx.Response, body: Any) -> None:
        url = answer.request.url
        data = json.dumps(body).encode() if body is not None else b""
        request = MockRequest(
            "https://api.box.com",
            answer.request.method.lower(),
            url.path,
            args=dict(url.params),
            headers={"Authorization": "Bearer x"},
            data=data,
            content_type="application/json",
        )
        response = MockResponse(answer.content, status_code=answer.status_code, content_type=answer.headers.get("content-type", ""))
        with pytest.warns(UserWarning, match="Unsupported scheme type"):
            self.spec.validate_request(request)
        if answer.content:
            self.spec.validate_response(request, response)
        self.validated.add((answer.request.method, url.path))


async def test_a_days_answers_are_as_described(spec: OpenAPI) -> None:
    async with open_desk() as desk:
        ok = Checked(desk, spec)
        department = [{"type": "tracking_code", "name": "department", "value": "Sales"}]
        full = {"fields": "role,status,enterprise,tracking_codes,space_amount,hostname,is_platform_access_only"}
        new = {"name": "Ann", "login": "ann@x.com", "space_amount": -1, "tracking_codes": department}
        ann = (await ok("POST", "/users", new, status=201))["id"]
        boss = (await ok("POST", "/users", {"name": "Boss", "login": "boss@x.com"}, status=201))["id"]
        await ok("GET", f"/users/{ann}", params=full)
        await ok("GET", "/users/me")
        await ok("GET", "/users", params={"filter_term": "ann@x.com", "user_type": "managed", "limit": 10, "offset": 0})
        await ok("GET", "/users", params={"usemarker": "true", "limit": 1, **full})
        group = (await ok("POST", "/groups", {"name": "Sales", "provenance": "Okta", "external_sync_identifier": "00g"}, status=201))["id"]
        await ok("GET", "/groups", params={"filter_term": "Sa", "fields": "name,provenance,external_sync_identifier"})
        await ok("GET", f"/groups/{group}")
        member = (await ok("POST", "/group_memberships", {"user": {"id": ann}, "group": {"id": group}}, status=201))["id"]
        await ok("PUT", f"/group_memberships/{member}", {"role": "admin"})
        await ok("GET", f"/group_memberships/{member}")
        await ok("GET", f"/users/{ann}/memberships")
        await ok("GET", f"/groups/{group}/memberships")
        folder = (await ok("POST", "/folders", {"name": "Sales", "parent": {"id": "0"}}, status=201))["id"]
        await ok("POST", "/folders", {"name": "2026", "parent": {"id": folder}}, status=201)
        await ok("GET", f"/folders/{folder}", params={"fields": "owned_by,has_collaborations,is_externally_owned"})
        await ok("GET", "/folders/0")
        await ok("GET", "/folders/0/items", params={"fields": "owned_by,name"})
        await ok("GET", f"/folders/{folder}/items", params={"usemarker": "true"})
        for who in ({"type": "user", "id": ann}, {"type": "group", "id": group}):
            body = {"item": {"type": "folder", "id": folder}, "accessible_by": who, "role": "editor"}
            grant = (await ok("POST", "/collaborations", body, status=201, params={"notify": "false"}))["id"]
            await ok("PUT", f"/collaborations/{grant}", {"role": "viewer"})
            await ok("GET", f"/collaborations/{grant}")
        await ok("GET", f"/folders/{folder}/collaborations", params={"limit": 1})
        await ok("GET", f"/groups/{group}/collaborations")
        await ok("GET", "/collaborations", params={"status": "pending"})
        desk.box.add_email_alias(ann, "a@x.com")
        await ok("GET", f"/users/{ann}/email_aliases")
        await ok("PUT", f"/users/{ann}", {"status": "inactive", "job_title": "Ex"}, params=full)
        await ok("POST", "/users/terminate_sessions", {"user_ids": [ann], "user_logins": ["ann@x.com"]}, status=202)
        await ok("PUT", f"/users/{ann}/folders/0", {"owned_by": {"id": boss}}, params={"notify": "false"})
        await ok("DELETE", f"/collaborations/{grant}", status=204)
        await ok("DELETE", f"/group_memberships/{member}", status=204)
        await ok("DELETE", f"/groups/{group}", status=204)
        await ok("DELETE", f"/users/{ann}", status=204, params={"force": "false", "notify": "false"})
        events = await ok("GET", "/events", params={"stream_type": "admin_logs_streaming", "stream_position": "0", "limit": 500})
        assert events["chunk_size"] > 10
        assert len(ok.validated) > 30


async def test_the_validation_would_find_a_wrong_answer(spec: OpenAPI) -> None:
    async with open_desk() as desk:
        ok = Checked(desk, spec)
        ann = desk.box.add_user("ann@x.com")
        desk.box.faults.add({"status": 200, "body": {"type": "user", "id": ann, "status": "suspended"}})
        with pytest.raises(OpenAPIError):
            await ok("GET", f"/users/{ann}")


async def test_a_token_is_as_described(spec: OpenAPI) -> None:
    async with open_desk() as desk:
        for answer in (await desk.sign_in(), await desk.sign_in(client_secret="wrong")):
            request = MockRequest(
                "https://api.box.com",
                "post",
                "/oauth2/token",
                data=b"grant_type=client_credentials",
                content_type="application/x-www-form-urlencoded",
            )
            spec.validate_response(request, MockResponse(answer.content, status_code=answer.status_code, content_type="application/json"))
