"""From a configuration to running roles: who needs what, built once, in one place.

A role is a service with `start`, `stop`, `failed`, `lag`. In production each is a process of its own; `all` is one process for evaluation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from handlers import registry
from handlers.contract import Clock, Target
from handlers.converge import Converger
from handlers.limits import Limits
from handlers.lockdown import Lockdown
from handlers.okta.directory import OktaDirectory
from handlers.protected import ProtectedList, load_protected
from model.errors import CredentialsRefused, PermanentError, TemporaryError
from model.settings import Settings
from rules.classify import Classifier
from rules.guards import GuardSettings, OwnActor
from rules.lifecycle import Lifecycle
from rules.lower import Guards
from rules.policy import Policy
from rules.reload import Reloader
from rules.ruleset import BUILT_IN, RuleSet
from stream import topics
from stream.books import Links
from stream.breakers import BreakerNews
from stream.broker import Broker
from stream.classify import ClassifyRole
from stream.lockdown import LockdownRole
from stream.notify import NotifyRole
from stream.poller import Poller
from stream.provision import ProvisionRole
from stream.record import RecordRole
from stream.rulebook import Rulebook
from stream.state import State
from stream.sweep import Sweep

log = logging.getLogger(__name__)

ROLES = ("poller", "classifier", "lockdown", "provision", "recorder")


class Role(Protocol):
    """What runs. `failed` never returns: it raises when the role cannot go on. `lag`: what it has not yet worked through."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def failed(self) -> None: ...
    async def lag(self) -> int: ...


@dataclass(slots=True)
class House:
    """Everything that roles share in one process."""

    settings: Settings
    broker: Broker
    clock: Clock
    limits: list[Limits]
    own_actors: dict[str, frozenset[str]]
    protected: ProtectedList
    news: BreakerNews
    directory: OktaDirectory | None = None
    targets: dict[str, Target] | None = None

    def fleet(self) -> dict[str, dict[str, Target]]:
        """tenant → target name → target: an Okta target stands in its own tenant only, the others in every tenant that they serve."""
        assert self.targets is not None
        fleet: dict[str, dict[str, Target]] = {tenant: {} for tenant in self.settings.okta}
        for name, target in self.targets.items():
            for tenant in tenants_of(self.settings, name):
                fleet[tenant][name] = target
        return fleet

    async def close(self) -> None:
        if self.targets is not None:
            await registry.close_targets(self.targets)
        if self.directory is not None:
            await self.directory.aclose()


def tenants_of(settings: Settings, connector: str) -> tuple[str, ...]:
    """Whom a target serves; a directory (`okta.NAME`) its own tenant."""
    one = settings.targets.get(connector)
    if one is None:
        return (connector.removeprefix("okta."),)
    if one.tenant is not None:
        return (one.tenant,)
    return (settings.tenant_of(one),) if one.kind == "okta" else tuple(settings.okta)


async def build_house(settings: Settings, broker: Broker, clock: Clock, roles: Iterable[str], *, policy: Policy) -> House:
    """Opens what the given roles need. Learns our own actor of each tenant (D5): an Okta that does not answer now is no reason not to
    start, a credential that it refuses is told and our own actor stays unknown."""
    limits: list[Limits] = []
    news = BreakerNews(clock, lambda connector: tenants_of(settings, connector))
    house = House(settings, broker, clock, limits, {}, load_protected(settings.safety.protected), news)
    wanted = set(roles)
    if wanted & {"classifier", "lockdown", "provision"}:
        house.directory = registry.build_directory(settings, clock, on_breaker=news.moved, limits=limits)
        house.own_actors = await own_actors(house.directory, settings)
        people = [(tenant, actor) for tenant, actors in house.own_actors.items() for actor in actors]
        house.protected = house.protected.with_own(people)
    if wanted & {"lockdown", "provision"}:
        folders = {name: policy.folders(one.kind, name) for name, one in settings.targets.items()}
        house.targets = registry.build_targets(settings, clock, folders, on_breaker=news.moved, limits=limits)
    if not house.protected.is_trusted:
        log.warning("protected people: %s (until then no lockdown and no removal without approval)", house.protected.problem)
    return house


async def own_actors(directory: OktaDirectory, settings: Settings) -> dict[str, frozenset[str]]:
    """tenant → ids by which Okta's log names ourselves."""
    found: dict[str, frozenset[str]] = {}
    for tenant, okta in settings.okta.items():
        try:
            actor = await directory.own_actor(tenant, "provision")
        except (TemporaryError, PermanentError, CredentialsRefused) as error:
            log.warning("our own actor at %s is not known (%s): our own actions will be looked at like everybody's", tenant, error)
            found[tenant] = frozenset({okta.client_id} if okta.client_id else ())
            continue
        found[tenant] = frozenset({actor})
        log.info("our own actor at %s is %s", tenant, actor)
    return found


def build_roles(house: House, roles: Iterable[str], policy: Policy, ruleset: RuleSet | None = None) -> dict[str, Role]:
    """The roles by name, in the order in which they start: readers before writers."""
    wanted = set(roles)
    built: dict[str, Role] = {}
    if "recorder" in wanted:
        built |= _recorder(house)
    if "lockdown" in wanted:
        built["lockdown"] = _lockdown(house)
    if "provision" in wanted:
        built["provision"] = _provision(house, policy)
    if "classifier" in wanted:
        built["classifier"] = _classifier(house, ruleset)
    if "poller" in wanted:
        built["poller"] = _poller(house)
    return built


def _recorder(house: House) -> dict[str, Role]:
    """The one reader of the audit topic that owns the file, and beside it the one that talks to Slack."""
    built: dict[str, Role] = {"recorder": RecordRole(house.broker, house.settings.audit)}
    sender = registry.build_slack(house.settings, house.clock)
    if sender is not None and house.settings.slack is not None and not house.settings.dry_run:
        built["notifier"] = NotifyRole(house.broker, sender, house.settings.slack.channel, house.clock)
    return built


def _lockdown(house: House) -> LockdownRole:
    assert house.directory is not None
    role = LockdownRole(house.broker, house.settings, house.clock)
    role.beside.append(partial(house.news.tell_forever, role.publisher))
    links_state = State(house.broker, role.publisher, topics.LINKS, lambda key, value: links.changed(key, value))
    links = Links(links_state)
    role.more.append(links_state)
    role.engine = Lockdown(
        house.fleet(),
        house.directory,
        role.journal,
        role.keeper,
        role.keeper,
        links,
        role.worker,
        role.removals,
        house.protected,
        house.clock,
        dry_run=house.settings.dry_run,
        closings=role.keeper,
    )
    return role


def _provision(house: House, policy: Policy) -> ProvisionRole:
    assert house.directory is not None
    role = ProvisionRole(house.broker, house.settings, house.directory, house.clock)
    role.beside.append(partial(house.news.tell_forever, role.publisher))
    fleet = house.fleet()
    engine = Converger(
        fleet,
        house.directory,
        policy,
        role.journal,
        role.holds,
        role.links,
        role.worker,
        role.removals,
        house.protected,
        house.clock,
        transfer_hold_s=house.settings.safety.transfer_hold_s,
        dry_run=house.settings.dry_run,
        closings=role.holds,
    )
    targets = {tenant: tuple(name for name, target in ours.items() if target.kind != "okta") for tenant, ours in fleet.items()}
    role.use(engine, targets, house.limits)
    if house.settings.safety.sweep_every_s > 0:
        sweep = Sweep(role, house.directory, house.settings.okta, house.settings.safety, house.clock)
        role.beside.append(sweep.run_forever)
    return role


def _classifier(house: House, ruleset: RuleSet | None) -> ClassifyRole:
    settings = house.settings
    ruleset = load_rules(settings) if ruleset is None else ruleset
    make = classifier_maker(house, ruleset)
    role = ClassifyRole(house.broker, settings, make, house.protected, house.own_actors, house.clock)
    folder = settings.rules.detections or BUILT_IN
    if ruleset.folder == folder:  # a set that was handed in is not looked for anywhere
        watched = [folder] + ([settings.rules.guards] if settings.rules.guards else [])
        reloader = Reloader(ruleset, lambda: load_rules(settings), watched)
        role.rulebook = Rulebook(reloader, partial(classifier_maker, house), settings.okta, house.clock)
    return role


def load_rules(settings: Settings) -> RuleSet:
    """The rules of the configuration, with the placeholders that its guards define. Raises ConfigurationError."""
    return RuleSet.load(settings.rules.detections, GuardSettings.load(settings.rules.guards).sigma_placeholders())


def classifier_maker(house: House, ruleset: RuleSet) -> Callable[[str], Classifier]:
    """tenant → a classifier with that tenant's guards and an empty memory."""
    guards, lifecycle = GuardSettings.load(house.settings.rules.guards), Lifecycle.load()

    def make(tenant: str) -> Classifier:
        protected = [person for where, person in house.protected.people if where == tenant]
        actors = tuple(house.own_actors.get(tenant, ()))
        return Classifier(ruleset, lifecycle, Guards(guards, protected, OwnActor(actors=actors, clients=actors)))

    return make


def _poller(house: House) -> Poller:
    apis = {tenant: registry.build_log(house.settings, tenant, house.clock) for tenant in house.settings.okta}
    return Poller(house.broker, house.settings.okta, apis, house.clock)


def policy_of(settings: Settings) -> Policy:
    folder: Path | None = settings.rules.access
    return Policy.load(folder)
