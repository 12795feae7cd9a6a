"""What one can do to an Okta org: every change is checked against the present state, committed, and written to the log.

One place for the API and for the side door, so that both leave the same traces. Methods are synchronous: between the check and the
commit nothing else can happen. They raise OktaError as the API answers it. `on_change` is called right before the first commit of
an operation: that is the moment at which the call takes its place in the list of calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from simulators.okta import errors
from simulators.okta.directory import Group, Status, User
from simulators.okta.events import SYSTEM, Caller, group_entity, risk_text, user_entity
from simulators.okta.seeds import Seeds

LEVELS = ("LOW", "MEDIUM", "HIGH")
REQUIRED = ("login", "email", "firstName", "lastName")
_REASON = re.compile(r"[\w\s\-,.]{1,500}", re.ASCII)

Signal = Callable[[], None]


def nothing() -> None:
    """For changes that no API call asked for."""


class Org(Seeds):
    """Directory, log and the rules between them."""

    # -- looking up, strictly in the present ------------------------------------------------------------------------------

    def user(self, id_or_login: str) -> User:
        user = self.directory.now.find(id_or_login)
        if user is None:
            raise errors.not_found(id_or_login, "User")
        return user

    def group(self, group_id: str) -> Group:
        group = self.directory.now.groups.get(group_id)
        if group is None:
            raise errors.not_found(group_id, "UserGroup")
        return group

    # -- users ------------------------------------------------------------------------------------------------------------

    def create_user(
        self,
        by: Caller,
        profile: Mapping[str, Any],
        *,
        activate: bool = True,
        has_password: bool = False,
        group_ids: tuple[str, ...] = (),
        signal: Signal = nothing,
    ) -> User:
        """ACTIVE with a password, PROVISIONED without one, STAGED where `activate` is false."""
        self._check_profile(profile, None)
        groups = [self._own_group(group_id) for group_id in group_ids]
        now = self.clock()
        status: Status = ("ACTIVE" if has_password else "PROVISIONED") if activate else "STAGED"
        user = User(
            id=self.new_id("00u", str(profile["login"])),
            status=status,
            profile=dict(profile),
            created=now,
            activated=now if activate else None,
            status_changed=now if activate else None,
            last_updated=now,
            password_changed=now if has_password else None,
        )
        signal()
        self.directory.commit(lambda view: view.put_user(user))
        self.directory.commit(lambda view: view.join(self.everyone.id, user.id, now))
        transaction = self.writer.transaction()
        self.writer.write("user.lifecycle.create", by, user_entity(user), transaction=transaction)
        if activate:
            self.writer.write("user.lifecycle.activate", by, user_entity(user), transaction=transaction)
        for group in groups:
            self._join(by, group, user, transaction)
        return user

    def update_profile(self, by: Caller, user_id: str, changes: Mapping[str, Any], *, signal: Signal = nothing) -> User:
        """Partial: null takes an attribute away. Without a difference nothing is written."""
        user = self.user(user_id)
        if user.status == "DEPROVISIONED":
            raise errors.wrong_status()
        merged = {**user.profile, **changes}
        profile = {name: value for name, value in merged.items() if value is not None or name not in changes}
        self._check_profile(profile, user)
        changed = sorted(name for name in changes if user.profile.get(name) != changes[name])
        if not changed:
            return user
        signal()
        user = self._put(user, profile=profile)
        self.writer.write("user.account.update_profile", by, user_entity(user), debug={"changedAttributes": ", ".join(changed)})
        return user

    def suspend(self, by: Caller, user_id: str, *, signal: Signal = nothing) -> None:
        user = self.user(user_id)
        if user.status != "ACTIVE":
            raise errors.invalid("suspendUser", "Cannot suspend a user that is not active")
        signal()
        self._move(by, user, "SUSPENDED", "user.lifecycle.suspend")

    def unsuspend(self, by: Caller, user_id: str, *, signal: Signal = nothing) -> None:
        user = self.user(user_id)
        if user.status != "SUSPENDED":
            raise errors.invalid("unsuspendUser", "Cannot unsuspend a user that is not suspended")
        signal()
        self._move(by, user, "ACTIVE", "user.lifecycle.unsuspend")

    def activate(self, by: Caller, user_id: str, *, signal: Signal = nothing) -> None:
        user = self.user(user_id)
        if user.status not in ("STAGED", "DEPROVISIONED"):
            raise errors.OktaError(403, "E0000016", "Activation failed because the user is already active")
        signal()
        status: Status = "ACTIVE" if user.password_changed is not None else "PROVISIONED"
        self._move(by, user, status, "user.lifecycle.activate", activated=self.clock())

    def reactivate(self, by: Caller, user_id: str, *, signal: Signal = nothing) -> None:
        user = self.user(user_id)
        if user.status not in ("PROVISIONED", "RECOVERY"):
            raise errors.wrong_status()
        signal()
        self._move(by, user, "PROVISIONED", "user.lifecycle.reactivate")

    def deactivate(self, by: Caller, user_id: str, *, signal: Signal = nothing) -> None:
        """Ends the person's sessions and tokens too. Memberships stay, as the people of a deactivated account do in Okta's groups."""
        user = self.user(user_id)
        if user.status == "DEPROVISIONED":
            raise errors.wrong_status()
        signal()
        transaction = self.writer.transaction()
        self._move(by, user, "DEPROVISIONED", "user.lifecycle.deactivate", transaction=transaction)
        self._end_sessions(by, user, transaction)
        self.directory.commit(lambda view: view.put_tokens(user.id, ()))

    def unlock(self, by: Caller, user_id: str, *, signal: Signal = nothing) -> None:
        user = self.user(user_id)
        if user.status != "LOCKED_OUT":
            raise errors.OktaError(403, "E0000032", "Unlock is not allowed for this user.")
        signal()
        self._move(by, user, "ACTIVE", "user.account.unlock_by_admin")

    def expire_password(self, by: Caller, user_id: str, *, signal: Signal = nothing) -> User:
        user = self.user(user_id)
        if user.status not in ("ACTIVE", "PASSWORD_EXPIRED", "LOCKED_OUT", "RECOVERY"):
            raise errors.wrong_status()
        signal()
        return self._move(by, user, "PASSWORD_EXPIRED", "user.account.expire_password")

    def delete(self, by: Caller, user_id: str, *, signal: Signal = nothing) -> None:
        """The first call deactivates, the second deletes for good."""
        user = self.user(user_id)
        if user.status != "DEPROVISIONED":
            self.deactivate(by, user_id, signal=signal)
            return
        signal()
        transaction = self.writer.transaction()
        self.writer.write("user.lifecycle.delete.initiated", by, user_entity(user), transaction=transaction)
        self.directory.commit(lambda view: view.drop_user(user.id))
        gone = replace(user, profile={**user.profile, "login": f"{user.id}@deleted.invalid"})
        self.writer.write("user.account.update_profile", by, user_entity(gone), debug={"changedAttributes": "login"})
        self.writer.write("user.lifecycle.delete.completed", SYSTEM, user_entity(gone), transaction=transaction, system=True)

    # -- sessions, risk -----------------------------------------------------------------------------------------------------

    def end_sessions(self, by: Caller, user_id: str, *, oauth_tokens: bool = False, signal: Signal = nothing) -> None:
        """Always succeeds for a user who exists; `signal` only where there was something to end."""
        user = self.user(user_id)
        now = self.directory.now
        if now.sessions.get(user.id) or (oauth_tokens and now.tokens.get(user.id)):
            signal()
        transaction = self.writer.transaction()
        self.writer.write("user.session.clear", by, user_entity(user), transaction=transaction)
        self._end_sessions(by, user, transaction)
        if oauth_tokens and now.tokens.get(user.id):
            self.directory.commit(lambda view: view.put_tokens(user.id, ()))
            self.writer.write("app.oauth2.token.revoke.implicit.user", by, user_entity(user), transaction=transaction)

    def raise_risk(
        self,
        by: Caller,
        user_id: str,
        level: str,
        *,
        reason: str = "override.by.admin",
        detection: str = "Admin Reported User Risk",
        signal: Signal = nothing,
    ) -> bool:
        """True where the person had no risk before (PUT answers 201 then)."""
        user = self.user(user_id)
        if level not in LEVELS:
            raise errors.invalid("riskLevel", "riskLevel: must be HIGH, MEDIUM or LOW")
        if not _REASON.fullmatch(reason):
            raise errors.invalid("riskReason", "riskReason: letters, digits, white space, hyphens, commas and periods, 500 at most")
        before = self.directory.now.risks.get(user.id)
        signal()
        self.directory.commit(lambda view: view.put_risk(user.id, level, reason))
        previous = before[0] if before else "LOW"
        self.writer.write(
            "user.risk.detect", by, user_entity(user), debug={"risk": risk_text(previous, level, detection, reason)}, system=by is SYSTEM
        )
        return before is None

    # -- groups -------------------------------------------------------------------------------------------------------------

    def create_group(self, by: Caller, name: str, *, signal: Signal = nothing) -> Group:
        if self.directory.now.group_named(name) is not None:
            raise errors.invalid("name", "name: An object with this field already exists in the current organization")
        now = self.clock()
        group = Group(self.new_id("00g", name), name, "OKTA_GROUP", now, now, now)
        signal()
        self.directory.commit(lambda view: view.put_group(group))
        self.writer.write("group.lifecycle.create", by, group_entity(group))
        return group

    def add_member(self, by: Caller, group_id: str, user_id: str, *, signal: Signal = nothing) -> None:
        """A member already: nothing changes, nothing is written, and it is a success."""
        group, user = self._own_group(group_id), self.user(user_id)
        if user.id in self.directory.now.members[group.id]:
            return
        signal()
        self._join(by, group, user, None)

    def remove_member(self, by: Caller, group_id: str, user_id: str, *, signal: Signal = nothing) -> None:
        group, user = self._own_group(group_id), self.user(user_id)
        if user.id not in self.directory.now.members[group.id]:
            return
        signal()
        now = self.clock()
        self.directory.commit(lambda view: view.part(group.id, user.id, now))
        self.writer.write("group.user_membership.remove", by, user_entity(user), group_entity(group))

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _own_group(self, group_id: str) -> Group:
        group = self.group(group_id)
        if group.type != "OKTA_GROUP":
            raise errors.OktaError(501, "E0000060", "Unsupported operation.")
        return group

    def _join(self, by: Caller, group: Group, user: User, transaction: str | None) -> None:
        now = self.clock()
        self.directory.commit(lambda view: view.join(group.id, user.id, now))
        self.writer.write("group.user_membership.add", by, user_entity(user), group_entity(group), transaction=transaction)

    def _end_sessions(self, by: Caller, user: User, transaction: str) -> None:
        ended = self.directory.now.sessions.get(user.id, ())
        if not ended:
            return
        self.directory.commit(lambda view: view.put_sessions(user.id, ()))
        for session in ended:
            self.writer.write(
                "user.session.end", by, user_entity(user), transaction=transaction, debug={"endedSessionId": session}, system=by is SYSTEM
            )

    def _move(
        self, by: Caller, user: User, status: Status, event: str, *, activated: float | None = None, transaction: str | None = None
    ) -> User:
        user = self._put(user, status=status, activated=activated if activated is not None else user.activated)
        self.writer.write(event, by, user_entity(user), transaction=transaction)
        return user

    def _put(self, user: User, **fields: Any) -> User:
        now = self.clock()
        if fields.get("status", user.status) != user.status:
            fields["status_changed"] = now
        changed = replace(user, **fields, last_updated=now, version=user.version + 1)
        self.directory.commit(lambda view: view.put_user(changed))
        return changed

    def _check_profile(self, profile: Mapping[str, Any], user: User | None) -> None:
        missing = [name for name in REQUIRED if not isinstance(profile.get(name), str) or not profile[name]]
        if missing:
            raise errors.invalid(missing[0], *(f"{name}: The field cannot be left blank" for name in missing))
        login = str(profile["login"])
        if not 5 <= len(login) <= 100 or "@" not in login[1:-1]:
            raise errors.invalid("login", "login: Username must be in the form of an email address")
        known = self.directory.now.find(login)
        if known is not None and (user is None or known.id != user.id) and known.login.lower() == login.lower():
            raise errors.invalid("login", "login: An object with this field already exists in the current organization")
