"""The torture harness can fail: with one guarantee taken out it reports the loss or the double. What it reports with all of them in
place is the torture step of `script/test`.

Each run is the harness itself against real Kafka, in a process of its own, aimed at the roles whose guarantee is gone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.kafka
@pytest.mark.timeout(480)
@pytest.mark.usefixtures("jvm")
@pytest.mark.parametrize(
    ("sabotage", "options", "harms"),
    [
        ("early-ack", ("--aim", "provision", "--slow-looks", "2.5", "--partitions", "1"), {"lost"}),
        ("stock-offsets", ("--aim", "provision", "--slow-looks", "2.5", "--partitions", "1"), {"lost"}),
        ("no-intent", ("--aim", "provision", "--slow", "2.5"), {"unexplained_calls", "duplicate_effects"}),
        ("cursor-before-ack", ("--aim", "poller"), {"lost"}),
    ],
)
def test_a_guarantee_that_is_taken_out_is_missed(tmp_path: Path, sabotage: str, options: tuple[str, ...], harms: set[str]) -> None:
    """On a slow machine a kill may meet nothing in hand, and nothing is lost by chance: a second seed is asked then."""
    for seed in ("1", "2"):
        command = [
            sys.executable,
            "-m",
            "tests.torture",
            "--sabotage",
            sabotage,
            "--seed",
            seed,
            "--events",
            "240",
            "--kills",
            "4",
            *options,
        ]
        keep = ["--keep", str(tmp_path / seed)]
        done = subprocess.run([*command, *keep], cwd=ROOT, capture_output=True, text=True, timeout=230, check=False)
        if done.returncode:
            break
    assert done.returncode == 1, done.stdout + done.stderr
    verdict = json.loads(done.stdout.splitlines()[-1])
    assert any(verdict[harm] for harm in harms), done.stdout
