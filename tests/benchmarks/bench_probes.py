"""Cost of the csd program per event, by the kernel's own accounting, beside an empty program on the same events.

The accounting itself (two readings of the clock) costs more than an empty program, so the ratio of the two is the
figure to hold. One empty program is attached before the csd program and one after it, since the first to run on an
event finds colder caches; the yardstick is their mean. All three see every event, so no drift of the machine can favour
one. Two mixes of events alternate: container churn (remote wakeups, shootdowns, RCU, and what is unwound), and mostly
TLB shootdowns. With KICKWATCH_NODE_ISOLATED_CPUS=1 one more map is written for each request to CPU 1.

Enabling BPF run-time statistics flips a static key (broadcasts), so this is a benchmark and never part of a trial.
Needs root, clang and a Docker Engine. Exit status 1 beyond the goals.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import empty_program
from spread import spread

from kickwatch.configuration.loading import load
from kickwatch.experiment.rig import Rig
from kickwatch.node.lock import NodeLock
from kickwatch.observe.bpf import BpfObject, enable_statistics
from kickwatch.workload.names import new_trial_id

ROUNDS, CONTAINERS = 7, 12
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


class Goal(NamedTuple):
    """The most that an event may cost in one mix: in nanoseconds, and as a multiple of an empty program."""

    ns: float
    ratio: float


class Round(NamedTuple):
    """Mean cost of an event in one round, ns. `empty`: of the program that does nothing."""

    ns: float
    empty: float
    events: int

    @property
    def ratio(self) -> float:
        """How many times an empty program's cost."""
        return self.ns / self.empty


GOALS = {"container churn": Goal(400, 3.0), "TLB shootdown storm": Goal(400, 2.0)}


class Programs:
    """The csd program between two empty ones, all attached to the same tracepoint."""

    def __init__(self, csd: BpfObject, empty: list[BpfObject]) -> None:
        self._programs = [(csd, "csd_queue_cpu"), *((probe, empty_program.PROGRAM) for probe in empty)]

    async def cost(self, act: Callable[[], Awaitable[object]]) -> Round:
        """Of the events while `act` runs."""
        before = self._spent()
        await act()
        spent = [(ns - ns0, runs - runs0) for (ns0, runs0), (ns, runs) in zip(before, self._spent(), strict=True)]
        csd, *empty = (ns / runs if runs else 0.0 for ns, runs in spent)
        return Round(csd, fmean(empty), spent[0][1])

    def _spent(self) -> list[tuple[int, int]]:
        return [probe.run_statistics(name)[:2] for probe, name in self._programs]


async def shootdowns() -> None:
    """About ten thousand TLB shootdowns."""
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", STORM], check=True)


def show(name: str, rounds: list[Round]) -> bool:
    """Print the figures of one mix; True if they are within its goal."""
    goal, figures = GOALS[name], {}
    for what, each in (
        ("csd, ns", [one.ns for one in rounds]),
        ("empty, ns", [one.empty for one in rounds]),
        ("ratio", [one.ratio for one in rounds]),
    ):
        figures[what] = spread(each)
    print(f"{name}: {sum(one.events for one in rounds)} events; min / median / max")
    for what, (low, middle, high) in figures.items():
        print(f"  {what:10s}" + " / ".join(f"{figure:.2f}" for figure in (low, middle, high)))
    ns, ratio = figures["csd, ns"][1], figures["ratio"][1]
    print(f"  goal: at most {goal.ns:.0f} ns, and {goal.ratio:.1f} times an empty program (medians)")
    return ns <= goal.ns and ratio <= goal.ratio


async def measure(directory: Path) -> dict[str, list[Round]]:
    """Both mixes in turn."""
    empty_program.build(directory)
    with NodeLock(), ExitStack() as stack:
        first = empty_program.attach(directory)
        stack.callback(first.close)
        async with Rig.open(load(None, (), os.environ).config) as rig:
            last = empty_program.attach(directory)
            stack.callback(last.close)
            assert rig.observatory.requests is not None, rig.observatory.losses
            programs = Programs(rig.observatory.requests.probe, [first, last])
            stack.callback(os.close, enable_statistics())
            rounds: dict[str, list[Round]] = {name: [] for name in GOALS}
            for _ in range(ROUNDS):
                churn = partial(rig.workload(new_trial_id(), CONTAINERS).churn, CONTAINERS)
                for name, act in zip(GOALS, (churn, shootdowns), strict=True):
                    rounds[name].append(await programs.cost(act))
    return rounds


def main() -> int:
    """Measure, print, judge."""
    with tempfile.TemporaryDirectory() as directory:
        rounds = asyncio.run(measure(Path(directory)))
    within = [show(name, each) for name, each in rounds.items()]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
