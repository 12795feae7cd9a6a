"""From settings to targets and directory: one line a kind of target. The only file that knows every vendor's folder.

Secrets are read when a client first needs them, so building fails on nothing but wrong configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from handlers.answers import Dialect
from handlers.auth import Auth, BoxClientCredentials, PrivateKeyJwt, StaticToken
from handlers.box.api import BOX, BoxApi
from handlers.box.target import BoxTarget
from handlers.client import Client
from handlers.contract import Clock, Lane, Target
from handlers.limits import BreakerView, Limits
from handlers.okta.api import OKTA, OktaApi
from handlers.okta.directory import OktaDirectory
from handlers.okta.target import OktaTarget
from handlers.slack import SlackSender
from model.errors import ConfigurationError
from model.settings import OktaSettings, Secret, Settings, TargetSettings

LANES: tuple[Lane, ...] = ("lockdown", "provision")
BOX_URL = "https://api.box.com/2.0"
BOX_TOKEN_URL = "https://api.box.com/oauth2/token"  # noqa: S105 - an address
OnChange = Callable[[BreakerView], None]


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every client is built from. `on_breaker` hears of each breaker that moves; in a dry run clients refuse to mutate."""

    settings: Settings
    clock: Clock
    on_breaker: OnChange | None = None
    limits: list[Limits] = field(default_factory=list)

    def client(self, name: str, dialect: Dialect, url: str, auth: Auth, lane: Lane, pace: TargetSettings) -> Client:
        share = pace.lockdown_share if lane == "lockdown" else 1 - pace.lockdown_share
        limits = Limits(
            name,
            lane,
            self.clock,
            per_minute=pace.rate_per_minute,
            share=share,
            reserve=0.0 if lane == "lockdown" else pace.lockdown_share,
            concurrency=pace.concurrency,
            on_change=self.on_breaker,
        )
        self.limits.append(limits)
        return Client(dialect, url, auth, limits, self.clock, timeout_s=pace.timeout_s, read_only=self.settings.dry_run)

    def okta(self, name: str, tenant: str, lane: Lane, pace: TargetSettings) -> OktaApi:
        okta = self._tenant(tenant, name)
        return OktaApi(self.client(name, OKTA, okta.url, _okta_auth(tenant, okta, self.clock), lane, pace), okta.url)

    def box(self, name: str, lane: Lane, box: TargetSettings) -> BoxApi:
        return BoxApi(self.client(name, BOX, box.url or BOX_URL, _box_auth(name, box, self.clock), lane, box))

    def _tenant(self, tenant: str, name: str) -> OktaSettings:
        if tenant not in self.settings.okta:
            known = ", ".join(self.settings.okta) or "none"
            raise ConfigurationError(f"targets.{name}: no tenant {tenant!r} under [okta]: known are {known}")
        return self.settings.okta[tenant]


def build_targets(
    settings: Settings,
    clock: Clock,
    policy_folders: Mapping[str, tuple[str, ...]] | tuple[str, ...] = (),
    *,
    on_breaker: OnChange | None = None,
    limits: list[Limits] | None = None,
) -> dict[str, Target]:
    """Target name → target, each with a client per lane. `policy_folders`: the folders that policy names, for all or by target.

    `limits` receives the limits of every client (breakers to show). Raises ConfigurationError.
    """
    shop = Workshop(settings, clock, on_breaker, limits if limits is not None else [])
    targets: dict[str, Target] = {}
    for name, one in settings.targets.items():
        folders = policy_folders.get(name, ()) if isinstance(policy_folders, Mapping) else policy_folders
        targets[name] = _KINDS[one.kind](shop, name, one, folders)
    return targets


def build_directory(
    settings: Settings, clock: Clock, *, on_breaker: OnChange | None = None, limits: list[Limits] | None = None
) -> OktaDirectory:
    """The directory over every tenant, at the pace of the tenant's Okta target where there is one. Its clients are its own: a
    target's breaker does not blind it."""
    shop = Workshop(settings, clock, on_breaker, limits if limits is not None else [])
    paces = {settings.tenant_of(one): one for one in settings.targets.values() if one.kind == "okta"}
    apis = {
        tenant: {lane: shop.okta(f"okta.{tenant}", tenant, lane, paces.get(tenant, TargetSettings(kind="okta"))) for lane in LANES}
        for tenant in settings.okta
    }
    clients = {tenant: okta.client_id for tenant, okta in settings.okta.items() if okta.client_id}
    return OktaDirectory(apis, clients)


def build_log(settings: Settings, tenant: str, clock: Clock) -> OktaApi:
    """The API for a tenant's poller: it paces itself by the headers, so neither budget nor breaker stand before `log_page`."""
    return Workshop(settings, clock).okta(f"okta.{tenant}.log", tenant, "provision", TargetSettings(kind="okta", timeout_s=40))


def build_slack(settings: Settings, clock: Clock) -> SlackSender | None:
    """None where the configuration has no [slack]."""
    slack = settings.slack
    if slack is None:
        return None
    return SlackSender(lambda: slack.token.read("slack.token"), slack.url, clock, read_only=settings.dry_run)


async def close_targets(targets: Mapping[str, Target]) -> None:
    for target in targets.values():
        if isinstance(target, OktaTarget | BoxTarget):
            await target.aclose()


def _okta_target(shop: Workshop, name: str, settings: TargetSettings, folders: tuple[str, ...]) -> Target:
    tenant = settings.tenant or (next(iter(shop.settings.okta)) if len(shop.settings.okta) == 1 else "")
    if not tenant:
        raise ConfigurationError(f"targets.{name}: several tenants are configured: name one with tenant = …")
    return OktaTarget(name, tenant, {lane: shop.okta(name, tenant, lane, settings) for lane in LANES})


def _box_target(shop: Workshop, name: str, settings: TargetSettings, folders: tuple[str, ...]) -> Target:
    return BoxTarget(name, {lane: shop.box(name, lane, settings) for lane in LANES}, shop.clock, folders)


_KINDS: dict[str, Callable[[Workshop, str, TargetSettings, tuple[str, ...]], Target]] = {
    "okta": _okta_target,
    "box": _box_target,
}


def _okta_auth(tenant: str, okta: OktaSettings, clock: Clock) -> Auth:
    if okta.client_id and okta.key_file:
        key = Secret(file=okta.key_file)
        return PrivateKeyJwt(clock, f"{okta.url}/oauth2/v1/token", okta.client_id, lambda: key.read(f"okta.{tenant}.key"), okta.scopes)
    return StaticToken("SSWS", lambda: okta.token.read(f"okta.{tenant}.token"))


def _box_auth(name: str, box: TargetSettings, clock: Clock) -> Auth:
    if box.token_env or box.token_file:
        return StaticToken("Bearer", lambda: box.token.read(f"targets.{name}.token"))
    if not box.client_id or not box.enterprise_id:
        raise ConfigurationError(f"targets.{name}: Box needs client_id, client_secret_env or client_secret_file, and enterprise_id")
    token_url = box.token_url or (BOX_TOKEN_URL if box.url is None else _beside(box.url))
    return BoxClientCredentials(
        clock, token_url, box.client_id, lambda: box.secret.read(f"targets.{name}.client_secret"), box.enterprise_id
    )


def _beside(url: str) -> str:
    """The token endpoint of a Box at another address: beside its `/2.0`."""
    return url.removesuffix("/2.0") + "/oauth2/token"
