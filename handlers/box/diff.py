"""Pure: from what a Box account is and what policy asks, the changes between. No I/O, no order (the plan orders).

Only names that policy manages are ever revoked (`Desired.managed`), and only attributes that it sets are ever updated. The owner of
a folder is never touched: deleting an owner's collaboration is how ownership leaves a person.
"""

from __future__ import annotations

from typing import Any

from handlers.contract import Capability
from model.change import Change, ChangeKind
from model.errors import PermanentError
from model.person import Account, Desired, Grant, Person

#: Writable attributes and their longest text, or their type.
ATTRIBUTES: dict[str, int | type] = {
    "name": 50,
    "job_title": 100,
    "phone": 100,
    "address": 255,
    "language": 16,
    "timezone": 64,
    "space_amount": int,
    "is_external_collab_restricted": bool,
}
FOLDER_ROLES = frozenset({"editor", "viewer", "previewer", "uploader", "previewer uploader", "viewer uploader", "co-owner"})

#: What each capability needs of the Box app.
PERMISSIONS = {
    Capability.CREATE: "manage_managed_users",
    Capability.DEACTIVATE: "manage_managed_users",
    Capability.ACTIVATE: "manage_managed_users",
    Capability.UPDATE: "manage_managed_users",
    Capability.END_SESSIONS: "manage_managed_users",
    Capability.GROUPS: "manage_groups",
    Capability.FOLDERS: "root_readwrite",
    Capability.TRANSFER: "root_readwrite, manage_managed_users",
    Capability.DELETE: "manage_managed_users",
}


def canonical_login(person: Person) -> str:
    """The key by which a person is found: the login, which only administrators change; the e-mail only where the login is none."""
    login = person.login if "@" in person.login else person.email
    return login.strip().lower()


def checked_attributes(target: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes fit for a body. Raises PermanentError("bad_attribute") with the name and what is wrong (C51)."""
    return {name: _checked(target, name, value) for name, value in attributes.items()}


def _checked(target: str, name: str, value: Any) -> Any:
    rule = ATTRIBUTES.get(name)
    if rule is None:
        raise PermanentError(f"{target}: Box has no attribute {name!r} that policy may set", "bad_attribute")
    if rule is bool and not isinstance(value, bool):
        raise PermanentError(f"{target}: {name} must be true or false", "bad_attribute")
    if rule is int and (not isinstance(value, int) or isinstance(value, bool) or value < -1):
        raise PermanentError(f"{target}: {name} must be a whole number from -1", "bad_attribute")
    if not isinstance(rule, int):
        return value
    if not isinstance(value, str):
        raise PermanentError(f"{target}: {name} must be a text", "bad_attribute")
    return value.strip()[:rule]


def changes(target: str, desired: Desired, observed: Account | None, person: Person) -> tuple[Change, ...]:
    if desired.active is None or (observed is None and not desired.active):
        return ()
    if observed is None:
        return (_create(target, desired, person), *(_grant(target, "", grant) for grant in desired.grants))
    if not desired.active:
        return (*_close(target, observed), *_revoke(target, desired, observed), *_transfer(target, desired, observed))
    return (
        *_activate(target, observed),
        *_update(target, desired, observed),
        *_revoke(target, desired, observed),
        *_give(target, desired, observed),
    )


def _create(target: str, desired: Desired, person: Person) -> Change:
    login = canonical_login(person)
    given = {"name": person.display_name} | ({"job_title": person.title} if person.title else {}) | desired.attributes
    body = {"login": login} | checked_attributes(target, given)
    return Change(kind=ChangeKind.CREATE, target=target, subject=login, args={"body": body}, after=body | {"status": "active"})


def _close(target: str, account: Account) -> tuple[Change, ...]:
    return closing(target, account) if account.active else ()


def closing(target: str, account: Account) -> tuple[Change, ...]:
    """Suspend, then end sessions: an inactive person cannot log in again."""
    suspend = Change(
        kind=ChangeKind.DEACTIVATE,
        target=target,
        account=account.id,
        subject=account.login,
        before={"status": account.status},
        after={"status": "inactive"},
    )
    return (suspend, end_sessions(target, account))


def end_sessions(target: str, account: Account) -> Change:
    return Change(
        kind=ChangeKind.END_SESSIONS,
        target=target,
        account=account.id,
        subject="sessions",
        args={"login": account.login} if account.login else {},
    )


def activate(target: str, account: Account, status: str) -> Change:
    return Change(
        kind=ChangeKind.ACTIVATE,
        target=target,
        account=account.id,
        subject=account.login,
        args={"status": status},
        before={"status": account.status},
        after={"status": status},
    )


def _activate(target: str, account: Account) -> tuple[Change, ...]:
    return () if account.active else (activate(target, account, "active"),)


def _update(target: str, desired: Desired, account: Account) -> tuple[Change, ...]:
    wanted = checked_attributes(target, desired.attributes)
    moved = {name: value for name, value in wanted.items() if account.attributes.get(name) != value}
    if not moved:
        return ()
    before = {name: account.attributes.get(name) for name in moved}
    subject = ", ".join(sorted(moved))
    return (
        Change(
            kind=ChangeKind.UPDATE, target=target, account=account.id, subject=subject, args={"body": moved}, before=before, after=moved
        ),
    )


def _key(kind: str, name: str) -> tuple[str, str]:
    return kind, name.casefold()


def _revoke(target: str, desired: Desired, account: Account) -> tuple[Change, ...]:
    managed = {_key(*pair) for pair in desired.managed}
    wanted = {_key(grant.kind, grant.name) for grant in desired.grants}
    stale = [grant for grant in account.grants if _key(grant.kind, grant.name) in managed - wanted and grant.level != "owner"]
    return tuple(
        Change(
            kind=ChangeKind.REVOKE,
            target=target,
            account=account.id,
            subject=f"{grant.kind} {grant.name}",
            args={"kind": grant.kind, "name": grant.name, "id": grant.id, "key": grant.key},
            before={"level": grant.level, "id": grant.id},
        )
        for grant in stale
    )


def _give(target: str, desired: Desired, account: Account) -> tuple[Change, ...]:
    held = {_key(grant.kind, grant.name): grant for grant in account.grants}
    found: list[Change] = []
    for grant in desired.grants:
        have = held.get(_key(grant.kind, grant.name))
        if have is None:
            found.append(_grant(target, account.id, grant))
        elif grant.kind == "folder" and have.level not in (grant.level, "owner"):
            found.append(_relevel(target, account.id, have, grant))
    return tuple(found)


def _grant(target: str, account_id: str, grant: Grant) -> Change:
    if grant.kind not in ("group", "folder"):
        raise PermanentError(f"{target}: Box has no grants of kind {grant.kind!r}", "bad_grant")
    if grant.kind == "folder" and grant.level not in FOLDER_ROLES:
        raise PermanentError(f"{target}: {grant.level!r} is no role on a Box folder", "bad_grant")
    return Change(
        kind=ChangeKind.GRANT,
        target=target,
        account=account_id,
        subject=f"{grant.kind} {grant.name}",
        args={"kind": grant.kind, "name": grant.name, "level": grant.level},
        after={"level": grant.level},
    )


def _relevel(target: str, account_id: str, have: Grant, grant: Grant) -> Change:
    return _grant(target, account_id, grant).model_copy(
        update={
            "kind": ChangeKind.UPDATE,
            "args": {"kind": "folder", "name": grant.name, "level": grant.level, "id": have.id, "key": have.key},
            "before": {"level": have.level},
        }
    )


def _transfer(target: str, desired: Desired, account: Account) -> tuple[Change, ...]:
    """An active account was not asked whether it owns anything; the call itself looks once more."""
    if not desired.transfer_to or not (account.active or account.attributes.get("owns_content")):
        return ()
    return (
        Change(
            kind=ChangeKind.TRANSFER,
            target=target,
            account=account.id,
            subject=f"content to {desired.transfer_to}",
            args={"to": desired.transfer_to},
            after={"owner": desired.transfer_to},
        ),
    )
