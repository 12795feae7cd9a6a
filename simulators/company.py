"""The company of the scenarios: who works there, what they hold at Box beforehand, what each must hold after the day.

What must stand at the end is written down here by hand and not computed from `rules/access`: a witness that asks the accused is none.
Whoever must be opened at Box during the day is hired during the day; only those who stay as they are or are closed have accounts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

DOMAIN = "corp.example"
GIB = 1024**3

#: What stands at Box for everybody: groups by name, folders in the service account's root.
BOX_GROUPS = ("Everyone", "Engineering", "Sales", "Finance", "Contractors")
BOX_FOLDERS = ("Company", "Engineering", "Sales", "Finance", "Projects")


@dataclass(frozen=True, slots=True)
class Access:
    """What somebody holds at Box: groups, folder → role, quota in bytes."""

    groups: frozenset[str] = frozenset()
    folders: Mapping[str, str] = field(default_factory=dict)
    space: int = 50 * GIB


def staff(department: str, *, head: bool = False, apollo: bool = False) -> Access:
    """A member of a department; heads own its folder with the service account, Project Apollo's people edit Projects."""
    folders = {"Company": "viewer", department: "co-owner" if head else "editor"} | ({"Projects": "editor"} if apollo else {})
    return Access(frozenset({"Everyone", department}), folders, (100 if department == "Engineering" else 50) * GIB)


OUTSIDER = Access(frozenset({"Contractors"}), {"Projects": "viewer"}, 5 * GIB)

Part = Literal["bystander", "hire", "transfer", "contractor", "leaver", "compromised"]


@dataclass(frozen=True, slots=True)
class Someone:
    """One person. `manager` is the key of another. `before` is what they hold at Box at the start (None: no account), `after` what they
    must hold at the end; `owns` are folders in their own root at Box."""

    key: str
    first: str
    last: str
    department: str
    title: str
    part: Part = "bystander"
    manager: str | None = None
    groups: tuple[str, ...] = ()
    user_type: str = "Employee"
    before: Access | None = None
    after: Access | None = None
    owns: tuple[str, ...] = ()
    sessions: int = 0

    @property
    def login(self) -> str:
        return f"{self.first}.{self.last}@{DOMAIN}".lower()

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"

    @property
    def hired(self) -> bool:
        """Comes during the day; the others are there before."""
        return self.part in ("hire", "transfer", "contractor")


def _resident(key: str, first: str, last: str, department: str, title: str, manager: str | None, held: Access | None) -> Someone:
    return Someone(key, first, last, department, title, manager=manager, before=held, after=held, sessions=1)


PEOPLE: tuple[Someone, ...] = (
    _resident("grace", "Grace", "Novak", "Engineering", "VP Engineering", None, staff("Engineering", head=True)),
    _resident("omar", "Omar", "Haddad", "Sales", "VP Sales", None, staff("Sales", head=True)),
    _resident("lena", "Lena", "Fischer", "Finance", "VP Finance", None, staff("Finance", head=True)),
    _resident("ravi", "Ravi", "Menon", "Engineering", "Software engineer", "grace", staff("Engineering")),
    _resident("sofia", "Sofia", "Marin", "Sales", "Account executive", "omar", staff("Sales")),
    _resident("bjorn", "Bjorn", "Dahl", "Finance", "Controller", "lena", None),
    _resident("aiko", "Aiko", "Tanaka", "Engineering", "Site reliability engineer", "grace", None),
    _resident("peter", "Peter", "Walsh", "Sales", "Sales engineer", "omar", None),
    Someone(
        key="tom",
        first="Tom",
        last="Becker",
        department="Sales",
        title="Account executive",
        part="leaver",
        manager="omar",
        before=staff("Sales"),
        owns=("Key accounts", "Forecasts"),
        sessions=1,
    ),
    Someone(
        key="nadia",
        first="Nadia",
        last="Rossi",
        department="Finance",
        title="Financial analyst",
        part="compromised",
        manager="lena",
        before=staff("Finance"),
        after=staff("Finance"),
        sessions=2,
    ),
    Someone(
        key="maya",
        first="Maya",
        last="Lindqvist",
        department="Engineering",
        title="Software engineer",
        part="hire",
        manager="grace",
        after=staff("Engineering", apollo=True),
    ),
    Someone(
        key="jonas",
        first="Jonas",
        last="Weber",
        department="Finance",
        title="Accountant",
        part="hire",
        manager="lena",
        groups=("Project Apollo",),
        after=staff("Finance"),
    ),
    Someone(
        key="priya",
        first="Priya",
        last="Nair",
        department="Sales",
        title="Sales engineer",
        part="transfer",
        manager="omar",
        after=staff("Engineering"),
    ),
    Someone(
        key="chidi",
        first="Chidi",
        last="Okafor",
        department="Engineering",
        title="Security consultant",
        part="contractor",
        manager="grace",
        groups=("Contractors",),
        user_type="Contractor",
        after=OUTSIDER,
    ),
)
BY_KEY: dict[str, Someone] = {one.key: one for one in PEOPLE}

BREAK_GLASS_LOGIN = f"break.glass@{DOMAIN}"
SERVICE_LOGIN = f"portcullis@{DOMAIN}"
