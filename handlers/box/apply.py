"""Carries out one change at Box. "Already so" is success; nothing that Box cannot undo is repeated without a look.

What Box answers in several ways for one fact is settled here by reading back: 409 and 400 for somebody who is there already, 404 for
something that is gone, a taken login that is ours or somebody else's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from handlers.answers import Answer
from handlers.box.api import BoxApi
from handlers.box.names import Folders, Groups
from handlers.contract import Applied, Lane
from model.change import Change, ChangeKind
from model.errors import Ambiguous, OutcomeUnknown, PermanentError, Refused, TemporaryError

#: A transfer whose end nobody saw may still run at Box; it is looked at again no sooner.
_TRANSFER_AGAIN_S = 900.0


class BoxCalls:
    def __init__(self, target: str, apis: Mapping[Lane, BoxApi], folders: Folders, groups: Groups) -> None:
        self._target, self._apis, self._folders, self._groups = target, apis, folders, groups
        self._verbs: dict[ChangeKind, Callable[[BoxApi, Change, str, Lane], Awaitable[Applied]]] = {
            ChangeKind.CREATE: self._create,
            ChangeKind.DEACTIVATE: self._deactivate,
            ChangeKind.ACTIVATE: self._activate,
            ChangeKind.UPDATE: self._update,
            ChangeKind.END_SESSIONS: self._end_sessions,
            ChangeKind.GRANT: self._grant,
            ChangeKind.REVOKE: self._revoke,
            ChangeKind.TRANSFER: self._transfer,
            ChangeKind.DELETE: self._delete,
        }

    async def apply(self, change: Change, intent: str, lane: Lane) -> Applied:
        verb = self._verbs.get(change.kind)
        if verb is None:
            raise PermanentError(f"{self._target}: Box is no target for {change.kind.value}", "not_supported")
        if change.kind is not ChangeKind.CREATE and not change.account:
            raise PermanentError(f"{self._target}: {change.label} names no account", "no_account")
        return await verb(self._apis[lane], change, intent, lane)

    # -- accounts -----------------------------------------------------------------------------------------------------

    async def _create(self, api: BoxApi, change: Change, intent: str, lane: Lane) -> Applied:
        body = change.args["body"]
        try:
            answer = await api.create_user(body, intent)
        except Refused as error:
            if error.code != "user_login_already_used":
                raise
            return await self._taken(api, str(body["login"]), adopt=bool(change.args.get("adopt")))
        return _applied(answer, _new_id(answer), {"status": "active"})

    async def _taken(self, api: BoxApi, login: str, *, adopt: bool) -> Applied:
        ours = await find_exact(api, login)
        if not ours:
            raise Ambiguous(
                f"{self._target}: the login {login} belongs to another enterprise or to a personal account: its owner must release it",
                "login_taken_elsewhere",
            )
        if not adopt or len(ours) > 1:
            raise Ambiguous(f"{self._target}: an account {login} is there already and is not linked: portcullis link", "account_exists")
        return Applied(account=str(ours[0]["id"]), already=True, after={"status": ours[0].get("status")})

    async def _deactivate(self, api: BoxApi, change: Change, intent: str, lane: Lane) -> Applied:
        done = await self._gone_is_success(change, api.update_user(change.account, {"status": "inactive"}, intent), {"status": "inactive"})
        return replace(done, already=done.already or change.before.get("status") == "inactive")

    async def _activate(self, api: BoxApi, change: Change, intent: str, lane: Lane) -> Applied:
        status = change.args.get("status", "active")
        return _applied(await api.update_user(change.account, {"status": status}, intent), change.account, {"status": status})

    async def _end_sessions(self, api: BoxApi, change: Change, intent: str, lane: Lane) -> Applied:
        """Box wants id *and* login and says 404 where either is unknown: a login that is missing or stale is read first."""
        known = str(change.args.get("login", ""))
        try:
            login = known or await self._login_of(api, change.account)
            return _applied(await api.terminate_sessions(change.account, login, intent), change.account, {})
        except Refused as error:
            if error.code != "not_found":
                raise
        try:
            login = await self._login_of(api, change.account)
        except Refused as error:
            if error.code != "not_found":
                raise
            return Applied(account=change.account, already=True, after={"status": "absent"})
        return _applied(await api.terminate_sessions(change.account, login, intent), change.account, {})

    async def _login_of(self, api: BoxApi, user_id: str) -> str:
        return str((await api.user(user_id)).object().get("login", ""))

    async def _delete(self, api: BoxApi, change: Change, intent: str, lane: Lane) -> Applied:
        return await self._gone_is_success(change, api.delete_user(change.account, intent), {})

    async def _update(self, api: BoxApi, change: Change, intent: str, lane: Lane) -> Applied:
        if change.args.get("kind") == "folder":
            role = change.args["level"]
            answer = await self._still_there(api.set_role(change.args["key"], role, intent), change)
            return _applied(answer, change.account, {"level": role})
        return _applied(await api.update_user(change.account, change.args["body"], intent), change.account, change.args["body"])

    async def _gone_is_success(self, change: Change, call: Awaitable[Answer], after: dict[str, Any]) -> Applied:
        try:
            return _applied(await call, change.account, after)
        except Refused as error:
            if error.code == "not_found":
                return Applied(account=change.account, already=True, after={"status": "absent"})
            raise

    async def _still_there(self, call: Awaitable[Answer], change: Change) -> Answer:
        """What the plan saw is gone: a plan from a new look knows better than this one."""
        try:
            return await call
        except Refused as error:
            if error.code == "not_found":
                name = str(change.args["name"])
                self._folders.forget()
                self._groups.forget(name)
                if name.startswith("id:"):
                    raise Ambiguous(f"{self._target}: no folder {name}, or no right to see it", "folder_missing") from None
                raise TemporaryError(f"{self._target}: {change.label}: gone since it was looked at ({error})") from None
            raise

    # -- grants -------------------------------------------------------------------------------------------------------

    async def _grant(self, api: BoxApi, change: Change, intent: str, lane: Lane) -> Applied:
        give = self._join_group if change.args["kind"] == "group" else self._share_folder
        return await give(api, change, intent, lane)

    async def _join_group(self, api: BoxApi, change: Change, intent: str, lane: Lane) -> Applied:
        group_id = await self._groups.one(change.args["name"], intent, lane)
        try:
            answer = await self._still_there(api.add_membership(change.account, group_id, intent), change)
        except Refused as error:
            held = await self._membership(api, change.account, group_id) if error.code == "conflict" else None
            if held is None:
                raise
            return Applied(account=change.account, already=True, after={"key": held})
        return _applied(answer, change.account, {"key": _new_id(answer)})

    async def _share_folder(self, api: BoxApi, change: Change, intent: str, lane: Lane) -> Applied:
        role = change.args["level"]
        folder_id = await self._folders.one(change.args["name"], lane)
        try:
            answer = await self._still_there(api.add_collaboration(folder_id, change.account, role, intent), change)
        except Refused as error:
            held = await self._collaboration(api, change.account, folder_id) if error.code == "user_already_collaborator" else None
            if held is None:
                raise
            key, level = held
            if level in (role, "owner"):
                return Applied(account=change.account, already=True, after={"key": key, "level": level})
            return _applied(await api.set_role(key, role, intent), change.account, {"key": key, "level": role})
        return _applied(answer, change.account, {"key": _new_id(answer), "level": role})

    async def _revoke(self, api: BoxApi, change: Change, intent: str, lane: Lane) -> Applied:
        key = change.args.get("key", "")
        remove = api.remove_membership if change.args["kind"] == "group" else api.remove_collaboration
        return await self._gone_is_success(change, remove(key, intent), {})

    async def _membership(self, api: BoxApi, user_id: str, group_id: str) -> str | None:
        held = (one for one in await api.memberships(user_id) if _ref(one.get("group")) == group_id)
        return next((str(one["id"]) for one in held), None)

    async def _collaboration(self, api: BoxApi, user_id: str, folder_id: str) -> tuple[str, str] | None:
        held = (one for one in await api.collaborations(folder_id) if _ref(one.get("accessible_by")) == user_id)
        return next(((str(one["id"]), str(one.get("role", ""))) for one in held), None)

    # -- content ------------------------------------------------------------------------------------------------------

    async def _transfer(self, api: BoxApi, change: Change, intent: str, lane: Lane) -> Applied:
        """One way and minutes long: looked at before, and after an answer that nobody saw."""
        heir = await self._heir(api, str(change.args["to"]), change.account)
        if not await self._owns(api, change.account):
            return Applied(account=change.account, already=True, after={"owner": heir})
        try:
            answer = await api.transfer(change.account, heir, intent)
        except OutcomeUnknown as error:
            if await self._owns(api, change.account):
                raise OutcomeUnknown(str(error), delay=_TRANSFER_AGAIN_S) from None
            return Applied(account=change.account, after={"owner": heir})
        return _applied(answer, change.account, {"owner": heir, "folder": answer.object().get("id")})

    @staticmethod
    async def _owns(api: BoxApi, user_id: str) -> bool:
        return await owns_content(api, (await api.user(user_id)).object())

    async def _heir(self, api: BoxApi, to: str, source: str) -> str:
        """Who takes over: a Box id or an exact login, active, somebody else. Raises Ambiguous("no_heir")."""
        found = [(await api.user(to)).object()] if to.isdigit() else await find_exact(api, to.lower()) if "@" in to else []
        if len(found) != 1 or found[0].get("status") == "inactive" or found[0].get("id") == source:
            raise Ambiguous(f"{self._target}: nobody active at Box can take over the content: {to}", "no_heir")
        return str(found[0]["id"])


async def find_exact(api: BoxApi, login: str) -> list[dict[str, Any]]:
    """Accounts whose login is `login`, case apart: the search goes by prefix of login *and* name."""
    exact = [user for user in await api.users_beginning_with(login) if str(user.get("login", "")).lower() == login.lower()]
    if not all(isinstance(user.get("id"), str) for user in exact):
        raise TemporaryError("Box listed an account without an id")
    return exact


async def owns_content(api: BoxApi, user: Mapping[str, Any]) -> bool:
    """True while something in the person's root is theirs. Where Box lets nobody look for them (As-User of an inactive person may be
    refused), their used space says it."""
    try:
        items = await api.root_items(as_user=str(user["id"]))
    except Refused:
        used = user.get("space_used")
        return isinstance(used, int) and used > 0
    return any(_ref(item.get("owned_by")) == user["id"] for item in items)


def _applied(answer: Answer, account: str, after: dict[str, Any]) -> Applied:
    return Applied(account=account, after=after, request_id=answer.request_id)


def _new_id(answer: Answer) -> str:
    """The id of what a call made. Without one nobody knows whether it was made: OutcomeUnknown."""
    found = answer.object().get("id")
    if not isinstance(found, str) or not found.isdigit():
        raise answer.unsettled("answered without the id of what it made")
    return found


def _ref(value: object) -> str:
    return str(value.get("id", "")) if isinstance(value, dict) else ""
