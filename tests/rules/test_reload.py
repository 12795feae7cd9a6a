"""A change is taken up when it stands still, refused with its line, and what is refused changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.errors import ConfigurationError
from rules.guards import GuardSettings
from rules.reload import Refused, Reloaded, Reloader, content_of, version_of
from rules.ruleset import RuleSet


def write(folder: Path, name: str, **selection: Any) -> Path:
    document = {
        "title": name,
        "name": name,
        "logsource": {"product": "okta", "service": "okta"},
        "detection": {"selection": {"eventType": "user.session.start"} | selection, "condition": "selection"},
    }
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "rules"
    found.mkdir()
    write(found, "one")
    write(found, "two")
    return found


def reloader(folder: Path, load: Callable[[], RuleSet] | None = None) -> Reloader:
    """One that knows what is there."""
    made = Reloader(RuleSet.load(folder), load or (lambda: RuleSet.load(folder)), [folder])
    assert settled(made) is None
    return made


def settled(made: Reloader) -> Reloaded | Refused | None:
    """What two looks in a row say."""
    assert made.look() is None, "a change is not taken up at first sight"
    return made.look()


def test_where_nothing_changes_nothing_is_loaded_again(folder: Path) -> None:
    loads: list[int] = []

    def load() -> RuleSet:
        loads.append(1)
        return RuleSet.load(folder)

    made = reloader(folder, load)
    before = len(loads)
    os.utime(folder / "one.yml", (1, 1))
    assert [made.look() for _ in range(5)] == [None] * 5
    assert len(loads) == before


def test_a_change_is_taken_over_and_says_what_is_other(folder: Path) -> None:
    made = reloader(folder)
    before = made.current
    write(folder, "one", **{"outcome.result": "SUCCESS"})
    write(folder, "three")
    (folder / "two.yml").unlink()
    outcome = settled(made)
    assert isinstance(outcome, Reloaded)
    assert (outcome.added, outcome.removed, outcome.changed) == (("three",), ("two",), ("one",))
    assert (outcome.before, outcome.version) == (version_of(before), version_of(outcome.ruleset))
    assert made.current is outcome.ruleset
    assert outcome.ruleset.rules_by_id["one"].version != before.rules_by_id["one"].version
    assert [made.look() for _ in range(3)] == [None] * 3, "it is told once"


def test_a_time_stamp_that_stays_hides_no_change(folder: Path) -> None:
    made = reloader(folder)
    path = folder / "one.yml"
    stat = path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("session.start", "session.begun"), encoding="utf-8")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    outcome = settled(made)
    assert isinstance(outcome, Reloaded)
    assert outcome.changed == ("one",)


@pytest.mark.fault(54)
def test_an_invalid_set_is_refused_with_file_and_line_and_the_old_one_stays(folder: Path) -> None:
    made = reloader(folder)
    old = made.current
    good = (folder / "one.yml").read_text(encoding="utf-8")
    write(folder, "one", **{"actor.id|re": "(?=x)"})
    write(folder, "three")
    outcome = settled(made)
    assert isinstance(outcome, Refused)
    assert outcome.path == str(folder / "one.yml")
    assert "actor.id|re" in (folder / "one.yml").read_text(encoding="utf-8").splitlines()[outcome.line - 1]
    assert outcome.place == f"{folder / 'one.yml'}:{outcome.line}"
    assert outcome.reason
    assert outcome.version == version_of(old)
    assert made.current is old
    assert [made.look() for _ in range(4)] == [None] * 4, "the same refusal is told once"
    (folder / "one.yml").write_text(good, encoding="utf-8")
    mended = settled(made)
    assert isinstance(mended, Reloaded)
    assert mended.added == ("three",)


def test_what_was_refused_and_goes_back_is_told(folder: Path) -> None:
    made = reloader(folder)
    old = made.current
    (folder / "bad.yml").write_text("title: [", encoding="utf-8")
    refused = settled(made)
    assert isinstance(refused, Refused)
    assert (refused.path, refused.line > 0) == (str(folder / "bad.yml"), True)
    (folder / "bad.yml").unlink()
    back = settled(made)
    assert isinstance(back, Reloaded)
    assert (back.ruleset, back.added, back.removed, back.changed) == (old, (), (), ())
    (folder / "bad.yml").write_text("title: [", encoding="utf-8")
    assert isinstance(settled(made), Refused), "the same mistake made again is told again"


def test_an_empty_or_missing_folder_is_refused(folder: Path) -> None:
    made = reloader(folder)
    files = list(folder.iterdir())
    for path in files:
        path.unlink()
    outcome = settled(made)
    assert isinstance(outcome, Refused)
    assert (outcome.path, outcome.line) == (str(folder), 0)
    assert "no rules" in outcome.reason
    folder.rmdir()
    assert isinstance(settled(made), Refused)
    assert len(made.current) == 2


def test_a_set_that_is_still_being_written_is_waited_for(folder: Path) -> None:
    made = reloader(folder)
    for number in range(4):
        write(folder, f"new{number}")
        assert made.look() is None
    outcome = made.look()
    assert isinstance(outcome, Reloaded)
    assert len(outcome.added) == 4


def test_a_set_that_changes_while_it_is_read_is_read_again(folder: Path) -> None:
    late: list[str] = ["late"]

    def load() -> RuleSet:
        found = RuleSet.load(folder)
        if len(found) == 3 and late:
            write(folder, late.pop())
        return found

    made = reloader(folder, load)
    write(folder, "three")
    assert settled(made) is None
    outcome = settled(made)
    assert isinstance(outcome, Reloaded)
    assert outcome.added == ("late", "three")


def test_what_changed_while_we_started_is_found(folder: Path) -> None:
    started_with = RuleSet.load(folder)
    write(folder, "three")
    outcome = settled(Reloader(started_with, lambda: RuleSet.load(folder), [folder]))
    assert isinstance(outcome, Reloaded)
    assert outcome.added == ("three",)


def test_a_defect_in_loading_is_a_refusal(folder: Path) -> None:
    broken = False

    def load() -> RuleSet:
        if broken:
            raise ZeroDivisionError("a parser with a defect")
        return RuleSet.load(folder)

    made = reloader(folder, load)
    broken = True
    write(folder, "three")
    outcome = settled(made)
    assert isinstance(outcome, Refused)
    assert "ZeroDivisionError" in outcome.reason
    assert len(made.current) == 2


def test_the_guards_file_is_watched_as_well(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "guards.toml"
    path.write_text('[networks]\ntrusted = ["192.0.2.0/24"]\n', encoding="utf-8")

    def load() -> RuleSet:
        return RuleSet.load(folder, GuardSettings.load(path).sigma_placeholders())

    made = Reloader(load(), load, [folder, path])
    assert settled(made) is None
    path.write_text('[networks]\ntrusted = ["198.51.100.0/24"]\n', encoding="utf-8")
    outcome = settled(made)
    assert isinstance(outcome, Reloaded)
    assert (outcome.added, outcome.removed, outcome.changed, outcome.before) == ((), (), (), outcome.version)
    path.write_text("[networks]\ntrusted = 5\n", encoding="utf-8")
    refused = settled(made)
    assert isinstance(refused, Refused)
    assert (refused.path, "trusted" in refused.reason) == (str(path), True)


def test_content_is_names_and_bytes_of_rules_only(folder: Path) -> None:
    before = content_of([folder])
    (folder / "one.cases.jsonl").write_text("{}", encoding="utf-8")
    assert content_of([folder]) == before
    (folder / "one.yml").rename(folder / "uno.yml")
    assert content_of([folder]) != before
    with pytest.raises(ConfigurationError):
        RuleSet.load(folder / "nowhere")
    assert content_of([folder / "nowhere"]) != before
