"""What stands in the log besides people's lives: ordinary events, odd ones, repeats, conflicts, and elements that are no events.

Templates: `@AT@` becomes the time of the element (the same bytes whenever it is sent), `@ID:who@` the Okta id of that login.
Ordinary events come from people who never leave and hold no more than their desks, so that no rule has a reason to lock anybody.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

#: People of the quiet scenario to whom nothing happens.
STEADY = ("grace.novak", "omar.haddad", "lena.fischer")
#: Knocked without cause: what they hold is what they should hold, or nothing was ever asked for them.
KNOCKED = ("sofia.marin", "lena.fischer")
_DEPTH = 4_000


@dataclass(frozen=True, slots=True)
class Element:
    """One element of the log. `is_event` False: it must be quarantined, whole."""

    template: bytes
    at: float
    is_event: bool = True


class Noise:
    """`now` is set by whoever writes the script: seconds from its beginning."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.now = 0.0
        self._odd: tuple[Callable[[Json], Json], ...] = (
            lambda event: event | {"published": "2017-09-31T00:00:00.000Z"},
            lambda event: event | {"published": "2016-12-31T23:59:60.000Z"},
            lambda event: event | {"target": None},
            lambda event: event | {"target": [], "actor": None},
            lambda event: event | {"displayMessage": "nul \x00, esc \x1b[2J, <!channel> <http://evil.example|Approve>"},
            lambda event: event | {"severity": "APOCALYPTIC", "eventType": "zone.of.twilight"},
            lambda event: event | {"target": [{"type": "User", "id": "../../../etc"}, {"type": "AppUser", "id": "0uaX"}]},
        )

    def ordinary(self) -> Element:
        roll = self._dice.random()
        if roll < 0.04:
            return self._knock()
        if roll < 0.10:
            return self._element(self._dice.choice(self._odd)(self._event()))
        if roll < 0.12:
            return self._surrogate()
        return self._element(self._event())

    def repeat(self) -> tuple[Element, Element, Element]:
        """The same event twice, another between."""
        first = self._element(self._event())
        return first, self.ordinary(), first

    def conflict(self) -> tuple[Element, Element]:
        """One uuid with other bytes the second time: the first stays, the second is quarantined."""
        event = self._event()
        return self._element(event), Element(self._bytes(event | {"displayMessage": "somebody else's words"}), self.now, is_event=False)

    def malformed(self) -> Element:
        mark = self._dice.getrandbits(64)
        raw = self._dice.choice(
            (
                f"[{mark}]",
                f"{mark}",
                f'"{mark}"',
                json.dumps({"uuid": mark, "eventType": "user.session.start"}),
                json.dumps({"uuid": "", "eventType": "user.session.start", "mark": mark}),
                json.dumps({"eventType": "user.session.start", "mark": mark}),
                json.dumps({"uuid": f"no-type-{mark}", "eventType": None}),
                f'{{"uuid":"deep-{mark}","eventType":"user.session.start","deep":{"[" * _DEPTH}{"]" * _DEPTH}}}',
            )
        )
        return Element(raw.encode(), self.now, is_event=False)

    def _event(self) -> Json:
        who = self._dice.choice(STEADY)
        kind = self._dice.choices(("user.authentication.sso", "policy.evaluate_sign_on"), (70, 30))[0]
        return {
            "uuid": str(uuid.UUID(int=self._dice.getrandbits(128), version=4)),
            "published": "@AT@",
            "eventType": kind,
            "version": "0",
            "severity": "INFO",
            "displayMessage": "User single sign on to app" if kind.endswith("sso") else "Evaluation of sign-on policy",
            "actor": {"id": f"@ID:{who}@", "type": "User", "alternateId": f"{who}@corp.example", "displayName": who},
            "client": {
                "ipAddress": f"192.0.2.{10 + STEADY.index(who)}",
                "userAgent": {"rawUserAgent": "Mozilla/5.0"},
                "device": "Computer",
            },
            "outcome": {"result": "SUCCESS" if kind.endswith("sso") else "ALLOW"},
            "target": [{"id": "0oaWiki", "type": "AppInstance", "alternateId": "Wiki", "displayName": "Wiki"}],
            "transaction": {"id": f"t{self._dice.getrandbits(48):x}", "type": "WEB", "detail": {}},
            "debugContext": {"debugData": {"requestUri": "/app/wiki/sso/saml"}},
            "legacyEventType": None,
        }

    def _knock(self) -> Element:
        """A change that somebody's life does not show: the look finds nothing to do."""
        who = self._dice.choice(KNOCKED)
        target = {"id": f"@ID:{who}@", "type": "User", "alternateId": f"{who}@corp.example", "displayName": who}
        return self._element(self._event() | {"eventType": "user.account.update_profile", "target": [target]})

    def _surrogate(self) -> Element:
        """Half a character: JSON allows it, UTF-8 does not."""
        raw = self._bytes(self._event()).replace(b'"version": "0"', b'"version": "\\ud83d"')
        return Element(raw, self.now)

    def _element(self, event: Json) -> Element:
        return Element(self._bytes(event), self.now)

    @staticmethod
    def _bytes(event: Json) -> bytes:
        return json.dumps(event).encode()
