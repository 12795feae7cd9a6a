"""Where a command about rules runs: with a configuration or without, and what that makes of rules, guards and lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from handlers.protected import ProtectedList, load_protected
from model.settings import Settings, load
from rules.backtest import Make
from rules.classify import Classifier
from rules.guards import GuardSettings, OwnActor
from rules.lifecycle import Lifecycle
from rules.lower import Guards
from rules.ruleset import RuleSet

_USUAL = Path("portcullis.toml")

CONFIG = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="The configuration (default: portcullis.toml where there is one)."
)
RULES = click.option("--rules", "folder", type=click.Path(path_type=Path, exists=True), help="Sigma files instead of the configured ones.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command runs: a configuration, or none."""

    settings: Settings
    configured: bool

    @property
    def guards(self) -> GuardSettings:
        return GuardSettings.load(self.settings.rules.guards)

    def ruleset(self, folder: Path | None = None) -> RuleSet:
        return RuleSet.load(folder or self.settings.rules.detections, self.guards.sigma_placeholders())

    @property
    def protected(self) -> ProtectedList | None:
        return load_protected(self.settings.safety.protected) if self.configured else None

    def make(self, ruleset: RuleSet, protected: ProtectedList | None) -> Make:
        """tenant → a classifier with the house's guards, as the classifier's role has it but for our own actor, which only Okta knows."""
        guards, lifecycle = self.guards, Lifecycle.load()

        def made(tenant: str) -> Classifier:
            ids = [person for where, person in protected.people if where == tenant] if protected else []
            return Classifier(ruleset, lifecycle, Guards(guards, ids, OwnActor()))

        return made


def place_of(config: Path | None) -> Place:
    if config is None and not _USUAL.is_file():
        return Place(Settings(), False)
    return Place(load(config or _USUAL), True)
