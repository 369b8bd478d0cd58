"""Cost of the csd program per event, from the kernel's statistics, during container churn.

Enabling BPF run-time statistics flips a static key (broadcasts), so this is a benchmark and never part of a trial. The
mean depends on the mix of events: a remote wakeup or a TLB shootdown costs one or two map look-ups, an unknown request
is unwound. Two mixes are measured: that of the churn, and mostly shootdowns. Needs root and a Docker Engine.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median

from kickwatch.configuration.loading import load
from kickwatch.experiment.rig import Rig
from kickwatch.node.lock import NodeLock
from kickwatch.observe.bpf import enable_statistics
from kickwatch.workload.names import new_trial_id

ROUNDS, CONTAINERS, PROMISED_NS = 5, 12, 400
STORM = """
import hashlib, mmap, os, threading
def compute():
    os.sched_setaffinity(0, {1})
    hashlib.sha256(bytes(400 << 20))
other = threading.Thread(target=compute)
other.start()
os.sched_setaffinity(0, {0})
pages = mmap.mmap(-1, 1 << 20)
while other.is_alive():
    pages[0] = 1
    pages.madvise(mmap.MADV_DONTNEED)
"""


async def cost(rig: Rig, act: Callable[[], Awaitable[object]]) -> tuple[float, int]:
    """(mean nanoseconds, events) of the program while `act` runs."""
    assert rig.observatory.requests is not None, rig.observatory.losses
    probe = rig.observatory.requests.probe
    ns_before, runs_before, _ = probe.run_statistics("csd_queue_cpu")
    await act()
    ns_after, runs_after, _ = probe.run_statistics("csd_queue_cpu")
    runs = runs_after - runs_before
    return ((ns_after - ns_before) / runs if runs else 0.0), runs


async def shootdowns() -> None:
    """About ten thousand TLB shootdowns."""
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", STORM], check=True)


def show(name: str, costs: list[tuple[float, int]]) -> float:
    """Print a line; return the median of the means."""
    means = [mean for mean, _ in costs]
    events = sum(runs for _, runs in costs)
    spread = f"min {min(means):.0f}, max {max(means):.0f}"
    print(f"{name}: median {median(means):.0f} ns an event, {spread}, {events} events")
    return median(means)


async def main() -> int:
    """Measure both mixes, several rounds each."""
    with NodeLock():
        async with Rig.open(load(None).config) as rig:
            statistics = enable_statistics()
            try:
                churn, storm = [], []
                for _ in range(ROUNDS):
                    churn.append(await cost(rig, partial(rig.workload(new_trial_id()).churn, CONTAINERS)))
                    storm.append(await cost(rig, shootdowns))
            finally:
                os.close(statistics)
    means = [show("container churn", churn), show("TLB shootdown storm", storm)]
    print(f"promised: at most {PROMISED_NS} ns mean")
    return 0 if max(means) <= PROMISED_NS else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
