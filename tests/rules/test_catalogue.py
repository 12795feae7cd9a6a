"""The vendored list of event types is whole, and Okta's published list is taken over whole or not at all."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from model.errors import ConfigurationError
from rules.catalogue import BUILT_IN, FEWEST, Catalogue, published, refresh
from rules.lifecycle import Lifecycle

HEAD = "Event Type,Description,Release Date,Tags, Change Details\n"


def okta_csv(path: Path, *rows: str, fill: int = FEWEST) -> Path:
    """As Okta publishes it: every cell quoted, commas and line breaks inside the descriptions."""
    filler = [f'"filler.type_{number}.make","Made, ""often"".\nTwice.","2017.43","a, b",""' for number in range(fill)]
    path.write_text(HEAD + "\n".join([*rows, *filler]) + "\n", encoding="utf-8")
    return path


def test_the_vendored_list_says_its_release_and_holds_what_the_lifecycle_table_names() -> None:
    ours = Catalogue.load()
    assert ours.release == "2026.08.1"
    assert len(ours.event_types) == 1274
    assert Lifecycle.load().event_types <= ours.event_types


def test_it_is_the_list_that_stands_beside_the_project(shared: Path) -> None:
    with (shared / "detections" / "okta-event-types.csv").open(encoding="utf-8", newline="") as file:
        theirs = {row["event_type"] for row in csv.DictReader(file)}
    assert Catalogue.load().event_types == theirs


def test_names_are_found_without_case_and_slips_have_a_nearest_name() -> None:
    ours = Catalogue.load()
    assert "USER.Session.Start" in ours
    assert "user.authentication.auth_via_idp" in ours
    assert "user.sesion.start" not in ours
    assert None not in ours
    assert ours.nearest("user.sesion.start") == "user.session.start"
    assert ours.nearest("user.authentication.auth_via_IPD") == "user.authentication.auth_via_IDP"
    assert ours.nearest("something.else.altogether") is None
    assert ours.nearest("x" * 100_000) is None


def test_okta_s_list_is_read_with_its_newest_release(tmp_path: Path) -> None:
    path = okta_csv(tmp_path / "okta.csv", '"user.new.thing","New","2026.09.2","",""', '"user.old.thing","Old","2026.10.0","",""')
    found = published(path)
    assert {"user.new.thing", "user.old.thing"} <= found.event_types
    assert len(found.event_types) == FEWEST + 2
    assert found.release == "2026.10.0", "releases are numbers, not texts"


def test_refresh_says_what_changed_and_what_it_wrote_is_read_again(tmp_path: Path) -> None:
    into = tmp_path / "catalogue.csv"
    into.write_text("# Okta's event types, release 2025.01.0\nuser.gone.type\nfiller.type_1.make\n", encoding="utf-8")
    changed = refresh(okta_csv(tmp_path / "okta.csv", '"user.new.thing","New","2026.09.2","",""'), into)
    assert (changed.before, changed.after, changed.gone) == ("2025.01.0", "2026.09.2", ("user.gone.type",))
    assert "user.new.thing" in changed.added
    assert "filler.type_1.make" not in changed.added
    assert Catalogue.load(into) == published(tmp_path / "okta.csv")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["catalogue.csv", "okta.csv"], "nothing half written is left"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<html>Service unavailable</html>\n", "not Okta's list"),
        (HEAD + '"user.session.start","x","2026.08.1","",""\n', "not the whole list"),
        (HEAD + '"../../etc","x","2026.08.1","",""\n', "is no name"),
        (HEAD + '"user.session.start","x"\n', "cut short"),
        ("", "not Okta's list"),
    ],
)
def test_what_is_not_okta_s_list_changes_nothing(tmp_path: Path, text: str, reason: str) -> None:
    source, into = tmp_path / "okta.csv", tmp_path / "catalogue.csv"
    source.write_text(text, encoding="utf-8")
    into.write_bytes(BUILT_IN.read_bytes())
    with pytest.raises(ConfigurationError, match=reason):
        refresh(source, into)
    assert into.read_bytes() == BUILT_IN.read_bytes()


def test_a_broken_catalogue_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.csv"
    path.write_text("# Okta's event types, release 1\nuser.session.start\nnot a name\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"catalogue\.csv:3: 'not a name'"):
        Catalogue.load(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Catalogue.load(tmp_path / "nowhere.csv")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        Catalogue.load(path)
