"""Probabilities of false alarms at the real threshold, 5.3e8, which no plain simulation reaches.

The detector's sum R is a mixture of likelihood ratios: of "the change came at s, and bet k knows the law after it"
against the null. If observations are drawn from that mixture, with s uniform over n observations, an alarm at T has the
weight n / (R + n - T), which is at most n / A. The mean weight is the probability of an alarm within n observations
under the null, and no rare event is needed to estimate it. This holds for independent observations whose clipped mean
is the allowance.
"""

from collections.abc import Callable
from itertools import chain, islice
from random import Random

import msgspec

from kickwatch.detect.edetector import EDetector
from kickwatch.detect.eprocess import EProcess
from kickwatch.detect.oneshot import FAULTY_SHARE, NONE_AT_ALL
from kickwatch.detect.pairs import DIFFERENT_SHARE, LARGEST_DIFFERENCE, PairWager
from kickwatch.detect.simulate.laws import draws, from_masses, poisson_masses
from kickwatch.detect.simulate.nulls import attributed, fair_coin, signature
from kickwatch.detect.streams import CREATION_PATH, StreamName, allowance_of
from kickwatch.detect.wager import Null, Wager

SIGNATURE = allowance_of(StreamName.SIGNATURE)
Masses = dict[float, float]
LONGEST_RUN = 2000  # containers of one `kickwatch trial`


class RareNull(msgspec.Struct, frozen=True):
    """An independent null at its edge, by its masses, with the wager that watches it."""

    name: str
    wager: Callable[[], Wager]
    masses: Masses


class RareError(msgspec.Struct, frozen=True):
    """A wrong verdict of `kickwatch trial`: the test that gives it, and the law under which it is wrong."""

    name: str
    wager: Callable[[], Wager]
    masses: Masses


def _two(high: float, mean: float) -> Masses:
    return {0.0: 1.0 - mean / high, high: mean / high}


def _quiet() -> Wager:
    return Wager(Null(1.0 - FAULTY_SHARE, 1.0), NONE_AT_ALL)


# Differences of pairs, in trials of one. In the second, halves differ without containers as much as bets can see.
_DIFFER = _two(float(LARGEST_DIFFERENCE), DIFFERENT_SHARE * LARGEST_DIFFERENCE)
_FAIR = (1.0 - DIFFERENT_SHARE) / 2.0
_DIFFER_BESIDE_NOISE = {-float(LARGEST_DIFFERENCE): _FAIR, float(LARGEST_DIFFERENCE): _FAIR + DIFFERENT_SHARE}

RARE_NULLS = (
    RareNull("attributed: poisson at the allowance", attributed, poisson_masses(CREATION_PATH.mean)),
    RareNull("attributed: bursty", attributed, _two(CREATION_PATH.clip, CREATION_PATH.mean)),
    RareNull("signature: bursts at the clip", signature, _two(SIGNATURE.clip, SIGNATURE.mean)),
    RareNull("swap: fair coin", fair_coin, _two(1.0, 0.5)),
    RareNull("pairs: 1 container in 20 differs", PairWager, _DIFFER),
    RareNull("pairs: the same, a busy background", PairWager, _DIFFER_BESIDE_NOISE),
)

_HALF = poisson_masses(0.5)
RARE_ERRORS = (
    RareError("broadcasting, though 0.05 per container (poisson)", attributed, poisson_masses(CREATION_PATH.mean)),
    RareError("broadcasting, though 0.05 per container (bursts of 4)", attributed, _two(4.0, CREATION_PATH.mean)),
    RareError("quiet, though one container in three broadcasts", _quiet, {0.0: FAULTY_SHARE, 1.0: 1 - FAULTY_SHARE}),
    RareError("quiet, though 0.5 per container (poisson)", _quiet, {1.0: _HALF[0.0], 0.0: 1.0 - _HALF[0.0]}),
    RareError("broadcasting by pairs, though 1 container in 20 differs", PairWager, _DIFFER),
)


def alarm_weight(null: RareNull, threshold: float, horizon: int, random: Random) -> float:
    """One weight; their mean is the probability of a false alarm within `horizon` observations."""
    wager = null.wager()
    change = random.randrange(horizon)
    chosen = _tilted(null.masses, wager, _pick(wager, random))
    before = islice(draws(from_masses(null.masses), random), change)
    after = islice(draws(from_masses(chosen), random), horizon - change)
    detector = EDetector(wager, threshold)
    state, alarmed = detector.scan(detector.start(), chain(before, after))
    return horizon / (sum(state.values) + horizon - state.steps) if alarmed else 0.0


def error_weight(error: RareError, alpha: float, random: Random) -> float:
    """One weight; their mean is the probability that the wrong verdict is ever reached within 2000 containers."""
    wager = error.wager()
    process = EProcess(wager)
    source = draws(from_masses(_tilted(error.masses, wager, _pick(wager, random))), random)
    state = process.start()
    while state.steps < LONGEST_RUN and not state.reaches(1.0 / alpha):
        state = process.step(state, next(source))
    if not state.reaches(1.0 / alpha):
        return 0.0
    # In the interior of the null the money shrinks on average; the likelihood ratio does not.
    ratios = zip(state.values, _means(error.masses, wager), strict=True)
    return 1.0 / sum(value / mean**state.steps for value, mean in ratios)


def _pick(wager: Wager, random: Random) -> int:
    return random.choices(range(len(wager.stakes)), weights=wager.stakes)[0]


def _tilted(masses: Masses, wager: Wager, bet: int) -> Masses:
    """The law for which a bet is the best: each mass times the bet's factor."""
    tilted = {x: mass * wager.factors(x)[bet] for x, mass in masses.items()}
    whole = sum(tilted.values())
    return {x: mass / whole for x, mass in tilted.items()}


def _means(masses: Masses, wager: Wager) -> tuple[float, ...]:
    """The mean factor of each bet under the law: 1 at the edge of the null, less inside."""
    rows = [(mass, wager.factors(x)) for x, mass in masses.items()]
    return tuple(sum(mass * factors[bet] for mass, factors in rows) for bet in range(len(wager.stakes)))
