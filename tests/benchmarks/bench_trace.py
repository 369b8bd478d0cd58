"""What `kickwatch trace` costs a node while it lists events: containers with and without the tracer, in turn.

By the kernel's own accounting (which itself costs two readings of the clock for each event), and by how long the
containers live. Needs root and a Docker Engine. Exit status 1 beyond the goal.
"""

import asyncio
import os
import sys
from contextlib import ExitStack
from typing import NamedTuple

from spread import spread

from kickwatch.configuration.loading import load
from kickwatch.experiment.rig import Rig, life_s
from kickwatch.model import WindowKind
from kickwatch.node.lock import NodeLock
from kickwatch.observe.bpf import enable_statistics
from kickwatch.observe.tracer import Tracer
from kickwatch.workload.names import new_trial_id

ROUNDS, CONTAINERS = 5, 12
MOST_US_PER_EVENT = 10.0


class Round(NamedTuple):
    """Of one container, on average. `events`, `us_per_event`: of the tracer, 0 while it lists nothing."""

    life_ms: float
    requests: float
    events: float
    us_per_event: float
    bytes_each: float


async def churn(rig: Rig, tracer: Tracer, *, on: bool) -> Round:
    """Run the containers of one round."""
    observatory = rig.observatory
    before, spent, seen = await observatory.sample(), tracer.cost(), len(tracer.records)
    tracer.switch(on=on)
    done = await rig.workload(new_trial_id(), CONTAINERS).churn(CONTAINERS)
    tracer.switch(on=False)
    tracer.drain()
    window = observatory.window(WindowKind.CHURN, before, await observatory.sample())
    records = tracer.records[seen:]
    ns = tracer.cost()[0] - spent[0]
    return Round(
        life_ms=1e3 * sum(map(life_s, done)) / len(done),
        requests=sum(cell.requests for cell in window.cells) / len(done),
        events=len(records) / len(done),
        us_per_event=ns / len(records) / 1e3 if records else 0.0,
        bytes_each=sum(map(len, records)) / len(done),
    )


async def measure() -> tuple[list[Round], list[Round], int]:
    """(rounds with, rounds without the tracer, events lost)."""
    with NodeLock(), ExitStack() as stack:
        async with Rig.open(load(None, (), os.environ).config) as rig:
            tracer = await asyncio.to_thread(Tracer.arm, rig.observatory)
            stack.callback(tracer.close)
            stack.callback(os.close, enable_statistics())
            listed, plain = [], []
            for _ in range(ROUNDS):
                plain.append(await churn(rig, tracer, on=False))
                listed.append(await churn(rig, tracer, on=True))
            return listed, plain, tracer.losses().events


def main() -> int:
    """Measure, print, judge."""
    listed, plain, lost = asyncio.run(measure())
    print(f"{ROUNDS} rounds of {CONTAINERS} containers with the tracer, and as many without; min / median / max")
    for name, rounds in (("with", listed), ("without", plain)):
        for field in Round._fields:
            low, middle, high = spread([getattr(each, field) for each in rounds])
            print(f"  {name:8s}{field:14s}{low:.2f} / {middle:.2f} / {high:.2f}")
    print(f"  events lost: {lost}; goal: at most {MOST_US_PER_EVENT:.0f} us per event (median)")
    return 0 if spread([each.us_per_event for each in listed])[1] <= MOST_US_PER_EVENT else 1


if __name__ == "__main__":
    sys.exit(main())
