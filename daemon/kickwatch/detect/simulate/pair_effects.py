"""Faults that only the pairs can prove: how many containers it takes, in one run and in the daemon."""

from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

import msgspec

from kickwatch.detect.detectors import shares_of
from kickwatch.detect.oneshot import OneShot
from kickwatch.detect.pair_detector import PairDetector
from kickwatch.detect.pairs import DIFFERENT_SHARE, PairWager
from kickwatch.detect.rates import Pace
from kickwatch.detect.simulate.laws import draw, poisson
from kickwatch.detect.simulate.pair_nulls import NONE_DIFFERENT
from kickwatch.detect.streams import StreamName, allowance_of
from kickwatch.model import Verdict

EXACT, POISSON = "exact", "poisson"
LONGEST = 2000  # containers
DEFAULT_PACE = Pace(containers=23, period_s=1380.0)  # of the preset `sentinel`
THRESHOLD = next(share.threshold for share in shares_of(DEFAULT_PACE) if share.name == StreamName.ELSEWHERE_PAIRS.value)


class PairEffect(msgspec.Struct, frozen=True):
    """A fault of `broadcasts_per_container` from elsewhere, beside a background of `background` per half (Poisson).

    `one_run`: in `kickwatch trial`; otherwise in the daemon, from no evidence, in trials of pairs. `allowed`: the share
    of containers that the bets allow to make a difference.
    """

    broadcasts_per_container: float
    law: str
    background: float
    one_run: bool
    allowed: float = DIFFERENT_SHARE

    def differences(self, random: Random) -> Iterator[float]:
        """Of pair after pair, without end."""
        background, law = poisson(self.background), poisson(self.broadcasts_per_container)
        while True:
            effect = self.broadcasts_per_container if self.law == EXACT else draw(law, random)
            churn, quiet = (draw(background, random) if self.background else 0.0 for _ in range(2))
            yield churn + effect - quiet

    def containers(self) -> Callable[[Random], int]:
        """A function that draws how many containers it takes."""
        wager = PairWager(self.allowed)
        if self.one_run:
            test = OneShot(canary=_CANARY, signature=_SIGNATURE, pairs=wager)
            return lambda random: _in_one_run(test, self.differences(random))
        detector = PairDetector(THRESHOLD, wager)
        return lambda random: _in_the_daemon(detector, self.differences(random))


_CANARY, _SIGNATURE = allowance_of(StreamName.CANARY), allowance_of(StreamName.SIGNATURE)
_FAULTS = (
    (1.0, EXACT, 0.0),
    (1.0, EXACT, 0.2),
    (1.0, EXACT, 1.0),
    (1.0, POISSON, 0.1),
    (0.5, POISSON, 0.1),
    (6.0, EXACT, 0.2),
    (6.0, EXACT, 3.0),
    (3.0, POISSON, 1.0),
)
PAIR_EFFECTS = tuple(
    PairEffect(each, law, background, one_run, allowed)
    for each, law, background in _FAULTS
    for one_run in (True, False)
    for allowed in (DIFFERENT_SHARE, NONE_DIFFERENT)
)


def _in_one_run(test: OneShot, differences: Iterator[float]) -> int:
    run = test.start()
    for used, difference in enumerate(islice(differences, LONGEST), 1):
        run = test.paired(msgspec.structs.replace(run, differences=()), (difference,))
        if run.verdict is Verdict.BROADCASTING:
            return used
    return LONGEST


def _in_the_daemon(detector: PairDetector, differences: Iterator[float]) -> int:
    wealth, size = detector.start(), DEFAULT_PACE.containers
    for before in range(0, LONGEST, size):
        trial = tuple(islice(differences, size))
        after, alarmed = detector.scan(wealth, trial)
        if alarmed:
            return before + next(used for used in range(1, size + 1) if detector.scan(wealth, trial[:used])[1])
        wealth = after
    return LONGEST
