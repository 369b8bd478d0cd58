"""Healthy streams of every nasty kind.

Those of `NULLS` keep the detectors' promise, "the mean given the past is at most the allowance", and lie on its edge
wherever they can, since a null in its interior is easy. Those of `OUTSIDE` break it in the ways in which a real node
might; nothing is promised there, and what happens is measured.
"""

from collections.abc import Callable, Iterator
from math import pi, sin
from random import Random

import msgspec

from kickwatch.detect.classes import LEARNING_CONTAINERS, SPARE
from kickwatch.detect.classes import TOLERANCE as BPF_TOLERANCE
from kickwatch.detect.recovery import CONFIDENT, PLAIN
from kickwatch.detect.relative import TOLERANCE, Reference
from kickwatch.detect.simulate.laws import draw, draws, from_masses, poisson, two_point
from kickwatch.detect.streams import CREATION_PATH, StreamName, allowance_of
from kickwatch.detect.swap import FAIR_COIN
from kickwatch.detect.wager import Null, Wager

SIGNATURE = allowance_of(StreamName.SIGNATURE)
BPF = allowance_of(StreamName.BPF)
SWEEPS = allowance_of(StreamName.SWEEPS)
ALLOWED = CREATION_PATH.mean
CLIP = CREATION_PATH.clip
DAY = 1440  # observations: one a minute

Source = Callable[[Random], Iterator[float]]


class Scenario(msgspec.Struct, frozen=True):
    """A healthy stream: what it is called, who watches it, and how it is made.

    The nearer its run length lies to the bound, the more runs it takes to tell them apart (`effort` times the
    usual), and the lower the highest threshold at which that can be afforded.
    """

    name: str
    wager: Callable[[], Wager]
    source: Source
    effort: int = 1
    highest_threshold: float = 1e5


def attributed() -> Wager:
    """The wager on the creation path's broadcasts."""
    return Wager(Null(ALLOWED, CLIP))


def signature() -> Wager:
    """The wager on cells that no healthy kernel has."""
    return Wager(Null(SIGNATURE.mean, SIGNATURE.clip))


def bpf() -> Wager:
    """The wager on broadcasts for BPF programs, in units of what is allowed."""
    return Wager(Null(BPF.mean, BPF.clip))


def sweeps() -> Wager:
    """The wager on single requests of the creation path."""
    return Wager(Null(SWEEPS.mean, SWEEPS.clip))


def fair_coin() -> Wager:
    """The wager of the swap test."""
    return FAIR_COIN


def recovery() -> Wager:
    """The wager of the recovery test: against a stream that still broadcasts."""
    return Wager(Null(PLAIN.clip - PLAIN.mean, PLAIN.clip), CONFIDENT)


def relative() -> Wager:
    """The wager of the relative rule after a record of 500 containers at 16 +- 8 requests."""
    random, reference = Random(500), Reference()  # noqa: S311 - no secret
    for x, _ in zip(overdispersed(16.0)(random), range(532), strict=False):
        reference = reference.with_observation(x)
    bound = reference.upper_bound()
    if bound is None:
        raise ValueError("the record of the relative scenario has no bound")
    return Wager(Null(bound * TOLERANCE, reference.clip))


def at_the_edge(random: Random) -> Iterator[float]:
    """Independent Poisson observations whose mean is the allowance."""
    return draws(poisson(ALLOWED), random)


def bursty(random: Random) -> Iterator[float]:
    """All broadcasts come in bursts that reach the clip: of all laws the one with the most variance."""
    return draws(two_point(CLIP, ALLOWED), random)


def heavy_tailed(random: Random) -> Iterator[float]:
    """P(X >= k) falls as k**-1.2, a tail without variance; the clipped mean is the allowance."""
    tail = [k**-1.2 for k in range(1, 5)]
    rare = ALLOWED / sum(tail)
    masses = {0.0: 1.0 - rare} | {float(k): rare * (tail[k - 1] - tail[k]) for k in range(1, 4)} | {4.0: rare * tail[3]}
    law = from_masses(masses)
    for x in draws(law, random):
        yield x * int(1.0 + 1.0 / (random.random() + 1e-9)) if x == CLIP else x  # far above: the clip must hold it


def day_and_night(random: Random) -> Iterator[float]:
    """The allowance by day, nothing by night."""
    day, night = draws(poisson(ALLOWED), random), draws(poisson(ALLOWED / 50), random)
    while True:
        for source in (day, night):
            for _ in range(DAY // 2):
                yield next(source)


def drifting(random: Random) -> Iterator[float]:
    """The mean wanders up and down between a tenth of the allowance and the allowance."""
    laws = [poisson(ALLOWED * step / 50) for step in range(5, 51)]
    at = len(laws) - 1
    while True:
        at = min(max(at + random.choice((-1, 1)), 0), len(laws) - 1)
        for _ in range(20):
            yield draw(laws[at], random)


def autocorrelated(random: Random) -> Iterator[float]:
    """Calm breeds calm and bursts breed bursts, for 50 observations at a time; the mean given the past stays put."""
    calm, burst = poisson(ALLOWED), two_point(CLIP, ALLOWED)
    excited = 0
    while True:
        x = draw(burst if excited else calm, random)
        excited = 50 if x > 0.0 else max(excited - 1, 0)
        yield x


def mislabelled(random: Random) -> Iterator[float]:
    """One container in a hundred is charged with the destroy path's 58 broadcasts; 0.01 of its own otherwise."""
    own = poisson(ALLOWED - 0.01 * CLIP)
    while True:
        yield 58.0 if random.random() < 0.01 else draw(own, random)


def stalls(random: Random) -> Iterator[float]:
    """The engine stalls, and the container after the stall is charged with what came meanwhile."""
    usual = ALLOWED / 5
    laws = [poisson(usual * length) for length in range(1, 6)]
    while True:
        length = random.randint(1, 5) if random.random() < 0.1 else 1
        yield draw(laws[length - 1], random)


def signature_bursts(random: Random) -> Iterator[float]:
    """Bursts that reach the high clip of signatures, as rarely as the allowance demands."""
    return draws(two_point(SIGNATURE.clip, SIGNATURE.mean), random)


def bpf_bursts(random: Random) -> Iterator[float]:
    """Trials without any program, and trials with eight times what is allowed."""
    return draws(two_point(BPF.clip, BPF.mean), random)


def sweep_bursts(random: Random) -> Iterator[float]:
    """Trials without single requests, and trials full of them."""
    return draws(two_point(SWEEPS.clip, SWEEPS.mean), random)


def learnt_by_scatter(random: Random) -> Iterator[float]:
    """The allowance is learnt from ten containers whose cost scatters by a third; trials of 23 follow."""
    source = overdispersed(16.0)(random)
    learnt = sum(next(source) for _ in range(LEARNING_CONTAINERS)) / LEARNING_CONTAINERS
    allowed = BPF_TOLERANCE * learnt + SPARE
    while True:
        yield sum(next(source) for _ in range(23)) / 23 / allowed


def still_broadcasting(random: Random) -> Iterator[float]:
    """A fault in a quarter of the containers; the recovery test must not call a fifth or more recovered."""
    for x in draws(two_point(1.0, PLAIN.mean * 1.25), random):
        yield 1.0 - x


def unchanged_cost(random: Random) -> Iterator[float]:
    """A cell that costs a quarter more under the new kernel, which the relative rule tolerates."""
    return overdispersed(16.0 * TOLERANCE)(random)


def overdispersed(mean: float) -> Source:
    """Requests per container: Poisson about a level that differs from container to container by a third."""
    laws = [poisson(mean * level / 12) for level in (6, 8, 10, 11, 12, 13, 14, 16, 18)]

    def source(random: Random) -> Iterator[float]:
        while True:
            yield draw(random.choice(laws), random)

    return source


def coin_over(levels: Callable[[Random], Iterator[float]]) -> Source:
    """Signs of churn minus quiet, of two windows in random order over a background that no container causes."""
    laws = [poisson(0.25 * step) for step in range(121)]

    def source(random: Random) -> Iterator[float]:
        background = levels(random)
        while True:
            first, second = (draw(laws[min(int(next(background) * 4.0), 120)], random) for _ in range(2))
            churn_first = random.random() < 0.5
            if first != second:
                yield 1.0 if (first > second) == churn_first else 0.0

    return source


def daily(random: Random) -> Iterator[float]:  # noqa: ARG001 - a level that knows no chance, among those that do
    """A background that swings between 0 and 8 by the time of day."""
    while True:
        for minute in range(DAY):
            yield 4.0 + 4.0 * sin(2.0 * pi * minute / DAY)


def wandering(random: Random) -> Iterator[float]:
    """A background that drifts without bound but for its range of 0 to 30."""
    level = 5.0
    while True:
        level = min(max(level + random.gauss(0.0, 0.3), 0.0), 30.0)
        yield level


def storms(random: Random) -> Iterator[float]:
    """Quiet, with storms that last for about 30 windows."""
    storm = False
    while True:
        storm = random.random() < (0.97 if storm else 0.01)
        yield 20.0 if storm else 0.3


def shortened(random: Random) -> Iterator[float]:
    """The second window of a trial is always cut short by a stall: it sees half of the background."""
    while True:
        level = random.uniform(1.0, 6.0)
        yield level
        yield level / 2


NULLS = (
    Scenario("attributed: poisson at the allowance", attributed, at_the_edge),
    Scenario("attributed: bursty", attributed, bursty),
    Scenario("attributed: heavy-tailed", attributed, heavy_tailed),
    Scenario("attributed: day and night", attributed, day_and_night),
    Scenario("attributed: drifting background", attributed, drifting),
    Scenario("attributed: autocorrelated", attributed, autocorrelated),
    Scenario("attributed: mislabelled windows", attributed, mislabelled),
    Scenario("attributed: stalls", attributed, stalls, 1, 1e4),
    Scenario("signature: bursts at the clip", signature, signature_bursts),
    Scenario("bpf: bursts at the clip", bpf, bpf_bursts, 3, 1e4),
    Scenario("sweeps: bursts at the clip", sweeps, sweep_bursts),
    Scenario("swap: day and night", fair_coin, coin_over(daily), 3, 1e3),
    Scenario("swap: drifting background", fair_coin, coin_over(wandering), 3, 1e3),
    Scenario("swap: autocorrelated storms", fair_coin, coin_over(storms), 3, 1e3),
    Scenario("swap: stalls in the second window", fair_coin, coin_over(shortened), 3, 1e3),
    Scenario("relative: a quarter more, as tolerated", relative, unchanged_cost, 1, 1e4),
    Scenario("recovery: one container in four still broadcasts", recovery, still_broadcasting),
)


def clusters(mean: float, persistence: float) -> Source:
    """A broadcast is followed by another with probability `persistence`, whatever the allowance says."""
    quiet_to_hit = mean * (1.0 - persistence) / (1.0 - mean)

    def source(random: Random) -> Iterator[float]:
        hit = False
        while True:
            hit = random.random() < (persistence if hit else quiet_to_hit)
            yield 1.0 if hit else 0.0

    return source


def backlog(random: Random) -> Iterator[float]:
    """Stalls of up to 400 observations, whose whole background of 0.01 each lands on two containers."""
    usual = poisson(0.01)
    laws = [poisson(0.005 * length) for length in range(401)]
    while True:
        if random.random() < 0.005:
            law = laws[random.randint(1, 400)]
            yield draw(law, random)
            yield draw(law, random)
        yield draw(usual, random)


def never_idle(random: Random) -> Iterator[float]:
    """Every day an hour in which a healthy kernel broadcasts 0.1 per container, twice the allowance."""
    usual, busy = poisson(0.005), poisson(0.1)
    while True:
        for minute in range(DAY):
            yield draw(busy if minute < 60 else usual, random)


OUTSIDE = (
    Scenario("clusters: mean 0.05, every second broadcast followed by another", attributed, clusters(0.05, 0.5)),
    Scenario("clusters: mean 0.01, every second broadcast followed by another", attributed, clusters(0.01, 0.5)),
    Scenario("clusters: mean 0.01, four of five followed by another", attributed, clusters(0.01, 0.8)),
    Scenario("stalls of up to 400 observations, charged to two containers", attributed, backlog),
    Scenario("an hour a day at twice the allowance", attributed, never_idle),
    Scenario("bpf: an allowance learnt from ten containers that scatter by a third", bpf, learnt_by_scatter),
)
