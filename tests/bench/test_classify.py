"""`python -m bench.classify` on a handful of events: ours beside the loops, and one JSON object as the last line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_bench_measures_ours_beside_the_others(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.classify", "--count", "200"], capture_output=True, cwd=root, timeout=100, check=True, text=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["events"] == 200
    assert told["rules"]["reported"] >= 50
    rates = told["events_per_cpu_s"]
    assert rates["portcullis"] > 0
    assert rates["portcullis, single events"] > 5 * rates["pySigma's trees, no index"]
    assert {target["name"] for target in told["targets"]} == {"events a CPU second, decoding included"}
