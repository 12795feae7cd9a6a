"""The vendors of the delay runs: `python -m bench.flow_sims --config FILE --people N`. Okta and Box, each answer 50 ms late, with as many
people to be locked (who have accounts at both) and as many newcomers (who have none at Box). Rate limits are out of the way; the
configuration is written when everything listens. Ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import uvloop

from simulators.serve import Simulation, SimulationOptions

#: Every answer of every vendor is late by so much.
ANSWER_S = 0.05
#: A bucket of Okta's log that raises all other limits far above what the runs ask for.
_RATE = 60_000


def locked(number: int) -> str:
    """The Okta id of somebody who will be locked."""
    return f"00ubenchlock{number:08d}"


def hired(number: int) -> str:
    """The Okta id of somebody who comes."""
    return f"00ubenchhire{number:08d}"


def login(person: str) -> str:
    return f"{person.lower()}@brightwater.example"


def seed(simulation: Simulation, people: int) -> None:
    for number in range(people):
        for person in (locked(number), hired(number)):
            profile = {
                "login": login(person),
                "email": login(person),
                "firstName": "Staff",
                "lastName": f"Member {number}",
                "department": "Sales",
            }
            simulation.okta.org.seed_user(profile, user_id=person, sessions=1)
        simulation.box.add_user(login(locked(number)), f"Staff Member {number}")


async def serve(config: Path, people: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    simulation = Simulation(SimulationOptions(write_config=config, rate=_RATE, lag_s=0.0))
    seed(simulation, people)
    for one in (simulation.okta, simulation.box):
        one.latency_s = ANSWER_S
    await simulation.start()
    await stop.wait()
    await simulation.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="The vendors of bench.flow's delay runs.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--people", type=int, required=True)
    asked = parser.parse_args()
    uvloop.run(serve(asked.config, asked.people))


if __name__ == "__main__":
    main()
