"""The list of protected people: strict, by id, and never "nobody" by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers.protected import load_protected

GOOD = '[[person]]\ntenant = "acme"\nid = "00ubg"\nreason = "break glass"\n'


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "protected.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_list_names_people_by_tenant_and_id(tmp_path: Path) -> None:
    found = load_protected(write(tmp_path, GOOD))
    assert found.is_trusted
    assert found.is_protected("acme", "00ubg")
    assert found.reason("acme", "00ubg") == "break glass"
    assert not found.is_protected("other", "00ubg")


@pytest.mark.fault(27)
@pytest.mark.parametrize("lookalike", ["00uBG", "00UBG", "00ubg ", "00u\u0432g"])
def test_whoever_looks_alike_is_somebody_else(lookalike: str, tmp_path: Path) -> None:
    assert not load_protected(write(tmp_path, GOOD)).is_protected("acme", lookalike)


@pytest.mark.fault(44)
@pytest.mark.parametrize(
    ("text", "state", "says"),
    [
        (None, "missing", "no such file"),
        ("", "empty", "names nobody"),
        ("person = []", "empty", "names nobody"),
        (b"\xff\xfe", "invalid", "not valid TOML"),
        ("[[person]", "invalid", "not valid TOML"),
        (GOOD + GOOD, "invalid", "person 2: acme:00ubg stands here twice"),
        (GOOD + 'note = "x"', "invalid", "needs exactly tenant, id and reason"),
        ('[[person]]\ntenant = "acme"\nid = "00ubg"\n', "invalid", "needs exactly"),
        ('[person]\ntenant = "acme"\nid = "00ubg"\nreason = "x"', "invalid", "two brackets"),
        ("person = [1]", "invalid", "needs exactly"),
        ('[[person]]\ntenant = "acme"\nid = 7\nreason = "x"', "invalid", "must be texts"),
        ('[[person]]\ntenant = "acme"\nid = "00ubg"\nreason = " "', "invalid", "must be texts"),
        ('[[person]]\ntenant = "acme"\nid = "root@acme.test"\nreason = "x"', "invalid", "is no Okta id"),
        ('[[person]]\ntenant = "acme"\nid = "me"\nreason = "x"', "invalid", "is no Okta id"),
        ("[[people]]\n" + GOOD, "invalid", "unknown key people"),
        ('[[person]]\ntenant = "acme"\nid = "a"\nid = "b"\nreason = "x"', "invalid", "not valid TOML"),
    ],
)
def test_a_list_that_cannot_be_trusted_says_so(text: str | bytes | None, state: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "protected.toml" if text is None else write(tmp_path, text)
    found = load_protected(path)
    assert (found.state, found.is_trusted) == (state, False)
    assert says in found.problem
    assert found.people == {}


@pytest.mark.fault(44)
def test_no_list_configured_and_an_unreadable_one_are_not_trusted(tmp_path: Path) -> None:
    assert load_protected(None).state == "missing"
    assert "[safety] protected" in load_protected(None).problem
    assert load_protected(tmp_path).state == "unreadable"


def test_our_own_identities_are_added_and_do_not_make_a_list_trusted(tmp_path: Path) -> None:
    own = load_protected(None).with_own([("acme", "00uself")], [("box", "17")])
    assert own.is_protected("acme", "00uself")
    assert own.is_ours("box", "17")
    assert not own.is_ours("box-2", "17")
    assert not own.is_trusted
    listed = load_protected(write(tmp_path, GOOD)).with_own([("acme", "00ubg")])
    assert listed.reason("acme", "00ubg") == "break glass"
