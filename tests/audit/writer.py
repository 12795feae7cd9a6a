"""A recorder's writing half as a process of its own, to be killed or starved: `python -m tests.audit.writer FILE COUNT [SPARE_BYTES]`.

Prints the positions after each committed batch. With SPARE_BYTES no file may grow by more (as on a full disk); a FaultError ends it with 70.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

from audit.store import AuditStore
from model.decision import Moment
from model.errors import FaultError
from tests.audit.trail import PERSON, SOURCE, Log, classified, event


def feed(count: int) -> Log:
    log = Log()
    for n in range(count):
        log.source(event(f"u-{n}", padding=f"{n:x}" * 400))
        if n % 10 == 0:
            log.audit(classified(f"u-{n}", Moment.MOVE, [PERSON]))
    return log


def main(path: Path, count: int, spare: int | None) -> None:
    if spare is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        largest = max((file.stat().st_size for file in path.parent.iterdir()), default=0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + spare, resource.RLIM_INFINITY))
    records = feed(count).records
    store = AuditStore(path, "one")
    while True:
        at = store.positions()
        rest = [one for one in records if one.offset >= at.get((one.topic, one.partition), 0)]
        print(at.get((SOURCE, 0), 0), flush=True)
        if not rest:
            break
        store.write(rest[:25])
    store.close()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
    except FaultError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(70)
