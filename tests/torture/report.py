"""What a run found: a readable table, every finding, and as the last line one JSON object for programs."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.torture.trial import Verdict

RECOVERY_S = 60.0
_SHOWN = 20


def summary(verdict: Verdict) -> dict[str, Any]:
    """The last line's object."""
    done = verdict.outcome
    return {
        "seed": verdict.script.seed,
        "events": verdict.script.events,
        "kills": done.kills,
        "broker_kills": done.broker_kills,
        "workers": verdict.workers,
        "lost": len(verdict.lost),
        "duplicate_effects": len(verdict.duplicates),
        "order_violations": len(verdict.disorder),
        "parked": len(verdict.parked),
        "parked_expected": verdict.parked_expected,
        "unexplained_calls": len(verdict.unexplained),
        "recovery_s": None if done.recovery_s is None else round(done.recovery_s, 1),
    }


def is_good(verdict: Verdict) -> bool:
    late = verdict.outcome.recovery_s is None or verdict.outcome.recovery_s > RECOVERY_S
    found = (verdict.lost, verdict.duplicates, verdict.disorder, verdict.unexplained, verdict.parked_wrongly, verdict.other)
    return not late and not any(found)


def show(verdict: Verdict, console: Console) -> None:
    table = Table(title=f"torture, seed {verdict.script.seed}", title_justify="left")
    for heading in ("what", "found", "must be", ""):
        table.add_column(heading)
    for what, found, wanted, ok in _rows(verdict):
        table.add_row(what, found, wanted, Text("ok", style="green") if ok else Text("WRONG", style="bold red"))
    for what, figure in verdict.figures.items():
        table.add_row(what, str(figure), "", "")
    console.print(table)
    for end in verdict.faults:
        console.print(Text(f"restarted: {end.name} ended with 70 by itself"))
    for title, lines in _findings(verdict):
        for line in lines[:_SHOWN]:
            console.print(Text(f"{title}: {line}"), soft_wrap=True)
        if len(lines) > _SHOWN:
            console.print(Text(f"{title}: and {len(lines) - _SHOWN} more"))
    console.file.write(json.dumps(summary(verdict)) + "\n")
    console.file.flush()


def _rows(verdict: Verdict) -> list[tuple[str, str, str, bool]]:
    recovery = verdict.outcome.recovery_s
    counts = [
        ("lost", verdict.lost),
        ("duplicate effects", verdict.duplicates),
        ("order violations", verdict.disorder),
        ("unexplained calls", verdict.unexplained),
        ("other findings", verdict.other),
    ]
    rows = [(what, str(len(lines)), "0", not lines) for what, lines in counts]
    rows.append(("parked", str(len(verdict.parked)), f"{verdict.parked_expected}, the poison", not verdict.parked_wrongly))
    told = "never" if recovery is None else f"{recovery:.1f} s"
    rows.append(("lag 0 after the last kill", told, f"{RECOVERY_S:.0f} s at most", recovery is not None and recovery <= RECOVERY_S))
    return rows


def _findings(verdict: Verdict) -> list[tuple[str, list[str]]]:
    return [
        ("lost", verdict.lost),
        ("duplicate", verdict.duplicates),
        ("order", verdict.disorder),
        ("unexplained", verdict.unexplained),
        ("parked", verdict.parked_wrongly),
        ("other", verdict.other),
    ]
