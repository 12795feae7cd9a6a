"""The exception tree. Two words matter to whoever catches: temporary (come back after `delay`) and permanent (park it).

PortcullisError
├── MalformedEvent            bytes that are no event: quarantine, with reason
├── TemporaryError(delay)     the same call may succeed later
│   ├── RateLimited           the vendor said when
│   ├── OutcomeUnknown        a mutating call went out and no answer came: read back before anything else
│   └── BreakerOpen           our own breaker holds the connector
├── PermanentError            the same call will never succeed as it is: park the change
│   ├── CredentialsRefused    401 or a missing scope: opens the connector's breaker
│   ├── Refused               any other 4xx that concerns its object
│   ├── Ambiguous             several matches, or none where one is needed: a case for a human
│   └── UnsafePlan            the guard said no (protected, brake, Hold, stale state)
├── Fenced                    we no longer own this partition: stop, touch nothing
├── ConfigurationError        names the place and the remedy; exit code 2
└── FaultError                a supervisor should restart us; exit code 70
"""

from __future__ import annotations


class PortcullisError(Exception):
    """Everything that Portcullis raises on purpose."""


class MalformedEvent(PortcullisError):
    """Bytes that are no event (D1). `reason` is one of `unreadable`, `not_an_object`, `no_uuid`, `no_event_type`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TemporaryError(PortcullisError):
    """Worth another try. `delay` in seconds is what the vendor asked for; None leaves it to the retry policy."""

    def __init__(self, message: str, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = delay


class RateLimited(TemporaryError):
    """429 (or a rate budget of our own that is spent)."""


class OutcomeUnknown(TemporaryError):
    """A mutating call may or may not have happened: observe before planning again."""


class BreakerOpen(TemporaryError):
    """The connector's circuit breaker is open; `delay` is the time to its next probe."""


class PermanentError(PortcullisError):
    """Never succeeds as it is. `code` is the vendor's own error code where there is one."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class CredentialsRefused(PermanentError):
    """401, or a scope is missing (D23)."""


class Refused(PermanentError):
    """A 4xx about this object."""


class Ambiguous(PermanentError):
    """Several accounts match, or none where one is needed."""


class UnsafePlan(PermanentError):
    """The guard refused the plan; `code` names the guard."""


class Fenced(PortcullisError):
    """The generation changed or the heartbeat is too old (D12): no call may be made."""


class ConfigurationError(PortcullisError):
    """Wrong use or refused input: the message names the place and the remedy (exit code 2)."""


class FaultError(PortcullisError):
    """A fault that a supervisor should answer with a restart (exit code 70)."""
