"""The house itself: its floors, its rooms' sizes, its locks, and what may stand nowhere in it."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FLOORS = ("audit", "bench", "handlers", "model", "rules", "simulators", "stream")
#: Rooms grow past their purpose before they grow past this; around 200 lines is what is aimed at.
LONGEST = 450
LOCKS = ("requirements.lock", "requirements-runtime.lock")


def tracked() -> list[Path]:
    """Every file of the project, whether it was cloned or unpacked."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0 and done.stdout:
        return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
    hidden = {".venv", ".git", ".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__", "build", "data"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not hidden & set(path.relative_to(ROOT).parts)]


FILES = tracked()
MODULES = [path for path in FILES if path.suffix == ".py"]
SOURCES = [path for path in MODULES if path.relative_to(ROOT).parts[0] in FLOORS]


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# --- floors and rooms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", FLOORS)
def test_every_floor_is_a_package_that_says_what_it_is_for(floor: str) -> None:
    init = ROOT / floor / "__init__.py"
    assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8")))


@pytest.mark.parametrize("floor", FLOORS)
def test_tests_mirror_the_floors(floor: str) -> None:
    modules = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == floor and path.name != "__init__.py"]
    assert not modules or list((ROOT / "tests" / floor).glob("**/test_*.py")), f"tests/{floor} holds no test"


def test_every_module_says_why_it_is_there() -> None:
    silent = [short(path) for path in MODULES if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not silent


def test_rooms_are_small() -> None:
    long = {short(path): lines for path in SOURCES if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST}
    assert not long, "split them where they have grown past their purpose"


def test_the_import_contracts_cover_every_floor_and_every_target(project: dict[str, Any]) -> None:
    linter = project["tool"]["importlinter"]
    assert set(linter["root_packages"]) == set(FLOORS)
    independent = next(contract for contract in linter["contracts"] if contract["type"] == "independence")
    targets = {f"handlers.{path.parent.name}" for path in (ROOT / "handlers").glob("*/target.py")}
    assert set(independent["modules"]) == targets


def test_imports_point_down() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_settings_of_tools_and_of_the_wheel_name_the_same_floors(project: dict[str, Any]) -> None:
    tool = project["tool"]
    assert {name for name in tool["setuptools"]["packages"]["find"]["include"] if "*" not in name} == set(FLOORS)
    assert set(tool["mypy"]["files"]) == {*FLOORS, "tests"}
    assert tool["mypy"]["strict"] is True
    assert tool["pytest"]["ini_options"]["filterwarnings"] == ["error"]


# --- what may stand nowhere -------------------------------------------------------------------------------------------


def texts() -> Iterator[tuple[str, str]]:
    for path in FILES:
        try:
            yield short(path), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_no_path_of_one_machine() -> None:
    machine = re.compile(r"(?:^|[^A-Za-z0-9_.])/(?:work|farm|root|Users)/|/home/[a-z]+/")
    assert [name for name, text in texts() if machine.search(text)] == []


def test_no_package_index_is_named() -> None:
    """Locks carry names, versions and hashes; where packages come from is the machine's own business."""
    index = re.compile(
        r"--(?:extra-)?index-url|--find-links|registry = .?https?:|.resolved.: .https?:|\b(?:pypi\.org|files\.pythonhosted|repo1?\.maven)"
    )
    assert [name for name, text in texts() if index.search(text) and name != short(Path(__file__))] == []
    for lock in LOCKS:
        assert "://" not in (ROOT / lock).read_text(encoding="utf-8")


def test_nothing_is_left_for_later() -> None:
    """Neither words that promise work nor bodies that do none."""
    promise = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b|\bNotImplementedError\b")
    assert [
        name for name, text in texts() if name.endswith((".py", ".toml", ".yml")) and promise.search(text) and name != short(Path(__file__))
    ] == []


def test_no_large_files() -> None:
    assert [short(path) for path in FILES if path.stat().st_size > 1_000_000] == []


def test_nothing_was_copied_from_the_data_beside_the_project(shared: Path) -> None:
    theirs = {_digest(path) for folder in ("samples", "specs") for path in (shared / folder).rglob("*") if path.is_file()}
    assert theirs
    assert [short(path) for path in FILES if _digest(path) in theirs] == []


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- documents --------------------------------------------------------------------------------------------------------


def test_paths_that_documents_name_exist() -> None:
    """A path in backticks that begins with a folder of ours."""
    folders = {path.relative_to(ROOT).parts[0] for path in FILES if len(path.relative_to(ROOT).parts) > 1}
    named = re.compile(r"`((?:" + "|".join(sorted(map(re.escape, folders))) + r")/[A-Za-z0-9_./-]+)`")
    documents = {short(path): path.read_text(encoding="utf-8") for path in FILES if path.suffix == ".md"}
    missing = {(name, path) for name, text in documents.items() for path in named.findall(text) if not (ROOT / path.rstrip("/")).exists()}
    assert not missing


def test_decisions_are_numbered_listed_and_whole() -> None:
    folder = ROOT / "docs" / "adr"
    decisions = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in decisions] == list(range(1, len(decisions) + 1))
    index = (folder / "README.md").read_text(encoding="utf-8")
    for name in decisions:
        text = (folder / name).read_text(encoding="utf-8")
        assert f"]({name})" in index
        assert text.startswith(f"# {name[:4]} ")
        for heading in ("\nStatus: ", "\n## What had to be decided\n", "\n## Decision\n", "\n## What follows\n", "\n## Rejected\n"):
            assert heading in text, f"{name}: {heading.strip()}"


# --- scripts ----------------------------------------------------------------------------------------------------------

SCRIPTS = [".ci/run", "script/setup", "script/demo", "script/test", "script/kafka", "script/lock"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_strict_and_executable(name: str) -> None:
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    assert os.access(path, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n#"), "says what it does"
    assert "set -euo pipefail" in text
    subprocess.run(["bash", "-n", path], check=True)


def test_the_commands_go_through_setup_and_ci_through_test() -> None:
    for name in ("demo", "test"):
        assert "script/setup" in (ROOT / "script" / name).read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "exec bash script/test" in ci
    assert "export CI=true" in ci


# --- dependencies and locks -------------------------------------------------------------------------------------------


def lock(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Package → (version, hashes) of a lock file."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    text = re.sub(r"\\\n\s*", " ", (ROOT / name).read_text(encoding="utf-8"))
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            pinned = re.match(r"([A-Za-z0-9._-]+)==(\S+)", line)
            assert pinned, f"{name}: not pinned: {line[:80]}"
            found[canonicalize_name(pinned[1])] = (pinned[2], frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", line)))
    return found


def requirements(project: dict[str, Any], *extras: str) -> list[Requirement]:
    lines = [*project["project"]["dependencies"]]
    for extra in extras:
        lines += project["project"]["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes(name: str) -> None:
    pins = lock(name)
    assert len(pins) > 30
    assert [package for package, (_, hashes) in pins.items() if not hashes] == []


def test_the_lock_answers_the_project(project: dict[str, Any]) -> None:
    pins = lock("requirements.lock")
    for requirement in requirements(project, *project["project"]["optional-dependencies"]):
        version, _ = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(Version(version)), f"{requirement} is locked to {version}: run script/lock"


def test_the_runtime_lock_is_the_lock_without_the_tools(project: dict[str, Any]) -> None:
    everything, runtime = lock("requirements.lock"), lock("requirements-runtime.lock")
    assert runtime.items() <= everything.items(), "run script/lock"
    assert {canonicalize_name(one.name) for one in requirements(project, "build")} <= set(runtime)
    tools = {canonicalize_name(Requirement(line).name) for line in project["project"]["optional-dependencies"]["dev"]}
    assert not (tools - {"types-pyyaml"}) & set(runtime)


def test_every_dependency_is_bounded_below_and_above(project: dict[str, Any]) -> None:
    for requirement in requirements(project, *project["project"]["optional-dependencies"]):
        operators = {spec.operator for spec in requirement.specifier}
        assert "==" in operators or {">=", "<"} <= operators, str(requirement)


def test_what_the_product_stands_on_is_there(project: dict[str, Any]) -> None:
    names = {canonicalize_name(one.name) for one in requirements(project)}
    assert {"faust-streaming", "aiokafka", "httpx", "pydantic", "slack-sdk", "duckdb"} <= names
    assert project["project"]["scripts"]["portcullis"] == "stream.cli:main"
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
