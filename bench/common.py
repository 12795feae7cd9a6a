"""What the benches share: cores, what a process used, a percentile, a figure with its target, and the last line.

Only the standard library and rich. CPU time and memory come from the operating system, for the whole process with all its threads.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
_PR_SET_PDEATHSIG = 1


def cores() -> tuple[int, ...]:
    """The cores that this process may use, lowest first; (0,) where the system cannot say."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (0,)


def pin(*chosen: int) -> None:
    """Keeps this process, and whom it starts from now on, on these cores. Does nothing where the system has no such call."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)


def die_with_parent() -> None:
    """For `preexec_fn`: the child ends with the process that started it, however that one ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def cpu_seconds() -> float:
    """User and system time of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_memory() -> int:
    """The largest resident size of this process in bytes. Not `ru_maxrss`: Linux hands that of the parent on to its children."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the smallest value that at least `percent` of all do not exceed. NaN where there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan


def machine() -> dict[str, Any]:
    """Where the figures come from: cores, and what else was running (load average of a minute)."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(cores()),
        "load": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


@dataclass(frozen=True, slots=True)
class Target:
    """A figure held against what was promised of it. `most` or `least` is the limit."""

    name: str
    figure: float
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool:
        """A figure that is missing (NaN) meets nothing."""
        if self.least is not None:
            return self.figure >= self.least
        return self.most is not None and self.figure <= self.most

    @property
    def limit(self) -> str:
        return f"≥ {self.least:,.0f} {self.unit}" if self.least is not None else f"≤ {self.most:,.1f} {self.unit}"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "figure": number(self.figure), "limit": self.limit, "met": self.is_met}


def number(value: float, digits: int = 1) -> float | None:
    """Rounded for JSON, which has no NaN."""
    return None if math.isnan(value) else round(value, digits)


def show(console: Console, title: str, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def show_targets(console: Console, targets: Iterable[Target]) -> None:
    rows = [(one.name, f"{one.figure:,.1f} {one.unit}", one.limit, "met" if one.is_met else "NOT MET") for one in targets]
    show(console, "Targets", ("what", "measured", "promised", ""), rows)


def finish(result: dict[str, Any], targets: Iterable[Target], judge: bool) -> int:
    """Prints the last line; the exit code is 1 where `judge` is asked for and a target is missed."""
    judged = list(targets)
    print(json.dumps(result | {"targets": [one.to_json() for one in judged]}, allow_nan=False), flush=True)
    return int(judge and not all(one.is_met for one in judged))
