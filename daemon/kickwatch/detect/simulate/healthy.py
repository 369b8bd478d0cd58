"""The cost of `quiet` on a healthy node: containers until it is established, and the share of time it is lost."""

from collections.abc import Iterator
from functools import cache
from random import Random

import msgspec

from kickwatch.detect.examine import Examined
from kickwatch.detect.lives import Churned
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.observations import TrialObservations
from kickwatch.detect.quantities import beyond_margin
from kickwatch.detect.rates import Pace
from kickwatch.detect.simulate.laws import draw, poisson
from kickwatch.detect.strata import Stratum
from kickwatch.detect.streams import StreamName
from kickwatch.model import Verdict

SENTINEL_PERIOD_S = 1380.0  # 23 containers, 60 an hour
LONGEST_START = 5000  # containers
TRIALS_AFTER = 300  # trials of 23 containers: about five days of the preset `sentinel`

_ZEROS = tuple(map(StreamName, ("burst", "signature", "destroy", "percpu_balance", "contention")))
_STRATUM = Stratum("simulated", "x86_64", 4, "engine", "runtime", "v2", "none", False, 1)


class Healthy(msgspec.Struct, frozen=True):
    """A node without a fault: stray creation-path broadcasts per container, and a background per window (Poisson)."""

    name: str
    stray: float = 0.0
    background: float = 0.0
    containers: int = 23


HEALTHY = (
    Healthy("nothing ever broadcasts"),
    Healthy("1 container in 1000 broadcasts", 0.001),
    Healthy("1 in 100", 0.01),
    Healthy("1 in 20, as allowed", 0.05),
    Healthy("1 broadcast elsewhere in each window", 0.0, 1.0),
    Healthy("10 elsewhere in each window", 0.0, 10.0),
    Healthy("1 elsewhere in each window, trials of 4 containers", 0.0, 1.0, 4),
)


@cache
def _monitor(containers: int) -> Monitor:
    return Monitor(Pace(containers, SENTINEL_PERIOD_S))


def verdicts(node: Healthy, random: Random) -> Iterator[Verdict]:
    """What the daemon believes after each trial."""
    monitor = _monitor(node.containers)
    state = monitor.start()
    while True:
        state, outcome = monitor.judge(state, _trial(node, random))
        yield outcome.verdict


def _trial(node: Healthy, random: Random) -> Examined:
    stray, background = poisson(node.stray), poisson(node.background)
    lives = tuple(draw(stray, random) for _ in range(node.containers))
    churn, quiet = draw(background, random), draw(background, random)
    observed = TrialObservations(
        containers=node.containers,
        amounts={StreamName.ATTRIBUTED: lives} | dict.fromkeys(_ZEROS, (0.0,)),
        windows={StreamName.ELSEWHERE: beyond_margin(churn, quiet, node.containers)},
        cell_costs={},
        churned=Churned(lives),
        elsewhere_above_quiet=churn - quiet,
    )
    return Examined(
        trial="", boot_id="", started_unix_s=0.0, stratum=_STRATUM, counters=False, observed=observed, complete=True
    )


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
