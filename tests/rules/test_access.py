"""What the access tables mean, and what of them is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigurationError
from model.person import Desired, Person, PersonStatus
from rules.policy import Policy

GIB = 1024**3
BUILT_IN = Policy.load()


def person(**facts: Any) -> Person:
    return Person(**({"tenant": "acme", "id": "00u1", "status": PersonStatus.ACTIVE, "login": "ann@acme.test"} | facts))


def desired(who: Person, policy: Policy = BUILT_IN, **more: Any) -> Desired:
    found = policy.desired(who, "box", "box", **more)
    assert found is not None
    return found


def held(who: Person, policy: Policy = BUILT_IN) -> dict[str, str]:
    return {f"{one.kind} {one.name}": one.level for one in desired(who, policy).grants}


def table(tmp_path: Path, rows: str, head: str = "", name: str = "t.toml") -> Path:
    text = f"""kind = "box"
{head}
[attributes]
space_amount = "integer"
restricted = "boolean"
[grants.group]
levels = []
[grants.folder]
levels = ["viewer", "editor", "co-owner"]
{rows}
"""
    (tmp_path / name).write_text(text)
    return tmp_path


def test_everyone_gets_the_company_folder_and_the_staff_quota() -> None:
    assert held(person()) == {"group Everyone": "", "folder Company": "viewer"}
    assert desired(person()).attributes == {"space_amount": 50 * GIB}


@pytest.mark.parametrize(("department", "quota"), [("Engineering", 100), ("Sales", 50), ("Finance", 50)])
def test_a_department_brings_its_group_and_folder(department: str, quota: int) -> None:
    who = person(department=department, title="Clerk")
    assert held(who) == {
        "group Everyone": "",
        "folder Company": "viewer",
        f"group {department}": "",
        f"folder {department}": "editor",
    }
    assert desired(who).attributes == {"space_amount": quota * GIB}


@pytest.mark.parametrize(
    ("title", "level"), [("VP Sales", "co-owner"), ("vp, emea", "co-owner"), ("Assistant to the VP", "editor"), ("", "editor")]
)
def test_the_strongest_level_wins_for_heads(title: str, level: str) -> None:
    assert held(person(department=" sales ", title=title))["folder Sales"] == level


def test_an_okta_group_grants_by_name() -> None:
    assert held(person(groups=(("00g1", "Project Apollo"),)))["folder Projects"] == "editor"


def test_contractors_hold_only_what_their_exclusive_row_says() -> None:
    who = person(department="Engineering", title="VP", groups=(("g1", "Contractors"), ("g2", "Project Apollo")))
    assert held(who) == {"group Contractors": "", "folder Projects": "viewer"}
    assert desired(who).attributes == {"space_amount": 5 * GIB}


def test_reasons_name_file_and_row() -> None:
    assert desired(person(department="Sales")).reasons == ("box.toml: everyone", "box.toml: sales")


@pytest.mark.parametrize("status", [PersonStatus.STAGED, PersonStatus.UNKNOWN])
def test_nothing_is_said_of_people_who_have_not_begun_or_whose_status_is_unknown(status: PersonStatus) -> None:
    assert BUILT_IN.desired(person(status=status, department="Sales"), "box", "box") is None


def test_nothing_is_said_of_a_kind_without_a_table() -> None:
    assert BUILT_IN.desired(person(), "okta", "okta") is None


@pytest.mark.parametrize("status", [one for one in PersonStatus if one.is_present])
def test_a_state_of_a_credential_is_no_leave(status: PersonStatus) -> None:
    assert desired(person(status=status)).active is True


@pytest.mark.parametrize("status", [PersonStatus.SUSPENDED, PersonStatus.DEPROVISIONED, PersonStatus.ABSENT])
@pytest.mark.parametrize("due", [True, False])
def test_whoever_is_gone_holds_nothing_and_hands_over_only_when_terminated_and_due(status: PersonStatus, due: bool) -> None:
    boss = person(id="00uboss", login="boss@acme.test")
    found = desired(person(status=status, department="Sales"), manager=boss, transfer_due=due)
    assert (found.active, found.grants, found.attributes) == (False, (), {})
    assert found.transfer_to == ("00uboss" if due and status is PersonStatus.DEPROVISIONED else None)
    assert ("folder", "Sales") in found.managed


def test_without_a_manager_nothing_is_handed_over() -> None:
    assert desired(person(status=PersonStatus.DEPROVISIONED), transfer_due=True).transfer_to is None


def test_a_table_may_keep_content_where_it_is(tmp_path: Path) -> None:
    policy = Policy.load(table(tmp_path, '[[row]]\nname = "a"\neveryone = true\ngroup = ["A"]'))
    boss = person(id="00uboss")
    assert desired(person(status=PersonStatus.DEPROVISIONED), policy, manager=boss, transfer_due=True).transfer_to is None


def test_managed_names_are_those_of_every_row() -> None:
    assert BUILT_IN.folders("box") == ("Company", "Engineering", "Finance", "Projects", "Sales")
    assert BUILT_IN.groups("box") == ("Contractors", "Engineering", "Everyone", "Finance", "Sales")
    assert BUILT_IN.folders("okta") == ()
    assert set(desired(person()).managed) == {("folder", one) for one in BUILT_IN.folders("box")} | {
        ("group", one) for one in BUILT_IN.groups("box")
    }


def test_match_any_and_lists_of_conditions(tmp_path: Path) -> None:
    rows = """
[[row]]
name = "either"
match = "any"
department = ["Sales", "Finance"]
user_type = "Partner"
group = ["A"]
[[row]]
name = "both"
department = ["Sales", "Finance"]
user_type = "Partner"
group = ["B"]
"""
    policy = Policy.load(table(tmp_path, rows))
    assert held(person(department="finance"), policy) == {"group A": ""}
    assert held(person(user_type="partner"), policy) == {"group A": ""}
    assert held(person(department="Sales", user_type="Partner"), policy) == {"group A": "", "group B": ""}
    assert held(person(department="Legal"), policy) == {}


def test_a_later_row_overrides_an_attribute_and_the_strongest_grant_stays(tmp_path: Path) -> None:
    rows = """
[[row]]
name = "one"
everyone = true
folder = { X = "co-owner" }
attributes = { space_amount = 1, restricted = true }
[[row]]
name = "two"
department = "Sales"
folder = { X = "viewer" }
attributes = { space_amount = 2 }
"""
    policy = Policy.load(table(tmp_path, rows))
    assert held(person(department="Sales"), policy) == {"folder X": "co-owner"}
    assert desired(person(department="Sales"), policy).attributes == {"space_amount": 2, "restricted": True}


def test_a_table_may_speak_of_some_instances_only(tmp_path: Path) -> None:
    policy = Policy.load(table(tmp_path, '[[row]]\nname = "a"\neveryone = true\ngroup = ["A"]', head='targets = ["box-eu"]'))
    assert policy.desired(person(), "box-us", "box") is None
    assert policy.desired(person(), "box-eu", "box") is not None
    assert policy.groups("box", "box-us") == ()


def test_several_files_are_one_policy_in_order_of_name(tmp_path: Path) -> None:
    table(tmp_path, '[[row]]\nname = "late"\neveryone = true\nattributes = { space_amount = 9 }', name="b.toml")
    table(tmp_path, '[[row]]\nname = "early"\ndepartment = "Sales"\nattributes = { space_amount = 1 }', name="a.toml")
    assert desired(person(department="Sales"), Policy.load(tmp_path)).attributes == {"space_amount": 9}


def test_the_version_changes_with_the_text(tmp_path: Path) -> None:
    first = Policy.load(table(tmp_path, '[[row]]\nname = "a"\neveryone = true\ngroup = ["A"]')).version
    second = Policy.load(table(tmp_path, '[[row]]\nname = "a"\neveryone = true\ngroup = ["B"]')).version
    assert first != second
    assert len(first) == 16


ROW = '[[row]]\nname = "a"\n'
REFUSED = {
    "unknown key": (ROW + 'everyone = true\nfolders = { X = "viewer" }', "row 1 (a): unknown key folders: did you mean folder?"),
    "no condition": (ROW + 'group = ["A"]', "row 1 (a): needs a condition, or everyone = true"),
    "everyone and more": (ROW + 'everyone = true\ndepartment = "X"\ngroup = ["A"]', "needs a condition, or everyone"),
    "level": (ROW + 'everyone = true\nfolder = { X = "owner" }', "folder.X: the level 'owner' is none of viewer, editor, co-owner"),
    "type": (ROW + 'everyone = true\nattributes = { space_amount = "5" }', "attributes.space_amount: must be integer, not '5'"),
    "truth is no number": (ROW + "everyone = true\nattributes = { space_amount = true }", "must be integer, not True"),
    "number is no truth": (ROW + "everyone = true\nattributes = { restricted = 1 }", "must be boolean, not 1"),
    "attribute": (ROW + "everyone = true\nattributes = { space_amonut = 5 }", "unknown key space_amonut: did you mean space_amount?"),
    "nothing": (ROW + "everyone = true", "gives nothing"),
    "flag": (ROW + 'everyone = "yes"\ngroup = ["A"]', "everyone: must be true or false"),
    "match": (ROW + 'department = "X"\nmatch = "most"\ngroup = ["A"]', 'must be "all" or "any"'),
    "empty text": (ROW + 'department = ""\ngroup = ["A"]', "must be a text that is not empty"),
    "space": (ROW + 'everyone = true\ngroup = ["A "]', "has no space around it"),
    "empty list": (ROW + 'department = []\ngroup = ["A"]', "must be a list of texts that is not empty, or a text"),
    "twice in a list": (ROW + 'everyone = true\ngroup = ["A", "A"]', "names something twice"),
    "group by level": (ROW + 'everyone = true\ngroup = { A = "viewer" }', "must be a list of texts"),
    "duplicate key": (ROW + 'everyone = true\neveryone = true\ngroup = ["A"]', "not valid TOML"),
    "same name": (ROW + 'everyone = true\ngroup = ["A"]\n' + ROW + 'department = "X"\ngroup = ["B"]', "the same name as"),
    "same conditions": (
        ROW + 'department = "X"\ngroup = ["A"]\n[[row]]\nname = "b"\ndepartment = ["X"]\ngroup = ["B"]',
        "the same conditions as",
    ),
    "no name": ('[[row]]\neveryone = true\ngroup = ["A"]', "row 1: name: must be a text"),
    "no row": ("", "needs at least one [[row]]"),
    "row is no table": ("row = [1]", "not valid TOML"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_refused_with_its_place(what: str, tmp_path: Path) -> None:
    rows, message = REFUSED[what]
    folder = table(tmp_path, rows)
    if what == "row is no table":
        (folder / "t.toml").write_text('kind = "box"\nrow = [1]')
        message = "row 1: must be a table"
    with pytest.raises(ConfigurationError) as error:
        Policy.load(folder)
    assert message in str(error.value)
    assert str(folder / "t.toml") in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('knid = "box"', "unknown key knid: did you mean kind?"),
        ('row = [{name = "a"}]', "kind: must be a text"),
        ('kind = "box"\ntargets = []\n[grants.g]\nlevels = []\n[[row]]\nname = "a"\neveryone = true\ng = ["A"]', "targets: must be a list"),
        ('kind = "box"\n[attributes]\nx = "float"\n[[row]]\nname = "a"', "attributes.x: must be one of integer, text, boolean"),
        ('kind = "box"\n[grants.name]\nlevels = []\n[[row]]\nname = "a"', "this name is taken"),
        ('kind = "box"\n[grants.folder]\n[[row]]\nname = "a"', "grants.folder.levels: must be a list"),
        (b"\xff".decode("latin-1"), "not valid TOML"),
    ],
)
def test_a_wrong_head_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError) as error:
        Policy.load(tmp_path)
    assert message in str(error.value)
    assert "x.toml" in str(error.value)


def test_transfer_knows_two_words(tmp_path: Path) -> None:
    folder = table(tmp_path, ROW + 'everyone = true\ngroup = ["A"]', head='leave = { transfer = "boss" }')
    with pytest.raises(ConfigurationError, match=r'leave\.transfer: must be "manager" or "nobody"'):
        Policy.load(folder)


def test_two_files_that_speak_of_one_target_may_not_differ_in_levels_or_repeat_a_row(tmp_path: Path) -> None:
    table(tmp_path, ROW + 'everyone = true\ngroup = ["A"]', name="a.toml")
    table(tmp_path, ROW + 'department = "X"\ngroup = ["A"]', name="b.toml")
    with pytest.raises(ConfigurationError, match="the same name as"):
        Policy.load(tmp_path)
    text = (tmp_path / "b.toml").read_text().replace('"viewer", "editor"', '"editor", "viewer"')
    (tmp_path / "b.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"grants\.folder: other levels"):
        Policy.load(tmp_path)


def test_two_files_of_different_instances_may_repeat_a_row(tmp_path: Path) -> None:
    table(tmp_path, ROW + 'everyone = true\ngroup = ["A"]', head='targets = ["eu"]', name="a.toml")
    table(tmp_path, ROW + 'everyone = true\ngroup = ["A"]', head='targets = ["us"]', name="b.toml")
    assert len(Policy.load(tmp_path).tables) == 2


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_tables_is_refused(make: bool, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    if make:
        folder.mkdir()
    with pytest.raises(ConfigurationError, match="no access table"):
        Policy.load(folder)


@given(
    departments=st.lists(st.sampled_from(["Sales", "Finance", "Engineering", "Legal", ""]), min_size=1, max_size=1),
    title=st.sampled_from(["VP", "Clerk", ""]),
    groups=st.sets(st.sampled_from(["Project Apollo", "Contractors", "Chess"])),
)
def test_order_of_groups_never_matters_and_every_grant_is_managed(departments: list[str], title: str, groups: set[str]) -> None:
    pairs = tuple((f"g{at}", name) for at, name in enumerate(sorted(groups)))
    who = person(department=departments[0], title=title, groups=pairs)
    assert desired(who) == desired(who.model_copy(update={"groups": pairs[::-1]}))
    assert {(one.kind, one.name) for one in desired(who).grants} <= set(desired(who).managed)
    assert len({(one.kind, one.name) for one in desired(who).grants}) == len(desired(who).grants)
