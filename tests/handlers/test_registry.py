"""From a configuration file to targets and directory that work against the simulators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handlers.box.target import BoxTarget
from handlers.limits import BreakerState, BreakerView, Limits
from handlers.okta.target import OktaTarget
from handlers.registry import build_directory, build_log, build_slack, build_targets, close_targets
from model.decision import Scope
from model.errors import BreakerOpen, ConfigurationError, CredentialsRefused, UnsafePlan
from model.person import Person, PersonStatus
from model.settings import Settings, load
from simulators.box import BoxSimulator
from simulators.okta import OktaSimulator
from simulators.slack import SlackSimulator
from tests.support.canary import Canaries
from tests.support.clock import FakeClock


class Vendors:
    def __init__(self, canary: Canaries) -> None:
        self.canary = canary
        self.okta, self.box = (
            OktaSimulator(lag=0.0),
            BoxSimulator(client_id="app", client_secret=canary("registry-box"), enterprise_id="42"),
        )
        self.slack = SlackSimulator(token=canary("registry-slack"))
        self.okta.add_token(canary("registry-okta"))
        self.slack.add_channel("secops", id="C1")

    def configuration(self, folder: Path, extra: str = "", box: str = "") -> Settings:
        path = folder / "portcullis.toml"
        path.write_text(
            f"""
            {extra}
            [okta.acme]
            url = "{self.okta.url}"
            token_file = "{self.canary.file("registry-okta")}"
            [targets.okta]
            kind = "okta"
            [targets.box]
            kind = "box"
            url = "{self.box.url}/2.0"
            client_id = "app"
            client_secret_file = "{self.canary.file("registry-box")}"
            enterprise_id = "42"
            {box}
            [slack]
            url = "{self.slack.url}/api"
            token_file = "{self.canary.file("registry-slack")}"
            channel = "C1"
            """
        )
        return load(path)


@pytest.fixture
async def vendors(canary: Canaries) -> AsyncIterator[Vendors]:
    vendors = Vendors(canary)
    for one in (vendors.okta, vendors.box, vendors.slack):
        await one.start()
    yield vendors
    for one in (vendors.okta, vendors.box, vendors.slack):
        await one.stop()
        assert one.crashes == []


async def test_everything_works_from_one_file(vendors: Vendors, tmp_path: Path, clock: FakeClock) -> None:
    settings = vendors.configuration(tmp_path)
    user = vendors.okta.org.seed_user({"login": "ada@corp.example", "email": "ada@corp.example", "firstName": "A", "lastName": "B"})
    account = vendors.box.add_user("ada@corp.example", "Ada")
    vendors.box.add_folder("Sales")
    directory = build_directory(settings, clock)
    targets = build_targets(settings, clock, {"box": ("Sales",)})
    person = await directory.person("acme", user.id, "lockdown")
    assert {name: type(target) for name, target in targets.items()} == {"okta": OktaTarget, "box": BoxTarget}
    for target in targets.values():
        seen = await target.observe(person, None, "lockdown")
        assert seen.account is not None
        for change in target.closing(seen.account, Scope.FULL):
            await target.apply(change, "i-1", "lockdown")
    assert vendors.okta.org.user(user.id).status == "SUSPENDED"
    assert vendors.box.store.users[account].status == "inactive"
    slack = build_slack(settings, clock)
    assert slack is not None
    assert await slack.post("C1", "hello", [], "i-2")
    log = build_log(settings, "acme", clock)
    since = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (await log.log_page(log.first_log_url(since, 10))).status == 200
    for one in (directory, slack, log):
        await one.aclose()
    await close_targets(targets)


async def test_a_dry_run_can_not_mutate_at_all(vendors: Vendors, tmp_path: Path, clock: FakeClock) -> None:
    """E8 holds below the engine, too: the clients refuse."""
    settings = vendors.configuration(tmp_path).model_copy(update={"dry_run": True})
    vendors.box.add_user("ada@corp.example", "Ada")
    targets = build_targets(settings, clock)
    person = Person(tenant="acme", id="00u1", status=PersonStatus.ACTIVE, login="ada@corp.example")
    seen = await targets["box"].observe(person, None, "provision")
    assert seen.account is not None
    for change in targets["box"].closing(seen.account, Scope.FULL):
        with pytest.raises(UnsafePlan):
            await targets["box"].apply(change, "i-1", "lockdown")
    slack = build_slack(settings, clock)
    assert slack is not None
    with pytest.raises(UnsafePlan):
        await slack.post("C1", "hello", [], "i-2")
    assert vendors.box.calls.after(0) == vendors.slack.calls.after(0) == []
    await close_targets(targets)
    await slack.aclose()


async def test_a_breaker_that_moves_is_told_and_the_other_lane_goes_on(vendors: Vendors, tmp_path: Path, clock: FakeClock) -> None:
    settings, told, limits = vendors.configuration(tmp_path), list[BreakerView](), list[Limits]()
    targets = build_targets(settings, clock, on_breaker=told.append, limits=limits)
    vendors.box.faults.add({"path": "/2.0/*", "status": 401, "times": 2})
    with pytest.raises(CredentialsRefused):
        await targets["box"].look("1", "provision")
    with pytest.raises(BreakerOpen):
        await targets["box"].look("1", "provision")
    assert await targets["box"].look("1", "lockdown") is None
    assert [(view.connector, view.lane, view.state) for view in told] == [("box", "provision", BreakerState.OPEN)]
    assert sorted((one.connector, one.lane) for one in limits) == [
        ("box", "lockdown"),
        ("box", "provision"),
        ("okta", "lockdown"),
        ("okta", "provision"),
    ]
    await close_targets(targets)


async def test_a_secret_that_changed_on_disk_is_picked_up(vendors: Vendors, tmp_path: Path, clock: FakeClock) -> None:
    settings = vendors.configuration(tmp_path)
    secret = tmp_path / "rotated"
    secret.write_text("stale")
    box = settings.targets["box"].model_copy(update={"client_secret_file": secret})
    settings = settings.model_copy(update={"targets": {"box": box}})
    targets = build_targets(settings, clock)
    with pytest.raises(CredentialsRefused):
        await targets["box"].look("1", "provision")
    secret.write_text(vendors.canary("registry-box"))
    clock.shift(60)
    assert await targets["box"].look("1", "provision") is None
    secret.unlink()
    await close_targets(targets)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "okta", "tenant": "elsewhere"}, "no tenant 'elsewhere'"),
        ({"kind": "box", "client_id": "app"}, "enterprise_id"),
        ({"kind": "box", "enterprise_id": "1"}, "client_id"),
    ],
)
def test_what_is_missing_is_named_at_once(clock: FakeClock, change: dict[str, str], why: str) -> None:
    settings = Settings.model_validate({"okta": {"acme": {"url": "https://acme.okta.com", "token_env": "T"}}, "targets": {"one": change}})
    with pytest.raises(ConfigurationError, match=why):
        build_targets(settings, clock)


def test_with_several_tenants_an_okta_target_names_its_own(clock: FakeClock) -> None:
    tenants = {name: {"url": f"https://{name}.okta.com", "token_env": "T"} for name in ("acme", "beta")}
    with pytest.raises(ConfigurationError, match="several tenants"):
        build_targets(Settings.model_validate({"okta": tenants, "targets": {"okta": {"kind": "okta"}}}), clock)
    named = Settings.model_validate({"okta": tenants, "targets": {"okta": {"kind": "okta", "tenant": "beta"}}})
    target = build_targets(named, clock)["okta"]
    assert isinstance(target, OktaTarget)
    assert target.tenant == "beta"


def test_without_slack_there_is_no_sender(clock: FakeClock) -> None:
    assert build_slack(Settings(), clock) is None
