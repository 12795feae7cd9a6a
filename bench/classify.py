"""How many events a classifier judges in a second of one core, JSON included: ours, side by side with what others do with the same rules and
the same events.

    python -m bench.classify [--rules DIR] [--events FILE] [--count N] [--peers PYTHON] [--soak N] [--judge]

`--peers` names a Python that has azuma and sigma-rule-matcher (see bench/peers.py); by default `.venv-peers/bin/python` in the project's root.
`--soak N` judges N events instead and shows that memory stays flat. The last line is one JSON object.

Time is that of the process (CPU), so that what else runs on the machine counts little; the best of several rounds is given, because noise only
adds. The collector is tuned as in the roles: what stands is frozen, and it looks less often.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import orjson
import yaml
from rich.console import Console
from sigma.rule import SigmaRule

from bench.common import ROOT, Target, finish, machine, show, show_targets
from bench.events import synthetic
from bench.plain import functions_loop, pysigma_loop
from model.errors import ConfigurationError, MalformedEvent
from model.event import decode
from rules.classify import Classifier
from rules.lifecycle import Lifecycle
from rules.ruleset import BUILT_IN, RuleSet
from rules.sigma.source import read_documents, rule_files

ROUNDS = 5
LEAST = 50_000
TIMES_BEST_PEER = 5
#: Events a second of event time in a soak: five million are a month of 5,000 people, and the longest windows of the built-in rules, a week,
#: are full well before the second half, in which nothing may grow. (At the 50 a second of the other runs they would fill all along.)
SOAK_PER_SECOND = 2.0
#: Events between snapshots, as a worker takes them all the time: what they leave of the heap belongs to the figure from the beginning.
SOAK_SNAPSHOT = 10_000
_COLLECT_AFTER = (50_000, 20, 50)


def main() -> int:
    options = _options()
    console = Console(stderr=False, width=110)
    try:
        ruleset = RuleSet.load(options.rules)
    except ConfigurationError as error:
        console.print(str(error), style="red", highlight=False)
        return 2
    gc.set_threshold(*_COLLECT_AFTER)
    if options.soak:
        return _soak(console, ruleset, options)
    lines = _lines(options.events, options.count)
    gc.collect()
    gc.freeze()
    result: dict[str, Any] = {"machine": machine(), "events": len(lines), "bytes_per_event": round(sum(map(len, lines)) / len(lines), 1)}
    result["rules"] = {"reported": len(ruleset.reported), "asked": sum(1 for rule in ruleset if rule.expression is not None)}
    measured = _measure(ruleset, lines, console, built_in=options.rules is None)
    peers = _peers(options, lines)
    result["events_per_cpu_s"] = {name: round(figure, 1) for name, figure in measured.items()}
    result["peers"] = peers
    targets = [Target("events a CPU second, decoding included", measured["portcullis"], "events/s", least=LEAST)]
    speeds = [one["events_per_cpu_s"] for one in peers.values() if "events_per_cpu_s" in one]
    if speeds:
        times = measured["portcullis, single events"] / max(speeds)
        targets.append(Target("times the best peer, same rules and events", times, "×", least=TIMES_BEST_PEER))
    rows = [(name, f"{figure:,.0f}", f"{1e6 / figure:.1f}") for name, figure in measured.items()]
    rows += [(name, f"{one['events_per_cpu_s']:,.0f}" if "events_per_cpu_s" in one else one["absent"], "") for name, one in peers.items()]
    show(console, "Events a CPU second", ("who", "events/s", "µs an event"), rows)
    show_targets(console, targets)
    return finish(result, targets, options.judge)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.classify", description="Events a CPU second of the classifier, beside others.")
    parser.add_argument("--rules", type=Path, help="a folder of Sigma rules (default: the built-in ones)")
    parser.add_argument("--events", type=Path, help="a file of events, one JSON object a line (default: a made-up log)")
    parser.add_argument("--count", type=int, default=40_000, help="events of the made-up log, or of the file's beginning")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers" / "bin" / "python", help="a Python that has the peer libraries")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="judge N events and show memory instead")
    parser.add_argument("--judge", action="store_true", help="end with 1 where a target is missed")
    return parser.parse_args()


def _lines(path: Path | None, count: int) -> list[bytes]:
    if path is None:
        return list(synthetic(count))
    good = []
    with path.open("rb") as file:
        for line in islice(file, count):
            try:
                decode(line)
            except MalformedEvent:
                continue
            good.append(line.strip())
    if not good:
        raise SystemExit(f"{path}: no events")
    return good


def _measure(ruleset: RuleSet, lines: list[bytes], console: Console, *, built_in: bool) -> dict[str, float]:
    lifecycle = Lifecycle.load()
    events_only = [rule for rule in ruleset if rule.expression is not None]
    parsed = [one for path in rule_files(ruleset.folder or BUILT_IN) for one in _sigma_rules(path)]
    ways: dict[str, Callable[[], Callable[[dict[str, Any]], Any]]] = {
        "json alone": lambda: lambda event: None,
        "portcullis": lambda: Classifier(ruleset, lifecycle).observe,
        "portcullis, single events": lambda: Classifier(ruleset, lifecycle).verdict,
        "the same rules, no index": lambda: (
            lambda event: [rule for rule in events_only if rule.expression and rule.expression.matches(event)]
        ),
        "pySigma's trees, no index": lambda: pysigma_loop(parsed),
    }
    if built_in:
        ways["a loop of Python functions"] = lambda: functions_loop
    figures: dict[str, float] = {}
    for name, make in ways.items():
        slow = name.startswith(("pySigma", "the same"))
        figures[name] = _best(make, lines[: len(lines) // 20] if slow else lines, 2 if slow else ROUNDS)
        console.print(f"{name}: {figures[name]:,.0f} events/s", highlight=False, style="dim")
    return figures


def _best(make: Callable[[], Callable[[dict[str, Any]], Any]], lines: list[bytes], rounds: int) -> float:
    """The fastest each stretch of the log was judged, put together: a round that something else disturbed spoils one stretch only."""
    size = max(1, len(lines) // 20)
    stretches = [lines[at : at + size] for at in range(0, len(lines), size)]
    best = [float("inf")] * len(stretches)
    loads = orjson.loads
    for _ in range(rounds):
        judge = make()
        for number, stretch in enumerate(stretches):
            began = time.process_time()
            for line in stretch:
                judge(loads(line))
            best[number] = min(best[number], time.process_time() - began)
    return len(lines) / sum(best)


def _sigma_rules(path: Path) -> Iterator[SigmaRule]:
    for document in read_documents(path):
        if "detection" in document.data:
            yield SigmaRule.from_dict({key: value for key, value in document.data.items() if key not in ("id", "portcullis")})


def _peers(options: argparse.Namespace, lines: list[bytes]) -> dict[str, dict[str, Any]]:
    """Each peer in its own process, on the single-event rules and the first events."""
    names = ("azuma", "sigma-rule-matcher")
    if not options.peers.is_file():
        return {name: {"absent": f"not measured: no {options.peers}"} for name in names}
    with tempfile.TemporaryDirectory() as folder:
        rules, events = Path(folder) / "rules.yml", Path(folder) / "events.jsonl"
        rules.write_text(yaml.safe_dump_all(_peer_documents(options.rules or BUILT_IN), allow_unicode=True), encoding="utf-8")
        events.write_bytes(b"\n".join(lines[:5000]))
        return {name: _peer(options.peers, name, rules, events) for name in names}


def _peer_documents(folder: Path) -> Iterable[dict[str, Any]]:
    for path in rule_files(folder):
        for document in read_documents(path):
            if "detection" in document.data:
                yield {key: value for key, value in document.data.items() if key in ("title", "logsource", "detection", "level", "status")}


def _peer(python: Path, name: str, rules: Path, events: Path) -> dict[str, Any]:
    command = [str(python), str(ROOT / "bench" / "peers.py"), name, str(rules), str(events), "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"PYTHONPATH": ""})
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["ended"]
        return {"absent": f"not measured: {last[0]}"}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _soak(console: Console, ruleset: RuleSet, options: argparse.Namespace) -> int:
    """Memory after each tenth: it must not grow once windows and bounds are filled."""
    classifier = Classifier(ruleset, Lifecycle.load())
    source: Iterable[bytes] = (
        synthetic(options.soak, users=5_000, per_second=SOAK_PER_SECOND)
        if options.events is None
        else cycle(_lines(options.events, options.count))
    )
    gc.collect()
    gc.freeze()
    sizes: list[int] = []
    step = max(1, options.soak // 10)
    began, fired, snapshot = time.process_time(), 0, b""
    for number, line in enumerate(islice(source, options.soak), start=1):
        fired += len(classifier.observe(orjson.loads(line)).findings)
        if number % min(SOAK_SNAPSHOT, step) == 0:
            snapshot = classifier.snapshot()
        if number % step == 0:
            sizes.append(_resident())
            console.print(
                f"{number:,} events: {sizes[-1] / 1e6:,.1f} MB, {fired:,} findings, snapshot {len(snapshot) / 1e6:,.2f} MB", highlight=False
            )
    growth = (sizes[-1] - sizes[len(sizes) // 2]) / sizes[len(sizes) // 2] * 100
    targets = [Target("growth of memory over the second half", growth, "%", most=5)]
    show_targets(console, targets)
    spent = time.process_time() - began
    result = {
        "machine": machine(),
        "events": options.soak,
        "cpu_s": round(spent, 1),
        "bytes": sizes,
        "forgotten": classifier.correlator.forgotten,
    }
    return finish(result, targets, options.judge)


def _resident() -> int:
    """Resident bytes now (Linux), else the most that there ever were."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.exit(main())
