"""Cost of the detectors per trial, compared with decoding the trial's record.

Run it: `python tests/benchmarks/bench_detect.py`. It fails if a trial costs 1 ms or more.
"""

import sys
from collections.abc import Callable
from time import perf_counter

import click
import msgspec

from kickwatch.detect.edetector import EDetector
from kickwatch.detect.eprocess import EpochEProcess
from kickwatch.detect.oneshot import OneShot
from kickwatch.detect.recovery import Hysteresis
from kickwatch.detect.relative import Reference
from kickwatch.detect.streams import CREATION_PATH
from kickwatch.detect.swap import SwapTest
from kickwatch.detect.wager import Null, Wager

TRIALS = 4000
CONTAINERS = 4
STREAMS = 8  # attributed, signature, canary, contention, two known classes, destroy path, one relative cell
BUDGET_US = 1000.0
THRESHOLD = 5.3e8


def all_streams() -> Callable[[int], None]:
    """A trial: every stream's detector with recovery and its published e-process, and the swap test."""
    wager = Wager(Null(CREATION_PATH.mean, CREATION_PATH.clip))
    watch, epoch, swap = Hysteresis(EDetector(wager, THRESHOLD)), EpochEProcess(wager), SwapTest(THRESHOLD)
    states = [(watch.start(), epoch.start()) for _ in range(STREAMS)]
    coin = swap.start()

    def trial(n: int) -> None:
        nonlocal coin
        for stream in range(STREAMS):
            state, published = states[stream]
            xs = [1.0 if (n + stream + container) % 50 == 0 else 0.0 for container in range(CONTAINERS)]
            state, _ = watch.scan(state, xs)
            for x in xs:
                published = epoch.step(published, x)
            states[stream] = state, published
        coin = swap.step(coin, float(n % 3), float(n % 2))

    return trial


def save_all() -> Callable[[int], None]:
    """Write one stream's state as JSON, as after every trial."""
    watch = Hysteresis(EDetector(Wager(Null(CREATION_PATH.mean, CREATION_PATH.clip)), THRESHOLD))
    state = watch.step(watch.start(), 1.0)

    def trial(_: int) -> None:
        for _stream in range(STREAMS):
            msgspec.json.encode(watch.save(state))

    return trial


def one_reference() -> Callable[[int], None]:
    """Add one container to the record of one cell."""
    reference = Reference()

    def trial(n: int) -> None:
        nonlocal reference
        reference = reference.with_observation(float(10 + n % 13))

    return trial


def one_shot() -> Callable[[int], None]:
    """One container of `kickwatch trial`."""
    test = OneShot()

    def trial(_: int) -> None:
        test.container(test.start(), 0.0)

    return trial


def decode() -> Callable[[int], None]:
    """For comparison: decode a record of 3 kB as JSON."""
    record = msgspec.json.encode([{"reason": "flush_tlb_func", "requests": n, "stack": ["a"] * 8} for n in range(40)])

    def trial(_: int) -> None:
        msgspec.json.decode(record)

    return trial


def microseconds(trial: Callable[[int], None]) -> float:
    """The best of three rounds, per trial."""
    rounds = []
    for _ in range(3):
        begin = perf_counter()
        for n in range(TRIALS):
            trial(n)
        rounds.append((perf_counter() - begin) / TRIALS * 1e6)
    return min(rounds)


def main() -> int:
    """Print the table; 1 if a trial exceeds its budget."""
    yardstick = microseconds(decode())
    trial_us = microseconds(all_streams())
    rows = (
        ("decode a record (yardstick)", yardstick),
        (f"{STREAMS} streams x {CONTAINERS} containers + swap", trial_us),
        (f"save {STREAMS} streams", microseconds(save_all())),
        ("one container into a reference", microseconds(one_reference())),
        ("one container of a one-shot run", microseconds(one_shot())),
    )
    for name, cost in rows:
        click.echo(f"{name:40} {cost:8.1f} us {cost / yardstick:6.2f} x")
    click.echo(f"100,000 trials: {trial_us / 10:.1f} s")
    return int(trial_us >= BUDGET_US)


if __name__ == "__main__":
    sys.exit(main())
