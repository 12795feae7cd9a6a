"""The pure difference between a Box account and policy: what is asked for, what is left alone, what is refused as no value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.box import diff
from handlers.plan import make_plan
from model.change import Change, ChangeKind
from model.errors import PermanentError
from model.person import Account, Desired, Grant, Person, PersonStatus

ADA = Person(
    tenant="acme", id="00u1", status=PersonStatus.ACTIVE, login="Ada@Corp.example", first_name="Ada", last_name="Lovelace", title="CEO"
)
NAMES = ("Sales", "Engineering", "Company")
ROLES = sorted(diff.FOLDER_ROLES)


def account(*grants: Grant, active: bool = True, **attributes: Any) -> Account:
    return Account(
        target="box",
        id="7",
        login="ada@corp.example",
        active=active,
        status="active" if active else "inactive",
        attributes=attributes,
        grants=grants,
    )


def labels(desired: Desired, observed: Account | None) -> list[str]:
    return [change.label for change in diff.changes("box", desired, observed, ADA)]


def wish(active: bool | None = True, *grants: Grant, **more: Any) -> Desired:
    managed = tuple((kind, name) for kind in ("group", "folder") for name in NAMES)
    return Desired(target="box", active=active, grants=grants, **({"managed": managed} | more))


def group(name: str, **more: Any) -> Grant:
    return Grant(kind="group", name=name, **more)


def folder(name: str, level: str = "editor", **more: Any) -> Grant:
    return Grant(kind="folder", name=name, level=level, **more)


def test_where_policy_is_silent_nothing_is_touched() -> None:
    held = account(group("Sales"), active=False)
    assert labels(wish(None, attributes={"phone": "1"}), held) == []
    assert labels(wish(None), None) == []
    assert labels(wish(False), None) == []


def test_a_new_account_has_what_okta_knows_and_policy_asks() -> None:
    (create,) = diff.changes("box", wish(attributes={"space_amount": 5}), None, ADA)
    assert create.args["body"] == {"login": "ada@corp.example", "name": "Ada Lovelace", "job_title": "CEO", "space_amount": 5}
    assert create.account == ""


@pytest.mark.parametrize(
    ("login", "email", "key"),
    [
        ("Ada@Corp.example", "other@corp.example", "ada@corp.example"),
        ("ada", "Ada@Corp.example", "ada@corp.example"),
        ("", "", ""),
    ],
)
def test_the_key_is_the_login_which_people_cannot_change_themselves(login: str, email: str, key: str) -> None:
    assert diff.canonical_login(ADA.model_copy(update={"login": login, "email": email})) == key


def test_only_managed_names_are_ever_revoked() -> None:
    held = account(group("Sales", key="1"), group("By hand", key="2"), folder("Company", key="3"))
    assert labels(wish(), held) == ["revoke group Sales", "revoke folder Company"]
    assert labels(wish(managed=()), held) == []
    assert labels(wish(False, managed=(("folder", "Company"),)), held) == [
        "deactivate ada@corp.example",
        "end_sessions sessions",
        "revoke folder Company",
    ]


def test_the_owner_of_a_folder_is_never_touched() -> None:
    held = account(folder("Sales", "owner", key="1"), folder("Company", "owner", key="2"))
    assert labels(wish(True, folder("Sales", "viewer")), held) == []
    assert labels(wish(False), held) == ["deactivate ada@corp.example", "end_sessions sessions"]


def test_names_count_without_case() -> None:
    assert labels(wish(True, group("SALES"), folder("company")), account(group("Sales"), folder("Company"))) == []


def test_a_level_changes_in_place_and_a_group_role_is_left_alone() -> None:
    held = account(folder("Sales", "viewer", key="9", id="5"), group("Sales", level="admin"))
    (change,) = diff.changes("box", wish(True, folder("Sales", "editor"), group("Sales")), held, ADA)
    assert (change.kind, change.args["key"], change.before, change.after) == (
        ChangeKind.UPDATE,
        "9",
        {"level": "viewer"},
        {"level": "editor"},
    )


def test_only_attributes_that_policy_sets_are_updated() -> None:
    held = account(name="Old Name", job_title="Old", space_amount=1, phone="5")
    (change,) = diff.changes("box", wish(attributes={"space_amount": 2, "phone": "5"}), held, ADA)
    assert (change.args["body"], change.before) == ({"space_amount": 2}, {"space_amount": 1})


@pytest.mark.parametrize(
    "attributes",
    [
        {"role": "coadmin"},
        {"status": "active"},
        {"login": "x@y.example"},
        {"statuss": "x"},
        {"space_amount": "5"},
        {"space_amount": True},
        {"space_amount": 1.5},
        {"space_amount": -2},
        {"space_amount": None},
        {"phone": 5},
        {"name": None},
        {"is_external_collab_restricted": 1},
    ],
)
@pytest.mark.parametrize("observed", [None, account()])
def test_a_value_of_the_wrong_kind_is_refused_before_any_call(attributes: dict[str, Any], observed: Account | None) -> None:
    with pytest.raises(PermanentError) as refused:
        diff.changes("box", wish(attributes=attributes), observed, ADA)
    assert refused.value.code == "bad_attribute"


@pytest.mark.parametrize(
    "grant", [Grant(kind="licence", name="x"), folder("Sales", "owner"), folder("Sales", "reader"), folder("Sales", "")]
)
def test_a_grant_that_box_does_not_know_is_refused(grant: Grant) -> None:
    with pytest.raises(PermanentError) as refused:
        diff.changes("box", wish(True, grant), account(), ADA)
    assert refused.value.code == "bad_grant"


def test_content_is_handed_over_once_the_account_is_shut_and_owns_something() -> None:
    leaving = wish(False, transfer_to="8")
    assert labels(leaving, account(active=False, owns_content=True)) == ["transfer content to 8"]
    assert labels(leaving, account(active=False, owns_content=False)) == []
    assert labels(leaving, account()) == ["deactivate ada@corp.example", "end_sessions sessions", "transfer content to 8"]
    assert labels(wish(False), account(active=False, owns_content=True)) == []
    assert labels(wish(True, transfer_to="8"), account(owns_content=True)) == []


# -- a Box of three lines -----------------------------------------------------------------------------------------------


def carry_out(held: Account, change: Change) -> Account:
    grants = {(one.kind, one.name.casefold()): one for one in held.grants}
    match change.kind:
        case ChangeKind.DEACTIVATE:
            held = held.model_copy(update={"active": False, "status": "inactive"})
        case ChangeKind.ACTIVATE:
            held = held.model_copy(update={"active": True, "status": "active"})
        case ChangeKind.REVOKE:
            grants.pop((change.args["kind"], change.args["name"].casefold()))
        case ChangeKind.GRANT:
            grants[change.args["kind"], change.args["name"].casefold()] = Grant(**change.args)
        case ChangeKind.UPDATE if "body" in change.args:
            held = held.model_copy(update={"attributes": held.attributes | change.args["body"]})
        case ChangeKind.UPDATE:
            key = (change.args["kind"], change.args["name"].casefold())
            grants[key] = grants[key].model_copy(update={"level": change.args["level"]})
    return held.model_copy(update={"grants": tuple(grants.values())})


a_name = st.sampled_from([*NAMES, "sales", "By hand", "Other"])
a_grant = st.one_of(st.builds(group, a_name), st.builds(folder, a_name, st.sampled_from(ROLES)))
grants = st.lists(a_grant, unique_by=lambda one: (one.kind, one.name.casefold()), max_size=6).map(tuple)
attributes = st.fixed_dictionaries({}, optional={"space_amount": st.integers(-1, 9), "phone": st.text("12 ", max_size=4)})


@given(st.booleans(), grants, attributes, st.booleans(), grants, attributes)
def test_carrying_out_the_difference_leaves_none(
    active: bool, wanted: tuple[Grant, ...], values: dict[str, Any], was: bool, held: tuple[Grant, ...], had: dict[str, Any]
) -> None:
    wanted = tuple(one for one in wanted if one.name.casefold() in {name.casefold() for name in NAMES}) if active else ()
    desired = wish(active, *wanted, attributes=values)
    observed = account(*held, active=was, **had)
    for change in make_plan("acme", "00u1", "box", diff.changes("box", desired, observed, ADA), observed).changes:
        observed = carry_out(observed, change)
    assert diff.changes("box", desired, observed, ADA) == ()
    assert observed.active is active
    unmanaged = {(one.kind, one.name) for one in held if one.name in ("By hand", "Other")}
    assert unmanaged <= {(one.kind, one.name) for one in observed.grants}, "what is not managed is never taken away"
