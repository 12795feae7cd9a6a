"""How things stood before: the company in an Okta org, at Box, at Slack. Nothing of it is in the log or among the calls."""

from __future__ import annotations

from collections.abc import Iterable

from simulators.box import BoxSimulator
from simulators.company import BOX_FOLDERS, BOX_GROUPS, BREAK_GLASS_LOGIN, BY_KEY, PEOPLE, Access, Someone
from simulators.okta import OktaSimulator
from simulators.okta.directory import User
from simulators.slack import SlackSimulator

SUPER_ADMIN = ("SUPER_ADMIN", "Super Organization Administrator")


def seed_break_glass(okta: OktaSimulator) -> User:
    """The admin whom nothing may lock, so that somebody can always get in."""
    profile = {
        "login": BREAK_GLASS_LOGIN,
        "email": BREAK_GLASS_LOGIN,
        "firstName": "Break",
        "lastName": "Glass",
        "title": "Emergency access",
    }
    return okta.org.seed_user(profile, roles=(SUPER_ADMIN,), sessions=1)


def seed_people(okta: OktaSimulator) -> dict[str, str]:
    """Everybody who is there before the day; key → Okta id. The groups that the day needs exist."""
    okta.org.seed_group("Project Apollo")
    okta.org.seed_group("Contractors")
    ids: dict[str, str] = {}
    for one in _residents():
        user = okta.org.seed_user(
            profile_of(one, ids), groups=one.groups, sessions=one.sessions, tokens=1 if one.part == "compromised" else 0
        )
        ids[one.key] = user.id
    return ids


def profile_of(one: Someone, ids: dict[str, str]) -> dict[str, str]:
    """A person's Okta profile; the manager by Okta id."""
    profile = {
        "login": one.login,
        "email": one.login,
        "firstName": one.first,
        "lastName": one.last,
        "department": one.department,
        "title": one.title,
        "userType": one.user_type,
    }
    return profile | ({"managerId": ids[one.manager]} if one.manager else {})


def seed_box(box: BoxSimulator) -> None:
    """Groups and folders that policy names, owned by the service account."""
    for name in BOX_GROUPS:
        box.add_group(name)
    for name in BOX_FOLDERS:
        box.add_folder(name)


def seed_box_people(box: BoxSimulator) -> dict[str, str]:
    """Accounts that were there before the day, each with exactly what its owner should hold; key → Box id."""
    state = box.state()
    groups = {one["name"]: id_ for id_, one in state["groups"].items()}
    folders = {one["name"]: id_ for id_, one in state["folders"].items()}
    ids: dict[str, str] = {}
    for one in _residents():
        if one.before is not None:
            ids[one.key] = box.add_user(one.login, one.name, space_amount=one.before.space, job_title=one.title)
            _give(box, ids[one.key], one.before, groups, folders)
            for name in one.owns:
                box.add_folder(name, owner=ids[one.key])
    return ids


def _give(box: BoxSimulator, user: str, access: Access, groups: dict[str, str], folders: dict[str, str]) -> None:
    for name in sorted(access.groups):
        box.add_membership(user, groups[name])
    for name, role in access.folders.items():
        box.add_collaboration(folders[name], user=user, role=role)


def seed_slack(slack: SlackSimulator) -> str:
    """The channel of security operations; returns its id. Everybody can be found by e-mail."""
    for one in PEOPLE:
        slack.add_user(one.login, one.name)
    return slack.add_channel("secops", id="C0SECOPS001", private=True)


def _residents() -> Iterable[Someone]:
    """Managers before those whom they manage."""
    residents = [one for one in PEOPLE if not one.hired]
    assert all(one.manager is None or not BY_KEY[one.manager].hired for one in residents)
    return residents
