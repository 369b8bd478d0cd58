"""How long a trial in pairs of halves takes beside one with two whole windows, in a process that is set up once.

Both designs run in turn on the same rig, with 23 containers, on Docker and on runc or crun without an engine; what goes
first alternates. Prints each round, and the median of the rounds' ratios with its spread. Needs root and Docker.

    usage: bench_trial.py [--rounds N]
"""

import argparse
import asyncio
import sys
import time
from dataclasses import replace
from statistics import median

import msgspec

from kickwatch.configuration.types import Config, Design, EngineConfig, EngineKind, TrialConfig
from kickwatch.experiment.rig import Rig
from kickwatch.experiment.trial_run import TrialRun
from kickwatch.node.lock import NodeLock

CONTAINERS = 23
MOST = 1.15


async def timed(rig: Rig, design: Design) -> float:
    """Seconds of one trial of that design."""
    config = msgspec.structs.replace(rig.setup.config, trial=TrialConfig(design=design))
    rig.setup = replace(rig.setup, config=config)
    since = time.perf_counter()
    trial = await TrialRun(rig, CONTAINERS, lambda _: None).run()
    if len(trial.pairs) != (CONTAINERS if design is Design.PAIRED else 0):
        sys.exit(f"bench_trial: {len(trial.pairs)} pairs in a trial of the design {design}")
    return time.perf_counter() - since


async def measure(kind: EngineKind, rounds: int) -> bool:
    """Run both designs in turn; True if the promise holds."""
    ratios = []
    async with Rig.open(Config(engine=EngineConfig(kind=kind))) as rig:
        for number in range(rounds + 1):
            order = (Design.PAIRED, Design.WHOLE) if number % 2 else (Design.WHOLE, Design.PAIRED)
            taken = {design: await timed(rig, design) for design in order}
            paired_s, whole_s = taken[Design.PAIRED], taken[Design.WHOLE]
            counted = "" if number else " (warm-up, not counted)"
            print(f"{kind}, round {number}: paired {paired_s:.1f} s, whole {whole_s:.1f} s{counted}", flush=True)
            ratios.append(paired_s / whole_s)
    ratios = ratios[1:]
    kept = median(ratios) <= MOST
    spread = f"median {median(ratios):.3f}, min {min(ratios):.3f}, max {max(ratios):.3f}"
    print(
        f"{kind}: paired / whole, time: {spread} (promised at most {MOST}: {'kept' if kept else 'MISSED'})", flush=True
    )
    return kept


def main() -> int:
    """Measure on both engines; 0 if the promises hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    with NodeLock():
        kept = [asyncio.run(measure(kind, given.rounds)) for kind in (EngineKind.DOCKER, EngineKind.OCI)]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
