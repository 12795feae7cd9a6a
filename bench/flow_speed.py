"""Throughput: every contender in a process of its own on one core, the broker on the others, one after the other over the same log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.common import ROOT, die_with_parent
from bench.flow_log import PARTITIONS, clear, fill, tenant_names

#: contender:published:tenants, in this order. Judged: ours, hits published, eight tenants.
RUNS = (
    *(
        f"{name}:{published}:{PARTITIONS}"
        for published in ("hits", "everything")
        for name in ("portcullis", "faust", "aiokafka", "confluent")
    ),
    "portcullis:hits:1",
)
#: A contender that joins its group, or is started, slower than this has failed.
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    """One contender's figures. `cpu` in µs an event, `memory` in bytes; `rate` is events a second by the clock on the wall."""

    name: str
    everything: bool
    tenants: int
    events: int
    rate: float
    cpu: float
    memory: int

    @property
    def per_cpu_second(self) -> float:
        """What one core does that nobody takes anything from: on a busy machine this says more than `rate`."""
        return 1e6 / self.cpu


def measure(
    bootstrap: str, folder: Path, names: Iterable[str], events: int, seconds: float, core: int, say: Callable[[str], None]
) -> tuple[list[Run], float]:
    """The runs of those names on that core, and the mean size of an event."""
    runs: list[Run] = []
    size, tenants = 0.0, 0
    for one in names:
        name, published, count = one.split(":")
        everything, wanted = published == "everything", int(count)
        if wanted != tenants:
            clear(bootstrap, log_too=True)
            size, tenants = fill(bootstrap, events, tenant_names(wanted)), wanted
        else:
            clear(bootstrap)
        say(f"{name}, {tenants} tenant{'s' if tenants > 1 else ''}, {published} published")
        runs.append(_run(name, everything, tenants, bootstrap, folder, events, seconds, core))
    return runs, size


def _run(name: str, everything: bool, tenants: int, bootstrap: str, folder: Path, events: int, seconds: float, core: int) -> Run:
    total = events // tenants * tenants
    argv = [sys.executable, "-m", "bench.flow_loops", name, "--bootstrap", bootstrap, "--total", str(total), "--seconds", str(seconds)]
    argv += ["--core", str(core)]
    log = folder / f"{name}-{'everything' if everything else 'hits'}-{tenants}.log"
    with log.open("wb") as said:
        done = subprocess.run(
            [*argv, *(["--everything"] if everything else [])],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, cwd=ROOT, preexec_fn=die_with_parent,
            timeout=_PATIENCE_S + seconds * 4, check=False,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {log.read_text(errors='replace')[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Run(
        name, everything, tenants, int(found["events"]), found["events"] / found["seconds"], found["cpu"] / found["events"] * 1e6,
        int(found["memory"]),
    )  # fmt: skip
