"""Healthy streams that break the promise "the mean given the past is at most the allowance".

A real node might break it in these ways. Nothing is promised there; the study measures what happens.
"""

from collections.abc import Iterator
from random import Random

from kickwatch.detect.classes import LEARNING_CONTAINERS, SPARE
from kickwatch.detect.classes import TOLERANCE as BPF_TOLERANCE
from kickwatch.detect.simulate.laws import DAY, Source, draw, poisson
from kickwatch.detect.simulate.nulls import Scenario, attributed, bpf, overdispersed


def learnt_by_scatter(random: Random) -> Iterator[float]:
    """The allowance is learnt from ten containers whose cost scatters by a third; trials of 23 follow."""
    source = overdispersed(16.0)(random)
    learnt = sum(next(source) for _ in range(LEARNING_CONTAINERS)) / LEARNING_CONTAINERS
    allowed = BPF_TOLERANCE * learnt + SPARE
    while True:
        yield sum(next(source) for _ in range(23)) / 23 / allowed


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
    """Stalls of up to 400 observations; the whole background of 0.01 each counts for two containers."""
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
