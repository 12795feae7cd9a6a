"""Okta's error answers: `errorCode`, `errorSummary`, `errorLink` (the code again), `errorId`, `errorCauses`.

Only the code is stable in Okta's own words; the texts here are those of its published list of codes. A handler raises `OktaError`,
one place turns it into an answer.
"""

from __future__ import annotations

import secrets

from aiohttp import web

from simulators.base import json_response


class OktaError(Exception):
    """An answer other than 2xx. `causes` become `errorCauses`."""

    def __init__(self, status: int, code: str, summary: str, *causes: str) -> None:
        super().__init__(f"{status} {code} {summary}")
        self.status, self.code, self.summary, self.causes = status, code, summary, causes

    def response(self) -> web.Response:
        body = {
            "errorCode": self.code,
            "errorSummary": self.summary,
            "errorLink": self.code,
            "errorId": "oae" + secrets.token_urlsafe(16),
            "errorCauses": [{"errorSummary": cause} for cause in self.causes],
        }
        return json_response(body, self.status)


def invalid(field: str, *causes: str) -> OktaError:
    return OktaError(400, "E0000001", f"Api validation failed: {field}", *causes)


def bad_search(why: str) -> OktaError:
    return OktaError(400, "E0000031", f"Invalid search criteria. {why}".strip())


def bad_log_filter(why: str) -> OktaError:
    return OktaError(400, "E0000053", f"Invalid parameter: {why}")


def not_found(what: str, kind: str) -> OktaError:
    return OktaError(404, "E0000007", f"Not found: Resource not found: {what} ({kind})")


def wrong_status() -> OktaError:
    return OktaError(403, "E0000038", "This operation is not allowed in the user's current status.")


def ill_formed() -> OktaError:
    return OktaError(400, "E0000003", "The request body was not well-formed.")


def invalid_token() -> OktaError:
    return OktaError(401, "E0000011", "Invalid token provided")


def forbidden() -> OktaError:
    return OktaError(403, "E0000006", "You do not have permission to perform the requested action")


def too_many() -> OktaError:
    return OktaError(429, "E0000047", "API call exceeded rate limit due to too many requests.")


#: What stands for a bare HTTP status: a path or a method that does not exist, a fault that was ordered.
_BY_STATUS = {
    400: ("E0000001", "Api validation failed"),
    401: ("E0000011", "Invalid token provided"),
    403: ("E0000006", "You do not have permission to perform the requested action"),
    404: ("E0000007", "Not found"),
    405: ("E0000022", "The endpoint does not support the provided HTTP method"),
    409: ("E0000195", "The request could not be completed due to a conflict with the current state of the resource."),
    412: ("E0000231", "The ETag in the request does not match the current version of the resource."),
    413: ("E0000003", "The request body was not well-formed."),
    429: ("E0000047", "API call exceeded rate limit due to too many requests."),
    503: ("E0000181", "The service is temporarily unavailable."),
}


def for_status(status: int) -> OktaError:
    code, summary = _BY_STATUS.get(status, ("E0000009", "Internal Server Error"))
    return OktaError(status, code, summary)
