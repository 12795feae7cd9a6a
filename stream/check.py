"""`portcullis check`: configuration, rules, credentials, reachability. Each line is ok, or says what to do. Reads only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from aiokafka.client import AIOKafkaClient

from handlers import registry
from handlers.contract import Target
from handlers.protected import load_protected
from model.errors import ConfigurationError, PortcullisError
from model.person import Person, PersonStatus
from model.settings import Settings, load
from rules.policy import Policy
from stream.clock import SystemClock
from stream.house import load_rules
from stream.poller import since

PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Result:
    what: str
    ok: bool
    said: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def check(config: Path) -> list[Result]:
    try:
        settings = load(config)
    except ConfigurationError as error:
        return [Result("configuration", False, str(error))]
    results = [Result("configuration", True, str(config))]
    async for result in _all(settings):
        results.append(result)
    return results


async def _all(settings: Settings) -> AsyncIterator[Result]:
    clock = SystemClock()
    yield await _tried("detections", lambda: _rules(settings))
    yield await _tried("access policy", lambda: _policy(settings))
    protected = load_protected(settings.safety.protected)
    yield Result("protected people", protected.is_trusted, protected.problem or f"{len(protected.people)} listed")
    yield await _tried("kafka", lambda: _kafka(settings))
    if not settings.okta:
        yield Result("okta", False, "no tenant is configured: add [okta.NAME] with url and a credential")
    directory = registry.build_directory(settings, clock)
    for tenant, okta in settings.okta.items():
        yield await _tried(f"okta.{tenant}", lambda tenant=tenant: directory.own_actor(tenant, "provision"), "we are {}")  # type: ignore[misc]
        yield await _tried(f"okta.{tenant} log", lambda tenant=tenant: _log(settings, tenant))  # type: ignore[misc]
        if okta.start is None:
            yield Result(f"okta.{tenant} start", False, 'set start = "now", "beginning", "-7d" or a time: the first run needs it')
        else:
            yield await _tried(f"okta.{tenant} start", lambda start=okta.start: _start(start))  # type: ignore[misc]
    await directory.aclose()
    try:
        targets = registry.build_targets(settings, clock)
    except ConfigurationError as error:
        yield Result("targets", False, str(error))
        targets = {}
    for name, target in targets.items():
        if target.kind != "okta":
            yield await _tried(f"targets.{name}", lambda target=target: _target(settings, target))  # type: ignore[misc]
    await registry.close_targets(targets)
    async for result in running_breakers(settings):
        yield result
    slack = registry.build_slack(settings, clock)
    if slack is None:
        yield Result("slack", False, "no [slack] is configured: nobody will be told")
    else:
        yield await _tried("slack", lambda: _slack(slack))
        await slack.aclose()


async def _tried(what: str, call: Callable[[], Awaitable[object]], said: str = "{}") -> Result:
    try:
        async with asyncio.timeout(PATIENCE_S):
            answer = await call()
    except TimeoutError:
        return Result(what, False, f"no answer within {PATIENCE_S:.0f} s: check the address and the way to it")
    except PortcullisError as error:
        return Result(what, False, str(error))
    return Result(what, True, said.format(answer))


async def _rules(settings: Settings) -> str:
    ruleset = load_rules(settings)
    return f"{len(ruleset)} rules" + (f", {len(ruleset.skipped)} for other products left out" if ruleset.skipped else "")


async def _policy(settings: Settings) -> str:
    return f"version {Policy.load(settings.rules.access).version[:12]}"


async def _kafka(settings: Settings) -> str:
    if settings.kafka.bootstrap is None:
        return "the embedded broker (evaluation only: set [kafka] bootstrap for production)"
    client = AIOKafkaClient(bootstrap_servers=settings.kafka.bootstrap)
    try:
        await client.bootstrap()
    except Exception as error:
        raise PortcullisError(
            f"{settings.kafka.bootstrap} does not answer ({type(error).__name__}): start it, or mend the address"
        ) from None
    finally:
        await client.close()
    return f"{settings.kafka.bootstrap} answers"


async def _log(settings: Settings, tenant: str) -> str:
    api = registry.build_log(settings, tenant, SystemClock())
    try:
        page = await api.log_page(api.first_log_url(SystemClock().now().isoformat(timespec="milliseconds").replace("+00:00", "Z"), 1))
    finally:
        await api.aclose()
    if page.status != 200:
        raise PortcullisError(f"{page.status} {page.error_code}: grant okta.logs.read, or give the token's admin the right to read the log")
    return f"readable, {page.limit or 'unknown'} requests a minute"


async def _start(start: str) -> str:
    return f"{start} ({since(start, SystemClock().now()):%Y-%m-%d %H:%M} UTC)"


async def _target(settings: Settings, target: Target) -> str:
    nobody = Person(tenant=next(iter(settings.okta), ""), id="nobody", status=PersonStatus.ACTIVE, login="nobody@portcullis.invalid")
    await target.observe(nobody, None, "provision")
    return "reachable, credential accepted"


async def running_breakers(settings: Settings) -> AsyncIterator[Result]:
    """What runs with this configuration now, and whether it has stopped calling somebody. Who does not answer is not running."""
    async with httpx.AsyncClient(trust_env=False, timeout=2.0) as http:
        for path in sorted(settings.data.glob("health-*.json")):
            try:
                running = json.loads(path.read_text())
                breakers = (await http.get(f"{running['url']}/breakers")).raise_for_status().json()
                shut = [one for one in breakers if one["state"] != "closed"]
            except (OSError, ValueError, LookupError, TypeError, httpx.HTTPError, httpx.InvalidURL):
                continue
            if not breakers:
                continue  # a role that calls nobody
            said = "; ".join(f"{one['connector']} ({one['lane']} lane) is {one['state']}: {one['reason']}" for one in shut)
            yield Result(f"breakers of {running['roles']}", not shut, said or f"all {len(breakers)} closed")


async def _slack(sender: Any) -> str:
    told = await sender.auth_test()
    return f"posting as {told.get('user', 'unknown')}"
