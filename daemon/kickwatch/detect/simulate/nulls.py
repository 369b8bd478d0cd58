"""Healthy streams of the kinds that are hardest for the detectors.

They keep the detectors' promise, "the mean given the past is at most the allowance", and are at its edge where
possible: a stream well inside it is easy.
"""

from collections.abc import Callable, Iterator
from random import Random

import msgspec

from kickwatch.detect.recovery import CONFIDENT, PLAIN
from kickwatch.detect.relative import TOLERANCE, Reference
from kickwatch.detect.simulate.coins import coin_over, daily, shortened, storms, wandering
from kickwatch.detect.simulate.laws import DAY, Source, draw, draws, from_masses, poisson, two_point
from kickwatch.detect.streams import CREATION_PATH, StreamName, allowance_of
from kickwatch.detect.swap import FAIR_COIN
from kickwatch.detect.wager import Null, Wager

SIGNATURE = allowance_of(StreamName.SIGNATURE)
BPF = allowance_of(StreamName.BPF)
SWEEPS = allowance_of(StreamName.SWEEPS)
ALLOWED = CREATION_PATH.mean
CLIP = CREATION_PATH.clip


class Scenario(msgspec.Struct, frozen=True):
    """A healthy stream: its name, the wager that watches it, and its observations.

    The nearer its run length is to the bound, the more runs it takes to show a difference (`effort` times the usual
    number), and the lower is the highest threshold for which there is time.
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
    """The wager on slab creation that kicks all CPUs, which no healthy kernel does."""
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
    """After a broadcast come bursts, for 50 observations, and then calm again; the mean given the past is constant."""
    calm, burst = poisson(ALLOWED), two_point(CLIP, ALLOWED)
    excited = 0
    while True:
        x = draw(burst if excited else calm, random)
        excited = 50 if x > 0.0 else max(excited - 1, 0)
        yield x


def mislabelled(random: Random) -> Iterator[float]:
    """One container in a hundred gets the destroy path's 58 broadcasts; the others have 0.01 each."""
    own = poisson(ALLOWED - 0.01 * CLIP)
    while True:
        yield 58.0 if random.random() < 0.01 else draw(own, random)


def stalls(random: Random) -> Iterator[float]:
    """The engine stalls, and the container after the stall gets all broadcasts that came meanwhile."""
    usual = ALLOWED / 5
    laws = [poisson(usual * length) for length in range(1, 6)]
    while True:
        length = random.randint(1, 5) if random.random() < 0.1 else 1
        yield draw(laws[length - 1], random)


def signature_bursts(random: Random) -> Iterator[float]:
    """Bursts that reach the high clip of the signature, as rarely as the allowance requires."""
    return draws(two_point(SIGNATURE.clip, SIGNATURE.mean), random)


def bpf_bursts(random: Random) -> Iterator[float]:
    """Trials without any BPF program, and trials with eight times the allowance."""
    return draws(two_point(BPF.clip, BPF.mean), random)


def sweep_bursts(random: Random) -> Iterator[float]:
    """Trials without single requests, and trials full of them."""
    return draws(two_point(SWEEPS.clip, SWEEPS.mean), random)


def still_broadcasting(random: Random) -> Iterator[float]:
    """A fault in a quarter of the containers: with a fifth or more the recovery test must see no recovery."""
    for x in draws(two_point(1.0, PLAIN.mean * 1.25), random):
        yield 1.0 - x


def unchanged_cost(random: Random) -> Iterator[float]:
    """A cell that costs a quarter more under the new kernel, which the relative rule tolerates."""
    return overdispersed(16.0 * TOLERANCE)(random)


def overdispersed(mean: float) -> Source:
    """Requests per container: Poisson around a level that varies from container to container by a third."""
    laws = [poisson(mean * level / 12) for level in (6, 8, 10, 11, 12, 13, 14, 16, 18)]

    def source(random: Random) -> Iterator[float]:
        while True:
            yield draw(random.choice(laws), random)

    return source


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
