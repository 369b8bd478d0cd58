"""The cost of `quiet` on a healthy node: containers until it is established, and the share of time it is lost."""

from collections.abc import Iterator
from functools import cache
from itertools import count, zip_longest
from random import Random

import msgspec

from kickwatch.detect.classes import KEY_FLIPS
from kickwatch.detect.examine import Examined
from kickwatch.detect.lives import Churned
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.observations import TrialObservations
from kickwatch.detect.pairs import LARGEST_DIFFERENCE
from kickwatch.detect.quantities import beyond_margin
from kickwatch.detect.rates import Pace
from kickwatch.detect.simulate.laws import draw, poisson
from kickwatch.detect.strata import Stratum
from kickwatch.detect.streams import StreamName
from kickwatch.model import Verdict

SENTINEL_PERIOD_S = 1380.0  # 23 containers, 60 an hour
LONGEST_START = 5000  # containers
WHOLE_EVERY = 3  # trials of a node with pairs compare whole windows
TRIALS_AFTER = 300  # trials of 23 containers: about five days of the preset `sentinel`

_ZEROS = tuple(map(StreamName, ("burst", "signature", "destroy", "percpu_balance", "contention")))
_STRATUM = Stratum("simulated", "x86_64", 4, "engine", "runtime", "v2", "none", False, 1)


class Healthy(msgspec.Struct, frozen=True):
    """A node without a fault: stray creation-path broadcasts per container, and a background per window (Poisson).

    `paired`: two trials of three compare pairs of halves, each with that background; `different`: the share of
    containers that come with six broadcasts from elsewhere.
    """

    name: str
    stray: float = 0.0
    background: float = 0.0
    containers: int = 23
    paired: bool = False
    different: float = 0.0


HEALTHY = (
    Healthy("nothing ever broadcasts"),
    Healthy("1 container in 1000 broadcasts", 0.001),
    Healthy("1 in 100", 0.01),
    Healthy("1 in 20, as allowed", 0.05),
    Healthy("1 broadcast elsewhere in each window", 0.0, 1.0),
    Healthy("10 elsewhere in each window", 0.0, 10.0),
    Healthy("1 elsewhere in each window, trials of 4 containers", 0.0, 1.0, 4),
    Healthy("1 elsewhere in 20 halves", background=0.05, paired=True),
    Healthy("1 elsewhere in each half", background=1.0, paired=True),
    Healthy("1 container in 23 with 6 elsewhere", paired=True, different=1 / 23),
    Healthy("1 container in 100 with 6 elsewhere", paired=True, different=0.01),
)


@cache
def _monitor(containers: int) -> Monitor:
    return Monitor(Pace(containers, SENTINEL_PERIOD_S))


def verdicts(node: Healthy, random: Random) -> Iterator[Verdict]:
    """What the daemon believes after each trial."""
    monitor = _monitor(node.containers)
    state = monitor.start()
    for number in count():
        state, outcome = monitor.judge(state, _trial(node, number, random))
        yield outcome.verdict


def _trial(node: Healthy, number: int, random: Random) -> Examined:
    stray = poisson(node.stray)
    lives = tuple(draw(stray, random) for _ in range(node.containers))
    windows, differences, above = _elsewhere(node, number, random)
    observed = TrialObservations(
        containers=node.containers,
        amounts={StreamName.ATTRIBUTED: lives} | dict.fromkeys(_ZEROS, (0.0,)),
        windows=windows,
        cell_costs={},
        churned=Churned(lives),
        elsewhere_above_quiet=above,
        differences=differences,
    )
    return Examined(
        trial="", boot_id="", started_unix_s=0.0, stratum=_STRATUM, counters=False, observed=observed, complete=True
    )


def _elsewhere(
    node: Healthy, number: int, random: Random
) -> tuple[dict[StreamName, tuple[float, float]], dict[StreamName, tuple[float, ...]], float]:
    """Broadcasts elsewhere: of two windows or of pairs, and how many are above quiet."""
    halves = node.containers if node.paired else 1
    background = poisson(node.background)
    effects = [KEY_FLIPS * (random.random() < node.different) for _ in range(node.containers if node.different else 0)]
    churn, quiet = ([draw(background, random) for _ in range(halves)] for _ in range(2))
    if not node.paired or number % WHOLE_EVERY == WHOLE_EVERY - 1:
        more, fewer = sum(churn) + sum(effects), sum(quiet)
        return {StreamName.ELSEWHERE: beyond_margin(more, fewer, node.containers)}, {}, more - fewer
    pairs = tuple(c + e - q for c, e, q in zip_longest(churn, effects, quiet, fillvalue=0.0))
    above = sum(min(max(pair, -LARGEST_DIFFERENCE), LARGEST_DIFFERENCE) for pair in pairs)
    return {}, {StreamName.ELSEWHERE_PAIRS: pairs}, above


def containers_to_quiet(node: Healthy, random: Random) -> int:
    """Containers from a start to the first `quiet`."""
    used = 0
    for verdict in verdicts(node, random):
        used += node.containers
        if verdict is Verdict.QUIET or used >= LONGEST_START:
            break
    return used


def share_unknown(node: Healthy, random: Random) -> float:
    """The share of the trials after the first `quiet` that end `unknown`."""
    after = unknown = 0
    for verdict in verdicts(node, random):
        if after or verdict is Verdict.QUIET:
            after += 1
            unknown += verdict is not Verdict.QUIET
        if after >= TRIALS_AFTER:
            break
    return unknown / after
