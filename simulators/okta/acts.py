"""`POST /_sim/act`: something happens in the company. The directory changes and the log is written, as if an admin had done it.

Strict, because a misspelt order that does nothing makes a test that cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from simulators.okta.events import SYSTEM, Caller
from simulators.okta.org import Org

_ATTRIBUTES = (
    "login email firstName lastName displayName department division organization title userType manager managerId "
    "employeeNumber costCenter city countryCode primaryPhone"
)
PROFILE = frozenset(_ATTRIBUTES.split())


class BadAct(ValueError):
    """The order cannot be honoured; the message says what is allowed."""


class Acts:
    """`by` is the admin in whose name things happen; risk comes from Okta itself."""

    def __init__(self, org: Org, by: Callable[[], Caller]) -> None:
        self.org, self._by = org, by
        self._known: dict[str, tuple[Callable[[Mapping[str, Any]], dict[str, Any]], frozenset[str]]] = {
            "hire": (self._hire, PROFILE | {"groups"}),
            "change": (self._change, frozenset({"id", "profile"})),
            "suspend": (self._suspend, frozenset({"id"})),
            "unsuspend": (self._unsuspend, frozenset({"id"})),
            "activate": (self._activate, frozenset({"id"})),
            "deactivate": (self._deactivate, frozenset({"id"})),
            "add_to_group": (self._add, frozenset({"id", "group"})),
            "remove_from_group": (self._remove, frozenset({"id", "group"})),
            "raise_risk": (self._risk, frozenset({"id", "level", "reason", "detection"})),
        }

    def do(self, order: Any) -> dict[str, Any]:
        """Raises BadAct, or OktaError as the API would refuse the same."""
        if not isinstance(order, dict):
            raise BadAct("an act is a JSON object")
        name = order.get("action")
        if not isinstance(name, str) or name not in self._known:
            raise BadAct(f"unknown action {name!r}: known are {', '.join(self._known)}")
        act, keys = self._known[name]
        if unknown := sorted(set(order) - keys - {"action"}):
            raise BadAct(f"unknown key {', '.join(unknown)}: {name} knows {', '.join(sorted(keys))}")
        return act(order)

    def _hire(self, order: Mapping[str, Any]) -> dict[str, Any]:
        names = order.get("groups") or []
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise BadAct("groups must be a list of names or ids")
        profile = {key: _text(order, key) for key in sorted(PROFILE & set(order)) if order[key] is not None}
        profile.setdefault("email", profile.get("login", ""))
        groups = tuple(self._group(name) for name in names)
        user = self.org.create_user(self._by(), profile, has_password=True, group_ids=groups)
        return {"id": user.id}

    def _change(self, order: Mapping[str, Any]) -> dict[str, Any]:
        profile = order.get("profile")
        if not isinstance(profile, dict) or not profile:
            raise BadAct("profile must be an object of attributes")
        if unknown := sorted(set(profile) - PROFILE):
            raise BadAct(f"unknown attribute {', '.join(unknown)}")
        self.org.update_profile(self._by(), _text(order, "id"), profile)
        return {}

    def _suspend(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self.org.suspend(self._by(), _text(order, "id"))
        return {}

    def _unsuspend(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self.org.unsuspend(self._by(), _text(order, "id"))
        return {}

    def _activate(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self.org.activate(self._by(), _text(order, "id"))
        return {}

    def _deactivate(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self.org.deactivate(self._by(), _text(order, "id"))
        return {}

    def _add(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self.org.user(_text(order, "id"))
        self.org.add_member(self._by(), self._group(_text(order, "group")), _text(order, "id"))
        return {}

    def _remove(self, order: Mapping[str, Any]) -> dict[str, Any]:
        name = _text(order, "group")
        known = self.org.directory.now.group_named(name)
        self.org.remove_member(self._by(), known.id if known else name, _text(order, "id"))
        return {}

    def _risk(self, order: Mapping[str, Any]) -> dict[str, Any]:
        level = _text(order, "level").upper()
        reason = _text(order, "reason") if "reason" in order else "Anomalous location, device and network"
        detection = _text(order, "detection") if "detection" in order else "Entity Critical Action From High Threat IP"
        self.org.raise_risk(SYSTEM, _text(order, "id"), level, reason=reason, detection=detection)
        return {}

    def _group(self, name_or_id: str) -> str:
        """The id of a group; an admin makes one where nobody has heard of that name."""
        if name_or_id in self.org.directory.now.groups:
            return name_or_id
        known = self.org.directory.now.group_named(name_or_id)
        return (known or self.org.create_group(self._by(), name_or_id)).id


def _text(order: Mapping[str, Any], key: str) -> str:
    value = order.get(key)
    if not isinstance(value, str) or not value:
        raise BadAct(f"{key} must be a text")
    return value
