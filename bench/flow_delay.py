"""Delay: from the moment at which an event is handed to Kafka until the target has acknowledged what it asked for.

Real processes: the classifier and both lanes as `portcullis run --role …` starts them, vendors that answer after 50 ms. The event is
written to the log as the poller writes it. The vendor's own list of calls says when a call took effect; its answer leaves 50 ms later,
and that is the end. `simulators_ms` is what the vendors alone take on that way: 50 ms for each answer that has to be waited for.

first the first few events that a fresh house sees, one at a time: connections are opened, the broker's JVM compiles
idle  one event at a time, the next when the last is acknowledged
page  a full page of 1,000 ordinary events every second, threats and newcomers somewhere in it
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
from aiokafka import AIOKafkaProducer

from bench.common import ROOT, die_with_parent, percentile
from bench.events import synthetic
from bench.flow_log import PARTITIONS
from bench.flow_sims import ANSWER_S, hired, locked, login
from stream import topics

TENANT = "default"
ROLES = ("classifier", "lockdown", "provision")
PAGE = 1_000
#: Threats, and newcomers, in each page.
IN_PAGE = 4
#: Singles of the load `first`.
FIRST = 10
_WIDE = 1_000_000
_START_S = 90.0
#: An event whose effect is not there after so long is lost.
_LOST_S = 20.0
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Way:
    """One way through the house. `answers`: how many of the vendors' answers stand in it one after the other, the call's own included."""

    name: str
    says: str
    vendor: str
    method: str
    path: str
    answers: int

    @property
    def simulators_ms(self) -> float:
        return round(self.answers * ANSWER_S * 1000)


#: One look, one call.
LOCK_OKTA = Way("lockdown", "risk raised to HIGH → suspended at Okta", "okta", "POST", "/lifecycle/suspend", 2)
#: Who it is, one look, one call.
LOCK_BOX = Way("lockdown at Box", "risk raised to HIGH → inactive at Box", "box", "PUT", "/2.0/users/", 3)
#: Who it is and their groups, one look, who it is and their groups once more, one call.
JOIN_BOX = Way("joiner at Box", "activated → account made at Box", "box", "POST", "/2.0/users", 6)
WAYS = (LOCK_OKTA, LOCK_BOX, JOIN_BOX)


@dataclass(slots=True)
class Delays:
    """Milliseconds by way, for one load."""

    found: dict[str, list[float]] = field(default_factory=lambda: {way.name: [] for way in WAYS})
    lost: int = 0

    def figures(self, way: Way) -> dict[str, float]:
        values = self.found[way.name]
        return {"n": len(values), "p50": percentile(values, 50), "p99": percentile(values, 99), "max": percentile(values, 100)}


class House:
    """Vendors and roles as processes under one folder; what they said stands there in NAME.log."""

    def __init__(self, folder: Path, bootstrap: str, people: int) -> None:
        self.folder, self.bootstrap = folder, bootstrap
        self._written = folder / "written.toml"
        self._people = people
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self.urls: dict[str, str] = {}

    async def start(self) -> None:
        self._spawn("vendors", "-m", "bench.flow_sims", "--config", str(self._written), "--people", str(self._people))
        await self._until(self._written.exists, "vendors")
        config = self._configure()
        for role in ROLES:
            self._spawn(role, "-c", "from stream.cli import main; main()", "run", "--config", str(config), "--role", role)
        for role in ROLES:
            await self._until(partial(self._is_ready, role), role)

    def _configure(self) -> Path:
        raw = tomllib.loads(self._written.read_text())
        self.urls = {"okta": raw["okta"][TENANT]["url"], "box": raw["targets"]["box"]["url"].removesuffix("/2.0")}
        raw["kafka"] = {"bootstrap": self.bootstrap, "partitions": PARTITIONS}
        for target in raw["targets"].values():
            target["rate_per_minute"] = 100_000
        brakes = dict.fromkeys(("lockdown_count", "lockdown_percent", "removal_count", "removal_percent"), _WIDE)
        raw["safety"] |= {"brakes": brakes, "read_back_after_s": 600, "second_look_s": 600}
        del raw["slack"]
        path = self.folder / "portcullis.toml"
        path.write_text("\n".join(_toml((), raw)) + "\n")
        return path

    def _spawn(self, name: str, *argv: str) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "KAFKA_BOOTSTRAP"}
        with (self.folder / f"{name}.log").open("wb") as log:
            self._children[name] = subprocess.Popen(
                [sys.executable, *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=environment,
                preexec_fn=die_with_parent,
            )  # fmt: skip

    def _is_ready(self, role: str) -> bool:
        try:
            url = json.loads((self.folder / "data" / f"health-{role}.json").read_bytes())["url"]
            return bool(httpx.get(f"{url}/ready", trust_env=False).status_code == 200)
        except (OSError, ValueError, httpx.HTTPError):
            return False

    async def _until(self, is_so: Callable[[], bool], name: str) -> None:
        give_up = time.monotonic() + _START_S
        while not is_so():
            if self._children[name].poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{name} did not start: {(self.folder / f'{name}.log').read_text(errors='replace')[-2000:]}")
            await asyncio.sleep(0.1)

    def stop(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)
        for child in self._children.values():
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()


class Watch:
    """Reads the vendors' lists of calls and knows when whose call took effect (epoch seconds)."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._http = httpx.AsyncClient(trust_env=False, timeout=10)
        self._read = dict.fromkeys(urls, 0)
        self._accounts: dict[str, str] = {}
        #: By (way, the person's Okta id or their login at Box).
        self.seen: dict[tuple[str, str], float] = {}

    async def open(self) -> None:
        users = (await self._http.get(f"{self._urls['box']}/_sim/state")).json()["users"]
        self._accounts = {user["id"]: user["login"] for user in users.values()}

    async def look(self) -> None:
        for vendor, url in self._urls.items():
            for row in (await self._http.get(f"{url}/_sim/calls?after={self._read[vendor]}")).json():
                self._read[vendor] = row["n"]
                self._note(vendor, row)

    def _note(self, vendor: str, row: Mapping[str, Any]) -> None:
        at = datetime.fromisoformat(row["at"]).timestamp()
        if vendor == "okta" and row["path"].endswith(LOCK_OKTA.path):
            self.seen.setdefault((LOCK_OKTA.name, row["path"].split("/")[4]), at)
        elif vendor == "box" and row["method"] == LOCK_BOX.method and row["path"].startswith(LOCK_BOX.path):
            self.seen.setdefault((LOCK_BOX.name, self._accounts.get(row["path"].split("/")[3], "")), at)
        elif vendor == "box" and row["method"] == JOIN_BOX.method and row["path"] == JOIN_BOX.path:
            self.seen.setdefault((JOIN_BOX.name, (row["body"] or {}).get("login", "")), at)

    async def close(self) -> None:
        await self._http.aclose()


async def measure(folder: Path, bootstrap: str, singles: int, pages: int, say: Callable[[str], None]) -> dict[str, Delays]:
    """By load: `first`, `idle`, `page`."""
    house = House(folder, bootstrap, FIRST + singles + pages * IN_PAGE)
    try:
        say("vendors and roles start")
        await house.start()
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=262_144) as producer:
            watch = Watch(house.urls)
            try:
                await watch.open()
                say(f"{FIRST + singles} threats and as many newcomers one by one")
                first = await _one_by_one(producer, watch, range(FIRST))
                idle = await _one_by_one(producer, watch, range(FIRST, FIRST + singles))
                say(f"{pages} full pages, one a second")
                return {"first": first, "idle": idle, "page": await _page(producer, watch, pages, FIRST + singles)}
            finally:
                await watch.close()
    finally:
        house.stop()


async def _one_by_one(producer: AIOKafkaProducer, watch: Watch, numbers: range) -> Delays:
    delays = Delays()
    for number in numbers:
        for person, event, ways in _asked(number):
            sent = time.time()
            await producer.send(topics.SYSTEM_LOG.name, event, key=TENANT.encode())
            await _gather(watch, {person: sent}, {person: ways}, delays)
            await asyncio.sleep(0.1)
    return delays


async def _page(producer: AIOKafkaProducer, watch: Watch, pages: int, first: int) -> Delays:
    delays, chance = Delays(), random.Random(7)
    sent: dict[str, float] = {}
    ways: dict[str, tuple[Way, ...]] = {}
    ordinary = synthetic(pages * PAGE, 7, users=20_000, per_second=PAGE, start=datetime.now(UTC))
    looking = asyncio.create_task(_look_on(watch))
    due = time.monotonic()
    for number in range(pages):
        asked = [one for at in range(IN_PAGE) for one in _asked(first + number * IN_PAGE + at)]
        page: list[tuple[str, bytes]] = [("", next(ordinary)) for _ in range(PAGE - len(asked))]
        for person, event, theirs in asked:
            page.insert(chance.randrange(len(page) + 1), (person, event))
            ways[person] = theirs
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        due += 1.0
        for person, event in page:
            if person:
                sent[person] = time.time()
            await producer.send(topics.SYSTEM_LOG.name, event, key=TENANT.encode())
        await producer.flush()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    await _gather(watch, sent, ways, delays)
    return delays


async def _look_on(watch: Watch) -> None:
    while True:
        await watch.look()
        await asyncio.sleep(0.25)


async def _gather(watch: Watch, sent: Mapping[str, float], ways: Mapping[str, tuple[Way, ...]], delays: Delays) -> None:
    """Waits for every effect, and books how long each took."""
    wanted = {(way, person) for person, theirs in ways.items() for way in theirs}
    give_up = time.monotonic() + _LOST_S
    while wanted and time.monotonic() < give_up:
        await watch.look()
        for way, person in list(wanted):
            at = watch.seen.get((way.name, person if way.vendor == "okta" else login(person)))
            if at is not None:
                delays.found[way.name].append((at + ANSWER_S - sent[person]) * 1000)
                wanted.discard((way, person))
        await asyncio.sleep(_LOOK_S)
    delays.lost += len(wanted)


def _asked(number: int) -> Iterator[tuple[str, bytes, tuple[Way, ...]]]:
    """(person, event, what it must lead to): one who is locked, one who comes."""
    yield locked(number), _event("user.risk.detect", locked(number), {"risk": _RISK}), (LOCK_OKTA, LOCK_BOX)
    yield hired(number), _event("user.lifecycle.activate", hired(number), {}), (JOIN_BOX,)


_RISK = "{reasons=Anomalous location, level=HIGH, previousLevel=LOW}"
_SHAPE: dict[str, Any] = orjson.loads(next(synthetic(1)))


def _event(kind: str, person: str, debug: dict[str, Any]) -> bytes:
    """An event as long as the others, about one person."""
    user = {"id": person, "type": "User", "alternateId": login(person), "displayName": "Staff Member", "detailEntry": None}
    return orjson.dumps(
        _SHAPE
        | {
            "uuid": f"bench-{person}",
            "eventType": kind,
            "published": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "actor": {"id": "okta", "type": "SystemPrincipal", "alternateId": "system@okta.com", "displayName": "Okta System"},
            "outcome": {"result": "SUCCESS", "reason": None},
            "debugContext": {"debugData": _SHAPE["debugContext"]["debugData"] | debug},
            "target": [user],
        }
    )


def _toml(name: tuple[str, ...], table: Mapping[str, Any]) -> Iterator[str]:
    """Nested tables of texts, numbers and truth values: those are written as JSON writes them."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if name and plain:
        yield "[" + ".".join(json.dumps(part) for part in name) + "]"
    yield from (f"{key} = {json.dumps(value)}" for key, value in plain.items())
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _toml((*name, key), value)
