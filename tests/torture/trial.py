"""One run from beginning to end: start, play, settle, read the three ledgers, compare."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.event import split_page
from rules.policy import Policy
from tests.torture import ledgers
from tests.torture.conduct import Conductor, Outcome, Say
from tests.torture.effects import Names, Row, effects_of
from tests.torture.ledgers import Account, Logged
from tests.torture.plan import LEAVER, MANAGER, Script
from tests.torture.processes import PORTCULLIS, End, Fleet
from tests.torture.world import TENANT, World

Json = dict[str, Any]
VENDORS = ("okta", "box", "slack")
_SLOW_STOP_S = 30.0


@dataclass(slots=True)
class Verdict:
    """Everything that a run found. Each list is empty where all is as it must be."""

    script: Script
    workers: int
    outcome: Outcome
    lost: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    parked: list[str] = field(default_factory=list)
    parked_wrongly: list[str] = field(default_factory=list)
    parked_expected: int = 0
    #: Wrong exits, broken chains, forgotten rows, crashes of the simulators.
    other: list[str] = field(default_factory=list)
    faults: list[End] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    script: Script
    workers: int = 1
    partitions: int = 4
    sabotage: str | None = None
    dry_run: bool = False

    async def run(self, keep: Path | None, say: Say) -> Verdict:
        """`keep`: where logs and ledgers stay. Without it they stay only where something was found."""
        folder = keep or Path(tempfile.mkdtemp(prefix="portcullis-torture-"))
        say(f"seed {self.script.seed}: {self.script.events} events in {self.script.length_s:.0f} s, logs in {folder}")
        wired = any(strike.how == "cut" for strike in self.script.strikes)
        fleet = Fleet(folder, workers=self.workers, partitions=self.partitions, sabotage=self.sabotage, dry_run=self.dry_run, wired=wired)
        try:
            verdict = await self._run(fleet, say)
        finally:
            await fleet.close()
        verdict.faults = [end for end in fleet.ends if end.is_fault]
        verdict.other += [f"{end.name} ended with {end.code}, expected {end.ordered or 'no end'}" for end in fleet.ends if end.is_wrong]
        if keep is None and not _all_findings(verdict):
            shutil.rmtree(folder, ignore_errors=True)
        return verdict

    async def _run(self, fleet: Fleet, say: Say) -> Verdict:
        await fleet.start()
        world = World(fleet.written, Policy.load(fleet.folder / "access"))
        try:
            await world.begin()
            say(f"running: Kafka, the simulators and {len(fleet.roles)} processes of ours")
            conductor = Conductor(self.script, fleet, world, say)
            await conductor.play()
            await conductor.settle()
            books = await read_books(fleet, world)
            verdict = compare(self, conductor.outcome, world, books)
            verdict.other += await self._end(fleet)
        finally:
            await world.aclose()
        (fleet.folder / "findings.json").write_text(json.dumps(_all_findings(verdict), indent=1))
        return verdict

    @staticmethod
    async def _end(fleet: Fleet) -> list[str]:
        slow = {name: seconds for name, seconds in (await fleet.stop_roles()).items() if seconds >= _SLOW_STOP_S}
        return [f"{name} took {seconds:.0f} s to stop" for name, seconds in slow.items()]


def _all_findings(verdict: Verdict) -> dict[str, list[str]]:
    found = {
        "lost": verdict.lost,
        "duplicate_effects": verdict.duplicates,
        "order_violations": verdict.disorder,
        "unexplained_calls": verdict.unexplained,
        "parked": verdict.parked_wrongly,
        "other": verdict.other,
    }
    return {name: lines for name, lines in found.items() if lines}


# -- the ledgers ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Books:
    """The three ledgers as they were read."""

    states: dict[str, Json]
    calls: list[Any]
    logged: list[Logged]
    events: dict[str, str]
    quarantine: set[str]
    rows: dict[str, Row]
    #: Whose Hold is open, and since when (epoch seconds).
    holds: dict[str, float]
    parked: list[Json]
    chains: str


async def read_books(fleet: Fleet, world: World) -> Books:
    states = {vendor: await world.state(vendor) for vendor in VENDORS}
    calls = [call for vendor in VENDORS for call in await world.calls(vendor)]
    logged = [_logged(raw) for page in await world.whole_log() for raw in split_page(page)]
    ask = Audit(fleet.recorder_config, fleet.folder)
    events = await ask.sql("SELECT uuid, sha256(raw) AS sha FROM events")
    quarantine = await ask.sql("SELECT DISTINCT sha256 FROM quarantine WHERE kind = 'event'")
    rows = await ask.sql(
        "SELECT intent, person, target, lane, change, status, incident, event_uuid, detail, called, answered,"
        " epoch_ms(coalesce(called, intended)) / 1000 AS sent FROM actions"
    )
    holds = await ask.sql("SELECT person, epoch(since) AS since FROM holds WHERE state = 'open'")
    parked = await ask.json("parked", "list", "--config", str(ask.config), "--json")
    chains = await ask.verify()
    (fleet.folder / "calls.json").write_text(json.dumps([_as_json(call) for call in calls], indent=0))
    (fleet.folder / "actions.json").write_text(json.dumps(rows, indent=0))
    return Books(
        states, calls, logged,
        events={one["uuid"]: one["sha"] for one in events},
        quarantine={one["sha256"] for one in quarantine},
        rows={one["intent"]: _row(one) for one in rows},
        holds={one["person"]: float(one["since"]) for one in holds},
        parked=parked,
        chains=chains,
    )  # fmt: skip


def _as_json(call: Any) -> Json:
    return {name: getattr(call, name) for name in call.__slots__}


def _row(one: Json) -> Row:
    texts = {name: one[name] for name in ("intent", "person", "target", "lane", "change", "status", "incident")}
    return Row(**texts, event=one["event_uuid"], called=float(one["sent"] or 0), read_back=one["detail"].startswith("read back"))


def _logged(raw: bytes) -> Logged:
    """By the definition of an event: a JSON object with a uuid and an eventType that are texts (D1)."""
    sha256 = hashlib.sha256(raw).hexdigest()
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return Logged(sha256, None)
    is_event = isinstance(value, dict) and all(isinstance(value.get(key), str) and value[key] for key in ("uuid", "eventType"))
    return Logged(sha256, value["uuid"] if is_event else None)


@dataclass(frozen=True, slots=True)
class Audit:
    """The audit trail, asked as an outsider would: by the command line."""

    config: Path
    folder: Path

    async def sql(self, query: str) -> list[Json]:
        return list(await self.json("audit", "sql", "--config", str(self.config), "--json", query))

    async def json(self, *args: str) -> Any:
        code, out = await self._run(*args)
        if code:
            raise RuntimeError(f"portcullis {' '.join(args)} ended with {code}: see {self.folder / 'asking.log'}")
        return json.loads(out)

    async def verify(self) -> str:
        """What is broken, or nothing."""
        code, out = await self._run("audit", "verify", "--config", str(self.config), "--json")
        return "" if code == 0 else f"audit verify ended with {code}: {out[:2000].decode(errors='replace')}"

    async def _run(self, *args: str) -> tuple[int, bytes]:
        with (self.folder / "asking.log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(str(PORTCULLIS), *args, stdout=asyncio.subprocess.PIPE, stderr=log)
            out, _ = await child.communicate()
        return child.returncode or 0, out


# -- the comparison ------------------------------------------------------------------------------------------------------


def compare(trial: Trial, outcome: Outcome, world: World, books: Books) -> Verdict:
    script = trial.script
    verdict = Verdict(script, trial.workers, outcome)
    effects = effects_of(books.calls, books.rows, _names(books.states))
    verdict.lost = ledgers.lost_events(books.logged, books.events, books.quarantine)
    verdict.unexplained = ledgers.unexplained_calls(books.calls, books.rows)
    if trial.dry_run:
        verdict.other += [f"{call}: a dry run calls nothing" for call in books.calls]
        verdict.other += [f"{row.intent} is {row.status}, a dry run plans" for row in books.rows.values() if row.status != "planned"]
    else:
        verdict.lost += list(_lost_people(script, world, books))
        verdict.duplicates = ledgers.duplicate_effects(effects, outcome.crashes)
        verdict.disorder = ledgers.order_violations(effects, _history(world), books.holds)
        verdict.parked, verdict.parked_wrongly, verdict.parked_expected = _parked(script, world, books)
    verdict.other += ledgers.open_rows(books.rows.values()) + ([books.chains] if books.chains else [])
    if not outcome.quiet:
        verdict.other.append(f"never quiet: {'; '.join(outcome.left[:5])}")
    verdict.figures = {
        "elements of the log": len(books.logged),
        "rows in actions": len(books.rows),
        "calls at the vendors": len(books.calls),
        "of which changed something": sum(call.changed for call in books.calls),
        "people looked at": len(world.touched),
        "open Holds": len(books.holds),
        "elements in quarantine": len(books.quarantine),
    }
    return verdict


def _history(world: World) -> dict[str, list[ledgers.Moment]]:
    """Of people whose account at Box is ours to move."""
    return {key: moments for key, moments in world.history.items() if world.folk[key].login not in world.taken}


def _names(states: dict[str, Json]) -> Names:
    logins = {user["profile"]["login"].lower(): key for key, user in states["okta"]["users"].items()}
    box = states["box"]
    return Names(
        owners={key: logins.get(str(user["login"]).lower(), "") for key, user in box["users"].items()},
        logins=logins,
        groups={key: group["name"] for key, group in box["groups"].items()},
        folders={key: folder["name"] for key, folder in box["folders"].items()},
    )


def _lost_people(script: Script, world: World, books: Books) -> Iterable[str]:
    box, okta = books.states["box"], books.states["okta"]
    missing = frozenset({"Legal"} - {folder["name"] for folder in box["folders"].values()})
    fixed = {world.id_of(who) for who in script.parked}
    for key in sorted(world.touched):
        one, wish = world.folk[key], world.history[key][-1].wish
        accounts = [
            _account(user, box) for user in box["users"].values() if str(user["login"]).lower() == one.login and not user["is_external"]
        ]
        if one.login in world.taken or (key in fixed and one.department != "Legal"):
            yield from _untouched(one.login, key, books)
            continue
        yield from ledgers.lost_person(one.login, wish, accounts, missing_folders=missing)
        yield from _at_okta(key, one.login, one.status, one.held, okta, books)
    yield from _inherited(world, box)


def _untouched(login: str, key: str, books: Books) -> Iterable[str]:
    """An account that is not ours: nothing was done to it."""
    rows = books.rows
    done = [call for call in books.calls if call.vendor == "box" and call.changed and (row := rows.get(call.intent)) and row.person == key]
    return (f"{login}: is not ours to move at Box, and was: {call}" for call in done)


def _at_okta(key: str, login: str, status: str, held: bool, okta: Json, books: Books) -> Iterable[str]:
    found = okta["users"][key]["status"]
    wanted = "SUSPENDED" if held and status == "ACTIVE" else status
    if found != wanted:
        yield f"{login}: {found} in Okta, should be {wanted}"
    if held and (okta["sessions"].get(key) or okta["oauthTokens"].get(key)):
        yield f"{login}: locked, and still has sessions or tokens in Okta"
    if held and key not in books.holds:
        yield f"{login}: locked, and no Hold is open"
    if not held and key in books.holds:
        yield f"{login}: nobody asked to lock them, and a Hold is open"


def _inherited(world: World, box: Json) -> Iterable[str]:
    """What the leaver owned is the manager's."""
    heir = world.folk[world.id_of(MANAGER)].login
    for folder in box["folders"].values():
        if folder["owned_by"]["login"] == world.folk[world.id_of(LEAVER)].login:
            yield f"{folder['name']} still belongs to the leaver, should be {heir}'s"


def _account(user: Json, box: Json) -> Account:
    key = user["id"]
    groups = {one["group"]["name"] for one in box["group_memberships"].values() if one["user"]["id"] == key}
    grants = [one for one in box["collaborations"].values() if (one["accessible_by"] or {}).get("id") == key]
    folders = {one["item"]["name"]: one["role"] for one in grants}
    live = int(box["sessions"].get(key, {}).get("live", 0))
    return Account(user["status"] == "active", frozenset(groups), folders, user["space_amount"], live)


def _parked(script: Script, world: World, books: Books) -> tuple[list[str], list[str], int]:
    """(what is parked, what should not be or is missing, how much should be)."""
    wanted = sorted(
        [f"provision:{TENANT}:{world.id_of(who)}:box" for who in script.parked] + [f"{lane}:garbage" for lane, _ in script.garbage]
    )
    found = sorted(_parked_key(one) for one in books.parked)
    wrongly = [f"{key} is not parked" for key in _without(wanted, found)]
    told = {_parked_key(one): f"{one['code']}: {one['reason']}" for one in books.parked}
    wrongly += [f"{key} is parked: {told[key]}" for key in _without(found, wanted)]
    return found, wrongly, len(wanted)


def _parked_key(one: Json) -> str:
    if str(one["slot"]).startswith("poison."):
        return f"{one['lane']}:garbage"
    return f"{one['lane']}:{one['tenant']}:{one['person']}:{one['slot']}"


def _without(some: list[str], others: list[str]) -> list[str]:
    left = list(others)
    return [one for one in some if one not in left or left.remove(one)]  # type: ignore[func-returns-value]
