"""Healthy pairs of halves of the kinds that are hardest for their test.

Time is a row of halves, two for each pair. Most scenarios have no container that makes a difference: they show that the
coin is fair, so the bets allow for none, which is the harder test. Those in which one container in 20 makes a
difference are at the edge of the null, and have the bets of the streams.
"""

from collections.abc import Callable, Iterator
from random import Random

import msgspec

from kickwatch.detect.pair_detector import PairDetector
from kickwatch.detect.pairs import DIFFERENT_SHARE, PairWager
from kickwatch.detect.simulate.laws import draw, poisson

PAIRS_PER_TRIAL = 4
NONE_DIFFERENT = 2.0**-64  # as an allowance: so small that the sum with 1 is 1
LARGE = 6.0  # broadcasts of a container that makes a difference: a static key that is flipped twice
STORM = 6.0  # broadcasts of a half in which something else is busy
CALM = 0.1

_LAWS = [poisson(0.1 * step) for step in range(121)]

Levels = Callable[[Random], Iterator[float]]


class PairedNode(msgspec.Struct, frozen=True):
    """A node without a fault, and the hard things on it.

    `levels`: the mean of each half's background; `carried`: the part of a half's broadcasts that come once more in the
    next one, as work left over; `follows`: what follows a half with our load, `lag` halves later; `slow_if_busy`,
    `slow_if_calm`: the shares of containers that outlast their half while the background is above `STORM` / 2 and below
    it; `different`: the share of containers that make a difference.
    """

    levels: Levels
    carried: float = 0.0
    follows: float = 0.0
    lag: int = 1
    slow_if_busy: float = 0.0
    slow_if_calm: float = 0.0
    different: float = 0.0

    def trials(self, random: Random) -> Iterator[tuple[float, ...]]:
        """The differences of trial after trial, without end."""
        pairs = self._pairs(random)
        while True:
            yield tuple(next(pairs) for _ in range(PAIRS_PER_TRIAL))

    def _pairs(self, random: Random) -> Iterator[float]:
        levels, last = self.levels(random), 0.0
        late = [0.0] * (self.lag + 1)  # what follows our load in this half and the next ones
        while True:
            churn_first = random.random() < 0.5
            halves, outlasted = [0.0, 0.0], False
            for place in (0, 1):
                level = next(levels)
                count = _count(level, random) + int(last * self.carried) + late.pop(0)
                late.append(0.0)
                if (place == 0) is churn_first:
                    outlasted = random.random() < (self.slow_if_busy if level > STORM / 2 else self.slow_if_calm)
                    late[self.lag - 1] += _count(self.follows, random)
                    count += LARGE if random.random() < self.different else 0.0
                halves[place] = last = count
            difference = halves[0] - halves[1] if churn_first else halves[1] - halves[0]
            yield min(difference, 0.0) if outlasted else difference


class PairScenario(msgspec.Struct, frozen=True):
    """A healthy stream of pairs; `allowed`: the share of containers that the bets allow to make a difference.

    `effort`: times as many runs as usual, where the run length is near the bound.
    """

    name: str
    node: PairedNode
    allowed: float = NONE_DIFFERENT
    effort: int = 1

    def detector(self, threshold: float) -> PairDetector:
        """The detector that watches it."""
        return PairDetector(threshold, PairWager(self.allowed))


def _count(mean: float, random: Random) -> float:
    return draw(_LAWS[min(int(mean * 10.0), 120)], random) if mean else 0.0


def idle(random: Random) -> Iterator[float]:  # noqa: ARG001 - nothing is random here
    """No background."""
    while True:
        yield 0.0


def busy(random: Random) -> Iterator[float]:  # noqa: ARG001 - nothing is random here
    """Two broadcasts in each half, on average."""
    while True:
        yield 2.0


def storms(random: Random) -> Iterator[float]:
    """Bursts that last for about ten halves, and as long a calm between them."""
    storm = False
    while True:
        storm = random.random() < (0.9 if storm else 0.1)
        yield STORM if storm else CALM


def gusts(random: Random) -> Iterator[float]:
    """Bursts of a half or two: one half of a pair often has one, and the other none."""
    storm = False
    while True:
        storm = random.random() < (0.4 if storm else 0.3)
        yield STORM if storm else CALM


def rising(random: Random) -> Iterator[float]:  # noqa: ARG001 - nothing is random here
    """A drift: the background rises from half to half, and falls between trials. The second half has always more."""
    while True:
        for half in range(2 * PAIRS_PER_TRIAL):
            yield 1.5 * half


PAIR_NULLS = (
    PairScenario("pairs: bursts longer than a half", PairedNode(storms), effort=8),
    PairScenario("pairs: drift", PairedNode(rising), effort=8),
    PairScenario("pairs: work left over from the half before", PairedNode(gusts, carried=0.9), effort=8),
    PairScenario("pairs: half of the lives outlast their half", PairedNode(busy, slow_if_calm=0.5)),
    PairScenario("pairs: lives outlast their half in busy times", PairedNode(gusts, slow_if_busy=0.9)),
    PairScenario("pairs: lives outlast their half in calm times", PairedNode(gusts, slow_if_calm=0.9)),
    PairScenario("pairs: a background that follows our load in the next half", PairedNode(gusts, follows=3.0)),
    PairScenario("pairs: the same two halves later", PairedNode(gusts, follows=3.0, lag=2), effort=8),
    PairScenario("pairs: 1 container in 20 differs", PairedNode(idle, different=DIFFERENT_SHARE), DIFFERENT_SHARE, 8),
    PairScenario(
        "pairs: 1 container in 20 differs, a busy background",
        PairedNode(busy, different=DIFFERENT_SHARE),
        DIFFERENT_SHARE,
        8,
    ),
    PairScenario(
        "pairs: all of this at once",
        PairedNode(gusts, carried=0.5, follows=1.0, slow_if_busy=0.5, slow_if_calm=0.1, different=DIFFERENT_SHARE),
        DIFFERENT_SHARE,
    ),
)
