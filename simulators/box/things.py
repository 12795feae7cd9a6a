"""Box's objects and the JSON in which Box shows them. Ids are digits in strings; each kind counts from its own first number, so that
an id of the wrong kind finds nothing instead of a stranger."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Json = dict[str, Any]
Role = Literal["admin", "coadmin", "user"]

#: What a user shows without `fields`, beyond the mini fields (User--Standard of Box's OpenAPI).
USER_STANDARD = (
    "created_at",
    "modified_at",
    "language",
    "timezone",
    "space_amount",
    "space_used",
    "max_upload_size",
    "status",
    "job_title",
    "phone",
    "address",
    "avatar_url",
    "notification_email",
)
USER_MINI = ("type", "id", "name", "login")
GROUP_MINI = ("type", "id", "name", "group_type")
GROUP_STANDARD = ("created_at", "modified_at")
FOLDER_MINI = ("type", "id", "sequence_id", "etag", "name")

STATUSES = ("active", "inactive", "cannot_delete_edit", "cannot_delete_edit_upload")
ROLES = ("editor", "viewer", "previewer", "uploader", "previewer uploader", "viewer uploader", "co-owner")


def stamp(epoch: float) -> str:
    """Box's form of a time: seconds, with an offset."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")


@dataclass(slots=True)
class User:
    """`values` holds what PUT may change. `external` people belong to other enterprises. `confirmed` is False until the welcome mail is
    answered. `live` sessions of people who may log in."""

    id: str
    login: str
    name: str
    role: Role
    status: str
    created: float
    modified: float
    external: bool = False
    confirmed: bool = True
    platform_only: bool = False
    values: Json = field(default_factory=dict)
    aliases: list[Json] = field(default_factory=list)
    live: int = 0
    ended: int = 0
    ended_at: float | None = None

    @property
    def privileged(self) -> bool:
        return self.role != "user"

    def mini(self) -> Json:
        return {"type": "user", "id": self.id, "name": self.name, "login": self.login}

    def full(self, enterprise: str) -> Json:
        shown = self.mini()
        shown |= {"created_at": stamp(self.created), "modified_at": stamp(self.modified)}
        shown |= {"language": "en", "timezone": "America/Los_Angeles", "space_amount": 10_737_418_240, "space_used": 0}
        shown |= {"max_upload_size": 5_368_709_120, "status": self.status, "job_title": "", "phone": "", "address": ""}
        shown |= {"avatar_url": f"https://app.box.com/api/avatar/large/{self.id}", "notification_email": None}
        shown |= {"role": self.role, "tracking_codes": [], "can_see_managed_users": True, "is_sync_enabled": False}
        shown |= {"is_external_collab_restricted": False, "is_exempt_from_device_limits": False}
        shown |= {"is_exempt_from_login_verification": False, "is_platform_access_only": self.platform_only}
        shown |= {"my_tags": [], "hostname": "https://app.box.com/"}
        if not self.external:
            shown["enterprise"] = {"type": "enterprise", "id": enterprise, "name": "Enterprise"}
        return shown | self.values


@dataclass(slots=True)
class Group:
    id: str
    name: str
    created: float
    modified: float
    values: Json = field(default_factory=dict)

    def mini(self) -> Json:
        return {"type": "group", "id": self.id, "name": self.name, "group_type": "managed_group"}

    def full(self) -> Json:
        shown = self.mini() | {"created_at": stamp(self.created), "modified_at": stamp(self.modified)}
        shown |= {"invitability_level": "all_managed_users", "member_viewability_level": "all_managed_users"}
        return shown | self.values


@dataclass(slots=True)
class Membership:
    id: str
    user: User
    group: Group
    role: str
    created: float
    modified: float

    def shown(self) -> Json:
        return {
            "type": "group_membership",
            "id": self.id,
            "user": self.user.mini(),
            "group": self.group.mini(),
            "role": self.role,
            "created_at": stamp(self.created),
            "modified_at": stamp(self.modified),
        }


@dataclass(slots=True)
class Folder:
    """`parent` None: it stands in its owner's root. `moving`: its content is under way to another owner, nobody reaches it."""

    id: str
    name: str
    owner: User
    creator: User
    parent: Folder | None
    created: float
    modified: float
    etag: int = 0
    moving: bool = False

    def mini(self) -> Json:
        return {"type": "folder", "id": self.id, "sequence_id": str(self.etag), "etag": str(self.etag), "name": self.name}

    def line(self) -> list[Folder]:
        """Itself and its ancestors, nearest first."""
        above = self.parent.line() if self.parent else []
        return [self, *above]


ROOT_MINI: Json = {"type": "folder", "id": "0", "sequence_id": None, "etag": None, "name": "All Files"}


@dataclass(slots=True)
class Collaboration:
    """One grant on one folder to a user, a group, or an invited address (`grantee` None)."""

    id: str
    folder: Folder
    grantee: User | Group | None
    role: str
    status: str
    created_by: User
    created: float
    modified: float
    invite_email: str | None = None
    access_only: bool = False
    view_path: bool = False
    expires: float | None = None

    def shown(self, truth: bool = False) -> Json:
        """As Box shows it: item and grantee of a pending one are hidden (but not from `truth`, the side door)."""
        hidden = self.status == "pending" and not truth
        return {
            "type": "collaboration",
            "id": self.id,
            "item": None if hidden else self.folder.mini(),
            "accessible_by": None if hidden or self.grantee is None else self._grantee(),
            "invite_email": self.invite_email,
            "role": self.role,
            "status": self.status,
            "is_access_only": self.access_only,
            "can_view_path": self.view_path,
            "expires_at": None if self.expires is None else stamp(self.expires),
            "created_by": self.created_by.mini(),
            "created_at": stamp(self.created),
            "modified_at": stamp(self.modified),
        } | ({} if self.status == "pending" else {"acknowledged_at": stamp(self.created)})

    def _grantee(self) -> Json:
        grantee = self.grantee
        assert grantee is not None
        return grantee.mini() | ({"is_active": grantee.status == "active"} if isinstance(grantee, User) else {})
