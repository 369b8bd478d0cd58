"""Tosses of a fair coin over backgrounds that no container causes: what a coin stream observes on a healthy node."""

from collections.abc import Callable, Iterator
from math import pi, sin
from random import Random

from kickwatch.detect.simulate.laws import DAY, Source, draw, poisson


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


def daily(random: Random) -> Iterator[float]:  # noqa: ARG001 - this background is not random; the others are
    """A background that swings between 0 and 8 by the time of day."""
    while True:
        for minute in range(DAY):
            yield 4.0 + 4.0 * sin(2.0 * pi * minute / DAY)


def wandering(random: Random) -> Iterator[float]:
    """A background that drifts at random between 0 and 30."""
    level = 5.0
    while True:
        level = min(max(level + random.gauss(0.0, 0.3), 0.0), 30.0)
        yield level


def storms(random: Random) -> Iterator[float]:
    """A low background, with storms that last for about 30 windows."""
    storm = False
    while True:
        storm = random.random() < (0.97 if storm else 0.01)
        yield 20.0 if storm else 0.3


def shortened(random: Random) -> Iterator[float]:
    """A stall always shortens the second window of a trial: it has half of the background."""
    while True:
        level = random.uniform(1.0, 6.0)
        yield level
        yield level / 2
