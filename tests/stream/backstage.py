"""Simulators in a thread of their own, so that commands can be run as a user runs them: synchronously, with a loop of their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from simulators.serve import Simulation, SimulationOptions

T = TypeVar("T")


class Backstage:
    """`simulation` may be looked at from outside; what changes it goes through `run`."""

    def __init__(self, simulation: Simulation, config: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.simulation, self.config, self._loop = simulation, config, loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def calls(self) -> list[dict[str, Any]]:
        """Every mutating call at any vendor."""
        sims = [*self.simulation.oktas.values(), self.simulation.box, self.simulation.slack]
        return [call for one in sims for call in one.calls.after(0)]


@contextlib.contextmanager
def backstage(folder: Path, **options: Any) -> Iterator[Backstage]:
    """`options` are those of SimulationOptions; the configuration lies in `folder`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    config = folder / "portcullis.toml"
    simulation = Simulation(SimulationOptions(write_config=config, **options))
    stage = Backstage(simulation, config, loop)
    try:
        stage.run(simulation.start())
        yield stage
    finally:
        stage.run(simulation.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
