"""What holds for every test: a closed network, a clean environment, canaries, and data that is skipped at home but not in CI."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import network
from tests.support.canary import Canaries
from tests.support.clock import FakeClock
from tests.support.kafka_fixtures import jvm as jvm
from tests.support.kafka_fixtures import kafka as kafka
from tests.support.kafka_fixtures import kafka_broker as kafka_broker
from tests.support.kafka_fixtures import kafka_server as kafka_server
from tests.support.missing import in_ci, missing

ROOT = Path(__file__).parents[1]

#: Variables that would change what the code under test does.
FOREIGN = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "PYTHONASYNCIODEBUG", "COLUMNS")

# No deadline: the machine is shared. In CI the same examples every time, so that a red run can be repeated.
settings.register_profile("portcullis", deadline=None, derandomize=in_ci())
settings.load_profile("portcullis")

_guard = network.Guard()
_watch = pytest.StashKey["_Watch"]()


def pytest_configure(config: pytest.Config) -> None:
    for name in FOREIGN:
        os.environ.pop(name, None)
        os.environ.pop(name.lower(), None)
    # Kept aside for the fixture `kafka`: `model.settings.load` would read it in every test of a configuration.
    if bootstrap := os.environ.pop("KAFKA_BOOTSTRAP", None):
        os.environ["PORTCULLIS_TEST_KAFKA"] = bootstrap


def pytest_sessionstart(session: pytest.Session) -> None:
    factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    base = factory.getbasetemp()
    watch = _Watch(base, Canaries(factory.mktemp("vault")))
    session.config.stash[_watch] = watch
    session.config.pluginmanager.register(watch)
    os.environ.update(network.child_environment(base / "network.log"))
    _guard.install()


class _Watch:
    """Listens to what tests print, log and show in failures; judges the session at its end."""

    def __init__(self, base: Path, canaries: Canaries) -> None:
        self._base = base
        self.canaries = canaries
        self._findings: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for title, text in report.sections:
            self.canaries.listen(f"{report.nodeid} ({title})", text)
        if report.failed:
            self.canaries.listen(f"{report.nodeid} (failure)", report.longreprtext)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        gc.unfreeze()  # extension modules report what is still frozen at exit as leaked
        self._findings = [f"a secret leaked: {hit}" for hit in self.canaries.search(self._base)]
        log = self._base / "network.log"
        if log.exists():
            self._findings += [f"a child process left loopback: {line}" for line in log.read_text().splitlines()]
        if self._findings and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for finding in self._findings:
            terminalreporter.write_line(f"FAILED {finding}", red=True)


@pytest.fixture(autouse=True)
def _closed_network() -> Iterator[None]:
    """Fails the test that tried to leave loopback, also where its code swallowed the refusal."""
    _guard.take()
    yield
    if refused := _guard.take():
        pytest.fail("left loopback: " + "; ".join(refused), pytrace=False)


@pytest.fixture(autouse=True)
def _own_garbage(request: pytest.FixtureRequest) -> Iterator[None]:
    """A socket, task or process that an asynchronous test forgot is reported in that test, not in whichever runs when it is collected.
    What survives is not walked again: the rest of the suite would pay for every module and session fixture, 0.1 s a test."""
    yield
    if request.node.get_closest_marker("asyncio"):
        gc.collect()
        gc.freeze()


@pytest.fixture
def network_guard() -> network.Guard:
    """For tests of the guard itself: `take()` what was refused, or the test fails."""
    return _guard


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with samples, specs and tables that stand beside the project and are no part of it."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        missing("../shared is absent: tests on its samples are left out")
    return path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def canary(request: pytest.FixtureRequest) -> Canaries:
    """`canary(name)` is a secret that the end of the session looks for everywhere; `canary.file(name)` is a file that holds it."""
    return request.config.stash[_watch].canaries
