"""Box's memory: its objects, the indexes by which they are found, who may reach which folder, and the admin events.

Everything that changes state goes through here, whether a request or a scenario asks for it; requests are judged before, in the
rooms beside this one. `add_*` are for scenarios and tests: they check nothing but that what they name exists.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from typing import Any

from simulators.box.things import ROLES, Collaboration, Folder, Group, Json, Membership, Role, User, stamp

#: From strong to weak, for "the strongest counts".
STRENGTH = {
    "owner": 9,
    "co-owner": 8,
    "editor": 7,
    "viewer uploader": 6,
    "previewer uploader": 5,
    "viewer": 4,
    "uploader": 3,
    "previewer": 2,
}
_EVENTS_KEPT = 200_000


class Prefixes:
    """Finds users by the beginning of a login or a name without reading all of them."""

    def __init__(self) -> None:
        self._words: list[tuple[str, str, User]] = []

    def add(self, user: User, *words: str) -> None:
        for word in words:
            insort(self._words, (word.lower(), user.id, user), key=_key)

    def remove(self, user: User, *words: str) -> None:
        for word in words:
            del self._words[bisect_left(self._words, (word.lower(), user.id), key=_key)]

    def find(self, prefix: str) -> Iterable[User]:
        low = prefix.lower()
        found = islice(self._words, bisect_left(self._words, (low, ""), key=_key), None)
        return {user.id: user for word, _, user in takewhile(lambda entry: entry[0].startswith(low), found)}.values()


def _key(entry: tuple[str, str, User]) -> tuple[str, str]:
    return entry[0], entry[1]


class Store:
    """`enterprise` is the enterprise's id. The service account is a user like any other, with a co-admin's rights."""

    def __init__(self, clock: Callable[[], float], enterprise: str) -> None:
        self.clock, self.enterprise = clock, enterprise
        self.users: dict[str, User] = {}
        self.groups: dict[str, Group] = {}
        self.memberships: dict[str, Membership] = {}
        self.folders: dict[str, Folder] = {}
        self.collaborations: dict[str, Collaboration] = {}
        self.transfers: list[Json] = []
        #: (position, event), oldest first.
        self.events: deque[tuple[int, Json]] = deque(maxlen=_EVENTS_KEPT)
        #: Addresses that belong to other enterprises and that no lookup shows.
        self.foreign_logins: set[str] = set()
        self._by_login: dict[str, User] = {}
        self._words = Prefixes()
        self._dated: dict[str, Collaboration] = {}
        self._of_user: dict[str, dict[str, Membership]] = {}
        self._of_group: dict[str, dict[str, Membership]] = {}
        self._on_folder: dict[str, dict[str, Collaboration]] = {}
        self._to_grantee: dict[str, dict[str, Collaboration]] = {}
        self._inside: dict[str, dict[str, Folder]] = {}
        firsts = {"user": 3_000_000_001, "group": 20_000_001, "membership": 500_000_001, "folder": 70_000_000_001}
        firsts |= {"collaboration": 9_000_001, "alias": 1_001}
        self._ids = {kind: itertools.count(first) for kind, first in firsts.items()}
        self._positions = itertools.count(1)
        now, login = clock(), f"AutomationUser_{enterprise}@boxdevedition.com"
        self.service = self._keep_user(User(self.new_id("user"), login, "Portcullis", "coadmin", "active", now, now))

    def new_id(self, kind: str) -> str:
        return str(next(self._ids[kind]))

    # -- events -------------------------------------------------------------------------------------------------------

    def record(self, event_type: str, by: User, source: Json, **more: Any) -> None:
        position = next(self._positions)
        event = {"type": "event", "event_id": f"e{position:039d}", "event_type": event_type, "created_at": stamp(self.clock())}
        event |= {"created_by": by.mini(), "source": source} | more
        self.events.append((position, event))

    # -- users --------------------------------------------------------------------------------------------------------

    def add_user(
        self,
        login: str,
        name: str = "",
        *,
        role: Role = "user",
        status: str = "active",
        external: bool = False,
        confirmed: bool = True,
        by: User | None = None,
        **values: Any,
    ) -> User:
        assert login.lower() not in self._by_login, f"{login} is taken"
        now = self.clock()
        user = User(self.new_id("user"), login, name or login, role, status, now, now, external, confirmed, values=values)
        user.platform_only = bool(values.get("is_platform_access_only"))
        user.live = 0 if external or status == "inactive" else 1
        self._keep_user(user)
        self.record("NEW_USER", by or self.service, user.mini())
        return user

    def _keep_user(self, user: User) -> User:
        self.users[user.id] = user
        self._by_login[user.login.lower()] = user
        self._words.add(user, user.login, user.name)
        return user

    def users_with_prefix(self, prefix: str) -> list[User]:
        """Whose login or name begins with `prefix`, case not counting, in order of id."""
        return sorted(self._words.find(prefix), key=lambda user: int(user.id))

    def find_user(self, login: str) -> User | None:
        return self._by_login.get(login.lower())

    def login_taken(self, login: str) -> bool:
        return login.lower() in self._by_login or login.lower() in self.foreign_logins

    def update_user(self, user: User, values: Json, by: User | None = None) -> bool:
        """Sets what differs; says whether anything did. Who becomes able to log in again does so."""
        values = dict(values)
        before = (user.name, user.login, user.role, user.status, dict(user.values))
        was_out = user.status == "inactive"
        self._words.remove(user, user.login, user.name)
        del self._by_login[user.login.lower()]
        for key in ("name", "login", "role", "status"):
            if key in values:
                setattr(user, key, values.pop(key))
        user.values |= values
        self._keep_user(user)
        if was_out and user.status != "inactive":
            user.live = 1
        changed = before != (user.name, user.login, user.role, user.status, user.values)
        if changed:
            user.modified = self.clock()
            self.record("EDIT_USER", by or self.service, user.mini())
        return changed

    def roll_out(self, user: User, by: User) -> None:
        """Out of the enterprise into a personal account: gone from here for good."""
        for membership in list(self.memberships_of(user)):
            self.remove_membership(membership, by)
        user.external, user.live = True, 0
        self.record("EDIT_USER", by, user.mini())

    def delete_user(self, user: User, by: User) -> None:
        for membership in list(self.memberships_of(user)):
            self.remove_membership(membership, by)
        for collaboration in list(self.collaborations_of(user)):
            self.remove_collaboration(collaboration, by)
        for folder in [folder for folder in self.folders.values() if folder.owner is user and folder.parent is None]:
            self._drop_folder(folder, by)
        del self.users[user.id], self._by_login[user.login.lower()]
        self._words.remove(user, user.login, user.name)
        self.record("DELETE_USER", by, user.mini())

    def end_sessions(self, user: User, by: User) -> None:
        user.live, user.ended, user.ended_at = 0, user.ended + 1, self.clock()
        self.record("REMOVE_LOGIN_ACTIVITY_DEVICE", by, user.mini())

    # -- groups -------------------------------------------------------------------------------------------------------

    def add_group(self, name: str, *, members: Iterable[User] = (), by: User | None = None, **values: Any) -> Group:
        now = self.clock()
        group = Group(self.new_id("group"), name, now, now, values)
        self.groups[group.id] = group
        self.record("GROUP_CREATION", by or self.service, {"group_id": group.id, "group_name": name})
        for user in members:
            self.add_membership(user, group)
        return group

    def find_group(self, name: str) -> Group | None:
        return next((group for group in self.groups.values() if group.name.lower() == name.lower()), None)

    def delete_group(self, group: Group, by: User) -> None:
        for membership in list(self._of_group.get(group.id, {}).values()):
            self.remove_membership(membership, by)
        for collaboration in list(self.collaborations_of(group)):
            self.remove_collaboration(collaboration, by)
        del self.groups[group.id]
        self.record("GROUP_DELETION", by, {"group_id": group.id, "group_name": group.name})

    def add_membership(self, user: User, group: Group, role: str = "member", by: User | None = None) -> Membership:
        now = self.clock()
        membership = Membership(self.new_id("membership"), user, group, role, now, now)
        self.memberships[membership.id] = membership
        self._of_user.setdefault(user.id, {})[membership.id] = membership
        self._of_group.setdefault(group.id, {})[membership.id] = membership
        self.record("GROUP_ADD_USER", by or self.service, _of_membership(membership))
        return membership

    def remove_membership(self, membership: Membership, by: User | None = None) -> None:
        del self.memberships[membership.id]
        del self._of_user[membership.user.id][membership.id]
        del self._of_group[membership.group.id][membership.id]
        self.record("GROUP_REMOVE_USER", by or self.service, _of_membership(membership))

    def memberships_of(self, owner: User | Group) -> Iterator[Membership]:
        index = self._of_user if isinstance(owner, User) else self._of_group
        return iter(index.get(owner.id, {}).values())

    # -- folders ------------------------------------------------------------------------------------------------------

    def add_folder(self, name: str, *, owner: User | None = None, parent: Folder | None = None, by: User | None = None) -> Folder:
        """Within `parent` the owner is the parent's; in a root `owner` (the service account where none is given)."""
        now = self.clock()
        owner = parent.owner if parent else owner or self.service
        folder = Folder(self.new_id("folder"), name, owner, by or owner, parent, now, now)
        self.folders[folder.id] = folder
        if parent:
            self._inside.setdefault(parent.id, {})[folder.id] = folder
        return folder

    def inside(self, parent: Folder) -> list[Folder]:
        return list(self._inside.get(parent.id, {}).values())

    def root_of(self, user: User) -> list[Folder]:
        """What stands in somebody's root: what they own there, and what others share with them directly or by a group."""
        own = [folder for folder in self.folders.values() if folder.owner is user and folder.parent is None]
        grants = itertools.chain(self.collaborations_of(user), *(self.collaborations_of(m.group) for m in self.memberships_of(user)))
        shared = {grant.folder.id: grant.folder for grant in grants if grant.status == "accepted" and self.access(user, grant.folder)}
        return own + [folder for folder in shared.values() if not any(above.id in shared for above in folder.line()[1:])]

    def shown(self, user: User) -> Json:
        """A user as Box shows it: what they own is counted in `space_used` (a mebibyte a folder here, nothing for an empty root)."""
        owned = sum(folder.owner is user for folder in self.folders.values())
        return user.full(self.enterprise) | {"space_used": owned << 20}

    def owns_content(self, user: User) -> bool:
        return any(folder.owner is user for folder in self.folders.values())

    def access(self, user: User, folder: Folder) -> str | None:
        """The strongest role that `user` has on `folder`: own, direct, by group, inherited. None: Box says 404.
        An inactive owner's folders are gone for everybody else, and so are folders that are being transferred."""
        if any(above.moving for above in folder.line()) or (folder.owner is not user and folder.owner.status == "inactive"):
            return None
        if folder.owner is user:
            return "owner"
        mine = {user.id} | {membership.group.id for membership in self.memberships_of(user)}
        found = [
            grant.role
            for above in folder.line()
            for grant in self._on_folder.get(above.id, {}).values()
            if grant.status == "accepted" and grant.grantee is not None and grant.grantee.id in mine
        ]
        return max(found, key=STRENGTH.__getitem__, default=None)

    def give_folder(self, folder: Folder, owner: User) -> None:
        """The folder and what is in it change hands; a grant to the new owner is meaningless from now on."""
        folder.owner, folder.modified, folder.etag = owner, self.clock(), folder.etag + 1
        for grant in list(self.collaborations_on(folder)):
            if grant.grantee is owner:
                self._forget(grant)
        for child in self.inside(folder):
            self.give_folder(child, owner)

    def move_folder(self, folder: Folder, parent: Folder) -> None:
        folder.parent = parent
        self._inside.setdefault(parent.id, {})[folder.id] = folder

    def _drop_folder(self, folder: Folder, by: User) -> None:
        for child in self.inside(folder):
            self._drop_folder(child, by)
        for grant in list(self.collaborations_on(folder)):
            self.remove_collaboration(grant, by)
        if folder.parent:
            del self._inside[folder.parent.id][folder.id]
        self._inside.pop(folder.id, None)
        del self.folders[folder.id]

    # -- collaborations -----------------------------------------------------------------------------------------------

    def add_collaboration(
        self,
        folder: Folder,
        grantee: User | Group | None,
        role: str = "editor",
        *,
        login: str | None = None,
        status: str = "accepted",
        by: User | None = None,
        **more: Any,
    ) -> Collaboration:
        """`grantee` None with `login`: an invitation to an address that has no account here (pending)."""
        assert role in ROLES, role
        assert grantee is not None or login
        now = self.clock()
        by = by or folder.owner
        status = "pending" if grantee is None else status
        grant = Collaboration(self.new_id("collaboration"), folder, grantee, role, status, by, now, now, login, **more)
        self.collaborations[grant.id] = grant
        self._on_folder.setdefault(folder.id, {})[grant.id] = grant
        if grantee is not None:
            self._to_grantee.setdefault(grantee.id, {})[grant.id] = grant
        self.date(grant, grant.expires)
        self.record("COLLABORATION_INVITE", by, _of_folder(folder), accessible_by=_of_grantee(grant))
        if status == "accepted":
            self.record("COLLABORATION_ACCEPT", by, _of_folder(folder), accessible_by=_of_grantee(grant))
        return grant

    def remove_collaboration(self, grant: Collaboration, by: User | None = None, why: str = "COLLABORATION_REMOVE") -> None:
        self._forget(grant)
        self.record(why, by or self.service, _of_folder(grant.folder), accessible_by=_of_grantee(grant))

    def note_role(self, grant: Collaboration, by: User) -> None:
        self.record("COLLABORATION_ROLE_CHANGE", by, _of_folder(grant.folder), accessible_by=_of_grantee(grant))

    def bind(self, grant: Collaboration, grantee: User) -> None:
        """The invited address has an account now."""
        grant.grantee = grantee
        self._to_grantee.setdefault(grantee.id, {})[grant.id] = grant

    def date(self, grant: Collaboration, expires: float | None) -> None:
        grant.expires = expires
        if expires is None:
            self._dated.pop(grant.id, None)
        else:
            self._dated[grant.id] = grant

    def _forget(self, grant: Collaboration) -> None:
        del self.collaborations[grant.id]
        self._dated.pop(grant.id, None)
        del self._on_folder[grant.folder.id][grant.id]
        if grant.grantee is not None:
            del self._to_grantee[grant.grantee.id][grant.id]

    def collaborations_on(self, folder: Folder) -> Iterator[Collaboration]:
        return iter(self._on_folder.get(folder.id, {}).values())

    def collaborations_of(self, grantee: User | Group) -> Iterator[Collaboration]:
        return iter(self._to_grantee.get(grantee.id, {}).values())

    def expire(self) -> None:
        """Grants whose `expires_at` has passed are gone."""
        now = self.clock()
        for grant in [grant for grant in self._dated.values() if grant.expires is not None and grant.expires <= now]:
            self.remove_collaboration(grant, why="COLLABORATION_EXPIRATION")


def _of_membership(membership: Membership) -> Json:
    user, group = membership.user, membership.group
    return {"user_id": user.id, "user_name": user.name, "group_id": group.id, "group_name": group.name}


def _of_folder(folder: Folder) -> Json:
    shown = {"item_type": "folder", "item_id": folder.id, "item_name": folder.name, "owned_by": folder.owner.mini()}
    return shown | {"parent": folder.parent.mini() if folder.parent else None}


def _of_grantee(grant: Collaboration) -> Json | None:
    return grant.grantee.mini() if grant.grantee else {"type": "user", "login": grant.invite_email}
