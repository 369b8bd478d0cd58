"""Faulty streams and their repair: how long until the alarm, and how long until the recovery."""

from collections.abc import Callable, Iterator
from itertools import chain, repeat
from random import Random

import msgspec

from kickwatch.detect.classes import SPARE
from kickwatch.detect.classes import TOLERANCE as BPF_TOLERANCE
from kickwatch.detect.edetector import EDetector
from kickwatch.detect.recovery import Hysteresis
from kickwatch.detect.simulate.laws import Source, draws, poisson
from kickwatch.detect.simulate.nulls import bpf, fair_coin, overdispersed, relative, sweeps
from kickwatch.detect.streams import CREATION_PATH, Allowance, StreamName, allowance_of
from kickwatch.detect.wager import Null, Wager

EXACT, POISSON = "exact", "poisson"


class Effect(msgspec.Struct, frozen=True):
    """A fault: its broadcasts per container (or batch), their law, and the allowance of the stream."""

    broadcasts_per_container: float
    allowance: Allowance
    law: str

    def wager(self) -> Wager:
        """The wager of the stream that sees the fault."""
        return Wager(Null(self.allowance.mean, self.allowance.clip))

    def source(self, random: Random) -> Iterator[float]:
        """Its observations."""
        if self.law == EXACT:
            return repeat(self.broadcasts_per_container)
        return draws(poisson(self.broadcasts_per_container), random)


class OtherEffect(msgspec.Struct, frozen=True):
    """A fault for another stream than those of the creation path."""

    name: str
    wager: Callable[[], Wager]
    source: Source


SIGNATURE = allowance_of(StreamName.SIGNATURE)
UNCLIPPED = Allowance(CREATION_PATH.mean, 1e4)

EFFECTS = (
    Effect(1.0, CREATION_PATH, EXACT),
    Effect(1.0, CREATION_PATH, POISSON),
    Effect(0.5, CREATION_PATH, POISSON),
    Effect(0.25, CREATION_PATH, POISSON),
    Effect(3.0, CREATION_PATH, EXACT),  # the kmem TCP limit
    Effect(4.77, CREATION_PATH, POISSON),
    Effect(5.0, CREATION_PATH, EXACT),  # the canary under the fault of 2017, in batches
    Effect(1.0, SIGNATURE, EXACT),
    Effect(4.77, SIGNATURE, POISSON),
    Effect(32.0, SIGNATURE, EXACT),  # real containers on the faulty kernel
    Effect(0.1, CREATION_PATH, POISSON),  # twice the allowance; last, since an effect's place seeds its random numbers
)

# The cost of clipping: the same faults against the same allowance without it.
WITHOUT_CLIP = (
    Effect(3.0, UNCLIPPED, EXACT),
    Effect(4.77, UNCLIPPED, POISSON),
    Effect(32.0, UNCLIPPED, EXACT),
)


def always(random: Random) -> Iterator[float]:  # noqa: ARG001 - nothing is random here
    """Churn wins every trial."""
    return repeat(1.0)


def mostly(random: Random) -> Iterator[float]:
    """Churn wins nine trials of ten."""
    return (1.0 if random.random() < 0.9 else 0.0 for _ in repeat(None))


def bpf_doubled(cost: float) -> Source:
    """BPF programs that cost twice as much as the first containers' did, with no scatter, as was measured."""
    ratio = 2.0 * cost / (BPF_TOLERANCE * cost + SPARE)
    return lambda random: repeat(ratio)  # noqa: ARG005 - nothing is random here


OTHERS = (
    OtherEffect("swap: churn wins every trial", fair_coin, always),
    OtherEffect("swap: churn wins nine trials of ten", fair_coin, mostly),
    OtherEffect("relative: requests doubled, record of 500", relative, overdispersed(32.0)),
    OtherEffect("bpf: 16 broadcasts per container become 32", bpf, bpf_doubled(16.0)),
    OtherEffect("bpf: 4 become 8", bpf, bpf_doubled(4.0)),
    OtherEffect("sweeps: one of all CPUs for each container", sweeps, always),
)


class Recovery(msgspec.Struct, frozen=True):
    """A fault of `faulty` broadcasts per container, which then fall to `healthy` (both Poisson)."""

    faulty: float
    healthy: float


RECOVERIES = tuple(Recovery(faulty, healthy) for faulty in (3.0, 0.5) for healthy in (0.0, 0.01, 0.02))
STEADY_MEANS = (0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0, 3.0)  # where flapping would show
FAULT_LASTS = 50  # containers after the alarm


def hysteresis(threshold: float) -> Hysteresis:
    """The attributed stream with its recovery test."""
    return Hysteresis(EDetector(Wager(Null(CREATION_PATH.mean, CREATION_PATH.clip)), threshold))


def containers_to_recover(case: Recovery, threshold: float, random: Random) -> int:
    """Healthy containers from the end of the fault to the recovery."""
    watch = hysteresis(threshold)
    state = watch.start()
    faulty = draws(poisson(case.faulty), random)
    while not state.alerted:
        state = watch.step(state, next(faulty))
    healthy = draws(poisson(case.healthy), random) if case.healthy else repeat(0.0)
    used = 0
    for x in chain((next(faulty) for _ in range(FAULT_LASTS)), healthy):
        state = watch.step(state, x)
        used += 1
        if not state.alerted:
            break
    return max(0, used - FAULT_LASTS)


def changes(mean: float, threshold: float, observations: int, random: Random) -> int:
    """How often the alarm changes under a constant mean."""
    watch = hysteresis(threshold)
    state, count = watch.start(), 0
    source = draws(poisson(mean), random)
    for _ in range(observations):
        after = watch.step(state, next(source))
        count += after.alerted is not state.alerted
        state = after
    return count
